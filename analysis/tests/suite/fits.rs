//! Fits recover the parameters that their data were made with.

use std::collections::BTreeMap;

use crate::common::*;
use proptest::prelude::*;
use specfleet_analysis::{GenerationRows, fit_batch_cost, fit_distributions, fit_host, refit_line};
use specfleet_engine::cost::{BatchWork, MeasuredCost, quantile};
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::VerifierId;
use specfleet_engine::method::{Estimator, Gate, Method, Writer};
use specfleet_engine::record::{AuditRecord, BatchRecord, GenerationRecord, RoundRecord, Source};
use specfleet_engine::time::{Span, Time};

/// A cheap source of uniform draws.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() * f64::from(bound)) as u32
    }
}

// ---- batches -------------------------------------------------------------------------------------------------------

fn plane(base: f64, per_token: f64, per_sequence: f64, per_cached_token: f64, contention: &[f64]) -> MeasuredCost {
    MeasuredCost {
        base,
        per_token,
        per_sequence,
        per_cached_token,
        contention: contention.to_vec(),
        methods: BTreeMap::new(),
        spread: Vec::new(),
        batches: 0,
        relative_error: 0.0,
        r2: 0.0,
    }
}

/// Batches of three verifiers that start when they like; `noise` is what each takes over what `cost` says.
fn batches(cost: &MeasuredCost, count: u64, seed: u64, mut noise: impl FnMut(&mut Draws) -> f64) -> Vec<BatchRecord> {
    let mut draws = Draws(seed);
    let mut free = [Time::ZERO; 3];
    // As long as a usual batch at most, so that any number of them overlap.
    let gap = cost.expected(&BatchWork { tokens: 34, sequences: 4, cached: 2000, beside: 0 });
    let mut batches = Vec::new();
    for batch in 0..count {
        // The one that is free first starts next, so time never runs backwards.
        let verifier = (0..3).min_by_key(|verifier| free[*verifier]).expect("three");
        let latest = batches.last().map_or(Time::ZERO, |batch: &BatchRecord| batch.started);
        let started = free[verifier].max(latest) + Span((draws.next() * gap) as u64);
        let beside = (0..3).filter(|other| *other != verifier && free[*other] > started).count() as u16;
        let (sequences, cached) = (1 + draws.below(8), u64::from(draws.below(4000)));
        let tokens = sequences + draws.below(60);
        let work = BatchWork { tokens, sequences, cached, beside };
        let compute = Span((cost.expected(&work) * noise(&mut draws)).round() as u64);
        free[verifier] = started + compute;
        batches.push(BatchRecord {
            method: 0,
            pass: 0,
            batch,
            verifier: VerifierId(verifier as u16),
            started,
            compute,
            measured: compute,
            overrun: Span::ZERO,
            estimate: Span::ZERO,
            price: 0.0,
            sequences,
            work: tokens,
            catch_up: 0,
            drafts: sequences,
            cached,
            nanojoules: 0,
            measured_nanojoules: 0,
            unclaimed_nanojoules: 0,
            completed: true,
        });
    }
    batches
}

#[track_caller]
fn near(found: f64, expected: f64, error: f64) {
    assert!((found - expected).abs() <= error * expected.abs().max(1e-12), "{found} is not {expected}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_plane_without_noise_is_found_exactly(
        base in 1e5f64..5e6, token in 1e4f64..1e6, sequence in 1e4f64..1e6, cached in 10.0f64..1e3,
        beside in prop::array::uniform2(1.0f64..3.0), seed in any::<u64>(),
    ) {
        let truth = plane(base, token, sequence, cached, &[1.0, beside[0], beside[1]]);
        let batches = batches(&truth, 1500, seed, |_| 1.0);
        // Where a long base keeps all three busy all the time, nothing tells a slow plane from contention.
        let computes = |other: &BatchRecord, at: Time| other.started < at && at < other.started + other.compute;
        let alone = |batch: &&BatchRecord| !batches.iter().any(|other| computes(other, batch.started));
        prop_assume!(batches.iter().filter(alone).count() > 20);
        let (fit, report) = fit_batch_cost(&batches, &[]).expect("enough batches");
        prop_assert_eq!((report.batches, report.outliers), (1500, 0));
        prop_assert!(report.relative_error < 1e-5 && report.r2 > 0.999_99, "{report:?}");
        // Times are whole nanoseconds, which hide a coefficient that hardly matters.
        let usual = truth.expected(&BatchWork { tokens: 34, sequences: 4, cached: 2000, beside: 0 });
        for (found, expected, often) in [
            (fit.base, base, 1.0),
            (fit.per_token, token, 34.0),
            (fit.per_sequence, sequence, 4.0),
            (fit.per_cached_token, cached, 2000.0),
        ] {
            prop_assert!((found - expected).abs() < 1e-3 * expected + 1e-5 * usual / often, "{fit:?}");
        }
        for (found, expected) in fit.contention.iter().zip([1.0, beside[0], beside[1]]) {
            prop_assert!((found - expected).abs() < 1e-3 * expected, "{fit:?}");
        }
        prop_assert_eq!(fit.contention.len(), 3);
    }
}

