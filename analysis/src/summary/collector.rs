//! What a metric's samples go into: kept one by one, or summed up in a sketch.

use std::fmt;

use crate::distribution::{Metric, Samples};
use crate::sketch::Sketch;

/// A collection of one metric's samples.
pub(super) trait Collector: Clone + Default + fmt::Debug {
    /// Adds a sample; NaN is left out.
    fn sample(&mut self, value: f64);
    /// Adds `count` samples of `nanoseconds` each, in seconds.
    fn nanoseconds(&mut self, nanoseconds: u64, count: u32);
    /// Adds `scale · numerator / denominator`, weighted by its denominator; without one it is left out.
    fn ratio(&mut self, numerator: i64, denominator: u64, scale: f64);
    /// Adds another collection's samples.
    fn merge(&mut self, other: &Self);
}

/// A collection that a summary's figures come from.
pub(super) trait CollectedDistribution: Collector {
    /// What its percentiles are, for the summary.
    const QUANTILES: &'static str;
    /// The metric; `None` without samples.
    fn metric(self, unit: &str, scale: f64) -> Option<Metric>;
}

impl Collector for Samples {
    fn sample(&mut self, value: f64) {
        self.push(value);
    }

    fn nanoseconds(&mut self, nanoseconds: u64, count: u32) {
        self.push_times(nanoseconds as f64 * 1e-9, count);
    }

    fn ratio(&mut self, numerator: i64, denominator: u64, scale: f64) {
        self.push_ratio(numerator as f64 * scale, denominator as f64);
    }

    fn merge(&mut self, other: &Samples) {
        Samples::merge(self, other);
    }
}

impl CollectedDistribution for Samples {
    const QUANTILES: &'static str = "exact";

    fn metric(self, unit: &str, _scale: f64) -> Option<Metric> {
        Samples::metric(self, unit)
    }
}

impl Collector for Sketch {
    fn sample(&mut self, value: f64) {
        self.push(value);
    }

    #[inline]
    fn nanoseconds(&mut self, nanoseconds: u64, count: u32) {
        self.push_nanoseconds(nanoseconds, count);
    }

    fn ratio(&mut self, numerator: i64, denominator: u64, scale: f64) {
        self.push_ratio(numerator, denominator, scale);
    }

    fn merge(&mut self, other: &Sketch) {
        Sketch::merge(self, other);
    }
}

impl CollectedDistribution for Sketch {
    const QUANTILES: &'static str = "sketch, relative error 0.01";

    fn metric(self, unit: &str, scale: f64) -> Option<Metric> {
        Sketch::metric(self, unit, scale)
    }
}
