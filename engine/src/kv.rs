//! A book of who holds how many tokens of which KV arena, and whom to evict when one is full.
//!
//! The arenas themselves belong to a driver; this book only decides. Least recently used goes first. Sequences are small
//! numbers (slots of a table), so that a touch is a few writes to a list that runs through one vector.

/// Stands for "no sequence" in the links.
const NONE: u32 = u32::MAX;

/// Token counts per sequence, over several arenas of one capacity. A sequence is in one of them at most.
#[derive(Clone, Debug)]
pub struct KvBook {
    capacity: u64,
    arenas: Vec<Arena>,
    entries: Vec<KvEntry>,
}

#[derive(Clone, Copy, Debug)]
struct Arena {
    used: u64,
    /// Least and most recently used.
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct KvEntry {
    /// 0: in no arena.
    tokens: u32,
    /// Used just before and just after this one.
    before: u32,
    after: u32,
    arena: u16,
}

impl KvBook {
    /// Empty arenas of `capacity` tokens each.
    pub fn new(capacity: u64, arenas: usize) -> Self {
        let empty = Arena { used: 0, first: NONE, last: NONE };
        KvBook { capacity, arenas: vec![empty; arenas], entries: Vec::new() }
    }

    /// Tokens held in `arena`.
    pub fn used(&self, arena: u16) -> u64 {
        self.arenas[usize::from(arena)].used
    }

    /// Which arena `sequence` is in.
    pub fn arena(&self, sequence: u32) -> Option<u16> {
        self.entries.get(sequence as usize).filter(|entry| entry.tokens > 0).map(|entry| entry.arena)
    }

    /// The least recently used sequence of `arena`.
    pub fn oldest(&self, arena: u16) -> Option<u32> {
        Some(self.arenas[usize::from(arena)].first).filter(|&first| first != NONE)
    }

    /// Forgets `sequence` and says how many tokens it held.
    pub fn remove(&mut self, sequence: u32) -> u32 {
        let Some(arena) = self.arena(sequence) else { return 0 };
        let KvEntry { tokens, before, after, .. } = self.entries[sequence as usize];
        self.entries[sequence as usize].tokens = 0;
        let arena = &mut self.arenas[usize::from(arena)];
        arena.used -= u64::from(tokens);
        match before {
            NONE => arena.first = after,
            before => self.entries[before as usize].after = after,
        }
        match after {
            NONE => arena.last = before,
            after => self.entries[after as usize].before = before,
        }
        tokens
    }

    /// Makes room for `sequence` to hold `tokens` in `arena`, books them (0 remove it) and makes it the most recently
    /// used. Evicts the least recently used sequences for which `evictable` holds and appends them to `victims`; `Err`
    /// (and nothing changed) if even that is not enough.
    pub fn reserve(
        &mut self,
        arena: u16,
        sequence: u32,
        tokens: u32,
        evictable: impl Fn(u32) -> bool,
        victims: &mut Vec<u32>,
    ) -> Result<(), Full> {
        let held = |key: u32| self.entries.get(key as usize).map_or(0, |entry| u64::from(entry.tokens));
        let own = if self.arena(sequence) == Some(arena) { held(sequence) } else { 0 };
        let mut excess = (self.used(arena) - own + u64::from(tokens)).saturating_sub(self.capacity);
        let earlier = victims.len();
        let mut next = self.arenas[usize::from(arena)].first;
        while excess > 0 && next != NONE {
            if next != sequence && evictable(next) {
                excess = excess.saturating_sub(held(next));
                victims.push(next);
            }
            next = self.entries[next as usize].after;
        }
        if excess > 0 {
            victims.truncate(earlier);
            return Err(Full { tokens, capacity: self.capacity });
        }
        for &victim in &victims[earlier..] {
            self.remove(victim);
        }
        self.set(arena, sequence, tokens);
        Ok(())
    }

    fn set(&mut self, arena: u16, sequence: u32, tokens: u32) {
        self.remove(sequence);
        if tokens == 0 {
            return;
        }
        let index = sequence as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, KvEntry { tokens: 0, before: NONE, after: NONE, arena });
        }
        let list = &mut self.arenas[usize::from(arena)];
        list.used += u64::from(tokens);
        let before = std::mem::replace(&mut list.last, sequence);
        match before {
            NONE => list.first = sequence,
            before => self.entries[before as usize].after = sequence,
        }
        self.entries[index] = KvEntry { tokens, before, after: NONE, arena };
    }
}

/// A KV arena cannot take a sequence, whatever is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the KV cache holds {capacity} tokens and has no room for a sequence of {tokens}")]
pub struct Full {
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
        let mut book = KvBook::new(100, 1);
        let mut victims = Vec::new();
        for key in 0..4 {
            book.set(0, key, 25);
        }
        book.set(0, 0, 25);
        assert_eq!(book.reserve(0, 9, 30, |k| k != 1, &mut victims), Ok(()));
        assert_eq!(victims, [2, 3]);
        assert_eq!(book.used(0), 80);
        assert_eq!(book.reserve(0, 9, 101, |_| true, &mut victims), Err(Full { tokens: 101, capacity: 100 }));
        assert_eq!((book.used(0), victims.len()), (80, 2));
    }

    /// Two arenas as plain lists, least recently used first.
    #[derive(Default)]
    struct Naive([Vec<(u32, u32)>; 2]);

    impl Naive {
        fn remove(&mut self, key: u32) {
            self.0.iter_mut().for_each(|arena| arena.retain(|&(k, _)| k != key));
        }

        fn reserve(&mut self, arena: usize, key: u32, tokens: u32) -> Option<Vec<u32>> {
            let mut left = self.0[arena].clone();
            left.retain(|&(k, _)| k != key);
            let mut victims = Vec::new();
            while left.iter().map(|e| e.1).sum::<u32>() + tokens > 100 {
                let at = left.iter().position(|(k, _)| k % 3 != 0)?;
                victims.push(left.remove(at).0);
            }
            self.remove(key);
            if tokens > 0 {
                left.push((key, tokens));
            }
            self.0[arena] = left;
            Some(victims)
        }
    }

    proptest! {
        #[test]
        fn never_over_capacity(ops in proptest::collection::vec((0u8..4, 0u16..2, 0u32..10, 0u32..60), 0..200)) {
            let (mut book, mut naive) = (KvBook::new(100, 2), Naive::default());
            for (op, arena, key, tokens) in ops {
                if op == 0 {
                    book.remove(key);
                    naive.remove(key);
                } else {
                    let mut victims = Vec::new();
                    let found = book.reserve(arena, key, tokens, |k| k % 3 != 0, &mut victims).ok().map(|()| victims);
                    prop_assert_eq!(found, naive.reserve(usize::from(arena), key, tokens));
                }
                for (arena, entries) in (0u16..).zip(&naive.0) {
                    prop_assert!(book.used(arena) <= 100);
                    prop_assert_eq!(book.used(arena), entries.iter().map(|e| u64::from(e.1)).sum::<u64>());
                    prop_assert_eq!(book.oldest(arena), entries.first().map(|e| e.0));
                    prop_assert!(entries.iter().all(|e| book.arena(e.0) == Some(arena)));
                }
            }
        }
    }
}
