//! The streamed summary against the exact one, and against itself in other parts and orders.

use crate::common::*;
use proptest::prelude::*;
use specfleet_analysis::{
    GenerationTally, GenerationView, Scores, StreamSummary, Summary, SummaryBuilder, SummaryError, metric_names,
};
use specfleet_engine::id::{DeviceId, VerifierId};
use specfleet_engine::record::{BatchRecord, FinishReason, GenerationRecord, RoundRecord, Source, VerifierRecord};
use specfleet_engine::time::{Span, Time};

/// A record of a run, and the part that it goes to.
#[derive(Clone, Debug)]
enum Entry {
    Generation(Box<GenerationRecord>, Vec<RoundRecord>, Vec<f32>),
    Batch(BatchRecord),
    Verifier(VerifierRecord),
}

fn rounds() -> impl Strategy<Value = Vec<RoundRecord>> {
    use Source::{Accepted, Fallback, Refused, Replaced, Skipped};
    let source = prop::sample::select(vec![Skipped, Skipped, Accepted, Replaced, Fallback, Refused]);
    let one = (source, 0u64..400_000_000, 0u64..90_000_000, 0u64..5_000_000_000);
    prop::collection::vec(one, 0..12).prop_map(|rounds| {
        let mut now = SECOND;
        let step = |(position, (source, gap, queue, cloud)): (usize, (Source, u64, u64, u64))| {
            now += gap;
            let attempts = u32::from(matches!(source, Accepted | Replaced | Refused));
            let mut round = round(position as u32, position as u32, source, attempts, cloud);
            round.committed_at = Time(now);
            if let Some(cost) = &mut round.upload {
                cost.verify.queue_wait = Span(queue);
            }
            round
        };
        rounds.into_iter().enumerate().map(step).collect()
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let finish = prop::sample::select(vec![
        FinishReason::Stop,
        FinishReason::Length,
        FinishReason::Failed,
        FinishReason::Left,
        FinishReason::Dropped,
    ]);
    let ids = (0u16..5, 0u32..1000, 0u16..2, 0u32..6);
    let numbers = (0u64..SECOND, 1u64..40, 0u64..30, 0u64..4);
    let audit = prop::collection::vec(0.0f32..1.0, 0..4);
    let generation = (rounds(), ids, numbers, finish, audit).prop_map(|(rounds, ids, numbers, finish, audit)| {
        let rounds = if finish == FinishReason::Dropped { Vec::new() } else { rounds };
        let mut record = generation(ids.0, ids.1, ids.2, &rounds);
        (record.device, record.finish) = (DeviceId(ids.3), finish);
        (record.scheduled, record.latency_target) = (Time(numbers.0), Span(numbers.3 * 100_000_000));
        (record.counts.draft_steps, record.counts.wasted_drafts) = (numbers.1, numbers.2);
        if finish == FinishReason::Dropped {
            record.times = Default::default();
        }
        Entry::Generation(Box::new(record), rounds, audit)
    });
    let batch = (0u16..5, 1u64..SECOND, 1u32..9, 1u32..99, any::<bool>()).prop_map(|(method, compute, s, work, ok)| {
        Entry::Batch(BatchRecord {
            method,
            pass: 0,
            batch: 0,
            verifier: VerifierId(0),
            started: Time::ZERO,
            compute: Span(compute),
            measured: Span(compute),
            overrun: Span::ZERO,
            estimate: Span::ZERO,
            price: 0.0,
            sequences: s,
            work,
            catch_up: 0,
            drafts: s,
            cached: 0,
            nanojoules: compute,
            measured_nanojoules: compute,
            unclaimed_nanojoules: compute / 3,
            completed: ok,
        })
    });
    let verifier = (0u16..5, 0u64..SECOND, 1u64..SECOND).prop_map(|(method, busy, idle)| {
        let (busy, idle) = (Span(busy), Span(idle));
        let verifier = VerifierId(0);
        Entry::Verifier(VerifierRecord {
            method,
            pass: 0,
            verifier,
            busy,
            idle,
            off: idle,
            idle_nanojoules: 0,
            restarts: 0,
        })
    });
    prop_oneof![6 => generation, 2 => batch, 1 => verifier]
}

fn data_sets() -> [String; 2] {
    ["words".to_owned(), "gsm8k".to_owned()]
}

fn enter(summary: &mut StreamSummary, entry: &Entry) {
    match entry {
        Entry::Generation(record, rounds, audit) => {
            let mut tally = summary
                .start(record.id.phase(), record.data_set, record.scheduled, record.latency_target)
                .expect("method and data set exist");
            rounds.iter().for_each(|round| tally.round(round, summary));
            audit.iter().for_each(|probability| tally.audit(*probability));
            let scores = Scores { exact_match: Some(record.id.prompt % 2 == 0), rouge_l: None };
            summary.generation(record, &tally, scores);
        }
        Entry::Batch(batch) => summary.batch(batch).expect("its method exists"),
        Entry::Verifier(verifier) => summary.verifier(verifier).expect("its method exists"),
    }
}

fn streamed<'a>(entries: impl Iterator<Item = &'a Entry>) -> StreamSummary {
    let mut summary = StreamSummary::new(header(), &methods(), &data_sets());
    entries.for_each(|entry| enter(&mut summary, entry));
    summary
}

fn exact(entries: &[Entry]) -> Summary {
    let mut builder = SummaryBuilder::new(header(), &methods(), &data_sets());
    for entry in entries {
        match entry {
            Entry::Generation(record, rounds, audit) => {
                let audit = (!audit.is_empty()).then(|| specfleet_engine::record::AuditRecord {
                    id: record.id,
                    positions: Vec::new(),
                    accept_probabilities: audit.clone(),
                });
                let exact_match = Some(record.id.prompt % 2 == 0);
                let view = GenerationView { record, rounds, audit: audit.as_ref(), exact_match, rouge_l: None };
                builder.add(view).expect("method and data set exist");
            }
            Entry::Batch(batch) => builder.batch(batch).expect("its method exists"),
            Entry::Verifier(verifier) => builder.verifier(verifier).expect("its method exists"),
        }
    }
    builder.finish()
}

proptest! {
    #[test]
    fn the_same_figures_as_from_all_records(entries in prop::collection::vec(entry(), 1..60)) {
        let (stream, exact) = (streamed(entries.iter()).finish(), exact(&entries));
        prop_assert_eq!(&stream.quantiles, "sketch, relative error 0.01");
        prop_assert_eq!(
            (stream.generations, stream.failed, stream.dropped, stream.left, stream.uploads),
            (exact.generations, exact.failed, exact.dropped, exact.left, exact.uploads)
        );
        for (method, exact) in exact.methods.iter() {
            let stream = stream.methods.get(method).expect("the same methods");
            for (name, _) in metric_names() {
                // Comparisons between generations need them all.
                if matches!(name, "token_agreement" | "first_divergence_tokens" | "energy_saved_vs_hlm") {
                    prop_assert!(stream.get(name).is_none());
                    continue;
                }
                let (Some(found), Some(exact)) = (stream.get(name), exact.get(name)) else {
                    prop_assert_eq!(stream.get(name), exact.get(name), "{} {}", method, name);
                    continue;
                };
                prop_assert_eq!(found.count, exact.count);
                let close = |found: f64, exact: f64, error: f64| (found - exact).abs() <= error * exact.abs() + 3e-9;
                for (found, exact, error) in [
                    (found.mean, exact.mean, 1e-9),
                    (found.std, exact.std, 1e-6),
                    (found.min, exact.min, 1e-9),
                    (found.max, exact.max, 1e-9),
                    (found.p50, exact.p50, 0.0101),
                    (found.p90, exact.p90, 0.0101),
                    (found.p95, exact.p95, 0.0101),
                    (found.p99, exact.p99, 0.0101),
                ] {
                    prop_assert!(close(found, exact, error), "{method} {name}: {found} {exact}");
                }
            }
        }
    }

    #[test]
    fn parts_and_order_change_nothing(entries in prop::collection::vec((entry(), 0usize..5), 1..80)) {
        let whole = streamed(entries.iter().map(|(entry, _)| entry)).finish();
        let part = |number: usize| streamed(entries.iter().rev().filter(|(_, part)| *part == number).map(|(entry, _)| entry));
        let mut merged = part(3);
        for number in [0, 4, 2, 1] {
            merged.merge(&part(number)).expect("the same run");
        }
        let bytes = |summary: &Summary| serde_json::to_string(summary).expect("it serialises");
        prop_assert_eq!(bytes(&merged.finish()), bytes(&whole));
    }
}

#[test]
fn a_tally_stays_small() {
    assert_eq!(size_of::<GenerationTally>(), 64);
}

#[test]
fn summaries_of_other_runs_do_not_merge() {
    let mut mine = streamed([].iter());
    let other = StreamSummary::new(header(), &methods()[1..], &data_sets());
    assert!(matches!(mine.merge(&other), Err(SummaryError::OtherRun { .. })));
}

#[test]
fn problems_do_not_depend_on_the_parts_either() {
    let problem = |number: u32| format!("problem {number:02}");
    let (mut whole, mut left, mut right) = (streamed([].iter()), streamed([].iter()), streamed([].iter()));
    for number in 0..50 {
        whole.problem(problem(49 - number));
        if number % 3 == 0 { left.problem(problem(number)) } else { right.problem(problem(number)) }
    }
    right.merge(&left).expect("the same run");
    let (whole, merged) = (whole.finish(), right.finish());
    assert_eq!(merged, whole);
    assert_eq!((merged.problems.len(), merged.problems[20].as_str()), (21, "… and 30 more"));
}
