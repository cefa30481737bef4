//! From a stored run to its report, in one pass over its rounds.

use std::path::Path;

use specfleet_analysis::{
    ANSWER_BIN, MethodFigures as Collected, Metric, Metrics, PiecewiseSummary, PoolAccount, Quantiles, RateBuilder,
    RoundPlace, Samples, Scores, Stretches, Summary, SummaryError, pareto,
};
use specfleet_engine::calibration::Calibration;
use specfleet_engine::disturbance;
use specfleet_engine::method::{Gate, Writer};
use specfleet_engine::record::Provenance;
use specfleet_engine::time::Time;
use specfleet_ledger::{EnergyPart, RoundChunk, RunState};

use super::rules;
use super::spread::Spread;
use super::{
    AnswerPositionAcceptance, BatchSize, Counts, Damage, DeviceSpread, EnergyFigure, LatencyBin, LatencyHistogram,
    Line, MethodFigures, ParetoPoint, PositionAcceptance, REPORT_SCHEMA, ReportData, ReportValidity, Risk, RiskBin,
    RiskThresholds, RunIdentity, TableColumn, TimelineBin,
};
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::paired::{Pairing, Runs};
use crate::report::{COLUMNS, Column, POOL_COLUMNS, is_shown};
use crate::results::{header, shortfalls, unpaid};
use crate::standstills;
use crate::stored::{AuditCursor, FIGURE_COLUMNS, StoredRun};
use crate::work::all_asked;

/// Rounds up to which every sample is kept; above, percentiles come from sketches.
pub const EXACT_UP_TO: u64 = 2_000_000;

/// Stretches of the timeline at most.
const TIMELINE: usize = 200;

/// Accuracy metrics for the front, the first one that the run has: task success, then closeness to the verifier.
const ACCURACY: [&str; 3] = ["exact_match", "token_agreement", "verifier_agreement"];

/// What one part of the store leaves.
#[derive(Clone)]
struct Part {
    summary: PiecewiseSummary,
    figures: Vec<Collected>,
    error: Option<SummaryError>,
}

/// Builds the report of the run in `folder` on `threads` threads; the result does not depend on their number.
pub fn report(opened: &OpenedRuns, folder: &Path, threads: usize) -> Result<ReportData, Error> {
    let run = StoredRun::open(opened, folder, threads)?;
    of_run(&run, folder, threads)
}

/// The same of an opened run.
pub fn of_run(run: &StoredRun, folder: &Path, threads: usize) -> Result<ReportData, Error> {
    let meta = run.meta();
    let progress = run.progress(folder);
    let rounds: u64 = run.generations.iter().map(|record| record.tokens.len() as u64).sum();
    let quantiles = if rounds <= EXACT_UP_TO { Quantiles::Exact } else { Quantiles::Sketched };
    let (part, devices) = collect(run, threads, quantiles)?;
    let Part { mut summary, figures, .. } = part;
    let energy = energy(run)?;
    let mut notes = run.notes.clone();

    // What only the kept rows say, and what all devices did.
    let keep_every = run.keep_every();
    let stored: Option<Summary> = match keep_every {
        0..=1 => None,
        _ => run.reader.parsed_summary().unwrap_or_else(|error| {
            notes.push(format!("summary.json beside the rows cannot be read ({error}): figures are of the kept rows"));
            None
        }),
    };
    // Everything is read by now.
    let problems = problems(run);
    problems.iter().for_each(|problem| summary.problem(problem.clone()));
    let mut of_rows = summary.finish();
    if let Some(stored) = stored {
        notes.push(format!(
            "the ledger holds every {keep_every}th device whole: tables are of all devices (summary.json), distributions, \
             energy by part, spread, damage and timeline of the kept rows"
        ));
        of_rows = stored;
    }
    let mut methods: Vec<MethodFigures> = of_rows
        .methods
        .iter()
        .map(|(name, metrics)| MethodFigures { name: name.to_owned(), metrics: metrics.clone() })
        .collect();
    add_scores(run, &mut methods);
    missing(run, &methods, &mut notes);

    Ok(ReportData {
        schema: REPORT_SCHEMA,
        run: RunIdentity {
            name: meta.run.clone(),
            kind_name: meta.kind.name(),
            kind: meta.kind.clone(),
            state: meta.state.clone(),
            started: meta.started,
            ended: meta.ended,
            wall_seconds: meta.wall_seconds,
            scenario: meta.scenario.clone(),
            scenario_hash: meta.scenario_hash.clone(),
            pool_cost: meta.pool_cost.clone(),
            clock: meta.clock,
            noise: disturbance::verdict(&meta.noise()),
            seed: meta.seed,
            repeat: meta.repeat,
            seeds: meta.seeds,
            devices: meta.devices,
            verifiers: meta.verifiers,
            versions: meta.versions.clone(),
            machine: meta.machine.clone(),
            tags: meta.tags.clone(),
            rounds: progress.rounds,
            batches: progress.batches,
        },
        validity: ReportValidity { state: of_rows.state, problems: of_rows.problems.clone() },
        quantiles: of_rows.quantiles.clone(),
        counts: Counts::of(&of_rows),
        rules: meta.methods.iter().map(rules::of).collect(),
        table: columns(&COLUMNS, &methods),
        pool_table: columns(&POOL_COLUMNS, &methods),
        energy,
        pareto: front(&methods),
        latency: latency(run, &figures),
        batch_sizes: batch_sizes(run, &figures),
        risk: risk(run, &figures),
        timeline: timeline(run, &figures),
        devices,
        positions: positions(run, &figures),
        answer_positions: answer_positions(run, &figures),
        paired: paired(run),
        damage: damage_of(run),
        methods,
        notes,
    })
}

