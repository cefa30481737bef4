//! How far a simulation is from live runs of the same scenario, metric by metric.

use serde::Serialize;

use crate::distribution::Metric;
use crate::statistic::Statistic;
use crate::summary::Summary;

/// What is compared, in the order of the rows.
const COMPARED: [(&str, &[Statistic]); 10] = [
    ("fleet_tokens_per_second", &[Statistic::Mean]),
    ("time_to_first_token_seconds", &[Statistic::P50, Statistic::P95, Statistic::P99]),
    ("inter_token_latency_seconds", &[Statistic::P50, Statistic::P95, Statistic::P99]),
    ("queue_seconds", &[Statistic::Mean, Statistic::P50, Statistic::P95]),
    ("batch_sequences", &[Statistic::Mean]),
    ("upload_rate", &[Statistic::Mean]),
    ("energy_per_token_joules_total", &[Statistic::Mean]),
    ("energy_per_token_joules_device", &[Statistic::Mean]),
    ("energy_per_token_joules_radio", &[Statistic::Mean]),
    ("energy_per_token_joules_cloud", &[Statistic::Mean]),
];

/// One figure, live and simulated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgainstRow {
    pub method: String,
    pub metric: String,
    /// Which of its figures.
    pub statistic: Statistic,
    pub unit: String,
    /// Median over the live runs that have it; absent if none has.
    pub live: Option<f64>,
    /// Smallest and largest over the live runs: what the simulation cannot be better than.
    pub live_range: Option<(f64, f64)>,
    /// Median over the simulations that have it, each with other draws of what its machine adds; absent if none has.
    pub simulated: Option<f64>,
    /// Smallest and largest over the simulations.
    pub simulated_range: Option<(f64, f64)>,
    /// (simulated − live) / live; 0 if both are 0, absent if only the live one is, or one is missing.
    pub relative_error: Option<f64>,
}

/// Compares simulations with live runs of the same scenario, median with median, because both sides have figures that
/// chance moves: the methods of the first live run in its order, then what only others have. A figure that neither side has gives no row; one that a single side has gives a row without error.
pub fn compare_summaries(live: &[Summary], simulated: &[Summary]) -> Vec<AgainstRow> {
    let mut methods: Vec<&str> = Vec::new();
    for summary in live.iter().chain(simulated) {
        for (name, _) in summary.methods.iter() {
            if !methods.contains(&name) {
                methods.push(name);
            }
        }
    }
    let mut rows = Vec::new();
    for method in methods {
        for (metric, statistics) in COMPARED {
            rows.extend(statistics.iter().filter_map(|statistic| row(live, simulated, method, metric, *statistic)));
        }
    }
    rows
}

fn row(
    live: &[Summary],
    simulated: &[Summary],
    method: &str,
    metric: &str,
    statistic: Statistic,
) -> Option<AgainstRow> {
    let metrics = |side: &[Summary]| side.iter().find_map(|summary| metric_of(summary, method, metric)).cloned();
    let unit = metrics(live).or_else(|| metrics(simulated))?.unit;
    let values = |side: &[Summary]| -> Vec<f64> {
        let metrics = side.iter().filter_map(|summary| metric_of(summary, method, metric));
        let mut values: Vec<f64> = metrics.map(|metric| statistic.of(metric)).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let range = |sorted: &[f64]| sorted.first().copied().zip(sorted.last().copied());
    let (live, simulated) = (values(live), values(simulated));
    let (live_range, simulated_range) = (range(&live), range(&simulated));
    let (live, simulated) = (median(&live), median(&simulated));
    let relative_error = live.zip(simulated).and_then(|(live, simulated)| {
        if live == simulated { Some(0.0) } else { (live != 0.0).then(|| (simulated - live) / live) }
    });
    Some(AgainstRow {
        method: method.to_owned(),
        metric: metric.to_owned(),
        statistic,
        unit,
        live,
        live_range,
        simulated,
        simulated_range,
        relative_error,
    })
}

fn metric_of<'a>(summary: &'a Summary, method: &str, metric: &str) -> Option<&'a Metric> {
    summary.methods.get(method)?.get(metric)
}

/// The middle one of sorted values, or the mean of the middle two.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}
