//! Which verifier a pool has.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What decides the numbers that a pool's verifier computes. Two pools of the same identity give the same verdicts on the
/// same uploads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierIdentity {
    /// SHA-256 of the whole model, as calibrations name it. It covers names of files too, so that it says less about the
    /// numbers than the two that follow.
    pub model: [u8; 32],
    /// SHA-256 of the weights.
    pub weights: [u8; 32],
    /// SHA-256 of the model's configuration.
    pub configuration: [u8; 32],
    /// How the matrices are stored.
    pub precision: PrecisionName,
    /// SHA-256 of what a fixed probe gives on the pool's machine.
    pub kernels: [u8; 32],
}

impl VerifierIdentity {
    /// What has changed where another pool, or the same one later, says that it is `other`; `None` if its verdicts are the
    /// same.
    pub fn change_to(&self, other: &VerifierIdentity) -> Option<VerifierChange> {
        if self.weights != other.weights {
            Some(VerifierChange::Weights { before: Short::of(&self.weights), now: Short::of(&other.weights) })
        } else if self.configuration != other.configuration {
            let (before, now) = (Short::of(&self.configuration), Short::of(&other.configuration));
            Some(VerifierChange::Configuration { before, now })
        } else if self.precision != other.precision {
            Some(VerifierChange::Precision { before: self.precision.clone(), now: other.precision.clone() })
        } else if self.kernels != other.kernels {
            Some(VerifierChange::Kernels { before: Short::of(&self.kernels), now: Short::of(&other.kernels) })
        } else {
            None
        }
    }
}

/// Why one verifier's verdicts are not another's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierChange {
    #[error("the pool's verifier has other weights (SHA-256 {now}) than the text was begun with ({before})")]
    Weights {
        /// Those that the generation was begun with.
        before: Short,
        /// Those of the pool that answers now.
        now: Short,
    },
    #[error("the pool's verifier has another configuration (SHA-256 {now}) than the text was begun with ({before})")]
    Configuration {
        /// That which the generation was begun with.
        before: Short,
        /// That of the pool that answers now.
        now: Short,
    },
    #[error("the pool's verifier runs in {now}, and the text was begun with {before}")]
    Precision {
        /// That which the generation was begun with.
        before: PrecisionName,
        /// That of the pool that answers now.
        now: PrecisionName,
    },
    /// Another machine or build, which rounds otherwise.
    #[error(
        "the pool's machine or program computes other numbers (probe {now}) than the text was begun with ({before})"
    )]
    Kernels {
        /// The probe's digest when the generation began.
        before: Short,
        /// That of the pool that answers now.
        now: Short,
    },
}

/// The first digits of a digest, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short([u8; 4]);

impl Short {
    /// Those of this digest.
    pub fn of(digest: &[u8; 32]) -> Short {
        Short([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name of a precision as scenarios have it (`f32`, `q8_0`, …). It comes from a peer and goes to a person's terminal, so
/// it has an alphabet and a length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrecisionName(String);

impl PrecisionName {
    /// Most bytes of a name.
    pub const MOST: usize = 16;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is no name of a precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a precision has 1 to 16 of the characters a-z, 0-9 and _")]
pub struct NoPrecision;

impl TryFrom<String> for PrecisionName {
    type Error = NoPrecision;

    fn try_from(name: String) -> Result<PrecisionName, NoPrecision> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name = (1..=PrecisionName::MOST).contains(&name.len()) && name.bytes().all(fits);
        if is_name { Ok(PrecisionName(name)) } else { Err(NoPrecision) }
    }
}

impl From<PrecisionName> for String {
    fn from(name: PrecisionName) -> String {
        name.0
    }
}

impl fmt::Display for PrecisionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FrameDecoder, FrameLimits, ServerFrame, Welcome, encode};

    fn identity() -> VerifierIdentity {
        VerifierIdentity {
            model: [1; 32],
            weights: [2; 32],
            configuration: [3; 32],
            precision: "q8_0".to_owned().try_into().expect("a name"),
            kernels: [4; 32],
        }
    }

    #[test]
    fn what_changes_verdicts_is_named() {
        let (ours, f32) = (identity(), PrecisionName("f32".to_owned()));
        assert_eq!(ours.change_to(&VerifierIdentity { model: [9; 32], ..identity() }), None);
        let said = |theirs| ours.change_to(&theirs).expect("another verifier").to_string();
        assert_eq!(
            said(VerifierIdentity { weights: [9; 32], ..identity() }),
            "the pool's verifier has other weights (SHA-256 09090909) than the text was begun with (02020202)"
        );
        assert!(said(VerifierIdentity { configuration: [9; 32], ..identity() }).contains("configuration"));
        assert_eq!(
            said(VerifierIdentity { precision: f32, ..identity() }),
            "the pool's verifier runs in f32, and the text was begun with q8_0"
        );
        assert!(said(VerifierIdentity { kernels: [9; 32], ..identity() }).contains("probe 09090909"));
    }

    #[test]
    fn a_name_that_no_precision_has_is_no_frame() {
        let frame = |name: &str| {
            let verifier = VerifierIdentity { precision: PrecisionName(name.to_owned()), ..identity() };
            let mut bytes = Vec::new();
            let limits = FrameLimits::for_pair(100, 64);
            encode(&ServerFrame::Welcome(Welcome { protocol: 4, context: 64, verifier }), limits, &mut bytes)
                .expect("a small frame");
            let mut decoder = FrameDecoder::<ServerFrame>::new(limits);
            decoder.push(&bytes);
            decoder.next_frame().map(|frame| frame.is_some())
        };
        assert!(matches!(frame("q4_k"), Ok(true)));
        for odd in ["", "F32", "\u{1b}[2J", "12345678901234567", "q8 0"] {
            assert!(frame(odd).is_err(), "{odd:?}");
        }
    }
}
