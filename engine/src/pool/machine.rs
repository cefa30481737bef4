//! The pool's deciding half: which uploads are admitted, which verifier gets them, how batches are formed, and what
//! each upload's share of a batch costs.
//!
//! Call order: [`PoolMachine::handle`] with whatever happened, carry out what it appended to `out`, in order; then ask
//! [`PoolMachine::poll_timeout`] and call `handle` with [`Input::Timeout`] when that time has come. Every `Start` is
//! answered by `BatchDone` or `VerifierFailed`, every `Restart` by `VerifierReady`. All verifiers start out ready.
//!
//! Every admitted upload ends exactly once: by `Verdict` (the one without `more`), by `Refused`, or silently because
//! the device cancelled it or went away. Sessions hold lengths only; the tokens live in the driver's session store,
//! which `Admitted`, `Verdict` and `Forget` keep in step.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Batch, BatchItem, Input, ItemOutcome, JobKind, JobRequest, Output, RefuseReason, SessionKey};
use super::settings::PoolSettings;
use crate::device::energy::split;
use crate::id::{ConnectionId, UploadId, VerifierId};
use crate::kv::KvBook;
use crate::record::{BatchRecord, UploadCounts, VerifierRecord};
use crate::time::{Span, Time};

/// See the module's documentation.
#[derive(Debug)]
pub struct PoolMachine {
    settings: PoolSettings,
    started: Time,
    sessions: BTreeMap<SessionKey, Session>,
    verifiers: Vec<Verifier>,
    /// Jobs that no verifier is up for, in order of arrival.
    unplaced: BTreeMap<u64, SessionKey>,
    queued_jobs: u32,
    queued_tokens: u64,
    /// Numbers jobs in order of arrival.
    next_job: u64,
    next_batch: u64,
    next_instance: u64,
    /// Where the search for the least loaded verifier starts, so that ties rotate.
    next_verifier: usize,
    closing: bool,
    counts: UploadCounts,
}

#[derive(Debug)]
struct Session {
    /// Tells this session from an earlier one with the same key.
    instance: u64,
    /// Tokens known to the pool.
    length: u32,
    /// Who holds its KV cache.
    home: Option<VerifierId>,
    /// Leading tokens of that cache that still hold.
    kv: u32,
    queued: Option<Queued>,
    running: Option<UploadId>,
    /// Smallest base of an upload admitted while another one (cancelled meanwhile) was being computed.
    rebase: u32,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    upload: UploadId,
    kind: JobKind,
    committed: u32,
    arrived: Time,
    /// Verifiers that died with it.
    failures: u8,
}

/// A job that this many verifiers have died with is taken for the cause, and refused for good.
const MOST_FAILURES: u8 = 16;

#[derive(Clone, Copy, Debug)]
struct Queued {
    job: Job,
    number: u64,
    verifier: Option<VerifierId>,
    /// Work it was booked with.
    tokens: u32,
}

#[derive(Debug)]
struct Verifier {
    up: bool,
    queue: BTreeMap<u64, SessionKey>,
    queued_tokens: u64,
    running: Option<Running>,
    kv: KvBook<SessionKey>,
    busy: Span,
    restarts: u32,
}

#[derive(Debug)]
struct Running {
    batch: u64,
    started: Time,
    items: Vec<RunningItem>,
}

#[derive(Clone, Copy, Debug)]
struct RunningItem {
    session: SessionKey,
    instance: u64,
    job: Job,
    keep: u32,
    work: u32,
    cancelled: bool,
}

impl JobKind {
    pub(super) fn drafts(self) -> u32 {
        match self {
            JobKind::Judge { drafts, .. } => u32::from(drafts),
            JobKind::Write { .. } => 0,
        }
    }

    /// Drafts that go through the model: the last one only matters to the token behind it.
    pub(super) fn fed_drafts(self) -> u32 {
        match self {
            JobKind::Judge { drafts, bonus } => u32::from(drafts) - u32::from(!bonus && drafts > 0),
            JobKind::Write { .. } => 0,
        }
    }
}

