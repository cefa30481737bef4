//! Load, waste, fairness and the pool: a small run whose figures were computed by hand, in both builders.

use crate::common::*;
use specfleet_analysis::{
    GenerationView, Metric, Scores, StreamSummary, Summary, SummaryBuilder, SummaryError, metric_names,
};
use specfleet_engine::id::{DeviceId, VerifierId};
use specfleet_engine::record::{
    AuditRecord, BETWEEN_METHODS, BatchRecord, FinishReason, GenerationRecord, RoundRecord, Source, VerifierRecord,
};
use specfleet_engine::time::{Span, Time};

const U_HLM: u16 = 4;

struct Run {
    generations: Vec<(GenerationRecord, Vec<RoundRecord>, Option<AuditRecord>)>,
    batches: Vec<BatchRecord>,
    verifiers: Vec<VerifierRecord>,
}

fn exact(run: &Run) -> Summary {
    let mut builder = SummaryBuilder::new(header(), &methods(), &["words".to_owned()]);
    for (record, rounds, audit) in &run.generations {
        let view = GenerationView { record, rounds, audit: audit.as_ref(), exact_match: None, rouge_l: None };
        builder.add(view).expect("method and data set exist");
    }
    run.batches.iter().for_each(|batch| builder.batch(batch).expect("its method exists"));
    run.verifiers.iter().for_each(|verifier| builder.verifier(verifier).expect("its method exists"));
    builder.finish()
}

fn streamed(run: &Run) -> Summary {
    let mut summary = StreamSummary::new(header(), &methods(), &["words".to_owned()]);
    for (record, rounds, audit) in &run.generations {
        let mut tally = summary
            .start(record.id.phase(), record.data_set, record.scheduled, record.latency_target)
            .expect("method and data set exist");
        rounds.iter().for_each(|round| tally.round(round, &mut summary));
        let audited = audit.iter().flat_map(|audit| &audit.accept_probabilities);
        audited.for_each(|probability| tally.audit(*probability));
        summary.generation(record, &tally, Scores::default());
    }
    run.batches.iter().for_each(|batch| summary.batch(batch).expect("its method exists"));
    run.verifiers.iter().for_each(|verifier| summary.verifier(verifier).expect("its method exists"));
    summary.finish()
}

fn batch(sequences: u32, work: u32, compute: Span) -> BatchRecord {
    BatchRecord {
        method: U_HLM,
        pass: 0,
        batch: 0,
        verifier: VerifierId(0),
        started: Time::ZERO,
        compute,
        measured: compute,
        overrun: Span::ZERO,
        estimate: Span::ZERO,
        price: 0.0,
        sequences,
        work,
        catch_up: 0,
        drafts: sequences,
        cached: 0,
        nanojoules: SECOND,
        measured_nanojoules: SECOND,
        unclaimed_nanojoules: 0,
        completed: true,
    }
}

fn verifier(method: u16, busy: u64, idle: u64, off: u64) -> VerifierRecord {
    let (busy, idle, off) = (Span(busy), Span(idle), Span(off));
    VerifierRecord { method, pass: 0, verifier: VerifierId(0), busy, idle, off, idle_nanojoules: 0, restarts: 0 }
}

