//! The machine as a whole, with verifiers that take a known time, in virtual time.

use std::collections::BTreeMap;

use super::message::{Batch, Input, ItemOutcome, JobKind, JobRequest, Output, RefuseReason, SessionKey};
use super::settings::{Autoscale, Breaker, PoolSettings, PriceUpdate, QueueOrder};
use super::{BatchItem, PoolMachine};
use crate::device::energy::VerifierProfile;
use crate::id::{ConnectionId, PhaseId, UploadId, VerifierId};
use crate::record::{BatchRecord, VerifierRecord};
use crate::time::{Span, Time};

pub(super) const MS: u64 = 1_000_000;

pub(super) fn settings(verifiers: u16) -> PoolSettings {
    PoolSettings {
        phase: PhaseId::default(),
        verifiers,
        batch_tokens: 1_000,
        batch_sequences: 16,
        max_wait: Span::ZERO,
        batch_time: Span::ZERO,
        order: QueueOrder::Fifo,
        breaker: Breaker { failures: 0, cooldown: Span::ZERO },
        price: PriceUpdate { step: 0.0, target_load: 0.8, period: Span(10 * MS) },
        autoscale: None,
        queue_jobs: 10_000,
        queue_tokens: 1_000_000,
        sessions_per_connection: 1_000,
        kv_tokens: 1_000_000,
        context: 10_000,
        end_tokens: vec![],
        retry_after: Span(MS),
        cost: None,
        profile: VerifierProfile { name: "t".into(), source: "t".into(), batch_watts: 3.0, idle_watts: 1.0 },
    }
}

fn work(item: &BatchItem) -> u64 {
    u64::from(item.committed - item.keep)
}

/// A pool whose batches take 1 ms and 0.1 ms per token.
struct Rig {
    machine: PoolMachine,
    now: Time,
    running: BTreeMap<(Time, u64), Batch>,
    records: Vec<BatchRecord>,
    /// λ as last announced.
    price: f32,
    verdicts: usize,
    refused: Vec<RefuseReason>,
    dropped: Vec<(VerifierId, SessionKey)>,
    restarts: usize,
    uploads: u32,
}

impl Rig {
    fn new(settings: PoolSettings) -> Rig {
        Rig {
            machine: PoolMachine::new(Time::ZERO, settings),
            now: Time::ZERO,
            running: BTreeMap::new(),
            records: Vec::new(),
            price: 0.0,
            verdicts: 0,
            refused: Vec::new(),
            dropped: Vec::new(),
            restarts: 0,
            uploads: 0,
        }
    }

    /// Feeds an input and returns the batches that start.
    fn feed(&mut self, input: Input) -> Vec<Batch> {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        let mut started = Vec::new();
        for output in out {
            match output {
                Output::Start(batch) => {
                    let tokens: u64 = batch.items.iter().map(work).sum();
                    self.running.insert((self.now + Span(MS + MS / 10 * tokens), batch.batch), batch.clone());
                    started.push(batch);
                }
                Output::Verdict { price, .. } => {
                    self.verdicts += 1;
                    self.price = price;
                }
                Output::Refused { reason, price, .. } => {
                    self.refused.push(reason);
                    self.price = price;
                }
                Output::Record(record) => self.records.push(record),
                Output::DropKv { verifier, session } => self.dropped.push((verifier, session)),
                Output::Restart(verifier) => {
                    self.restarts += 1;
                    self.running.retain(|_, batch| batch.verifier != verifier);
                }
                Output::Admitted { .. } | Output::Forget(_) | Output::VerifierRecord(_) => {}
            }
        }
        started
    }

    /// A new upload of `tokens` that shares nothing with the cache.
    fn upload(&mut self, connection: u64, session: u32, tokens: u32) -> Vec<Batch> {
        self.uploads += 1;
        self.feed(Input::Upload(JobRequest {
            session: SessionKey { connection: ConnectionId(connection), session },
            upload: UploadId(self.uploads),
            base: 0,
            catch_up: tokens,
            kind: JobKind::Judge { drafts: 1, bonus: false },
            risk: 0.5,
            deadline: self.now + Span(1_000 * MS),
            wanted: None,
        }))
    }