#[test]
fn noise_and_a_few_huge_outliers_do_not_matter() {
    let truth = plane(2e6, 3e5, 1e5, 200.0, &[1.0, 1.4, 1.9]);
    let noise = |draws: &mut Draws| {
        let usual = 0.9 + 0.2 * draws.next();
        if draws.next() < 0.005 { 40.0 } else { usual }
    };
    let batches = batches(&truth, 8000, 7, noise);
    let huge =
        batches.iter().filter(|batch| batch.compute.0 as f64 > 10.0 * truth.expected(&work_alone(batch))).count();
    assert!(huge > 20, "{huge}");
    let (fit, report) = fit_batch_cost(&batches, &[]).expect("enough batches");
    assert_eq!(report.outliers, huge as u64);
    near(fit.base, 2e6, 0.05);
    near(fit.per_token, 3e5, 0.03);
    near(fit.per_sequence, 1e5, 0.25);
    near(fit.per_cached_token, 200.0, 0.05);
    near(fit.contention[1], 1.4, 0.02);
    near(fit.contention[2], 1.9, 0.02);
    // A uniform spread of ± 10 %: its mean distance is 5 %.
    near(report.relative_error, 0.05, 0.05);
    near(f64::from(fit.spread[0]), 0.9, 0.02);
    near(f64::from(fit.spread[100]), 1.1, 0.02);
    // Draws from the fit take as long as the batches did.
    let mut draws = Draws(1);
    let drawn: f64 = (0..100_000).filter_map(|_| quantile(&fit.spread, draws.next())).sum::<f64>() / 1e5;
    near(drawn, 1.0, 0.002);
}

/// Methods whose batches take less or more than others of their size, one of them with too few to say so.
#[test]
fn methods_differ() {
    let truth = plane(2e6, 3e5, 1e5, 200.0, &[1.0]);
    let factors = [0.9, 1.0, 1.2, 5.0];
    let mut rows = batches(&truth, 6000, 11, |draws| 0.95 + 0.1 * draws.next());
    for (place, batch) in rows.iter_mut().enumerate() {
        batch.method = if place % 500 == 0 { 3 } else { (place % 3) as u16 };
        // The rare ones are not told apart, so they must not be outliers either.
        let factor = if batch.method == 3 { 1.0 } else { factors[usize::from(batch.method)] };
        batch.measured = Span((batch.measured.0 as f64 * factor) as u64);
    }
    let methods = ["a", "b", "c", "d"].map(|name| method(name, Writer::Drafter, Gate::Always, 1, false));
    let (fit, report) = fit_batch_cost(&rows, &methods).expect("enough batches");
    assert_eq!(report.outliers, 0);
    let of = |name: &str| fit.methods[name];
    near(of("a") / of("b"), 0.9, 0.005);
    near(of("c") / of("b"), 1.2, 0.005);
    assert_eq!(of("d"), 1.0);
    // Their mean is 1, so the plane is that of all.
    near(fit.per_token, 3e5 * 3.1 / 3.0, 0.02);
    let cost = specfleet_engine::cost::BatchCost::Measured(fit);
    let work = BatchWork { tokens: 30, sequences: 4, cached: 2000, beside: 0 };
    let mean = |name: &str| {
        let cost = cost.of_method(name);
        (0..1000).map(|draw| cost.span(&work, f64::from(draw) / 1000.0).seconds()).sum::<f64>() / 1000.0
    };
    near(mean("a"), 0.9e-9 * truth.expected(&work), 0.01);
    near(mean("c"), 1.2e-9 * truth.expected(&work), 0.01);
}

