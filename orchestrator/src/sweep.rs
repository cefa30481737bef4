//! Every combination of a few varied keys, simulated: a table, a CSV, and which points nobody beats.

mod file;

use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_analysis::{Statistic, Summary, pareto, value_of};
use specfleet_config::{Scenario, Vary};

use self::file::SweepFile;
use crate::error::Error;
use crate::point::Bench;
use crate::report::OF_MISHAPS;

/// Most points of a sweep: beyond it a range was mistyped.
const MOST_POINTS: usize = 10_000;

/// A figure of every row: heading, metric, statistic, factor to the unit shown, decimals.
type SweepColumn = (&'static str, &'static str, Statistic, f64, usize);

const COLUMNS: [SweepColumn; 11] = [
    ("agreement %", "verifier_agreement", Statistic::Mean, 1e2, 2),
    ("energy mJ/tok", "energy_per_token_joules_total", Statistic::Mean, 1e3, 2),
    ("goodput tok/s", "goodput_tokens_per_second", Statistic::Mean, 1.0, 1),
    ("in time %", "goodput_share", Statistic::Mean, 1e2, 1),
    ("fleet tok/s", "fleet_tokens_per_second", Statistic::Mean, 1.0, 1),
    ("dropped %", "dropped_share", Statistic::Mean, 1e2, 1),
    ("failed %", "failed_share", Statistic::Mean, 1e2, 1),
    ("gap p50 ms", "inter_token_latency_seconds", Statistic::P50, 1e3, 1),
    ("gap p95 ms", "inter_token_latency_seconds", Statistic::P95, 1e3, 1),
    ("upload %", "upload_rate", Statistic::Mean, 1e2, 1),
    ("busy %", "verifier_busy_share", Statistic::Mean, 1e2, 1),
];