    /// The time of the next thing that happens by itself.
    fn next(&self) -> Option<Time> {
        let done = self.running.first_key_value().map(|(&(at, _), _)| at);
        [done, self.machine.poll_timeout()].into_iter().flatten().min()
    }

    /// Lets the next thing happen; the sessions of the batch that is done, if it is one, and the batches that start.
    fn step(&mut self) -> (Vec<SessionKey>, Vec<Batch>) {
        let next = self.next().expect("something is under way");
        self.now = self.now.max(next);
        match self.running.first_key_value() {
            Some((&key, _)) if key.0 <= self.now => {
                let batch = self.running.remove(&key).expect("just seen");
                let tokens: u64 = batch.items.iter().map(work).sum();
                let outcome = ItemOutcome { accepted: 1, next: None, malformed: false };
                let started = self.feed(Input::BatchDone {
                    verifier: batch.verifier,
                    batch: batch.batch,
                    waited: Span::ZERO,
                    compute: Span(MS + MS / 10 * tokens),
                    outcomes: vec![outcome; batch.items.len()],
                });
                (batch.items.iter().map(|item| item.session).collect(), started)
            }
            _ => (Vec::new(), self.feed(Input::Timeout)),
        }
    }

    fn run(&mut self, until: Time) {
        while self.next().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = until;
    }

    fn accounts(&mut self) -> Vec<VerifierRecord> {
        let mut out = Vec::new();
        self.machine.next_phase(self.now, PhaseId { method: 1, pass: 0 }, &mut out);
        out.into_iter().filter_map(|o| if let Output::VerifierRecord(r) = o { Some(r) } else { None }).collect()
    }
}

/// One greedy client, many sessions and large works, beside 31 modest ones, all of which wait all the time. The largest
/// gap of service between any two, over any interval, and the most tokens of one job.
fn service_gap(order: QueueOrder) -> (u64, u64) {
    const GREEDY: u64 = 0;
    let mut rig = Rig::new(PoolSettings { order, ..settings(1) });
    let tokens = |connection| if connection == GREEDY { 60 } else { 4 + (connection % 7) as u32 };
    // The first batch starts before all wait: it does not count.
    for connection in 0..32 {
        let sessions = if connection == GREEDY { 300 } else { 20 };
        for session in 0..sessions {
            rig.upload(connection, session, tokens(connection));
        }
    }
    let mut served = [0i64; 32];
    let mut range = [[(0i64, 0i64); 32]; 32];
    let mut worst = 0;
    for _ in 0..600 {
        let (done, started) = rig.step();
        for item in started.iter().flat_map(|batch| &batch.items) {
            let client = item.session.connection.0 as usize;
            served[client] += work(item) as i64;
            for other in 0..32 {
                let gap = served[client] - served[other];
                for (a, b, gap) in [(client, other, gap), (other, client, -gap)] {
                    let (low, high) = &mut range[a][b];
                    (*low, *high) = ((*low).min(gap), (*high).max(gap));
                    worst = worst.max((*high - *low) as u64);
                }
            }
        }
        for session in done {
            rig.upload(session.connection.0, session.session, tokens(session.connection.0));
        }
    }
    assert!(served.iter().all(|&tokens| tokens > 0), "everybody is served");
    (worst, 60)
}

#[test]
fn one_greedy_client_takes_no_more_than_its_share() {
    let (gap, largest) = service_gap(QueueOrder::Fair);
    assert!(gap <= 2 * largest, "{gap} is beyond the bound 2 · {largest}");
    let (gap, largest) = service_gap(QueueOrder::Fifo);
    assert!(gap > 10 * 2 * largest, "without fairness there would be no such gap: {gap}");
}

