//! The KV caches of many sequences under one byte budget.
//!
//! A cache is a list of pages of [`PAGE`] positions. A page holds all layers and heads of its positions, so that a
//! sequence costs one allocation per [`PAGE`] tokens and eviction is a list hand-back. Freed pages are kept for reuse.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, thread::available_parallelism};

use crate::{Model, ModelError, ModelShape, forward::ForwardScratch};

/// Positions per page, and the lanes of the attention kernel.
pub(crate) const PAGE: usize = 16;

/// Names a sequence of one arena; never reused within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(u64);

impl fmt::Display for SeqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sequence {}", self.0)
    }
}

/// Where the parts of a page lie: `[layer][kv_head]{ keys [head_dim][PAGE], values [PAGE][head_dim] }`. Keys are stored
/// across positions, so that the scores of a page's positions are computed side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageLayout {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl PageLayout {
    fn new(shape: &ModelShape) -> Self {
        Self { layers: shape.layers, kv_heads: shape.kv_heads, head_dim: shape.head_dim }
    }

    fn floats(self) -> usize {
        self.layers * self.kv_heads * 2 * PAGE * self.head_dim
    }

    fn bytes(self) -> usize {
        self.floats() * size_of::<f32>()
    }

    /// The keys and values of one head of one layer.
    #[inline(always)]
    pub(crate) fn head(self, page: &[f32], layer: usize, kv_head: usize) -> (&[f32], &[f32]) {
        let half = PAGE * self.head_dim;
        page[(layer * self.kv_heads + kv_head) * 2 * half..][..2 * half].split_at(half)
    }

    /// Writes one position's keys and values, each `[kv_heads · head_dim]`, into `layer`.
    pub(crate) fn write(self, page: &mut [f32], layer: usize, slot: usize, key: &[f32], value: &[f32]) {
        let half = PAGE * self.head_dim;
        let heads = page[layer * self.kv_heads * 2 * half..].chunks_exact_mut(2 * half);
        let new = key.chunks_exact(self.head_dim).zip(value.chunks_exact(self.head_dim));
        for (head, (key, value)) in heads.zip(new) {
            let (keys, values) = head.split_at_mut(half);
            for (lanes, k) in keys.chunks_exact_mut(PAGE).zip(key) {
                lanes[slot] = *k;
            }
            values[slot * self.head_dim..][..self.head_dim].copy_from_slice(value);
        }
    }
}

pub(crate) type Page = Box<[f32]>;

/// One sequence's cache: `pages` hold at least `len` positions.
#[derive(Default)]
pub(crate) struct Cache {
    pub(crate) len: usize,
    pub(crate) pages: Vec<Page>,
}

/// The caches of many sequences of one model shape, bounded in bytes, and the workspace of the passes that use them.
///
/// A sequence is opened empty, grows by [`Model::forward`], is rolled back by [`truncate`](Self::truncate), gives its
/// memory back by [`evict`](Self::evict) (and is then rebuilt by feeding its tokens again, with the same bits), and is
/// closed.
pub struct KvArena {
    pub(crate) layout: PageLayout,
    pub(crate) threads: usize,
    pub(crate) scratch: Vec<ForwardScratch>,
    budget: usize,
    caches: BTreeMap<SeqId, Cache>,
    next: u64,
    /// Pages out of use, kept to be handed out again; they count against the budget only when they are.
    free: Vec<Page>,
    pages_in_use: usize,
}

/// How many of `asked` threads for a model's passes can help on this machine: results do not depend on it, and more than
/// there are cores only wait for each other.
pub fn useful_threads(asked: usize) -> usize {
    asked.min(available_parallelism().map_or(1, NonZeroUsize::get)).max(1)
}

impl KvArena {
    /// An arena for `model` that never holds more than `byte_budget` bytes of keys and values; its passes run on the
    /// calling thread alone.
    pub fn new(model: &Model, byte_budget: usize) -> Self {
        Self {
            layout: PageLayout::new(model.shape()),
            threads: 1,
            scratch: Vec::new(),
            budget: byte_budget,
            caches: BTreeMap::new(),
            next: 0,
            free: Vec::new(),
            pages_in_use: 0,
        }
    }

    /// Bytes that a sequence of `tokens` tokens of this model takes, in whole pages.
    pub fn bytes_of(model: &Model, tokens: usize) -> usize {
        tokens.div_ceil(PAGE) * PageLayout::new(model.shape()).bytes()
    }

    /// Lets passes over this arena use up to `threads` threads, the calling one included; sequences are divided among
    /// them, so one sequence alone always runs on one thread. Results do not depend on it.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Opens an empty sequence; takes no memory yet.
    pub fn open(&mut self) -> SeqId {
        let id = SeqId(self.next);
        self.next += 1;
        self.caches.insert(id, Cache::default());
        id
    }

