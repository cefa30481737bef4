//! Payload forms (method.md §5): how the drafter's distribution travels, what it costs nominally, and what the verifier
//! reads out of it.
//!
//! | form | values on the wire | distribution the verifier judges against |
//! |---|---|---|
//! | `full`, 32 bits | x in `f32` | x |
//! | `full`, 8 / 16 bits | codes, the largest at full scale | code / Σ codes |
//! | `top-k` | the k largest, absolute (code / full scale); x_d if d is not among them | tail mass spread evenly |
//! | `sparse-exact` | what is left of x, as in `full` | exactly the distribution that d was drawn from |
//! | `token-only` | x_d, absolute | only x_d |
//!
//! Absolute codes are rounded down, so that the kept mass never exceeds 1; a value that must not vanish (x_d, the largest
//! entry) is at least code 1.

use serde::{Deserialize, Serialize};

use crate::distribution::{Distribution, DistributionError, SUM_TOLERANCE};
use crate::method::{Keep, PayloadForm, ProbabilityBits};

/// Probabilities as they travel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Values {
    B8(Vec<u8>),
    B16(Vec<u16>),
    B32(Vec<f32>),
}

/// One absolute probability as it travels: code / full scale, or the number itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    /// 8-bit code over 255.
    B8(u8),
    /// 16-bit code over 65,535.
    B16(u16),
    B32(f32),
}

/// The drafter's distribution for one draft, in one of the forms of [`PayloadForm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    /// All V values in id order.
    Full(Values),
    /// The most likely tokens.
    TopK {
        ids: Vec<u32>,
        /// Their absolute probabilities, in the same order.
        values: Values,
        /// x_d, present exactly when the draft is not among `ids`.
        draft_probability: Option<Scalar>,
    },
    /// Every token of positive probability.
    SparseExact {
        ids: Vec<u32>,
        /// Their probabilities, in the same order.
        values: Values,
    },
    /// The draft's probability alone.
    TokenOnly(Scalar),
}

/// What a verifier knows about the distribution that a draft was drawn from.
#[derive(Clone, Debug, PartialEq)]
pub enum DecodedDistribution {
    /// The whole distribution, exact or approximate. For `top-k` with x_d outside, the numbers need not add up to 1.
    Whole {
        /// x of every token, V values, finite and ≥ 0.
        probabilities: Vec<f32>,
    },
    /// Only x_d: on a rejection the device has to draw the replacement.
    DraftOnly {
        /// x_d in [0, 1].
        draft_probability: f32,
    },
}

impl DecodedDistribution {
    /// x_d.
    pub fn probability(&self, draft: u32) -> f32 {
        match self {
            DecodedDistribution::Whole { probabilities } => probabilities.get(draft as usize).copied().unwrap_or(0.0),
            DecodedDistribution::DraftOnly { draft_probability } => *draft_probability,
        }
    }
}