fn work_alone(batch: &BatchRecord) -> BatchWork {
    BatchWork { tokens: batch.work, sequences: batch.sequences, cached: batch.cached, beside: 0 }
}

#[test]
fn coefficients_never_fall_below_zero_and_failed_batches_do_not_count() {
    // Times that fall with every cached token: the bound holds, and the rest takes it over.
    let truth = plane(5e6, 1e5, 0.0, 0.0, &[1.0]);
    let mut rows = batches(&truth, 500, 3, |_| 1.0);
    for batch in &mut rows {
        batch.measured = Span(batch.measured.0 - batch.cached * 500);
    }
    let mut failed = rows[100];
    (failed.completed, failed.measured) = (false, Span(1));
    rows.push(failed);
    let (fit, report) = fit_batch_cost(&rows, &[]).expect("enough batches");
    assert_eq!(report.batches, 500);
    assert_eq!(fit.per_cached_token, 0.0);
    assert!(fit.base > 0.0 && fit.per_token > 0.0 && fit.per_sequence >= 0.0, "{fit:?}");
    assert!(fit_batch_cost(&rows[..19], &[]).is_none(), "too few");
}

// ---- the host ------------------------------------------------------------------------------------------------------

#[test]
fn overheads_are_what_the_parts_do_not_explain() {
    let mut generations = Vec::new();
    for prompt in 0..10_u64 {
        let mut rounds = vec![round(0, 1, Source::Skipped, 0, 0)];
        rounds.extend((1..4).map(|position| round(position, 1, Source::Accepted, 1, 0)));
        for round in &mut rounds[1..] {
            let cost = cost(round);
            (cost.uplink, cost.downlink) = (Span(5_000_000), Span(1_000_000));
            (cost.uplink_bits, cost.uplink_bytes, cost.downlink_bytes) = (8000, 1070, 66);
            (cost.verify.queue_wait, cost.verify.batch_wait) = (Span(300_000 * prompt), Span(40_000));
            cost.verify.compute = Span(3_000_000);
        }
        let mut record = generation(4, prompt as u32, 0, &rounds);
        record.counts.draft_steps = 4 + prompt;
        record.times.overrun = Span((4 + prompt) * 20_000);
        // Half a millisecond per upload that no part explains, one more in each second generation.
        let odd = 1_000_000 * (prompt % 2);
        record.times.waiting = Span(3 * (9_040_000 + 300_000 * prompt + 500_000 + odd));
        generations.push((record, rounds));
    }
    // A refusal makes the device wait for other reasons.
    let (mut refused, rounds) = generations[0].clone();
    (refused.uploads.sent, refused.uploads.refused, refused.times.waiting) = (4, 1, Span(u64::MAX / 2));
    generations.push((refused, rounds));
    let rows: Vec<GenerationRows<'_>> =
        generations.iter().map(|(record, rounds)| GenerationRows { record, rounds, audit: None }).collect();

    let (host, by_method) = fit_host(&rows, &methods(), Span::ZERO).expect("they drafted");
    assert_eq!(by_method, BTreeMap::from([("u-hlm".to_owned(), host.clone())]));
    assert_eq!((host.step, host.upload, host.batch), (Span(20_000), Span(1_000_000), Span(40_000)));
    assert_eq!((host.uplink_bytes, host.downlink_bytes, host.generations), (70, 66, 11));
    assert_eq!((host.step_spread[0], host.step_spread[100]), (20_000.0, 20_000.0));
    assert_eq!((host.upload_spread[0], host.upload_spread[100]), (500_000.0, 1_500_000.0));
    assert_eq!(host.upload_spread.len(), 101);

    // A device that drafts ahead waits less than its uploads take: that says nothing about them.
    let ahead: Vec<Method> = methods().into_iter().map(|method| Method { draft_ahead: true, ..method }).collect();
    let (host, _) = fit_host(&rows, &ahead, Span::ZERO).expect("they drafted");
    assert_eq!((host.step, host.upload, host.upload_spread.len()), (Span(20_000), Span::ZERO, 0));
    let streaming: Vec<Method> = methods().into_iter().map(|m| Method { writer: Writer::Verifier, ..m }).collect();
    assert!(fit_host(&rows, &streaming, Span::ZERO).is_none());
}

