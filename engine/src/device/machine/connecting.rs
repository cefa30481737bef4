//! The way to the pool: attempts, losses, and the outages of the emulated link.

use super::super::extras::Outage;
use super::super::generation::UploadState;
use super::super::message::{Output, WakeReason};
use super::{DeviceMachine, NEVER};
use crate::time::Time;

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// There is none; if one was asked for, the answer is due.
    Down,
    /// The last attempt failed; the next one is due then.
    Retry(Time),
    Up,
    /// The link is lost until then.
    Outage(Time),
    /// The device is done for good.
    Gone,
}

impl DeviceMachine {
    pub(super) fn join(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some(extras) = &mut self.extras {
            extras.joined(&self.settings, self.device, now);
        }
        if !self.settings.connects() {
            out.push(Output::Ready);
        } else if let Some(outage) = self.outage().filter(|outage| outage.from <= now) {
            self.connection = ConnectionState::Outage(outage.to);
        } else {
            out.push(Output::Connect);
        }
    }

    pub(super) fn connected(&mut self, now: Time, out: &mut Vec<Output>) {
        if matches!(self.connection, ConnectionState::Outage(_)) {
            return;
        }
        self.connection = ConnectionState::Up;
        self.failures = 0;
        self.silent_since = NEVER;
        match &self.generation {
            None => out.push(Output::Ready),
            Some(generation) => {
                if let UploadState::Blocked { drafts } = generation.network {
                    self.begin_upload(now, drafts);
                }
            }
        }
    }

    pub(super) fn disconnected(&mut self, now: Time) {
        if matches!(self.connection, ConnectionState::Outage(_)) {
            return;
        }
        self.failures += 1;
        self.connection = ConnectionState::Retry(now + self.settings.retry.delay(self.failures));
        self.lose_uploads(now);
    }

    /// The pool has freed the session: the next upload carries everything.
    fn lose_uploads(&mut self, now: Time) {
        let Some(generation) = &mut self.generation else { return };
        generation.uploaded = 0;
        match generation.network {
            UploadState::Quiet | UploadState::Blocked { .. } => {}
            UploadState::Awaiting { drafts, .. } => {
                generation.uploads.cancelled += 1;
                generation.network = UploadState::Blocked { drafts };
            }
            UploadState::Sending { drafts, .. } | UploadState::Backoff { drafts, .. } => {
                generation.network = UploadState::Blocked { drafts };
            }
        }
        if !matches!(generation.network, UploadState::Quiet) {
            self.fall_silent(now);
        }
    }

    /// The pool does not answer from now on, if it did until now.
    pub(super) fn fall_silent(&mut self, now: Time) {
        self.silent_since = self.silent_since.min(now);
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// When the connection wants to be looked at again, and why.
    pub(super) fn connection_timeout(&self) -> Option<(Time, WakeReason)> {
        let next_outage = self.outage().map(|outage| (outage.from, WakeReason::Outage));
        match self.connection {
            ConnectionState::Outage(end) => Some((end, WakeReason::Outage)),
            ConnectionState::Retry(at) => Some((at, WakeReason::Reconnect)).into_iter().chain(next_outage).min(),
            ConnectionState::Down | ConnectionState::Up => next_outage,
            ConnectionState::Gone => None,
        }
    }

    /// Does what is due by now: an outage begins or ends, or the next attempt to connect is made.
    pub(super) fn connection_turn(&mut self, now: Time, out: &mut Vec<Output>) {
        if let ConnectionState::Outage(end) = self.connection {
            if end <= now {
                if let Some(extras) = &mut self.extras {
                    extras.next_outage(&self.settings, self.device);
                }
                self.connection = ConnectionState::Down;
                out.push(Output::Connect);
            }
        } else if let Some(outage) = self.outage().filter(|outage| outage.from <= now) {
            self.connection = ConnectionState::Outage(outage.to);
            out.push(Output::HangUp);
            self.lose_uploads(now);
        } else if let ConnectionState::Retry(at) = self.connection
            && at <= now
        {
            self.connection = ConnectionState::Down;
            out.push(Output::Connect);
        }
    }

    /// The outage that comes next, or the one that lasts.
    fn outage(&self) -> Option<Outage> {
        self.extras.as_ref().and_then(|extras| extras.outage())
    }
}
