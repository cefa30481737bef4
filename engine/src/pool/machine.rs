//! The pool's deciding half: which uploads are admitted, which verifier gets them, how batches are formed, and what
//! each upload's share of a batch costs. Each of these is a file of its own beside this one.
//!
//! Call order: [`PoolMachine::handle`] with whatever happened, carry out what it appended to `out`, in order; then ask
//! [`PoolMachine::poll_timeout`] and call `handle` with [`Input::Timeout`] when that time has come. Every `Start` is
//! answered by `BatchDone` or `VerifierFailed`, every `Restart` by `VerifierReady`. All verifiers start out ready.
//!
//! Every admitted upload ends exactly once: by `Verdict` (the one without `more`), by `Refused`, or silently because
//! the device cancelled it or went away. Sessions hold lengths only; the tokens live in the driver's session store,
//! which `Admitted`, `Verdict` and `Forget` keep in step.
//!
//! One input costs the same whatever the number of sessions and verifiers (up to logarithms): only verifiers that it
//! touches are looked at. A verifier's failure costs what it held, a decision to scale down one look at each.

use std::collections::{BTreeMap, BTreeSet};

use super::estimate::TimeModel;
use super::message::{Input, Output, SessionKey};
use super::placement::Ranks;
use super::price::Price;
use super::results::Reported;
use super::scale::Scaling;
use super::sessions::Sessions;
use super::settings::PoolSettings;
use super::verifier::{Activity, Stage, VerifierSlot};
use crate::id::{ConnectionId, PhaseId, VerifierId};
use crate::kv::KvBook;
use crate::record::{UploadCounts, VerifierRecord};
use crate::time::{Span, Time};

/// The pool's decisions: a state machine that is told what happened and says what to do.
#[derive(Debug)]
pub struct PoolMachine {
    pub(super) settings: PoolSettings,
    /// When the phase at hand began.
    pub(super) started: Time,
    pub(super) sessions: Sessions,
    /// Who holds the KV caches, by the sessions' slots.
    pub(super) kv: KvBook,
    pub(super) verifiers: Vec<VerifierSlot>,
    pub(super) ranks: Ranks,
    /// Verifiers that take work.
    pub(super) up: u32,
    /// Where the search for the least loaded verifier starts, so that ties rotate.
    pub(super) next_verifier: usize,
    /// Jobs that no verifier is up for, by number.
    pub(super) unplaced: BTreeMap<u64, u32>,
    pub(super) queued_jobs: u32,
    pub(super) queued_tokens: u64,
    pub(super) running_jobs: usize,
    /// Numbers jobs in order of arrival.
    pub(super) next_job: u64,
    pub(super) next_batch: u64,
    /// Verifiers that may be able to start a batch now, each once.
    touched: Vec<VerifierId>,
    /// Idle verifiers that wait for their batch to fill, by when they no longer do.
    pub(super) due: BTreeSet<(Time, u16)>,
    /// When open breakers have cooled down.
    pub(super) cooling: BTreeSet<(Time, u16)>,
    pub(super) time_model: TimeModel,
    pub(super) price: Price,
    pub(super) scaling: Option<Scaling>,
    pub(super) closing: bool,
    pub(super) counts: UploadCounts,
    /// Kept for their memory.
    pub(super) chosen: Vec<(u32, u32)>,
    pub(super) victims: Vec<u32>,
}

impl PoolMachine {
    /// An empty pool at `now`, all verifiers ready.
    pub fn new(now: Time, settings: PoolSettings) -> Self {
        let replicas = settings.replicas();
        let on = settings.autoscale.map_or(replicas, |scale| settings.verifiers.clamp(scale.min.max(1), replicas));
        let stage = |index| if index < on { Stage::On } else { Stage::Off(now) };
        let mut machine = PoolMachine {
            started: now,
            sessions: Sessions::new(),
            kv: KvBook::new(settings.kv_tokens, usize::from(replicas)),
            verifiers: (0..replicas).map(|index| VerifierSlot::new(settings.order, stage(index))).collect(),
            ranks: Ranks::new(usize::from(replicas)),
            up: 0,
            next_verifier: 0,
            unplaced: BTreeMap::new(),
            queued_jobs: 0,
            queued_tokens: 0,
            running_jobs: 0,
            next_job: 0,
            next_batch: 0,
            touched: Vec::new(),
            due: BTreeSet::new(),
            cooling: BTreeSet::new(),
            time_model: TimeModel::default(),
            price: Price::new(now, settings.price),
            scaling: settings.autoscale.map(|scale| Scaling::new(now, scale, on)),
            closing: false,
            counts: UploadCounts::default(),
            chosen: Vec::new(),
            victims: Vec::new(),
            settings,
        };
        (0..replicas).for_each(|index| machine.refresh(VerifierId(index)));
        machine
    }

    /// How many sessions a connection has open.
    pub fn sessions_of(&self, connection: ConnectionId) -> u32 {
        self.sessions.count_of(connection)
    }

    /// Where the uploads that arrived have ended so far; `sent` counts the arrivals.
    pub fn counts(&self) -> UploadCounts {
        self.counts
    }

