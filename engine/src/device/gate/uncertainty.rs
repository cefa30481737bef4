//! Uncertainty u(t) \[U-HLM; method.md §2\]: how often draws at K other temperatures differ from the draft.
//!
//! Cost: K softmaxes over V logits, and no forward pass. Each is one pass of a vectorised exponential and a sum; nothing is
//! normalised or stored, because only the mass before, at and after the draft counts.

use crate::distribution::{arg_max, exp_nonpositive};
use crate::method::Estimator;
use crate::random::{DrawKey, Draws, Purpose};

/// K, the number of perturbed temperatures \[paper\].
pub const DRAWS: usize = 20;

/// Range of the published temperatures θ \[paper\].
const LOWEST_THETA: f64 = 0.05;
const HIGHEST_THETA: f64 = 2.0;

/// u(t) by the given estimator, in [0, 1]. `logits`: l(t), V values, before temperature and truncation: the run's own
/// sampling enters only through `draft`.
pub fn uncertainty(estimator: Estimator, logits: &[f32], draft: u32, key: DrawKey) -> f32 {
    match estimator {
        Estimator::Sampled => sampled_uncertainty(logits, draft, &mut key.draws(Purpose::Uncertainty)),
        Estimator::Expected => expected_uncertainty(logits, draft),
    }
}

/// u = (1/K) Σ 1[d_k ≠ d] with d_k ~ softmax(l/θ_k), θ_k ~ U(0.05, 2) \[U-HLM\].
///
/// Each k takes two draws: θ_k, then the inverse-CDF draw of d_k, which equals d exactly where it falls between the mass
/// before d and the mass up to d.
pub fn sampled_uncertainty(logits: &[f32], draft: u32, draws: &mut Draws) -> f32 {
    let maximum = maximum(logits);
    let differing = (0..DRAWS)
        .filter(|_| {
            let theta = LOWEST_THETA + (HIGHEST_THETA - LOWEST_THETA) * draws.uniform();
            let mass = mass_around(logits, maximum, theta as f32, draft);
            let target = draws.uniform() * (mass.before + mass.at + mass.after);
            !(mass.before <= target && target < mass.before + mass.at)
        })
        .count();
    differing as f32 / DRAWS as f32
}

/// u = 1 − (1/K) Σ softmax(l/θ_k)\[d\] on the grid θ_k = 2k/K: the expectation without noise \[ours\].
pub fn expected_uncertainty(logits: &[f32], draft: u32) -> f32 {
    let maximum = maximum(logits);
    let agreeing: f64 = (1..=DRAWS)
        .map(|k| {
            let theta = HIGHEST_THETA * k as f64 / DRAWS as f64;
            let mass = mass_around(logits, maximum, theta as f32, draft);
            mass.at / (mass.before + mass.at + mass.after)
        })
        .sum();
    (1.0 - agreeing / DRAWS as f64).clamp(0.0, 1.0) as f32
}

/// Unnormalised probability mass at temperature θ of the tokens before the draft, of the draft, and after it.
struct Mass {
    before: f64,
    at: f64,
    after: f64,
}

fn mass_around(logits: &[f32], maximum: f32, theta: f32, draft: u32) -> Mass {
    let draft = draft as usize;
    let (before, rest) = logits.split_at(draft.min(logits.len()));
    let (at, after) = rest.split_at(rest.len().min(1));
    let inverse = 1.0 / theta;
    Mass {
        before: exponential_sum(before, maximum, inverse),
        at: exponential_sum(at, maximum, inverse),
        after: exponential_sum(after, maximum, inverse),
    }
}

/// Σ e^((l − maximum) · inverse) in a fixed order. The exponentials of a block go into an array first: a loop without a
/// running sum is one that the compiler vectorises.
fn exponential_sum(logits: &[f32], maximum: f32, inverse: f32) -> f64 {
    const BLOCK: usize = 64;
    const LANES: usize = 8;
    let (blocks, remainder) = logits.as_chunks::<BLOCK>();
    let mut total = 0.0_f64;
    for block in blocks {
        let mut terms = [0.0_f32; BLOCK];
        for (term, &logit) in terms.iter_mut().zip(block) {
            *term = exp_nonpositive((logit - maximum) * inverse);
        }
        let mut lanes = [0.0_f32; LANES];
        for row in terms.as_chunks::<LANES>().0 {
            for (lane, term) in lanes.iter_mut().zip(row) {
                *lane += term;
            }
        }
        total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
    }
    for &logit in remainder {
        total += f64::from(exp_nonpositive((logit - maximum) * inverse));
    }
    total
}

fn maximum(logits: &[f32]) -> f32 {
    logits.get(arg_max(logits) as usize).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Distribution;
    use crate::method::Sampling;

    const KEY: DrawKey = DrawKey { seed: 5, prompt: 0, repetition: 0, position: 0, rejections: 0 };

    fn logits(vocab: usize) -> Vec<f32> {
        (0..vocab).map(|i| ((i * 7919 % 1009) as f32 / 100.0).sin() * 4.0).collect()
    }

    fn softmax(logits: &[f32], theta: f64) -> Distribution {
        Distribution::from_logits(logits, &Sampling { temperature: theta as f32, top_k: 0, top_p: 1.0 })
    }

    #[test]
    fn expected_is_one_minus_the_mean_probability() {
        let logits = logits(1500);
        for draft in [0, 3, 800, 1499] {
            let mean: f64 =
                (1..=20).map(|k| f64::from(softmax(&logits, 0.1 * f64::from(k)).probability(draft))).sum::<f64>()
                    / 20.0;
            assert!((f64::from(expected_uncertainty(&logits, draft)) - (1.0 - mean)).abs() < 1e-5);
        }
    }

    #[test]
    fn sampled_draws_the_tokens_it_says() {
        let logits = logits(64);
        for position in 0..200 {
            let key = KEY.at(position);
            let draft = position % 64;
            let mut draws = key.draws(Purpose::Uncertainty);
            let differing = (0..20)
                .filter(|_| {
                    let theta = 0.05 + 1.95 * draws.uniform();
                    softmax(&logits, theta).sample(draws.uniform()) != draft
                })
                .count();
            let u = uncertainty(Estimator::Sampled, &logits, draft, key);
            // Sums in other orders may round a draw to the neighbouring token, rarely.
            assert!((u - differing as f32 / 20.0).abs() < 0.051, "{u} at {position}");
        }
    }

    #[test]
    fn certain_and_uncertain() {
        let mut peaked = vec![0.0; 100];
        peaked[7] = 200.0;
        assert_eq!(expected_uncertainty(&peaked, 7), 0.0);
        assert_eq!(expected_uncertainty(&peaked, 8), 1.0);
        assert_eq!(uncertainty(Estimator::Sampled, &peaked, 7, KEY), 0.0);
        assert_eq!(uncertainty(Estimator::Sampled, &peaked, 8, KEY), 1.0);
        let even = vec![1.0; 100];
        assert!((expected_uncertainty(&even, 8) - 0.99).abs() < 1e-6);
        assert_eq!(expected_uncertainty(&even, 1_000), 1.0, "a draft outside the vocabulary");
    }
}
