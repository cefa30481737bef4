//! `f32` panels.

use super::PANEL;
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

    pub(super) fn apply(&self, x: &[f32], row_len: usize, out: &mut [f32], columns: usize) {
        multiply(x, row_len, &self.0, out, columns);
    }
}

per_isa! {
    fn multiply(x: &[f32], row_len: usize, panels: &[f32], out: &mut [f32], columns: usize) {
        let rows = x.len() / row_len;
        for (index, panel) in panels.chunks_exact(row_len * PANEL).enumerate() {
            let (panel, _) = panel.as_chunks::<PANEL>();
            let at = index * PANEL;
            let mut row = 0;
            while rows - row >= 6 {
                tile::<6>(x, row_len, row, panel, out, columns, at);
                row += 6;
            }
            match rows - row {
                5 => tile::<5>(x, row_len, row, panel, out, columns, at),
                4 => tile::<4>(x, row_len, row, panel, out, columns, at),
                3 => tile::<3>(x, row_len, row, panel, out, columns, at),
                2 => tile::<2>(x, row_len, row, panel, out, columns, at),
                1 => tile::<1>(x, row_len, row, panel, out, columns, at),
                _ => {}
            }
        }
    }
}

/// `R` rows from `row` on against one panel: `R · PANEL` sums held in registers.
#[inline(always)]
fn tile<const R: usize>(
    x: &[f32],
    row_len: usize,
    row: usize,
    panel: &[[f32; PANEL]],
    out: &mut [f32],
    columns: usize,
    at: usize,
) {
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x[(row + r) * row_len..][..row_len]);
    let panel = &panel[..row_len];
    let mut sums = [[0f32; PANEL]; R];
    for k in 0..row_len {
        for r in 0..R {
            let v = rows[r][k];
            for lane in 0..PANEL {
                sums[r][lane] = panel[k][lane].mul_add(v, sums[r][lane]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let out = &mut out[(row + r) * columns + at..(row + r + 1) * columns];
        let width = out.len().min(PANEL);
        out[..width].copy_from_slice(&sums[..width]);
    }
}
