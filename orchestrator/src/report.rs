//! The table at the end of a run, and the listing of runs.

use comfy_table::{Cell, CellAlignment, Table, presets};
use specfleet_analysis::{Metric, Metrics, Statistic, Summary, Validity};
use specfleet_config::Settings;
use specfleet_engine::disturbance;
use specfleet_engine::record::RunClock;
use specfleet_ledger::RunListing;
use specfleet_logs::visible_name;

use crate::report_data::Counts;

/// A column: heading, metric, statistic, factor to the unit shown, decimals.
pub(crate) type PrintedColumn = (&'static str, &'static str, Statistic, f64, usize);

pub(crate) const COLUMNS: [PrintedColumn; 17] = [
    ("tok/s", "tokens_per_second", Statistic::Mean, 1.0, 1),
    ("TTFT\nms", "time_to_first_token_seconds", Statistic::P50, 1e3, 0),
    ("gap p50\nms", "inter_token_latency_seconds", Statistic::P50, 1e3, 1),
    ("gap p95\nms", "inter_token_latency_seconds", Statistic::P95, 1e3, 1),
    ("upload\n%", "upload_rate", Statistic::Mean, 1e2, 1),
    ("reject\n%", "rejection_rate", Statistic::Mean, 1e2, 1),
    ("true skip\n%", "true_skip_rate", Statistic::Mean, 1e2, 1),
    ("accept\nlength", "mean_acceptance_length", Statistic::Mean, 1.0, 2),
    ("uplink\nB/tok", "uplink_bytes_per_token", Statistic::Mean, 1.0, 0),
    ("device\nmJ/tok", "energy_per_token_joules_device", Statistic::Mean, 1e3, 1),
    ("radio\nmJ/tok", "energy_per_token_joules_radio", Statistic::Mean, 1e3, 1),
    ("cloud\nmJ/tok", "energy_per_token_joules_cloud", Statistic::Mean, 1e3, 1),
    ("total\nmJ/tok", "energy_per_token_joules_total", Statistic::Mean, 1e3, 1),
    ("saved\n%", "energy_saved_vs_hlm", Statistic::Mean, 1e2, 1),
    ("exact\n%", "exact_match", Statistic::Mean, 1e2, 1),
    ("agree\n%", "token_agreement", Statistic::Mean, 1e2, 1),
    ("ROUGE-L\n%", "rouge_l", Statistic::Mean, 1e2, 1),
];

/// The same for the shared pool and what the users of the fleet notice.
pub(crate) const POOL_COLUMNS: [PrintedColumn; 14] = [
    ("fleet\ntok/s", "fleet_tokens_per_second", Statistic::Mean, 1.0, 1),
    ("goodput\ntok/s", "goodput_tokens_per_second", Statistic::Mean, 1.0, 1),
    ("in time\n%", "goodput_share", Statistic::Mean, 1e2, 1),
    ("request\ns", "request_latency_seconds", Statistic::P50, 1.0, 2),
    ("dropped\n%", "dropped_share", Statistic::Mean, 1e2, 1),
    ("failed\n%", "failed_share", Statistic::Mean, 1e2, 1),
    ("fairness\nJain", "fairness_jain", Statistic::Mean, 1.0, 3),
    ("queue p50\nms", "queue_seconds", Statistic::P50, 1e3, 2),
    ("queue p95\nms", "queue_seconds", Statistic::P95, 1e3, 2),
    ("batch\nseqs", "batch_sequences", Statistic::Mean, 1.0, 2),
    ("busy\n%", "verifier_busy_share", Statistic::Mean, 1e2, 1),
    ("wasted\ndrafts/tok", "wasted_drafts_per_token", Statistic::Mean, 1.0, 3),
    ("wasted\nmJ/tok", "wasted_joules_per_token_drafts", Statistic::Mean, 1e3, 2),
    ("agree\n%", "verifier_agreement", Statistic::Mean, 1e2, 1),
];

/// Metrics that are there for targets and thresholds even where nothing went wrong; a table shows them where something did.
pub(crate) const OF_MISHAPS: [&str; 2] = ["dropped_share", "failed_share"];

