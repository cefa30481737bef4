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

use super::PANEL;
use crate::{
    Precision,
    kernel::{Isa, per_isa},
};

/// Elements that share one scale, in weights and rows alike.
const BLOCK: usize = 32;
const PAIRS: usize = BLOCK / 2;

/// Rows of `x`, quantised.
#[derive(Default)]
pub(crate) struct QuantRows {
    row_len: usize,
    /// Two neighbouring elements as two `i16` in one word, `[rows][row_len / 2]`.
    pairs: Vec<i32>,
    /// `[rows][row_len / BLOCK]`.
    scales: Vec<f32>,
    /// scale · Σ quants of the block, `[rows][row_len / BLOCK]`.
    sums: Vec<f32>,
}

impl QuantRows {
    /// Quantises `[rows, row_len]`; `row_len` is a multiple of [`BLOCK`].
    pub(super) fn quantise(&mut self, x: &[f32], row_len: usize) {
        self.row_len = row_len;
        self.pairs.resize(x.len() / 2, 0);
        self.scales.resize(x.len() / BLOCK, 0.0);
        self.sums.resize(x.len() / BLOCK, 0.0);
        quantise_blocks(x, &mut self.pairs, &mut self.scales, &mut self.sums);
    }
}

per_isa! {
    fn quantise_blocks(x: &[f32], pairs: &mut [i32], scales: &mut [f32], sums: &mut [f32]) {
        // Adding and subtracting 1.5·2^23 rounds to the nearest integer.
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
                *q = ((v * inverse + ROUND) - ROUND) as i32;
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

    /// A block is its scale (f16) and 32 signed bytes.
    fn append_q8_0(&mut self, bytes: &[u8]) {
        for block in bytes.as_chunks::<34>().0 {
            self.scales.push(half(&block[..2]));
            self.quants
                .push(std::array::from_fn(|i| block[2 + i] as i8));
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
                self.quants
                    .push(std::array::from_fn(|i| (bytes[i] >> shift & 15) as i8));
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
                let index = |lane: usize| {
                    Some((first + lane) * per_row + block).filter(|_| first + lane < columns)
                };
                let quant = |lane: usize, k: usize| index(lane).map_or(0, |i| self.quants[i][k]);
                let lanes = |values: &[f32]| {
                    std::array::from_fn(|lane| index(lane).map_or(0.0, |i| values[i]))
                };
                panels.scales.push(lanes(&self.scales));
                let pair = |p: usize| std::array::from_fn(|i| quant(i / 2, 2 * p + i % 2));
                if panels.four_bit {
                    panels.mins.push(lanes(&self.mins));
                    for p in 0..PAIRS / 2 {
                        let (low, high): (Row, Row) = (pair(p), pair(p + PAIRS / 2));
                        panels
                            .quants
                            .push(std::array::from_fn(|i| low[i] | high[i] << 4));
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
type Row = [i8; 2 * PANEL];

/// `[columns / PANEL][row_len / BLOCK]` blocks of a panel.
pub(super) struct QuantPanels {
    four_bit: bool,
    /// 8-bit: `PAIRS` rows per block. 4-bit: half as many, pair `p` in the low nibbles, `p + PAIRS / 2` in the high ones.
    quants: Vec<Row>,
    scales: Vec<[f32; PANEL]>,
    /// 4-bit only.
    mins: Vec<[f32; PANEL]>,
}

/// One panel's blocks, and the quantised rows from `row` on.
#[derive(Clone, Copy)]
struct Job<'a> {
    quants: &'a [Row],
    scales: &'a [[f32; PANEL]],
    mins: &'a [[f32; PANEL]],
    x: &'a QuantRows,
    row: usize,
}

/// The sums of `R` rows over one panel.
trait Tile {
    fn tile<const R: usize, const FOUR_BIT: bool>(job: Job<'_>) -> [[f32; PANEL]; R];
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
fn multiply<T: Tile, const FOUR_BIT: bool>(
    w: &QuantPanels,
    x: &QuantRows,
    out: &mut [f32],
    columns: usize,
) {
    let blocks = x.row_len / BLOCK;
    let rows = out.len() / columns;
    let quants = w
        .quants
        .chunks_exact(w.quants.len() / w.scales.len() * blocks);
    for (index, (quants, scales)) in quants.zip(w.scales.chunks_exact(blocks)).enumerate() {
        let mins = if FOUR_BIT {
            &w.mins[index * blocks..][..blocks]
        } else {
            &[]
        };
        let mut row = 0;
        while row < rows {
            let job = Job {
                quants,
                scales,
                mins,
                x,
                row,
            };
            let at = index * PANEL;
            row += match rows - row {
                1 => store(&T::tile::<1, FOUR_BIT>(job), out, columns, row, at),
                2 => store(&T::tile::<2, FOUR_BIT>(job), out, columns, row, at),
                3 => store(&T::tile::<3, FOUR_BIT>(job), out, columns, row, at),
                _ => store(&T::tile::<4, FOUR_BIT>(job), out, columns, row, at),
            };
        }
    }
}

#[inline(always)]
fn store<const R: usize>(
    sums: &[[f32; PANEL]; R],
    out: &mut [f32],
    columns: usize,
    row: usize,
    at: usize,
) -> usize {
    for (r, sums) in sums.iter().enumerate() {
        let out = &mut out[(row + r) * columns + at..(row + r + 1) * columns];
        let width = out.len().min(PANEL);
        out[..width].copy_from_slice(&sums[..width]);
    }
    R
}

struct Portable;

impl Tile for Portable {
    fn tile<const R: usize, const FOUR_BIT: bool>(job: Job<'_>) -> [[f32; PANEL]; R] {
        let blocks = job.scales.len();
        let mut sums = [[0f32; PANEL]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for block in 0..blocks {
                let at = (job.row + r) * blocks + block;
                let pairs = &job.x.pairs[at * PAIRS..][..PAIRS];
                let mut dots = [0i32; PANEL];
                for (p, pair) in pairs.iter().enumerate() {
                    let (first, second) = (i32::from(*pair as i16), pair >> 16);
                    let quants = if FOUR_BIT {
                        let shift = if p < PAIRS / 2 { 0 } else { 4 };
                        job.quants[block * PAIRS / 2 + p % (PAIRS / 2)]
                            .map(|q| (q as u8 >> shift & 15) as i8)
                    } else {
                        job.quants[block * PAIRS + p]
                    };
                    for (dot, q) in dots.iter_mut().zip(quants.as_chunks::<2>().0) {
                        *dot += i32::from(q[0]) * first + i32::from(q[1]) * second;
                    }
                }
                for lane in 0..PANEL {
                    let scale = job.scales[block][lane] * job.x.scales[at];
                    sums[lane] = (dots[lane] as f32).mul_add(scale, sums[lane]);
                    if FOUR_BIT {
                        sums[lane] = (-job.mins[block][lane]).mul_add(job.x.sums[at], sums[lane]);
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

    use super::{BLOCK, Job, PAIRS, PANEL, QuantPanels, QuantRows, Row, Tile, multiply};

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
        fn tile<const R: usize, const FOUR_BIT: bool>(job: Job<'_>) -> [[f32; PANEL]; R] {
            // SAFETY: `Avx2` is only used below functions that enable AVX2 and FMA, into which this is inlined; loads
            // and stores go through references of at least the vector's size.
            #[allow(unsafe_code)]
            unsafe {
                let blocks = job.scales.len();
                let x: [(&[i32], &[f32], &[f32]); R] = std::array::from_fn(|r| {
                    let at = (job.row + r) * blocks;
                    (
                        &job.x.pairs[at * PAIRS..][..blocks * PAIRS],
                        &job.x.scales[at..][..blocks],
                        &job.x.sums[at..][..blocks],
                    )
                });
                let rows_per_block = if FOUR_BIT { PAIRS / 2 } else { PAIRS };
                let mut sums = [[_mm256_setzero_ps(); 2]; R];
                for block in 0..blocks {
                    let quants = &job.quants[block * rows_per_block..][..rows_per_block];
                    let mut dots = [[_mm256_setzero_si256(); 2]; R];
                    for (p, row) in quants.iter().enumerate() {
                        let w = widen(row);
                        if FOUR_BIT {
                            let nibble = _mm256_set1_epi16(15);
                            let low = w.map(|w| _mm256_and_si256(w, nibble));
                            let high =
                                w.map(|w| _mm256_and_si256(_mm256_srli_epi16::<4>(w), nibble));
                            for r in 0..R {
                                let pairs = &x[r].0[block * PAIRS..][..PAIRS];
                                multiply_add(&mut dots[r], low, pairs[p]);
                                multiply_add(&mut dots[r], high, pairs[p + PAIRS / 2]);
                            }
                        } else {
                            for r in 0..R {
                                multiply_add(&mut dots[r], w, x[r].0[block * PAIRS + p]);
                            }
                        }
                    }
                    let scales = load(&job.scales[block]);
                    for r in 0..R {
                        let scale = _mm256_set1_ps(x[r].1[block]);
                        for half in 0..2 {
                            let dot = _mm256_cvtepi32_ps(dots[r][half]);
                            sums[r][half] = _mm256_fmadd_ps(
                                dot,
                                _mm256_mul_ps(scales[half], scale),
                                sums[r][half],
                            );
                        }
                        if FOUR_BIT {
                            let mins = load(&job.mins[block]);
                            let sum = _mm256_set1_ps(x[r].2[block]);
                            for half in 0..2 {
                                sums[r][half] = _mm256_fnmadd_ps(mins[half], sum, sums[r][half]);
                            }
                        }
                    }
                }
                sums.map(|[low, high]| {
                    let mut out = [0f32; PANEL];
                    _mm256_storeu_ps(out.as_mut_ptr(), low);
                    _mm256_storeu_ps(out[8..].as_mut_ptr(), high);
                    out
                })
            }
        }
    }

    /// Sign-extends a row to 16 bits: columns 0..8 and 8..16, two elements each.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn widen(row: &Row) -> [__m256i; 2] {
        // SAFETY: a row is 32 bytes.
        #[allow(unsafe_code)]
        let bytes = unsafe { _mm256_loadu_si256(row.as_ptr().cast()) };
        [
            _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)),
            _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(bytes)),
        ]
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
        // SAFETY: both halves hold eight elements.
        #[allow(unsafe_code)]
        unsafe {
            [
                _mm256_loadu_ps(lanes.as_ptr()),
                _mm256_loadu_ps(lanes[8..].as_ptr()),
            ]
        }
    }

    const _: () = assert!(PANEL == 16 && BLOCK == 32);
}
