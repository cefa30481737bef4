//! A calendar queue: events of one shard in the order of (time, rank, sequence).
//!
//! Time is divided into windows of equal length. An event of a later window goes unsorted into the bucket of that window;
//! a bucket is sorted when its window begins. What is scheduled within the running window goes into a small heap beside
//! it, and what lies beyond the calendar's last bucket into another, from which it moves into its bucket when that comes
//! into sight. So nearly every event costs one append and its share of one sort.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use specfleet_engine::time::{Span, Time};

/// Buckets of the calendar.
const BUCKETS: usize = 2048;

/// When an event is due: events at the same time go by rank, then by sequence, which callers keep unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueuedEvent {
    pub(crate) at: Time,
    /// The smaller goes first.
    pub(crate) rank: u32,
    pub(crate) sequence: u32,
}

/// A queue of events by their times, as a wheel of days.
#[derive(Debug)]
pub(crate) struct Calendar<E> {
    window: Span,
    /// Number of the running window.
    current: u64,
    /// Events of the running window that were there at its beginning, in reverse order.
    sorted: Vec<(QueuedEvent, E)>,
    /// Events of the running window that were added since.
    fresh: BinaryHeap<Reverse<(QueuedEvent, E)>>,
    /// Bucket i holds the events of the one window in sight whose number is i modulo [`BUCKETS`].
    buckets: Vec<Vec<(QueuedEvent, E)>>,
    /// Events beyond the last bucket.
    far: BinaryHeap<Reverse<(QueuedEvent, E)>>,
    len: usize,
}

impl<E: Ord + Copy> Calendar<E> {
    /// An empty queue at time zero.
    pub(crate) fn new(window: Span) -> Calendar<E> {
        Calendar {
            window: Span(window.0.max(1)),
            current: 0,
            sorted: Vec::new(),
            fresh: BinaryHeap::new(),
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            far: BinaryHeap::new(),
            len: 0,
        }
    }

    /// Adds an event. One that is due before the running window counts as due now, after what is due before it.
    pub(crate) fn push(&mut self, due: QueuedEvent, event: E) {
        self.len += 1;
        let number = due.at.0 / self.window.0;
        if number <= self.current {
            self.fresh.push(Reverse((due, event)));
        } else if number - self.current < BUCKETS as u64 {
            self.buckets[(number % BUCKETS as u64) as usize].push((due, event));
        } else {
            self.far.push(Reverse((due, event)));
        }
    }

    /// The next event that is due before `end`, which must lie within the running window.
    pub(crate) fn pop_before(&mut self, end: Time) -> Option<(QueuedEvent, E)> {
        let first = self.sorted.last().map(|entry| entry.0);
        let other = self.fresh.peek().map(|Reverse(entry)| entry.0);
        let from_fresh = match (first, other) {
            (None, None) => return None,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(first), Some(other)) => other < first,
        };
        let due = if from_fresh { other } else { first };
        if due.is_none_or(|due| due.at >= end) {
            return None;
        }
        self.len -= 1;
        if from_fresh { self.fresh.pop().map(|Reverse(entry)| entry) } else { self.sorted.pop() }
    }

    /// Moves on to the window that `at` lies in; the windows in between must be empty.
    pub(crate) fn advance(&mut self, at: Time) {
        let number = at.0 / self.window.0;
        if number <= self.current {
            return;
        }
        debug_assert!(self.sorted.is_empty() && self.fresh.is_empty(), "the last window is done");
        self.current = number;
        let horizon = number.saturating_add(BUCKETS as u64);
        while let Some(Reverse((due, _))) = self.far.peek() {
            let its = due.at.0 / self.window.0;
            if its >= horizon {
                break;
            }
            if let Some(Reverse(entry)) = self.far.pop() {
                self.buckets[(its % BUCKETS as u64) as usize].push(entry);
            }
        }
        std::mem::swap(&mut self.sorted, &mut self.buckets[(number % BUCKETS as u64) as usize]);
        self.sorted.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// When the next event is due.
    pub(crate) fn next(&self) -> Option<Time> {
        if self.len == 0 {
            return None;
        }
        let now = self.sorted.last().map(|entry| entry.0.at);
        let fresh = self.fresh.peek().map(|Reverse(entry)| entry.0.at);
        if let Some(at) = now.into_iter().chain(fresh).min() {
            return Some(at);
        }
        for ahead in 1..BUCKETS as u64 {
            let bucket = &self.buckets[((self.current + ahead) % BUCKETS as u64) as usize];
            if let Some(at) = bucket.iter().map(|entry| entry.0.at).min() {
                return Some(at);
            }
        }
        self.far.peek().map(|Reverse(entry)| entry.0.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a sorted list: whatever is pushed while earlier windows are worked off comes out in order.
        #[test]
        fn events_come_in_order(
            window in 1u64..50,
            pushes in proptest::collection::vec((0u64..200_000, 0u32..3, 0usize..4), 1..300),
        ) {
            let mut calendar = Calendar::new(Span(window));
            let mut pending: Vec<(QueuedEvent, u32)> = Vec::new();
            let mut taken = Vec::new();
            let mut pushes = pushes.into_iter().enumerate().peekable();
            let mut end = Time(window);
            while pushes.peek().is_some() || !pending.is_empty() {
                // A few new events, none before the running window.
                let room = pushes.peek().map_or(0, |(_, push)| push.2 + usize::from(pending.is_empty()));
                for (number, (after, rank, _)) in pushes.by_ref().take(room) {
                    let due = QueuedEvent { at: Time(end.0 - window + after), rank, sequence: number as u32 };
                    calendar.push(due, number as u32);
                    pending.push((due, number as u32));
                }
                pending.sort();
                while let Some(entry) = calendar.pop_before(end) {
                    prop_assert_eq!(entry, pending.remove(0));
                    taken.push(entry.1);
                }
                prop_assert!(pending.first().is_none_or(|first| first.0.at >= end));
                prop_assert_eq!(calendar.next(), pending.first().map(|first| first.0.at));
                let next = calendar.next().unwrap_or(end);
                end = Time((next.0.max(end.0) / window + 1) * window);
                calendar.advance(Time(end.0 - window));
            }
            prop_assert_eq!(calendar.next(), None);
        }
    }
}