/// What is wrong with a peer's payload, or with how it is used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PayloadError {
    /// The draft is not in the vocabulary.
    #[error("draft token {draft} is outside the vocabulary of {vocab}")]
    DraftOutOfRange { draft: u32, vocab: usize },
    /// Not as many values as there must be.
    #[error("payload has {found} values instead of {expected}")]
    Length {
        /// How many there must be: V, or as many as ids.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Ids of a sparse payload are not strictly ascending, or not in the vocabulary.
    #[error("payload's token ids must ascend strictly within the vocabulary of {vocab}; id number {index} does not")]
    Ids { vocab: usize, index: usize },
    /// The values are not probabilities.
    #[error("payload is not a distribution: {0}")]
    NotADistribution(#[from] DistributionError),
    /// A single probability is outside [0, 1] or NaN.
    #[error("payload's draft probability is {0}, outside [0, 1]")]
    BadDraftProbability(f32),
    /// `top-k` without x_d although d is not among the ids.
    #[error("payload lacks the probability of draft token {draft}, which is not among its ids")]
    MissingDraftProbability { draft: u32 },
    /// `top-k` with x_d although d is among the ids.
    #[error("payload gives the probability of draft token {draft} twice")]
    DoubleDraftProbability { draft: u32 },
    /// `sparse-exact` whose distribution cannot have produced the draft.
    #[error("draft token {draft} has no probability in the distribution it is said to be drawn from")]
    ImpossibleDraft { draft: u32 },
    /// Not one payload per draft.
    #[error("{payloads} payloads for {drafts} drafts")]
    Count { payloads: usize, drafts: usize },
    /// The verifier's logits do not have the shape rows × V.
    #[error("{found} logits instead of {expected}")]
    Logits {
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::B8(codes) => codes.len(),
            Values::B16(codes) => codes.len(),
            Values::B32(values) => values.len(),
        }
    }

    fn bits(&self) -> ProbabilityBits {
        match self {
            Values::B8(_) => ProbabilityBits::B8,
            Values::B16(_) => ProbabilityBits::B16,
            Values::B32(_) => ProbabilityBits::B32,
        }
    }

    /// Codes relative to the largest value, or the values themselves. Decoding gives `relative_distribution` of the same values.
    fn relative(bits: ProbabilityBits, values: &[f32]) -> Values {
        match bits {
            ProbabilityBits::B8 => Values::B8(relative_codes(values, 255.0).map(|code| code as u8).collect()),
            ProbabilityBits::B16 => Values::B16(relative_codes(values, 65_535.0).map(|code| code as u16).collect()),
            ProbabilityBits::B32 => Values::B32(values.to_vec()),
        }
    }

    /// code / Σ codes; the numbers themselves at 32 bits.
    fn relative_distribution(&self) -> Result<Vec<f32>, DistributionError> {
        let distribution = match self {
            Values::B8(codes) => over_sum(codes.iter().map(|&code| u64::from(code)))?,
            Values::B16(codes) => over_sum(codes.iter().map(|&code| u64::from(code)))?,
            Values::B32(values) => values.clone(),
        };
        Distribution::try_from(distribution).map(Vec::from)
    }

    /// Codes of absolute probabilities, rounded down; if all vanish, the largest is code 1.
    fn absolute(bits: ProbabilityBits, values: &[f32]) -> Values {
        let largest = crate::distribution::arg_max(values) as usize;
        let codes = |scale: f32| {
            let codes: Vec<f32> = values.iter().map(|value| (value * scale).floor().clamp(0.0, scale)).collect();
            let vanished = codes.iter().all(|&code| code == 0.0);
            codes.into_iter().enumerate().map(move |(i, code)| if vanished && i == largest { 1.0 } else { code })
        };
        match bits {
            ProbabilityBits::B8 => Values::B8(codes(255.0).map(|code| code as u8).collect()),
            ProbabilityBits::B16 => Values::B16(codes(65_535.0).map(|code| code as u16).collect()),
            ProbabilityBits::B32 => Values::B32(values.to_vec()),
        }
    }

    /// code / full scale; the numbers themselves at 32 bits.
    fn absolute_values(&self) -> Result<Vec<f32>, DistributionError> {
        let values = match self {
            Values::B8(codes) => codes.iter().map(|&code| f32::from(code) / 255.0).collect(),
            Values::B16(codes) => codes.iter().map(|&code| f32::from(code) / 65_535.0).collect(),
            Values::B32(values) => values.clone(),
        };
        Distribution::try_from(values).map(Vec::from)
    }
}

impl Scalar {
    fn encode(bits: ProbabilityBits, probability: f32) -> Scalar {
        let code = |scale: f32| (probability * scale).round().clamp(1.0, scale);
        match bits {
            ProbabilityBits::B8 => Scalar::B8(code(255.0) as u8),
            ProbabilityBits::B16 => Scalar::B16(code(65_535.0) as u16),
            ProbabilityBits::B32 => Scalar::B32(probability),
        }
    }

    fn bits(self) -> ProbabilityBits {
        match self {
            Scalar::B8(_) => ProbabilityBits::B8,
            Scalar::B16(_) => ProbabilityBits::B16,
            Scalar::B32(_) => ProbabilityBits::B32,
        }
    }

    fn decode(self) -> Result<f32, PayloadError> {
        let probability = match self {
            Scalar::B8(code) => f32::from(code) / 255.0,
            Scalar::B16(code) => f32::from(code) / 65_535.0,
            Scalar::B32(value) => value,
        };
        if (0.0..=1.0 + SUM_TOLERANCE as f32).contains(&probability) {
            Ok(probability.min(1.0))
        } else {
            Err(PayloadError::BadDraftProbability(probability))
        }
    }
}

/// The distribution that drafts are drawn from when payloads have this form: `x` itself, except that `sparse-exact` keeps only the
/// most likely tokens and rounds them to what 8 or 16 bits can carry \[Q-SV, TSLT\].
///
/// The result travels without loss: what [`Payload::decode`] gives is the same `f32` values.
pub fn sparsify(form: &PayloadForm, x: Distribution) -> Distribution {
    let PayloadForm::SparseExact { keep, bits } = *form else {
        return x;
    };
    let mut kept = vec![0.0_f32; x.len()];
    for id in x.ranked(kept_count(keep, &x)) {
        kept[id as usize] = x.probability(id);
    }
    let quantised = match bits {
        ProbabilityBits::B32 => return Distribution::normalised(kept),
        ProbabilityBits::B8 | ProbabilityBits::B16 => Values::relative(bits, &kept).relative_distribution(),
    };
    quantised
        .and_then(Distribution::try_from)
        // Cannot fail: the largest value has the full-scale code, so the codes are not all zero and their distribution adds up to 1.
        .unwrap_or(x)
}

