//! Is the difference between two methods more than chance? Paired bootstrap over prompts.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The mean difference a − b of paired samples, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    pub pairs: u64,
    /// Mean of a − b over the pairs.
    pub mean: f64,
    /// Lower end of the 95 % percentile interval (Efron 1979). Absent of one pair, which says nothing about how pairs
    /// differ.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Two-sided p-value of "no difference": twice the smaller share of resampled means on one side of zero, each share
    /// counted as (n + 1) / (resamples + 1) so that it is never zero; at most 1, and 1 of one pair.
    pub p_value: f64,
}

/// Why no difference can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BootstrapError {
    /// The samples are no pairs.
    #[error("{a} and {b} samples cannot be paired")]
    Unpaired {
        /// Number of samples of the first.
        a: usize,
        /// Number of samples of the second.
        b: usize,
    },
    /// There are no pairs with a figure on both sides.
    #[error("there are no pairs to compare")]
    Empty,
    /// An interval needs resamples.
    #[error("the number of resamples must be at least 1")]
    NoResamples,
}

/// Compares `a` and `b`, where a\[i\] and b\[i\] belong to the same prompt and repetition. Pairs with a side that is not
/// finite are left out. Deterministic in its arguments.
pub fn paired_bootstrap(a: &[f64], b: &[f64], resamples: u32, seed: u64) -> Result<PairedDifference, BootstrapError> {
    if a.len() != b.len() {
        return Err(BootstrapError::Unpaired { a: a.len(), b: b.len() });
    }
    if resamples == 0 {
        return Err(BootstrapError::NoResamples);
    }
    let differences: Vec<f64> =
        a.iter().zip(b).map(|(a, b)| a - b).filter(|difference| difference.is_finite()).collect();
    let pairs = differences.len();
    if pairs == 0 {
        return Err(BootstrapError::Empty);
    }
    if pairs == 1 {
        return Ok(PairedDifference { pairs: 1, mean: differences[0], low: None, high: None, p_value: 1.0 });
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // The high half of 32 bits × pairs is uniform enough: its bias is below pairs / 2³².
    let mut draw = || differences[((u64::from(random.next_u32()) * pairs as u64) >> 32) as usize];
    let mut means: Vec<f64> = (0..resamples).map(|_| (0..pairs).map(|_| draw()).sum::<f64>() / pairs as f64).collect();
    means.sort_by(f64::total_cmp);
    let rank = |share: f64| means[((share * f64::from(resamples)).ceil() as usize).clamp(1, means.len()) - 1];
    let share = |count: usize| (count + 1) as f64 / (f64::from(resamples) + 1.0);
    let below = share(means.iter().filter(|mean| **mean <= 0.0).count());
    let above = share(means.iter().filter(|mean| **mean >= 0.0).count());
    Ok(PairedDifference {
        pairs: pairs as u64,
        mean: differences.iter().sum::<f64>() / pairs as f64,
        low: Some(rank(0.025)),
        high: Some(rank(0.975)),
        p_value: (2.0 * below.min(above)).min(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_difference_is_certain() {
        let a: Vec<f64> = (0..40).map(|i| f64::from(i) + 0.5).collect();
        let b: Vec<f64> = (0..40).map(f64::from).collect();
        let difference = paired_bootstrap(&a, &b, 999, 1).expect("pairs");
        assert_eq!((difference.mean, difference.low, difference.high), (0.5, Some(0.5), Some(0.5)));
        assert_eq!(difference.p_value, 2.0 / 1000.0);
    }

    #[test]
    fn equal_samples_do_not_differ() {
        let a = [1.0, 2.0, f64::NAN];
        let difference = paired_bootstrap(&a, &a, 100, 1).expect("pairs");
        assert_eq!((difference.pairs, difference.mean, difference.p_value), (2, 0.0, 1.0));
    }

    #[test]
    fn the_interval_is_about_two_standard_errors_wide() {
        // Differences alternate 0 and 2: mean 1, std 1, standard error 0.1 over 100 pairs.
        let a: Vec<f64> = (0..100).map(|i| f64::from(i % 2) * 2.0).collect();
        let difference = paired_bootstrap(&a, &[0.0; 100], 10_000, 7).expect("pairs");
        let (low, high) = (difference.low.expect("many pairs"), difference.high.expect("many pairs"));
        assert!((low - 0.804).abs() < 0.03 && (high - 1.196).abs() < 0.03, "{difference:?}");
        assert_eq!(paired_bootstrap(&a, &[0.0; 100], 10_000, 7), Ok(difference));
    }

    #[test]
    fn one_pair_has_a_difference_and_no_interval() {
        let one = paired_bootstrap(&[3.0, f64::NAN], &[1.0, 1.0], 100, 1).expect("a pair");
        assert_eq!(one, PairedDifference { pairs: 1, mean: 2.0, low: None, high: None, p_value: 1.0 });
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert_eq!(paired_bootstrap(&[1.0], &[], 10, 0), Err(BootstrapError::Unpaired { a: 1, b: 0 }));
        assert_eq!(paired_bootstrap(&[f64::NAN], &[1.0], 10, 0), Err(BootstrapError::Empty));
        assert_eq!(paired_bootstrap(&[1.0], &[1.0], 0, 0), Err(BootstrapError::NoResamples));
    }
}
