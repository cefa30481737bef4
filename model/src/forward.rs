//! One pass over packed rows of many sequences.
//!
//! The rows of all steps are packed one under another; matrices run over all of them at once, attention runs row by row
//! over each row's own cache. With several threads the *sequences* are divided and each thread runs the whole pass for
//! its share, so threads meet only at the end.

use std::{collections::BTreeSet, ops::Range, sync::atomic::Ordering};

use specfleet_files::room;

use crate::{
    KvArena, Model, ModelError, SeqId,
    arena::{Cache, PAGE, PageLayout},
    attention::{Heads, attend},
    elementwise::{add, rms_norm, silu_mul},
    linear::Workspace,
    model::ModelInner,
};

/// Rows that go through all layers together. It bounds the workspace, and keeps a tile's activations in the second-level
/// cache; a longer pass is a sequence of such tiles, which by batch invariance changes nothing.
const TILE_ROWS: usize = 64;

/// Which of a step's new rows need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// None: the step only fills the cache.
    None,
    /// The last `n`, or all if there are fewer.
    Last(usize),
    All,
}

/// One sequence's part of a pass.
#[derive(Debug, Clone, Copy)]
pub struct SeqStep<'a> {
    /// The sequence; at most once per pass.
    pub seq: SeqId,
    /// The tokens to append to it, at least one.
    pub tokens: &'a [u32],
    /// The rows whose logits are wanted.
    pub logits: LogitRows,
    /// The layer whose attention by the last new row is wanted.
    pub attention: Option<usize>,
}

impl SeqStep<'_> {
    fn logit_rows(&self) -> usize {
        match self.logits {
            LogitRows::None => 0,
            LogitRows::Last(n) => n.min(self.tokens.len()),
            LogitRows::All => self.tokens.len(),
        }
    }
}

/// What the head makes of a row that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Logits,
    /// The state that logits are computed from, after the last norm: `[hidden]`.
    States,
}

/// The final states of the rows asked for, by index of the step.
#[derive(Debug)]
pub struct States(ForwardOutput);

impl States {
    /// Those of step `step`: `[rows asked for, hidden]`, row-major, in the order of its tokens.
    pub fn states(&self, step: usize) -> &[f32] {
        self.0.logits(step)
    }
}

/// What a pass computed, by index of the step.
#[derive(Debug)]
pub struct ForwardOutput {
    /// Width of a row of `logits`.
    vocab: usize,
    shares: Vec<ShareOutput>,
    steps: Vec<StepRef>,
}

#[derive(Debug, Clone, Default)]
struct StepRef {
    share: usize,
    logits: Range<usize>,
    attention: Range<usize>,
}

#[derive(Debug, Default)]
struct ShareOutput {
    logits: Vec<f32>,
    attention: Vec<f32>,
}

impl ForwardOutput {
    /// The logits of step `step`: `[rows asked for, vocab]`, row-major, in the order of its tokens.
    pub fn logits(&self, step: usize) -> &[f32] {
        let step = &self.steps[step];
        &self.shares[step.share].logits[step.logits.clone()]
    }

    /// The logits of row `row` among those asked for in step `step`: `[vocab]`.
    pub fn logits_row(&self, step: usize, row: usize) -> &[f32] {
        &self.logits(step)[row * self.vocab..][..self.vocab]
    }

    /// The attention of the last new row of step `step` in the layer asked for: `[heads, length of the cache with the
    /// new tokens]`, row-major, each row summing to 1. Empty if none was asked for.
    pub fn attention(&self, step: usize) -> &[f32] {
        let step = &self.steps[step];
        &self.shares[step.share].attention[step.attention.clone()]
    }
}

