//! The `fair` order: virtual token counters [Sheng et al., OSDI 2024], per connection and verifier queue.
//!
//! A client is a connection with jobs in this queue. Its counter grows by the tokens of work of each of its jobs, when
//! that is dispatched; the client with the least counter goes next, ties by the arrival of its oldest job. A client that
//! comes back is lifted to the least counter among those that wait, so that it saves nothing up by being away. When the
//! queue is empty, nobody owes anything, and the counters start anew.
//!
//! **Bound.** Let U be the most tokens of one job. While two clients both wait in this queue all the time, the tokens
//! dispatched for them differ by 2U at most, over any interval.
//!
//! *Proof.* Let m be the least counter of those that wait. (1) m never falls while somebody waits: a dispatch raises one
//! counter, a lift sets none below m, and whoever leaves takes none away but its own. (2) Every counter, also of a client that is
//! away, is at most m + U: a dispatch raises the counter that is m itself, by U at most, and m never falls afterwards; a
//! lift sets m. (3) So any two that wait lie within U of each other, at the interval's start and at its end. In between
//! neither is lifted, because both wait; their counters grew by what was dispatched for them, so these two amounts differ
//! by U + U at most. ∎
//!
//! By (2) a client that is away with a counter of m or less would be lifted anyway; it is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::ConnectionId;

#[derive(Debug, Default)]
pub(super) struct Fair {
    /// Counters of the clients, also of those that are away and not forgotten.
    counters: BTreeMap<ConnectionId, u64>,
    /// Slots of the jobs, by client and number.
    jobs: BTreeMap<(ConnectionId, u64), u32>,
    /// Clients with jobs: counter, number of the oldest job, who.
    waiting: BTreeSet<(u64, u64, ConnectionId)>,
    /// Those without, by counter.
    away: BTreeSet<(u64, ConnectionId)>,
}

impl Fair {
    /// The first job of `who` from `number` on.
    fn next_job(&self, who: ConnectionId, number: u64) -> Option<u64> {
        self.jobs.range((who, number)..=(who, u64::MAX)).next().map(|(&(_, number), _)| number)
    }

    pub(super) fn insert(&mut self, who: ConnectionId, number: u64, slot: u32) {
        let least = self.waiting.first().map_or(0, |&(counter, ..)| counter);
        let oldest = self.next_job(who, 0);
        self.jobs.insert((who, number), slot);
        let counter = self.counters.entry(who).or_insert(least);
        match oldest {
            Some(oldest) if oldest < number => return,
            Some(oldest) => {
                self.waiting.remove(&(*counter, oldest, who));
            }
            None => {
                self.away.remove(&(*counter, who));
                *counter = least.max(*counter);
            }
        }
        self.waiting.insert((*counter, number, who));
    }

    /// Takes a job out and charges its client with `tokens`: what is dispatched, or 0 if it only leaves.
    pub(super) fn remove(&mut self, who: ConnectionId, number: u64, tokens: u32) {
        let Some(oldest) = self.next_job(who, 0) else { return };
        let Some(counter) = self.counters.get_mut(&who) else { return };
        if self.jobs.remove(&(who, number)).is_none() {
            return;
        }
        self.waiting.remove(&(*counter, oldest, who));
        *counter += u64::from(tokens);
        let counter = *counter;
        match self.next_job(who, 0) {
            Some(oldest) => self.waiting.insert((counter, oldest, who)),
            None => self.away.insert((counter, who)),
        };
        let Some(&(least, ..)) = self.waiting.first() else {
            *self = Fair::default();
            return;
        };
        while let Some(&(counter, who)) = self.away.first().filter(|(counter, _)| *counter <= least) {
            self.away.remove(&(counter, who));
            self.counters.remove(&who);
        }
    }

    /// Shows `take` the slots in the order in which they would be dispatched, until it answers `None`; else it answers
    /// the job's tokens.
    pub(super) fn scan(&self, mut take: impl FnMut(u32) -> Option<u32>) {
        let mut untouched = self.waiting.iter().copied().peekable();
        // Clients that have had a job taken: the counter they would have then, their next job, who.
        let mut again: BTreeSet<(u64, u64, ConnectionId)> = BTreeSet::new();
        loop {
            let from_again = match (untouched.peek(), again.first()) {
                (Some(one), Some(other)) => other < one,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            let next = if from_again { again.pop_first() } else { untouched.next() };
            let Some((counter, number, who)) = next else { return };
            let Some(tokens) = self.jobs.get(&(who, number)).and_then(|&slot| take(slot)) else { return };
            let following = self.next_job(who, number + 1);
            again.extend(following.map(|number| (counter + u64::from(tokens), number, who)));
        }
    }
}