/// `hlm` uploads every token, so no gap says what a step takes; `slm-only` uploads none.
#[test]
fn what_a_method_does_not_say_is_said_by_all() {
    let accepted = |method: u16, prompt: u32, waited: u64| {
        let mut rounds: Vec<RoundRecord> = (0..4).map(|at| round(at, 1, Source::Accepted, 1, 0)).collect();
        for round in &mut rounds {
            let verify = &mut cost(round).verify;
            (verify.batch_wait, verify.compute) = (Span(40_000), Span(3_000_000));
        }
        let mut record = generation(method, prompt, 0, &rounds);
        (record.counts.draft_steps, record.times.overrun) = (4, Span(4 * 20_000));
        record.times.waiting = Span(4 * (3_040_000 + waited));
        (record, rounds)
    };
    let mut generations: Vec<_> =
        (0..10).map(|prompt| accepted(4, prompt, 300_000 + 10_000 * u64::from(prompt))).collect();
    generations.extend((0..10).map(|prompt| accepted(2, prompt, 900_000)));
    let skipped: Vec<RoundRecord> = (0..4).map(|at| round(at, 1, Source::Skipped, 0, 0)).collect();
    let mut local = generation(0, 0, 0, &skipped);
    (local.counts.draft_steps, local.times.overrun) = (4, Span(4 * 50_000));
    generations.push((local, skipped));
    let rows: Vec<GenerationRows<'_>> =
        generations.iter().map(|(record, rounds)| GenerationRows { record, rounds, audit: None }).collect();
    let (all, by_method) = fit_host(&rows, &methods(), Span::ZERO).expect("they drafted");
    assert_eq!(by_method.keys().collect::<Vec<_>>(), ["hlm", "slm-only", "u-hlm"]);

    let (hlm, local) = (&by_method["hlm"], &by_method["slm-only"]);
    assert_eq!((hlm.upload, by_method["u-hlm"].upload, all.upload), (Span(900_000), Span(345_000), Span(622_500)));
    // Of the same shape, with a mean of its own.
    for (own, of_all) in hlm.upload_spread.iter().zip(&all.upload_spread) {
        assert!((own / of_all - 900_000.0 / 622_500.0).abs() < 1e-5, "{own} {of_all}");
    }
    assert_eq!((local.step, local.upload, local.batch), (Span(50_000), all.upload, all.batch));
    assert_eq!((&local.upload_spread, &local.batch_spread), (&all.upload_spread, &all.batch_spread));
}

// ---- distributions and the risk line -------------------------------------------------------------------------------

const THRESHOLD: f32 = 0.25;

/// Drafts of u-hlm with u = v² for uniform v, accepted with probability 1 − (0.8 u + 0.1); audited below the threshold.
fn drafts(count: u32, seed: u64) -> (GenerationRecord, Vec<RoundRecord>, AuditRecord) {
    let mut draws = Draws(seed);
    let mut rounds = Vec::new();
    let mut audit = Vec::new();
    for position in 0..count {
        let u = draws.next().powi(2) as f32;
        let accepted = 1.0 - (0.8 * f64::from(u) + 0.1);
        let source = if u <= THRESHOLD {
            audit.push((position, accepted as f32));
            Source::Skipped
        } else if draws.next() < accepted {
            Source::Accepted
        } else {
            Source::Replaced
        };
        let mut round = round(position, 1, source, u32::from(u > THRESHOLD), 0);
        (round.uncertainty, round.draft_probability) = (u, 1.0 - u);
        rounds.push(round);
    }
    let record = generation(4, 0, 0, &rounds);
    let (positions, accept_probabilities) = audit.into_iter().unzip();
    (record.clone(), rounds, AuditRecord { id: record.id, positions, accept_probabilities })
}

