//! Matrix products `out = x · Wᵀ` over all packed rows of a pass.
//!
//! Weights are repacked once, at load, into panels of [`PANEL`] output columns, so that one pass over a panel serves any
//! number of rows. An output element is one chain of multiply-adds over the row, in order; rows are only ever grouped to
//! share the loading of weights, which is why a row's result does not depend on its neighbours.

mod float;
mod quantised;

use candle_core::Tensor;

pub(crate) use self::quantised::QuantRows;
use self::{float::FloatPanels, quantised::QuantPanels};
use crate::{Fallback, ModelError, Precision};

/// Output columns per panel: one AVX-512 register of `f32`, two of AVX2.
const PANEL: usize = 16;

/// A weight matrix of `[columns out, row length]`, repacked.
pub(crate) struct Linear {
    columns: usize,
    row_len: usize,
    panels: Panels,
}

enum Panels {
    Float(FloatPanels),
    Quant(QuantPanels),
}

impl Linear {
    /// Stacks named matrices of the same row length (`[n_i, row_len]`, f32) into one, stored as `wanted` or, where the
    /// row length does not allow that, finer; each such matrix is noted in `fallbacks`.
    pub(crate) fn new(
        parts: &[(String, Tensor)],
        wanted: Precision,
        fallbacks: &mut Vec<Fallback>,
    ) -> Result<Self, ModelError> {
        let mut values = Vec::new();
        let mut blocks = quantised::Blocks::default();
        let mut row_len = 0;
        let mut used = wanted;
        let mut columns = 0;
        for (name, tensor) in parts {
            let refuse = |e: candle_core::Error| ModelError::Quantise {
                name: name.clone(),
                precision: wanted,
                reason: e.to_string(),
            };
            let (rows, len) = tensor.dims2().map_err(refuse)?;
            columns += rows;
            row_len = len;
            used = wanted.fitting(len);
            if used != wanted {
                fallbacks.push(Fallback {
                    tensor: name.clone(),
                    wanted,
                    used,
                    row_len,
                });
            }
            match used {
                Precision::F32 => values.extend(
                    tensor
                        .flatten_all()
                        .and_then(|t| t.to_vec1::<f32>())
                        .map_err(refuse)?,
                ),
                Precision::Q8_0 | Precision::Q4K => {
                    blocks.quantise(tensor, used).map_err(refuse)?
                }
            }
        }
        let panels = match used {
            Precision::F32 => Panels::Float(FloatPanels::pack(&values, row_len)),
            Precision::Q8_0 | Precision::Q4K => Panels::Quant(blocks.pack(row_len, used)),
        };
        Ok(Self {
            columns,
            row_len,
            panels,
        })
    }

    /// `out[r] = x[r] · Wᵀ` for every row: `x` is `[rows, row_len]`, `out` `[rows, columns]`, both row-major.
    pub(crate) fn apply(&self, x: &[f32], out: &mut [f32], quant: &mut QuantRows) {
        debug_assert_eq!(x.len() / self.row_len, out.len() / self.columns);
        match &self.panels {
            Panels::Float(panels) => panels.apply(x, self.row_len, out, self.columns),
            Panels::Quant(panels) => {
                quant.quantise(x, self.row_len);
                panels.apply(quant, out, self.columns);
            }
        }
    }

    /// Output elements per row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }
}
