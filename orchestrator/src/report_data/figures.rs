//! What a report draws of each method, from what was collected of its rounds and batches.

use specfleet_analysis::{ANSWER_BIN, MethodFigures as Collected, RateBuilder, Stretches, pareto};
use specfleet_engine::calibration::Calibration;
use specfleet_engine::method::Gate;

use super::{
    AnswerPositionAcceptance, BatchSize, Damage, LatencyBin, LatencyHistogram, MethodReport, ParetoPoint,
    PositionAcceptance, ReportLine, Risk, RiskBin, RiskThresholds, TimelineBin,
};
use crate::paired::{Comparison, Pairing, Runs};
use crate::stored::StoredRun;

/// Accuracy metrics for the front, the first one that the run has: task success, then closeness to the verifier.
const ACCURACY: [&str; 3] = ["exact_match", "token_agreement", "verifier_agreement"];

/// Names of the run's methods with what was collected of each.
fn named<'a>(run: &'a StoredRun, figures: &'a [Collected]) -> impl Iterator<Item = (String, &'a Collected)> {
    run.meta().methods.iter().map(|method| method.name.clone()).zip(figures)
}

pub(super) fn front(methods: &[MethodReport]) -> Vec<ParetoPoint> {
    let has = |metric: &&str| methods.iter().any(|method| method.metrics.get(metric).is_some());
    let Some(accuracy_metric) = ACCURACY.into_iter().find(has) else { return Vec::new() };
    let mut points: Vec<ParetoPoint> = methods
        .iter()
        .filter_map(|method| {
            // Nobody is compared with itself: the verifier's own text agrees with itself.
            let own = (accuracy_metric == "token_agreement" && method.name == "llm-only").then_some(1.0);
            let accuracy = method.metrics.get(accuracy_metric).map(|metric| metric.mean).or(own)?;
            let joules_per_token = method.metrics.get("energy_per_token_joules_total")?.mean;
            Some(ParetoPoint { method: method.name.clone(), accuracy, accuracy_metric, joules_per_token, front: false })
        })
        .collect();
    let figures: Vec<[f64; 2]> = points.iter().map(|point| [point.accuracy, point.joules_per_token]).collect();
    for (point, front) in points.iter_mut().zip(pareto(&figures, [true, false])) {
        point.front = front;
    }
    points
}

pub(super) fn latency(run: &StoredRun, figures: &[Collected]) -> Vec<LatencyHistogram> {
    let mut histograms = Vec::new();
    for (method, figures) in named(run, figures) {
        for (metric, bins) in [
            ("time_to_first_token_seconds", &figures.first_token),
            ("inter_token_latency_seconds", &figures.gaps),
            ("queue_seconds", &figures.queue),
        ] {
            let bins: Vec<LatencyBin> = bins
                .bins()
                .into_iter()
                .map(|bin| LatencyBin { from: bin.from, to: bin.to, count: bin.count })
                .collect();
            if !bins.is_empty() {
                histograms.push(LatencyHistogram { method: method.clone(), metric, bins });
            }
        }
    }
    histograms
}

pub(super) fn batch_sizes(run: &StoredRun, figures: &[Collected]) -> Vec<BatchSize> {
    let sizes = named(run, figures).flat_map(|(method, figures)| {
        let sizes = figures.batch_sizes.iter();
        sizes
            .map(move |(&sequences, &batches)| BatchSize { method: method.clone(), sequences, batches })
            .collect::<Vec<_>>()
    });
    sizes.collect()
}

pub(super) fn risk(run: &StoredRun, figures: &[Collected]) -> Vec<Risk> {
    let calibrations: Vec<Calibration> = run
        .meta()
        .calibration
        .as_ref()
        .and_then(|value| serde_json::from_value(value.clone()).ok())
        .unwrap_or_default();
    let delta = calibrations.first().map(|calibration| calibration.delta);
    let mut risks = Vec::new();
    for (method, collected) in run.meta().methods.iter().zip(figures) {
        let bins: Vec<RiskBin> = collected
            .risk
            .cells()
            .into_iter()
            .map(|cell| RiskBin { uncertainty: cell.uncertainty, rejected: cell.rejected, judged: cell.drafts })
            .collect();
        if bins.is_empty() {
            continue;
        }
        let line = collected.risk.fit().map(|fit| ReportLine { a: fit.a, b: fit.b, r: fit.r, samples: fit.samples });
        let reaches =
            |risk: f64| line.filter(|line| line.a > 0.0).map(|line| ((risk - line.b) / line.a).clamp(0.0, 1.0));
        let in_use = match method.gate {
            Gate::Uncertainty { threshold, .. } | Gate::Joint { threshold, .. } => Some(f64::from(threshold)),
            _ => None,
        };
        risks.push(Risk {
            method: method.name.clone(),
            bins,
            line,
            thresholds: RiskThresholds { risk_averse: reaches(0.0), risk_prone: delta.and_then(reaches), in_use },
        });
    }
    risks
}

