//! What an emulated pool charges, and that it does so on every host.

use proptest::prelude::*;

use super::agenda::{Agenda, NextInput};
use super::machine::PoolMachine;
use super::message::{Input, ItemOutcome, JobKind, JobRequest, Output, SessionKey};
use super::settings::{PoolSettings, QueueOrder};
use super::tests::{MS, settings};
use crate::cost::BatchCost;
use crate::id::{ConnectionId, DeviceId, UploadId, VerifierId};
use crate::record::{BatchRecord, VerifyCost};
use crate::time::{Span, Time};

/// Two verifiers whose batches are charged 5 ms.
fn emulated(order: QueueOrder) -> PoolSettings {
    PoolSettings { cost: Some(BatchCost::Fixed { span: Span(5 * MS) }), max_wait: Span(MS), order, ..settings(2) }
}

fn session(device: usize) -> SessionKey {
    SessionKey { connection: ConnectionId(device as u64), session: 1 }
}

fn request(device: usize, kind: JobKind, now: Time) -> JobRequest {
    JobRequest {
        session: session(device),
        upload: UploadId(1),
        base: 0,
        catch_up: 9,
        kind,
        risk: 0.5,
        deadline: now + Span(1_000_000 * MS),
        wanted: None,
    }
}

/// Whatever a verifier takes, an emulated pool charges what the batch's work costs.
#[test]
fn an_emulated_pool_charges_its_cost() {
    let charged = |measured: u64| {
        let mut machine = PoolMachine::new(Time::ZERO, emulated(QueueOrder::Fifo));
        let mut out = Vec::new();
        let upload = request(0, JobKind::Judge { drafts: 1, bonus: false }, Time(10 * MS));
        machine.handle(Time(10 * MS), Input::Upload(upload), &mut out);
        machine.handle(Time(11 * MS), Input::Timeout, &mut out);
        let batch = out.iter().find_map(|output| match output {
            Output::Start(batch) => Some(batch.clone()),
            _ => None,
        });
        let batch = batch.expect("it starts after its wait");
        assert_eq!(batch.release, Time(16 * MS));
        let outcomes = vec![ItemOutcome { accepted: 1, next: None, malformed: false }];
        let (verifier, waited, compute) = (batch.verifier, Span(7 * MS), Span(measured));
        let done = Input::BatchDone { verifier, batch: batch.batch, waited, compute, outcomes };
        machine.handle(batch.release, done, &mut out);
        let cost = out.iter().find_map(|output| match output {
            Output::Verdict { cost, .. } => Some(*cost),
            _ => None,
        });
        let record = out.iter().find_map(|output| match output {
            Output::Record(record) => Some(*record),
            _ => None,
        });
        (cost.expect("a verdict"), record.expect("a record"))
    };
    let (quiet, record) = charged(2 * MS);
    assert_eq!((quiet.queue_wait, quiet.batch_wait, quiet.compute), (Span(MS), Span::ZERO, Span(5 * MS)));
    assert_eq!((record.compute, record.measured, record.overrun), (Span(5 * MS), Span(2 * MS), Span::ZERO));
    assert_eq!((record.nanojoules, record.measured_nanojoules), (15 * MS, 6 * MS));
    let (loaded, record) = charged(9 * MS);
    assert_eq!(loaded, quiet);
    assert_eq!((record.compute, record.measured, record.overrun), (Span(5 * MS), Span(9 * MS), Span(4 * MS)));
    assert_eq!((record.nanojoules, record.measured_nanojoules), (15 * MS, 27 * MS));
}

/// One upload of each device: when it arrives, how long before that its frame comes (or after, if negative), and what it asks.
#[derive(Clone, Copy, Debug)]
struct Sent {
    arrives: Time,
    ahead: i64,
    kind: JobKind,
}

/// What a host that takes `compute` milliseconds for its batches, one after the other, makes of uploads.
struct Host {
    machine: PoolMachine,
    agenda: Agenda<()>,
    now: Time,
    /// Frames by when they come.
    frames: Vec<(Time, usize)>,
    /// Batches by when they are computed.
    computed: Vec<(Time, Input, VerifierId)>,
    verdicts: Vec<(SessionKey, VerifyCost)>,
    batches: Vec<BatchRecord>,
}

