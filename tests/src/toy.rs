//! Toy models: logits as a pure function of the last two tokens, different for drafter and verifier but alike enough that both
//! acceptance and rejection happen.

use specfleet_engine::random::{DrawKey, Purpose};

/// A model of a few tokens.
#[derive(Clone, Copy, Debug)]
pub struct Toy {
    /// Size of the vocabulary.
    pub vocab: usize,
    /// 0 for the verifier; for a drafter, how far its logits stray.
    pub strays: f64,
}

impl Toy {
    /// Logits of the token behind `context` (which holds at least one).
    pub fn logits(&self, context: &[u32]) -> Vec<f32> {
        let last = context.last().copied().unwrap_or(0);
        let before = context.len().checked_sub(2).map_or(0, |at| context[at]);
        let key = |salt: u32| DrawKey { seed: 4711, prompt: last, repetition: 0, position: before, rejections: salt };
        let mut base = key(0).draws(Purpose::Calibration);
        let mut stray = key(1).draws(Purpose::Calibration);
        (0..self.vocab).map(|_| (4.0 * base.uniform() + self.strays * stray.uniform()) as f32).collect()
    }

    /// A row of attention over `length` positions, uneven and different at each length.
    pub fn attention(length: usize) -> Vec<f32> {
        let weights: Vec<f32> = (0..length).map(|at| 1.0 + ((at * 7 + length * 3) % 11) as f32).collect();
        let sum: f32 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }
}
