//! Probability distributions over the vocabulary: from logits, and drawn from by inverse CDF in id order.
//!
//! Sums run in a fixed order and the exponential is our own polynomial, so that the same logits give the same bits
//! whatever the number of threads and the maths library.

use serde::{Deserialize, Serialize};

use crate::method::Sampling;

/// How far above 1 the sum of a received distribution may lie (rounding of V terms in `f32`).
pub const SUM_TOLERANCE: f64 = 1e-3;

/// Why numbers are not a distribution.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum DistributionError {
    #[error("a distribution needs at least one probability")]
    Empty,
    /// A value is negative, infinite or NaN.
    #[error("probability of token {token} is {value}")]
    BadProbability { token: u32, value: f32 },
    /// The sum lies outside (0, 1 + [`SUM_TOLERANCE`]].
    #[error("probabilities add up to {sum}, not to 1")]
    BadSum { sum: f64 },
}

/// Probabilities of the tokens 0 ..= V−1: V ≥ 1 finite numbers ≥ 0 with a sum in (0, 1 + [`SUM_TOLERANCE`]].
///
/// Every constructor and deserialisation keeps that, so a distribution of a hostile peer is either refused or harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
pub struct Distribution(Vec<f32>);

impl TryFrom<Vec<f32>> for Distribution {
    type Error = DistributionError;

    fn try_from(probabilities: Vec<f32>) -> Result<Distribution, DistributionError> {
        if probabilities.is_empty() {
            return Err(DistributionError::Empty);
        }
        let mut sum = 0.0_f64;
        for (token, &value) in (0..).zip(&probabilities) {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(DistributionError::BadProbability { token, value });
            }
            sum += f64::from(value);
        }
        if sum > 0.0 && sum <= 1.0 + SUM_TOLERANCE {
            Ok(Distribution(probabilities))
        } else {
            Err(DistributionError::BadSum { sum })
        }
    }
}

impl From<Distribution> for Vec<f32> {
    fn from(distribution: Distribution) -> Vec<f32> {
        distribution.0
    }
}

impl Distribution {
    /// softmax(l / T), truncated to top-k, then to top-p, and renormalised \[paper\]. At T = 0 (or below) one-hot at the
    /// arg max; the lowest id wins ties.
    ///
    /// `logits`: V values, V ≥ 1 (none at all gives the one-token distribution). NaN counts as −∞; if nothing is above
    /// −∞ the distribution is one-hot at token 0, and if something is +∞ at the first such token: the function is total.
    pub fn from_logits(logits: &[f32], sampling: &Sampling) -> Distribution {
        let best = arg_max(logits);
        let maximum = logits.get(best as usize).copied().unwrap_or(f32::NAN);
        if sampling.is_greedy() || !maximum.is_finite() {
            return Distribution::one_hot(logits.len(), best);
        }
        // The maximum is taken off before the division: a tiny T gives 0 and −∞, never ∞ − ∞.
        let mut weights = logits.to_vec();
        for weight in &mut weights {
            *weight = exp_nonpositive((*weight - maximum) / sampling.temperature);
        }
        if sampling.top_k > 0 && (sampling.top_k as usize) < weights.len() {
            keep_only(&mut weights, sampling.top_k as usize);
        }
        if sampling.top_p < 1.0 {
            let total = sum(&weights);
            let kept = prefix_reaching(&weights, f64::from(sampling.top_p.max(0.0)) * total);
            keep_only(&mut weights, kept);
        }
        Distribution::normalised(weights)
    }

    /// All mass on one token.
    pub fn one_hot(vocab: usize, token: u32) -> Distribution {
        let mut probabilities = vec![0.0; vocab.max(token as usize + 1)];
        probabilities[token as usize] = 1.0;
        Distribution(probabilities)
    }

    /// `weights` over their sum. The caller has made sure that they are finite, ≥ 0 and not all zero.
    pub(crate) fn normalised(mut weights: Vec<f32>) -> Distribution {
        let total = sum(&weights);
        debug_assert!(total > 0.0 && total.is_finite());
        for weight in &mut weights {
            *weight = (f64::from(*weight) / total) as f32;
        }
        Distribution(weights)
    }

    /// p = 0 for tokens outside the vocabulary.
    pub fn probability(&self, token: u32) -> f32 {
        self.0.get(token as usize).copied().unwrap_or(0.0)
    }

    /// All V probabilities in id order.
    pub fn probabilities(&self) -> &[f32] {
        &self.0
    }

    /// V.
    #[expect(clippy::len_without_is_empty, reason = "a distribution is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The token at which the CDF, scanned in id order, passes `u` ∈ [0, 1). Never one of probability zero.
    pub fn sample(&self, u: f64) -> u32 {
        // The invariant of the type: some probability is positive.
        sample_weights(self.0.iter().map(|&p| f64::from(p)), u).unwrap_or(0)
    }

    /// The most likely token; the lowest id wins ties.
    pub fn arg_max(&self) -> u32 {
        arg_max(&self.0)
    }