    /// Jobs and tokens that wait in the queue, and jobs being computed.
    pub fn outstanding(&self) -> (u32, u64, usize) {
        (self.queued_jobs, self.queued_tokens, self.running_jobs)
    }

    /// Whether this session is open.
    pub fn is_open(&self, session: SessionKey) -> bool {
        self.sessions.find(session).is_some()
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What the verifiers do, by number.
    pub fn activities(&self) -> impl Iterator<Item = Activity> + '_ {
        self.verifiers.iter().map(VerifierSlot::activity)
    }

    /// The account of the phase that ends at `now`, one record per verifier; the next phase starts from zero and
    /// writes its batch records under `phase`. With `autoscale`, what was due by `now` comes before the records.
    pub fn next_phase(&mut self, now: Time, phase: PhaseId, out: &mut Vec<Output>) {
        self.catch_up(now, out);
        let span = now.since(self.started);
        for (index, verifier) in self.verifiers.iter_mut().enumerate() {
            let mut off = verifier.off;
            if let Stage::Off(since) = &mut verifier.stage {
                off += now.since((*since).max(self.started));
                *since = now;
            }
            let idle = span - verifier.busy - off;
            out.push(Output::VerifierRecord(VerifierRecord {
                method: self.settings.phase.method,
                pass: self.settings.phase.pass,
                verifier: VerifierId(index as u16),
                busy: verifier.busy,
                idle,
                off,
                idle_nanojoules: self.settings.profile.idle_energy(idle),
                restarts: verifier.restarts,
            }));
            verifier.busy = Span::ZERO;
            verifier.off = Span::ZERO;
            verifier.restarts = 0;
        }
        self.started = now;
        self.settings.phase = phase;
        self.start_batches(now, out);
    }

    /// Takes in what happened at `now` and appends what to do about it to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.catch_up(now, out);
        match input {
            Input::Upload(request) => self.upload(now, &request, out),
            Input::Cancel { session, upload } => self.cancel(session, upload),
            Input::Close(session) => self.close(session, out),
            Input::Disconnected(connection) => self.disconnected(connection, out),
            Input::BatchDone { verifier, batch, waited, compute, outcomes } => {
                self.batch_done(Reported { now, waited, compute }, verifier, batch, &outcomes, out);
            }
            Input::VerifierFailed(verifier) => self.verifier_failed(now, verifier, out),
            Input::VerifierReady(verifier) => self.verifier_ready(verifier),
            Input::Closing => self.closing = true,
            Input::Timeout => {}
        }
        self.start_batches(now, out);
    }

    /// When to call [`Self::handle`] with [`Input::Timeout`]: an idle verifier has waited long enough for its batch to
    /// fill, or it is time to scale and there is work. What concerns nobody before the next input is made up for then.
    pub fn poll_timeout(&self) -> Option<Time> {
        let fill = self.due.first().map(|&(at, _)| at);
        let Some(scaling) = &self.scaling else { return fill };
        let working = self.queued_jobs > 0 || self.running_jobs > 0;
        let period = working.then(|| scaling.end());
        let start = scaling.next_start().filter(|_| !self.unplaced.is_empty());
        [fill, period, start].into_iter().flatten().min()
    }

    /// Lets the time come that has passed since the last input.
    fn catch_up(&mut self, now: Time, out: &mut Vec<Output>) {
        self.cool_down(now);
        self.scale_until(now, out);
        self.reprice(now);
        if let Some(scaling) = &mut self.scaling {
            scaling.quiet = false;
        }
    }

    /// Ends the periods of the price that are over by `now`.
    pub(super) fn reprice(&mut self, now: Time) {
        if self.price.is_due(now) {
            let pace = self.pace().map(|pace| pace * f64::from(self.up.max(1)));
            self.price.catch_up(now, pace);
        }
    }

    /// Tokens per second of one verifier in full batches, if known.
    pub(super) fn pace(&self) -> Option<f64> {
        self.time_model.pace(self.token_budget(), self.settings.batch_sequences.max(1))
    }

    /// The next number in the order of arrival.
    pub(super) fn number(&mut self) -> u64 {
        self.next_job += 1;
        self.next_job - 1
    }

    /// Remembers to look whether `id` can start a batch.
    pub(super) fn mark_dirty(&mut self, id: VerifierId) {
        if !std::mem::replace(&mut self.verifiers[usize::from(id.0)].touched, true) {
            self.touched.push(id);
        }
    }

    /// Starts what can be started, on the verifiers that were touched or whose time has come, by number.
    fn start_batches(&mut self, now: Time, out: &mut Vec<Output>) {
        let due: Vec<VerifierId> =
            self.due.iter().take_while(|(at, _)| *at <= now).map(|&(_, id)| VerifierId(id)).collect();
        due.into_iter().for_each(|id| self.mark_dirty(id));
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        for id in touched.drain(..) {
            self.verifiers[usize::from(id.0)].touched = false;
            self.try_start(now, id, out);
        }
        // Starting touches nobody.
        self.touched = touched;
    }
}
