//! A hash table of slot numbers whose keys lie with the slots. It can be searched, not iterated, so that its order never
//! reaches a decision; and one search touches eight bytes here beside the slot itself: the hashes of others tell them apart.

/// A slot and the hash of its key.
type IndexCell = (u32, u32);

/// The slot that stands for an empty cell.
const NONE: u32 = u32::MAX;

const EMPTY: IndexCell = (NONE, 0);

/// Cells that a table starts with.
const FEWEST: usize = 16;

/// Open addressing with linear probing, at most half full. Who calls says what the hash of a slot's key is.
#[derive(Debug)]
pub(super) struct Index {
    /// A power of two.
    cells: Vec<IndexCell>,
    len: usize,
}

/// Mixes two numbers by wide multiplications; the upper bits are good. The keys are numbers that the pool itself gives
/// out, and a few more per connection: nobody outside can make many of them collide.
pub(super) fn hash(a: u64, b: u32) -> u32 {
    // 2⁶⁴ / golden ratio: odd, and without a pattern in its bits.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |x: u64| {
        let wide = u128::from(x) * u128::from(FACTOR);
        wide as u64 ^ (wide >> 64) as u64
    };
    (fold(fold(a ^ FACTOR) ^ u64::from(b)) >> 32) as u32
}

impl Index {
    pub(super) fn new() -> Index {
        Index { cells: vec![EMPTY; FEWEST], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The cell where the search for `hash` begins.
    fn home(&self, hash: u32) -> usize {
        (u64::from(hash) << self.cells.len().ilog2() >> 32) as usize
    }

    fn next(&self, cell: usize) -> usize {
        (cell + 1) & (self.cells.len() - 1)
    }

    /// The slot of this hash for which `is` holds.
    pub(super) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.cell(hash, is).map(|cell| self.cells[cell].0)
    }

    fn cell(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<usize> {
        let mut cell = self.home(hash);
        loop {
            let (slot, its) = self.cells[cell];
            if slot == NONE {
                return None;
            }
            if its == hash && is(slot) {
                return Some(cell);
            }
            cell = self.next(cell);
        }
    }

    /// Adds `slot`, which must not be in it.
    pub(super) fn insert(&mut self, slot: u32, hash: u32) {
        if 2 * (self.len + 1) > self.cells.len() {
            let larger = vec![EMPTY; 2 * self.cells.len()];
            let cells = std::mem::replace(&mut self.cells, larger);
            for (slot, hash) in cells.into_iter().filter(|&(slot, _)| slot != NONE) {
                self.put(slot, hash);
            }
        }
        self.len += 1;
        self.put(slot, hash);
    }

    fn put(&mut self, slot: u32, hash: u32) {
        let mut cell = self.home(hash);
        while self.cells[cell].0 != NONE {
            cell = self.next(cell);
        }
        self.cells[cell] = (slot, hash);
    }

    /// Puts `new` in the place of `old`, whose key it has.
    pub(super) fn replace(&mut self, old: u32, new: u32, hash: u32) {
        if let Some(cell) = self.cell(hash, |slot| slot == old) {
            self.cells[cell].0 = new;
        }
    }

    pub(super) fn remove(&mut self, slot: u32, hash: u32) {
        let Some(mut hole) = self.cell(hash, |other| other == slot) else { return };
        self.len -= 1;
        // What follows moves up into the hole, unless its search begins behind it.
        let mut cell = self.next(hole);
        while self.cells[cell].0 != NONE {
            let mask = self.cells.len() - 1;
            let from_home = cell.wrapping_sub(self.home(self.cells[cell].1)) & mask;
            if from_home >= cell.wrapping_sub(hole) & mask {
                self.cells[hole] = self.cells[cell];
                hole = cell;
            }
            cell = self.next(cell);
        }
        self.cells[hole] = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// With a hash that collides all the time, and lies at the table's end.
        #[test]
        fn what_is_in_it_is_found(ops in proptest::collection::vec((any::<bool>(), 0u32..60), 0..300), spread in 1u32..9) {
            let hash_of = |slot: u32| u32::MAX - ((slot % spread) << 26);
            let (mut index, mut naive) = (Index::new(), BTreeSet::new());
            for (add, slot) in ops {
                if add {
                    if naive.insert(slot) {
                        index.insert(slot, hash_of(slot));
                    }
                } else {
                    naive.remove(&slot);
                    index.remove(slot, hash_of(slot));
                }
                prop_assert_eq!(index.len(), naive.len());
                for slot in 0..60 {
                    let found = index.find(hash_of(slot), |other| other == slot);
                    prop_assert_eq!(found.is_some(), naive.contains(&slot));
                }
            }
        }
    }

    #[test]
    fn hashes_spread() {
        let mut cells = BTreeSet::new();
        (0..1000u64).for_each(|a| (0..4).for_each(|b| assert!(cells.insert(hash(a, b)))));
        let upper: BTreeSet<u32> = cells.iter().map(|hash| hash >> 20).collect();
        assert!(upper.len() > 2300, "4000 numbers fall into {} of 4096 cells; by chance it were 2550", upper.len());
    }
}
