//! What an emulated pool charges.

use super::PoolMachine;
use super::message::{Input, ItemOutcome, JobKind, JobRequest, Output, SessionKey};
use super::settings::PoolSettings;
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
        assert_eq!(batch.release, started + Span(5 * MS));
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
    assert_eq!((record.compute, record.measured, record.overrun), (Span(5 * MS), Span(9 * MS), Span(4 * MS)));
    assert_eq!((record.nanojoules, record.measured_nanojoules), (15 * MS, 27 * MS));
}
