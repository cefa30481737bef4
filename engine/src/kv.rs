//! A book of who holds how many tokens of a KV arena, and whom to evict when it is full.
//!
//! The arena itself belongs to a driver; this book only decides. Least recently used goes first, ties by key, so that
//! the same inputs evict the same sequences.

use std::collections::{BTreeMap, BTreeSet};

/// Token counts per sequence, bounded by a capacity in tokens.
#[derive(Clone, Debug)]
pub struct KvBook<K> {
    capacity: u64,
    used: u64,
    clock: u64,
    entries: BTreeMap<K, Entry>,
    by_age: BTreeSet<(u64, K)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tokens: u32,
    touched: u64,
}

impl<K: Ord + Copy> KvBook<K> {
    /// An empty book over `capacity` tokens.
    pub fn new(capacity: u64) -> Self {
        KvBook { capacity, used: 0, clock: 0, entries: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    /// Tokens held in all.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Tokens that `key` holds.
    pub fn tokens(&self, key: K) -> u32 {
        self.entries.get(&key).map_or(0, |e| e.tokens)
    }

    /// Sets what `key` holds and makes it the most recently used; 0 tokens remove it.
    pub fn set(&mut self, key: K, tokens: u32) {
        self.remove(key);
        if tokens > 0 {
            self.clock += 1;
            self.used += u64::from(tokens);
            self.entries.insert(key, Entry { tokens, touched: self.clock });
            self.by_age.insert((self.clock, key));
        }
    }

    /// Forgets `key` and says how many tokens it held.
    pub fn remove(&mut self, key: K) -> u32 {
        let Some(entry) = self.entries.remove(&key) else { return 0 };
        self.by_age.remove(&(entry.touched, key));
        self.used -= u64::from(entry.tokens);
        entry.tokens
    }

    /// Makes room for `key` to hold `tokens` and books them. Evicts the least recently used sequences for which
    /// `evictable` holds and returns them; `Err` (and nothing changed) if even that is not enough.
    pub fn reserve(&mut self, key: K, tokens: u32, evictable: impl Fn(K) -> bool) -> Result<Vec<K>, Full> {
        let others = self.used - u64::from(self.tokens(key));
        let mut excess = (others + u64::from(tokens)).saturating_sub(self.capacity);
        let mut victims = Vec::new();
        for &(_, victim) in &self.by_age {
            if excess == 0 {
                break;
            }
            if victim != key && evictable(victim) {
                excess = excess.saturating_sub(u64::from(self.tokens(victim)));
                victims.push(victim);
            }
        }
        if excess > 0 {
            return Err(Full { tokens, capacity: self.capacity });
        }
        for &victim in &victims {
            self.remove(victim);
        }
        self.set(key, tokens);
        Ok(victims)
    }
}

/// A KV arena cannot take a sequence, whatever is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the KV cache holds {capacity} tokens and has no room for a sequence of {tokens}")]
pub struct Full {
    /// Tokens asked for.
    pub tokens: u32,
    /// Tokens that the arena holds.
    pub capacity: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut book = KvBook::new(100);
        for key in 0..4 {
            book.set(key, 25);
        }
        book.set(0, 25);
        assert_eq!(book.reserve(9, 30, |k| k != 1), Ok(vec![2, 3]));
        assert_eq!(book.used(), 80);
        assert_eq!(book.reserve(9, 101, |_| true), Err(Full { tokens: 101, capacity: 100 }));
        assert_eq!(book.used(), 80);
    }

    proptest! {
        #[test]
        fn never_over_capacity(ops in proptest::collection::vec((0u8..3, 0u8..10, 0u32..60), 0..200)) {
            let mut book = KvBook::new(100);
            for (op, key, tokens) in ops {
                match op {
                    0 => { book.remove(key); }
                    _ => { let _ = book.reserve(key, tokens, |k| k % 3 != 0); }
                }
                prop_assert!(book.used() <= 100);
                prop_assert_eq!(book.used(), book.entries.values().map(|e| u64::from(e.tokens)).sum::<u64>());
                prop_assert_eq!(book.entries.len(), book.by_age.len());
            }
        }
    }
}