    /// max p.
    pub fn max_probability(&self) -> f32 {
        self.probability(self.arg_max())
    }

    /// −Σ p ln p in nats.
    pub fn entropy(&self) -> f32 {
        let entropy: f64 = self.0.iter().filter(|&&p| p > 0.0).map(|&p| f64::from(p)).map(|p| -p * p.ln()).sum();
        entropy.max(0.0) as f32
    }

    /// The `count` most likely tokens of positive probability (fewer if there are fewer), most likely first; lower ids
    /// first among equals.
    pub fn ranked(&self, count: usize) -> Vec<u32> {
        let mut ids = leading(&self.0, count);
        ids.sort_unstable_by(|&a, &b| by_rank(&self.0, a, b));
        ids
    }

    /// The smallest k such that the k most likely tokens leave at most `tail` of the mass, at least 1.
    pub fn prefix_leaving(&self, tail: f32) -> usize {
        prefix_reaching(&self.0, sum(&self.0) - f64::from(tail))
    }
}

/// Index of the largest value that is not NaN, the lowest among equals; 0 if there is none.
pub fn arg_max(values: &[f32]) -> u32 {
    let mut best = 0;
    let mut maximum = f32::NEG_INFINITY;
    for (index, &value) in (0_u32..).zip(values) {
        if value > maximum {
            maximum = value;
            best = index;
        }
    }
    best
}

/// The index at which the running sum of `weights` (finite, ≥ 0) passes `u` times their sum; `None` if all are zero.
/// The same order and the same rounding in both passes: the running sum ends exactly at the total.
pub(crate) fn sample_weights(weights: impl Iterator<Item = f64> + Clone, u: f64) -> Option<u32> {
    let total: f64 = weights.clone().sum();
    let target = u * total;
    let mut running = 0.0;
    let mut last = None;
    for (token, weight) in (0_u32..).zip(weights) {
        if weight > 0.0 {
            running += weight;
            last = Some(token);
            if running > target {
                break;
            }
        }
    }
    last
}

/// The sum in id order, in f64.
pub(crate) fn sum(weights: &[f32]) -> f64 {
    weights.iter().map(|&weight| f64::from(weight)).sum()
}

/// e^x for x ≤ 0, which the caller sees to (NaN and everything below the normal range give 0), to 2 units in the last place.
///
/// Branch-free, without a call into the maths library: the compiler vectorises loops over it, and every platform computes
/// the same bits. Range reduction and polynomial are those of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp_nonpositive(x: f32) -> f32 {
    // Below this e^x would be subnormal.
    const LOWEST: f32 = -87.0;
    // 1.5 · 2^23: adding it rounds a small float to an integer held in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    let inside = if x > LOWEST { x } else { LOWEST };
    let shifted = inside * std::f32::consts::LOG2_E + ROUNDER;
    let exponent = shifted - ROUNDER;
    // ln 2 in two parts, the first of which has few enough bits for an exact product.
    let r = (inside - exponent * 0.693_359_4) - exponent * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4_f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    // The low bits of `shifted` are the integer; the shift drops the others.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x >= LOWEST { mantissa * power } else { 0.0 }
}

/// Most likely first, lower ids first among equals: a total order over finite values.
fn by_rank(weights: &[f32], a: u32, b: u32) -> std::cmp::Ordering {
    weights[b as usize].total_cmp(&weights[a as usize]).then(a.cmp(&b))
}

/// The `count` most likely ids of positive weight, in no particular order.
fn leading(weights: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0_u32..).zip(weights).filter(|&(_, &weight)| weight > 0.0).map(|(id, _)| id).collect();
    if count < ids.len() {
        if count > 0 {
            ids.select_nth_unstable_by(count - 1, |&a, &b| by_rank(weights, a, b));
        }
        ids.truncate(count);
    }
    ids
}

/// Zeroes all but the `count` most likely weights.
fn keep_only(weights: &mut [f32], count: usize) {
    let mut kept = vec![false; weights.len()];
    for id in leading(weights, count) {
        kept[id as usize] = true;
    }
    for (weight, kept) in weights.iter_mut().zip(kept) {
        if !kept {
            *weight = 0.0;
        }
    }
}

