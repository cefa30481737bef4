//! From a stored run to its report, in one pass over its rounds.

use std::path::Path;

use specfleet_analysis::{Metric, Metrics, Quantiles, Samples, Summary};
use specfleet_engine::disturbance;
use specfleet_ledger::{Meta, RunProgress};

use super::caveats::{missing, problems};
use super::collect::{Part, collect};
use super::energy::energy;
use super::figures::{answer_positions, batch_sizes, damage_of, front, latency, paired, positions, risk, timeline};
use super::rules;
use super::{Counts, MethodReport, REPORT_SCHEMA, ReportData, ReportValidity, RunIdentity, TableColumn};
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::report::{COLUMNS, POOL_COLUMNS, PrintedColumn, is_shown};
use crate::stored::StoredRun;

/// Rounds up to which every sample is kept; above, percentiles come from sketches.
pub const EXACT_UP_TO: u64 = 2_000_000;

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
    let mut methods: Vec<MethodReport> = of_rows
        .methods
        .iter()
        .map(|(name, metrics)| MethodReport { name: name.to_owned(), metrics: metrics.clone() })
        .collect();
    add_scores(run, &mut methods);
    missing(run, &methods, &mut notes);

    Ok(ReportData {
        schema: REPORT_SCHEMA,
        run: identity(meta, &progress),
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

/// What the run is.
fn identity(meta: &Meta, progress: &RunProgress) -> RunIdentity {
    RunIdentity {
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
    }
}

/// Puts the figures that were added after the run beside the others.
fn add_scores(run: &StoredRun, methods: &mut [MethodReport]) {
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

fn columns(columns: &[PrintedColumn], methods: &[MethodReport]) -> Vec<TableColumn> {
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
