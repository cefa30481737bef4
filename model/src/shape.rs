//! The sizes that everything else is derived from, parsed once from the configuration.

use candle_transformers::models::llama::{LlamaConfig, LlamaEosToks};

use crate::ModelError;

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
    /// Elements per head.
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
        for (key, value) in [
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads()),
            ("max_position_embeddings", config.max_position_embeddings),
        ] {
            if value == 0 {
                return refuse(format!("{key} must be at least 1"));
            }
        }
        let (hidden, heads, kv_heads) = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads());
        if !hidden.is_multiple_of(heads) {
            return refuse(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return refuse(format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"));
        }
        let head_dim = hidden / heads;
        if !head_dim.is_multiple_of(2) {
            return refuse(format!("hidden_size / num_attention_heads = {head_dim} must be even for rotary positions"));
        }
        let (vocab, ffn, layers) = (config.vocab_size, config.intermediate_size, config.num_hidden_layers);
        let tied_head = config.tie_word_embeddings.unwrap_or(false);
        let kv_dim = kv_heads * head_dim;
        let per_layer = 2 * hidden * hidden + 2 * kv_dim * hidden + 3 * ffn * hidden + 2 * hidden;
        let embeddings = vocab * hidden * if tied_head { 1 } else { 2 };
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
            eos: match &config.eos_token_id {
                None => Vec::new(),
                Some(LlamaEosToks::Single(id)) => vec![*id],
                Some(LlamaEosToks::Multiple(ids)) => ids.clone(),
            },
            parameters: layers * per_layer + embeddings + hidden,
            kv_bytes_per_token: 2 * layers * kv_dim * size_of::<f32>(),
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
