//! How long a batch will take, learned from those that are done [ours].
//!
//! One line for all replicas, which are alike: time = a + b·tokens with a, b ≥ 0, fitted by least squares whose weights
//! fall by [`MEMORY`] with each batch. While all batches have had one size, which says nothing about a, the line goes
//! through the origin. Before the first batch nothing is known, and the estimate is zero.

use crate::time::Span;

/// What a batch counts less with each one that follows: some fifty batches matter.
const MEMORY: f64 = 0.98;

/// Below this part of its largest possible value, the spread of the sizes is rounding.
const SPREAD: f64 = 1e-9;

/// The line, and the weighted sums it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimeModel {
    weight: f64,
    tokens: f64,
    tokens_squared: f64,
    nanos: f64,
    tokens_nanos: f64,
    sequences: f64,
    base: f64,
    /// b, in ns per token.
    per_token: f64,
}

impl TimeModel {
    /// Learns from a batch.
    pub(super) fn observe(&mut self, tokens: u64, sequences: usize, compute: Span) {
        let (x, t) = (tokens as f64, compute.0 as f64);
        self.weight = self.weight * MEMORY + 1.0;
        self.tokens = self.tokens * MEMORY + x;
        self.tokens_squared = self.tokens_squared * MEMORY + x * x;
        self.nanos = self.nanos * MEMORY + t;
        self.tokens_nanos = self.tokens_nanos * MEMORY + x * t;
        self.sequences = self.sequences * MEMORY + sequences as f64;
        (self.base, self.per_token) = self.fit();
    }

    fn fit(&self) -> (f64, f64) {
        let through_origin = (0.0, self.tokens_nanos / self.tokens_squared.max(1.0));
        let largest = self.weight * self.tokens_squared;
        let spread = largest - self.tokens * self.tokens;
        if spread <= SPREAD * largest {
            return through_origin;
        }
        let slope = (self.weight * self.tokens_nanos - self.tokens * self.nanos) / spread;
        let base = (self.nanos - slope * self.tokens) / self.weight;
        if slope < 0.0 {
            (self.nanos / self.weight, 0.0)
        } else if base < 0.0 {
            through_origin
        } else {
            (base, slope)
        }
    }

    /// The expected time of a batch of `tokens`; zero while nothing is known.
    pub(super) fn estimate(&self, tokens: u64) -> Span {
        Span((self.base + self.per_token * tokens as f64).round() as u64)
    }

    /// The most tokens of a batch that takes `time` at most.
    pub(super) fn tokens_within(&self, time: Span) -> u64 {
        if self.base == 0.0 && self.per_token == 0.0 {
            return u64::MAX;
        }
        // `as` saturates. A whole number of tokens must not be lost to the division's rounding.
        ((time.0 as f64 - self.base) / self.per_token + 1e-6).floor() as u64
    }

    /// Tokens per second of one verifier in batches of `most_tokens` or `most_sequences`, whichever ends them first;
    /// `None` while nothing is known.
    pub(super) fn pace(&self, most_tokens: u64, most_sequences: u32) -> Option<f64> {
        let per_sequence = if self.sequences > 0.0 { self.tokens / self.sequences } else { 0.0 };
        let tokens = (most_tokens as f64).min(f64::from(most_sequences) * per_sequence).max(1.0);
        let seconds = (self.base + self.per_token * tokens) * 1e-9;
        (seconds > 0.0).then(|| tokens / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_known_at_first_and_one_size_goes_through_the_origin() {
        let mut model = TimeModel::default();
        assert_eq!(
            (model.estimate(100), model.tokens_within(Span(1)), model.pace(10, 1)),
            (Span::ZERO, u64::MAX, None)
        );
        (0..100).for_each(|_| model.observe(20, 4, Span(4_000)));
        assert_eq!((model.estimate(20), model.estimate(10)), (Span(4_000), Span(2_000)));
        assert_eq!(model.tokens_within(Span(3_000)), 15);
        // Five tokens per sequence: ten sequences end a batch at 50 tokens, before its 100 are full.
        let pace = model.pace(100, 10).expect("batches were seen");
        assert!((pace / (50.0 / 10e-6) - 1.0).abs() < 1e-9, "{pace}");
    }

    #[test]
    fn old_batches_are_forgotten() {
        let mut model = TimeModel::default();
        (0..500u64).for_each(|i| model.observe(10 + i % 7, 1, Span(1_000_000)));
        (0..500u64).for_each(|i| model.observe(10 + i % 7, 1, Span(500 + 10 * (10 + i % 7))));
        assert!(model.estimate(12).0.abs_diff(620) < 60, "{:?}", model.estimate(12));
    }

    proptest! {
        #[test]
        fn a_line_is_found(base in 0u64..1_000_000, slope in 0u64..10_000, sizes in proptest::collection::vec(1u64..500, 2..60)) {
            prop_assume!(sizes.iter().any(|&size| size.abs_diff(sizes[0]) > 2));
            let mut model = TimeModel::default();
            for &size in &sizes {
                model.observe(size, 1, Span(base + slope * size));
            }
            for tokens in [1, 100, 500] {
                let (found, truth) = (model.estimate(tokens).0 as f64, (base + slope * tokens) as f64);
                prop_assert!((found - truth).abs() <= 1.0 + 1e-3 * truth, "{found} {truth}");
            }
        }

        /// Whatever was measured, more tokens never take less time, and the limit is one of the estimate.
        #[test]
        fn estimates_are_sane(batches in proptest::collection::vec((1u64..5000, any::<u32>()), 1..40), limit in any::<u32>()) {
            let mut model = TimeModel::default();
            for (tokens, nanos) in batches {
                model.observe(tokens, 1, Span(u64::from(nanos)));
            }
            prop_assert!(model.estimate(1) <= model.estimate(100));
            let within = model.tokens_within(Span(u64::from(limit)));
            if (1..1 << 40).contains(&within) {
                prop_assert!(model.estimate(within).0 <= u64::from(limit) + 1);
                prop_assert!(model.estimate(within + 1).0 + 1 >= u64::from(limit));
            }
        }
    }
}
