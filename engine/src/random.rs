//! Every random draw of a run, from counter-based generators \[ours, method.md §1\]: ChaCha8 for all that a live run draws, and
//! SplitMix64, ten times as fast, for what stands in for models in a simulation.
//!
//! A draw is a pure function of *what it decides*: run seed, prompt, repetition, position, rejections and [`Purpose`].
//! Device, method, verifier and time are not in the key, so results never depend on timing, batch mates, the number of
//! workers or restarts, and methods are compared on common random numbers.

use serde::{Deserialize, Serialize};

use crate::chacha::ChaCha8;
use crate::splitmix::SplitMix;
use crate::time::Span;

/// What a sequence of draws is for. Different purposes of one [`DrawKey`] give independent draws.
///
/// The numbers enter the random key: they are never changed or reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Purpose {
    /// The draft token d(t) ~ x.
    Draft = 1,
    /// Temperatures and draws of the `sampled` uncertainty estimator.
    Uncertainty = 2,
    /// The coin of `rand-hlm`.
    Gate = 3,
    /// The verifier's accept-or-reject coin.
    Accept = 4,
    /// The replacement after a rejection, wherever it is drawn.
    Residual = 5,
    /// A token that the verifier writes itself: `llm-only` and the bonus token.
    Verifier = 6,
    // 7 was the channel's fading by the clock, until it came to belong to uploads.
    /// Choices of the calibration, such as which rejected drafts are studied for harm.
    Calibration = 8,
    /// Arrivals, thinking times, and devices that come and go.
    Load = 9,
    /// Answers drawn from fitted distributions, and the spread of simulated times.
    Simulation = 10,
    /// Whether an answer drawn from fitted distributions is accepted.
    SimulatedAccept = 11,
    /// Fading of the emulated uplink, block by block of one upload.
    Uplink = 12,
    /// The same of the downlink.
    Downlink = 13,
}

/// What a draw belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DrawKey {
    /// Seed of the run.
    pub seed: u64,
    /// Line number of the prompt in its workload.
    pub prompt: u32,
    /// Repetition of the same prompt.
    pub repetition: u16,
    /// Index in the sequence, the prompt included, of the token that is decided.
    pub position: u32,
    /// Rejections so far in this generation: what was drawn ahead of a rejection is never used again for another
    /// decision.
    pub rejections: u32,
}

/// Separates these keys from any other use of the same generator, and versions the packing.
const DOMAIN: [u8; 8] = *b"specflt1";

impl DrawKey {
    /// The same key at another position.
    pub fn at(self, position: u32) -> DrawKey {
        DrawKey { position, ..self }
    }

    /// The draws of this key for one purpose, always from the first one on.
    #[inline]
    pub fn draws(self, purpose: Purpose) -> Draws {
        match purpose {
            Purpose::Simulation | Purpose::SimulatedAccept => Draws(Stream::Simulated(self.simulated(purpose))),
            _ => Draws(Stream::Whole(self.whole(purpose))),
        }
    }

    /// What no live run draws: millions of times a second, and never against an adversary.
    #[inline]
    fn simulated(self, purpose: Purpose) -> SplitMix {
        let place = u64::from(self.prompt) << 32 | u64::from(self.position);
        let rest = u64::from(self.rejections) << 32 | u64::from(self.repetition) << 8 | purpose as u64;
        SplitMix::new(u64::from_le_bytes(DOMAIN)).with(self.seed).with(rest).with(place)
    }

    fn whole(self, purpose: Purpose) -> ChaCha8 {
        let mut seed = [0_u8; 32];
        seed[0..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&self.prompt.to_le_bytes());
        seed[12..14].copy_from_slice(&self.repetition.to_le_bytes());
        seed[14] = purpose as u8;
        seed[16..20].copy_from_slice(&self.position.to_le_bytes());
        seed[20..24].copy_from_slice(&self.rejections.to_le_bytes());
        seed[24..32].copy_from_slice(&DOMAIN);
        ChaCha8::new(seed)
    }
}

