//! Histograms over logarithmic bins: latencies spread over decades.

use std::sync::LazyLock;

use specfleet_engine::time::Span;

const PER_DECADE: usize = 10;

/// Decades above a microsecond: up to a day.
const DECADES: usize = 11;

const EDGES: usize = PER_DECADE * DECADES;

/// Lower edges of all bins but the first, in whole nanoseconds, so that integers decide.
static EDGE: LazyLock<[u64; EDGES + 1]> =
    LazyLock::new(|| std::array::from_fn(|i| (1_000.0 * 10f64.powf(i as f64 / PER_DECADE as f64)).round() as u64));

/// A histogram of times. One bin from 0 to a microsecond, then ten per decade; what is longer than a day is in the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBins {
    counts: Vec<u64>,
}

/// Samples in `from` ≤ x < `to` seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogBin {
    /// Lower edge in seconds.
    pub from: f64,
    /// Upper edge in seconds.
    pub to: f64,
    pub count: u64,
}

impl Default for LogBins {
    fn default() -> LogBins {
        LogBins { counts: vec![0; EDGES + 1] }
    }
}

impl LogBins {
    /// Counts a time.
    #[inline]
    pub fn push(&mut self, span: Span) {
        self.counts[index(span)] += 1;
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &LogBins) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, others)| *mine += others);
    }

    /// The bins from the first to the last that is not empty.
    pub fn bins(&self) -> Vec<LogBin> {
        let used = |index: &usize| self.counts[*index] > 0;
        let Some(first) = (0..self.counts.len()).find(used) else { return Vec::new() };
        let last = (first..self.counts.len()).rfind(used).unwrap_or(first);
        (first..=last)
            .map(|index| LogBin {
                from: if index == 0 { 0.0 } else { edge(index - 1) },
                to: edge(index),
                count: self.counts[index],
            })
            .collect()
    }
}

/// Lower edge of bin `index` + 1, in seconds.
fn edge(index: usize) -> f64 {
    Span(EDGE[index]).seconds()
}

/// Bin 0 is below a microsecond.
#[inline]
fn index(span: Span) -> usize {
    EDGE[..EDGES].partition_point(|edge| *edge <= span.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_belong_to_the_bin_above() {
        let mut bins = LogBins::default();
        for nanoseconds in [0, 999, 1_000, 10_000, 1_000_000, 1_258_926, u64::MAX] {
            bins.push(Span(nanoseconds));
        }
        let found = bins.bins();
        // Powers of ten are exact to the last bit or two.
        let near = |edge: f64| (edge / 1e-6 - 1.0).abs() < 1e-12;
        assert_eq!((found[0].from, found[0].count, found[1].count), (0.0, 2, 1));
        assert!(near(found[0].to) && near(found[1].from), "{found:?}");
        assert_eq!((found[11].count, found[31].count, found[32].count), (1, 1, 1), "{found:?}");
        assert_eq!(found.last().map(|bin| bin.count), Some(1));
        assert_eq!(LogBins::default().bins(), []);
    }

    proptest! {
        #[test]
        fn every_sample_lies_in_its_bin(values in prop::collection::vec(0u64..1 << 45, 1..100), split in 0usize..100) {
            let (mut whole, mut a, mut b) = (LogBins::default(), LogBins::default(), LogBins::default());
            for (i, value) in values.iter().enumerate() {
                whole.push(Span(*value));
                if i < split { a.push(Span(*value)) } else { b.push(Span(*value)) }
            }
            a.merge(&b);
            prop_assert_eq!(&a, &whole);
            let bins = whole.bins();
            for bin in &bins {
                let inside = values.iter().filter(|v| (bin.from..bin.to).contains(&Span(**v).seconds())).count();
                prop_assert_eq!(inside as u64, bin.count, "{:?}", bin);
            }
            prop_assert!(bins.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
    }
}
