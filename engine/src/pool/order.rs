//! In which order the jobs of one verifier's queue that can be computed leave it ([`QueueOrder`]).
//!
//! - `fifo`: by number of arrival.
//! - `deadline`: earliest `wanted` first, but those wanted before the next batch (of jobs of average size) can be over, by
//!   the time estimate, go behind those that can be in time. Sorted by `wanted`, they are a prefix.
//! - `value`: highest risk per token of work first. A device that gives no risk counts with 1 per draft, which is also
//!   the most that one may claim.
//! - `fair`: see [`super::fair`].
//!
//! Ties go by number of arrival. **Nothing starves:** `fair` serves everybody in turn; under `deadline` and `value` every
//! [`OLDEST_EVERY`]-th batch of a verifier begins with the oldest job of its queue. A job with n older ones beside it is
//! therefore in one of the next (n + 1) · `OLDEST_EVERY` batches of its verifier, because nobody becomes older than it.

use std::collections::BTreeMap;

use super::fair::Fair;
use super::job::{Queued, QueuedJob};
use super::settings::QueueOrder;
use crate::id::ConnectionId;

pub(super) const OLDEST_EVERY: u64 = 8;

/// What an order knows of a job. The same must be given to take it out as to put it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) slot: u32,
    pub(super) number: u64,
    pub(super) client: ConnectionId,
    pub(super) tokens: u32,
    /// Smaller goes first, in the orders that sort by it.
    key: u64,
}

impl Ticket {
    pub(super) fn new(order: QueueOrder, slot: u32, client: ConnectionId, queued: &Queued) -> Ticket {
        let Queued { job, tokens, .. } = queued;
        let key = match order {
            QueueOrder::Fifo | QueueOrder::Fair => 0,
            QueueOrder::Deadline => job.wanted.0,
            QueueOrder::Value => worth_key(job, *tokens),
        };
        Ticket { slot, number: job.number, client, tokens: *tokens, key }
    }
}

/// Smaller for more risk per token.
fn worth_key(job: &QueuedJob, tokens: u32) -> u64 {
    let most = job.kind.drafts().max(1) as f32;
    let risk = if job.risk.is_nan() { most } else { job.risk.clamp(0.0, most) };
    // A float that is not negative sorts like its bits; `+ 0.0` makes the one negative zero positive.
    u64::from(u32::MAX - (risk / tokens.max(1) as f32 + 0.0).to_bits())
}

/// Jobs that can be computed, in one of the orders.
#[derive(Debug)]
pub(super) struct ReadyJobs {
    by_number: BTreeMap<u64, u32>,
    tokens: u64,
    rank: Rank,
}

#[derive(Debug)]
enum Rank {
    Number,
    Key(BTreeMap<(u64, u64), u32>),
    Client(Fair),
}

impl ReadyJobs {
    pub(super) fn new(order: QueueOrder) -> ReadyJobs {
        let rank = match order {
            QueueOrder::Fifo => Rank::Number,
            QueueOrder::Deadline | QueueOrder::Value => Rank::Key(BTreeMap::new()),
            QueueOrder::Fair => Rank::Client(Fair::default()),
        };
        ReadyJobs { by_number: BTreeMap::new(), tokens: 0, rank }
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Their tokens of work.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Number and slot of the oldest job.
    pub(super) fn oldest(&self) -> Option<(u64, u32)> {
        self.by_number.first_key_value().map(|(&number, &slot)| (number, slot))
    }

    /// Numbers and slots by age.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.by_number.iter().map(|(&number, &slot)| (number, slot))
    }

    pub(super) fn insert(&mut self, ticket: &Ticket) {
        self.by_number.insert(ticket.number, ticket.slot);
        self.tokens += u64::from(ticket.tokens);
        match &mut self.rank {
            Rank::Number => {}
            Rank::Key(jobs) => {
                jobs.insert((ticket.key, ticket.number), ticket.slot);
            }
            Rank::Client(fair) => fair.insert(ticket.client, ticket.number, ticket.slot),
        }
    }

    /// Takes a job out because it is dispatched.
    pub(super) fn dispatch(&mut self, ticket: &Ticket) {
        self.take_out(ticket, ticket.tokens);
    }

    /// Takes a job out that is not computed here and now.
    pub(super) fn remove(&mut self, ticket: &Ticket) {
        self.take_out(ticket, 0);
    }

    /// The same job, with another amount of work; it keeps its place where that does not depend on the work.
    pub(super) fn rebook(&mut self, old: &Ticket, new: &Ticket) {
        self.tokens = self.tokens - u64::from(old.tokens) + u64::from(new.tokens);
        if let Rank::Key(jobs) = &mut self.rank {
            jobs.remove(&(old.key, old.number));
            jobs.insert((new.key, new.number), new.slot);
        }
    }

    fn take_out(&mut self, ticket: &Ticket, charge: u32) {
        let found = self.by_number.remove(&ticket.number);
        debug_assert_eq!(found, Some(ticket.slot), "tickets are given back as they were");
        self.tokens -= u64::from(ticket.tokens);
        match &mut self.rank {
            Rank::Number => {}
            Rank::Key(jobs) => {
                let found = jobs.remove(&(ticket.key, ticket.number));
                debug_assert_eq!(found, Some(ticket.slot), "tickets are given back as they were");
            }
            Rank::Client(fair) => fair.remove(ticket.client, ticket.number, charge),
        }
    }

    /// Shows `take` the slots in the order in which they are to be dispatched, until it answers `None`; else it answers
    /// the job's tokens. `turn`: how many batches this queue has had before. `horizon`: in the order `deadline`, what is
    /// wanted before it goes behind the rest; 0 in the others.
    pub(super) fn scan(&self, turn: u64, horizon: u64, mut take: impl FnMut(u32) -> Option<u32>) {
        match &self.rank {
            Rank::Number => {
                let _ = self.by_number.values().try_for_each(|&slot| take(slot).map(drop));
            }
            Rank::Key(jobs) => {
                let oldest = self.oldest().filter(|_| turn % OLDEST_EVERY == OLDEST_EVERY - 1).map(|(_, slot)| slot);
                let in_order = jobs.range((horizon, 0)..).chain(jobs.range(..(horizon, 0))).map(|(_, &slot)| slot);
                let in_order = in_order.filter(|&slot| Some(slot) != oldest);
                let _ = oldest.into_iter().chain(in_order).try_for_each(|slot| take(slot).map(drop));
            }
            Rank::Client(fair) => fair.scan(take),
        }
    }
}
