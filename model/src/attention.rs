//! Causal attention of one query row over its own sequence's cache.
//!
//! A row's result depends on its query and on positions `0..len` of its cache, in an order fixed by the absolute
//! positions; it is computed the same way whether the pass brings one row of the sequence or a thousand.

use crate::{
    arena::{PAGE, Page, PageLayout},
    elementwise::{LANES, exp, sum_lanes},
    kernel::per_isa,
};

const _: () = assert!(PAGE == LANES, "a page's positions are the lanes of the sums");

/// The sizes of one layer's attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

per_isa! {
    /// Attends with `query` (`[heads · head_dim]`, rotated; scaled in place by 1/√head_dim) over the first `len`
    /// positions of `layer`, into `out` (`[heads · head_dim]`). `weights` receives the softmax rows, `[heads, pages ·
    /// PAGE]`; entries past `len` are zero.
    pub(crate) fn attend(
        query: &mut [f32],
        pages: &[Page],
        layout: PageLayout,
        layer: usize,
        len: usize,
        sizes: Heads,
        weights: &mut [f32],
        out: &mut [f32],
    ) {
        let pages = &pages[..len.div_ceil(PAGE)];
        let scale = 1.0 / (sizes.head_dim as f32).sqrt();
        for q in query.iter_mut() {
            *q *= scale;
        }
        let per_kv = sizes.heads / sizes.kv_heads;
        for head in 0..sizes.heads {
            let at = HeadAt { layout, layer, kv_head: head / per_kv };
            let q = &query[head * sizes.head_dim..][..sizes.head_dim];
            let (row, _) = weights[head * pages.len() * PAGE..][..pages.len() * PAGE].as_chunks_mut::<PAGE>();
            for (page, scores) in pages.iter().zip(row.iter_mut()) {
                *scores = page_scores(q, layout.head(page, layer, at.kv_head).0);
            }
            softmax(row, len);
            let out = &mut out[head * sizes.head_dim..][..sizes.head_dim];
            let (wide, rest) = out.as_chunks_mut::<CHUNK>();
            let rest_at = wide.len() * CHUNK;
            for (chunk, out) in wide.iter_mut().enumerate() {
                *out = mix_values(row, len, pages, at, chunk * CHUNK, sizes.head_dim);
            }
            for (i, out) in rest.iter_mut().enumerate() {
                [*out] = mix_values(row, len, pages, at, rest_at + i, sizes.head_dim);
            }
        }
    }
}

/// Elements of a head that are mixed together.
const CHUNK: usize = 32;

/// Where a head's keys and values lie.
#[derive(Clone, Copy)]
struct HeadAt {
    layout: PageLayout,
    layer: usize,
    kv_head: usize,
}

/// Scores of one page's positions: even and odd elements of the head are summed apart (two chains hide the latency of
/// the multiply-adds), each in order.
#[inline(always)]
fn page_scores(query: &[f32], keys: &[f32]) -> [f32; PAGE] {
    let mut even = [0f32; PAGE];
    let mut odd = [0f32; PAGE];
    let (query, _) = query.as_chunks::<2>();
    let (keys, _) = keys.as_chunks::<PAGE>();
    let (keys, _) = keys.as_chunks::<2>();
    for (q, k) in query.iter().zip(keys) {
        for lane in 0..PAGE {
            even[lane] = k[0][lane].mul_add(q[0], even[lane]);
            odd[lane] = k[1][lane].mul_add(q[1], odd[lane]);
        }
    }
    for lane in 0..PAGE {
        even[lane] += odd[lane];
    }
    even
}

/// Softmax over the first `len` scores; the lanes past them become zero.
#[inline(always)]
fn softmax(row: &mut [[f32; PAGE]], len: usize) {
    let tail = len % PAGE;
    if tail > 0
        && let Some(last) = row.last_mut()
    {
        last[tail..].fill(f32::NEG_INFINITY);
    }
    let mut max = [f32::NEG_INFINITY; PAGE];
    for scores in row.iter() {
        for lane in 0..PAGE {
            max[lane] = if scores[lane] > max[lane] { scores[lane] } else { max[lane] };
        }
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; PAGE];
    for scores in row.iter_mut() {
        for lane in 0..PAGE {
            let e = exp(scores[lane] - max);
            scores[lane] = if scores[lane] == f32::NEG_INFINITY { 0.0 } else { e };
            sums[lane] += scores[lane];
        }
    }
    let scale = 1.0 / sum_lanes(sums);
    for scores in row.iter_mut() {
        for weight in scores {
            *weight *= scale;
        }
    }
}

/// Σ weight · value for `N` neighbouring elements of a head, from `at` on: even and odd positions are summed apart, each
/// in order. The lanes past `len` are not read: a page's unused slots hold whatever was there before.
#[inline(always)]
fn mix_values<const N: usize>(
    row: &[[f32; PAGE]],
    len: usize,
    pages: &[Page],
    head: HeadAt,
    at: usize,
    stride: usize,
) -> [f32; N] {
    let mut even = [0f32; N];
    let mut odd = [0f32; N];
    for (index, (page, weights)) in pages.iter().zip(row).enumerate() {
        let (_, values) = head.layout.head(page, head.layer, head.kv_head);
        let here = PAGE.min(len - index * PAGE);
        let mut positions = weights[..here].iter().zip(values.chunks_exact(stride));
        while let Some((weight, value)) = positions.next() {
            if let Some(value) = value[at..].first_chunk::<N>() {
                for lane in 0..N {
                    even[lane] = value[lane].mul_add(*weight, even[lane]);
                }
            }
            let Some((weight, value)) = positions.next() else {
                break;
            };
            if let Some(value) = value[at..].first_chunk::<N>() {
                for lane in 0..N {
                    odd[lane] = value[lane].mul_add(*weight, odd[lane]);
                }
            }
        }
    }
    for lane in 0..N {
        even[lane] += odd[lane];
    }
    even
}