/// Device 0: four tokens at 0.5, 1, 1.5 and 2 s, due at 0. Device 1: two tokens at 3 and 6 s, due at 2, started at 2.5.
/// Device 2: dropped at 1 s. All want a token each 0.6 s.
fn run() -> Run {
    use Source::{Accepted, Fallback, Refused, Replaced, Skipped};
    let mut rounds = vec![
        round(0, 5, Skipped, 0, 0),
        round(1, 6, Accepted, 1, SECOND),
        round(2, 7, Fallback, 0, 0),
        round(3, 8, Replaced, 2, SECOND),
    ];
    let verify = &mut cost(&mut rounds[1]).verify;
    (verify.queue_wait, verify.batch_wait) = (Span(SECOND / 8), Span(SECOND / 8));
    cost(&mut rounds[3]).verify.queue_wait = Span(SECOND / 2);
    let mut first = generation(U_HLM, 0, 0, &rounds);
    first.counts.draft_steps = 8;
    first.counts.wasted_drafts = 2;
    first.counts.stale = 1;
    // A quarter of its joule went into drafting.
    (first.times.draft, first.times.idle) = (Span(SECOND / 2), Span(3 * SECOND / 2));
    let audit = AuditRecord { id: first.id, positions: vec![0, 2], accept_probabilities: vec![1.0, 0.5] };

    let mut late = vec![round(0, 5, Skipped, 0, 0), round(1, 6, Refused, 1, 0)];
    (late[0].committed_at, late[1].committed_at) = (Time(3 * SECOND), Time(6 * SECOND));
    let mut second = generation(U_HLM, 1, 0, &late);
    (second.scheduled, second.started) = (Time(2 * SECOND), Time(5 * SECOND / 2));
    (second.times.draft, second.times.idle) = (Span::ZERO, Span(7 * SECOND / 2));
    (second.device, second.finish) = (DeviceId(1), FinishReason::Battery);

    let mut third = generation(U_HLM, 2, 0, &[]);
    (third.device, third.finish, third.times) = (DeviceId(2), FinishReason::Dropped, Default::default());
    (third.scheduled, third.started, third.ended) = (Time(SECOND), Time(SECOND), Time(SECOND));
    third.energy = Default::default();
    for record in [&mut first, &mut second, &mut third] {
        record.latency_target = Span(6 * SECOND / 10);
    }
    let failed = BatchRecord { completed: false, unclaimed_nanojoules: 3 * SECOND, ..batch(9, 9, Span(SECOND)) };
    Run {
        generations: vec![(first, rounds, Some(audit)), (second, late, None), (third, Vec::new(), None)],
        batches: vec![batch(1, 4, Span(SECOND / 10)), batch(3, 20, Span(SECOND / 5)), failed],
        verifiers: vec![verifier(U_HLM, 1, 3, 90), verifier(U_HLM, 3, 1, 0), verifier(BETWEEN_METHODS, 9, 0, 0)],
    }
}

#[test]
fn figures_computed_by_hand() {
    let run = run();
    for summary in [exact(&run), streamed(&run)] {
        assert!(summary.problems.is_empty(), "{:?}", summary.problems);
        let counts = (summary.generations, summary.failed, summary.dropped, summary.left, summary.battery);
        assert_eq!(counts, (3, 0, 1, 0, 1));
        let metrics = summary.methods.get("u-hlm").expect("it ran");
        #[track_caller]
        fn close(metric: Option<&Metric>, figure: fn(&Metric) -> f64, expected: f64) {
            let found = figure(metric.expect("it applies"));
            assert!((found - expected).abs() <= 0.0101 * expected.abs(), "{found} is not {expected}");
        }
        let mean = |name: &str, expected: f64| close(metrics.get(name), |metric| metric.mean, expected);
        // 6 tokens in 2 + 4 seconds since they were due; the dropped request has no speed.
        mean("tokens_per_second", 1.0);
        mean("time_to_first_token_seconds", 0.75);
        mean("inter_token_latency_seconds", (3.0 * 0.5 + 3.0) / 4.0);
        // The second one never came to its end.
        mean("request_latency_seconds", 2.0);
        // One of three requests was dropped, and none failed.
        mean("dropped", 1.0);
        mean("dropped_share", 1.0 / 3.0);
        mean("failed_share", 0.0);
        mean("queue_seconds", 0.375);
        mean("verify_seconds", (0.1 + 3.0 * 0.2) / 4.0);
        mean("batch_sequences", 2.0);
        mean("batch_tokens", 12.0);
        mean("verifier_busy_share", 0.5);
        mean("fleet_tokens_per_second", 1.0);
        // The first one's four are in time; 1 s and 3 s are not.
        mean("goodput_tokens_per_second", 4.0 / 6.0);
        mean("goodput_share", 4.0 / 6.0);
        // Rates of 2, 0.5 and 0.
        mean("fairness_jain", 6.25 / (3.0 * 4.25));
        mean("worst_decile_inter_token_mean_seconds", 3.0);
        // Both answered; the refused one's token was not.
        mean("upload_rate", 2.0 / 6.0);
        // Only the first one was audited: accepted, replaced and 1.5 of 2 kept.
        mean("verifier_agreement", 3.5 / 4.0);
        mean("wasted_drafts_per_token", 2.0 / 4.0);
        mean("stale_results_per_token", 1.0 / 4.0);
        // A quarter of a quarter of a joule over four tokens.
        mean("wasted_joules_per_token_drafts", 1.0 / 64.0);
        mean("wasted_joules_per_token_unclaimed", 3.0 / 6.0);
        close(metrics.get("verify_seconds"), |metric| metric.p50, 0.2);
        close(metrics.get("queue_seconds"), |metric| metric.p99, 0.5);
        // What belongs to a phase has no data set.
        let words = &summary.data_sets.get("words").expect("it ran").methods;
        let words = words.get("u-hlm").expect("it ran");
        assert!(words.get("goodput_share").is_some() && words.get("fairness_jain").is_none());
    }
}