impl Host {
    fn run(order: QueueOrder, sent: &[Sent], promise: bool, compute: &[u64]) -> Host {
        let come = |sent: &Sent| Time((sent.arrives.0 as i64 - sent.ahead).max(0) as u64);
        let mut frames: Vec<(Time, usize)> =
            sent.iter().enumerate().map(|(device, sent)| (come(sent), device)).collect();
        frames.sort_unstable_by(|a, b| b.cmp(a));
        let mut host = Host {
            machine: PoolMachine::new(Time::ZERO, emulated(order)),
            agenda: Agenda::new(Time::ZERO, true, true),
            now: Time::ZERO,
            frames,
            computed: Vec::new(),
            verdicts: Vec::new(),
            batches: Vec::new(),
        };
        for (device, sent) in sent.iter().enumerate().filter(|_| promise) {
            let id = DeviceId(device as u32);
            host.agenda.promise(ConnectionId(device as u64), id, sent.arrives, Span(1_000_000 * MS));
        }
        let mut compute = compute.iter().cycle();
        loop {
            let wake = host.turn(&mut compute);
            let frame = host.frames.last().map(|(at, _)| *at);
            let done = host.computed.iter().map(|(at, ..)| *at).min();
            let Some(next) = [wake, frame, done].into_iter().flatten().min() else { return host };
            host.now = host.now.max(next);
            while let Some((_, device)) = host.frames.pop_if(|(at, _)| *at <= host.now) {
                let at = host.agenda.arrival(Some(sent[device].arrives), host.now);
                let upload = Input::Upload(request(device, sent[device].kind, at));
                host.agenda.arrive(ConnectionId(device as u64), at, upload, ());
            }
            for (_, input, verifier) in host.computed.extract_if(.., |(at, ..)| *at <= host.now) {
                host.agenda.computed(verifier, host.now, input, ());
            }
        }
    }

    /// Tells the machine of all that is due; when something is due next.
    fn turn<'a>(&mut self, compute: &mut impl Iterator<Item = &'a u64>) -> Option<Time> {
        loop {
            let (at, input) = match self.agenda.next(self.machine.poll_timeout(), self.now) {
                NextInput::Now(at, input) => (at, input.map_or(Input::Timeout, |(input, ())| input)),
                NextInput::At(at) => return Some(at),
                NextInput::Nothing => return None,
            };
            let mut out = Vec::new();
            self.machine.handle(at, input, &mut out);
            for output in out {
                match output {
                    Output::Start(batch) => {
                        self.agenda.started(batch.verifier, batch.release);
                        let outcome = |item: &super::BatchItem| {
                            let next = matches!(item.kind, JobKind::Write { .. }).then_some(7);
                            ItemOutcome { accepted: 1 - u8::from(next.is_some()), next, malformed: false }
                        };
                        let compute = Span(compute.next().expect("endless") * MS);
                        let done = Input::BatchDone {
                            verifier: batch.verifier,
                            batch: batch.batch,
                            waited: Span::ZERO,
                            compute: Span::ZERO,
                            outcomes: batch.items.iter().map(outcome).collect(),
                        };
                        self.computed.push((self.now + compute, done, batch.verifier));
                    }
                    Output::Verdict { session, more, cost, .. } => {
                        if !more {
                            self.agenda.answered(session.connection);
                        }
                        self.verdicts.push((session, cost));
                    }
                    Output::Record(record) => self.batches.push(record),
                    _ => {}
                }
            }
        }
    }
}

fn uploads() -> impl Strategy<Value = Vec<Sent>> {
    let one = (1u64..9_000, 0i64..20, 0i64..60, prop::bool::ANY);
    prop::collection::vec(one, 1..40).prop_map(|each| {
        let mut at = 30 * MS;
        let sent = each.into_iter().map(|(gap, early, late, writes)| {
            // No two things happen at the same nanosecond.
            at += gap * 1_009;
            let judge = JobKind::Judge { drafts: 1, bonus: false };
            let kind = if writes { JobKind::Write { left: 4 } } else { judge };
            Sent { arrives: Time(at), ahead: (early - late) * MS as i64, kind }
        });
        sent.collect()
    })
}

proptest! {
    /// Whatever a host takes to compute and to bring frames, verdicts and batches are those of one that is never late.
    #[test]
    fn a_late_host_changes_nothing(sent in uploads(), compute in prop::collection::vec(0u64..25, 1..9)) {
        let punctual: Vec<Sent> = sent.iter().map(|&sent| Sent { ahead: 20 * MS as i64, ..sent }).collect();
        for order in [QueueOrder::Fifo, QueueOrder::Fair, QueueOrder::Value, QueueOrder::Deadline] {
            let quiet = Host::run(order, &punctual, true, &[0]);
            let late = Host::run(order, &sent, true, &compute);
            prop_assert_eq!(&late.verdicts, &quiet.verdicts);
            prop_assert_eq!(&late.batches, &quiet.batches);
            prop_assert_eq!((late.agenda.late(), quiet.agenda.late()), (0, 0));
            let tokens: usize = sent.iter().map(|sent| if matches!(sent.kind, JobKind::Write { .. }) { 4 } else { 1 }).sum();
            prop_assert_eq!(quiet.verdicts.len(), tokens, "everybody is answered");
        }
    }
}

