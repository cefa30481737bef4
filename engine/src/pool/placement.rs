//! Which verifier gets a job: the one that holds its KV cache, or else the one with the fewest tokens ahead of it, ties in
//! rotation. One whose circuit breaker is open is taken only if there is no other.

use super::job::{Queued, QueuedJob};
use super::machine::PoolMachine;
use crate::id::VerifierId;

/// The rank of a verifier that takes no work.
const OUT: u64 = u64::MAX;
/// Added to the rank of one that gets work only if no other does. No queue comes near so many tokens.
const LAST_RESORT: u64 = 1 << 62;

/// The verifiers' ranks in a tournament: a binary tree whose nodes hold the least rank below them.
#[derive(Debug)]
pub(super) struct Ranks {
    /// Leaves, a power of two.
    width: usize,
    /// Node 1 is the root, the children of n are 2n and 2n + 1.
    nodes: Vec<u64>,
}

impl Ranks {
    /// `count` verifiers, none of which takes work.
    pub(super) fn new(count: usize) -> Ranks {
        let width = count.next_power_of_two();
        Ranks { width, nodes: vec![OUT; 2 * width] }
    }

    fn set(&mut self, index: usize, rank: u64) {
        let mut node = self.width + index;
        self.nodes[node] = rank;
        while node > 1 {
            node /= 2;
            let least = self.nodes[2 * node].min(self.nodes[2 * node + 1]);
            if self.nodes[node] == least {
                return;
            }
            self.nodes[node] = least;
        }
    }

    fn get(&self, index: usize) -> u64 {
        self.nodes[self.width + index]
    }

    /// Who has the least rank: the first such one from `from` on, and from 0 if there is none.
    fn least(&self, from: usize) -> Option<usize> {
        let least = self.nodes[1];
        if least == OUT {
            return None;
        }
        self.first_of(least, from).or_else(|| self.first_of(least, 0))
    }

    /// The first leaf from `from` on of rank `least`, which must be that of the root.
    fn first_of(&self, least: u64, from: usize) -> Option<usize> {
        let mut node = self.width + from;
        // To the right and up, until a subtree has it.
        while self.nodes[node] != least {
            while node % 2 == 1 {
                node /= 2;
                if node <= 1 {
                    return None;
                }
            }
            node += 1;
        }
        while node < self.width {
            node = if self.nodes[2 * node] == least { 2 * node } else { 2 * node + 1 };
        }
        Some(node - self.width)
    }
}

impl PoolMachine {
    /// Puts a job into the queue of the verifier that is to compute it.
    pub(super) fn enqueue(&mut self, slot: u32, job: QueuedJob) {
        let verifier = self.place(slot);
        let tokens = job.work(self.cached(slot, verifier));
        self.sessions[slot].queued = Some(Queued { job, verifier, tokens });
        self.queued_jobs += 1;
        self.queued_tokens += u64::from(tokens);
        match verifier {
            Some(id) => self.join(id, slot),
            None => {
                self.unplaced.insert(job.number, slot);
            }
        }
    }

    /// Leading tokens of the session that `verifier`'s cache holds.
    pub(super) fn cached(&self, slot: u32, verifier: Option<VerifierId>) -> u32 {
        let here = verifier.is_some_and(|id| self.kv.arena(slot) == Some(id.0));
        if here { self.sessions[slot].kv } else { 0 }
    }

    fn place(&mut self, slot: u32) -> Option<VerifierId> {
        let home = self.kv.arena(slot).map(usize::from);
        let rank = home.map_or(OUT, |home| self.ranks.get(home));
        if let Some(home) = home.filter(|_| rank < LAST_RESORT) {
            return Some(VerifierId(home as u16));
        }
        let best = self.ranks.least(self.next_verifier)?;
        if let Some(home) = home.filter(|_| rank < OUT && self.ranks.get(best) >= LAST_RESORT) {
            return Some(VerifierId(home as u16));
        }
        self.next_verifier = (best + 1) % self.verifiers.len();
        Some(VerifierId(best as u16))
    }

    /// Places what no verifier was there for.
    pub(super) fn place_the_unplaced(&mut self) {
        if self.ranks.least(0).is_none() {
            return;
        }
        for slot in std::mem::take(&mut self.unplaced).into_values() {
            self.replace(slot);
        }
    }

    /// Takes a waiting job out and puts it where it belongs now.
    pub(super) fn replace(&mut self, slot: u32) {
        if let Some(queued) = self.dequeue(slot) {
            self.enqueue(slot, queued.job);
        }
    }

    /// After a change of a verifier's load or state: its rank, and how many take work.
    pub(super) fn refresh(&mut self, id: VerifierId) {
        let verifier = &mut self.verifiers[usize::from(id.0)];
        let takes_work = verifier.takes_work();
        if takes_work != std::mem::replace(&mut verifier.counted, takes_work) {
            self.up = if takes_work { self.up + 1 } else { self.up - 1 };
        }
        let rank = match (takes_work, verifier.breaker.lets_in(verifier.running.is_some())) {
            (false, _) => OUT,
            (true, true) => verifier.load(),
            (true, false) => verifier.load() + LAST_RESORT,
        };
        self.ranks.set(usize::from(id.0), rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_tournament_finds_the_least(
            count in 1usize..20,
            ops in proptest::collection::vec((0usize..20, prop_oneof![0u64..4, Just(OUT)], 0usize..20), 1..100),
        ) {
            let (mut ranks, mut naive) = (Ranks::new(count), vec![OUT; count]);
            for (index, rank, from) in ops {
                ranks.set(index % count, rank);
                naive[index % count] = rank;
                let from = from % count;
                let rotated = (0..count).map(|offset| (from + offset) % count);
                let expected = rotated.filter(|&i| naive[i] < OUT).min_by_key(|&i| naive[i]);
                prop_assert_eq!(ranks.least(from), expected);
                prop_assert_eq!(ranks.get(index % count), rank);
            }
        }
    }
}
