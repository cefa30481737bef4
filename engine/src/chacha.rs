//! ChaCha with 8 rounds \[Bernstein, 2008\], block by block: the generator behind [`crate::random`].
//!
//! The same stream as `rand_chacha::ChaCha8Rng`, which makes four blocks at a time. A key here decides one thing and draws
//! a number or two for it, so that three of the four would be thrown away.

/// A quarter of the state: four lanes that go through the same operations.
type Row = [u32; 4];

/// "expand 32-byte k".
const CONSTANTS: Row = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Two rounds each.
const DOUBLE_ROUNDS: u32 = 4;

/// Numbers of 64 bits in a block.
const NUMBERS: usize = 8;

/// The stream of one key, from its beginning.
#[derive(Clone, Debug)]
pub(crate) struct ChaCha8 {
    key: [Row; 2],
    /// The next block.
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

fn block(key: [Row; 2], counter: u64) -> [u64; NUMBERS] {
    let start = [CONSTANTS, key[0], key[1], [counter as u32, (counter >> 32) as u32, 0, 0]];
    #[cfg(target_arch = "x86_64")]
    let rows = vector::rounds(start);
    #[cfg(not(target_arch = "x86_64"))]
    let rows = portable::rounds(start);
    let mut numbers = [0; NUMBERS];
    for ((row, start), pair) in rows.into_iter().zip(start).zip(numbers.chunks_exact_mut(2)) {
        let word = |lane: usize| u64::from(row[lane].wrapping_add(start[lane]));
        (pair[0], pair[1]) = (word(0) | word(1) << 32, word(2) | word(3) << 32);
    }
    numbers
}

/// One vector per row. Every x86-64 processor has these instructions, and none of them touches memory, so that nothing here
/// needs `unsafe`. Compilers do not find them by themselves: the plain code below takes three times the instructions.
#[cfg(target_arch = "x86_64")]
mod vector {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_cvtsi128_si64, _mm_or_si128, _mm_set_epi32, _mm_shuffle_epi32, _mm_shufflehi_epi16,
        _mm_shufflelo_epi16, _mm_slli_epi32, _mm_srli_epi32, _mm_unpackhi_epi64, _mm_xor_si128,
    };

    use super::{DOUBLE_ROUNDS, Row};

    pub(super) fn rounds(start: [Row; 4]) -> [Row; 4] {
        let [mut a, mut b, mut c, mut d] =
            start.map(|[w, x, y, z]| _mm_set_epi32(z as i32, y as i32, x as i32, w as i32));
        for _ in 0..DOUBLE_ROUNDS {
            // The columns, then the diagonals: turned into columns and back.
            (a, b, c, d) = round(a, b, c, d);
            b = _mm_shuffle_epi32::<0b00_11_10_01>(b);
            c = _mm_shuffle_epi32::<0b01_00_11_10>(c);
            d = _mm_shuffle_epi32::<0b10_01_00_11>(d);
            (a, b, c, d) = round(a, b, c, d);
            b = _mm_shuffle_epi32::<0b10_01_00_11>(b);
            c = _mm_shuffle_epi32::<0b01_00_11_10>(c);
            d = _mm_shuffle_epi32::<0b00_11_10_01>(d);
        }
        [a, b, c, d].map(|row| {
            let (low, high) = (_mm_cvtsi128_si64(row), _mm_cvtsi128_si64(_mm_unpackhi_epi64(row, row)));
            [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32]
        })
    }

    #[inline(always)]
    fn round(mut a: __m128i, mut b: __m128i, mut c: __m128i, mut d: __m128i) -> (__m128i, __m128i, __m128i, __m128i) {
        a = _mm_add_epi32(a, b);
        // Rotation by 16 bits: halves change places.
        d = _mm_shufflehi_epi16::<0b10_11_00_01>(_mm_shufflelo_epi16::<0b10_11_00_01>(_mm_xor_si128(d, a)));
        c = _mm_add_epi32(c, d);
        b = rotated::<12, 20>(_mm_xor_si128(b, c));
        a = _mm_add_epi32(a, b);
        d = rotated::<8, 24>(_mm_xor_si128(d, a));
        c = _mm_add_epi32(c, d);
        b = rotated::<7, 25>(_mm_xor_si128(b, c));
        (a, b, c, d)
    }

    #[inline(always)]
    fn rotated<const LEFT: i32, const RIGHT: i32>(row: __m128i) -> __m128i {
        const { assert!(LEFT + RIGHT == 32) };
        _mm_or_si128(_mm_slli_epi32::<LEFT>(row), _mm_srli_epi32::<RIGHT>(row))
    }
}

/// The same for other processors.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::{DOUBLE_ROUNDS, Row};

    pub(super) fn rounds(start: [Row; 4]) -> [Row; 4] {
        let [mut a, mut b, mut c, mut d] = start;
        for _ in 0..DOUBLE_ROUNDS {
            // The columns, then the diagonals.
            for lane in 0..4 {
                quarter(&mut a[lane], &mut b[lane], &mut c[lane], &mut d[lane]);
            }
            for lane in 0..4 {
                quarter(&mut a[lane], &mut b[(lane + 1) % 4], &mut c[(lane + 2) % 4], &mut d[(lane + 3) % 4]);
            }
        }
        [a, b, c, d]
    }

    #[inline(always)]
    fn quarter(a: &mut u32, b: &mut u32, c: &mut u32, d: &mut u32) {
        *a = a.wrapping_add(*b);
        *d = (*d ^ *a).rotate_left(16);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_left(12);
        *a = a.wrapping_add(*b);
        *d = (*d ^ *a).rotate_left(8);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_left(7);
    }
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
    proptest! {
        /// Of the two, a processor runs only one.
        #[test]
        #[cfg(target_arch = "x86_64")]
        fn vectors_do_what_plain_code_does(start: [[u32; 4]; 4]) {
            prop_assert_eq!(vector::rounds(start), portable::rounds(start));
        }
    }
}
