//! ChaCha with 8 rounds \[Bernstein, 2008\], block by block: the generator behind [`crate::random`].
//!
//! The same stream as `rand_chacha::ChaCha8Rng`, which makes four blocks at a time. A key here decides one thing and draws
//! a number or two for it, so that three of the four would be thrown away.

/// A quarter of the state: four lanes that go through the same operations.
type StateRow = [u32; 4];

const CONSTANTS: StateRow = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

const DOUBLE_ROUNDS: u32 = 4;

/// Numbers of 64 bits in a block.
const NUMBERS: usize = 8;

/// The stream of one key, from its beginning.
#[derive(Clone, Debug)]
pub(crate) struct ChaCha8 {
    key: [StateRow; 2],
    counter: u64,
    block: [u64; NUMBERS],
    /// The next number of `block`; [`NUMBERS`] where none is left.
    next: usize,
}

impl ChaCha8 {
    pub(crate) fn new(seed: [u8; 32]) -> ChaCha8 {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(seed.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let [a, b, c, d, e, f, g, h] = words;
        ChaCha8 { key: [[a, b, c, d], [e, f, g, h]], counter: 0, block: [0; NUMBERS], next: NUMBERS }
    }

    /// The next 64 bits: two words, the lower one first.
    #[inline]
    pub(crate) fn next_u64(&mut self) -> u64 {
        if self.next == NUMBERS {
            self.block = block(self.key, self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.next = 0;
        }
        let number = self.block[self.next];
        self.next += 1;
        number
    }
}

fn block(key: [StateRow; 2], counter: u64) -> [u64; NUMBERS] {
    let start = [CONSTANTS, key[0], key[1], [counter as u32, (counter >> 32) as u32, 0, 0]];
    let rows = rounds(start);
    let mut numbers = [0; NUMBERS];
    for ((row, start), pair) in rows.into_iter().zip(start).zip(numbers.chunks_exact_mut(2)) {
        let word = |lane: usize| u64::from(row[lane].wrapping_add(start[lane]));
        (pair[0], pair[1]) = (word(0) | word(1) << 32, word(2) | word(3) << 32);
    }
    numbers
}

/// Row by row, so that a compiler makes one vector of each.
fn rounds(start: [StateRow; 4]) -> [StateRow; 4] {
    let [mut a, mut b, mut c, mut d] = start;
    for _ in 0..DOUBLE_ROUNDS {
        // The columns, then the diagonals: turned into columns and back.
        (a, b, c, d) = round(a, b, c, d);
        (b, c, d) = (turned::<1>(b), turned::<2>(c), turned::<3>(d));
        (a, b, c, d) = round(a, b, c, d);
        (b, c, d) = (turned::<3>(b), turned::<2>(c), turned::<1>(d));
    }
    [a, b, c, d]
}

#[inline(always)]
fn round(
    mut a: StateRow,
    mut b: StateRow,
    mut c: StateRow,
    mut d: StateRow,
) -> (StateRow, StateRow, StateRow, StateRow) {
    a = sum(a, b);
    d = mixed::<16>(d, a);
    c = sum(c, d);
    b = mixed::<12>(b, c);
    a = sum(a, b);
    d = mixed::<8>(d, a);
    c = sum(c, d);
    b = mixed::<7>(b, c);
    (a, b, c, d)
}

#[inline(always)]
fn sum(x: StateRow, y: StateRow) -> StateRow {
    std::array::from_fn(|lane| x[lane].wrapping_add(y[lane]))
}

#[inline(always)]
fn mixed<const LEFT: u32>(x: StateRow, y: StateRow) -> StateRow {
    std::array::from_fn(|lane| (x[lane] ^ y[lane]).rotate_left(LEFT))
}

#[inline(always)]
fn turned<const BY: usize>(x: StateRow) -> StateRow {
    std::array::from_fn(|lane| x[(lane + BY) % 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    proptest! {
        /// Over more than the four blocks that the other one makes at a time.
        #[test]
        fn the_published_stream(seed: [u8; 32]) {
            let (mut ours, mut published) = (ChaCha8::new(seed), ChaCha8Rng::from_seed(seed));
            for number in 0..80 {
                prop_assert_eq!(ours.next_u64(), published.next_u64(), "number {}", number);
            }
        }
    }
}
