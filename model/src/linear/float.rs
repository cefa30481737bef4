//! `f32` panels.

use super::{PANEL, interleave, store};
use crate::kernel::per_isa;

/// `[columns / PANEL][row_len][PANEL]`, the last panel padded with zero columns.
pub(super) struct FloatPanels(Vec<f32>);

impl FloatPanels {
    pub(super) fn pack(values: &[f32], row_len: usize) -> Self {
        let mut data = Vec::with_capacity(values.len().next_multiple_of(PANEL * row_len));
        for columns in values.chunks(PANEL * row_len) {
            for k in 0..row_len {
                let column = |c: usize| columns.get(c * row_len + k).copied().unwrap_or(0.0);
                data.extend((0..PANEL).map(column));
            }
        }
        Self(data)
    }

    pub(super) fn apply(&self, x: &[f32], row_len: usize, out: &mut [f32], columns: usize, packed: &mut Vec<f32>) {
        interleave::<f32, ROWS>(x, row_len, packed);
        multiply(packed, row_len, &self.0, out, columns);
    }
}

/// Rows that share a pass over a panel: with AVX2, twelve registers of sums and three for operands.
const ROWS: usize = 6;

per_isa! {
    fn multiply(x: &[f32], row_len: usize, panels: &[f32], out: &mut [f32], columns: usize) {
        for (index, panel) in panels.chunks_exact(row_len * PANEL).enumerate() {
            let (panel, _) = panel.as_chunks::<PANEL>();
            let at = index * PANEL;
            for (group, x) in x.chunks(ROWS * row_len).enumerate() {
                let out = &mut out[group * ROWS * columns..];
                match x.len() / row_len {
                    1 => store(&tile::<1>(x, panel), out, columns, at),
                    2 => store(&tile::<2>(x, panel), out, columns, at),
                    3 => store(&tile::<3>(x, panel), out, columns, at),
                    4 => store(&tile::<4>(x, panel), out, columns, at),
                    5 => store(&tile::<5>(x, panel), out, columns, at),
                    _ => store(&tile::<ROWS>(x, panel), out, columns, at),
                }
            }
        }
    }
}

/// `R` interleaved rows against one panel: `R · PANEL` sums held in registers.
#[inline(always)]
fn tile<const R: usize>(x: &[f32], panel: &[[f32; PANEL]]) -> [[f32; PANEL]; R] {
    let mut sums = [[0f32; PANEL]; R];
    let (x, _) = x.as_chunks::<R>();
    for (x, w) in x.iter().zip(panel) {
        for r in 0..R {
            for lane in 0..PANEL {
                sums[r][lane] = w[lane].mul_add(x[r], sums[r][lane]);
            }
        }
    }
    sums
}
