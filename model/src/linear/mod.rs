//! Matrix products `out = x · Wᵀ` over all packed rows of a pass.
//!
//! Weights are repacked once, at load, into panels of [`PANEL`] output columns, so that one pass over a panel serves any
//! number of rows. An output element is one chain of multiply-adds over the row, in order; rows are only ever grouped to
//! share the loading of weights, which is why a row's result does not depend on its neighbours.

mod float;
mod quantised;

use candle_core::Tensor;

use self::{
    float::FloatPanels,
    quantised::{QuantPanels, QuantRows},
};
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
    /// row length does not allow that, finer; each such matrix is noted in `fallbacks`. `origin` names the model in errors.
    pub(crate) fn new(
        parts: &[(String, Tensor)],
        wanted: Precision,
        origin: &str,
        fallbacks: &mut Vec<Fallback>,
    ) -> Result<Self, ModelError> {
        let mut values = Vec::new();
        let mut blocks = quantised::Blocks::default();
        let mut row_len = 0;
        let mut used = wanted;
        let mut columns = 0;
        for (name, tensor) in parts {
            let unfit = |reason: String| ModelError::Quantise {
                origin: origin.to_owned(),
                name: name.clone(),
                precision: wanted,
                reason,
            };
            let refuse = |e: candle_core::Error| unfit(e.to_string());
            let (rows, len) = tensor.dims2().map_err(refuse)?;
            columns += rows;
            row_len = len;
            used = wanted.fitting(len);
            if used != wanted {
                fallbacks.push(Fallback { tensor: name.clone(), wanted, used, row_len });
            }
            match used {
                Precision::F32 => values.extend(tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(refuse)?),
                Precision::Q8_0 | Precision::Q4K => {
                    blocks.quantise(tensor, used).map_err(refuse)?;
                    // Scales are kept in 16 bits, which weights of a finite number may leave.
                    if !blocks.is_finite() {
                        return Err(unfit("it holds weights too large for the scale of a block".to_owned()));
                    }
                }
            }
        }
        let panels = match used {
            Precision::F32 => Panels::Float(FloatPanels::pack(&values, row_len)),
            Precision::Q8_0 | Precision::Q4K => Panels::Quant(blocks.pack(row_len, used)),
        };
        Ok(Self { columns, row_len, panels })
    }

    /// `out[r] = x[r] · Wᵀ` for every row: `x` is `[rows, row_len]`, `out` `[rows, columns]`, both row-major.
    pub(crate) fn apply(&self, x: &[f32], out: &mut [f32], workspace: &mut Workspace) {
        debug_assert_eq!(x.len() / self.row_len, out.len() / self.columns);
        match &self.panels {
            Panels::Float(panels) => panels.apply(x, self.row_len, out, self.columns, &mut workspace.floats),
            Panels::Quant(panels) => {
                workspace.quants.quantise(x, self.row_len);
                panels.apply(&workspace.quants, out, self.columns);
            }
        }
    }

    /// Output elements per row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }
}

/// The rows of a product in the form that the kernels read; kept to be reused.
#[derive(Default)]
pub(crate) struct Workspace {
    floats: Vec<f32>,
    quants: QuantRows,
}

/// Copies `[rows, row_len]` into groups of `R` rows (the last may be smaller), each as `[row_len][rows of the group]`:
/// a kernel then walks one array, without a bounds check per row.
fn interleave<T: Copy + Default, const R: usize>(x: &[T], row_len: usize, out: &mut Vec<T>) {
    out.resize(x.len(), T::default());
    for (group, out) in x.chunks(R * row_len).zip(out.chunks_mut(R * row_len)) {
        let rows = group.len() / row_len;
        for (r, row) in group.chunks_exact(row_len).enumerate() {
            for (out, v) in out[r..].iter_mut().step_by(rows).zip(row) {
                *out = *v;
            }
        }
    }
}

/// Writes the sums of the first `R` rows of `out` into its columns from `at` on; the last panel's padding is dropped.
#[inline(always)]
fn store<const R: usize>(sums: &[[f32; PANEL]; R], out: &mut [f32], columns: usize, at: usize) {
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(columns)) {
        let out = &mut out[at..];
        if let Some(out) = out.first_chunk_mut() {
            *out = *sums;
        } else {
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}