/// Whether a table has use for a column: a column that no method has a figure for says nothing.
pub(crate) fn is_shown<'a>(column: &PrintedColumn, mut methods: impl Iterator<Item = &'a Metrics>) -> bool {
    let mishap = OF_MISHAPS.contains(&column.1);
    methods.any(|metrics| metrics.get(column.1).is_some_and(|metric| !mishap || metric.mean > 0.0))
}

/// What is run, in one line.
pub fn headline(settings: &Settings) -> String {
    let names: Vec<&str> = settings.methods.iter().map(|method| method.name.as_str()).collect();
    let prompts: u32 = settings.workload.iter().map(|part| part.prompts).sum();
    format!(
        "{} devices, {} verifiers, {prompts} prompts, T = {}, {}; methods: {}",
        settings.run.devices,
        settings.run.verifiers,
        settings.run.sampling.temperature,
        seeds(settings.run.seed, settings.run.repeat, settings.run.seeds),
        names.join(", ")
    )
}

/// The seed of a run and how often it passes over its methods.
pub(crate) fn seeds(seed: u64, repeat: u16, seeds: u16) -> String {
    match (repeat, seeds) {
        (2.., _) => format!("seed {seed}, {repeat} passes"),
        (_, 2..) => format!("seeds {seed} to {}", seed.saturating_add(u64::from(seeds) - 1)),
        _ => format!("seed {seed}"),
    }
}

/// One row per method: latency, uploads, energy, accuracy. A metric that does not apply stays empty.
pub fn method_table(summary: &Summary) -> String {
    table_of(summary, &COLUMNS)
}

/// One row per method: throughput, goodput and fairness of the fleet, queue, batches and waste of the pool.
pub fn pool_table(summary: &Summary) -> String {
    table_of(summary, &POOL_COLUMNS)
}

fn table_of(summary: &Summary, columns: &[PrintedColumn]) -> String {
    let columns: Vec<&PrintedColumn> =
        columns.iter().filter(|column| is_shown(column, summary.methods.iter().map(|(_, metrics)| metrics))).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(std::iter::once("method").chain(columns.iter().map(|column| column.0)));
    for (name, metrics) in summary.methods.iter() {
        let cells = columns.iter().map(|&&(_, metric, statistic, factor, decimals)| {
            let text = metrics.get(metric).map_or(String::new(), |m| figure(m, statistic, factor, decimals));
            Cell::new(text).set_alignment(CellAlignment::Right)
        });
        table.add_row(std::iter::once(Cell::new(name)).chain(cells));
    }
    with_footnote(table.to_string())
}

/// Marks a percentile of fewer samples than it needs.
const TOO_FEW: &str = "*";

/// A figure of a table, marked where it has too few samples.
pub(crate) fn figure(metric: &Metric, statistic: Statistic, factor: f64, decimals: usize) -> String {
    let mark = if statistic.is_supported(metric) { "" } else { TOO_FEW };
    format!("{:.decimals$}{mark}", statistic.of(metric) * factor)
}

/// Says under a table what its marks mean.
pub(crate) fn with_footnote(table: String) -> String {
    if table.contains(TOO_FEW) {
        format!("{table}\n* the largest sample: a p95 needs 20 samples, a p90 10, a p99 100")
    } else {
        table
    }
}

/// Figures whose intervals a table shows, where a run has any.
const INTERVAL_COLUMNS: [(&str, &str, f64, usize); 7] = [
    ("tok/s", "tokens_per_second", 1.0, 1),
    ("fleet tok/s", "fleet_tokens_per_second", 1.0, 1),
    ("upload %", "upload_rate", 1e2, 1),
    ("total mJ/tok", "energy_per_token_joules_total", 1e3, 1),
    ("saved %", "energy_saved_vs_hlm", 1e2, 1),
    ("exact %", "exact_match", 1e2, 1),
    ("agree %", "token_agreement", 1e2, 1),
];

/// Means with their 95 % intervals, of a run with several passes; `None` for any other.
pub fn interval_table(summary: &Summary) -> Option<String> {
    let methods: Vec<(&str, &Metrics)> = summary.methods.iter().collect();
    intervals(&methods, summary.repeat, summary.seeds)
}

