//! Do two runs differ in a metric, and by how much? Paired differences with interval, effect size and p-value.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::bootstrap::{BootstrapError, PairedDifference, paired_bootstrap};
use crate::rate::Z;

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 2_000;

/// Pairs above which the mean is normal for all that matters here: the limit that resampling tends to is computed directly.
const NORMAL_ABOVE: usize = 2_000;

/// Pairs up to which every pattern of signs is tried.
const ALL_SIGNS_UP_TO: usize = 12;

/// Patterns of signs that are drawn where there are too many to try.
const SIGN_FLIPS: u32 = 9_999;

/// A metric on two sides, paired.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    pub pairs: u64,
    /// Mean of the first side.
    pub mean_a: f64,
    /// Mean of the second.
    pub mean_b: f64,
    /// Mean of a − b.
    pub difference: f64,
    /// Lower end of the 95 % interval of the difference: bootstrap percentiles (Efron 1979), or the normal interval of
    /// more than two thousand pairs. Absent of one pair, which says nothing about how pairs differ.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Cohen's d_z: mean over standard deviation of the paired differences. Absent where they never vary.
    pub effect: Option<f64>,
    /// Two-sided p-value of "signs are chance": sign-flip permutation test (Fisher 1935) on the mean, all patterns of at
    /// most twelve pairs, else 9,999 drawn ones; the normal test of more than two thousand pairs.
    pub p_value: f64,
}

/// Compares `a` and `b`, where a\[i\] and b\[i\] belong together. Pairs with a side that is not finite are left out.
/// Deterministic in its arguments.
pub fn paired_test(a: &[f64], b: &[f64], seed: u64) -> Result<PairedTest, BootstrapError> {
    let interval = paired_difference(a, b, seed)?;
    let both = || a.iter().zip(b).filter(|(a, b)| (*a - *b).is_finite());
    let differences: Vec<f64> = both().map(|(a, b)| a - b).collect();
    let pairs = differences.len() as f64;
    let (mean, std) = moments(&differences);
    Ok(PairedTest {
        pairs: interval.pairs,
        mean_a: both().map(|(a, _)| a).sum::<f64>() / pairs,
        mean_b: both().map(|(_, b)| b).sum::<f64>() / pairs,
        difference: interval.mean,
        low: interval.low,
        high: interval.high,
        effect: (std > 0.0).then(|| mean / std),
        p_value: if differences.len() > NORMAL_ABOVE { interval.p_value } else { sign_flips(&differences, seed) },
    })
}

/// [`paired_bootstrap`] with 2,000 resamples; of more than two thousand pairs the normal interval and p-value, which the
/// bootstrap tends to.
pub fn paired_difference(a: &[f64], b: &[f64], seed: u64) -> Result<PairedDifference, BootstrapError> {
    if a.len() <= NORMAL_ABOVE || a.len() != b.len() {
        return paired_bootstrap(a, b, RESAMPLES, seed);
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).filter(|d| d.is_finite()).collect();
    if differences.len() <= NORMAL_ABOVE {
        return paired_bootstrap(a, b, RESAMPLES, seed);
    }
    let (mean, std) = moments(&differences);
    let error = std / (differences.len() as f64).sqrt();
    let p_value = if error > 0.0 {
        complementary_error(mean.abs() / error / std::f64::consts::SQRT_2)
    } else {
        f64::from(u8::from(mean == 0.0))
    };
    let (low, high) = (Some(mean - Z * error), Some(mean + Z * error));
    Ok(PairedDifference { pairs: differences.len() as u64, mean, low, high, p_value })
}

/// Mean and sample standard deviation (0 of one).
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// How often a pattern of signs gives a mean at least as far from zero as the one that was seen.
fn sign_flips(differences: &[f64], seed: u64) -> f64 {
    let seen = differences.iter().sum::<f64>().abs();
    // What only rounding tells apart from the seen value counts as equal to it.
    let far = seen - differences.iter().map(|d| d.abs()).sum::<f64>() * 1e-12;
    if differences.len() <= ALL_SIGNS_UP_TO {
        let patterns = 1_u32 << differences.len();
        let sum = |pattern: u32| -> f64 {
            differences.iter().enumerate().map(|(i, d)| if pattern >> i & 1 == 1 { -d } else { *d }).sum()
        };
        return f64::from((0..patterns).filter(|pattern| sum(*pattern).abs() >= far).count() as u32)
            / f64::from(patterns);
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5167_6e73);
    let mut extreme = 0_u32;
    for _ in 0..SIGN_FLIPS {
        let mut sum = 0.0;
        for word in differences.chunks(64) {
            let mut signs = random.next_u64();
            for difference in word {
                // The sign bit, without a branch that nobody can foresee.
                sum += f64::from_bits(difference.to_bits() ^ (signs << 63));
                signs >>= 1;
            }
        }
        extreme += u32::from(sum.abs() >= far);
    }
    f64::from(extreme + 1) / f64::from(SIGN_FLIPS + 1)
}

/// Holm's adjustment (1979) of p-values that were looked at together: the smallest times their number, the next times one
/// less, and so on, never falling; at most 1. A metric is significant at α if its adjusted value is at most α, and the
/// chance of any false one among them is at most α.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut floor = 0.0_f64;
    for (rank, index) in order.iter().enumerate() {
        floor = floor.max((p_values[*index] * (p_values.len() - rank) as f64).min(1.0));
        adjusted[*index] = floor;
    }
    adjusted
}

