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

use std::collections::btree_map::Iter;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::ConnectionId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fair {
    clients: BTreeMap<ConnectionId, Client>,
    /// Those with jobs: counter, number of the oldest job, who.
    waiting: BTreeSet<(u64, u64, ConnectionId)>,
    /// Those without, by counter.
    away: BTreeSet<(u64, ConnectionId)>,
}

#[derive(Debug, Default)]
struct Client {
    counter: u64,
    /// Slots by number.
    jobs: BTreeMap<u64, u32>,
}

impl Client {
    fn oldest(&self) -> Option<u64> {
        self.jobs.first_key_value().map(|(&number, _)| number)
    }
}

impl Fair {
    pub(super) fn insert(&mut self, who: ConnectionId, number: u64, slot: u32) {
        let least = self.waiting.first().map_or(0, |&(counter, ..)| counter);
        let client = self.clients.entry(who).or_default();
        match client.oldest() {
            Some(oldest) => {
                self.waiting.remove(&(client.counter, oldest, who));
            }
            None => {
                self.away.remove(&(client.counter, who));
                client.counter = client.counter.max(least);
            }
        }
        client.jobs.insert(number, slot);
        self.waiting.extend(client.oldest().map(|oldest| (client.counter, oldest, who)));
    }

    /// Takes a job out and charges its client with `tokens`: what is dispatched, or 0 if it only leaves.
    pub(super) fn remove(&mut self, who: ConnectionId, number: u64, tokens: u32) {
        let Some(client) = self.clients.get_mut(&who) else { return };
        let Some(oldest) = client.oldest() else { return };
        if client.jobs.remove(&number).is_none() {
            return;
        }
        self.waiting.remove(&(client.counter, oldest, who));
        client.counter += u64::from(tokens);
        match client.oldest() {
            Some(oldest) => self.waiting.insert((client.counter, oldest, who)),
            None => self.away.insert((client.counter, who)),
        };
        let Some(&(least, ..)) = self.waiting.first() else {
            *self = Fair::default();
            return;
        };
        while let Some(&(counter, who)) = self.away.first().filter(|(counter, _)| *counter <= least) {
            self.away.remove(&(counter, who));
            self.clients.remove(&who);
        }
    }

    /// Shows `take` the slots in the order in which they would be dispatched, until it answers `None`; else it answers
    /// the job's tokens.
    pub(super) fn scan(&self, mut take: impl FnMut(u32) -> Option<u32>) {
        let mut untouched = self.waiting.iter().copied().peekable();
        // Clients that have had a job taken, with the counter they would have then, and the rest of their jobs.
        let mut again: BTreeMap<(u64, u64, ConnectionId), Iter<'_, u64, u32>> = BTreeMap::new();
        loop {
            let first_again = again.first_key_value().map(|(&key, _)| key);
            let (counter, who, mut jobs) = match (untouched.peek().copied(), first_again) {
                (Some(key), other) if other.is_none_or(|other| key < other) => {
                    untouched.next();
                    let Some(client) = self.clients.get(&key.2) else { return };
                    (key.0, key.2, client.jobs.iter())
                }
                _ => {
                    let Some((key, jobs)) = again.pop_first() else { return };
                    (key.0, key.2, jobs)
                }
            };
            let Some(tokens) = jobs.next().and_then(|(_, &slot)| take(slot)) else { return };
            if let Some((&next, _)) = jobs.clone().next() {
                again.insert((counter + u64::from(tokens), next, who), jobs);
            }
        }
    }
}
