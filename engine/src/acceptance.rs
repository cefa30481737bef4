//! Accept or reject a draft, and what comes instead (method.md §1) \[SpecDec: Leviathan et al., Chen et al.\].
//!
//! With x the distribution that draft d was drawn from and y the verifier's, accept d with probability min(1, y_d / x_d), otherwise
//! draw from norm(max(y − x, 0)). The token that comes out follows y exactly, as long as x is known exactly. T = 0 is no
//! special case: one-hot distributions accept iff d is the verifier's arg max, and reject to it.

use serde::{Deserialize, Serialize};

use crate::device::payload::{DecodedDistribution, Payload, PayloadError, quantised};
use crate::distribution::{Distribution, sample_weights};
use crate::method::Sampling;
use crate::random::{DrawKey, Draws, Purpose};

/// What follows the accepted drafts of an upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Next {
    /// Nothing: every draft was accepted.
    None,
    /// The token in place of the first rejected draft.
    Replacement(u32),
    /// One token more from the verifier, after a fully accepted block.
    Bonus(u32),
    /// The verifier knows only x_d of the draft it rejected: here is its distribution y, and the device draws the replacement by
    /// [`resample_on_device`].
    Resample(Distribution),
}

/// The verifier's judgement of one upload.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyOutcome {
    /// How many drafts were accepted, from the first on.
    pub accepted: u32,
    pub next: Next,
    /// min(1, y_d / x_d) of every judged draft: the accepted ones and, if there is one, the first rejected.
    pub accept_probabilities: Vec<f32>,
}

/// min(1, y_d / x_d). For x_d = 0, where quantisation lost the draft's probability: 1 if y_d > 0, else 0.
pub fn accept_probability(x_d: f32, y_d: f32) -> f64 {
    if x_d > 0.0 {
        (f64::from(y_d) / f64::from(x_d)).min(1.0)
    } else if y_d > 0.0 {
        1.0
    } else {
        0.0
    }
}

/// A draw from norm(max(y − x, 0)); from y if that has no mass. `x`: V values; missing ones count as 0.
pub fn residual_draw(x: &[f32], y: &Distribution, draws: &mut Draws) -> u32 {
    let u = draws.uniform();
    let x = x.iter().copied().chain(std::iter::repeat(0.0));
    let residual = y.probabilities().iter().zip(x).map(|(&y, x)| (f64::from(y) - f64::from(x)).max(0.0));
    sample_weights(residual, u).unwrap_or_else(|| y.sample(u))
}

/// Judges the drafts of one upload: pure, and the same on every driver.
///
/// * `logits`: rows × `vocab` values. Row i gives the verifier's distribution for `drafts[i]`; with `bonus` one more row for the
///   position after the last draft.
/// * `sampling`: the same for the drafter and the verifier.
/// * `key`: that of the first draft; the position goes up by one per draft.
/// * `payloads`: one per draft.
///
/// Errors: shapes that do not fit, and payloads of judged drafts that are not valid. A payload behind the first rejection
/// is not looked at: it cannot change the outcome.
pub fn verify_outcome(
    logits: &[f32],
    vocab: usize,
    sampling: &Sampling,
    key: DrawKey,
    drafts: &[u32],
    payloads: &[Payload],
    bonus: bool,
) -> Result<VerifyOutcome, PayloadError> {
    if payloads.len() != drafts.len() {
        return Err(PayloadError::Count { payloads: payloads.len(), drafts: drafts.len() });
    }
    let expected = (drafts.len() + usize::from(bonus)).saturating_mul(vocab);
    if logits.len() != expected || vocab == 0 {
        return Err(PayloadError::Logits { expected, found: logits.len() });
    }
    let mut rows = logits.chunks_exact(vocab);
    let mut accept_probabilities = Vec::with_capacity(drafts.len());
    let mut accepted = 0;
    let mut key = key;
    for ((&draft, payload), row) in drafts.iter().zip(payloads).zip(&mut rows) {
        let distribution = payload.decode(vocab, draft)?;
        let y = Distribution::from_logits(row, sampling);
        let probability = accept_probability(distribution.probability(draft), y.probability(draft));
        accept_probabilities.push(probability as f32);
        if key.draws(Purpose::Accept).uniform() >= probability {
            let next = match distribution {
                DecodedDistribution::Whole { probabilities } => {
                    Next::Replacement(residual_draw(&probabilities, &y, &mut key.draws(Purpose::Residual)))
                }
                // Greedy: the replacement is the arg max whatever x was, so y need not go down.
                DecodedDistribution::DraftOnly { .. } if sampling.is_greedy() => Next::Replacement(y.arg_max()),
                DecodedDistribution::DraftOnly { .. } => Next::Resample(quantised(y, payload.bits())),
            };
            return Ok(VerifyOutcome { accepted, next, accept_probabilities });
        }
        accepted += 1;
        key = key.at(key.position.saturating_add(1));
    }
    let next = match rows.next() {
        Some(row) => Next::Bonus(verifier_draw(row, sampling, key)),
        None => Next::None,
    };
    Ok(VerifyOutcome { accepted, next, accept_probabilities })
}

/// The replacement for a rejected draft whose distribution only the device knows \[DSSD\]. `x`: the distribution it was drawn from; `y`: what
/// came with [`Next::Resample`]; `key`: that of the rejected draft.
///
/// The same draw as the verifier's with a `full` payload: with 32 bits, `dssd` equals `hlm` token for token. The caller has
/// checked that `y` covers the same vocabulary.
pub fn resample_on_device(x: &Distribution, y: &Distribution, key: DrawKey) -> u32 {
    residual_draw(x.probabilities(), y, &mut key.draws(Purpose::Residual))
}

/// A token that the verifier writes itself: `llm-only` and the bonus token. `logits`: V values.
pub fn verifier_draw(logits: &[f32], sampling: &Sampling, key: DrawKey) -> u32 {
    Distribution::from_logits(logits, sampling).sample(key.draws(Purpose::Verifier).uniform())
}

/// The audit of a skipped token (method.md §8 \[ours\]): min(1, y_d / x_d), the probability that the verifier would have
/// accepted it. `logits_row`: V values of the verifier at the token's position; `x_d`: what the draft's signals said.
pub fn audit_outcome(logits_row: &[f32], sampling: &Sampling, token: u32, x_d: f32) -> f32 {
    accept_probability(x_d, Distribution::from_logits(logits_row, sampling).probability(token)) as f32
}

#[cfg(test)]
mod tests;