/// The same from its parts.
pub(crate) fn intervals(methods: &[(&str, &Metrics)], repeat: u16, seeds: u16) -> Option<String> {
    let of = |metrics: &Metrics, key: &str| metrics.get(key).and_then(|metric| Some((metric.mean, metric.interval?)));
    let columns: Vec<_> = INTERVAL_COLUMNS
        .iter()
        .filter(|(_, key, ..)| methods.iter().any(|(_, metrics)| of(metrics, key).is_some()))
        .collect();
    if columns.is_empty() {
        return None;
    }
    let passes = if seeds > 1 { format!("{seeds} seeds") } else { format!("{repeat} passes") };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let title = format!("mean [95 %], {passes}");
    table.set_header(std::iter::once(title).chain(columns.iter().map(|(heading, ..)| (*heading).to_owned())));
    for (name, metrics) in methods {
        let cells = columns.iter().map(|&&(_, key, factor, decimals)| {
            let text = of(metrics, key).map_or(String::new(), |(mean, interval)| {
                let [mean, low, high] = [mean, interval.low, interval.high].map(|value| value * factor);
                format!("{mean:.decimals$} [{low:.decimals$}, {high:.decimals$}]")
            });
            Cell::new(text).set_alignment(CellAlignment::Right)
        });
        table.add_row(std::iter::once(Cell::new(name)).chain(cells));
    }
    Some(table.to_string())
}

/// The lines below the table: whether the figures can be trusted, what became of the uploads, what batches were charged,
/// and what disturbed the run.
pub fn verdict_line(summary: &Summary) -> String {
    let charged = charged(&summary.pool_cost, summary.clock);
    let lines = [verdict(summary.state, &summary.problems, &Counts::of(summary)), charged];
    lines.into_iter().chain(disturbance::verdict(&summary.noise)).collect::<Vec<_>>().join("\n")
}

/// What batches were charged, and so how far energy and waiting depend on the host.
pub(crate) fn charged(pool_cost: &str, clock: RunClock) -> String {
    let host = match (clock, pool_cost) {
        (RunClock::Emulated, _) => "no figure follows what else the host does",
        (RunClock::Host, "measured") => "energy and waiting follow what else the host does",
        (RunClock::Host, _) => "energy and waiting follow the host only in how full batches get",
    };
    format!("batches are charged {pool_cost} times: {host}")
}

/// The same from its parts.
pub(crate) fn verdict(state: Validity, problems: &[String], counts: &Counts) -> String {
    let state = match state {
        Validity::Valid => "VALID".to_owned(),
        Validity::Invalid => format!("INVALID: {}", problems.join("; ")),
    };
    let early = [
        (counts.failed, "failed"),
        (counts.dropped, "dropped"),
        (counts.left, "left"),
        (counts.battery, "out of battery"),
    ];
    let early: Vec<String> =
        early.into_iter().filter(|(count, _)| *count > 0).map(|(count, how)| format!("{count} {how}")).collect();
    let early = if early.is_empty() { String::new() } else { format!(" ({})", early.join(", ")) };
    format!(
        "{state} · {} generations{early} · uploads: {} sent = {} verdicts + {} refused + {} cancelled · faults injected: {}",
        counts.generations,
        counts.uploads_sent,
        counts.uploads_answered,
        counts.uploads_refused,
        counts.uploads_cancelled,
        counts.faults_injected
    )
}

/// One line per run.
pub fn run_table(runs: &[RunListing]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // A column that nobody has anything in says nothing.
    let tagged = runs.iter().any(|run| !run.tags.is_empty());
    let noisy = runs.iter().any(|run| !run.noise.is_empty());
    let header = ["run", "state", "devices", "verifiers", "generations", "rounds", "batches", "methods"];
    table.set_header(header.into_iter().chain(tagged.then_some("tags")).chain(noisy.then_some("noise")));
    for run in runs {
        let tags = tagged.then(|| visible_name(&run.tags.join(",")).into_owned());
        let row = [
            visible_name(&run.run).into_owned(),
            run.state.name().to_owned(),
            run.devices.to_string(),
            run.verifiers.to_string(),
            run.progress.generations.to_string(),
            run.progress.rounds.to_string(),
            run.progress.batches.to_string(),
            visible_name(&run.methods.join(",")).into_owned(),
        ];
        let noise = noisy.then(|| disturbance::short_verdict(&run.noise).unwrap_or_default());
        table.add_row(row.into_iter().chain(tags).chain(noise));
    }
    table.to_string()
}

pub(crate) fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.digits$}")
}
