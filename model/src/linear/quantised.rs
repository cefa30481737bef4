//! 8-bit and 4-bit panels, multiplied in integers.
//!
//! Weights are quantised by candle's `QTensor` and its blocks are repacked here; rows of `x` are quantised on the fly to
//! 8 bits, one scale per 32 elements. The dot product of a block is exact in `i32`, so only the sum over blocks rounds:
//! `sum ← fma(dot, weight scale · row scale, sum)`, in order. For 4-bit weights `w = scale · q − min`, the block's `min ·
//! Σ x` is subtracted the same way. Every instruction set therefore gives the same bits.

use candle_core::{
    Result, Tensor,
    quantized::{GgmlDType, QTensor},
};
use half::f16;

use super::{PANEL, interleave, store};
use crate::{
    Precision,
    kernel::{Isa, per_isa},
};

/// Elements that share one scale, in weights and rows alike.
const BLOCK: usize = 32;
const PAIRS: usize = BLOCK / 2;

/// Rows that share a pass over a panel.
const ROWS: usize = 4;

/// Rows of `x`, quantised and interleaved in groups of [`ROWS`].
#[derive(Default)]
pub(super) struct QuantRows {
    row_len: usize,
    /// Two neighbouring elements as two `i16` in one word: `row_len / 2` words per row.
    pairs: Vec<i32>,
    /// `row_len / BLOCK` per row.
    scales: Vec<f32>,
    /// scale · Σ quants of the block, `row_len / BLOCK` per row.
    sums: Vec<f32>,
    /// The same before interleaving.
    plain: (Vec<i32>, Vec<f32>, Vec<f32>),
}

impl QuantRows {
    /// Quantises `[rows, row_len]`; `row_len` is a multiple of [`BLOCK`].
    pub(super) fn quantise(&mut self, x: &[f32], row_len: usize) {
        self.row_len = row_len;
        let (pairs, scales, sums) = &mut self.plain;
        pairs.resize(x.len() / 2, 0);
        scales.resize(x.len() / BLOCK, 0.0);
        sums.resize(x.len() / BLOCK, 0.0);
        quantise_blocks(x, pairs, scales, sums);
        interleave::<_, ROWS>(pairs, row_len / 2, &mut self.pairs);
        interleave::<_, ROWS>(scales, row_len / BLOCK, &mut self.scales);
        interleave::<_, ROWS>(sums, row_len / BLOCK, &mut self.sums);
    }
}