#[test]
fn batches_are_cut_where_they_would_take_too_long() {
    let limit = Span(5 * MS);
    let mut rig = Rig::new(PoolSettings { batch_time: limit, ..settings(1) });
    // 5 ms are 40 tokens; the works are 3 to 15, and now and then 60, which runs alone.
    for session in 0..400u32 {
        rig.upload(1, session, if session % 50 == 49 { 60 } else { 3 + session % 13 });
    }
    while rig.next().is_some() {
        rig.step();
    }
    let learned = &rig.records[5..];
    assert!(learned.iter().all(|b| b.compute <= limit || b.sequences == 1), "{learned:?}");
    assert!(learned.iter().all(|b| b.estimate.0.abs_diff(b.compute.0) <= 1 + b.compute.0 / 1_000), "{learned:?}");
    let full = learned.iter().filter(|b| b.compute > Span(4 * MS) && b.sequences > 1).count();
    assert!(full > learned.len() / 2, "batches are as large as the time allows: {full} of {}", learned.len());
    assert_eq!(rig.verdicts, 400);
}

#[test]
fn what_can_be_in_time_goes_before_what_cannot() {
    let mut rig = Rig::new(PoolSettings { order: QueueOrder::Deadline, batch_sequences: 1, ..settings(1) });
    let upload = |rig: &mut Rig, session: u32, wanted: u64| {
        rig.uploads += 1;
        let session = SessionKey { connection: ConnectionId(1), session };
        let kind = JobKind::Judge { drafts: 1, bonus: false };
        let (upload, wanted) = (UploadId(rig.uploads), Some(Time(wanted)));
        let (base, catch_up, risk, deadline) = (0, 10, 0.5, Time(u64::MAX));
        rig.feed(Input::Upload(JobRequest { session, upload, base, catch_up, kind, risk, deadline, wanted }))
    };
    // Each takes 2 ms. The first starts at once, and teaches the pool how long that is.
    upload(&mut rig, 0, 9 * MS);
    for (session, wanted) in [(1, 8), (2, 3), (3, 6), (4, 4)] {
        upload(&mut rig, session, wanted * MS);
    }
    let order: Vec<u32> = (0..4).map(|_| rig.step().1[0].items[0].session.session).collect();
    // At 2 ms job 2 (wanted at 3) is lost already, 4 is not; at 4 ms 3 is in time just so; at 6 ms 1 is.
    assert_eq!(order, [4, 3, 1, 2]);
}

#[test]
fn a_verifier_that_fails_again_and_again_gets_a_rest() {
    let breaker = Breaker { failures: 2, cooldown: Span(100 * MS) };
    let mut rig = Rig::new(PoolSettings { breaker, ..settings(2) });
    let (zero, one) = (VerifierId(0), VerifierId(1));
    let where_to = |started: Vec<Batch>| started.first().map(|batch| batch.verifier);
    for _ in 0..2 {
        rig.feed(Input::VerifierFailed(zero));
        rig.feed(Input::VerifierReady(zero));
    }
    // It is idle, and all the same everything goes to the other one.
    assert_eq!(where_to(rig.upload(1, 0, 10)), Some(one));
    for session in 1..10 {
        assert!(rig.upload(1, session, 10).is_empty());
    }
    rig.run(Time(90 * MS));
    assert_eq!(rig.verdicts, 10);
    // Without the other one, it has to do.
    rig.feed(Input::VerifierFailed(one));
    assert_eq!(where_to(rig.upload(2, 0, 10)), Some(zero));
    // It dies a third time: 200 ms from here.
    rig.feed(Input::VerifierFailed(zero));
    rig.feed(Input::VerifierReady(one));
    rig.feed(Input::VerifierReady(zero));
    rig.run(Time(280 * MS));
    assert_eq!(where_to(rig.upload(3, 0, 10)), Some(one));
    rig.run(Time(291 * MS));
    // Cooled down: one batch on trial, and nothing more until that is done.
    let tries: Vec<_> = (0..6).map(|session| where_to(rig.upload(4, session, 10))).collect();
    assert_eq!(tries.iter().filter(|verifier| **verifier == Some(zero)).count(), 1);
    let queued = rig.machine.verifiers[0].queued_tokens;
    assert_eq!(queued, 0, "what waits, waits for the other one");
    rig.run(Time(300 * MS));
    let both: Vec<_> = (0..2).map(|session| where_to(rig.upload(5, session, 10))).collect();
    assert!(both.contains(&Some(zero)) && both.contains(&Some(one)), "{both:?}");
}

