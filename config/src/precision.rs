//! How a model's matrices are stored, as scenarios spell it.

use serde::{Deserialize, Serialize};

/// How a model's matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrecisionChoice {
    #[serde(rename = "f32")]
    F32,
    /// 8-bit blocks of 32 weights.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 4-bit superblocks of 256 weights, where the shapes allow.
    #[serde(rename = "q4_k")]
    Q4K,
}

impl PrecisionChoice {
    /// Name and value of each.
    pub(crate) const NAMES: [(&'static str, PrecisionChoice); 3] =
        [("f32", PrecisionChoice::F32), ("q8_0", PrecisionChoice::Q8_0), ("q4_k", PrecisionChoice::Q4K)];

    /// The name, as in scenarios and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            PrecisionChoice::F32 => "f32",
            PrecisionChoice::Q8_0 => "q8_0",
            PrecisionChoice::Q4K => "q4_k",
        }
    }
}

impl std::fmt::Display for PrecisionChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