per_isa! {
    fn quantise_blocks(x: &[f32], pairs: &mut [i32], scales: &mut [f32], sums: &mut [f32]) {
        // Adding 1.5·2^23 rounds to the nearest integer and leaves it in the low bits, which `as i32` would do slower.
        const ROUND: f32 = 12_582_912.0;
        let (blocks, _) = x.as_chunks::<BLOCK>();
        let (pairs, _) = pairs.as_chunks_mut::<PAIRS>();
        for (((x, pairs), scale), sum) in blocks.iter().zip(pairs).zip(scales).zip(sums) {
            let mut max = [0f32; 8];
            for eight in x.as_chunks::<8>().0 {
                for (m, v) in max.iter_mut().zip(eight) {
                    let v = v.abs();
                    *m = if v > *m { v } else { *m };
                }
            }
            let max = max.into_iter().fold(0f32, f32::max);
            *scale = max / 127.0;
            let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
            let mut quants = [0i32; BLOCK];
            for (q, v) in quants.iter_mut().zip(x) {
                *q = ((v * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
            }
            let mut total = 0;
            for (pair, two) in pairs.iter_mut().zip(quants.as_chunks::<2>().0) {
                *pair = (two[0] & 0xffff) | (two[1] << 16);
                total += two[0] + two[1];
            }
            *sum = *scale * total as f32;
        }
    }
}

/// Blocks of a matrix, row by row, before packing.
#[derive(Default)]
pub(super) struct Blocks {
    quants: Vec<[i8; BLOCK]>,
    scales: Vec<f32>,
    mins: Vec<f32>,
}

impl Blocks {
    /// Quantises a matrix with candle and appends its blocks. `precision` is q8_0 or q4_k.
    pub(super) fn quantise(&mut self, matrix: &Tensor, precision: Precision) -> Result<()> {
        if precision == Precision::Q4K {
            self.append_q4_k(&QTensor::quantize(matrix, GgmlDType::Q4K)?.data()?);
        } else {
            self.append_q8_0(&QTensor::quantize(matrix, GgmlDType::Q8_0)?.data()?);
        }
        Ok(())
    }

    /// Whether every scale and every minimum is a finite number.
    pub(super) fn is_finite(&self) -> bool {
        self.scales.iter().chain(&self.mins).all(|value| value.is_finite())
    }

    /// A block is its scale (f16) and 32 signed bytes.
    fn append_q8_0(&mut self, bytes: &[u8]) {
        for block in bytes.as_chunks::<34>().0 {
            self.scales.push(half(&block[..2]));
            self.quants.push(std::array::from_fn(|i| block[2 + i] as i8));
        }
    }

    /// A superblock of 256 is a scale and a min (f16), eight 6-bit scales and mins in 12 bytes, and 128 bytes of
    /// nibbles: each 32 bytes hold one block in the low halves and the next in the high ones.
    fn append_q4_k(&mut self, bytes: &[u8]) {
        for superblock in bytes.as_chunks::<144>().0 {
            let (scale, min) = (half(&superblock[..2]), half(&superblock[2..4]));
            let packed = &superblock[4..16];
            let nibbles = &superblock[16..];
            for sub in 0..8 {
                let (s, m) = if sub < 4 {
                    (packed[sub] & 63, packed[sub + 4] & 63)
                } else {
                    (
                        (packed[sub + 4] & 15) | ((packed[sub - 4] >> 6) << 4),
                        (packed[sub + 4] >> 4) | ((packed[sub] >> 6) << 4),
                    )
                };
                self.scales.push(scale * f32::from(s));
                self.mins.push(min * f32::from(m));
                let bytes = &nibbles[sub / 2 * BLOCK..][..BLOCK];
                let shift = sub % 2 * 4;
                self.quants.push(std::array::from_fn(|i| (bytes[i] >> shift & 15) as i8));
            }
        }
    }

    pub(super) fn pack(self, row_len: usize, precision: Precision) -> QuantPanels {
        let per_row = row_len / BLOCK;
        let columns = self.quants.len() / per_row;
        let mut panels = QuantPanels {
            four_bit: precision == Precision::Q4K,
            quants: Vec::new(),
            scales: Vec::new(),
            mins: Vec::new(),
        };
        for first in (0..columns).step_by(PANEL) {
            for block in 0..per_row {
                // The last panel may lack columns; they are zero and never written out.
                let index = |lane: usize| Some((first + lane) * per_row + block).filter(|_| first + lane < columns);
                let quant = |lane: usize, k: usize| index(lane).map_or(0, |i| self.quants[i][k]);
                let lanes = |values: &[f32]| std::array::from_fn(|lane| index(lane).map_or(0.0, |i| values[i]));
                panels.scales.push(lanes(&self.scales));
                let pair = |p: usize| std::array::from_fn(|i| quant(i / 2, 2 * p + i % 2));
                if panels.four_bit {
                    panels.mins.push(lanes(&self.mins));
                    for p in 0..PAIRS / 2 {
                        let (low, high): (QuantisedRow, QuantisedRow) = (pair(p), pair(p + PAIRS / 2));
                        panels.quants.push(std::array::from_fn(|i| low[i] | high[i] << 4));
                    }
                } else {
                    panels.quants.extend((0..PAIRS).map(pair));
                }
            }
        }
        panels
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// One pair of elements of all columns of a panel: `[PANEL][2]`.
type QuantisedRow = [i8; 2 * PANEL];

/// `[columns / PANEL][row_len / BLOCK]` blocks of a panel.
pub(super) struct QuantPanels {
    four_bit: bool,
    /// 8-bit: `PAIRS` rows per block. 4-bit: half as many, pair `p` in the low nibbles, `p + PAIRS / 2` in the high ones.
    quants: Vec<QuantisedRow>,
    scales: Vec<[f32; PANEL]>,
    mins: Vec<[f32; PANEL]>,
}

/// One panel's blocks, and one group of quantised rows.
#[derive(Clone, Copy)]
struct ProductJob<'a> {
    quants: &'a [QuantisedRow],
    scales: &'a [[f32; PANEL]],
    mins: &'a [[f32; PANEL]],
    pairs: &'a [i32],
    row_scales: &'a [f32],
    row_sums: &'a [f32],
}

/// The sums of `R` rows over one panel.
trait Tile {
    fn tile<const R: usize, const FOUR_BIT: bool>(job: ProductJob<'_>) -> [[f32; PANEL]; R];
}

impl QuantPanels {
    pub(super) fn apply(&self, x: &QuantRows, out: &mut [f32], columns: usize) {
        match (Isa::detected(), self.four_bit) {
            (Isa::Portable, false) => multiply::<Portable, false>(self, x, out, columns),
            (Isa::Portable, true) => multiply::<Portable, true>(self, x, out, columns),
            #[cfg(target_arch = "x86_64")]
            (_, false) => x86::multiply_8(self, x, out, columns),
            #[cfg(target_arch = "x86_64")]
            (_, true) => x86::multiply_4(self, x, out, columns),
        }
    }
}

#[inline(always)]
fn multiply<T: Tile, const FOUR_BIT: bool>(w: &QuantPanels, x: &QuantRows, out: &mut [f32], columns: usize) {
    let blocks = x.row_len / BLOCK;
    let quants = w.quants.chunks_exact(w.quants.len() / w.scales.len() * blocks);
    for (index, (quants, scales)) in quants.zip(w.scales.chunks_exact(blocks)).enumerate() {
        let mins = if FOUR_BIT { &w.mins[index * blocks..][..blocks] } else { &[] };
        let at = index * PANEL;
        let per_group = x.scales.chunks(ROWS * blocks).zip(x.sums.chunks(ROWS * blocks));
        let groups = x.pairs.chunks(ROWS * blocks * PAIRS).zip(per_group);
        for (group, (pairs, (row_scales, row_sums))) in groups.enumerate() {
            let job = ProductJob { quants, scales, mins, pairs, row_scales, row_sums };
            let out = &mut out[group * ROWS * columns..];
            match row_scales.len() / blocks {
                1 => store(&T::tile::<1, FOUR_BIT>(job), out, columns, at),
                2 => store(&T::tile::<2, FOUR_BIT>(job), out, columns, at),
                3 => store(&T::tile::<3, FOUR_BIT>(job), out, columns, at),
                _ => store(&T::tile::<ROWS, FOUR_BIT>(job), out, columns, at),
            }
        }
    }
}

struct Portable;

impl Tile for Portable {
    fn tile<const R: usize, const FOUR_BIT: bool>(job: ProductJob<'_>) -> [[f32; PANEL]; R] {
        let mut sums = [[0f32; PANEL]; R];
        let (pairs, _) = job.pairs.as_chunks::<R>();
        for (block, scales) in job.scales.iter().enumerate() {
            for (r, sums) in sums.iter_mut().enumerate() {
                let mut dots = [0i32; PANEL];
                for p in 0..PAIRS {
                    let pair = pairs[block * PAIRS + p][r];
                    let (first, second) = (i32::from(pair as i16), pair >> 16);
                    let quants = if FOUR_BIT {
                        let shift = if p < PAIRS / 2 { 0 } else { 4 };
                        job.quants[block * PAIRS / 2 + p % (PAIRS / 2)].map(|q| (q as u8 >> shift & 15) as i8)
                    } else {
                        job.quants[block * PAIRS + p]
                    };
                    for (dot, q) in dots.iter_mut().zip(quants.as_chunks::<2>().0) {
                        *dot += i32::from(q[0]) * first + i32::from(q[1]) * second;
                    }
                }
                for lane in 0..PANEL {
                    let scale = scales[lane] * job.row_scales[block * R + r];
                    sums[lane] = (dots[lane] as f32).mul_add(scale, sums[lane]);
                    if FOUR_BIT {
                        sums[lane] = (-job.mins[block][lane]).mul_add(job.row_sums[block * R + r], sums[lane]);
                    }
                }
            }
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{PAIRS, PANEL, ProductJob, QuantPanels, QuantRows, QuantisedRow, Tile, multiply};

    pub(super) fn multiply_8(w: &QuantPanels, x: &QuantRows, out: &mut [f32], columns: usize) {
        #[target_feature(enable = "avx2,fma")]
        fn run(w: &QuantPanels, x: &QuantRows, out: &mut [f32], columns: usize) {
            multiply::<Avx2, false>(w, x, out, columns);
        }
        // SAFETY: called only where `Isa::detected` found AVX2 and FMA.
        #[allow(unsafe_code)]
        unsafe {
            run(w, x, out, columns)
        }
    }

    pub(super) fn multiply_4(w: &QuantPanels, x: &QuantRows, out: &mut [f32], columns: usize) {
        #[target_feature(enable = "avx2,fma")]
        fn run(w: &QuantPanels, x: &QuantRows, out: &mut [f32], columns: usize) {
            multiply::<Avx2, true>(w, x, out, columns);
        }
        // SAFETY: called only where `Isa::detected` found AVX2 and FMA.
        #[allow(unsafe_code)]
        unsafe {
            run(w, x, out, columns)
        }
    }

    struct Avx2;

    impl Tile for Avx2 {
        #[inline(always)]
        fn tile<const R: usize, const FOUR_BIT: bool>(job: ProductJob<'_>) -> [[f32; PANEL]; R] {
            // SAFETY: `Avx2` is only used below `multiply_8` and `multiply_4`, which enable AVX2 and FMA.
            #[allow(unsafe_code)]
            unsafe {
                tile::<R, FOUR_BIT>(job)
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn tile<const R: usize, const FOUR_BIT: bool>(job: ProductJob<'_>) -> [[f32; PANEL]; R] {
        let (x, _) = job.pairs.as_chunks::<R>();
        let (x, _) = x.as_chunks::<PAIRS>();
        let (row_scales, _) = job.row_scales.as_chunks::<R>();
        let (row_sums, _) = job.row_sums.as_chunks::<R>();
        let per_block = if FOUR_BIT { PAIRS / 2 } else { PAIRS };
        let blocks = job.quants.chunks_exact(per_block).zip(job.scales).zip(x).zip(row_scales);
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for (block, (((quants, scales), x), row_scales)) in blocks.enumerate() {
            let mut dots = [[_mm256_setzero_si256(); 2]; R];
            if FOUR_BIT {
                let (first, second) = x.split_at(PAIRS / 2);
                for ((row, first), second) in quants.iter().zip(first).zip(second) {
                    let (low, high) = nibbles(widen(row));
                    for r in 0..R {
                        multiply_add(&mut dots[r], low, first[r]);
                        multiply_add(&mut dots[r], high, second[r]);
                    }
                }
            } else {
                for (row, x) in quants.iter().zip(x) {
                    let w = widen(row);
                    for r in 0..R {
                        multiply_add(&mut dots[r], w, x[r]);
                    }
                }
            }
            let scales = load(scales);
            for r in 0..R {
                let scale = _mm256_set1_ps(row_scales[r]);
                for half in 0..2 {
                    let dot = _mm256_cvtepi32_ps(dots[r][half]);
                    sums[r][half] = _mm256_fmadd_ps(dot, _mm256_mul_ps(scales[half], scale), sums[r][half]);
                }
            }
            if FOUR_BIT {
                let mins = load(&job.mins[block]);
                for r in 0..R {
                    let sum = _mm256_set1_ps(row_sums[block][r]);
                    for half in 0..2 {
                        sums[r][half] = _mm256_fnmadd_ps(mins[half], sum, sums[r][half]);
                    }
                }
            }
        }
        let mut out = [[0f32; PANEL]; R];
        for r in 0..R {
            // SAFETY: a row holds `PANEL` = 16 elements, and each store writes eight of them.
            #[allow(unsafe_code)]
            unsafe {
                _mm256_storeu_ps(out[r].as_mut_ptr(), sums[r][0]);
                _mm256_storeu_ps(out[r].as_mut_ptr().add(PANEL / 2), sums[r][1]);
            }
        }
        out
    }

    /// Sign-extends a row to 16 bits: columns 0..8 and 8..16, two elements each.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn widen(row: &QuantisedRow) -> [__m256i; 2] {
        // SAFETY: a row is 32 bytes, and each load reads sixteen of them.
        #[allow(unsafe_code)]
        let (low, high) = unsafe {
            let bytes = row.as_ptr().cast::<__m128i>();
            (_mm_loadu_si128(bytes), _mm_loadu_si128(bytes.add(1)))
        };
        [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)]
    }

    /// The low and the high nibble of each (sign-extended) byte.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn nibbles([first, second]: [__m256i; 2]) -> ([__m256i; 2], [__m256i; 2]) {
        let mask = _mm256_set1_epi16(15);
        let low = [_mm256_and_si256(first, mask), _mm256_and_si256(second, mask)];
        let high = [
            _mm256_and_si256(_mm256_srli_epi16::<4>(first), mask),
            _mm256_and_si256(_mm256_srli_epi16::<4>(second), mask),
        ];
        (low, high)
    }

    /// Adds each column's product with a pair of elements of `x`, exactly.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn multiply_add(dots: &mut [__m256i; 2], w: [__m256i; 2], pair: i32) {
        let pair = _mm256_set1_epi32(pair);
        dots[0] = _mm256_add_epi32(dots[0], _mm256_madd_epi16(w[0], pair));
        dots[1] = _mm256_add_epi32(dots[1], _mm256_madd_epi16(w[1], pair));
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(lanes: &[f32; PANEL]) -> [__m256; 2] {
        // SAFETY: `PANEL` = 16 elements, and each load reads eight of them.
        #[allow(unsafe_code)]
        unsafe {
            [_mm256_loadu_ps(lanes.as_ptr()), _mm256_loadu_ps(lanes.as_ptr().add(PANEL / 2))]
        }
    }

    const _: () = assert!(PANEL == 16);
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn the_portable_kernel_gives_the_same_bits() {
        const ROW: usize = 512;
        const COLUMNS: usize = 37;
        for precision in [Precision::Q8_0, Precision::Q4K] {
            let matrix: Vec<f32> = (0..ROW * COLUMNS).map(|i| (i as f32 * 0.7).sin()).collect();
            let matrix = Tensor::from_vec(matrix, (COLUMNS, ROW), &Device::Cpu).expect("sizes agree");
            let mut blocks = Blocks::default();
            blocks.quantise(&matrix, precision).expect("rows are whole blocks");
            let panels = blocks.pack(ROW, precision);
            for rows in 1..10 {
                let x: Vec<f32> = (0..rows * ROW).map(|i| (i as f32 * 1.3).cos() * 3.0).collect();
                let mut quant = QuantRows::default();
                quant.quantise(&x, ROW);
                let (mut fast, mut plain) = (vec![0f32; rows * COLUMNS], vec![0f32; rows * COLUMNS]);
                panels.apply(&quant, &mut fast, COLUMNS);
                if precision == Precision::Q4K {
                    multiply::<Portable, true>(&panels, &quant, &mut plain, COLUMNS);
                } else {
                    multiply::<Portable, false>(&panels, &quant, &mut plain, COLUMNS);
                }
                assert_eq!(fast, plain, "{precision}, {rows} rows");
            }
        }
    }
}
