//! How the matrices are stored.

use std::{fmt, str::FromStr};

use crate::ModelError;

/// How a model's matrices are stored. Norms, embeddings, the KV cache and all accumulation are `f32` in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats: the reference, 4 bytes per weight.
    F32,
    /// candle's 8-bit blocks of 32 weights with one scale; rows must be multiples of 32.
    Q8_0,
    /// candle's 4-bit superblocks of 256 weights; rows must be multiples of 256.
    Q4K,
}

impl Precision {
    /// The number of weights of a row that share one block: rows must be multiples of it.
    pub fn block(self) -> usize {
        match self {
            Precision::F32 => 1,
            Precision::Q8_0 => 32,
            Precision::Q4K => 256,
        }
    }

    /// This precision where a row of `row_len` weights allows it, else the next finer one that does.
    pub(crate) fn fitting(self, row_len: usize) -> Precision {
        [self, Precision::Q8_0].into_iter().find(|p| row_len.is_multiple_of(p.block())).unwrap_or(Precision::F32)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Q8_0 => "q8_0",
            Precision::Q4K => "q4_k",
        })
    }
}

impl FromStr for Precision {
    type Err = ModelError;

    fn from_str(s: &str) -> Result<Self, ModelError> {
        match s {
            "f32" => Ok(Precision::F32),
            "q8_0" => Ok(Precision::Q8_0),
            "q4_k" => Ok(Precision::Q4K),
            other => Err(ModelError::UnknownPrecision(other.to_owned())),
        }
    }
}

/// A matrix that is stored finer than asked, because its rows are not multiples of the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    pub tensor: String,
    /// What was asked for.
    pub wanted: Precision,
    /// What it is stored as.
    pub used: Precision,
    /// The length of the matrix's rows.
    pub row_len: usize,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fallback { tensor, wanted, used, row_len } = self;
        let block = wanted.block();
        write!(
            f,
            "{tensor} is stored as {used}: {wanted} needs rows that are multiples of {block}, its rows have {row_len}"
        )
    }
}
