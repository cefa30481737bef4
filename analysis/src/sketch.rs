//! A metric's samples without the samples: what [`crate::Samples`] is where there are too many to keep.
//!
//! Percentiles come from a sketch of relative error 0.01 \[Masson et al., DDSketch, VLDB 2019\]; count, mean, standard
//! deviation, smallest and largest are exact, but for samples being rounded to 10⁻⁹ of their unit. Everything that is
//! added up is an integer, so the result depends on the samples alone: not on their order, nor on how they were spread
//! over sketches that are merged.

use std::fmt;

use sketches_ddsketch::{Config, DDSketch};

use crate::distribution::Metric;

/// Relative error of the percentiles.
pub const RELATIVE_ERROR: f64 = 0.01;

/// Steps per unit to which samples are rounded.
const STEPS: f64 = 1e9;

/// Bins for every value from one step to `i64::MAX` of them: ln(2⁶³) / ln(1.01 / 0.99) = 2184. A sketch that must merge
/// bins would depend on the order of its samples.
const BINS: u32 = 4096;

/// The samples of one metric, summed up.
#[derive(Clone)]
pub struct Sketch {
    /// Of the samples in steps.
    quantiles: DDSketch,
    count: u64,
    /// Σ numerators and Σ denominators; plain samples are steps over one.
    numerators: i128,
    denominators: u128,
    /// Σ samples and Σ samples², in steps.
    sum: i128,
    squares: u128,
    min: i64,
    max: i64,
    /// The last sample and how often it came in a row, not yet in any of the above but the first two sums: a bin is found
    /// by a logarithm, and declared times are mostly the same one after another.
    held: (i64, u32),
}

