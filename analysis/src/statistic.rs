//! One number out of a summary's metrics, by name: what targets, sweeps and comparisons ask for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use specfleet_engine::names::nearest;

use crate::distribution::Metric;
use crate::summary::{Metrics, metric_names};

/// A figure of a [`Metric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    Mean,
    Min,
    P50,
    P90,
    P95,
    P99,
    Max,
}

impl Statistic {
    /// All of them.
    pub const ALL: [Statistic; 7] = [
        Statistic::Mean,
        Statistic::Min,
        Statistic::P50,
        Statistic::P90,
        Statistic::P95,
        Statistic::P99,
        Statistic::Max,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Statistic::Mean => "mean",
            Statistic::Min => "min",
            Statistic::P50 => "p50",
            Statistic::P90 => "p90",
            Statistic::P95 => "p95",
            Statistic::P99 => "p99",
            Statistic::Max => "max",
        }
    }

    /// How many samples it needs to say anything: a percentile by nearest rank is the largest sample of any fewer.
    pub fn least_samples(self) -> u64 {
        match self {
            Statistic::Mean | Statistic::Min | Statistic::P50 | Statistic::Max => 1,
            Statistic::P90 => 10,
            Statistic::P95 => 20,
            Statistic::P99 => 100,
        }
    }

    /// Whether a metric has as many samples.
    pub fn is_supported(self, metric: &Metric) -> bool {
        metric.count >= self.least_samples()
    }

    /// The figure itself.
    pub fn of(self, metric: &Metric) -> f64 {
        match self {
            Statistic::Mean => metric.mean,
            Statistic::Min => metric.min,
            Statistic::P50 => metric.p50,
            Statistic::P90 => metric.p90,
            Statistic::P95 => metric.p95,
            Statistic::P99 => metric.p99,
            Statistic::Max => metric.max,
        }
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No statistic of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no statistic: use mean, min, p50, p90, p95, p99 or max")]
pub struct UnknownStatistic(pub String);

impl FromStr for Statistic {
    type Err = UnknownStatistic;

    fn from_str(name: &str) -> Result<Statistic, UnknownStatistic> {
        let found = Statistic::ALL.into_iter().find(|statistic| statistic.name() == name);
        found.ok_or_else(|| UnknownStatistic(name.to_owned()))
    }
}

/// Short names of metrics, for targets that people type.
const SHORT_NAMES: [(&str, &str); 10] = [
    ("agreement", "verifier_agreement"),
    ("busy", "verifier_busy_share"),
    ("energy", "energy_per_token_joules_total"),
    ("fairness", "fairness_jain"),
    ("goodput", "goodput_tokens_per_second"),
    ("inter_token", "inter_token_latency_seconds"),
    ("queue", "queue_seconds"),
    ("request", "request_latency_seconds"),
    ("throughput", "fleet_tokens_per_second"),
    ("ttft", "time_to_first_token_seconds"),
];

/// The full name of a metric from its full or short one (`inter_token`, `agreement`, `ttft`, …); `None` if there is none.
pub fn full_metric_name(name: &str) -> Option<&'static str> {
    let full = SHORT_NAMES.iter().find(|(short, _)| *short == name).map_or(name, |(_, full)| full);
    metric_names().map(|(known, _)| known).find(|known| *known == full)
}

/// One figure of a method; `None` if the metric does not apply to it, or there is none of this full or short name.
pub fn value_of(metrics: &Metrics, metric: &str, statistic: Statistic) -> Option<f64> {
    metrics.get(full_metric_name(metric)?).map(|metric| statistic.of(metric))
}

/// The names, full and short, that are most like one that does not exist: three at most, the most likely first; empty if
/// nothing is near.
pub fn nearest_metrics(name: &str) -> Vec<&'static str> {
    let known = metric_names().map(|(full, _)| full).chain(SHORT_NAMES.iter().map(|(short, _)| *short));
    nearest(name, known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Samples;

    fn metrics() -> Metrics {
        let mut samples = Samples::default();
        (1..=100).for_each(|value| samples.push(f64::from(value)));
        let metric = samples.metric("s").expect("there are samples");
        [("inter_token_latency_seconds".to_owned(), metric)].into_iter().collect()
    }

    #[test]
    fn figures_by_full_and_by_short_name() {
        let metrics = metrics();
        assert_eq!(value_of(&metrics, "inter_token", Statistic::P95), Some(95.0));
        assert_eq!(value_of(&metrics, "inter_token_latency_seconds", Statistic::Mean), Some(50.5));
        assert_eq!(value_of(&metrics, "ttft", Statistic::P95), None, "it does not apply");
        assert_eq!(value_of(&metrics, "speed", Statistic::P95), None, "it does not exist");
        assert_eq!("p95".parse(), Ok(Statistic::P95));
        assert_eq!("p96".parse::<Statistic>(), Err(UnknownStatistic("p96".to_owned())));
    }

    #[test]
    fn a_percentile_of_too_few_samples_is_their_largest() {
        for (statistic, least) in [(Statistic::P90, 10), (Statistic::P95, 20), (Statistic::P99, 100)] {
            for count in [least - 1, least] {
                let mut samples = Samples::default();
                (0..count).for_each(|value| samples.push(value as f64));
                let metric = samples.metric("s").expect("there are samples");
                let is_largest = statistic.of(&metric) == metric.max;
                assert_eq!((is_largest, statistic.is_supported(&metric)), (count < least, count >= least));
            }
        }
    }

    #[test]
    fn short_names_stand_for_metrics_and_hide_none() {
        for (short, full) in SHORT_NAMES {
            assert_eq!(full_metric_name(short), Some(full), "{short} stands for a metric");
            assert!(metric_names().all(|(known, _)| known != short));
        }
    }

    #[test]
    fn slips_are_understood() {
        assert_eq!(nearest_metrics("agrement"), ["agreement"]);
        assert_eq!(nearest_metrics("goodput_tokens_per_secnd")[0], "goodput_tokens_per_second");
        assert!(nearest_metrics("first_token").contains(&"time_to_first_token_seconds"));
        assert!(nearest_metrics("colour").is_empty());
    }
}
