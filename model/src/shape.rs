//! The sizes that everything else is derived from, parsed once from the configuration.

use std::ops::RangeInclusive;

use candle_transformers::models::llama::{Llama3RopeConfig, LlamaConfig, LlamaEosToks};

use crate::ModelError;

/// Most entries of a vocabulary. Far beyond what is published; with the other limits it keeps every product of sizes, and
/// what is allocated by a configuration's word alone, within bounds.
pub(crate) const MOST_ENTRIES: usize = 1 << 24;

/// Most bytes of the cosines and sines of all positions.
const MOST_ROTARY_BYTES: usize = 1 << 30;

/// What is added in norms: published models have 1e-12 to 1e-5.
const EPS: RangeInclusive<f64> = 1e-12..=0.1;

/// Bases of rotary positions: published models have 1e4 to 1e8.
const THETA: RangeInclusive<f64> = 1.0..=1e12;

/// A model's sizes. All counts are of elements; `head_dim · heads == hidden`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShape {
    /// Entries of the vocabulary, and logits per row.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key/value heads per layer; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// The longest sequence in tokens.
    pub context: usize,
    /// Whether the output matrix is the embedding matrix.
    pub tied_head: bool,
    /// The token that starts a text, where the configuration names one.
    pub bos: Option<u32>,
    /// Tokens that end a text; may be empty.
    pub eos: Vec<u32>,
    /// Number of weights, a tied matrix counted once.
    pub parameters: usize,
    /// Bytes of KV cache per token.
    pub kv_bytes_per_token: usize,
    /// Added to the mean square in every norm.
    pub(crate) rms_eps: f32,
}

impl ModelShape {
    /// Checks a configuration and derives the sizes. `origin` names it in errors.
    pub(crate) fn new(config: &LlamaConfig, origin: &str) -> Result<Self, ModelError> {
        let refuse = |reason: String| Err(ModelError::Config { origin: origin.to_owned(), reason });
        if let Err(reason) = check_sizes(config).and_then(|()| check_numbers(config)) {
            return refuse(reason);
        }
        let (hidden, heads, kv_heads) = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads());
        let head_dim = hidden / heads;
        let (vocab, ffn, layers) = (config.vocab_size, config.intermediate_size, config.num_hidden_layers);
        let tied_head = config.tie_word_embeddings.unwrap_or(false);
        let eos = match &config.eos_token_id {
            None => Vec::new(),
            Some(LlamaEosToks::Single(id)) => vec![*id],
            Some(LlamaEosToks::Multiple(ids)) => ids.clone(),
        };
        for (key, ids) in [("bos_token_id", config.bos_token_id.as_slice()), ("eos_token_id", &eos)] {
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
                return refuse(format!("{key} {id} is outside the vocabulary 0..{vocab}"));
            }
        }
        let sizes = Products::of(config, head_dim);
        let Some(Products { parameters, kv_bytes_per_token }) = sizes else {
            return refuse(
                "hidden_size, intermediate_size, num_hidden_layers, vocab_size: too large together".to_owned(),
            );
        };
        Ok(Self {
            vocab,
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            head_dim,
            context: config.max_position_embeddings,
            tied_head,
            bos: config.bos_token_id,
            eos,
            parameters,
            kv_bytes_per_token,
            rms_eps: config.rms_norm_eps as f32,
        })
    }

    /// Width of the keys (and of the values) of one position.
    pub(crate) fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Multiply-adds of the matrix products for one token with its logits; attention itself is not counted.
    pub fn matmul_macs_per_token(&self) -> usize {
        let kv = self.kv_dim();
        self.layers * (2 * self.hidden * self.hidden + 2 * kv * self.hidden + 3 * self.ffn * self.hidden)
            + self.vocab * self.hidden
    }
}

/// What sizes make together.
struct Products {
    parameters: usize,
    kv_bytes_per_token: usize,
}