fn measuring() -> Vec<Method> {
    let gate = Gate::Uncertainty { estimator: Estimator::Expected, threshold: THRESHOLD };
    methods().into_iter().map(|method| Method { gate, ..method }).collect()
}

#[test]
fn acceptance_given_uncertainty_and_the_risk_line_are_found_again() {
    let generations: Vec<_> = (0..20).map(|seed| drafts(1000, seed)).collect();
    let rows: Vec<GenerationRows<'_>> = generations
        .iter()
        .map(|(record, rounds, audit)| GenerationRows { record, rounds, audit: Some(audit) })
        .collect();
    let fit = fit_distributions(&rows, &measuring()).expect("u was measured");
    assert_eq!((fit.drafts, fit.uncertainty.len(), fit.acceptance.len()), (20_000, 101, 20));
    assert!((fit.uncertainty[50] - 0.25).abs() < 0.01 && (fit.uncertainty[90] - 0.81).abs() < 0.01);
    for (share, acceptance) in fit.acceptance.iter().enumerate() {
        // The mean of v² over a share of the uniform v.
        let (low, high) = (share as f32 / 20.0, (share + 1) as f32 / 20.0);
        let u = (high.powi(3) - low.powi(3)) / 3.0 * 20.0;
        assert!((acceptance - (0.9 - 0.8 * u)).abs() < 0.05, "{share}: {acceptance}");
    }
    assert_eq!((fit.length[0], fit.prompt[100]), (1000.0, 7.0));
    assert!(fit.importance.is_empty() && fit.important.is_none() && fit.entropy.is_empty() && fit.doubt.is_empty());
    assert!((fit.draft_probability[50] - 0.75).abs() < 0.01);

    let line = refit_line(&rows, &measuring()).expect("u was measured");
    assert!((line.a - 0.8).abs() < 0.02 && (line.b - 0.1).abs() < 0.01 && line.n == 20_000, "{line:?}");
    assert!((line.r * line.r - line.r2).abs() < 1e-12 && line.r > 0.3 && line.rmse > 0.2, "{line:?}");
}

#[test]
fn what_was_not_audited_takes_the_nearest_known_share() {
    let (record, rounds, _) = drafts(4000, 5);
    let rows = [GenerationRows { record: &record, rounds: &rounds, audit: None }];
    let fit = fit_distributions(&rows, &measuring()).expect("u was measured");
    // Half of the drafts lie below the threshold.
    assert!(fit.acceptance[..9].iter().all(|share| *share == fit.acceptance[9]), "{:?}", fit.acceptance);
    assert!(fit.acceptance[9] > fit.acceptance[19] + 0.2);
    assert_eq!(refit_line(&rows, &measuring()).expect("judged").n as usize, uploads(&rounds));
    // A method that measures no u, and rounds that nobody judged, say nothing.
    assert!(fit_distributions(&rows, &methods()).is_none() && refit_line(&rows, &methods()).is_none());
    let skipped: Vec<RoundRecord> = rounds.iter().copied().filter(|round| round.attempts() == 0).collect();
    let rows = [GenerationRows { record: &record, rounds: &skipped, audit: None }];
    assert!(fit_distributions(&rows, &measuring()).is_none() && refit_line(&rows, &measuring()).is_none());
}

fn uploads(rounds: &[RoundRecord]) -> usize {
    rounds.iter().filter(|round| round.attempts() > 0).count()
}

#[test]
fn drafts_of_equal_uncertainty_share_their_acceptance() {
    // All the same u, the accepted ones first: no share may look better than another.
    let mut rounds: Vec<RoundRecord> = (0..400).map(|at| round(at, 1, Source::Accepted, 1, 0)).collect();
    for round in &mut rounds {
        round.uncertainty = 0.5;
        round.reason = GateReason::Uncertain;
    }
    rounds[100..].iter_mut().for_each(|round| round.source = Source::Replaced);
    let record = generation(4, 0, 0, &rounds);
    let rows = [GenerationRows { record: &record, rounds: &rounds, audit: None }];
    let fit = fit_distributions(&rows, &measuring()).expect("u was measured");
    assert_eq!(fit.acceptance, vec![0.25; 20]);
}
