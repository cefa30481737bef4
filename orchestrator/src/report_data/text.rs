//! The report for a terminal.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{ReportData, TableColumn};
use crate::{paired, report};

/// All of it, without a line break at the end.
pub fn text(report: &ReportData) -> String {
    let run = &report.run;
    let mut parts = vec![format!(
        "run {} · {} · {} devices, {} verifiers, {} · {} rounds, {} batches · scenario {}",
        run.name,
        run.kind_name,
        run.devices,
        run.verifiers,
        report::seeds(run.seed, run.repeat, run.seeds),
        run.rounds,
        run.batches,
        run.scenario_hash.get(..12).unwrap_or(&run.scenario_hash)
    )];
    parts.push(rules(report));
    parts.push(methods(report, &report.table));
    parts.push(methods(report, &report.pool_table));
    let metrics: Vec<_> = report.methods.iter().map(|method| (method.name.as_str(), &method.metrics)).collect();
    parts.extend(report::intervals(&metrics, run.repeat, run.seeds));
    parts.push(energy(report));
    if let Some(accuracy) = accuracy(report) {
        parts.push(accuracy);
    }
    if !report.damage.is_empty() {
        parts.push(damage(report));
    }
    if !report.paired.is_empty() {
        parts.push(paired::table(&report.paired));
    }
    parts.push(verdict(report));
    let notes: Vec<String> = report.notes.iter().map(|note| format!("note: {note}")).collect();
    if !notes.is_empty() {
        parts.push(notes.join("\n"));
    }
    parts.join("\n\n")
}

fn empty_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// What each method uploads, with the numbers that calibration resolved.
fn rules(report: &ReportData) -> String {
    let mut table = empty_table();
    table.set_header(["method", "uploads", "as", "drafts per upload"]);
    for rule in &report.rules {
        table.add_row([
            Cell::new(&rule.method),
            Cell::new(&rule.uploads),
            Cell::new(&rule.payload),
            right(rule.block.to_string()),
        ]);
    }
    table.to_string()
}

fn methods(report: &ReportData, columns: &[TableColumn]) -> String {
    let mut table = empty_table();
    let heading = |column: &TableColumn| match column.unit {
        "" => column.title.to_owned(),
        unit => format!("{}\n{unit}", column.title),
    };
    table.set_header(std::iter::once("method".to_owned()).chain(columns.iter().map(heading)));
    for method in &report.methods {
        let cells = columns.iter().map(|column| {
            let figure = |metric| report::figure(metric, column.statistic, column.factor, column.decimals);
            right(method.metrics.get(column.key).map_or(String::new(), figure))
        });
        table.add_row(std::iter::once(Cell::new(&method.name)).chain(cells));
    }
    report::with_footnote(table.to_string())
}

/// Joules per token by part, each with where it comes from.
fn energy(report: &ReportData) -> String {
    let parts = ["device", "radio", "cloud", "idle"];
    let mut table = empty_table();
    table.set_header(std::iter::once("energy, mJ/token".to_owned()).chain(parts.iter().map(|part| (*part).to_owned())));
    for method in &report.methods {
        let cells = parts.iter().map(|part| {
            let figure = report.energy.iter().find(|figure| figure.method == method.name && figure.part == *part);
            right(figure.map_or(String::new(), |figure| {
                let names = figure.provenance.iter().map(|p| format!("{p:?}").to_lowercase());
                let provenance = names.collect::<Vec<_>>().join(", ");
                let provenance = if provenance.is_empty() { String::new() } else { format!(" ({provenance})") };
                format!("{:.1}{provenance}", figure.joules_per_token * 1e3)
            }))
        });
        table.add_row(std::iter::once(Cell::new(&method.name)).chain(cells));
    }
    table.to_string()
}

/// How far the texts go along with `llm-only`'s, and the scores that were added; `None` where there is neither.
fn accuracy(report: &ReportData) -> Option<String> {
    // What the first table does not show already.
    let shown = |name: &str| report.table.iter().chain(&report.pool_table).any(|column| column.key == name);
    let is_accuracy = |name: &str| {
        [
            "first_divergence_tokens",
            "embedding_",
            "bertscore_",
            "rouge_l_",
            "exact_match_",
            "perplexity",
            "token_agreement_",
        ]
        .iter()
        .any(|stem| name.starts_with(stem))
    };
    let mut names: Vec<(&str, &str)> = Vec::new();
    for (name, metric) in report.methods.iter().flat_map(|method| method.metrics.iter()) {
        if is_accuracy(name) && !shown(name) && !names.iter().any(|(known, _)| *known == name) {
            names.push((name, &metric.unit));
        }
    }
    if names.is_empty() {
        return None;
    }
    let mut table = empty_table();
    let heading =
        |(name, unit): &(&str, &str)| if *unit == "ratio" { (*name).to_owned() } else { format!("{name}\n{unit}") };
    table.set_header(std::iter::once("texts, mean [p50]".to_owned()).chain(names.iter().map(heading)));
    for method in &report.methods {
        let cells = names.iter().map(|(name, _)| {
            let metric = method.metrics.get(name);
            right(metric.map_or(String::new(), |metric| match metric.unit.as_str() {
                "ratio" => format!("{:.3} [{:.3}]", metric.mean, metric.p50),
                _ => format!("{:.1} [{:.1}]", metric.mean, metric.p50),
            }))
        });
        table.add_row(std::iter::once(Cell::new(&method.name)).chain(cells));
    }
    Some(table.to_string())
}

/// A share in %, with its interval where more than one generation has it.
pub(crate) fn with_interval(share: f64, low: Option<f64>, high: Option<f64>, decimals: usize) -> String {
    let percent = |share: f64| format!("{:.decimals$}", share * 100.0);
    match low.zip(high) {
        Some((low, high)) => format!("{} [{}, {}]", percent(share), percent(low), percent(high)),
        None => format!("{} [one generation]", percent(share)),
    }
}

/// What the filter let through that the verifier would have rejected.
fn damage(report: &ReportData) -> String {
    let mut table = empty_table();
    table.set_header(["the filter's damage", "skipped tokens", "deviation, % [95 %]"]);
    for damage in &report.damage {
        table.add_row([
            Cell::new(&damage.method),
            right(damage.skipped_tokens.to_string()),
            right(with_interval(damage.deviation_rate, damage.low, damage.high, 2)),
        ]);
    }
    table.to_string()
}

fn verdict(report: &ReportData) -> String {
    let validity = &report.validity;
    let line = report::verdict(validity.state, &validity.problems, &report.counts);
    let lines = [
        format!("{line} · percentiles: {}", report.quantiles),
        report::charged(&report.run.pool_cost, report.run.clock),
    ];
    lines.into_iter().chain(report.run.noise.clone()).collect::<Vec<_>>().join("\n")
}
