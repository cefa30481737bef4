//! What a drafter computes, without thread or clock: a model, its KV arena, and what is read off a draft step. The live
//! drafter and the simulated one are both built on it.

use specfleet_engine::device::gate::{AttentionRows, lookahead_importance};
use specfleet_engine::device::payload::Payload;
use specfleet_engine::device::{DraftSpec, Drafted, Lookback, draft_outcome};
use specfleet_engine::method::ImportanceStatistic;
use specfleet_engine::random::DrawKey;
use specfleet_model::{ForwardOutput, KvArena, LogitRows, Model, ModelError, SeqId, SeqStep};

use crate::error::DraftError;

/// The drafter's half of drafting: its model and the KV caches of its sequences.
pub struct Drafting {
    model: Model,
    arena: KvArena,
}

/// A draft step. `H` says where its sequence's cache is.
#[derive(Debug)]
pub struct DraftJob<H> {
    pub(crate) sequence: H,
    /// Leading tokens of the cache that still hold; the rest is rolled back.
    pub(crate) keep: usize,
    /// Tokens to feed behind them; the draft follows the last one.
    pub(crate) tokens: Vec<u32>,
    pub(crate) spec: DraftSpec,
    /// Key of the draft's position.
    pub(crate) key: DrawKey,
}

/// What a step yields.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The draft, its signals and its distribution.
    pub drafted: Drafted,
    /// The draft's distribution as it would travel.
    pub payload: Payload,
    /// Nominal bits of the payload.
    pub payload_bits: u32,
    /// With `lookahead`: the importance of the draft two positions earlier.
    pub lookback: Option<Lookback>,
}

impl Drafting {
    /// A model with an empty arena of at most `kv_bytes`; a pass runs on up to `threads` threads.
    pub fn new(model: Model, kv_bytes: usize, threads: usize) -> Drafting {
        let arena = KvArena::new(&model, kv_bytes).with_threads(threads);
        Drafting { model, arena }
    }

    /// A new, empty sequence.
    pub fn open(&mut self) -> SeqId {
        self.arena.open()
    }

    /// Frees a sequence.
    pub fn close(&mut self, seq: SeqId) {
        self.arena.close(seq);
    }

    /// Rolls a sequence back to its first `keep` tokens.
    pub fn roll_back(&mut self, seq: SeqId, keep: usize) -> Result<(), DraftError> {
        self.arena.truncate(seq, keep);
        let held = self.arena.len(seq);
        if held == keep { Ok(()) } else { Err(DraftError::LostCache { held, wanted: keep }) }
    }

    /// Computes steps in one pass; their sequences are rolled back already. One draft per step, in order. A pass that fails
    /// has changed nothing.
    pub fn compute<H>(&mut self, jobs: &[(SeqId, &DraftJob<H>)]) -> Result<Vec<Draft>, ModelError> {
        let steps: Vec<SeqStep<'_>> = jobs
            .iter()
            .map(|(seq, job)| SeqStep {
                seq: *seq,
                tokens: &job.tokens,
                logits: LogitRows::Last(1),
                attention: job.spec.importance.map(|rule| usize::from(rule.layer)),
            })
            .collect();
        let output = self.model.forward(&mut self.arena, &steps)?;
        Ok(jobs.iter().enumerate().map(|(index, (_, job))| self.draft(job, &output, index)).collect())
    }

    /// Everything that is read off one step's logits and attention.
    fn draft<H>(&self, job: &DraftJob<H>, output: &ForwardOutput, index: usize) -> Draft {
        let shape = self.model.shape();
        // The rows belong to the query at the last token fed, which is the position before the draft's.
        let position = job.keep + job.tokens.len();
        let attention = AttentionRows::new(shape.heads, position, output.attention(index));
        let drafted = draft_outcome(output.logits(index), attention, job.key, &job.spec);
        let lookback = match job.spec.importance {
            Some(rule) if rule.statistic == ImportanceStatistic::Lookahead => {
                attention.zip(position.checked_sub(2)).map(|(rows, received_at)| {
                    let reading = lookahead_importance(rows, received_at);
                    Lookback { importance: reading.value, threshold: reading.threshold(rule.kappa) }
                })
            }
            _ => None,
        };
        let payload = Payload::encode(&job.spec.payload, &drafted.distribution, drafted.token);
        // At most V·32 bits, with V far below 2^27.
        let payload_bits = u32::try_from(payload.nominal_bits(shape.vocab)).unwrap_or(u32::MAX);
        Draft { drafted, payload, payload_bits, lookback }
    }
}
