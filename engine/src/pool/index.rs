//! A lookup by key that nobody can iterate over, so that a hash table's order never reaches a decision.
#![expect(clippy::disallowed_types, reason = "only looked up, never iterated: its order cannot be seen")]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// See the module.
#[derive(Debug)]
pub(super) struct Index<K, V>(HashMap<K, V, BuildHasherDefault<Mixer>>);

impl<K: Eq + Hash, V: Copy> Index<K, V> {
    pub(super) fn new() -> Self {
        Index(HashMap::default())
    }

    pub(super) fn get(&self, key: K) -> Option<V> {
        self.0.get(&key).copied()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: K) {
        self.0.remove(&key);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Folds each number into the hash by one wide multiplication. Keys are numbers that the pool itself gives out, and a few
/// more per connection: nobody outside can make many of them collide.
#[derive(Debug, Default)]
pub(super) struct Mixer(u64);

/// 2⁶⁴ / golden ratio: odd, and without a pattern in its bits.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let wide = u128::from(self.0 ^ number ^ FACTOR) * u128::from(FACTOR);
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