/// One method at one point.
#[derive(Clone, Debug, Serialize)]
pub struct SweepRow {
    /// The varied keys' values, in the order of the keys.
    pub values: Vec<String>,
    pub method: String,
    /// The figures of the columns, in SI units; absent where one does not apply.
    pub figures: Vec<Option<f64>>,
    /// Whether no other row is at least as good in accuracy, energy and goodput, and better in one.
    pub pareto: bool,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    pub keys: Vec<String>,
    /// Names of the figures' metrics.
    pub metrics: Vec<&'static str>,
    /// Every method at every point.
    pub rows: Vec<SweepRow>,
    /// What there is to say about prompts that are too long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Simulates every combination; `say` is told before each. With `csv`, each point's rows are in that file as soon as the
/// point is simulated; the file is opened before the first one, and left alone where a point has a mistake.
///
/// What ends it early, Ctrl-C too, stands beside what came out until then.
pub fn sweep(
    scenario: &Scenario,
    varied: &[Vary],
    bench: &Bench<'_>,
    csv: Option<&Path>,
    say: impl Fn(&str),
) -> Result<(Sweep, Result<(), Error>), Error> {
    let points = varied.iter().try_fold(1usize, |points, vary| points.checked_mul(vary.values.len()));
    let points = points
        .filter(|&points| points <= MOST_POINTS)
        .ok_or_else(|| Error::Simulation(format!("--vary: the ranges have more than {MOST_POINTS} combinations")))?;
    // A mistake in the last point is better known before the first.
    for point in 0..points {
        Bench::settings(&changed(scenario, varied, &values_at(varied, point))?)?;
    }
    let keys = varied.iter().map(|vary| vary.key.clone()).collect();
    let metrics = COLUMNS.iter().map(|column| column.1).collect();
    let mut sweep = Sweep { keys, metrics, rows: Vec::new(), notes: Vec::new() };
    let mut csv = csv.map(|path| SweepFile::create(path, &sweep.keys)).transpose()?;
    let mut measure = |sweep: &mut Sweep, point: usize| {
        let values = values_at(varied, point);
        let place: Vec<String> =
            varied.iter().zip(&values).map(|(vary, value)| format!("{}={value}", vary.key)).collect();
        say(&format!("{}/{points} {}", point + 1, place.join(" ")));
        let measured = bench.measured(&changed(scenario, varied, &values)?, None)?;
        sweep.notes.extend(measured.too_long.filter(|note| !sweep.notes.contains(note)));
        let rows = rows_of(&values, &measured.summary);
        sweep.rows.extend(rows.iter().cloned());
        csv.as_mut().map_or(Ok(()), |csv| csv.append(&rows))
    };
    let outcome = (0..points).try_for_each(|point| measure(&mut sweep, point));
    mark(&mut sweep.rows);
    // What was met first is told.
    let outcome = outcome.and(csv.map_or(Ok(()), |csv| csv.finish(&sweep.rows)));
    Ok((sweep, outcome))
}

/// The scenario with the values of one combination.
fn changed(scenario: &Scenario, varied: &[Vary], values: &[String]) -> Result<Scenario, Error> {
    let mut changed = scenario.clone();
    for (vary, value) in varied.iter().zip(values) {
        changed.assign("--vary", &format!("{}={value}", vary.key))?;
    }
    Ok(changed)
}

/// The values of one combination: the last key varies fastest.
fn values_at(varied: &[Vary], point: usize) -> Vec<String> {
    let mut rest = point;
    let mut values: Vec<String> = varied
        .iter()
        .rev()
        .map(|vary| {
            let value = vary.values[rest % vary.values.len()].clone();
            rest /= vary.values.len();
            value
        })
        .collect();
    values.reverse();
    values
}

fn rows_of(values: &[String], summary: &Summary) -> Vec<SweepRow> {
    let row = |(name, metrics): (&str, &specfleet_analysis::Metrics)| SweepRow {
        values: values.to_vec(),
        method: name.to_owned(),
        figures: COLUMNS.iter().map(|column| value_of(metrics, column.1, column.2)).collect(),
        pareto: false,
    };
    summary.methods.iter().map(row).collect()
}

/// Marks the rows that nobody beats in agreement, energy, and goodput (or throughput, where no latency is wanted).
fn mark(rows: &mut [SweepRow]) {
    let at = |row: &SweepRow, column: usize| row.figures[column];
    let judged: Vec<usize> =
        (0..rows.len()).filter(|&index| at(&rows[index], 0).is_some() && at(&rows[index], 1).is_some()).collect();
    let points: Vec<[f64; 3]> = judged
        .iter()
        .map(|&index| {
            let row = &rows[index];
            let speed = at(row, 2).or(at(row, 4)).unwrap_or(0.0);
            [at(row, 0).unwrap_or(0.0), at(row, 1).unwrap_or(f64::INFINITY), speed]
        })
        .collect();
    for (index, unbeaten) in judged.into_iter().zip(pareto(&points, [true, false, true])) {
        rows[index].pareto = unbeaten;
    }
}

/// The rows as a table; a star marks the Pareto front.
pub fn table(sweep: &Sweep) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let short = |key: &String| key.rsplit('.').next().unwrap_or(key).to_owned();
    let mut header: Vec<String> = sweep.keys.iter().map(short).collect();
    header.push("method".to_owned());
    // What went wrong nowhere needs no column; the CSV has it always.
    let shown = |index: usize| {
        !OF_MISHAPS.contains(&COLUMNS[index].1) || sweep.rows.iter().any(|row| row.figures[index] > Some(0.0))
    };
    let columns: Vec<(usize, &SweepColumn)> = COLUMNS.iter().enumerate().filter(|(index, _)| shown(*index)).collect();
    header.extend(columns.iter().map(|(_, column)| column.0.to_owned()));
    header.push("front".to_owned());
    table.set_header(header);
    for row in &sweep.rows {
        let mut cells: Vec<Cell> = row.values.iter().map(Cell::new).collect();
        cells.push(Cell::new(&row.method));
        cells.extend(columns.iter().map(|&(index, &(.., factor, decimals))| {
            let text = row.figures[index].map_or(String::new(), |figure| format!("{:.decimals$}", figure * factor));
            Cell::new(text).set_alignment(CellAlignment::Right)
        }));
        cells.push(Cell::new(if row.pareto { "*" } else { "" }));
        table.add_row(cells);
    }
    table.to_string()
}
