//! The sizes that everything else is derived from, parsed once from the configuration.

use candle_transformers::models::llama::{LlamaConfig, LlamaEosToks};
use serde_json::Value;

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

/// Parses `config.json`, refusing what this forward would silently compute wrongly.
pub(crate) fn parse_config(json: &[u8], origin: &str) -> Result<LlamaConfig, ModelError> {
    let refuse = |reason: String| ModelError::Config { origin: origin.to_owned(), reason };
    let raw: Value = serde_json::from_slice(json).map_err(|e| refuse(format!("not a JSON configuration: {e}")))?;
    if let Some(kind) = raw.get("model_type").and_then(Value::as_str)
        && kind != "llama"
    {
        return Err(refuse(format!("model_type `{kind}` is not supported, only `llama` is")));
    }
    if let Some(act) = raw.get("hidden_act").and_then(Value::as_str)
        && act != "silu"
    {
        return Err(refuse(format!("hidden_act `{act}` is not supported, only `silu` is")));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if raw.get(key) == Some(&Value::Bool(true)) {
            return Err(refuse(format!("{key} = true is not supported")));
        }
    }
    // Absent and null rope_scaling mean none; `{"rope_type": "default"}` without factors means none too.
    let mut raw = raw;
    if let Some(scaling) = raw.get("rope_scaling").and_then(Value::as_object) {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        match kind.and_then(Value::as_str) {
            Some("llama3") => {}
            Some("default") => raw["rope_scaling"] = Value::Null,
            other => {
                let name = other.unwrap_or("(none)");
                return Err(refuse(format!(
                    "rope_scaling type `{name}` is not supported, only `llama3` and `default` are"
                )));
            }
        }
    }
    let head_dim = raw.get("head_dim").and_then(Value::as_u64);
    let config: LlamaConfig = serde_json::from_value(raw).map_err(|e| refuse(e.to_string()))?;
    if let Some(dim) = head_dim
        && dim as usize * config.num_attention_heads != config.hidden_size
    {
        return Err(refuse(format!(
            "head_dim {dim} × num_attention_heads {} differs from hidden_size {}, which is not supported",
            config.num_attention_heads, config.hidden_size
        )));
    }
    Ok(config)
}
