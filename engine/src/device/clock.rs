//! The clock that a live device goes by.
//!
//! A device whose computing and link are both declared must not know how fast, or how busy, the machine is that emulates it
//! \[ours\]. So its machine is told of everything at the time at which it happens by the declared times, and in the order of
//! these times, however late the host is. A host that was late catches up: the next thing is due when it is due by the
//! declared times, and not later by what the host has lost. How late it became is overrun, which costs the device nothing
//! and is part of no time that is reported of it.
//!
//! While an upload is on its way nothing can reach the device, so it is sent ahead, together with the time at which it
//! arrives; and a device knows for how long nothing of it can arrive. A pool that goes by the same clock then knows of every
//! upload before it is due, and waits for a device that is late ([`crate::pool::Agenda`]).
//!
//! All other devices go by the host's clock.

use super::machine::{DeviceMachine, NEVER};
use super::message::WakeReason;
use crate::time::{Span, Time};

/// Which time a device's machine is told, by the host's clock or by declared times.
#[derive(Clone, Copy, Debug)]
pub struct DeviceClock {
    emulated: bool,
    now: Time,
    /// How late the host was at the last event.
    late: Span,
    /// When the pool was last heard of: what was due before could not be told.
    heard: Time,
    /// By how much it became later, since this was last taken.
    overrun: Span,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Timeout,
    /// The first of the frames on their way down.
    Arrival,
}

/// What a driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTurn {
    /// Tell the machine of this, at this time.
    Now(Time, Due),
    /// Nothing before this time of the host.
    At(Time),
    /// Nothing before something happens.
    Nothing,
}

/// When a machine may want something of the pool next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextAct {
    /// An upload is under way and arrives then.
    Arrives(Time),
    At(Time),
    /// When its upload is answered.
    OnAnswer,
    /// When it has a connection.
    OnConnection,
    /// When it is given a generation.
    OnStart,
}

impl DeviceClock {
    /// The clock of this machine's device.
    pub fn new(machine: &DeviceMachine) -> DeviceClock {
        let emulated = machine.settings().is_emulated();
        DeviceClock { emulated, now: Time::ZERO, late: Span::ZERO, heard: Time::ZERO, overrun: Span::ZERO }
    }

    /// When the last event happened.
    pub fn now(&self) -> Time {
        self.now
    }

    /// When something arrives at the pool that is sent now and has no payload.
    pub fn arrival(&self, machine: &DeviceMachine) -> Time {
        self.now + machine.settings().link.propagation()
    }

    /// What comes first of the machine's timeout and the `arrival` of a frame, and whether its time has come at `host`.
    pub fn next(&self, machine: &DeviceMachine, arrival: Option<Time>, host: Time) -> NextTurn {
        let (at, due, reason) = match (arrival, machine.poll_timeout()) {
            (None, None) => return NextTurn::Nothing,
            (Some(at), Some((timeout, _))) if at <= timeout => (at, Due::Arrival, None),
            (Some(at), None) => (at, Due::Arrival, None),
            (_, Some((at, reason))) => (at, Due::Timeout, Some(reason)),
        };
        if !self.emulated {
            return if at <= host { NextTurn::Now(host, due) } else { NextTurn::At(at) };
        }
        if machine.step_ends().is_some_and(|ends| ends <= at) {
            // The step comes first, as late as its result may be.
            return NextTurn::Nothing;
        }
        if let (Some(WakeReason::StepTime), None, Some(until)) = (reason, arrival, machine.awaits_until()) {
            // The answer may come before the end of what was drafted meanwhile, and is not known yet.
            let from = until + self.late;
            return if from <= host { NextTurn::Now(at.max(self.now), due) } else { NextTurn::At(from) };
        }
        let from = match reason {
            Some(WakeReason::StepTime | WakeReason::Uplink) if machine.is_sending() => Time::ZERO,
            // A pool that is as late as it was is not out of reach.
            Some(WakeReason::VerdictTimeout | WakeReason::Unreachable) => at + self.late,
            _ => at,
        };
        if from <= host { NextTurn::Now(at.max(self.now), due) } else { NextTurn::At(from) }
    }

    /// Nothing of this device arrives at the pool before that time: half a round trip after whatever it does next. `None` while
    /// it waits for an answer, which the pool knows first. `answered`: when the last answer has come down that is on its way;
    /// `starts_again`: a device without a generation gets one at once.
    pub fn promise(&self, machine: &DeviceMachine, answered: Option<Time>, starts_again: bool) -> Option<Time> {
        let half = machine.settings().link.propagation();
        match (machine.acts_next(), answered) {
            (NextAct::Arrives(at), _) => Some(at),
            (NextAct::At(at), _) => Some(at.max(self.now) + half),
            (NextAct::OnAnswer, answered) => answered.map(|at| at + half),
            (NextAct::OnStart, _) if starts_again => Some(self.now + half),
            (NextAct::OnStart | NextAct::OnConnection, _) => Some(NEVER),
        }
    }

    /// An event that was due at `at` is taken in at `host`.
    pub fn turn(&mut self, at: Time, host: Time) -> Time {
        self.now = self.now.max(at);
        // A device that goes by its host is never late.
        if self.emulated {
            let late = host.since(self.now.max(self.heard));
            self.overrun += late - self.late;
            self.late = late;
        }
        self.now
    }

    /// The result of a draft step is there. Where its time is declared it ends with a timeout, in its order.
    pub fn step_done(&mut self, host: Time) -> Time {
        if self.emulated { self.now } else { self.turn(host, host) }
    }

    /// A frame of the pool has come.
    pub fn heard(&mut self, host: Time) {
        self.heard = host;
    }

    /// A generation starts that was due at `scheduled`: at once, by what is declared, where the device was free.
    pub fn start(&mut self, scheduled: Time, host: Time) -> Time {
        self.turn(if self.emulated { scheduled.min(host) } else { host }, host)
    }

    /// Something has happened that is not emulated.
    pub fn happened(&mut self, host: Time) -> Time {
        self.turn(host, host)
    }

    /// By how much the host became late since this was last asked.
    pub fn take_overrun(&mut self) -> Span {
        std::mem::replace(&mut self.overrun, Span::ZERO)
    }
}
