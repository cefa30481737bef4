//! Payload forms (method.md §5): how the drafter's distribution travels, what it costs nominally, and what the verifier
//! reads out of it.
//!
//! | form | values on the wire | law the verifier judges against |
//! |---|---|---|
//! | `full`, 32 bits | x in `f32` | x |
//! | `full`, 8 / 16 bits | codes, the largest at full scale | code / Σ codes |
//! | `top-k` | the k largest, absolute (code / full scale); x_d if d is not among them | tail mass spread evenly |
//! | `sparse-exact` | what is left of x, as in `full` | exactly the law that d was drawn from |
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
    /// 8-bit codes.
    B8(Vec<u8>),
    /// 16-bit codes.
    B16(Vec<u16>),
    /// The numbers themselves.
    B32(Vec<f32>),
}

/// One absolute probability as it travels: code / full scale, or the number itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    /// 8-bit code over 255.
    B8(u8),
    /// 16-bit code over 65,535.
    B16(u16),
    /// The number itself.
    B32(f32),
}

/// The drafter's distribution for one draft, in one of the forms of [`PayloadForm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    /// All V values in id order.
    Full(Values),
    /// The most likely tokens.
    TopK {
        /// Their ids, ascending.
        ids: Vec<u32>,
        /// Their absolute probabilities, in the same order.
        values: Values,
        /// x_d, present exactly when the draft is not among `ids`.
        draft_probability: Option<Scalar>,
    },
    /// Every token of positive probability.
    SparseExact {
        /// Their ids, ascending.
        ids: Vec<u32>,
        /// Their probabilities, in the same order.
        values: Values,
    },
    /// The draft's probability alone.
    TokenOnly(Scalar),
}

/// What a verifier knows about the law that a draft was drawn from.
#[derive(Clone, Debug, PartialEq)]
pub enum DraftLaw {
    /// The whole law, exact or approximate. For `top-k` with x_d outside, the numbers need not add up to 1.
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

impl DraftLaw {
    /// x_d.
    pub fn probability(&self, draft: u32) -> f32 {
        match self {
            DraftLaw::Whole { probabilities } => probabilities.get(draft as usize).copied().unwrap_or(0.0),
            DraftLaw::DraftOnly { draft_probability } => *draft_probability,
        }
    }
}

/// What is wrong with a peer's payload, or with how it is used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PayloadError {
    /// The draft is not in the vocabulary.
    #[error("draft token {draft} is outside the vocabulary of {vocab}")]
    DraftOutOfRange {
        /// The draft.
        draft: u32,
        /// V.
        vocab: usize,
    },
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
    Ids {
        /// V.
        vocab: usize,
        /// Which one.
        index: usize,
    },
    /// The values are not probabilities.
    #[error("payload is not a distribution: {0}")]
    NotADistribution(#[from] DistributionError),
    /// A single probability is outside [0, 1] or NaN.
    #[error("payload's draft probability is {0}, outside [0, 1]")]
    BadDraftProbability(f32),
    /// `top-k` without x_d although d is not among the ids.
    #[error("payload lacks the probability of draft token {draft}, which is not among its ids")]
    MissingDraftProbability {
        /// The draft.
        draft: u32,
    },
    /// `top-k` with x_d although d is among the ids.
    #[error("payload gives the probability of draft token {draft} twice")]
    DoubleDraftProbability {
        /// The draft.
        draft: u32,
    },
    /// `sparse-exact` whose law cannot have produced the draft.
    #[error("draft token {draft} has no probability in the law it is said to be drawn from")]
    ImpossibleDraft {
        /// The draft.
        draft: u32,
    },
    /// Not one payload per draft.
    #[error("{payloads} payloads for {drafts} drafts")]
    Count {
        /// Payloads.
        payloads: usize,
        /// Drafts.
        drafts: usize,
    },
    /// The verifier's logits do not have the shape rows × V.
    #[error("{found} logits instead of {expected}")]
    Logits {
        /// rows × V.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

impl Values {
    /// How many.
    fn len(&self) -> usize {
        match self {
            Values::B8(codes) => codes.len(),
            Values::B16(codes) => codes.len(),
            Values::B32(values) => values.len(),
        }
    }

    /// b_p.
    fn bits(&self) -> ProbabilityBits {
        match self {
            Values::B8(_) => ProbabilityBits::B8,
            Values::B16(_) => ProbabilityBits::B16,
            Values::B32(_) => ProbabilityBits::B32,
        }
    }

    /// Codes relative to the largest value, or the values themselves. Decoding gives `relative_law` of the same values.
    fn relative(bits: ProbabilityBits, values: &[f32]) -> Values {
        match bits {
            ProbabilityBits::B8 => Values::B8(relative_codes(values, 255.0).map(|code| code as u8).collect()),
            ProbabilityBits::B16 => Values::B16(relative_codes(values, 65_535.0).map(|code| code as u16).collect()),
            ProbabilityBits::B32 => Values::B32(values.to_vec()),
        }
    }

    /// code / Σ codes; the numbers themselves at 32 bits.
    fn relative_law(&self) -> Result<Vec<f32>, DistributionError> {
        let law = match self {
            Values::B8(codes) => over_sum(codes.iter().map(|&code| u64::from(code)))?,
            Values::B16(codes) => over_sum(codes.iter().map(|&code| u64::from(code)))?,
            Values::B32(values) => values.clone(),
        };
        Distribution::try_from(law).map(Vec::from)
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

/// The law that drafts are drawn from when payloads have this form: `x` itself, except that `sparse-exact` keeps only the
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
        ProbabilityBits::B8 | ProbabilityBits::B16 => Values::relative(bits, &kept).relative_law(),
    };
    quantised
        .and_then(Distribution::try_from)
        // Cannot fail: the largest value has the full-scale code, so the codes are not all zero and their law adds up to 1.
        .unwrap_or(x)
}

/// `y` as a verdict carries it at `bits` per probability: exact at 32, otherwise the law of its codes.
pub fn quantised(y: Distribution, bits: ProbabilityBits) -> Distribution {
    match bits {
        ProbabilityBits::B32 => y,
        ProbabilityBits::B8 | ProbabilityBits::B16 => {
            // Cannot fail, as in `sparsify`.
            Values::relative(bits, y.probabilities()).relative_law().and_then(Distribution::try_from).unwrap_or(y)
        }
    }
}

impl Payload {
    /// The payload of `draft`. `x` is the law that it was drawn from ([`sparsify`] of the same form has been applied).
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
                // Everything that is left, not the k largest: truncating again would change the law.
                let (ids, values): (Vec<u32>, Vec<f32>) =
                    (0..).zip(x.probabilities()).filter(|&(_, &p)| p > 0.0).map(|(id, &p)| (id, p)).unzip();
                Payload::SparseExact { ids, values: Values::relative(bits, &values) }
            }
            PayloadForm::TokenOnly { bits } => Payload::TokenOnly(Scalar::encode(bits, x.probability(draft))),
        }
    }

