//! Rotary positions, Hugging Face's rotate-half form, with llama3's frequency scaling.

use std::f32::consts::PI;

use candle_transformers::models::llama::{Llama3RopeConfig, Llama3RopeType, LlamaConfig};

/// Cosines and sines per position, `[context, head_dim / 2]` each.
pub(crate) struct Rope {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    pub(crate) fn new(config: &LlamaConfig) -> Self {
        let freqs = inverse_frequencies(config);
        let angles = |pos: usize| freqs.iter().map(move |f| pos as f32 * f);
        let positions = 0..config.max_position_embeddings;
        Self {
            half: freqs.len(),
            cos: positions.clone().flat_map(angles).map(f32::cos).collect(),
            sin: positions.flat_map(angles).map(f32::sin).collect(),
        }
    }

    /// Rotates every head of `row` (a whole number of heads) to position `pos`, in place.
    pub(crate) fn rotate(&self, row: &mut [f32], pos: usize) {
        let half = self.half;
        let cos = &self.cos[pos * half..][..half];
        let sin = &self.sin[pos * half..][..half];
        for head in row.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}

/// One inverse frequency per pair of elements. Long wavelengths are divided by llama3's factor, short ones kept, the
/// band between interpolated; computed in the same f32 steps as candle-transformers, so that the angles agree.
fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    let head_dim = config.hidden_size / config.num_attention_heads;
    let plain = (0..head_dim).step_by(2).map(|i| 1f32 / config.rope_theta.powf(i as f32 / head_dim as f32));
    let Some(scaling @ Llama3RopeConfig { rope_type: Llama3RopeType::Llama3, .. }) = &config.rope_scaling else {
        return plain.collect();
    };
    let original = scaling.original_max_position_embeddings as f32;
    let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
    plain
        .map(|freq| {
            let wavelength = 2. * PI / freq;
            if wavelength < original / high {
                freq
            } else if wavelength > original / low {
                freq / scaling.factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1. - smooth) * freq / scaling.factor + smooth * freq
            }
        })
        .collect()
}
