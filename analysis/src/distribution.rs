//! What a set of samples looks like: the shape of every metric in a summary.

use serde::{Deserialize, Serialize};

use crate::passes::MeanInterval;

/// One metric: its unit and the distribution of its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Unit of all figures but `count`.
    pub unit: String,
    /// Number of samples. A sample is a generation, except for inter-token latency (a gap) and energy savings (a pair).
    pub count: u64,
    /// The mean, weighted where samples carry weights: see [`Samples`].
    pub mean: f64,
    /// Sample standard deviation (n − 1) of the unweighted samples; 0 for a single one.
    pub std: f64,
    pub min: f64,
    pub max: f64,
    /// Median. All percentiles are by nearest rank: the smallest sample that at least p % of the samples do not exceed.
    /// [`Summary::quantiles`](crate::Summary::quantiles) says whether they are exact.
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    /// The mean's 95 % interval, in a run with several passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<MeanInterval>,
}

/// Samples of one metric, collected in any order: the resulting [`Metric`] depends on the samples alone.
///
/// A ratio over a generation (joules per token, uploads per token) is weighted by its denominator, so that the mean is the
/// ratio of the sums over all generations: a short answer counts for as many tokens as it has, not for as much as a long
/// one. The distribution figures take every sample once.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Value, weight, and how often.
    samples: Vec<(f64, f64, u32)>,
}

/// How often a value is added up one by one, which rounds as if the samples had come one by one.
const ONE_BY_ONE: u32 = 4_096;

/// Adds a value so often. What a damaged run may say of a batch, 2^32 sequences, takes no longer than a sane one.
fn add(sum: f64, value: f64, times: u32) -> f64 {
    if times > ONE_BY_ONE {
        return sum + value * f64::from(times);
    }
    (0..times).fold(sum, |sum, _| sum + value)
}

impl Samples {
    /// Adds a sample of weight one; NaN (not applicable) is left out.
    pub fn push(&mut self, value: f64) {
        self.push_weighted(value, 1.0, 1);
    }

    /// Adds `numerator / denominator` with the denominator as its weight; a denominator that is not positive, or a
    /// result that is no finite number, is left out.
    pub fn push_ratio(&mut self, numerator: f64, denominator: f64) {
        if denominator > 0.0 {
            self.push_weighted(numerator / denominator, denominator, 1);
        }
    }

    fn push_weighted(&mut self, value: f64, weight: f64, times: u32) {
        if value.is_finite() && times > 0 {
            self.samples.push((value, weight, times));
        }
    }

    /// Adds `count` samples of the same value.
    pub fn push_times(&mut self, value: f64, count: u32) {
        self.push_weighted(value, 1.0, count);
    }

    /// Adds all of another collection's samples.
    pub fn merge(&mut self, other: &Samples) {
        self.samples.extend_from_slice(&other.samples);
    }