/// `y` as a verdict carries it at `bits` per probability: exact at 32, otherwise the distribution of its codes.
pub fn quantised(y: Distribution, bits: ProbabilityBits) -> Distribution {
    match bits {
        ProbabilityBits::B32 => y,
        ProbabilityBits::B8 | ProbabilityBits::B16 => {
            // Cannot fail, as in `sparsify`.
            Values::relative(bits, y.probabilities())
                .relative_distribution()
                .and_then(Distribution::try_from)
                .unwrap_or(y)
        }
    }
}

impl Payload {
    /// The payload of `draft`. `x` is the distribution that it was drawn from ([`sparsify`] of the same form has been applied).
    pub fn encode(form: &PayloadForm, x: &Distribution, draft: u32) -> Payload {
        match *form {
            PayloadForm::Full { bits } => Payload::Full(Values::relative(bits, x.probabilities())),
            PayloadForm::TopK { keep, bits } => {
                let mut ids = x.ranked(kept_count(keep, x));
                ids.sort_unstable();
                let values: Vec<f32> = ids.iter().map(|&id| x.probability(id)).collect();
                let outside = ids.binary_search(&draft).is_err();
                Payload::TopK {
                    ids,
                    values: Values::absolute(bits, &values),
                    draft_probability: outside.then(|| Scalar::encode(bits, x.probability(draft))),
                }
            }
            PayloadForm::SparseExact { bits, .. } => {
                // Everything that is left, not the k largest: truncating again would change the distribution.
                let (ids, values): (Vec<u32>, Vec<f32>) =
                    (0..).zip(x.probabilities()).filter(|&(_, &p)| p > 0.0).map(|(id, &p)| (id, p)).unzip();
                Payload::SparseExact { ids, values: Values::relative(bits, &values) }
            }
            PayloadForm::TokenOnly { bits } => Payload::TokenOnly(Scalar::encode(bits, x.probability(draft))),
        }
    }

    /// The distribution behind the payload of `draft` over a vocabulary of `vocab` tokens. Checks everything that a peer could
    /// have got wrong; never panics.
    pub fn decode(&self, vocab: usize, draft: u32) -> Result<DecodedDistribution, PayloadError> {
        if draft as usize >= vocab {
            return Err(PayloadError::DraftOutOfRange { draft, vocab });
        }
        match self {
            Payload::Full(values) => {
                check_length(vocab, values.len())?;
                Ok(DecodedDistribution::Whole { probabilities: values.relative_distribution()? })
            }
            Payload::TopK { ids, values, draft_probability } => {
                check_ids(ids, values.len(), vocab)?;
                let values = values.absolute_values()?;
                let kept: f64 = values.iter().map(|&value| f64::from(value)).sum();
                let others = vocab - ids.len();
                let tail = if others > 0 { (1.0 - kept).max(0.0) / others as f64 } else { 0.0 };
                let mut probabilities = vec![tail as f32; vocab];
                for (&id, value) in ids.iter().zip(values) {
                    probabilities[id as usize] = value;
                }
                match (draft_probability, ids.binary_search(&draft)) {
                    (None, Ok(_)) => {}
                    (Some(scalar), Err(_)) => probabilities[draft as usize] = scalar.decode()?,
                    (None, Err(_)) => return Err(PayloadError::MissingDraftProbability { draft }),
                    (Some(_), Ok(_)) => return Err(PayloadError::DoubleDraftProbability { draft }),
                }
                Ok(DecodedDistribution::Whole { probabilities })
            }
            Payload::SparseExact { ids, values } => {
                check_ids(ids, values.len(), vocab)?;
                let mut probabilities = vec![0.0; vocab];
                for (&id, value) in ids.iter().zip(values.relative_distribution()?) {
                    probabilities[id as usize] = value;
                }
                if probabilities[draft as usize] > 0.0 {
                    Ok(DecodedDistribution::Whole { probabilities })
                } else {
                    Err(PayloadError::ImpossibleDraft { draft })
                }
            }
            Payload::TokenOnly(scalar) => Ok(DecodedDistribution::DraftOnly { draft_probability: scalar.decode()? }),
        }
    }