/// The pass over the rounds: summary, figures, and spread over the devices. What cannot be read is in the reader's log.
fn collect(run: &StoredRun, threads: usize, quantiles: Quantiles) -> Result<(Part, Vec<DeviceSpread>), Error> {
    let meta = run.meta();
    let empty = Part {
        summary: PiecewiseSummary::new(header(meta), &meta.methods, &meta.data_sets, quantiles),
        figures: empty_figures(run),
        error: None,
    };
    let (parts, _) =
        run.reader.fold_rounds(&FIGURE_COLUMNS, threads, || empty.clone(), |part, chunk| part.chunk(run, chunk));
    let mut whole = empty.clone();
    for part in parts {
        for (mine, others) in whole.figures.iter_mut().zip(&part.figures) {
            mine.merge(others);
        }
        let figures = &mut whole.figures;
        let merged = whole.summary.merge(part.summary, |joint| {
            if let Some(figures) = figures.get_mut(usize::from(joint.id.method)) {
                figures.gap(joint.gap);
                joint.drafts.iter().for_each(|(place, accepted)| figures.place(*place, *accepted));
            }
        });
        if let Some(error) = part.error.or(merged.err()) {
            whole.summary.problem(error.to_string());
        }
    }
    let mut spread = Spread::default();
    for (record, text) in run.generations.iter().zip(&run.texts) {
        let scores = Scores { exact_match: text.exact_match, rouge_l: text.rouge_l };
        match whole.summary.generation(record, run.audit(record.id), scores) {
            Ok(totals) => spread.add(run, record, totals.uploads, totals.gap_time),
            Err(error) => whole.summary.problem(error.to_string()),
        }
        if let Some((figures, first)) = whole.figures.get_mut(usize::from(record.id.method)).zip(record.first_token) {
            figures.first_token.push(first.since(record.scheduled));
        }
    }
    for batch in run.reader.batches().flatten() {
        if let Err(error) = whole.summary.batch(&batch) {
            whole.summary.problem(error.to_string());
        }
        if let Some(figures) = whole.figures.get_mut(usize::from(batch.method)) {
            figures.batch(&batch);
        }
    }
    for verifier in run.reader.verifiers().flatten() {
        if let Err(error) = whole.summary.verifier(&verifier) {
            whole.summary.problem(error.to_string());
        }
    }
    Ok((whole, spread.finish(run)))
}

impl Part {
    fn chunk(&mut self, run: &StoredRun, chunk: &RoundChunk) {
        for piece in &chunk.pieces {
            // The rounds of what never came to an end are in no figure.
            let Some(index) = run.find(piece.id) else { continue };
            let record = &run.generations[index];
            let Some(figures) = self.figures.get_mut(usize::from(piece.id.method)) else { continue };
            let mut audit = AuditCursor::new(run.audit(piece.id), piece.first);
            let rows = piece.range.clone().map(|index| chunk.rows.partial_record(index));
            let taken = self.summary.piece(record, piece.first, rows, |round, RoundPlace { gap, draft }| {
                figures.round(piece.id.pass, round, gap, draft, audit.at(round.position));
            });
            self.error = self.error.take().or(taken.err());
        }
    }
}