/// The control: of a device that promises nothing, an upload that comes too late for its batch is in another one, and is
/// counted.
#[test]
fn without_a_promise_an_upload_can_be_late() {
    let judge = JobKind::Judge { drafts: 1, bonus: false };
    let sent = |late: i64| {
        [(30, 0), (30, late)].map(|(at, late)| Sent { arrives: Time(at * MS), ahead: -late * MS as i64, kind: judge })
    };
    let together = Host::run(QueueOrder::Fifo, &sent(0), false, &[0]);
    assert_eq!((together.batches.len(), together.agenda.late()), (2, 0), "one for each verifier");
    let waits = |host: &Host| host.verdicts.iter().map(|(_, cost)| cost.queue_wait).collect::<Vec<_>>();
    assert_eq!(waits(&together), [Span(MS), Span(MS)]);
    let apart = Host::run(QueueOrder::Fifo, &sent(40), false, &[0]);
    assert_eq!(apart.agenda.late(), 1);
    let promised = Host::run(QueueOrder::Fifo, &sent(40), true, &[0]);
    assert_eq!((promised.verdicts, promised.agenda.late()), (together.verdicts, 0));
}

/// A device that promises and then says nothing holds the others up for ten seconds, once.
#[test]
fn who_is_silent_holds_the_pool_up_once() {
    let judge = JobKind::Judge { drafts: 1, bonus: false };
    let sent = [30, 50, 70].map(|at| Sent { arrives: Time(at * MS), ahead: 0, kind: judge });
    let mut agenda = Agenda::<()>::new(Time::ZERO, true, true);
    agenda.promise(ConnectionId(9), DeviceId(9), Time(10 * MS), Span::ZERO);
    for (device, sent) in sent.iter().enumerate() {
        let upload = Input::Upload(request(device, judge, sent.arrives));
        agenda.arrive(ConnectionId(device as u64), sent.arrives, upload, ());
    }
    let mut now = Time(40 * MS);
    while let NextInput::At(next) = agenda.next(None, now) {
        // A host that stands still for a minute counts as one second.
        now = next + Span(if now == Time(40 * MS) { 60_000 * MS } else { 0 });
        assert!(now <= Time(70_040 * MS), "it is held up for ten seconds");
    }
    assert_eq!(now, Time(70_040 * MS));
    agenda.promise(ConnectionId(9), DeviceId(9), Time(10 * MS), Span::ZERO);
    let until = now;
    for sent in &sent[1..] {
        let NextInput::Now(at, Some(_)) = agenda.next(None, until) else { panic!("it goes on") };
        assert_eq!(at, sent.arrives);
    }
    assert!(matches!(agenda.next(None, until), NextInput::Nothing));
}

/// A pool that charges what it measures is told of everything as it comes.
#[test]
fn a_measured_pool_goes_by_the_host() {
    let mut agenda = Agenda::<()>::new(Time::ZERO, false, true);
    let judge = JobKind::Judge { drafts: 1, bonus: false };
    let at = agenda.arrival(Some(Time(90 * MS)), Time(40 * MS));
    assert_eq!(at, Time(40 * MS));
    agenda.promise(ConnectionId(0), DeviceId(0), Time::ZERO, Span::ZERO);
    agenda.started(VerifierId(0), Time::ZERO);
    agenda.arrive(ConnectionId(0), at, Input::Upload(request(0, judge, at)), ());
    assert!(matches!(agenda.next(None, Time(41 * MS)), NextInput::Now(Time(41_000_000), Some(_))));
}

/// A frame that waits for its time says that nothing else of its device comes before, whatever the device promised: a cancel
/// that lies far ahead, because the pool is far behind, holds nobody up.
#[test]
fn a_frame_that_waits_is_a_promise() {
    let judge = JobKind::Judge { drafts: 1, bonus: false };
    let mut agenda = Agenda::<()>::new(Time::ZERO, true, true);
    let (behind, other) = (ConnectionId(0), ConnectionId(1));
    for (connection, device) in [(behind, DeviceId(0)), (other, DeviceId(1))] {
        agenda.promise(connection, device, Time(10 * MS), Span(MS));
    }
    let host = Time(20_000 * MS);
    let told = |agenda: &mut Agenda<()>| match agenda.next(None, host) {
        NextInput::Now(at, Some((input, ()))) => Some((at, input)),
        _ => None,
    };
    let upload = |device, at| Input::Upload(request(device, judge, at));
    for (connection, device, at) in [(behind, 0, Time(10 * MS)), (other, 1, Time(11 * MS))] {
        agenda.arrive(connection, at, upload(device, at), ());
    }
    assert!(told(&mut agenda).is_some() && told(&mut agenda).is_some());
    let cancel = Input::Cancel { session: session(0), upload: UploadId(1) };
    agenda.arrive(behind, Time(9_000 * MS), cancel.clone(), ());
    agenda.answered(behind);
    agenda.answered(other);
    agenda.arrive(other, Time(50 * MS), upload(1, Time(50 * MS)), ());
    assert_eq!(told(&mut agenda).map(|(at, _)| at), Some(Time(50 * MS)));
    assert_eq!(told(&mut agenda), Some((Time(9_000 * MS), cancel)));
    // Until it says more, it may come at any time from then on.
    agenda.arrive(other, Time(9_001 * MS), upload(1, Time(9_001 * MS)), ());
    assert_eq!(told(&mut agenda), None);
}
