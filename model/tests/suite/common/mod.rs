//! Random tiny models, and the same weights in candle-transformers' own Llama.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama};
use specfleet_model::LlamaConfig;

/// Sizes of a random model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiny {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) ffn: usize,
    pub(crate) layers: usize,
    pub(crate) vocab: usize,
    pub(crate) tied: bool,
    pub(crate) llama3: bool,
}

pub(crate) const GROUPED: Tiny =
    Tiny { hidden: 64, heads: 4, kv_heads: 2, ffn: 96, layers: 2, vocab: 75, tied: false, llama3: true };

pub(crate) fn config(t: Tiny) -> LlamaConfig {
    let scaling = if t.llama3 {
        r#"{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_type": "llama3"}"#
    } else {
        "null"
    };
    serde_json::from_str(&format!(
        r#"{{"hidden_size": {}, "intermediate_size": {}, "vocab_size": {}, "num_hidden_layers": {},
            "num_attention_heads": {}, "num_key_value_heads": {}, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "bos_token_id": 0, "eos_token_id": [1, 2], "max_position_embeddings": 256,
            "tie_word_embeddings": {}, "rope_scaling": {scaling}}}"#,
        t.hidden, t.ffn, t.vocab, t.layers, t.heads, t.kv_heads, t.tied
    ))
    .unwrap()
}

/// A small generator, so that a seed names the same weights everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

pub(crate) fn tensors(t: Tiny, seed: u64) -> BTreeMap<String, Tensor> {
    let mut random = Random(seed);
    let kv = t.hidden / t.heads * t.kv_heads;
    let mut map = BTreeMap::new();
    let mut matrix = |name: String, rows: usize, len: usize| {
        let scale = 1.5 / (len as f32).sqrt();
        let values: Vec<f32> = (0..rows * len).map(|_| random.float() * scale).collect();
        map.insert(name, Tensor::from_vec(values, (rows, len), &Device::Cpu).unwrap());
    };
    matrix("model.embed_tokens.weight".into(), t.vocab, t.hidden);
    if !t.tied {
        matrix("lm_head.weight".into(), t.vocab, t.hidden);
    }
    for l in 0..t.layers {
        let name = |part: &str| format!("model.layers.{l}.{part}.weight");
        matrix(name("self_attn.q_proj"), t.hidden, t.hidden);
        matrix(name("self_attn.k_proj"), kv, t.hidden);
        matrix(name("self_attn.v_proj"), kv, t.hidden);
        matrix(name("self_attn.o_proj"), t.hidden, t.hidden);
        matrix(name("mlp.gate_proj"), t.ffn, t.hidden);
        matrix(name("mlp.up_proj"), t.ffn, t.hidden);
        matrix(name("mlp.down_proj"), t.hidden, t.ffn);
    }
    let mut norm = |name: String| {
        let values: Vec<f32> = (0..t.hidden).map(|_| 1.0 + 0.2 * random.float()).collect();
        map.insert(name, Tensor::new(values, &Device::Cpu).unwrap());
    };
    norm("model.norm.weight".into());
    for l in 0..t.layers {
        norm(format!("model.layers.{l}.input_layernorm.weight"));
        norm(format!("model.layers.{l}.post_attention_layernorm.weight"));
    }
    map
}

/// candle-transformers' own Llama, as the reference.
pub(crate) struct Reference {
    llama: Llama,
    config: candle_transformers::models::llama::Config,
}

impl Reference {
    pub(crate) fn new(config: &LlamaConfig, tensors: BTreeMap<String, Tensor>) -> Self {
        let config = config.clone().into_config(false);
        let vars = VarBuilder::from_tensors(tensors.into_iter().collect(), DType::F32, &Device::Cpu);
        Self { llama: Llama::load(vars, &config).unwrap(), config }
    }

    /// The embedded verifier or drafter of `assets/`.
    pub(crate) fn asset(name: &str) -> Self {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name);
        let config = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
        let stored = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
        let tensors = stored.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F32).unwrap())).collect();
        Self::new(&config, tensors)
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new(true, DType::F32, &self.config, &Device::Cpu).unwrap()
    }

    /// Feeds `tokens` at position `at` and returns the logits of the last.
    pub(crate) fn step(&self, tokens: &[u32], at: usize, cache: &mut Cache) -> Vec<f32> {
        let input = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = self.llama.forward(&input, at, cache).unwrap();
        logits.flatten_all().unwrap().to_vec1().unwrap()
    }
}