impl Sketch {
    /// Adds a sample of weight one; NaN (not applicable) is left out.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            // `as` saturates.
            self.push_steps((value * STEPS).round() as i64, 1);
        }
    }

    /// Adds `count` samples of `nanoseconds` each, to a metric in seconds.
    #[inline]
    pub fn push_nanoseconds(&mut self, nanoseconds: u64, count: u32) {
        self.push_steps(i64::try_from(nanoseconds).unwrap_or(i64::MAX), count);
    }

    #[inline]
    fn push_steps(&mut self, steps: i64, count: u32) {
        self.numerators += i128::from(steps) * i128::from(count);
        self.denominators += u128::from(count);
        self.enter(steps, count);
    }

    /// Adds `scale · numerator / denominator` with the denominator as its weight; without a denominator it is left out.
    pub fn push_ratio(&mut self, numerator: i64, denominator: u64, scale: f64) {
        if denominator > 0 {
            self.numerators += i128::from(numerator);
            self.denominators += u128::from(denominator);
            self.enter((numerator as f64 / denominator as f64 * scale * STEPS).round() as i64, 1);
        }
    }

    #[inline]
    fn enter(&mut self, steps: i64, count: u32) {
        if steps == self.held.0
            && let Some(count) = self.held.1.checked_add(count)
        {
            self.held.1 = count;
        } else {
            self.put_away();
            self.held = (steps, count);
        }
    }

    /// Takes in what is held.
    fn put_away(&mut self) {
        let (steps, count) = std::mem::take(&mut self.held);
        if count == 0 {
            return;
        }
        self.quantiles.add_with_count(steps as f64, u64::from(count));
        self.count += u64::from(count);
        self.sum += i128::from(steps) * i128::from(count);
        // Only absurd samples saturate, and never in another order to another value: no term is negative.
        let square = u128::from(steps.unsigned_abs()) * u128::from(steps.unsigned_abs());
        self.squares = self.squares.saturating_add(square.saturating_mul(u128::from(count)));
        self.min = self.min.min(steps);
        self.max = self.max.max(steps);
    }

    /// Adds all of another sketch's samples.
    pub fn merge(&mut self, other: &Sketch) {
        self.quantiles.merge(&other.quantiles).expect("invariant: all sketches have the same configuration");
        self.count += other.count;
        self.numerators += other.numerators;
        self.denominators += other.denominators;
        self.sum += other.sum;
        self.squares = self.squares.saturating_add(other.squares);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.enter(other.held.0, other.held.1);
    }

    /// The metric; `None` without samples. `scale`: what the ratios were added with, 10⁻⁹ for plain samples.
    pub fn metric(mut self, unit: &str, scale: f64) -> Option<Metric> {
        self.put_away();
        (self.count > 0).then(|| {
            let (min, max) = (self.min as f64 / STEPS, self.max as f64 / STEPS);
            let mean = self.numerators as f64 / self.denominators as f64 * scale;
            Metric {
                unit: unit.to_owned(),
                count: self.count,
                mean: mean.clamp(min, max),
                std: self.std(),
                min,
                max,
                p50: self.percentile(50),
                p90: self.percentile(90),
                p95: self.percentile(95),
                p99: self.percentile(99),
                interval: None,
            }
        })
    }

    /// Sample standard deviation (n − 1).
    fn std(&self) -> f64 {
        if self.min == self.max {
            return 0.0;
        }
        // Around a whole number near the mean, where nothing cancels: Σ(x − m)² = Σx² − 2mΣx + nm². The sums may wrap,
        // their result fits.
        let count = i128::from(self.count);
        let middle = self.sum.div_euclid(count);
        let around = self
            .squares
            .wrapping_sub((2_i128.wrapping_mul(middle).wrapping_mul(self.sum)) as u128)
            .wrapping_add(count.wrapping_mul(middle).wrapping_mul(middle) as u128);
        let offset = (self.sum - middle * count) as f64 / count as f64;
        let squares = (around as f64 - count as f64 * offset * offset).max(0.0);
        (squares / (self.count - 1) as f64).sqrt() / STEPS
    }

    /// By nearest rank, within [`RELATIVE_ERROR`] of the sample of that rank.
    fn percentile(&self, percent: u64) -> f64 {
        let (count, last) = (u128::from(self.count), self.count - 1);
        let rank = ((u128::from(percent) * count).div_ceil(100).max(1) - 1) as u64;
        // The sketch takes the rank ⌊q·(n − 1)⌋; half a rank more, so that rounding never falls below.
        let q = if rank >= last { 1.0 } else { (rank as f64 + 0.5) / last as f64 };
        let steps = self.quantiles.quantile(q).ok().flatten().unwrap_or(0.0);
        steps.clamp(self.min as f64, self.max as f64) / STEPS
    }
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch {
            quantiles: DDSketch::new(Config::new(RELATIVE_ERROR, BINS, 0.5)),
            count: 0,
            numerators: 0,
            denominators: 0,
            sum: 0,
            squares: 0,
            min: i64::MAX,
            max: i64::MIN,
            held: (0, 0),
        }
    }
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketch").field("count", &self.count).field("sum", &self.sum).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distribution::Samples;

    /// Values as metrics have them: zeros, and everything from nanoseconds to thousands.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![1 => Just(0.0), 4 => (-20.0f64..8.0).prop_map(f64::exp), 1 => (-6.0f64..2.0).prop_map(|e| -e.exp())]
    }

    fn close(found: f64, expected: f64, error: f64) -> bool {
        (found - expected).abs() <= error * expected.abs() + 2.0 / STEPS
    }

    proptest! {
        #[test]
        fn a_sketch_is_the_exact_metric_within_its_error(values in prop::collection::vec(value(), 1..300)) {
            let (mut sketch, mut samples) = (Sketch::default(), Samples::default());
            for value in &values {
                sketch.push(*value);
                samples.push(*value);
            }
            let found = sketch.metric("s", 1e-9).expect("there are samples");
            let exact = samples.metric("s").expect("there are samples");
            prop_assert_eq!(found.count, exact.count);
            prop_assert!(close(found.mean, exact.mean, 1e-6), "{} {}", found.mean, exact.mean);
            prop_assert!(close(found.std, exact.std, 1e-6), "{} {}", found.std, exact.std);
            let pairs = [
                (found.min, exact.min, 0.0), (found.max, exact.max, 0.0),
                (found.p50, exact.p50, 0.0101), (found.p90, exact.p90, 0.0101),
                (found.p95, exact.p95, 0.0101), (found.p99, exact.p99, 0.0101),
            ];
            for (found, exact, error) in pairs {
                prop_assert!(close(found, exact, error), "{found} {exact}");
            }
        }

        #[test]
        fn the_spread_over_sketches_changes_nothing(
            values in prop::collection::vec((any::<bool>(), value(), 1u32..4, 0usize..4), 1..200),
        ) {
            let mut whole = Sketch::default();
            let mut parts = vec![Sketch::default(); 4];
            for (ratio, value, count, part) in values {
                for sketch in [&mut whole, &mut parts[part]] {
                    if ratio {
                        sketch.push_ratio((value * 1e6) as i64, u64::from(count), 1e-9);
                    } else {
                        sketch.push_nanoseconds((value.abs() * 1e9) as u64, count);
                    }
                }
            }
            let mut merged = Sketch::default();
            parts.iter().rev().for_each(|part| merged.merge(part));
            prop_assert_eq!(merged.metric("s", 1e-9), whole.metric("s", 1e-9));
        }
    }

    #[test]
    fn ratios_weigh_by_their_denominators() {
        let mut sketch = Sketch::default();
        sketch.push_ratio(1, 10, 1.0);
        sketch.push_ratio(30, 30, 1.0);
        sketch.push_ratio(5, 0, 1.0);
        let metric = sketch.metric("ratio", 1.0).expect("two samples");
        assert_eq!((metric.count, metric.mean, metric.min, metric.max), (2, 31.0 / 40.0, 0.1, 1.0));
    }

    #[test]
    fn the_range_never_merges_bins() {
        // From one nanosecond to centuries, in both directions of growth: the small ones must stay apart.
        let mut sketch = Sketch::default();
        for nanoseconds in [1, u64::MAX, 2, 4, 1 << 40, 8] {
            sketch.push_nanoseconds(nanoseconds, 1);
        }
        let metric = sketch.metric("s", 1e-9).expect("samples");
        assert!((metric.p50 - 4e-9).abs() < 0.05e-9, "{}", metric.p50);
        assert_eq!(metric.min, 1e-9);
    }

    #[test]
    fn nothing_is_absent_and_zeros_are_samples() {
        assert_eq!(Sketch::default().metric("s", 1e-9), None);
        let mut sketch = Sketch::default();
        sketch.push(f64::NAN);
        assert_eq!(sketch.clone().metric("s", 1e-9), None);
        sketch.push_nanoseconds(0, 3);
        let zeros = sketch.metric("s", 1e-9).expect("three");
        assert_eq!((zeros.count, zeros.mean, zeros.std, zeros.p50), (3, 0.0, 0.0, 0.0));
    }
}