impl PoolMachine {
    /// An empty pool at `now`, all verifiers ready.
    pub fn new(now: Time, settings: PoolSettings) -> Self {
        let verifiers = (0..settings.verifiers.max(1))
            .map(|_| Verifier {
                up: true,
                queue: BTreeMap::new(),
                queued_tokens: 0,
                running: None,
                kv: KvBook::new(settings.kv_tokens),
                busy: Span::ZERO,
                restarts: 0,
            })
            .collect();
        PoolMachine {
            settings,
            started: now,
            sessions: BTreeMap::new(),
            verifiers,
            unplaced: BTreeMap::new(),
            queued_jobs: 0,
            queued_tokens: 0,
            next_job: 0,
            next_batch: 0,
            next_instance: 0,
            next_verifier: 0,
            closing: false,
            counts: UploadCounts::default(),
        }
    }

    /// Where the uploads that arrived have ended so far; `sent` counts the arrivals.
    pub fn counts(&self) -> UploadCounts {
        self.counts
    }

    /// Jobs and tokens that wait in the queue, and jobs being computed.
    pub fn outstanding(&self) -> (u32, u64, usize) {
        let running = self.verifiers.iter().filter_map(|v| v.running.as_ref()).map(|r| r.items.len()).sum();
        (self.queued_jobs, self.queued_tokens, running)
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The account of the phase that ends at `now`, one record per verifier; the next phase starts from zero and
    /// writes its batch records under `method`.
    pub fn next_phase(&mut self, now: Time, method: u16, out: &mut Vec<Output>) {
        let span = now.since(self.started);
        for (index, verifier) in self.verifiers.iter_mut().enumerate() {
            let idle = span - verifier.busy;
            out.push(Output::VerifierRecord(VerifierRecord {
                method: self.settings.method,
                verifier: VerifierId(index as u16),
                busy: verifier.busy,
                idle,
                off: Span::ZERO,
                idle_nanojoules: self.settings.profile.idle_energy(idle),
                restarts: verifier.restarts,
            }));
            verifier.busy = Span::ZERO;
            verifier.restarts = 0;
        }
        self.started = now;
        self.settings.method = method;
    }

    /// Takes in what happened at `now` and appends what to do about it to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Upload(request) => self.upload(now, request, out),
            Input::Cancel { session, upload } => self.cancel(session, upload),
            Input::Close(session) => self.close(session, out),
            Input::Disconnected(connection) => self.disconnected(connection, out),
            Input::BatchDone { verifier, batch, waited, compute, outcomes } => {
                self.batch_done(now, verifier, batch, waited, compute, &outcomes, out);
            }
            Input::VerifierFailed(verifier) => self.verifier_failed(now, verifier, out),
            Input::VerifierReady(verifier) => self.verifier_ready(verifier),
            Input::Closing => self.closing = true,
            Input::Timeout => {}
        }
        for index in 0..self.verifiers.len() {
            self.try_start(now, VerifierId(index as u16), out);
        }
    }

    /// When to call [`Self::handle`] with [`Input::Timeout`]: an idle verifier has waited long enough for its batch to
    /// fill.
    pub fn poll_timeout(&self) -> Option<Time> {
        (0..self.verifiers.len())
            .filter_map(|index| {
                let verifier = &self.verifiers[index];
                if !verifier.up || verifier.running.is_some() {
                    return None;
                }
                self.oldest(verifier).map(|arrived| arrived + self.settings.max_wait)
            })
            .min()
    }

    // ---- admission ---------------------------------------------------------------------------------------------

    fn upload(&mut self, now: Time, request: JobRequest, out: &mut Vec<Output>) {
        self.counts.sent += 1;
        if let Err(reason) = self.admit(now, &request) {
            self.counts.refused += 1;
            let JobRequest { session, upload, .. } = request;
            out.push(Output::Refused { session, upload, reason, retry_after: self.settings.retry_after, price: 0.0 });
            return;
        }
        out.push(Output::Admitted { session: request.session, upload: request.upload });
    }

    fn admit(&mut self, now: Time, request: &JobRequest) -> Result<(), RefuseReason> {
        if self.closing {
            return Err(RefuseReason::Closing);
        }
        let committed = request.base.checked_add(request.catch_up).ok_or(RefuseReason::TooLong)?;
        let asks = match request.kind {
            JobKind::Judge { drafts, .. } => u32::from(drafts),
            JobKind::Write { left } => left,
        };
        if asks == 0 || committed == 0 {
            return Err(RefuseReason::Malformed);
        }
        let longest = committed.checked_add(asks).ok_or(RefuseReason::TooLong)?;
        if longest > self.settings.context || u64::from(longest) > self.settings.kv_tokens {
            return Err(RefuseReason::TooLong);
        }
        let connection = request.session.connection;
        let (known, kv) = match self.sessions.get(&request.session) {
            Some(session) if session.queued.is_some() => return Err(RefuseReason::Busy),
            Some(session) if self.runs_uncancelled(request.session, session) => return Err(RefuseReason::Busy),
            Some(session) => (session.length, session.kv.min(request.base)),
            None => (0, 0),
        };
        if request.base > known {
            return Err(RefuseReason::UnknownBase);
        }
        if !self.sessions.contains_key(&request.session)
            && self.sessions_of(connection).count() >= self.settings.sessions_per_connection as usize
        {
            return Err(RefuseReason::TooManySessions);
        }
        if self.queued_jobs >= self.settings.queue_jobs {
            return Err(RefuseReason::QueueFull);
        }
        let tokens = committed - kv.min(committed - 1) + request.kind.fed_drafts();
        // One job may always wait, or a prompt longer than the whole queue would never get in.
        if self.queued_jobs > 0 && self.queued_tokens + u64::from(tokens) > self.settings.queue_tokens {
            return Err(RefuseReason::TokensFull);
        }
        let next_instance = &mut self.next_instance;
        let session = self.sessions.entry(request.session).or_insert_with(|| {
            *next_instance += 1;
            Session {
                instance: *next_instance,
                length: 0,
                home: None,
                kv: 0,
                queued: None,
                running: None,
                rebase: u32::MAX,
            }
        });
        session.length = committed;
        session.kv = kv;
        if session.running.is_some() {
            session.rebase = session.rebase.min(request.base);
        }
        let job = Job { upload: request.upload, kind: request.kind, committed, arrived: now, failures: 0 };
        self.enqueue(request.session, job);
        Ok(())
    }

    /// Whether the session's upload is being computed and somebody waits for it.
    fn runs_uncancelled(&self, key: SessionKey, session: &Session) -> bool {
        session.running.is_some()
            && self.verifiers.iter().filter_map(|v| v.running.as_ref()).any(|running| {
                running.items.iter().any(|i| i.session == key && i.instance == session.instance && !i.cancelled)
            })
    }

    fn sessions_of(&self, connection: ConnectionId) -> impl Iterator<Item = SessionKey> + '_ {
        let first = SessionKey { connection, session: 0 };
        let last = SessionKey { connection, session: u32::MAX };
        self.sessions.range(first..=last).map(|(&key, _)| key)
    }

    /// Puts a job into the queue of the verifier that has its KV cache, or else the least work.
    fn enqueue(&mut self, key: SessionKey, job: Job) {
        let number = self.next_job;
        self.next_job += 1;
        let home = self.sessions.get(&key).and_then(|s| s.home).filter(|&v| self.verifiers[usize::from(v.0)].up);
        let verifier = home.or_else(|| self.least_loaded());
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let kv = if home.is_some() { session.kv } else { 0 };
        let tokens = job.committed - kv.min(job.committed - 1) + job.kind.fed_drafts();
        session.queued = Some(Queued { job, number, verifier, tokens });
        self.queued_jobs += 1;
        self.queued_tokens += u64::from(tokens);
        match verifier {
            Some(id) => {
                let verifier = &mut self.verifiers[usize::from(id.0)];
                verifier.queue.insert(number, key);
                verifier.queued_tokens += u64::from(tokens);
            }
            None => {
                self.unplaced.insert(number, key);
            }
        }
    }

    /// The verifier that is up and has the fewest tokens ahead of it; ties rotate.
    fn least_loaded(&mut self) -> Option<VerifierId> {
        let count = self.verifiers.len();
        let best = (0..count)
            .map(|offset| (self.next_verifier + offset) % count)
            .filter(|&index| self.verifiers[index].up)
            .min_by_key(|&index| self.verifiers[index].load())?;
        self.next_verifier = (best + 1) % count;
        Some(VerifierId(best as u16))
    }

    /// Takes the session's job out of the queue.
    fn dequeue(&mut self, key: SessionKey) -> Option<Queued> {
        let queued = self.sessions.get_mut(&key)?.queued.take()?;
        self.queued_jobs -= 1;
        self.queued_tokens -= u64::from(queued.tokens);
        match queued.verifier {
            Some(id) => {
                let verifier = &mut self.verifiers[usize::from(id.0)];
                verifier.queue.remove(&queued.number);
                verifier.queued_tokens -= u64::from(queued.tokens);
            }
            None => {
                self.unplaced.remove(&queued.number);
            }
        }
        Some(queued)
    }

    // ---- batches -----------------------------------------------------------------------------------------------

    /// Arrival of the oldest job that `verifier` could compute now.
    fn oldest(&self, verifier: &Verifier) -> Option<Time> {
        verifier
            .queue
            .values()
            .filter_map(|key| self.sessions.get(key))
            .find(|session| session.running.is_none())
            .and_then(|session| session.queued)
            .map(|queued| queued.job.arrived)
    }

    /// Starts a batch on `id` if it is idle and either its batch is full or its oldest job has waited long enough.
    fn try_start(&mut self, now: Time, id: VerifierId, out: &mut Vec<Output>) {
        let verifier = &self.verifiers[usize::from(id.0)];
        if !verifier.up || verifier.running.is_some() {
            return;
        }
        let Some(oldest) = self.oldest(verifier) else { return };
        let (chosen, full) = self.choose(verifier);
        if !full && now < oldest + self.settings.max_wait {
            return;
        }
        let (items, evict) = self.reserve(id, &chosen);
        if items.is_empty() {
            return;
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        out.push(Output::Start(Batch {
            verifier: id,
            batch,
            evict,
            items: items
                .iter()
                .map(|item| BatchItem {
                    session: item.session,
                    upload: item.job.upload,
                    keep: item.keep,
                    committed: item.job.committed,
                    kind: item.job.kind,
                })
                .collect(),
        }));
        self.verifiers[usize::from(id.0)].running = Some(Running { batch, started: now, items });
    }

    /// The jobs of the next batch in order of arrival, and whether it is full.
    fn choose(&self, verifier: &Verifier) -> (Vec<SessionKey>, bool) {
        let mut chosen = Vec::new();
        let mut tokens = 0u64;
        for &key in verifier.queue.values() {
            let Some(session) = self.sessions.get(&key) else { continue };
            let Some(queued) = session.queued else { continue };
            if session.running.is_some() {
                continue;
            }
            let with = tokens + u64::from(queued.tokens);
            if !chosen.is_empty() && with > u64::from(self.settings.batch_tokens) {
                return (chosen, true);
            }
            tokens = with;
            chosen.push(key);
            if chosen.len() >= self.settings.batch_sequences.max(1) as usize {
                return (chosen, true);
            }
        }
        let full = tokens >= u64::from(self.settings.batch_tokens);
        (chosen, full)
    }

    /// Books KV room for the chosen jobs, moves them from the queue into a batch, and says whose caches must go. Jobs
    /// that do not fit beside the others stay in the queue.
    fn reserve(&mut self, id: VerifierId, chosen: &[SessionKey]) -> (Vec<RunningItem>, Vec<SessionKey>) {
        let members: BTreeSet<SessionKey> = chosen.iter().copied().collect();
        let mut items = Vec::new();
        let mut evict = Vec::new();
        for &key in chosen {
            let Some(session) = self.sessions.get(&key) else { continue };
            let Some(queued) = session.queued else { continue };
            let held = queued.job.committed + queued.job.kind.fed_drafts();
            let book = &mut self.verifiers[usize::from(id.0)].kv;
            // The oldest job gets its room whatever it takes, or jobs that hold each other's room would wait for ever; the
            // others do not push out members of their own batch.
            let first = items.is_empty();
            let Ok(victims) = book.reserve(key, held, |victim| first || !members.contains(&victim)) else { break };
            for victim in &victims {
                if let Some(session) = self.sessions.get_mut(victim) {
                    session.home = None;
                    session.kv = 0;
                }
            }
            evict.extend(victims);
            self.dequeue(key);
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            let keep = if session.home == Some(id) { session.kv.min(queued.job.committed - 1) } else { 0 };
            session.home = Some(id);
            session.running = Some(queued.job.upload);
            session.rebase = u32::MAX;
            items.push(RunningItem {
                session: key,
                instance: session.instance,
                job: queued.job,
                keep,
                work: queued.job.committed - keep + queued.job.kind.fed_drafts(),
                cancelled: false,
            });
        }
        (items, evict)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input")]
    fn batch_done(
        &mut self,
        now: Time,
        id: VerifierId,
        batch: u64,
        waited: Span,
        compute: Span,
        outcomes: &[ItemOutcome],
        out: &mut Vec<Output>,
    ) {
        let Some(verifier) = self.verifiers.get_mut(usize::from(id.0)) else { return };
        let Some(running) = verifier.running.take_if(|r| r.batch == batch && r.items.len() == outcomes.len()) else {
            return;
        };
        verifier.busy += compute;
        let total = self.settings.profile.batch_energy(compute);
        let works: Vec<u32> = running.items.iter().map(|i| i.work).collect();
        let shares = split(total, &works);
        let mut unclaimed = 0;
        for (index, (item, outcome)) in running.items.iter().zip(outcomes).enumerate() {
            let share = shares[index];
            let Some(session) = self.sessions.get_mut(&item.session).filter(|s| s.instance == item.instance) else {
                unclaimed += share;
                self.verifiers[usize::from(id.0)].kv.remove(item.session);
                out.push(Output::DropKv { verifier: id, session: item.session });
                continue;
            };
            let accepted = u32::from(outcome.accepted).min(item.job.kind.drafts());
            session.running = None;
            session.kv = (item.job.committed + accepted.min(item.job.kind.fed_drafts())).min(session.rebase);
            if item.cancelled {
                unclaimed += share;
                continue;
            }
            if outcome.malformed {
                self.counts.refused += 1;
                unclaimed += share;
                session.kv = session.kv.min(item.keep);
                out.push(Output::Refused {
                    session: item.session,
                    upload: item.job.upload,
                    reason: RefuseReason::Malformed,
                    retry_after: Span::ZERO,
                    price: 0.0,
                });
                continue;
            }
            session.length = item.job.committed + accepted + u32::from(outcome.next.is_some());
            let length = session.length;
            let more = match (item.job.kind, outcome.next) {
                (JobKind::Write { left }, Some(token)) => left > 1 && !self.settings.end_tokens.contains(&token),
                _ => false,
            };
            out.push(Output::Verdict {
                session: item.session,
                upload: item.job.upload,
                item: index as u32,
                more,
                queue: running.started.since(item.job.arrived),
                batch: waited,
                compute,
                work: item.work,
                nanojoules: share,
                paper_nanojoules: paper_share(share, item),
                price: 0.0,
            });
            if let (true, JobKind::Write { left }) = (more, item.job.kind) {
                let kind = JobKind::Write { left: left - 1 };
                self.enqueue(item.session, Job { kind, committed: length, arrived: now, ..item.job });
            } else {
                self.counts.verdicts += 1;
            }
        }
        out.push(Output::Record(self.batch_record(id, &running, compute, total, unclaimed, true)));
    }

    fn batch_record(
        &self,
        verifier: VerifierId,
        running: &Running,
        compute: Span,
        nanojoules: u64,
        unclaimed_nanojoules: u64,
        completed: bool,
    ) -> BatchRecord {
        let items = &running.items;
        let work = items.iter().map(|i| i.work).sum::<u32>();
        BatchRecord {
            method: self.settings.method,
            batch: running.batch,
            verifier,
            started: running.started,
            compute,
            estimate: Span::ZERO,
            price: 0.0,
            sequences: items.len() as u32,
            work,
            catch_up: work - items.iter().map(|i| i.job.kind.fed_drafts()).sum::<u32>(),
            drafts: items.iter().map(|i| i.job.kind.drafts()).sum(),
            cached: items.iter().map(|i| u64::from(i.keep)).sum(),
            nanojoules,
            unclaimed_nanojoules,
            completed,
        }
    }

    // ---- endings -----------------------------------------------------------------------------------------------

    fn cancel(&mut self, key: SessionKey, upload: UploadId) {
        let Some(session) = self.sessions.get(&key) else { return };
        if session.queued.is_some_and(|q| q.job.upload == upload) {
            self.dequeue(key);
            self.counts.cancelled += 1;
        } else if session.running == Some(upload) {
            let instance = session.instance;
            self.cancel_running(key, instance);
        }
    }

    /// Marks the session's item in a running batch as no longer waited for.
    fn cancel_running(&mut self, key: SessionKey, instance: u64) {
        for running in self.verifiers.iter_mut().filter_map(|v| v.running.as_mut()) {
            for item in &mut running.items {
                if item.session == key && item.instance == instance && !item.cancelled {
                    item.cancelled = true;
                    self.counts.cancelled += 1;
                }
            }
        }
    }

    fn close(&mut self, key: SessionKey, out: &mut Vec<Output>) {
        if self.dequeue(key).is_some() {
            self.counts.cancelled += 1;
        }
        let Some(session) = self.sessions.remove(&key) else { return };
        out.push(Output::Forget(key));
        if session.running.is_some() {
            // Its cache is in use; it is freed when the batch is over.
            self.cancel_running(key, session.instance);
        } else if let Some(home) = session.home {
            self.verifiers[usize::from(home.0)].kv.remove(key);
            out.push(Output::DropKv { verifier: home, session: key });
        }
    }

    fn disconnected(&mut self, connection: ConnectionId, out: &mut Vec<Output>) {
        let keys: Vec<SessionKey> = self.sessions_of(connection).collect();
        for key in keys {
            self.close(key, out);
        }
    }

    fn verifier_failed(&mut self, now: Time, id: VerifierId, out: &mut Vec<Output>) {
        let Some(verifier) = self.verifiers.get_mut(usize::from(id.0)) else { return };
        verifier.up = false;
        verifier.restarts += 1;
        verifier.kv = KvBook::new(self.settings.kv_tokens);
        let running = verifier.running.take();
        let waiting: Vec<SessionKey> = verifier.queue.values().copied().collect();
        for session in self.sessions.values_mut().filter(|s| s.home == Some(id)) {
            session.home = None;
            session.kv = 0;
        }
        // What was being computed is older than what waits, so it is queued again first.
        if let Some(running) = running {
            let compute = now.since(running.started);
            let lost = self.settings.profile.batch_energy(compute);
            self.verifiers[usize::from(id.0)].busy += compute;
            out.push(Output::Record(self.batch_record(id, &running, compute, lost, lost, false)));
            for item in running.items {
                let Some(session) = self.sessions.get_mut(&item.session).filter(|s| s.instance == item.instance) else {
                    continue;
                };
                session.running = None;
                if item.cancelled {
                    continue;
                }
                let job = Job { failures: item.job.failures + 1, ..item.job };
                if job.failures < MOST_FAILURES {
                    self.enqueue(item.session, job);
                } else {
                    self.counts.refused += 1;
                    out.push(Output::Refused {
                        session: item.session,
                        upload: job.upload,
                        reason: RefuseReason::Malformed,
                        retry_after: Span::ZERO,
                        price: 0.0,
                    });
                }
            }
        }
        for key in waiting {
            if let Some(queued) = self.dequeue(key) {
                self.enqueue(key, queued.job);
            }
        }
        out.push(Output::Restart(id));
    }

    fn verifier_ready(&mut self, id: VerifierId) {
        let Some(verifier) = self.verifiers.get_mut(usize::from(id.0)) else { return };
        verifier.up = true;
        let waiting: Vec<SessionKey> = self.unplaced.values().copied().collect();
        for key in waiting {
            if let Some(queued) = self.dequeue(key) {
                self.enqueue(key, queued.job);
            }
        }
    }
}

impl Verifier {
    /// Tokens ahead of a new job.
    fn load(&self) -> u64 {
        let running: u64 = self.running.iter().flat_map(|r| &r.items).map(|i| u64::from(i.work)).sum();
        self.queued_tokens + running
    }
}

/// The papers charge one token per judged draft (or written token) and no catch-up.
fn paper_share(share: u64, item: &RunningItem) -> u64 {
    let counted = item.job.kind.drafts().max(1).min(item.work);
    // `work` is at least 1, because a batch item feeds the last committed token at least.
    (u128::from(share) * u128::from(counted) / u128::from(item.work.max(1))) as u64
}