/// The smallest k ≥ 1 such that the k largest weights reach `mass`.
fn prefix_reaching(weights: &[f32], mass: f64) -> usize {
    let mut ids = leading(weights, weights.len());
    ids.sort_unstable_by(|&a, &b| by_rank(weights, a, b));
    let mut reached = 0.0;
    for (taken, id) in (1..).zip(&ids) {
        reached += f64::from(weights[*id as usize]);
        if reached >= mass {
            return taken;
        }
    }
    ids.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_k: u32, top_p: f32) -> Sampling {
        Sampling { temperature, top_k, top_p }
    }

    #[test]
    fn exponential_is_accurate() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp_nonpositive(x)) - exact).abs() / exact;
            assert!(relative < 2.5e-7, "e^{x}: relative error {relative}");
        }
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-0.0), 1.0);
        assert_eq!(exp_nonpositive(-88.0), 0.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(f32::NAN), 0.0);
    }

    #[test]
    fn softmax_matches_f64() {
        let logits = [1.0_f32, -2.0, 0.5, 3.25, 3.25, -40.0];
        for temperature in [0.3_f32, 1.0, 2.0] {
            let p = Distribution::from_logits(&logits, &sampling(temperature, 0, 1.0));
            let exact: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / f64::from(temperature)).exp()).collect();
            let total: f64 = exact.iter().sum();
            for (token, exact) in (0..).zip(exact) {
                assert!((f64::from(p.probability(token)) - exact / total).abs() < 3e-7);
            }
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        let p = Distribution::from_logits(&[0.0, 2.0, 2.0], &sampling(0.0, 0, 1.0));
        assert_eq!(p.probabilities(), [0.0, 1.0, 0.0]);
        assert_eq!((p.arg_max(), p.max_probability(), p.entropy()), (1, 1.0, 0.0));
    }

    #[test]
    fn strange_logits_are_harmless() {
        let all = [f32::NAN, f32::NEG_INFINITY];
        assert_eq!(Distribution::from_logits(&all, &sampling(1.0, 0, 1.0)).probabilities(), [1.0, 0.0]);
        let some = [f32::NAN, 0.0, f32::INFINITY, f32::INFINITY];
        assert_eq!(Distribution::from_logits(&some, &sampling(1.0, 0, 1.0)).arg_max(), 2);
        let mixed = [f32::NAN, 0.0, f32::NEG_INFINITY, 0.0];
        assert_eq!(Distribution::from_logits(&mixed, &sampling(1.0, 0, 1.0)).probabilities(), [0.0, 0.5, 0.0, 0.5]);
        assert_eq!(Distribution::from_logits(&[], &sampling(1.0, 0, 1.0)).len(), 1);
        let tiny = Distribution::from_logits(&[3.0, 4.0], &sampling(f32::MIN_POSITIVE, 0, 1.0));
        assert_eq!(tiny.probabilities(), [0.0, 1.0]);
    }

    #[test]
    fn truncation_keeps_the_most_likely() {
        // p ∝ 4, 3, 2, 1
        let logits: Vec<f32> = [2.0_f32, 4.0, 1.0, 3.0].iter().map(|w| w.ln()).collect();
        let top_k = Distribution::from_logits(&logits, &sampling(1.0, 2, 1.0));
        assert!((top_k.probability(1) - 4.0 / 7.0).abs() < 1e-6 && top_k.probability(0) == 0.0);
        let top_p = Distribution::from_logits(&logits, &sampling(1.0, 0, 0.65));
        assert!((top_p.probability(3) - 3.0 / 7.0).abs() < 1e-6 && top_p.probability(0) == 0.0);
        let both = Distribution::from_logits(&logits, &sampling(1.0, 3, 0.5));
        assert!(both.probability(3) > 0.0 && both.probability(0) == 0.0);
        let least = Distribution::from_logits(&logits, &sampling(1.0, 0, 0.0));
        assert_eq!(least.probability(1), 1.0);
        let ties = Distribution::from_logits(&[1.0, 1.0, 1.0], &sampling(1.0, 2, 1.0));
        assert_eq!(ties.probabilities(), [0.5, 0.5, 0.0]);
    }

    #[test]
    fn sampling_never_returns_a_zero() {
        let p = Distribution(vec![0.0, 0.25, 0.0, 0.25, 0.0]);
        assert_eq!(p.sample(0.0), 1);
        assert_eq!(p.sample(0.499_999), 1);
        assert_eq!(p.sample(0.5), 3);
        assert_eq!(p.sample(1.0 - f64::EPSILON), 3);
        assert_eq!(p.sample(1.0), 3);
    }

    #[test]
    fn ranks_and_tails() {
        let p = Distribution(vec![0.1, 0.4, 0.0, 0.4, 0.1]);
        assert_eq!(p.ranked(3), [1, 3, 0]);
        assert_eq!(p.ranked(9), [1, 3, 0, 4]);
        assert_eq!(p.prefix_leaving(0.25), 2);
        assert_eq!(p.prefix_leaving(0.15), 3);
        assert_eq!(p.prefix_leaving(0.0), 4);
        assert_eq!(p.prefix_leaving(1.0), 1);
    }

    #[test]
    fn foreign_numbers_are_checked() {
        assert_eq!(Distribution::try_from(vec![]), Err(DistributionError::Empty));
        assert!(Distribution::try_from(vec![0.5, -0.1]).is_err());
        assert!(Distribution::try_from(vec![0.5, f32::NAN]).is_err());
        assert!(Distribution::try_from(vec![0.0, 0.0]).is_err());
        assert!(Distribution::try_from(vec![0.6, 0.6]).is_err());
        assert!(Distribution::try_from(vec![0.6, 0.4]).is_ok());
    }
}
