//! What a verifier computes, without actor or clock: a model, the KV caches of its sessions, and the verdicts on a batch.
//! The live verifier and the simulated one are both built on it.

use std::collections::BTreeMap;

use specfleet_engine::acceptance::{Next, verifier_draw, verify_outcome};
use specfleet_engine::pool::{ItemOutcome, SessionKey};
use specfleet_engine::wire::UploadJob;
use specfleet_model::{KvArena, LogitRows, Model, ModelError, SeqId, SeqStep};
use thiserror::Error;

use crate::status::KvHeld;
use crate::store::VerifyTask;

/// Judges the sequences of a batch with the verifier model.
pub struct Judge {
    model: Model,
    arena: KvArena,
    sequences: BTreeMap<SessionKey, SeqId>,
}

/// A computed item: what the machine is told, and what the device is.
#[derive(Clone, Debug)]
pub struct ItemAnswer {
    pub outcome: ItemOutcome,
    pub next: Next,
}

/// The caches are not what the machine's book says; only empty ones help.
#[derive(Debug, Error)]
pub enum JudgeError {
    /// The model would not take a batch whose items were all checked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A cache has another length than the machine thinks.
    #[error("a cache holds {held} tokens instead of {wanted}")]
    Cache { held: usize, wanted: usize },
}

impl Judge {
    /// A model with an empty arena of at most `arena_bytes`.
    pub fn new(model: Model, arena_bytes: usize, threads: usize) -> Judge {
        let arena = KvArena::new(&model, arena_bytes).with_threads(threads);
        Judge { model, arena, sequences: BTreeMap::new() }
    }

    /// What the arena holds.
    pub fn held(&self) -> KvHeld {
        KvHeld { sequences: self.arena.sequences(), bytes: self.arena.bytes_used() }
    }

    /// Frees the cache of a session.
    pub fn free(&mut self, session: SessionKey) {
        if let Some(seq) = self.sequences.remove(&session) {
            self.arena.close(seq);
        }
    }

    /// Computes a batch: one answer per task, in order. `None` has nothing to compute, and neither has a task that the
    /// model would not take; both are malformed.
    pub fn compute(&mut self, tasks: &[Option<VerifyTask>]) -> Result<Vec<ItemAnswer>, JudgeError> {
        let mut sequences = Vec::with_capacity(tasks.len());
        for task in tasks {
            sequences.push(match task {
                Some(task) => self.prepare(task)?,
                None => None,
            });
        }
        let steps: Vec<SeqStep<'_>> = tasks
            .iter()
            .zip(&sequences)
            .filter_map(|(task, seq)| {
                let task = task.as_ref()?;
                Some(SeqStep { seq: (*seq)?, tokens: &task.feed, logits: LogitRows::Last(task.rows), attention: None })
            })
            .collect();
        let output = self.model.forward(&mut self.arena, &steps)?;
        let vocab = self.model.shape().vocab;
        let mut step = 0;
        let answer = |(task, seq): (&Option<VerifyTask>, &Option<SeqId>)| match (task, seq) {
            (Some(task), Some(_)) => {
                step += 1;
                judge(task, output.logits(step - 1), vocab)
            }
            _ => ItemAnswer::malformed(),
        };
        Ok(tasks.iter().zip(&sequences).map(answer).collect())
    }

    /// Rolls the task's cache back to what still holds. `None` if the model would not take the task; uploads are checked
    /// at the front door, so that this does not happen.
    fn prepare(&mut self, task: &VerifyTask) -> Result<Option<SeqId>, JudgeError> {
        let arena = &mut self.arena;
        let shape = self.model.shape();
        let fits = task.keep + task.feed.len() <= shape.context;
        let known = task.feed.iter().all(|&token| (token as usize) < shape.vocab);
        if task.feed.is_empty() || !fits || !known {
            return Ok(None);
        }
        let seq = *self.sequences.entry(task.session).or_insert_with(|| arena.open());
        arena.truncate(seq, task.keep);
        let held = arena.len(seq);
        if held != task.keep {
            return Err(JudgeError::Cache { held, wanted: task.keep });
        }
        Ok(Some(seq))
    }
}

/// The verdict of one item, from its logits: `[task.rows, vocab]`.
fn judge(task: &VerifyTask, logits: &[f32], vocab: usize) -> ItemAnswer {
    let sampling = &task.upload.sampling;
    match &task.upload.job {
        UploadJob::Write { .. } => {
            let token = verifier_draw(logits, sampling, task.key);
            ItemAnswer::new(0, Next::Bonus(token))
        }
        UploadJob::Judge { drafts, payloads, bonus } => {
            match verify_outcome(logits, vocab, sampling, task.key, drafts, payloads, *bonus) {
                // At most `MAX_BLOCK` drafts are judged.
                Ok(outcome) => ItemAnswer::new(outcome.accepted as u8, outcome.next),
                Err(_) => ItemAnswer::malformed(),
            }
        }
    }
}

impl ItemAnswer {
    fn new(accepted: u8, next: Next) -> Self {
        let token = match next {
            Next::Replacement(token) | Next::Bonus(token) => Some(token),
            // The device draws it itself and says with its next upload what it drew.
            Next::None | Next::Resample(_) => None,
        };
        ItemAnswer { outcome: ItemOutcome { accepted, next: token, malformed: false }, next }
    }

    fn malformed() -> Self {
        ItemAnswer { outcome: ItemOutcome { accepted: 0, next: None, malformed: true }, next: Next::None }
    }
}