/// Uploads that name tokens which their session does not hold are refused, and raise no price, however many tokens they name.
#[test]
fn what_is_refused_has_no_price() {
    let price = PriceUpdate { step: 0.1, target_load: 0.01, period: Span(10 * MS) };
    let mut rig = Rig::new(PoolSettings { price, ..settings(1) });
    rig.upload(0, 0, 10);
    rig.run(Time(50 * MS));
    let before = rig.price;
    for upload in 0..200 {
        let at = rig.now + Span(MS);
        rig.run(at);
        rig.feed(Input::Upload(JobRequest {
            session: SessionKey { connection: ConnectionId(7), session: 3 },
            upload: UploadId(upload),
            base: 50,
            catch_up: 1,
            kind: JobKind::Judge { drafts: 1, bonus: false },
            risk: 0.5,
            deadline: at + Span(1_000 * MS),
            wanted: None,
        }));
    }
    assert_eq!(rig.refused.len(), 200);
    rig.upload(9, 9, 10);
    rig.step();
    assert!(rig.price <= before, "{} after {before}", rig.price);
}

#[test]
fn the_price_rises_with_the_load_and_falls_without() {
    let price = PriceUpdate { step: 0.1, target_load: 0.8, period: Span(10 * MS) };
    let mut rig = Rig::new(PoolSettings { price, batch_sequences: 4, queue_jobs: 8, ..settings(1) });
    // Each batch of four is 40 tokens in 5 ms: 8,000 tokens per second. Twice that is offered, and half of it refused.
    for connection in 0..400 {
        rig.upload(connection, 0, 10);
        let next = rig.now + Span(10 * MS / 16);
        rig.run(next);
    }
    assert!(!rig.refused.is_empty());
    // 25 periods of 10 ms, each about 0.1 · (1 − 0.8), because what is refused does not count; in the first nothing was known.
    assert!((0.4..0.8).contains(&rig.price), "{}", rig.price);
    let last = rig.records.last().expect("batches were done");
    assert!((last.price - rig.price).abs() < 0.3, "the record knows the price at the start of its batch");
    // A second of silence are 100 periods of −0.08.
    rig.now = rig.now + Span(1_000 * MS);
    while rig.next().is_some() {
        rig.step();
    }
    rig.upload(9, 9, 10);
    rig.step();
    assert_eq!(rig.price, 0.0);
}

#[test]
fn without_a_step_there_is_no_price() {
    let mut rig = Rig::new(PoolSettings { queue_jobs: 2, ..settings(1) });
    for session in 0..100 {
        rig.upload(1, session, 100);
        let next = rig.now + Span(MS);
        rig.run(next);
    }
    assert!(!rig.refused.is_empty() && rig.verdicts > 0);
    assert_eq!(rig.price, 0.0);
}

fn scaled(cold_start: u64) -> PoolSettings {
    let autoscale = Autoscale { min: 1, max: 4, target_busy: 0.5, cold_start: Span(cold_start), period: Span(20 * MS) };
    PoolSettings { autoscale: Some(autoscale), batch_sequences: 4, ..settings(1) }
}

