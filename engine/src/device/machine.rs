//! One device's generation loop: draft → signals → gate → upload → await → commit or roll back.
//!
//! Call order: [`DeviceMachine::handle`] with whatever happened, then carry out what it appended to `out`, in order;
//! then ask [`DeviceMachine::poll_timeout`] and, when that time has come, call `handle` with [`Input::Timeout`]. Time
//! must not run backwards. Every `Step` is answered by `StepDone` (or `StepFailed`), every `Connect` by `Connected` or
//! `Disconnected`, unless `HangUp` comes between: it ends a connection and an attempt to make one alike, and nothing
//! more is heard of either. The machine asks for one step at a time and keeps at most one upload under way; nothing that
//! arrives late, twice or unasked changes a token.
//!
//! `Gone` answers `Leave` at once, behind the `Finished` of a generation under way, and follows a generation that ends as
//! [`FinishReason::Battery`]. After it every input is ignored. The battery is looked at when a token is committed and when a
//! generation starts, so it may be overdrawn by one round, or by one rest.
//!
//! The machine holds lengths, counters and the few drafts that are not decided yet; the tokens themselves live in the
//! driver's session store, which `Set` and `StepDone` keep in step.

mod committing;
mod connecting;
mod drafting;
mod uploading;

use std::hint::black_box;
use std::sync::Arc;

use super::attempt::Attempt;
use super::clock::NextAct;
use super::extras::DeviceConditions;
use super::gate::{GateReason, RunningMoments};
use super::generation::{Computing, PendingDraft, RunningGeneration, SendingCost, UploadState};
use super::link::{ChannelKey, Direction, LinkState};
use super::message::{Input, Output, Start, WakeReason};
use super::settings::{DeviceSettings, SettingsError};
use crate::id::{DeviceId, UploadId};
use crate::method::Writer;
use crate::record::{DeviceCounts, DeviceTimes, FinishReason, Source, UploadCounts};
use crate::time::{Span, Time};
use connecting::ConnectionState;

/// A time that has not come.
pub(super) const NEVER: Time = Time(u64::MAX);

/// A device's decisions: a state machine that is told what happened and says what to do.
#[derive(Debug)]
pub struct DeviceMachine {
    settings: Arc<DeviceSettings>,
    device: DeviceId,
    /// Sessions are numbered per device, so that a late frame of an earlier generation is told apart.
    session: u32,
    next_upload: u32,
    /// Connection attempts, refusals or timeouts in a row.
    failures: u32,
    connection: ConnectionState,
    /// Since when the pool has not answered although it was asked; [`NEVER`] while it answers.
    silent_since: Time,
    link: LinkState,
    /// Until when the account below is written.
    accounted: Time,
    computing: Option<Computing>,
    generation: Option<Box<RunningGeneration>>,
    /// Apart, because few settings need it and there may be a million machines.
    extras: Option<Box<DeviceConditions>>,
}

