//! What an upload method is: who writes, which tokens are uploaded, in which form, in blocks of what size.
//!
//! A [`Method`] is *resolved*: every threshold is a number. The presets by name and the calibration they take their
//! numbers from are resolved by [`crate::calibration::Calibration::resolve`].

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// How the next token is drawn from logits, the same for the drafter and the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Softmax temperature T; 0 is greedy (the distribution is one-hot at the arg max).
    pub temperature: f32,
    /// Keep only the `top_k` most likely tokens before renormalising; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose mass reaches `top_p`; 1 keeps all.
    pub top_p: f32,
}

impl Sampling {
    /// Whether every draw is the arg max: T = 0 (or anything that is no temperature).
    pub fn is_greedy(&self) -> bool {
        self.temperature.is_nan() || self.temperature <= 0.0
    }
}

/// Bits per probability on the wire (b_p of the papers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProbabilityBits {
    /// 8-bit fixed point, normalised by the sum of the codes.
    #[serde(rename = "8")]
    B8,
    /// 16-bit fixed point, normalised by the sum of the codes.
    #[serde(rename = "16")]
    B16,
    #[serde(rename = "32")]
    B32,
}

impl ProbabilityBits {
    /// The number b_p itself.
    pub fn bits(self) -> u32 {
        match self {
            ProbabilityBits::B8 => 8,
            ProbabilityBits::B16 => 16,
            ProbabilityBits::B32 => 32,
        }
    }
}

/// How many entries a sparse payload keeps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The k most likely tokens.
    Top(u32),
    /// The smallest k whose tail mass is at most this θ (rebuilt from CU-HLM's online rule).
    TailMass(f32),
}

/// The form in which an upload carries the drafter's distribution (method.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "form")]
pub enum PayloadForm {
    Full {
        bits: ProbabilityBits,
    },
    /// The most likely tokens with their indices; the verifier spreads the tail mass evenly.
    TopK {
        keep: Keep,
        bits: ProbabilityBits,
    },
    /// As `TopK`, but the draft is drawn from the sparsified, quantised distribution, which keeps the distribution exact.
    SparseExact {
        keep: Keep,
        bits: ProbabilityBits,
    },
    /// The token and its probability; on a rejection the verifier sends its distribution down.
    TokenOnly {
        bits: ProbabilityBits,
    },
}

/// How u(t) is estimated (method.md §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// K draws at temperatures θ_k ~ U(0.05, 2) [U-HLM].
    Sampled,
    /// The expectation over the fixed grid θ_k = 2k/K, without noise [ours].
    Expected,
}

/// Which statistic of the drafter's attention stands for importance (method.md §3, rebuilt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportanceStatistic {
    /// 1 − normalised entropy of the row that produced l(t).
    Concentration,
    /// Attention that t receives from t+1; costs two drafter steps, reused when t survives.
    Lookahead,
}

/// How the two criteria of the joint rule combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Join {
    And,
    Or,
}

/// The importance half of the joint rule: upload needs I ≥ mean + κ·std.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportanceRule {
    pub statistic: ImportanceStatistic,
    /// Layer of the drafter whose attention is read, from 0.
    pub layer: u16,
    /// κ of the threshold.
    pub kappa: f32,
}

/// Which drafted tokens are uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum Gate {
    /// None: the drafter writes alone.
    Never,
    Always,
    /// Each with this probability, by its own keyed draw.
    Random {
        probability: f32,
    },
    Uncertainty {
        estimator: Estimator,
        threshold: f32,
    },
    /// u > threshold and/or I ≥ mean + κ·std.
    Joint {
        estimator: Estimator,
        threshold: f32,
        importance: ImportanceRule,
        join: Join,
    },
    /// Entropy of x (nats) > threshold.
    Entropy {
        threshold: f32,
    },
    /// max x < threshold.
    MaxProbability {
        /// Threshold as a probability.
        threshold: f32,
    },
    /// r(u)·w(I) ≥ λ_link + λ_pool [ours].
    Price(PriceRule),
}

/// The rule of `price` (method.md §4 [ours]): what a draft puts at risk against what judging it costs now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceRule {
    pub estimator: Estimator,
    /// Slope of the risk line r(u) = clip(a·u + b, 0, 1).
    pub a: f32,
    pub b: f32,
    /// Which importance; κ is not used, because w(I) is the value's quantile.
    pub importance: ImportanceRule,
    /// Every fifth percentile of I over the calibration's positions, 0 to 100: w(I) by linear interpolation.
    pub percentiles: [f32; 21],
    /// ω_E: accepted risk per joule of the uplink.
    pub risk_per_joule: f32,
    /// ω_T: accepted risk per second of the uplink.
    pub risk_per_second: f32,
    /// λ_pool as last announced halves in this time, so that a device that stopped asking asks again.
    pub half_life: Span,
}

/// Who writes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writer {
    /// The drafter on the device; the verifier judges what is uploaded.
    Drafter,
    /// The verifier in the cloud; the device only displays (`llm-only`).
    Verifier,
}

/// Largest block γ of drafts per upload: keeps a device machine within its byte bound.
pub const MAX_BLOCK: usize = 8;

/// One upload method with every parameter resolved to a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// The preset's name, as in `--methods`.
    pub name: String,
    pub writer: Writer,
    /// Which drafts are uploaded.
    pub gate: Gate,
    pub payload: PayloadForm,
    /// Drafts per upload γ, 1 ..= [`MAX_BLOCK`].
    pub block: u8,
    /// Whether a fully accepted block adds one token from the verifier.
    pub bonus: bool,
    /// Whether the device goes on drafting while it waits for a verdict.
    pub draft_ahead: bool,
}

/// The presets of method.md §4 that this version runs, in the order in which reports list them.
pub const METHOD_NAMES: [&str; 12] = [
    "slm-only", "llm-only", "hlm", "rand-hlm", "u-hlm", "ui-hlm", "cu-hlm", "dssd", "block", "entropy", "max-prob",
    "price",
];