/// Empty figures per method. The timeline's stretches are shared out by the length of the phases.
fn empty_figures(run: &StoredRun) -> Vec<Collected> {
    let (methods, passes) = (&run.meta().methods, usize::from(run.meta().passes()));
    // By method and then pass.
    let mut phases = vec![(Time(u64::MAX), Time::ZERO); methods.len() * passes];
    for record in &run.generations {
        let (method, pass) = (usize::from(record.id.method), usize::from(record.id.pass));
        if let Some((from, to)) = phases.get_mut(method * passes + pass).filter(|_| pass < passes) {
            *from = (*from).min(record.scheduled);
            *to = (*to).max(record.ended);
        }
    }
    let length = |(from, to): &(Time, Time)| to.since(*from).seconds();
    let total: f64 = phases.iter().map(length).sum();
    let spare = TIMELINE.saturating_sub(phases.len()) as f64;
    let stretches = |phase: &(Time, Time)| {
        let share = if total > 0.0 { length(phase) / total } else { 0.0 };
        Stretches::new(phase.0.min(phase.1), phase.1, 1 + (share * spare) as usize)
    };
    let of_methods = methods.iter().zip(phases.chunks(passes));
    of_methods.map(|(method, phases)| Collected::new(method, phases.iter().map(stretches).collect())).collect()
}

/// Why the run's figures cannot be trusted, beside books that do not close.
fn problems(run: &StoredRun) -> Vec<String> {
    let mut problems = run.damage();
    // Rows that are kept only in part say nothing about what is missing.
    let whole = run.keep_every() == 1;
    let asked = run.settings.as_ref().filter(|settings| whole && all_asked(settings));
    let phases = run.meta().methods.len() * usize::from(run.meta().passes());
    let asked = asked.and(run.requests()).map_or(0, |requests| requests as usize * phases);
    let open = if whole { run.reader.open_generations().len() } else { 0 };
    problems.extend(shortfalls(asked.saturating_sub(run.generations.len()), open, &run.meta().state));
    if problems.is_empty() {
        let mut account = PoolAccount::default();
        run.generations.iter().for_each(|generation| account.generation(generation));
        run.reader.batches().flatten().for_each(|batch| account.batch(&batch));
        problems = unpaid(run.meta(), &account);
    }
    problems.extend(standstills::reasons(run.meta()));
    problems
}

/// Puts the figures that were added after the run beside the others.
fn add_scores(run: &StoredRun, methods: &mut [MethodFigures]) {
    for method in methods {
        let mut metrics: Vec<(String, Metric)> =
            method.metrics.iter().map(|(name, metric)| (name.to_owned(), metric.clone())).collect();
        for score in &run.scores.columns {
            let mut samples = Samples::default();
            let mine = score.values.iter().filter(|(id, _)| run.method_name(id.method) == method.name);
            mine.for_each(|(_, value)| samples.push(*value));
            if let Some(metric) = samples.metric(&score.scorer.unit) {
                metrics.push((score.scorer.name.clone(), metric));
            }
        }
        method.metrics = metrics.into_iter().collect::<Metrics>();
    }
}

/// Says which scores are missing, and the command that adds them.
fn missing(run: &StoredRun, methods: &[MethodFigures], notes: &mut Vec<String>) {
    if !run.has_text() {
        notes.push("the answers were drawn from distributions: there is no text, and no accuracy of one".to_owned());
    } else {
        notes.extend(run.scores.notes(&run.meta().run));
    }
    notes.extend(unaudited(run, methods));
    if run.has_text() && !run.meta().methods.iter().any(|method| method.name == "llm-only") {
        notes.push(
            "the run has no llm-only: token agreement and first divergence are missing; add it to run.methods"
                .to_owned(),
        );
    }
}