impl Model {
    /// Appends each step's tokens to its sequence and computes what it asks for.
    ///
    /// On an error nothing has changed: every sequence keeps its length. The same holds if a worker panics.
    ///
    /// Errors: an unknown or repeated sequence, an empty step, a token outside the vocabulary, a sequence that would
    /// exceed the context, a layer that does not exist, an arena of another shape, or a pass that does not fit into the
    /// arena's budget.
    pub fn forward(&self, arena: &mut KvArena, steps: &[SeqStep<'_>]) -> Result<ForwardOutput, ModelError> {
        self.pass(arena, steps, Head::Logits)
    }

    /// The same pass with the final states of the rows asked for in place of their logits.
    pub fn forward_states(&self, arena: &mut KvArena, steps: &[SeqStep<'_>]) -> Result<States, ModelError> {
        self.pass(arena, steps, Head::States).map(States)
    }

    fn pass(&self, arena: &mut KvArena, steps: &[SeqStep<'_>], head: Head) -> Result<ForwardOutput, ModelError> {
        self.check(arena, steps)?;
        let width = match head {
            Head::Logits => self.shape().vocab,
            Head::States => self.shape().hidden,
        };
        let growth: Vec<_> = steps.iter().map(|s| (s.seq, s.tokens.len())).collect();
        let threads = arena.threads.min(steps.len()).max(1);
        let layout = arena.layout;
        let mut in_flight = arena.begin(&growth)?;
        let (caches, scratch) = in_flight.caches();
        scratch.resize_with(threads.max(scratch.len()), ForwardScratch::default);

        let jobs: Vec<ForwardJob<'_>> = steps
            .iter()
            .zip(caches)
            .enumerate()
            .map(|(index, (step, cache))| ForwardJob { index, step: *step, cache })
            .collect();
        let shares = divide(jobs, threads);
        let mut steps_at = vec![StepRef::default(); steps.len()];
        let mut outputs = Vec::with_capacity(threads);
        for (share, jobs) in shares.iter().enumerate() {
            outputs.push(self.place(share, jobs, width, &mut steps_at));
        }

        let inner = self.inner();
        {
            let work = shares.into_iter().zip(scratch.iter_mut()).zip(outputs.iter_mut());
            room::share_out(work, |((jobs, scratch), output)| {
                run_share(inner, layout, jobs, head, &steps_at, scratch, output);
            });
        }
        in_flight.commit(steps.iter().map(|s| s.tokens.len()));
        Ok(ForwardOutput { vocab: width, shares: outputs, steps: steps_at })
    }

    fn check(&self, arena: &KvArena, steps: &[SeqStep<'_>]) -> Result<(), ModelError> {
        if !arena.fits(self) {
            return Err(ModelError::ForeignArena);
        }
        let shape = self.shape();
        let mut seen = BTreeSet::new();
        for step in steps {
            if !arena.contains(step.seq) {
                return Err(ModelError::UnknownSequence(step.seq));
            }
            if !seen.insert(step.seq) {
                return Err(ModelError::DuplicateSequence(step.seq));
            }
            if step.tokens.is_empty() {
                return Err(ModelError::EmptyStep(step.seq));
            }
            if let Some(&token) = step.tokens.iter().find(|t| **t as usize >= shape.vocab) {
                return Err(ModelError::TokenOutOfRange { token, vocab: shape.vocab });
            }
            let len = arena.len(step.seq);
            if len + step.tokens.len() > shape.context {
                return Err(ModelError::ContextExceeded {
                    seq: step.seq,
                    len,
                    new: step.tokens.len(),
                    context: shape.context,
                });
            }
            if let Some(layer) = step.attention.filter(|l| *l >= shape.layers) {
                return Err(ModelError::LayerOutOfRange { layer, layers: shape.layers });
            }
        }
        Ok(())
    }

    /// Says where in a share's output each of its steps writes, and allocates it.
    fn place(&self, share: usize, jobs: &[ForwardJob<'_>], width: usize, steps_at: &mut [StepRef]) -> ShareOutput {
        let shape = self.shape();
        let (mut logits, mut attention) = (0, 0);
        for job in jobs {
            let logits_at = logits;
            let attention_at = attention;
            logits += job.step.logit_rows() * width;
            if job.step.attention.is_some() {
                attention += shape.heads * (job.cache.len + job.step.tokens.len());
            }
            steps_at[job.index] = StepRef { share, logits: logits_at..logits, attention: attention_at..attention };
        }
        ShareOutput { logits: vec![0.0; logits], attention: vec![0.0; attention] }
    }
}

/// One step with the cache it grows.
struct ForwardJob<'a> {
    index: usize,
    step: SeqStep<'a>,
    cache: &'a mut Cache,
}

/// Divides jobs into shares of about equal numbers of rows: longest first, each to the lightest share.
fn divide(mut jobs: Vec<ForwardJob<'_>>, threads: usize) -> Vec<Vec<ForwardJob<'_>>> {
    if threads == 1 {
        return vec![jobs];
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.step.tokens.len()));
    let mut shares: Vec<(usize, Vec<ForwardJob<'_>>)> = (0..threads).map(|_| (0, Vec::new())).collect();
    for job in jobs {
        if let Some((rows, share)) = shares.iter_mut().min_by_key(|(rows, _)| *rows) {
            *rows += job.step.tokens.len();
            share.push(job);
        }
    }
    shares.into_iter().map(|(_, share)| share).collect()
}

/// Buffers of a tile, reused from pass to pass.
#[derive(Default)]
pub(crate) struct ForwardScratch {
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    projected: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    attention: Vec<f32>,
    products: Workspace,
}

/// One packed row: which job it belongs to, and the index of its token in the step.
#[derive(Clone, Copy)]
struct TokenRow {
    job: usize,
    at: usize,
}

fn run_share(
    model: &ModelInner,
    layout: PageLayout,
    mut jobs: Vec<ForwardJob<'_>>,
    head: Head,
    steps_at: &[StepRef],
    scratch: &mut ForwardScratch,
    output: &mut ShareOutput,
) {
    let rows: Vec<TokenRow> = jobs
        .iter()
        .enumerate()
        .flat_map(|(job, j)| (0..j.step.tokens.len()).map(move |at| TokenRow { job, at }))
        .collect();
    let mut logits_done = 0;
    for tile in rows.chunks(TILE_ROWS) {
        run_layers(model, layout, &mut jobs, tile, steps_at, scratch, &mut output.attention);
        logits_done += run_head(model, &jobs, tile, head, scratch, &mut output.logits[logits_done..]);
    }
}

/// Runs a tile through all layers; leaves the residual stream in `scratch.x` and the keys and values in the caches.
fn run_layers(
    model: &ModelInner,
    layout: PageLayout,
    jobs: &mut [ForwardJob<'_>],
    tile: &[TokenRow],
    steps_at: &[StepRef],
    scratch: &mut ForwardScratch,
    attention_out: &mut [f32],
) {
    let shape = &model.shape;
    let (hidden, kv) = (shape.hidden, shape.kv_dim());
    let sizes = Heads { heads: shape.heads, kv_heads: shape.kv_heads, head_dim: shape.head_dim };
    let rows = tile.len();
    scratch.x.clear();
    for row in tile {
        let token = jobs[row.job].step.tokens[row.at] as usize;
        scratch.x.extend_from_slice(&model.weights.embeddings[token * hidden..][..hidden]);
    }
    scratch.normed.resize(rows * hidden, 0.0);
    scratch.attended.resize(rows * hidden, 0.0);
    scratch.projected.resize(rows * hidden, 0.0);
    scratch.activated.resize(rows * shape.ffn, 0.0);

    for (index, layer) in model.weights.layers.iter().enumerate() {
        let ForwardScratch { x, normed, qkv, attended, projected, gate_up, activated, attention, products } = scratch;
        rms_norm(x, &layer.attention_norm, shape.rms_eps, normed);
        qkv.resize(rows * layer.qkv.columns(), 0.0);
        layer.qkv.apply(normed, qkv, products);

        for (row, qkv) in tile.iter().zip(qkv.chunks_exact_mut(hidden + 2 * kv)) {
            let cache = &mut *jobs[row.job].cache;
            let pos = cache.len + row.at;
            let (qk, value) = qkv.split_at_mut(hidden + kv);
            model.rope.rotate(qk, pos);
            layout.write(&mut cache.pages[pos / PAGE], index, pos % PAGE, &qk[hidden..], value);
        }
        let queries = qkv.chunks_exact_mut(hidden + 2 * kv).zip(attended.chunks_exact_mut(hidden));
        for (row, (qkv, out)) in tile.iter().zip(queries) {
            let job = &jobs[row.job];
            let len = job.cache.len + row.at + 1;
            let padded = len.next_multiple_of(PAGE);
            attention.resize(shape.heads * padded, 0.0);
            attend(&mut qkv[..hidden], &job.cache.pages, layout, index, len, sizes, attention, out);
            if job.step.attention == Some(index) && row.at + 1 == job.step.tokens.len() {
                let out = &mut attention_out[steps_at[job.index].attention.clone()];
                for (out, weights) in out.chunks_exact_mut(len).zip(attention.chunks_exact(padded)) {
                    out.copy_from_slice(&weights[..len]);
                }
            }
        }
        layer.attention_out.apply(attended, projected, products);
        add(x, projected);

        rms_norm(x, &layer.ffn_norm, shape.rms_eps, normed);
        gate_up.resize(rows * layer.gate_up.columns(), 0.0);
        layer.gate_up.apply(normed, gate_up, products);
        silu_mul(gate_up, shape.ffn, activated);
        layer.down.apply(activated, projected, products);
        add(x, projected);
    }
}

/// Computes the logits (or states) of the rows of a tile that need them, into the front of `out`; returns how many
/// numbers.
fn run_head(
    model: &ModelInner,
    jobs: &[ForwardJob<'_>],
    tile: &[TokenRow],
    head: Head,
    scratch: &mut ForwardScratch,
    out: &mut [f32],
) -> usize {
    let hidden = model.shape.hidden;
    let ForwardScratch { x, normed, projected, products, .. } = scratch;
    projected.clear();
    for (row, x) in tile.iter().zip(x.chunks_exact(hidden)) {
        let step = &jobs[row.job].step;
        if row.at >= step.tokens.len() - step.logit_rows() {
            projected.extend_from_slice(x);
        }
    }
    normed.resize(projected.len(), 0.0);
    rms_norm(projected, &model.weights.final_norm, model.shape.rms_eps, normed);
    if head == Head::States {
        out[..normed.len()].copy_from_slice(normed);
        return normed.len();
    }
    let numbers = projected.len() / hidden * model.shape.vocab;
    let logits = &mut out[..numbers];
    model.weights.head.apply(normed, logits, products);
    let is_finite = |row: &[f32]| row.iter().fold(true, |all, logit| all & logit.is_finite());
    let odd = logits.chunks_exact(model.shape.vocab).filter(|row| !is_finite(row)).count();
    if odd > 0 {
        model.non_finite.fetch_add(odd as u64, Ordering::Relaxed);
    }
    numbers
}