    /// b_p.
    pub fn bits(&self) -> ProbabilityBits {
        match self {
            Payload::Full(values) | Payload::TopK { values, .. } | Payload::SparseExact { values, .. } => values.bits(),
            Payload::TokenOnly(scalar) => scalar.bits(),
        }
    }

    /// Nominal uplink bits of this payload: what drives the channel (method.md §5).
    pub fn nominal_bits(&self, vocab: usize) -> u64 {
        let bits = u64::from(self.bits().bits());
        match self {
            Payload::Full(_) => vocab as u64 * bits,
            Payload::TopK { ids, draft_probability, .. } => {
                ids.len() as u64 * (bits + token_bits(vocab)) + draft_probability.map_or(0, |_| bits)
            }
            Payload::SparseExact { ids, .. } => ids.len() as u64 * (bits + token_bits(vocab)),
            Payload::TokenOnly(_) => token_bits(vocab) + bits,
        }
    }
}

/// ⌈log2 V⌉: nominal bits of one token id.
pub fn token_bits(vocab: usize) -> u64 {
    u64::from(usize::BITS - vocab.saturating_sub(1).leading_zeros())
}

/// Nominal uplink bits of one distribution in this form (method.md §5) without encoding it: V·b_p, k·(b_p + ⌈log2 V⌉)
/// with k = `kept_entries` (ignored by the dense and the token-only form) plus b_p for x_d when `draft_outside`, or
/// ⌈log2 V⌉ + b_p. [`Payload::nominal_bits`] gives the same for a payload at hand.
pub fn nominal_bits(form: &PayloadForm, vocab: usize, kept_entries: usize, draft_outside: bool) -> u64 {
    let entries = |bits: u64| kept_entries as u64 * (bits + token_bits(vocab));
    match *form {
        PayloadForm::Full { bits } => vocab as u64 * u64::from(bits.bits()),
        PayloadForm::TopK { bits, .. } => {
            let bits = u64::from(bits.bits());
            entries(bits) + if draft_outside { bits } else { 0 }
        }
        PayloadForm::SparseExact { bits, .. } => entries(u64::from(bits.bits())),
        PayloadForm::TokenOnly { bits } => token_bits(vocab) + u64::from(bits.bits()),
    }
}

/// Nominal downlink bits of a verdict \[ours; the sources leave the downlink out, except DSSD\]: V·b_p when y goes down
/// for resampling on the device (`resample`, see [`Next::Resample`](crate::acceptance::Next::Resample)), else one token id.
pub fn downlink_bits(form: &PayloadForm, vocab: usize, resample: bool) -> u64 {
    let bits = match *form {
        PayloadForm::Full { bits }
        | PayloadForm::TopK { bits, .. }
        | PayloadForm::SparseExact { bits, .. }
        | PayloadForm::TokenOnly { bits } => u64::from(bits.bits()),
    };
    if resample { vocab as u64 * bits } else { token_bits(vocab) }
}

/// k, at least 1.
fn kept_count(keep: Keep, x: &Distribution) -> usize {
    match keep {
        Keep::Top(k) => (k as usize).max(1),
        Keep::TailMass(theta) => x.prefix_leaving(theta),
    }
}

/// value / largest · scale, rounded to nearest. The largest value gets the full scale, so that the distribution of the codes has
/// the same codes again.
fn relative_codes(values: &[f32], scale: f32) -> impl Iterator<Item = f32> {
    let largest = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    values.iter().map(move |value| (value / largest * scale).round().clamp(0.0, scale))
}

/// code / Σ codes.
fn over_sum(codes: impl Iterator<Item = u64> + Clone) -> Result<Vec<f32>, DistributionError> {
    let total: u64 = codes.clone().sum();
    if total == 0 {
        return Err(DistributionError::BadSum { sum: 0.0 });
    }
    // Sums of 16-bit codes are far below 2^53: both numbers are exact in f64.
    Ok(codes.map(|code| (code as f64 / total as f64) as f32).collect())
}

fn check_length(expected: usize, found: usize) -> Result<(), PayloadError> {
    if expected == found { Ok(()) } else { Err(PayloadError::Length { expected, found }) }
}

fn check_ids(ids: &[u32], values: usize, vocab: usize) -> Result<(), PayloadError> {
    check_length(ids.len(), values)?;
    let mut previous = None;
    for (index, &id) in ids.iter().enumerate() {
        if id as usize >= vocab || previous.is_some_and(|previous| id <= previous) {
            return Err(PayloadError::Ids { vocab, index });
        }
        previous = Some(id);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
