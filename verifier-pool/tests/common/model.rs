//! A random model that is small enough to be instant.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use specfleet_model::{Embedded, LlamaConfig, Model, Precision};

pub(crate) const VOCAB: usize = 40;
const HIDDEN: usize = 32;
const KV: usize = 16;
const FFN: usize = 48;
const LAYERS: usize = 2;

/// A small generator, so that a seed names the same numbers everywhere.
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

    /// In [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn tokens(&mut self, count: usize, vocab: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(vocab) as u32).collect()
    }
}

/// The same random model in every test: 40 tokens, a context of 256.
pub(crate) fn tiny() -> Model {
    static TINY: OnceLock<Model> = OnceLock::new();
    TINY.get_or_init(|| Model::from_tensors(&config(), tensors(), Precision::F32).expect("consistent")).clone()
}

/// The embedded verifier in f32, the slowest there is.
pub(crate) fn embedded() -> Model {
    static EMBEDDED: OnceLock<Model> = OnceLock::new();
    EMBEDDED.get_or_init(|| Model::embedded(Embedded::Verifier, Precision::F32).expect("part of the binary")).clone()
}

fn config() -> LlamaConfig {
    serde_json::from_value(serde_json::json!({
        "hidden_size": HIDDEN, "intermediate_size": FFN, "vocab_size": VOCAB, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 256, "tie_word_embeddings": true,
        "rope_scaling": null,
    }))
    .expect("a configuration")
}

fn tensors() -> BTreeMap<String, Tensor> {
    let mut random = Random(7);
    let mut map = BTreeMap::new();
    let mut add = |name: String, rows: usize, len: usize| {
        let scale = 3.0 / (len as f64).sqrt();
        let values: Vec<f32> = (0..rows * len).map(|_| ((2.0 * random.uniform() - 1.0) * scale) as f32).collect();
        map.insert(name, Tensor::from_vec(values, (rows, len), &Device::Cpu).expect("a matrix"));
    };
    add("model.embed_tokens.weight".to_owned(), VOCAB, HIDDEN);
    for layer in 0..LAYERS {
        let parts = [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", KV, HIDDEN),
            ("self_attn.v_proj", KV, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", FFN, HIDDEN),
            ("mlp.up_proj", FFN, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ];
        for (part, rows, len) in parts {
            add(format!("model.layers.{layer}.{part}.weight"), rows, len);
        }
    }
    let norms = (0..LAYERS)
        .flat_map(|l| ["input", "post_attention"].map(|part| format!("model.layers.{l}.{part}_layernorm.weight")))
        .chain(["model.norm.weight".to_owned()]);
    for name in norms {
        map.insert(name, Tensor::new(vec![1_f32; HIDDEN], &Device::Cpu).expect("a vector"));
    }
    map
}