impl Products {
    /// `None` if a product is beyond what this machine can count.
    fn of(config: &LlamaConfig, head_dim: usize) -> Option<Products> {
        let product =
            |factors: &[usize]| factors.iter().try_fold(1usize, |product, factor| product.checked_mul(*factor));
        let sum = |terms: &[Option<usize>]| terms.iter().try_fold(0usize, |sum, term| sum.checked_add((*term)?));
        let (hidden, ffn, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
        let kv_dim = product(&[config.num_key_value_heads(), head_dim])?;
        let per_layer = sum(&[
            product(&[2, hidden, hidden]),
            product(&[2, kv_dim, hidden]),
            product(&[3, ffn, hidden]),
            product(&[2, hidden]),
        ])?;
        let matrices = if config.tie_word_embeddings.unwrap_or(false) { 1 } else { 2 };
        Some(Products {
            parameters: sum(&[
                product(&[layers, per_layer]),
                product(&[matrices, config.vocab_size, hidden]),
                Some(hidden),
            ])?,
            kv_bytes_per_token: product(&[2, layers, kv_dim, size_of::<f32>()])?,
        })
    }
}

/// Refuses sizes that are out of range, or that do not fit each other.
fn check_sizes(config: &LlamaConfig) -> Result<(), String> {
    for (key, value, most) in [
        ("vocab_size", config.vocab_size, MOST_ENTRIES),
        ("hidden_size", config.hidden_size, 1 << 20),
        ("intermediate_size", config.intermediate_size, 1 << 22),
        ("num_hidden_layers", config.num_hidden_layers, 10_000),
        ("num_attention_heads", config.num_attention_heads, 1 << 16),
        ("num_key_value_heads", config.num_key_value_heads(), 1 << 16),
        ("max_position_embeddings", config.max_position_embeddings, 1 << 20),
    ] {
        if !(1..=most).contains(&value) {
            return Err(format!("{key} = {value} is out of range: must lie in 1 to {most}"));
        }
    }
    let (hidden, heads, kv_heads) = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads());
    if !hidden.is_multiple_of(heads) {
        return Err(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}"));
    }
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"));
    }
    let head_dim = hidden / heads;
    if !head_dim.is_multiple_of(2) {
        return Err(format!("hidden_size / num_attention_heads = {head_dim} must be even for rotary positions"));
    }
    let rotary = config.max_position_embeddings.checked_mul(head_dim).and_then(|n| n.checked_mul(size_of::<f32>()));
    if rotary.is_none_or(|bytes| bytes > MOST_ROTARY_BYTES) {
        return Err(format!(
            "max_position_embeddings {} × hidden_size / num_attention_heads {head_dim}: the rotary positions would take \
             more than {MOST_ROTARY_BYTES} bytes",
            config.max_position_embeddings
        ));
    }
    Ok(())
}

/// Refuses numbers with which a forward computes no finite logits, or none that mean anything.
fn check_numbers(config: &LlamaConfig) -> Result<(), String> {
    let out_of_range = |key: &str, value: f64, least: f64, most: f64| {
        Err(format!("{key} = {value:?} is out of range: must lie in {least:?} to {most:?}"))
    };
    if !EPS.contains(&config.rms_norm_eps) {
        return out_of_range("rms_norm_eps", config.rms_norm_eps, *EPS.start(), *EPS.end());
    }
    if !THETA.contains(&config.rope_theta.into()) {
        return out_of_range("rope_theta", config.rope_theta.into(), *THETA.start(), *THETA.end());
    }
    let Some(Llama3RopeConfig {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
        ..
    }) = &config.rope_scaling
    else {
        return Ok(());
    };
    for (key, value, least) in
        [("factor", factor, 1.0), ("low_freq_factor", low, 1e-3), ("high_freq_factor", high, 1e-3)]
    {
        if !(least..=1e6).contains(&f64::from(*value)) {
            return out_of_range(&format!("rope_scaling.{key}"), (*value).into(), least, 1e6);
        }
    }
    if high <= low {
        return Err(format!("rope_scaling.high_freq_factor = {high} must be above low_freq_factor = {low}"));
    }
    if *original == 0 {
        return Err("rope_scaling.original_max_position_embeddings must be at least 1".to_owned());
    }
    Ok(())
}