    /// The law behind the payload of `draft` over a vocabulary of `vocab` tokens. Checks everything that a peer could
    /// have got wrong; never panics.
    pub fn decode(&self, vocab: usize, draft: u32) -> Result<DraftLaw, PayloadError> {
        if draft as usize >= vocab {
            return Err(PayloadError::DraftOutOfRange { draft, vocab });
        }
        match self {
            Payload::Full(values) => {
                check_length(vocab, values.len())?;
                Ok(DraftLaw::Whole { probabilities: values.relative_law()? })
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
                Ok(DraftLaw::Whole { probabilities })
            }
            Payload::SparseExact { ids, values } => {
                check_ids(ids, values.len(), vocab)?;
                let mut probabilities = vec![0.0; vocab];
                for (&id, value) in ids.iter().zip(values.relative_law()?) {
                    probabilities[id as usize] = value;
                }
                if probabilities[draft as usize] > 0.0 {
                    Ok(DraftLaw::Whole { probabilities })
                } else {
                    Err(PayloadError::ImpossibleDraft { draft })
                }
            }
            Payload::TokenOnly(scalar) => Ok(DraftLaw::DraftOnly { draft_probability: scalar.decode()? }),
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

/// value / largest · scale, rounded to nearest. The largest value gets the full scale, so that the law of the codes has
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::method::Sampling;

    const BITS: [ProbabilityBits; 3] = [ProbabilityBits::B8, ProbabilityBits::B16, ProbabilityBits::B32];

    fn forms(keep: Keep) -> Vec<PayloadForm> {
        BITS.iter()
            .flat_map(|&bits| {
                [
                    PayloadForm::Full { bits },
                    PayloadForm::TopK { keep, bits },
                    PayloadForm::SparseExact { keep, bits },
                    PayloadForm::TokenOnly { bits },
                ]
            })
            .collect()
    }

    fn law(logits: &[f32], temperature: f32) -> Distribution {
        Distribution::from_logits(logits, &Sampling { temperature, top_k: 0, top_p: 1.0 })
    }

    /// p = 0.4, 0.3, 0.2, 0.1 for the tokens 2, 0, 3, 1.
    fn four() -> Distribution {
        Distribution::try_from(vec![0.3, 0.1, 0.4, 0.2]).unwrap()
    }

    fn whole(payload: &Payload, vocab: usize, draft: u32) -> Vec<f32> {
        match payload.decode(vocab, draft).unwrap() {
            DraftLaw::Whole { probabilities } => probabilities,
            DraftLaw::DraftOnly { .. } => panic!("token-only"),
        }
    }

    fn through_the_wire(payload: &Payload) -> Payload {
        postcard::from_bytes(&postcard::to_stdvec(payload).unwrap()).unwrap()
    }

    #[test]
    fn top_k_spreads_the_tail() {
        let form = PayloadForm::TopK { keep: Keep::Top(2), bits: ProbabilityBits::B32 };
        let inside = Payload::encode(&form, &four(), 2);
        let law = whole(&inside, 4, 2);
        for (found, expected) in law.iter().zip([0.3, 0.15, 0.4, 0.15]) {
            assert!((found - expected).abs() < 1e-6, "{law:?}");
        }
        let outside = whole(&Payload::encode(&form, &four(), 1), 4, 1);
        assert!((outside[1] - 0.1).abs() < 1e-6 && (outside[3] - 0.15).abs() < 1e-6);
        assert_eq!(inside.decode(4, 1), Err(PayloadError::MissingDraftProbability { draft: 1 }));
        assert_eq!(
            Payload::encode(&form, &four(), 1).decode(4, 0),
            Err(PayloadError::DoubleDraftProbability { draft: 0 })
        );
    }

    #[test]
    fn nominal_bits_follow_the_table() {
        let x = law(&(0..2048).map(|i| (i as f32).sqrt() * 0.1).collect::<Vec<_>>(), 1.0);
        let keep = Keep::Top(30);
        let likely = x.arg_max();
        for bits in BITS {
            let b = u64::from(bits.bits());
            let of = |form: PayloadForm, draft| Payload::encode(&form, &x, draft).nominal_bits(2048);
            assert_eq!(of(PayloadForm::Full { bits }, likely), 2048 * b);
            assert_eq!(of(PayloadForm::TopK { keep, bits }, likely), 30 * (b + 11));
            assert_eq!(of(PayloadForm::TopK { keep, bits }, 0), 30 * (b + 11) + b);
            assert_eq!(of(PayloadForm::TokenOnly { bits }, likely), 11 + b);
        }
        for form in forms(keep) {
            let x = sparsify(&form, x.clone());
            let payload = Payload::encode(&form, &x, likely);
            assert_eq!(payload.nominal_bits(2048), nominal_bits(&form, 2048, 30, false));
        }
        assert_eq!(
            (token_bits(1), token_bits(2), token_bits(2048), token_bits(2049), token_bits(32_000)),
            (0, 1, 11, 12, 15)
        );
        // CU-HLM's own count: 32,000 × 23 bits, 8 of them for the probability.
        let cu_hlm = PayloadForm::SparseExact { keep, bits: ProbabilityBits::B8 };
        assert_eq!(nominal_bits(&cu_hlm, 32_000, 32_000, false), 92_000 * 8);
        let token_only = PayloadForm::TokenOnly { bits: ProbabilityBits::B16 };
        assert_eq!(downlink_bits(&token_only, 2048, true), 2048 * 16);
        assert_eq!(downlink_bits(&token_only, 2048, false), 11);
    }

    #[test]
    fn wire_size_of_a_full_payload_is_four_bytes_a_value() {
        let x = law(&vec![0.0; 2048], 1.0);
        let payload = Payload::encode(&PayloadForm::Full { bits: ProbabilityBits::B32 }, &x, 0);
        assert!(postcard::to_stdvec(&payload).unwrap().len() <= 2048 * 4 + 8);
    }

    #[test]
    fn tail_mass_keeps_the_smallest_set() {
        let form = PayloadForm::SparseExact { keep: Keep::TailMass(0.26), bits: ProbabilityBits::B32 };
        let x = sparsify(&form, law(&[0.4_f32.ln(), 0.35_f32.ln(), 0.15_f32.ln(), 0.1_f32.ln()], 1.0));
        assert_eq!(x.ranked(9), [0, 1]);
        assert!((x.probability(0) - 0.4 / 0.75).abs() < 1e-6);
    }

    #[test]
    fn hostile_examples() {
        let b32 = |values: &[f32]| Payload::Full(Values::B32(values.to_vec()));
        assert_eq!(b32(&[1.0]).decode(2, 0), Err(PayloadError::Length { expected: 2, found: 1 }));
        assert_eq!(b32(&[0.5, 0.5]).decode(2, 2), Err(PayloadError::DraftOutOfRange { draft: 2, vocab: 2 }));
        for bad in [[0.0, 0.0], [f32::NAN, 1.0], [-0.5, 1.0], [f32::INFINITY, 0.0], [0.9, 0.2]] {
            assert!(matches!(b32(&bad).decode(2, 0), Err(PayloadError::NotADistribution(_))), "{bad:?}");
        }
        assert!(Payload::Full(Values::B8(vec![0, 0])).decode(2, 0).is_err());
        let sparse = |ids: &[u32], values: &[u8]| Payload::SparseExact {
            ids: ids.to_vec(),
            values: Values::B8(values.to_vec()),
        };
        assert_eq!(sparse(&[1, 1], &[1, 1]).decode(4, 1), Err(PayloadError::Ids { vocab: 4, index: 1 }));
        assert_eq!(sparse(&[1, 4], &[1, 1]).decode(4, 1), Err(PayloadError::Ids { vocab: 4, index: 1 }));
        assert_eq!(sparse(&[1], &[1]).decode(4, 0), Err(PayloadError::ImpossibleDraft { draft: 0 }));
        assert!(sparse(&[], &[]).decode(4, 0).is_err());
        let top_k = Payload::TopK { ids: vec![0, 1], values: Values::B8(vec![255, 255]), draft_probability: None };
        assert!(top_k.decode(4, 0).is_err());
        for bad in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
            assert!(Payload::TokenOnly(Scalar::B32(bad)).decode(4, 0).is_err());
        }
    }

    fn vocabulary() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(prop_oneof![4 => -12.0_f32..4.0, 1 => Just(-200.0_f32)], 1..80)
    }