/// erfc by the rational Chebyshev approximation of Press et al. (Numerical Recipes, §6.2), relative error below 1.2e-7, for
/// x ≥ 0.
fn complementary_error(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * x);
    let coefficients = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let polynomial = coefficients.iter().rev().fold(0.0, |sum, c| sum * t + c);
    t * (-x * x + polynomial).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uniform(random: &mut ChaCha8Rng) -> f64 {
        f64::from(random.next_u32()) / 4_294_967_296.0
    }

    #[test]
    fn all_signs_of_fishers_darwin_data() {
        // Darwin's Zea mays, in eighths of an inch (Fisher 1935, §21): 15 pairs, 863 of 16384 half the patterns: p = 0.0527.
        let data: Vec<f64> = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48].map(f64::from).to_vec();
        let p = sign_flips(&data, 1);
        assert!((p - 0.0527).abs() < 0.008, "{p}");
        // Five differences of one sign: 2 of 32 patterns.
        assert_eq!(sign_flips(&[1.0, 2.0, 0.5, 3.0, 4.0], 1), 2.0 / 32.0);
        assert_eq!(sign_flips(&[0.0; 5], 1), 1.0);
    }

    #[test]
    fn effect_and_means_are_those_of_the_definition() {
        let a = [3.0, 5.0, 4.0, 8.0, f64::NAN];
        let test = paired_test(&a, &[1.0, 4.0, 4.0, 5.0, 1.0], 3).expect("pairs");
        assert_eq!((test.pairs, test.mean_a, test.mean_b, test.difference), (4, 5.0, 3.5, 1.5));
        // Differences 2, 1, 0, 3: squared distances 0.25 + 0.25 + 2.25 + 2.25 over 3.
        assert!((test.effect.expect("they vary") - 1.5 / (5.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        let same = paired_test(&a[..4], &a[..4], 3).expect("pairs");
        assert_eq!((same.difference, same.effect, same.p_value), (0.0, None, 1.0));
    }

    #[test]
    fn holms_own_example() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        assert!(adjusted.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{adjusted:?}");
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }

    #[test]
    fn the_error_function_is_that_of_the_tables() {
        for (x, expected) in [(0.0, 1.0), (0.5, 0.479_500_122), (1.0, 0.157_299_207), (2.0, 0.004_677_735)] {
            assert!((complementary_error(x) / expected - 1.0).abs() < 2e-7, "{x}");
        }
    }

    #[test]
    fn many_pairs_are_normal() {
        let a: Vec<f64> = (0..4_000).map(|i| f64::from(i % 2) * 2.0).collect();
        let test = paired_test(&a, &[0.95; 4_000], 1).expect("pairs");
        let error = 1.0 / 4_000_f64.sqrt();
        let (low, high) = (test.low.expect("many pairs"), test.high.expect("many pairs"));
        assert!((low - (0.05 - Z * error)).abs() < 1e-4 && (high - (0.05 + Z * error)).abs() < 1e-4);
        // z = 0.05 / 0.0158 = 3.16: p = 0.0016.
        assert!((test.p_value - 0.001_57).abs() < 1e-4, "{test:?}");
    }

    /// Of skewed differences, as energies have them; and no more than one in twenty false alarms.
    #[test]
    fn intervals_cover_and_p_values_alarm_as_often_as_they_say() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let (mut held, mut alarms) = (0, 0);
        for seed in 0..400 {
            let exponential = |random: &mut ChaCha8Rng| -(1.0 - uniform(random)).ln();
            let skewed: Vec<f64> = (0..40).map(|_| exponential(&mut random) - 1.0).collect();
            let interval = paired_difference(&skewed, &[0.0; 40], seed).expect("pairs");
            held += u32::from(interval.low <= Some(0.0) && Some(0.0) <= interval.high);
            let symmetric: Vec<f64> = (0..40).map(|_| exponential(&mut random) - exponential(&mut random)).collect();
            alarms += u32::from(paired_test(&symmetric, &[0.0; 40], seed).expect("pairs").p_value <= 0.05);
        }
        assert!((360..=392).contains(&held), "{held} of 400 intervals cover");
        assert!((8..=34).contains(&alarms), "{alarms} of 400 alarms");
    }

    proptest! {
        #[test]
        fn sides_swap_signs_and_nothing_else(values in prop::collection::vec((-9.0f64..9.0, -9.0f64..9.0), 1..30)) {
            let (a, b): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
            let one = paired_test(&a, &b, 4).expect("pairs");
            let other = paired_test(&b, &a, 4).expect("pairs");
            prop_assert!((one.difference + other.difference).abs() < 1e-9);
            prop_assert_eq!(one.p_value, other.p_value);
            prop_assert!(0.0 < one.p_value && one.p_value <= 1.0);
            prop_assert_eq!(one.low.is_some() && one.high.is_some(), a.len() > 1);
            prop_assert!(one.low.is_none_or(|low| low <= one.difference + 1e-9));
            prop_assert!(one.high.is_none_or(|high| one.difference <= high + 1e-9));
        }

        #[test]
        fn holm_never_lowers_and_keeps_the_order(values in prop::collection::vec(0.0f64..=1.0, 0..20)) {
            let adjusted = holm(&values);
            for (i, p) in values.iter().enumerate() {
                prop_assert!(*p <= adjusted[i] && adjusted[i] <= 1.0);
                prop_assert!(values.iter().zip(&adjusted).all(|(q, a)| q < p || adjusted[i] <= *a));
            }
        }
    }
}