impl DeviceMachine {
    /// A device without a connection and without a generation.
    pub fn new(device: DeviceId, settings: Arc<DeviceSettings>) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(DeviceMachine {
            extras: DeviceConditions::of(&settings).map(Box::new),
            settings,
            device,
            session: 0,
            next_upload: 0,
            failures: 0,
            connection: ConnectionState::Down,
            silent_since: NEVER,
            link: LinkState::default(),
            accounted: Time::ZERO,
            computing: None,
            generation: None,
        })
    }

    /// The settings it runs under.
    pub fn settings(&self) -> &Arc<DeviceSettings> {
        &self.settings
    }

    /// The pool's session number of the running (or last) generation.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Whether its own time (of a draft step, or until an upload has left) is all that the device waits for: nothing that
    /// others do can reach it before.
    pub fn waits_for_nobody(&self) -> bool {
        match self.generation.as_ref().map(|generation| generation.network) {
            Some(UploadState::Quiet) => self.computing.as_ref().is_some_and(|computing| computing.held.is_some()),
            Some(UploadState::Sending { .. }) => {
                self.computing.as_ref().is_none_or(|computing| computing.held.is_some())
            }
            _ => false,
        }
    }

    /// Whether an upload is on its way to the pool: until it has arrived nobody answers it.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.generation.as_ref().map(|generation| generation.network), Some(UploadState::Sending { .. }))
    }

    /// When it may want something of the pool next.
    pub(super) fn acts_next(&self) -> NextAct {
        let Some(generation) = &self.generation else { return NextAct::OnStart };
        match generation.network {
            UploadState::Quiet => {
                NextAct::At(self.computing.as_ref().map_or(self.accounted, |computing| computing.due(&self.settings)))
            }
            UploadState::Blocked { .. } => NextAct::OnConnection,
            UploadState::Sending { until, .. } => NextAct::Arrives(until),
            UploadState::Awaiting { .. } => NextAct::OnAnswer,
            UploadState::Backoff { until, .. } => NextAct::At(until),
        }
    }

    /// Until when an upload waits for its answer; `None` where none does.
    pub(super) fn awaits_until(&self) -> Option<Time> {
        let generation = self.generation.as_ref()?;
        match generation.network {
            UploadState::Awaiting { deadline, .. } => {
                Some(self.unreachable_at(generation).map_or(deadline, |at| at.min(deadline)))
            }
            _ => None,
        }
    }

    /// When the draft step under way ends by what is declared for it, while its result is not known.
    pub(super) fn step_ends(&self) -> Option<Time> {
        self.computing.as_ref().filter(|computing| computing.held.is_none()).map(|step| step.due(&self.settings))
    }

    /// Reads a little of everything that the next input needs, so that a driver can have the memory of many devices fetched at
    /// once.
    pub fn prefetch(&self) {
        black_box((self.device, self.accounted, self.computing.is_some(), self.silent_since));
        if let Some(generation) = self.generation.as_deref() {
            let RunningGeneration {
                id,
                committed,
                price,
                scheduled,
                times,
                airtime_up,
                counts,
                uploads,
                cloud_paper,
                ..
            } = generation;
            black_box((
                *id,
                *committed,
                *price,
                *scheduled,
                times.waiting,
                *airtime_up,
                *counts,
                *uploads,
                *cloud_paper,
            ));
            black_box(generation.pending.first().map(|pending| (pending.token, pending.ready)));
        }
    }

    /// Bytes this device holds in memory, heap included.
    pub fn bytes(&self) -> usize {
        let generation = self
            .generation
            .as_ref()
            .map_or(0, |g| size_of::<RunningGeneration>() + g.pending.capacity() * size_of::<PendingDraft>());
        let extras = self.extras.as_ref().map_or(0, |_| size_of::<DeviceConditions>());
        size_of::<Self>() + generation + extras
    }

    /// When a frame left the pool that comes at `host` and answers `upload`, which the pool had for `pool`. On an emulated
    /// device the accounts say so, and not the machine that emulates both.
    pub fn left_pool(&mut self, host: Time, upload: UploadId, pool: Span) -> Time {
        let emulated = self.settings.is_emulated();
        match &mut self.generation {
            Some(generation) if emulated && generation.network.awaits(upload) => generation.attempt.leaves_pool(pool),
            _ => host,
        }
    }

    /// A frame of `bits` nominal bits starts to arrive at `now`: charges the radio and says when (and after what span)
    /// the driver must hand it to [`Self::handle`].
    pub fn receive(&mut self, now: Time, bits: u64) -> (Time, Span) {
        let settings = &self.settings;
        let key = match &mut self.generation {
            Some(generation) => generation.attempt.next_frame(generation.channel(settings.seed)),
            None => ChannelKey { seed: settings.seed, ..ChannelKey::default() },
        };
        let arrival = self.link.transfer(&settings.link, key, Direction::Down, now, bits);
        if let Some(generation) = &mut self.generation {
            generation.airtime_down += arrival.airtime;
        }
        (arrival.arrives, arrival.arrives.since(now))
    }

    /// Takes in what happened at `now` and appends what to do about it to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        if self.connection == ConnectionState::Gone {
            return;
        }
        self.account(now);
        // By reference: what has just been written in parts is slow to copy as a whole.
        match &input {
            Input::Join => self.join(now, out),
            Input::Start(start) => self.start(now, *start),
            Input::StepDone(result) => self.step_done(now, result, out),
            Input::StepFailed => self.step_failed(now),
            Input::Sent { upload, bytes } => self.sent(*upload, *bytes),
            Input::Verdict(verdict) => self.verdict(now, verdict, out),
            Input::Refused(refusal) => self.refused(now, *refusal, out),
            Input::Connected => self.connected(now, out),
            Input::Disconnected => self.disconnected(now),
            Input::Timeout => self.timeout(now, out),
            Input::Leave => self.leave(now, out),
        }
        self.advance(now, out);
    }

    /// When to call [`Self::handle`] with [`Input::Timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Time, WakeReason)> {
        let mut earliest: Option<(Time, WakeReason)> = self.connection_timeout();
        let mut offer = |at: Time, reason| {
            if earliest.is_none_or(|(best, _)| at < best) {
                earliest = Some((at, reason));
            }
        };
        if let Some(computing) = self.computing.as_ref().filter(|c| c.held.is_some()) {
            offer(computing.due(&self.settings), WakeReason::StepTime);
        }
        if let Some(generation) = &self.generation {
            match generation.network {
                UploadState::Quiet | UploadState::Blocked { .. } => {}
                UploadState::Sending { until, .. } => offer(until, WakeReason::Uplink),
                UploadState::Awaiting { deadline, .. } => offer(deadline, WakeReason::VerdictTimeout),
                UploadState::Backoff { until, .. } => offer(until, WakeReason::Retry),
            }
            if let Some(at) = self.unreachable_at(generation) {
                offer(at, WakeReason::Unreachable);
            }
        }
        earliest
    }

    // ---- inputs ------------------------------------------------------------------------------------------------

    fn start(&mut self, now: Time, start: Start) {
        if self.generation.is_some() {
            return;
        }
        self.session += 1;
        let limit = self.settings.limit(start.prompt_tokens);
        if let Some(extras) = &mut self.extras {
            extras.rested(&self.settings, now);
        }
        let ending = if self.battery_is_empty() {
            Some(FinishReason::Battery)
        } else {
            (limit == 0).then_some(FinishReason::Length)
        };
        self.generation = Some(Box::new(RunningGeneration {
            id: start.generation,
            data_set: start.data_set,
            prompt: start.prompt_tokens,
            limit,
            committed: start.prompt_tokens,
            uploaded: 0,
            kv: 0,
            rejections: 0,
            pending: Vec::new(),
            moments: RunningMoments::default(),
            network: UploadState::Quiet,
            upload_reason: GateReason::Always,
            price: f32::NAN,
            cost: SendingCost::NONE,
            attempt: Attempt::NONE,
            ending,
            scheduled: start.scheduled,
            started: now,
            first_token: NEVER,
            last_token: start.scheduled,
            times: DeviceTimes::default(),
            told_waiting: Span::ZERO,
            airtime_up: Span::ZERO,
            airtime_down: Span::ZERO,
            counts: DeviceCounts::default(),
            uploads: UploadCounts::default(),
            cloud: 0,
            cloud_paper: 0,
        }));
    }

    fn timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        self.connection_turn(now, out);
        if self.computing.as_ref().is_some_and(|c| c.held.is_some() && c.due(&self.settings) <= now) {
            self.finish_step(now, out);
        }
        if let Some(generation) = &self.generation
            && self.unreachable_at(generation).is_some_and(|at| at <= now)
        {
            self.give_up_on_pool(now, out);
        }
        let Some(generation) = &self.generation else { return };
        match generation.network {
            UploadState::Sending { drafts, until } if until <= now => self.send(now, drafts, out),
            UploadState::Awaiting { drafts, upload, deadline } if deadline <= now => {
                self.cancel(now, upload, out);
                self.begin_upload(now, drafts);
            }
            UploadState::Backoff { drafts, until } if until <= now => self.begin_upload(now, drafts),
            _ => {}
        }
    }

    // ---- the loop ----------------------------------------------------------------------------------------------

    /// Decides and asks for whatever can be decided and asked for now.
    fn advance(&mut self, now: Time, out: &mut Vec<Output>) {
        loop {
            let Some(generation) = &self.generation else { return };
            if generation.ending.is_some() {
                self.end(now, out);
                return;
            }
            if !matches!(generation.network, UploadState::Quiet) {
                if self.settings.method.draft_ahead && self.may_draft_ahead() {
                    self.ask_for_draft(now, out);
                }
                return;
            }
            if self.settings.method.writer == Writer::Verifier {
                self.begin_upload(now, 0);
                return;
            }
            match self.decide(now) {
                None => {
                    self.ask_for_draft(now, out);
                    return;
                }
                Some((drafts, reason)) if reason.uploads() => {
                    if let Some(generation) = &mut self.generation {
                        generation.upload_reason = reason;
                    }
                    self.begin_upload(now, drafts);
                }
                Some((_, reason)) => self.commit_draft(now, Source::Skipped, reason, out),
            }
        }
    }

    // ---- ends --------------------------------------------------------------------------------------------------

    /// The device leaves now, in the middle of whatever it does. A draft step under way is given up: its time counts as
    /// overrun, its declared energy in full.
    fn leave(&mut self, now: Time, out: &mut Vec<Output>) {
        if let (Some(computing), Some(generation)) = (self.computing.take(), &mut self.generation) {
            generation.times.overrun += now.since(computing.since);
        }
        if let Some(generation) = &mut self.generation {
            generation.ending.get_or_insert(FinishReason::Left);
            self.end(now, out);
        }
        if self.connection != ConnectionState::Gone {
            self.connection = ConnectionState::Gone;
            out.push(Output::Gone);
        }
    }

    /// Closes the generation, once the step under way is over (its time belongs to this generation).
    fn end(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.computing.is_some() {
            return;
        }
        let Some(mut generation) = self.generation.take() else { return };
        if let UploadState::Awaiting { upload, .. } = generation.network {
            generation.uploads.cancelled += 1;
            out.push(Output::Cancel(upload));
        }
        generation.counts.wasted_drafts += generation.pending.len() as u64;
        let record = generation.close(now, self.device, &self.settings);
        let last = record.finish.is_last();
        if let Some(extras) = &mut self.extras {
            extras.worked(now, record.energy.device + record.energy.radio);
        }
        out.push(Output::Finished(Box::new(record)));
        if last {
            self.connection = ConnectionState::Gone;
            out.push(Output::Gone);
        }
    }

    /// Whether the device and its radio have drawn more than the battery held, in this generation and before.
    fn battery_is_empty(&self) -> bool {
        let (Some(extras), capacity @ 1..) = (&self.extras, self.settings.battery_nanojoules) else { return false };
        let running = self.generation.as_ref().map_or(0, |generation| {
            let energy = generation.energy(&self.settings);
            energy.device + energy.radio
        });
        extras.drawn().saturating_add(running) > capacity
    }

    /// Writes the time since the last event to the account of what the device was doing. A draft step is booked as a
    /// whole when it ends, because only then is it known how its time divides.
    fn account(&mut self, now: Time) {
        let elapsed = now.since(self.accounted);
        self.accounted = self.accounted.max(now);
        if self.computing.is_some() {
            return;
        }
        let Some(generation) = &mut self.generation else { return };
        match generation.network {
            UploadState::Quiet => generation.times.idle += elapsed,
            _ => generation.times.waiting += elapsed,
        }
    }
}
