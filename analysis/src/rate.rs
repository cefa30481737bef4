//! A share of many tokens, and how sure it is when the tokens come in generations.

use serde::{Deserialize, Serialize};

/// z of a two-sided 95 % interval.
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// Σ numerators / Σ denominators over clusters, with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The ratio of the sums, 0 to 1.
    pub value: f64,
    /// Lower end of the interval. Absent of one cluster, which says nothing about how clusters differ.
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub count: u64,
    /// Clusters that have any.
    pub clusters: u64,
}

/// Collects clusters (a generation's skipped tokens, a generation's tokens) of a share.
///
/// Tokens of one generation are not independent, so the variance is that of a ratio of cluster totals (linearised,
/// Cochran 1977, §6.5); it says how many independent tokens the sample is worth \[Kish 1965\], and with that number the
/// interval is Wilson's (1927), with Student's t for the clusters' degrees of freedom. Unlike the plain normal interval
/// it stays within 0 and 1 and does not shrink to nothing where nothing was seen.
#[derive(Clone, Debug, Default)]
pub struct RateBuilder {
    clusters: Vec<(f64, u64)>,
}

impl RateBuilder {
    /// Adds a cluster of `count` with `sum` of them, 0 ≤ sum ≤ count; one without any says nothing.
    pub fn push(&mut self, sum: f64, count: u64) {
        if count > 0 && sum.is_finite() {
            self.clusters.push((sum, count));
        }
    }

    /// The rate; `None` without any.
    pub fn rate(&self) -> Option<Rate> {
        let clusters = self.clusters.len() as u64;
        let count: u64 = self.clusters.iter().map(|(_, count)| count).sum();
        let sum: f64 = self.clusters.iter().map(|(sum, _)| sum).sum();
        if count == 0 {
            return None;
        }
        let value = (sum / count as f64).clamp(0.0, 1.0);
        if clusters < 2 {
            return Some(Rate { value, low: None, high: None, count, clusters });
        }
        let squares: f64 = self.clusters.iter().map(|&(sum, count)| (sum - value * count as f64).powi(2)).sum();
        let variance = squares * clusters as f64 / (clusters - 1) as f64 / (count as f64).powi(2);
        // Where no cluster differs from another, each is taken for one observation.
        let worth = if variance > 0.0 { value * (1.0 - value) / variance } else { clusters as f64 };
        let (low, high) = wilson(value, worth, student(clusters - 1));
        Some(Rate { value, low: Some(low), high: Some(high), count, clusters })
    }
}

/// Wilson's interval of a share seen in `n` independent observations.
fn wilson(share: f64, n: f64, t: f64) -> (f64, f64) {
    let shrink = 1.0 + t * t / n;
    let middle = (share + t * t / (2.0 * n)) / shrink;
    let half = t / shrink * (share * (1.0 - share) / n + t * t / (4.0 * n * n)).sqrt();
    // Rounding must not put the share outside of its own interval.
    ((middle - half).clamp(0.0, share), (middle + half).clamp(share, 1.0))
}

/// The 97.5 % point of Student's t: from tables up to three degrees of freedom, else the expansion of Cornish and
/// Fisher (to 0.3 % at four, better above).
pub(crate) fn student(freedom: u64) -> f64 {
    match freedom {
        0 | 1 => 12.706_205,
        2 => 4.302_653,
        3 => 3.182_446,
        _ => {
            let v = freedom as f64;
            let (z, z3, z5, z7) = (Z, Z.powi(3), Z.powi(5), Z.powi(7));
            z + (z3 + z) / (4.0 * v)
                + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * v * v)
                + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * v.powi(3))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn rate(clusters: &[(f64, u64)]) -> Option<Rate> {
        let mut builder = RateBuilder::default();
        clusters.iter().for_each(|&(sum, count)| builder.push(sum, count));
        builder.rate()
    }

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (freedom, expected) in
            [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042)]
        {
            assert!((student(freedom) / expected - 1.0).abs() < 0.004, "{freedom}: {}", student(freedom));
        }
        assert!((student(1_000_000) - Z).abs() < 1e-5);
    }

    #[test]
    fn wilsons_interval_is_that_of_the_textbook() {
        // 10 of 100: 0.0552 to 0.1744 (Newcombe 1998).
        let (low, high) = wilson(0.1, 100.0, Z);
        assert!((low - 0.0552).abs() < 5e-4 && (high - 0.1744).abs() < 5e-4, "{low} {high}");
    }

    #[test]
    fn the_rate_is_the_ratio_of_the_sums() {
        let rate = rate(&[(1.0, 10), (30.0, 30), (0.0, 0), (0.5, 10)]).expect("tokens");
        assert_eq!((rate.value, rate.count, rate.clusters), (31.5 / 50.0, 50, 3));
        assert!(rate.low < Some(rate.value) && Some(rate.value) < rate.high);
    }

    #[test]
    fn nothing_seen_is_not_nothing_there() {
        let none = rate(&[(0.0, 50); 20]).expect("tokens");
        assert_eq!((none.value, none.low), (0.0, Some(0.0)));
        assert!(none.high > Some(0.1) && none.high < Some(0.25), "twenty generations, each one observation: {none:?}");
        let one = rate(&[(3.0, 50)]).expect("tokens");
        assert_eq!((one.low, one.high), (None, None));
        assert_eq!(rate(&[]), None);
        assert_eq!(rate(&[(0.0, 0)]), None);
    }

    /// Generations differ in their own rate, as texts do; an interval that took tokens for independent would cover far
    /// less.
    #[test]
    fn ninety_five_of_a_hundred_intervals_hold_the_truth() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut uniform = || f64::from(random.next_u32()) / 4_294_967_296.0;
        for (clusters, truth) in [(12, 0.2), (48, 0.04), (300, 0.04)] {
            let mut held = 0;
            for _ in 0..1_000 {
                let mut builder = RateBuilder::default();
                for _ in 0..clusters {
                    // Uniform between 0 and twice the truth: mean = truth, whatever the length.
                    let own = 2.0 * truth * uniform();
                    let count = 20 + (uniform() * 60.0) as u64;
                    let sum = (0..count).filter(|_| uniform() < own).count() as f64;
                    builder.push(sum, count);
                }
                let rate = builder.rate().expect("tokens");
                held += u32::from(rate.low <= Some(truth) && Some(truth) <= rate.high);
            }
            assert!((925..=985).contains(&held), "{clusters} clusters at {truth}: {held} of 1000");
        }
    }

    proptest! {
        #[test]
        fn intervals_lie_within_0_and_1_and_hold_their_rate(
            clusters in prop::collection::vec((0.0f64..=1.0, 0u64..50), 1..40),
        ) {
            let clusters: Vec<(f64, u64)> = clusters.iter().map(|&(share, n)| (share * n as f64, n)).collect();
            if let Some(rate) = rate(&clusters) {
                prop_assert_eq!(rate.low.is_some() && rate.high.is_some(), rate.clusters > 1);
                prop_assert!(rate.low.is_none_or(|low| 0.0 <= low && low <= rate.value), "{rate:?}");
                prop_assert!(rate.high.is_none_or(|high| rate.value <= high && high <= 1.0), "{rate:?}");
            }
        }
    }
}