#[test]
fn verifiers_come_with_the_load_and_go_without() {
    let mut rig = Rig::new(scaled(30 * MS));
    // Two verifiers would be busy all the time: at a target of a half, that is four.
    for connection in 0..800 {
        rig.upload(connection, 0, 10);
        let next = rig.now + Span(5 * MS / 8);
        rig.run(next);
    }
    let first_of = |id: u16| rig.records.iter().find(|b| b.verifier == VerifierId(id)).map(|b| b.started);
    let firsts: Vec<Option<Time>> = (0..4).map(first_of).collect();
    assert!(firsts.iter().all(Option::is_some), "all have worked: {firsts:?}");
    // The first period ends at 20 ms; what is added then takes work 30 ms later.
    assert!(firsts[1..].iter().all(|&at| at >= Some(Time(50 * MS))), "{firsts:?}");
    assert_eq!(rig.machine.up, 4);
    while rig.next().is_some() {
        rig.step();
    }
    assert_eq!(rig.verdicts, 800);
    assert_eq!(rig.machine.outstanding(), (0, 0, 0));
    rig.now = Time(2_000 * MS);
    let accounts = rig.accounts();
    assert_eq!(rig.machine.up, 1, "one goes per period, down to the fewest");
    for account in &accounts {
        assert_eq!(account.busy + account.idle + account.off, Span(2_000 * MS), "{account:?}");
        assert_eq!(account.idle_nanojoules, account.idle.0, "at 1 W");
    }
    assert_eq!(accounts.iter().filter(|a| a.off > Span(1_000 * MS)).count(), 3);
    let holding = (0..4).filter(|&id| rig.machine.kv.used(id) > 0).count();
    assert_eq!(holding, 1, "caches went with their verifiers");
    rig.now = Time(3_000 * MS);
    let accounts = rig.accounts();
    let total = |part: fn(&VerifierRecord) -> Span| accounts.iter().map(|a| part(a).0).sum::<u64>();
    assert_eq!((total(|a| a.off), total(|a| a.idle)), (3_000 * MS, 1_000 * MS), "the next phase starts from zero");
}

#[test]
fn a_long_queue_alone_brings_verifiers() {
    let mut rig = Rig::new(PoolSettings { batch_sequences: 1, ..scaled(0) });
    // One batch per 2 ms: ten per period. A hundred wait.
    for connection in 0..100 {
        rig.upload(connection, 0, 10);
    }
    rig.run(Time(21 * MS));
    assert_eq!(rig.machine.up, 4);
    while rig.next().is_some() {
        rig.step();
    }
    assert_eq!(rig.verdicts, 100);
}

/// What waits for a verifier that goes is computed by another, what it computes is not lost, its caches are dropped.
#[test]
fn a_verifier_that_goes_leaves_nothing_behind() {
    let autoscale = Autoscale { min: 1, max: 2, target_busy: 1.0, cold_start: Span::ZERO, period: Span(100 * MS) };
    let mut rig = Rig::new(PoolSettings { autoscale: Some(autoscale), ..settings(2) });
    // A little work for both, long before the period ends: one of them is too much.
    for session in 0..2 {
        rig.upload(1, session, 10);
    }
    rig.run(Time(99 * MS));
    // Both have a long batch when it ends, and a job that waits.
    for session in 0..2 {
        rig.upload(1, session, 300);
    }
    rig.upload(2, 7, 150);
    rig.upload(2, 8, 150);
    assert_eq!((rig.machine.up, rig.running.len()), (2, 2));
    rig.run(Time(101 * MS));
    assert_eq!(rig.machine.up, 1);
    assert!(rig.dropped.is_empty(), "its batch runs on");
    while rig.next().is_some() {
        rig.step();
    }
    assert_eq!((rig.verdicts, rig.refused.len()), (6, 0));
    assert!(!rig.dropped.is_empty());
    // Killed while it is off, it comes back and stays off.
    let gone = rig.dropped[0].0;
    assert!(!rig.machine.verifiers[usize::from(gone.0)].takes_work());
    rig.feed(Input::VerifierFailed(gone));
    rig.feed(Input::VerifierReady(gone));
    assert_eq!((rig.machine.up, rig.restarts), (1, 1));
}
