//! The `VerifierActor` actor: one model replica with its KV arena, on a thread of its own. It runs one whole batch per
//! message, and dies with everything it holds when anything in it panics.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Actor, ActorContext, Context, Handler, Message, MessageResult};
use specfleet_engine::pool::SessionKey;
use specfleet_engine::time::{Span, Time};
use specfleet_timer::HostClock;

use crate::judge::{ItemAnswer, Judge};
use crate::replica::Blueprint;
use crate::status::KvHeld;
use crate::store::VerifyTask;

/// What a verifier is to do; it carries orders out one after another.
pub(crate) enum VerifierOrder {
    /// Free the cache of this session.
    Free(SessionKey),
    Batch(BatchOrder),
    /// Nothing: a step for a kill to happen in when there is nothing else to do.
    Step,
}

/// A batch with the tokens of its items.
pub(crate) struct BatchOrder {
    pub(crate) batch: u64,
    /// Caches to free first.
    pub(crate) evict: Vec<SessionKey>,
    /// Its items; `None` for one that has nothing to compute.
    pub(crate) tasks: Vec<Option<VerifyTask>>,
    /// When it was ordered.
    pub(crate) ordered: Time,
}

/// The orders that have gathered since the last answer, at most one of them a batch.
#[derive(Message)]
#[rtype(result = "Result<VerifierAnswer, VerifierFailed>")]
pub(crate) struct Orders(pub(crate) Vec<VerifierOrder>);

/// All orders are carried out.
pub(crate) struct VerifierAnswer {
    /// The batch among them.
    pub(crate) batch: Option<BatchAnswer>,
    /// What the arena holds now.
    pub(crate) held: KvHeld,
}

pub(crate) struct BatchAnswer {
    pub(crate) batch: u64,
    /// From the order until the start of the computation.
    pub(crate) waited: Span,
    /// How long it computed.
    pub(crate) compute: Span,
    /// One per item, in order.
    pub(crate) items: Vec<ItemAnswer>,
}

/// The verifier is gone, and all it held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VerifierFailed;

/// The actor of one verifier, on a thread of its own.
pub(crate) struct VerifierActor {
    judge: Judge,
    clock: HostClock,
    /// Set from outside to make the next step fail.
    kill: Arc<AtomicBool>,
}

impl Actor for VerifierActor {
    type Context = Context<Self>;
}

impl Handler<Orders> for VerifierActor {
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

impl VerifierActor {
    /// A replica with an empty cache that dies when `kill` is set.
    pub(crate) fn new(blueprint: Blueprint, kill: Arc<AtomicBool>) -> Self {
        let Blueprint { model, arena_bytes, threads, clock } = blueprint;
        VerifierActor { judge: Judge::new(model, arena_bytes, threads), clock, kill }
    }

    fn carry_out(&mut self, orders: Vec<VerifierOrder>) -> VerifierAnswer {
        let mut batch = None;
        for order in orders {
            self.die_if_killed();
            match order {
                VerifierOrder::Free(session) => self.judge.free(session),
                VerifierOrder::Batch(order) => batch = Some(self.compute(order)),
                VerifierOrder::Step => {}
            }
        }
        VerifierAnswer { batch, held: self.judge.held() }
    }

    fn compute(&mut self, order: BatchOrder) -> BatchAnswer {
        let started = self.clock.now();
        for session in order.evict {
            self.judge.free(session);
        }
        let items = match self.judge.compute(&order.tasks) {
            Ok(items) => items,
            Err(error) => die(&format!("verifier: batch {} cannot be computed: {error}", order.batch)),
        };
        self.die_if_killed();
        BatchAnswer {
            batch: order.batch,
            waited: started.since(order.ordered),
            compute: self.clock.now().since(started),
            items,
        }
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
