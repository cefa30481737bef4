//! Norm, activation and residual: each row on its own, each sum in an order fixed by the row's width alone.

use crate::kernel::per_isa;

/// Lanes of the partial sums. A fixed number, so that the order of a sum does not depend on the instruction set.
pub(crate) const LANES: usize = 16;

/// Sums lanes pairwise in a fixed tree.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// e^x within 2 ulp for x ≤ 88; below −87 the result is at the edge of the normal range (about 1e-38), which a softmax
/// or a sigmoid cannot tell from zero. Plain arithmetic, so that loops over it vectorise, and the same everywhere.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: n·HIGH is exact for every n in range.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5·2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Cephes' polynomial for (e^r − 1 − r) / r² on |r| ≤ ln 2 / 2.
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    // The low bits of `rounded` are the integer n; shifted into the exponent they are 2^n.
    mantissa * f32::from_bits((rounded.to_bits().wrapping_add(127)) << 23)
}

per_isa! {
    /// Each row of `x` divided by its root mean square and scaled by `weight`; `x` and `out` are `[rows, weight.len()]`.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mut lanes = [0f32; LANES];
            let (whole, rest) = row.as_chunks::<LANES>();
            for chunk in whole {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *lane += v * v;
                }
            }
            for (lane, v) in lanes.iter_mut().zip(rest) {
                *lane += v * v;
            }
            let scale = 1.0 / (sum_lanes(lanes) / width as f32 + eps).sqrt();
            for ((o, v), w) in out.iter_mut().zip(row).zip(weight) {
                *o = v * scale * w;
            }
        }
    }
}

per_isa! {
    /// SwiGLU's product: `gate_up` is `[rows, 2·width]` (gate, then up), `out` is `[rows, width]`, silu(gate) · up.
    pub(crate) fn silu_mul(gate_up: &[f32], width: usize, out: &mut [f32]) {
        for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                *o = g / (1.0 + exp(-g)) * u;
            }
        }
    }
}

per_isa! {
    /// `x += y`, element by element.
    pub(crate) fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -86_000..88_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(relative < 2.5e-7, "exp({x}) is off by {relative}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }
}