    proptest! {
        /// What the verifier reconstructs from `full` in f32 and from `sparse-exact` at any precision is the very law that
        /// the draft was drawn from.
        #[test]
        fn exact_forms_reconstruct_the_law(logits in vocabulary(), k in 1_u32..40, u in 0.0..1.0_f64) {
            for bits in BITS {
                for form in [
                    PayloadForm::Full { bits: ProbabilityBits::B32 },
                    PayloadForm::SparseExact { keep: Keep::Top(k), bits },
                    PayloadForm::SparseExact { keep: Keep::TailMass(0.1), bits },
                ] {
                    let x = sparsify(&form, law(&logits, 1.0));
                    let draft = x.sample(u);
                    let payload = through_the_wire(&Payload::encode(&form, &x, draft));
                    let decoded = whole(&payload, logits.len(), draft);
                    prop_assert_eq!(decoded.as_slice(), x.probabilities());
                }
            }
        }

        /// Every form of every honest law is accepted by the decoder, with x_d close to what it should be.
        #[test]
        fn honest_payloads_decode(logits in vocabulary(), temperature in prop_oneof![Just(0.0_f32), 0.1_f32..2.0], k in 1_u32..40, u in 0.0..1.0_f64) {
            for form in forms(Keep::Top(k)) {
                let x = sparsify(&form, law(&logits, temperature));
                let draft = x.sample(u);
                let payload = through_the_wire(&Payload::encode(&form, &x, draft));
                let decoded = payload.decode(logits.len(), draft);
                prop_assert!(decoded.is_ok(), "{:?} {:?}", form, decoded);
                let step = match payload.bits() {
                    ProbabilityBits::B8 => 0.5,
                    ProbabilityBits::B16 => 2e-3,
                    ProbabilityBits::B32 => 0.0,
                };
                let x_d = x.probability(draft);
                let found = decoded.unwrap().probability(draft);
                prop_assert!((found - x_d).abs() <= step * x_d.max(1.0 / 80.0), "{:?}: {} for {}", form, found, x_d);
            }
        }

        /// Random bytes never make the decoder panic, and what it lets through is finite and not negative.
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), vocab in 0_usize..40, draft in any::<u32>()) {
            if let Ok(payload) = postcard::from_bytes::<Payload>(&bytes) {
                for draft in [draft, draft % 40] {
                    if let Ok(DraftLaw::Whole { probabilities }) = payload.decode(vocab, draft) {
                        prop_assert_eq!(probabilities.len(), vocab);
                        prop_assert!(probabilities.iter().all(|p| p.is_finite() && *p >= 0.0));
                    }
                }
            }
        }

        /// The same for payloads that are well formed and wrong.
        #[test]
        fn hostile_payloads_never_panic(
            form in 0..4_u8,
            ids in prop::collection::vec(0_u32..10, 0..10),
            values in prop::collection::vec(prop_oneof![any::<f32>(), 0.0_f32..0.3], 0..10),
            scalar in any::<f32>(),
            given in any::<bool>(),
            draft in 0_u32..10,
        ) {
            let payload = match form {
                0 => Payload::Full(Values::B32(values)),
                1 => Payload::TopK { ids, values: Values::B32(values), draft_probability: given.then_some(Scalar::B32(scalar)) },
                2 => Payload::SparseExact { ids, values: Values::B32(values) },
                _ => Payload::TokenOnly(Scalar::B32(scalar)),
            };
            if let Ok(law) = payload.decode(9, draft) {
                prop_assert!(law.probability(draft).is_finite());
            }
        }
    }
}