/// Says of which methods the filter's damage is not known, and why.
fn unaudited(run: &StoredRun, methods: &[MethodFigures]) -> Option<String> {
    let skips = |method: &&MethodFigures| method.metrics.get("upload_rate").is_some_and(|rate| rate.mean < 1.0);
    let audited = |name: &str| run.audits.iter().any(|audit| run.method_name(audit.id.method) == name);
    let missing: Vec<&str> = methods.iter().filter(skips).map(|method| method.name.as_str()).collect();
    let missing: Vec<&str> = missing.into_iter().filter(|name| !audited(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let why = match run.settings.as_ref().map(|settings| settings.audit) {
        Some(false) => "audit.enabled = false".to_owned(),
        _ if run.meta().state == RunState::Completed => "its rows do not say why".to_owned(),
        _ => "a method is audited at the end of its phase, and the run ended before".to_owned(),
    };
    Some(format!("not audited: {} ({why}): their filters' damage is not known", missing.join(", ")))
}

fn columns(columns: &[Column], methods: &[MethodFigures]) -> Vec<TableColumn> {
    const UNITS: [&str; 9] = ["ms", "%", "B/tok", "mJ/tok", "s", "tok/s", "drafts/tok", "seqs", "tokens"];
    let used = columns.iter().filter(|column| is_shown(column, methods.iter().map(|method| &method.metrics)));
    used.map(|&(heading, key, statistic, factor, decimals)| {
        let (title, unit) = heading.split_once('\n').unwrap_or((heading, ""));
        let unit = if UNITS.contains(&unit) { unit } else { "" };
        let (title, unit) = match title {
            "tok/s" => ("speed", "tok/s"),
            "accept" => ("accept length", unit),
            "fairness" => ("fairness (Jain)", unit),
            title => (title, unit),
        };
        TableColumn { key, title, unit, factor, decimals, statistic }
    })
    .collect()
}

/// Names of the run's methods with what was collected of each.
fn named<'a>(run: &'a StoredRun, figures: &'a [Collected]) -> impl Iterator<Item = (String, &'a Collected)> {
    run.meta().methods.iter().map(|method| method.name.clone()).zip(figures)
}

/// Σ joules by method and part.
fn energy(run: &StoredRun) -> Result<Vec<EnergyFigure>, Error> {
    #[derive(Clone, Default)]
    struct Account {
        tokens: u64,
        nanojoules: [u64; 4],
        provenance: [Vec<Provenance>; 4],
    }
    let methods = &run.meta().methods;
    let mut accounts = vec![Account::default(); methods.len()];
    let note = |known: &mut Vec<Provenance>, provenance: Provenance| {
        if !known.contains(&provenance) {
            known.push(provenance);
            known.sort();
        }
    };
    for record in &run.generations {
        let Some(account) = accounts.get_mut(usize::from(record.id.method)) else { continue };
        account.tokens += record.tokens.len() as u64;
        let parts = [
            (record.energy.device, record.device_provenance),
            (record.energy.radio, record.radio_provenance),
            (record.energy.cloud, record.cloud_provenance),
        ];
        for (index, (nanojoules, provenance)) in parts.into_iter().enumerate() {
            account.nanojoules[index] += nanojoules;
            if nanojoules > 0 {
                note(&mut account.provenance[index], provenance);
            }
        }
    }
    for row in run.reader.energy().flatten() {
        if let (EnergyPart::CloudIdle, specfleet_ledger::EnergyOwner::Verifier { method, .. }) = (row.part, row.owner)
            && let Some(account) = accounts.get_mut(usize::from(method))
        {
            account.nanojoules[3] += row.nanojoules;
            note(&mut account.provenance[3], row.provenance);
        }
    }
    let parts = ["device", "radio", "cloud", "idle"];
    let figures = methods.iter().zip(accounts).flat_map(|(method, account)| {
        let asks = method.writer == Writer::Verifier || method.gate != Gate::Never;
        let Account { tokens, nanojoules, provenance } = account;
        let figures = parts.into_iter().zip(nanojoules).zip(provenance);
        figures
            // A method that never asks the pool has no radio and no cloud, which is not the same as using none of it.
            .filter(move |((part, nanojoules), _)| tokens > 0 && (*part == "device" || asks || *nanojoules > 0))
            .map(move |((part, nanojoules), provenance)| EnergyFigure {
                method: method.name.clone(),
                part,
                joules_per_token: nanojoules as f64 * 1e-9 / tokens as f64,
                joules: nanojoules as f64 * 1e-9,
                provenance,
            })
    });
    Ok(figures.collect())
}

fn front(methods: &[MethodFigures]) -> Vec<ParetoPoint> {
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

fn latency(run: &StoredRun, figures: &[Collected]) -> Vec<LatencyHistogram> {
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

fn batch_sizes(run: &StoredRun, figures: &[Collected]) -> Vec<BatchSize> {
    let sizes = named(run, figures).flat_map(|(method, figures)| {
        let sizes = figures.batch_sizes.iter();
        sizes
            .map(move |(&sequences, &batches)| BatchSize { method: method.clone(), sequences, batches })
            .collect::<Vec<_>>()
    });
    sizes.collect()
}

fn risk(run: &StoredRun, figures: &[Collected]) -> Vec<Risk> {
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
        let line = collected.risk.fit().map(|fit| Line { a: fit.a, b: fit.b, r: fit.r, samples: fit.samples });
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

fn timeline(run: &StoredRun, figures: &[Collected]) -> Vec<TimelineBin> {
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

fn positions(run: &StoredRun, figures: &[Collected]) -> Vec<PositionAcceptance> {
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

fn answer_positions(run: &StoredRun, figures: &[Collected]) -> Vec<AnswerPositionAcceptance> {
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
fn paired(run: &StoredRun) -> Vec<crate::paired::Comparison> {
    let mut pairing = Pairing::default();
    for (record, text) in run.generations.iter().zip(&run.texts) {
        pairing.add(record, text.exact_match);
    }
    let names: Vec<&str> = run.meta().methods.iter().map(|method| method.name.as_str()).collect();
    pairing.compare(&names, &Runs::of(run.meta()))
}

/// Deviation among skipped tokens, by method.
fn damage_of(run: &StoredRun) -> Vec<Damage> {
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