/// A sequence of uniform draws.
#[derive(Clone, Debug)]
pub struct Draws(Stream);

#[derive(Clone, Debug)]
enum Stream {
    /// Of everything that a live run draws.
    Whole(ChaCha8),
    /// Of what stands for a model in a simulation.
    Simulated(SplitMix),
}

impl Draws {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        match &mut self.0 {
            Stream::Whole(stream) => stream.next_u64(),
            Stream::Simulated(stream) => stream.next_u64(),
        }
    }

    /// The next draw from [0, 1), with 53 random bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// An exponential length with this mean, by inversion.
    pub fn exponential(&mut self, mean: Span) -> Span {
        Span::from_seconds(-(1.0 - self.uniform()).ln() * mean.seconds())
    }

    /// The next draw from [0, 1) that an `f32` holds exactly (24 bits): rounding a 53-bit draw could give 1.
    pub fn uniform_f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1_u32 << 24) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: DrawKey = DrawKey { seed: 0x0123_4567_89ab_cdef, prompt: 7, repetition: 1, position: 42, rejections: 3 };

    /// Stored runs are reproducible only as long as these values stand.
    #[test]
    fn golden_values() {
        let mut accept = KEY.draws(Purpose::Accept);
        let accept: Vec<u64> = (0..3).map(|_| accept.uniform().to_bits()).collect();
        let draft = KEY.draws(Purpose::Draft).uniform().to_bits();
        let zero = DrawKey { seed: 0, prompt: 0, repetition: 0, position: 0, rejections: 0 };
        let zero = zero.draws(Purpose::Calibration).uniform().to_bits();
        assert_eq!(
            (accept, draft, zero),
            (
                vec![4604728733409608273, 4593984430836585792, 4591419801038522792],
                4595494973329305380,
                4582572161632465280
            )
        );
    }

    #[test]
    fn every_field_matters() {
        let first = |key: DrawKey, purpose| key.draws(purpose).uniform().to_bits();
        let mut seen = vec![
            first(KEY, Purpose::Simulation),
            first(DrawKey { seed: 1, ..KEY }, Purpose::Simulation),
            first(DrawKey { prompt: 8, ..KEY }, Purpose::Simulation),
            first(DrawKey { repetition: 2, ..KEY }, Purpose::Simulation),
            first(KEY.at(43), Purpose::Simulation),
            first(DrawKey { rejections: 4, ..KEY }, Purpose::Simulation),
            first(KEY, Purpose::SimulatedAccept),
            first(KEY, Purpose::Draft),
            first(DrawKey { seed: 1, ..KEY }, Purpose::Draft),
            first(DrawKey { prompt: 8, ..KEY }, Purpose::Draft),
            first(DrawKey { repetition: 2, ..KEY }, Purpose::Draft),
            first(KEY.at(43), Purpose::Draft),
            first(DrawKey { rejections: 4, ..KEY }, Purpose::Draft),
            first(KEY, Purpose::Accept),
            first(KEY, Purpose::Residual),
        ];
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn uniform_moments() {
        for purpose in [Purpose::Gate, Purpose::Simulation] {
            let n = 100_000;
            let (mut sum, mut squares, mut products) = (0.0, 0.0, 0.0);
            let mut last = 0.5;
            for position in 0..n {
                let u = KEY.at(position).draws(purpose).uniform();
                assert!((0.0..1.0).contains(&u));
                sum += u;
                squares += u * u;
                products += u * last;
                last = u;
            }
            let n = f64::from(n);
            assert!((sum / n - 0.5).abs() < 0.004, "{purpose:?}: mean {}", sum / n);
            assert!((squares / n - 1.0 / 3.0).abs() < 0.004, "{purpose:?}: second moment {}", squares / n);
            assert!((products / n - 0.25).abs() < 0.004, "{purpose:?}: of neighbours {}", products / n);
        }
    }
}
