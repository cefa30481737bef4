//! One verifier replica as the machine sees it: its state, its queue and what it computes.

use std::collections::BTreeMap;

use super::breaker::Circuit;
use super::job::RunningBatch;
use super::order::{ReadyJobs, Ticket};
use super::settings::QueueOrder;
use crate::time::{Span, Time};

#[derive(Debug)]
pub(super) struct VerifierSlot {
    /// From `VerifierReady` to `VerifierFailed`.
    pub(super) alive: bool,
    pub(super) stage: Stage,
    pub(super) breaker: Circuit,
    /// Jobs that could be computed now.
    pub(super) ready: ReadyJobs,
    /// Jobs whose session is still in a batch, by number: an upload that was cancelled and followed by another.
    pub(super) parked: BTreeMap<u64, u32>,
    pub(super) queued_tokens: u64,
    pub(super) running: Option<RunningBatch>,
    /// When the wait for its batch to fill ends.
    pub(super) due: Option<Time>,
    /// Something has changed that may let it start a batch.
    pub(super) touched: bool,
    /// Among those that take work, as of the last look.
    pub(super) counted: bool,
    pub(super) batches: u64,
    pub(super) busy: Span,
    pub(super) off: Span,
    pub(super) restarts: u32,
}

/// What a verifier does, for whoever watches the pool. No decision looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Waits for a batch.
    Idle,
    Busy,
    /// Has failed and is not back yet.
    Down,
    /// Takes no work: scaled away, or not started yet.
    Off,
}

/// What the autoscaler has made of it. Only one that is on takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    On,
    /// Draws power, takes no work yet.
    Starting(Time),
    Draining,
    /// Draws nothing, since then (or since the phase began).
    Off(Time),
}

impl VerifierSlot {
    pub(super) fn new(order: QueueOrder, stage: Stage) -> VerifierSlot {
        VerifierSlot {
            alive: true,
            stage,
            breaker: Circuit::closed(),
            ready: ReadyJobs::new(order),
            parked: BTreeMap::new(),
            queued_tokens: 0,
            running: None,
            due: None,
            touched: false,
            counted: false,
            batches: 0,
            busy: Span::ZERO,
            off: Span::ZERO,
            restarts: 0,
        }
    }

    pub(super) fn activity(&self) -> Activity {
        match (self.alive, &self.running, self.stage) {
            (false, ..) => Activity::Down,
            (true, Some(_), _) => Activity::Busy,
            (true, None, Stage::On | Stage::Draining) => Activity::Idle,
            (true, None, Stage::Starting(_) | Stage::Off(_)) => Activity::Off,
        }
    }

    pub(super) fn takes_work(&self) -> bool {
        self.alive && self.stage == Stage::On
    }

    /// Tokens ahead of a new job.
    pub(super) fn load(&self) -> u64 {
        self.queued_tokens + self.running.as_ref().map_or(0, |running| running.tokens)
    }

    /// Slots of all jobs in the queue, by age.
    pub(super) fn waiting(&self) -> Vec<u32> {
        let mut jobs: Vec<(u64, u32)> = self.ready.by_age().collect();
        jobs.extend(self.parked.iter().map(|(&number, &slot)| (number, slot)));
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, slot)| slot).collect()
    }

    pub(super) fn insert(&mut self, ticket: &Ticket, parked: bool) {
        self.queued_tokens += u64::from(ticket.tokens);
        if parked {
            self.parked.insert(ticket.number, ticket.slot);
        } else {
            self.ready.insert(ticket);
        }
    }

    pub(super) fn remove(&mut self, ticket: &Ticket, parked: bool) {
        self.queued_tokens -= u64::from(ticket.tokens);
        if parked {
            self.parked.remove(&ticket.number);
        } else {
            self.ready.remove(ticket);
        }
    }

    /// A job goes from the queue into a batch.
    pub(super) fn dispatch(&mut self, ticket: &Ticket) {
        self.queued_tokens -= u64::from(ticket.tokens);
        self.ready.dispatch(ticket);
    }

    /// The same job, with another amount of work.
    pub(super) fn rebook(&mut self, old: &Ticket, new: &Ticket, parked: bool) {
        self.queued_tokens = self.queued_tokens - u64::from(old.tokens) + u64::from(new.tokens);
        if !parked {
            self.ready.rebook(old, new);
        }
    }
}
