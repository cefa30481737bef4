//! SplitMix64 \[Steele, Lea, Flood, 2014\], keyed: the generator behind those draws of [`crate::random`] that only simulations
//! make.
//!
//! Its output function is a bijection of 64 bits whose outputs for successive inputs pass `BigCrush`. A key goes in number
//! by number, through the same function: for equal numbers before the last, different last numbers never give equal
//! states \[ours\].

/// 2⁶⁴ / golden ratio, odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where a stream is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    #[inline]
    pub(crate) fn new(domain: u64) -> SplitMix {
        SplitMix(domain)
    }

    /// The same key, and one number more.
    #[inline]
    pub(crate) fn with(self, number: u64) -> SplitMix {
        SplitMix(mixed(self.0.wrapping_add(STEP)) ^ number)
    }

    #[inline]
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }
}

/// Variant 13 of Stafford's mixers, as in the published generator.
#[inline]
fn mixed(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published generator for the seed 1234567.
    #[test]
    fn the_published_stream() {
        let mut stream = SplitMix::new(1_234_567);
        let first: Vec<u64> = (0..5).map(|_| stream.next_u64()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(first, published);
    }
}
