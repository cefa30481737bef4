//! The `Verifier` actor: one model replica with its KV arena, on a thread of its own. It runs one whole batch per
//! message, and dies with everything it holds when anything in it panics.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use actix::{Actor, ActorContext, Context, Handler, Message, MessageResult};
use specfleet_engine::acceptance::{Next, verifier_draw, verify_outcome};
use specfleet_engine::pool::{ItemOutcome, SessionKey};
use specfleet_engine::time::Span;
use specfleet_engine::wire::Job;
use specfleet_model::{KvArena, LogitRows, Model, SeqId, SeqStep};

use crate::status::KvHeld;
use crate::store::Task;

/// What a verifier is to do; it carries orders out one after another.
pub(crate) enum Order {
    /// Free the cache of this session.
    Free(SessionKey),
    /// Compute a batch.
    Batch(BatchOrder),
    /// Nothing: a step for a kill to happen in when there is nothing else to do.
    Step,
}

/// A batch with the tokens of its items.
pub(crate) struct BatchOrder {
    /// Its number.
    pub(crate) batch: u64,
    /// Caches to free first.
    pub(crate) evict: Vec<SessionKey>,
    /// Its items; `None` for one that has nothing to compute.
    pub(crate) tasks: Vec<Option<Task>>,
    /// When it was ordered.
    pub(crate) ordered: Instant,
}

/// The orders that have gathered since the last answer, at most one of them a batch.
#[derive(Message)]
#[rtype(result = "Result<Answer, VerifierFailed>")]
pub(crate) struct Orders(pub(crate) Vec<Order>);

/// All orders are carried out.
pub(crate) struct Answer {
    /// The batch among them.
    pub(crate) batch: Option<BatchAnswer>,
    /// What the arena holds now.
    pub(crate) held: KvHeld,
}

/// A computed batch.
pub(crate) struct BatchAnswer {
    /// Its number.
    pub(crate) batch: u64,
    /// From the order until the start of the computation.
    pub(crate) waited: Span,
    /// How long it computed.
    pub(crate) compute: Span,
    /// One per item, in order.
    pub(crate) items: Vec<ItemAnswer>,
}

/// A computed item: what the machine is told, and what the device is.
pub(crate) struct ItemAnswer {
    /// For the machine.
    pub(crate) outcome: ItemOutcome,
    /// For the device.
    pub(crate) next: Next,
}

/// The verifier is gone, and all it held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VerifierFailed;

/// See the module's documentation.
pub(crate) struct Verifier {
    model: Model,
    arena: KvArena,
    sequences: BTreeMap<SessionKey, SeqId>,
    /// Set from outside to make the next step fail.
    kill: Arc<AtomicBool>,
}

impl Actor for Verifier {
    type Context = Context<Self>;
}

impl Handler<Orders> for Verifier {
    type Result = MessageResult<Orders>;

    fn handle(&mut self, Orders(orders): Orders, ctx: &mut Context<Self>) -> Self::Result {
        // Unwind safety: after a panic nothing of this actor is used again; it stops, and its successor starts empty.
        // Actix's own supervisor would not restart it: a panic takes the whole arbiter down.
        let work = AssertUnwindSafe(|| self.carry_out(orders));
        MessageResult(catch_unwind(work).map_err(|_| {
            ctx.stop();
            VerifierFailed
        }))
    }
}

impl Verifier {
    /// A replica with an empty cache that dies when `kill` is set.
    pub(crate) fn new(model: Model, arena_bytes: usize, threads: usize, kill: Arc<AtomicBool>) -> Self {
        let arena = KvArena::new(&model, arena_bytes).with_threads(threads);
        Verifier { model, arena, sequences: BTreeMap::new(), kill }
    }

    fn carry_out(&mut self, orders: Vec<Order>) -> Answer {
        let mut batch = None;
        for order in orders {
            self.die_if_killed();
            match order {
                Order::Free(session) => self.free(session),
                Order::Batch(order) => batch = Some(self.compute(order)),
                Order::Step => {}
            }
        }
        Answer { batch, held: KvHeld { sequences: self.arena.sequences(), bytes: self.arena.bytes_used() } }
    }

    fn free(&mut self, session: SessionKey) {
        if let Some(seq) = self.sequences.remove(&session) {
            self.arena.close(seq);
        }
    }

    fn compute(&mut self, order: BatchOrder) -> BatchAnswer {
        let started = Instant::now();
        for session in order.evict {
            self.free(session);
        }
        let sequences: Vec<Option<SeqId>> = order.tasks.iter().map(|task| self.prepare(task.as_ref()?)).collect();
        let steps: Vec<SeqStep<'_>> = order
            .tasks
            .iter()
            .zip(&sequences)
            .filter_map(|(task, seq)| {
                let task = task.as_ref()?;
                Some(SeqStep { seq: (*seq)?, tokens: &task.feed, logits: LogitRows::Last(task.rows), attention: None })
            })
            .collect();
        let output = match self.model.forward(&mut self.arena, &steps) {
            Ok(output) => output,
            // Each step was checked, so the cache disagrees with the machine's book: only an empty one helps.
            Err(error) => die(&format!("verifier: batch {} cannot be computed: {error}", order.batch)),
        };
        self.die_if_killed();
        let vocab = self.model.shape().vocab;
        let mut step = 0;
        let mut items = Vec::with_capacity(order.tasks.len());
        for (task, seq) in order.tasks.iter().zip(&sequences) {
            items.push(match (task, seq) {
                (Some(task), Some(_)) => {
                    step += 1;
                    judge(task, output.logits(step - 1), vocab)
                }
                _ => ItemAnswer::malformed(),
            });
        }
        BatchAnswer {
            batch: order.batch,
            waited: span(order.ordered, started),
            compute: span(started, Instant::now()),
            items,
        }
    }

    /// Rolls the task's cache back to what still holds. `None` if the model would not take the task; uploads are checked
    /// at the front door, so that this does not happen.
    fn prepare(&mut self, task: &Task) -> Option<SeqId> {
        let arena = &mut self.arena;
        let shape = self.model.shape();
        let fits = task.keep + task.feed.len() <= shape.context;
        let known = task.feed.iter().all(|&token| (token as usize) < shape.vocab);
        if task.feed.is_empty() || !fits || !known {
            return None;
        }
        let seq = *self.sequences.entry(task.session).or_insert_with(|| arena.open());
        arena.truncate(seq, task.keep);
        if arena.len(seq) != task.keep {
            die(&format!("verifier: a cache holds {} tokens instead of {}", arena.len(seq), task.keep));
        }
        Some(seq)
    }

    fn die_if_killed(&self) {
        if self.kill.load(Ordering::Acquire) {
            // A panic like any other, but silent: it is asked for, and nothing to report as a defect.
            resume_unwind(Box::new("killed"));
        }
    }
}

/// The failure of this replica; caught in `handle`.
fn die(reason: &str) -> ! {
    panic!("{reason}")
}

/// The verdict of one item, from its logits: `[task.rows, vocab]`.
fn judge(task: &Task, logits: &[f32], vocab: usize) -> ItemAnswer {
    let sampling = &task.upload.sampling;
    match &task.upload.job {
        Job::Write { .. } => {
            let token = verifier_draw(logits, sampling, task.key);
            ItemAnswer::new(0, Next::Bonus(token))
        }
        Job::Judge { drafts, payloads, bonus } => {
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

/// Nanoseconds from `from` to `to`; a run is shorter than the 584 years that fit.
pub(crate) fn span(from: Instant, to: Instant) -> Span {
    Span(to.saturating_duration_since(from).as_nanos() as u64)
}