#[test]
fn what_does_not_apply_is_absent() {
    let mut run = run();
    run.batches.clear();
    run.verifiers.clear();
    run.generations.remove(0);
    for (record, ..) in &mut run.generations {
        record.latency_target = Span::ZERO;
    }
    for summary in [exact(&run), streamed(&run)] {
        let metrics = summary.methods.get("u-hlm").expect("it ran");
        for name in [
            "goodput_tokens_per_second",
            "goodput_share",
            "queue_seconds",
            "verify_seconds",
            "batch_sequences",
            "verifier_busy_share",
            // Skipped and not audited.
            "verifier_agreement",
            "true_skip_rate",
            "request_latency_seconds",
            "wasted_joules_per_token_unclaimed",
        ] {
            assert_eq!(metrics.get(name), None, "{name}");
        }
    }
    // A run of dropped requests alone has nothing to say but that.
    run.generations.remove(0);
    for summary in [exact(&run), streamed(&run)] {
        assert_eq!((summary.generations, summary.dropped), (1, 1));
        let metrics = summary.methods.get("u-hlm").expect("it was to run");
        let figures: Vec<(&str, f64)> = metrics.iter().map(|(name, metric)| (name, metric.mean)).collect();
        assert_eq!(figures, [("dropped", 1.0), ("dropped_share", 1.0), ("failed", 0.0), ("failed_share", 0.0)]);
    }
}

#[test]
fn agreement_needs_no_audit_where_nothing_was_skipped() {
    let rounds = vec![round(0, 5, Source::Verifier, 1, 0), round(1, 5, Source::Verifier, 0, 0)];
    let generations = vec![(generation(1, 0, 0, &rounds), rounds, None)];
    let run = Run { generations, batches: Vec::new(), verifiers: Vec::new() };
    for summary in [exact(&run), streamed(&run)] {
        let metrics = summary.methods.get("llm-only").expect("it ran");
        assert_eq!(metrics.get("verifier_agreement").expect("nothing was skipped").mean, 1.0);
        assert!(metrics.get("upload_rate").is_none() && metrics.get("rejection_rate").is_none());
    }
}

#[test]
fn every_metric_has_its_name_in_the_list() {
    let names: Vec<&str> = metric_names().map(|(name, _)| name).collect();
    let summary = exact(&run());
    let metrics = summary.methods.get("u-hlm").expect("it ran");
    let listed: Vec<&str> = names.iter().copied().filter(|name| metrics.get(name).is_some()).collect();
    assert_eq!(
        metrics.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        listed,
        "all of them, in the order of the list"
    );
}

#[test]
fn foreign_batches_and_verifiers_are_refused() {
    let mut builder = SummaryBuilder::new(header(), &methods(), &[]);
    let unknown = SummaryError::UnknownMethod { index: 17, methods: 5 };
    assert_eq!(builder.batch(&BatchRecord { method: 17, ..batch(1, 1, Span(1)) }), Err(unknown.clone()));
    assert_eq!(builder.verifier(&verifier(17, 1, 1, 0)), Err(unknown));
}