pub(super) fn timeline(run: &StoredRun, figures: &[Collected]) -> Vec<TimelineBin> {
    let mut bins = Vec::new();
    for (method, figures) in named(run, figures) {
        if figures.answer.is_empty() {
            continue;
        }
        for (seconds, width_seconds, stretch) in figures.passes.iter().flat_map(Stretches::iter) {
            let mean = |sum: u64, count: u64, factor: f64| (count > 0).then(|| sum as f64 * factor / count as f64);
            bins.push(TimelineBin {
                seconds,
                width_seconds,
                method: method.clone(),
                tokens_per_second: stretch.tokens as f64 / width_seconds,
                uploads_per_second: stretch.uploads as f64 / width_seconds,
                queue_seconds: mean(stretch.queue_nanoseconds, stretch.uploads, 1e-9),
                batch_sequences: mean(stretch.sequences, stretch.batches, 1.0),
            });
        }
    }
    // Passes of several methods take turns.
    bins.sort_by(|one: &TimelineBin, other| one.seconds.total_cmp(&other.seconds));
    bins
}

pub(super) fn positions(run: &StoredRun, figures: &[Collected]) -> Vec<PositionAcceptance> {
    let mut rows = Vec::new();
    for (method, figures) in named(run, figures) {
        for (position, judged) in figures.places.iter().enumerate() {
            rows.push(PositionAcceptance {
                method: method.clone(),
                position: position as u32,
                judged: judged.judged,
                accepted: judged.accepted,
            });
        }
    }
    rows
}

pub(super) fn answer_positions(run: &StoredRun, figures: &[Collected]) -> Vec<AnswerPositionAcceptance> {
    let mut rows = Vec::new();
    for (method, figures) in named(run, figures) {
        for (bin, judged) in figures.answer.iter().enumerate() {
            let from = bin as u32 * ANSWER_BIN;
            rows.push(AnswerPositionAcceptance {
                method: method.clone(),
                from,
                to: from + ANSWER_BIN,
                tokens: judged.tokens,
                judged: judged.judged,
                accepted: judged.accepted,
            });
        }
    }
    rows
}

/// `ui-hlm` against the others, as at the end of a run.
pub(super) fn paired(run: &StoredRun) -> Vec<Comparison> {
    let mut pairing = Pairing::default();
    for (record, text) in run.generations.iter().zip(&run.texts) {
        pairing.add(record, text.exact_match);
    }
    let names: Vec<&str> = run.meta().methods.iter().map(|method| method.name.as_str()).collect();
    pairing.compare(&names, &Runs::of(run.meta()))
}

/// Deviation among skipped tokens, by method.
pub(super) fn damage_of(run: &StoredRun) -> Vec<Damage> {
    let mut rates = vec![RateBuilder::default(); run.meta().methods.len()];
    for audit in &run.audits {
        if let (Some(rate), Some(_)) = (rates.get_mut(usize::from(audit.id.method)), run.find(audit.id)) {
            let known = audit.accept_probabilities.iter().filter(|p| p.is_finite());
            let rejected: f64 = known.clone().map(|p| 1.0 - f64::from(p.clamp(0.0, 1.0))).sum();
            rate.push(rejected, known.count() as u64);
        }
    }
    let named = run.meta().methods.iter().zip(rates);
    named
        .filter_map(|(method, rate)| {
            let rate = rate.rate()?;
            Some(Damage {
                method: method.name.clone(),
                skipped_tokens: rate.count,
                deviation_rate: rate.value,
                low: rate.low,
                high: rate.high,
            })
        })
        .collect()
}