    /// Tokens in the cache of `seq`; 0 for one that is not open.
    pub fn len(&self, seq: SeqId) -> usize {
        self.caches.get(&seq).map_or(0, |c| c.len)
    }

    /// Whether no sequence is open.
    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// Whether `seq` is open in this arena.
    pub fn contains(&self, seq: SeqId) -> bool {
        self.caches.contains_key(&seq)
    }

    /// Number of open sequences.
    pub fn sequences(&self) -> usize {
        self.caches.len()
    }

    /// Rolls `seq` back to its first `len` tokens and frees the pages beyond; nothing happens if it is no longer.
    pub fn truncate(&mut self, seq: SeqId, len: usize) {
        if let Some(cache) = self.caches.get_mut(&seq)
            && len < cache.len
        {
            cache.len = len;
            let freed = cache.pages.drain(len.div_ceil(PAGE)..);
            self.pages_in_use -= freed.len();
            self.free.extend(freed);
        }
    }

    /// Frees the cache of `seq` but keeps it open, with length 0.
    pub fn evict(&mut self, seq: SeqId) {
        self.truncate(seq, 0);
    }

    /// Frees the cache of `seq` and forgets it; nothing happens if it is not open.
    pub fn close(&mut self, seq: SeqId) {
        self.evict(seq);
        self.caches.remove(&seq);
    }

    /// Bytes of keys and values held by open sequences, in whole pages.
    pub fn bytes_used(&self) -> usize {
        self.pages_in_use * self.layout.bytes()
    }

    /// The most bytes of keys and values that open sequences may hold.
    pub fn byte_budget(&self) -> usize {
        self.budget
    }

    /// Bytes that `seq` would additionally take if `new` tokens were appended.
    pub fn bytes_to_append(&self, seq: SeqId, new: usize) -> usize {
        self.pages_to_append(seq, new) * self.layout.bytes()
    }

    fn pages_to_append(&self, seq: SeqId, new: usize) -> usize {
        let held = self.caches.get(&seq).map_or(0, |c| c.pages.len());
        (self.len(seq) + new).div_ceil(PAGE).saturating_sub(held)
    }

    pub(crate) fn fits(&self, model: &Model) -> bool {
        self.layout == PageLayout::new(model.shape())
    }

    /// Takes the caches of the sequences out for a pass, each with room for its new tokens. They return when the
    /// result is dropped: with their old lengths, unless [`InFlight::commit`] was called. All named sequences are open
    /// and distinct.
    pub(crate) fn begin(&mut self, growth: &[(SeqId, usize)]) -> Result<InFlight<'_>, ModelError> {
        let pages: usize = growth.iter().map(|(seq, new)| self.pages_to_append(*seq, *new)).sum();
        let (used, needed) = (self.bytes_used(), pages * self.layout.bytes());
        if used + needed > self.budget {
            return Err(ModelError::BudgetExceeded { used, needed, budget: self.budget });
        }
        let mut taken = Vec::with_capacity(growth.len());
        for (seq, new) in growth {
            let missing = self.pages_to_append(*seq, *new);
            let mut cache = self.caches.get_mut(seq).map(std::mem::take).unwrap_or_default();
            for _ in 0..missing {
                let floats = self.layout.floats();
                let page = self.free.pop();
                cache.pages.push(page.unwrap_or_else(|| vec![0f32; floats].into_boxed_slice()));
            }
            self.pages_in_use += missing;
            taken.push((*seq, cache));
        }
        Ok(InFlight { scratch: std::mem::take(&mut self.scratch), arena: self, taken })
    }
}

/// Caches that are taken out of their arena for one pass.
pub(crate) struct InFlight<'a> {
    arena: &'a mut KvArena,
    pub(crate) scratch: Vec<ForwardScratch>,
    taken: Vec<(SeqId, Cache)>,
}

impl InFlight<'_> {
    /// The caches, in the order in which [`KvArena::begin`] was given them.
    pub(crate) fn caches(&mut self) -> (impl Iterator<Item = &mut Cache>, &mut Vec<ForwardScratch>) {
        (self.taken.iter_mut().map(|(_, cache)| cache), &mut self.scratch)
    }

    /// Makes the new tokens count: each sequence grows by its entry in `new`.
    pub(crate) fn commit(mut self, new: impl Iterator<Item = usize>) {
        for ((_, cache), new) in self.taken.iter_mut().zip(new) {
            cache.len += new;
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.arena.scratch = std::mem::take(&mut self.scratch);
        for (seq, mut cache) in self.taken.drain(..) {
            let spare = cache.pages.drain(cache.len.div_ceil(PAGE)..);
            self.arena.pages_in_use -= spare.len();
            self.arena.free.extend(spare);
            self.arena.caches.insert(seq, cache);
        }
    }
}
