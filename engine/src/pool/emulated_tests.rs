//! What an emulated pool charges, and which batches it makes of a machine that is late.

use proptest::prelude::*;

use super::PoolMachine;
use super::message::{Batch, Input, ItemOutcome, JobKind, JobRequest, Output, SessionKey};
use super::settings::{PoolSettings, QueueOrder};
use super::tests::{MS, settings};
use crate::cost::BatchCost;
use crate::id::{ConnectionId, UploadId};
use crate::time::{Span, Time};

/// Whatever a verifier takes, an emulated pool charges what the batch's work costs; a job's time in the queue ends when its
/// batch was due, however late it was started.
#[test]
fn an_emulated_pool_charges_its_cost() {
    let cost = BatchCost::Fixed { span: Span(5 * MS) };
    let settings = PoolSettings { cost: Some(cost), max_wait: Span(MS), ..settings(1) };
    let kind = JobKind::Judge { drafts: 1, bonus: false };
    let charged = |lateness: u64, measured: u64| {
        let mut machine = PoolMachine::new(Time::ZERO, settings.clone());
        let mut out = Vec::new();
        let request = JobRequest {
            session: SessionKey { connection: ConnectionId(1), session: 1 },
            upload: UploadId(1),
            base: 0,
            catch_up: 9,
            kind,
            risk: 0.5,
            deadline: Time(1_000 * MS),
            wanted: None,
        };
        machine.handle(Time(10 * MS), Input::Upload(request), &mut out);
        let started = Time(11 * MS + lateness);
        machine.handle(started, Input::Timeout, &mut out);
        let batch = out.iter().find_map(|output| match output {
            Output::Start(batch) => Some(batch.clone()),
            _ => None,
        });
        let batch = batch.expect("it starts after its wait");
        assert_eq!(batch.release, Time(16 * MS), "by what is charged, late or not");
        let done = batch.release.max(started + Span(measured));
        let outcomes = vec![ItemOutcome { accepted: 1, next: None, malformed: false }];
        let (verifier, waited, compute) = (batch.verifier, Span(lateness), Span(measured));
        machine.handle(done, Input::BatchDone { verifier, batch: batch.batch, waited, compute, outcomes }, &mut out);
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
    let (quiet, record) = charged(0, 2 * MS);
    assert_eq!((quiet.queue_wait, quiet.batch_wait, quiet.compute), (Span(MS), Span::ZERO, Span(5 * MS)));
    assert_eq!((record.compute, record.measured, record.overrun), (Span(5 * MS), Span(2 * MS), Span::ZERO));
    assert_eq!((record.nanojoules, record.measured_nanojoules), (15 * MS, 6 * MS));
    let (loaded, record) = charged(7 * MS, 9 * MS);
    assert_eq!(loaded, quiet);
    assert_eq!((record.compute, record.measured, record.overrun), (Span(5 * MS), Span(9 * MS), Span(11 * MS)));
    assert_eq!((record.nanojoules, record.measured_nanojoules), (15 * MS, 27 * MS));
}

/// Which uploads an emulated verifier computes together, where each batch is charged 5 ms and takes `late` longer than that.
fn emulated_batches(arrivals: &[u64], order: QueueOrder, late: u64) -> Vec<Vec<u64>> {
    let cost = BatchCost::Fixed { span: Span(5 * MS) };
    let settings = PoolSettings { cost: Some(cost), max_wait: Span(MS), order, ..settings(1) };
    let mut machine = PoolMachine::new(Time::ZERO, settings);
    let (mut running, mut batches) = (None::<(Time, Batch)>, Vec::new());
    let mut arrivals = arrivals.iter().copied().enumerate().peekable();
    loop {
        let arrival = arrivals.peek().map(|(_, at)| Time(*at));
        let done = running.as_ref().map(|(at, _)| *at);
        let Some(now) = [arrival, done, machine.poll_timeout()].into_iter().flatten().min() else { return batches };
        let mut out = Vec::new();
        if arrival == Some(now) {
            let (number, _) = arrivals.next().expect("just seen");
            let request = JobRequest {
                session: SessionKey { connection: ConnectionId(number as u64), session: 1 },
                upload: UploadId(1),
                base: 0,
                catch_up: 9,
                kind: JobKind::Judge { drafts: 1, bonus: false },
                risk: 0.5,
                deadline: Time(1_000_000 * MS),
                wanted: None,
            };
            machine.handle(now, Input::Upload(request), &mut out);
        } else if done == Some(now) {
            let (_, batch) = running.take().expect("just seen");
            let outcomes = vec![ItemOutcome { accepted: 1, next: None, malformed: false }; batch.items.len()];
            let (waited, compute) = (Span::ZERO, Span(5 * MS + late));
            let input = Input::BatchDone { verifier: batch.verifier, batch: batch.batch, waited, compute, outcomes };
            machine.handle(now, input, &mut out);
        } else {
            machine.handle(now, Input::Timeout, &mut out);
        }
        for output in out {
            if let Output::Start(batch) = output {
                batches.push(batch.items.iter().map(|item| item.session.connection.0).collect());
                running = Some((batch.release + Span(late), batch));
            }
        }
    }
}

proptest! {
    /// A verifier that is late computes the batches that it would have computed in time: what arrives meanwhile waits for
    /// the batch after.
    #[test]
    fn a_late_host_changes_no_batch(gaps in prop::collection::vec(1u64..9_000, 1..60), late in 0u64..20) {
        let arrivals: Vec<u64> = gaps
            .iter()
            // No two things happen at the same nanosecond.
            .scan(0, |at, gap| { *at += gap * 1_009; Some(*at) })
            .collect();
        let quiet = emulated_batches(&arrivals, QueueOrder::Fifo, 0);
        prop_assert_eq!(&emulated_batches(&arrivals, QueueOrder::Fifo, late * MS), &quiet);
        prop_assert_eq!(quiet.iter().map(Vec::len).sum::<usize>(), arrivals.len());
        for order in [QueueOrder::Fair, QueueOrder::Value, QueueOrder::Deadline] {
            let late = emulated_batches(&arrivals, order, late * MS);
            prop_assert_eq!(late.iter().map(Vec::len).sum::<usize>(), arrivals.len(), "nobody is left behind");
        }
    }
}

/// A host that cannot emulate the pool at all makes its batches as full as they get, instead of falling behind for ever.
#[test]
fn a_host_that_is_far_too_late_takes_what_is_there() {
    let arrivals: Vec<u64> = (1..=40).map(|number| number * 7 * MS).collect();
    assert_eq!(emulated_batches(&arrivals, QueueOrder::Fifo, 0).len(), 40);
    assert!(emulated_batches(&arrivals, QueueOrder::Fifo, 1_500 * MS).len() < 8);
}

/// A text that the pool writes goes on by what is charged, however late the machine is: an upload that arrives meanwhile is
/// later by that clock, and the text's next token waits no longer for it.
#[test]
fn a_text_is_charged_the_same_beside_a_later_arrival() {
    let waits = |late: u64| {
        let cost = BatchCost::Fixed { span: Span(5 * MS) };
        let settings = PoolSettings { cost: Some(cost), max_wait: Span(MS), ..settings(1) };
        let mut machine = PoolMachine::new(Time::ZERO, settings);
        let request = |connection, kind, now: Time| JobRequest {
            session: SessionKey { connection: ConnectionId(connection), session: 1 },
            upload: UploadId(1),
            base: 0,
            catch_up: 9,
            kind,
            risk: 0.5,
            deadline: now + Span(1_000 * MS),
            wanted: None,
        };
        let mut out = Vec::new();
        let text = request(1, JobKind::Write { left: 4 }, Time::ZERO);
        machine.handle(Time::ZERO, Input::Upload(text), &mut out);
        let (mut waits, mut running, mut other) = (Vec::new(), None::<(Time, Batch)>, Some(Time(8 * MS)));
        loop {
            for output in out.drain(..) {
                match output {
                    Output::Start(batch) => running = Some((batch.release + Span(late), batch)),
                    Output::Verdict { session, cost, .. } if session.connection == ConnectionId(1) => {
                        waits.push(cost.queue_wait);
                    }
                    _ => {}
                }
            }
            let done = running.as_ref().map(|(at, _)| *at);
            let Some(now) = [other, done, machine.poll_timeout()].into_iter().flatten().min() else { return waits };
            if other == Some(now) {
                other = None;
                let upload = request(2, JobKind::Judge { drafts: 1, bonus: false }, now);
                machine.handle(now, Input::Upload(upload), &mut out);
            } else if done == Some(now) {
                let (_, batch) = running.take().expect("just seen");
                let outcomes = vec![ItemOutcome { accepted: 0, next: Some(7), malformed: false }; batch.items.len()];
                let (verifier, waited, compute) = (batch.verifier, Span::ZERO, Span(5 * MS + late));
                let input = Input::BatchDone { verifier, batch: batch.batch, waited, compute, outcomes };
                machine.handle(now, input, &mut out);
            } else {
                machine.handle(now, Input::Timeout, &mut out);
            }
        }
    };
    // The other upload has waited long enough when the third token is due.
    assert_eq!(waits(0), [Span(MS), Span(MS), Span::ZERO, Span(MS)]);
    assert_eq!(waits(9 * MS), waits(0));
}