    /// The metric; `None` without samples: what does not apply is absent, never zero.
    pub fn metric(mut self, unit: &str) -> Option<Metric> {
        // Sorting first makes the sums independent of the order in which generations ended.
        self.samples.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (min, max) = (self.samples.first()?.0, self.samples.last()?.0);
        let count: u64 = self.samples.iter().map(|(.., times)| u64::from(*times)).sum();
        let sum = |of: &dyn Fn(f64, f64) -> f64| {
            let samples = self.samples.iter();
            samples.fold(0.0, |sum, &(value, weight, times)| add(sum, of(value, weight), times))
        };
        let mean = sum(&|value, weight| value * weight) / sum(&|_, weight| weight);
        let plain_mean = sum(&|value, _| value) / count as f64;
        let squares = sum(&|value, _| (value - plain_mean).powi(2));
        let percentile = |percent: u64| {
            let mut left = (percent * count).div_ceil(100).max(1);
            let found = self.samples.iter().find(|(.., times)| {
                let found = left <= u64::from(*times);
                left = left.saturating_sub((*times).into());
                found
            });
            found.map_or(max, |(value, ..)| *value)
        };
        Some(Metric {
            unit: unit.to_owned(),
            count,
            // Rounding must not push the mean past the extremes (a constant metric has its value as mean).
            mean: mean.clamp(min, max),
            std: if min == max { 0.0 } else { (squares / (count - 1) as f64).sqrt() },
            min,
            max,
            p50: percentile(50),
            p90: percentile(90),
            p95: percentile(95),
            p99: percentile(99),
            interval: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metric(values: &[f64]) -> Option<Metric> {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value));
        samples.metric("s")
    }

    #[test]
    fn golden_values() {
        let metric = metric(&[4.0, f64::NAN, 2.0, 9.0, 5.0, 5.0, 4.0, 4.0, 7.0]).expect("there are samples");
        assert_eq!((metric.count, metric.mean, metric.min, metric.max), (8, 5.0, 2.0, 9.0));
        // Squared differences: 9 + 3·1 + 0 + 0 + 4 + 16 = 32, over 7.
        assert!((metric.std - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
        // Sorted 2 4 4 4 5 5 7 9: ranks ⌈0.5·8⌉ = 4, ⌈0.9·8⌉ = 8.
        assert_eq!((metric.p50, metric.p90, metric.p95, metric.p99), (4.0, 9.0, 9.0, 9.0));
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let metric = metric(&values).expect("there are samples");
        assert_eq!((metric.p50, metric.p90, metric.p95, metric.p99), (50.0, 90.0, 95.0, 99.0));
    }

    #[test]
    fn nothing_is_absent_and_one_has_no_spread() {
        assert_eq!(metric(&[]), None);
        assert_eq!(metric(&[f64::NAN, f64::INFINITY]), None);
        let one = metric(&[0.1]).expect("one sample");
        assert_eq!((one.mean, one.std, one.p99), (0.1, 0.0, 0.1));
    }

    #[test]
    fn the_mean_of_ratios_is_the_ratio_of_sums() {
        let mut samples = Samples::default();
        samples.push_ratio(1.0, 10.0);
        samples.push_ratio(30.0, 30.0);
        samples.push_ratio(5.0, 0.0);
        let metric = samples.metric("ratio").expect("two samples");
        assert_eq!((metric.count, metric.mean, metric.min, metric.max), (2, 31.0 / 40.0, 0.1, 1.0));
    }

    #[test]
    fn samples_of_any_number_take_no_more_room() {
        let mut samples = Samples::default();
        samples.push(1.0);
        samples.push_times(2.0, u32::MAX);
        samples.push_times(3.0, u32::MAX);
        samples.push_times(4.0, 0);
        let metric = samples.metric("s").expect("there are samples");
        assert_eq!((metric.count, metric.min, metric.max), (2 * u64::from(u32::MAX) + 1, 1.0, 3.0));
        assert_eq!((metric.p50, metric.p90), (2.0, 3.0));
        assert!((metric.mean - 2.5).abs() < 1e-6 && (metric.std - 0.5).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn so_often_is_one_by_one(groups in prop::collection::vec((-1e6f64..1e6, 0u32..9), 1..50)) {
            let (mut often, mut singly) = (Samples::default(), Samples::default());
            for (value, times) in groups {
                often.push_times(value, times);
                (0..times).for_each(|_| singly.push(value));
            }
            prop_assert_eq!(often.metric("s"), singly.metric("s"));
        }

        #[test]
        fn order_never_matters_and_figures_are_ordered(mut values in prop::collection::vec(-1e6f64..1e6, 1..200)) {
            let forward = metric(&values).expect("there are samples");
            values.reverse();
            prop_assert_eq!(&forward, &metric(&values).expect("there are samples"));
            let Metric { min, p50, p90, p95, p99, max, mean, .. } = forward;
            prop_assert!(min <= p50 && p50 <= p90 && p90 <= p95 && p95 <= p99 && p99 <= max);
            prop_assert!(min <= mean && mean <= max);
        }
    }
}
