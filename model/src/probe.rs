//! A fixed probe of what this program computes on this machine.
//!
//! Two machines whose probes are equal compute the same logits from the same weights, as far as a probe can tell: it goes
//! through every kind of layer and every precision. Rotary angles come from the system's mathematical library, and kernels
//! from this build of the program, so that neither is the same everywhere by construction.

use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use candle_transformers::models::llama::LlamaConfig;
use sha2::{Digest, Sha256};

use crate::{KvArena, LogitRows, Model, ModelError, Precision, SeqStep};

/// The probe's model. Rows are multiples of 256, so that each precision is stored as such, and two query heads share one of
/// the cache.
const CONFIG: &str = r#"{
    "hidden_size": 256, "intermediate_size": 512, "vocab_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 256, "tie_word_embeddings": false,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 64, "rope_type": "llama3"}
}"#;

/// Lengths of the sequences that are fed together.
const PROMPTS: [usize; 3] = [70, 17, 1];

/// Passes of one token per sequence that follow.
const STEPS: u32 = 3;

/// SHA-256 of the probe's logits in all precisions. It is computed once per process, in some milliseconds.
pub fn kernel_digest() -> Result<[u8; 32], ModelError> {
    static DIGEST: OnceLock<[u8; 32]> = OnceLock::new();
    if let Some(digest) = DIGEST.get() {
        return Ok(*digest);
    }
    let mut digest = Sha256::new();
    for precision in [Precision::F32, Precision::Q8_0, Precision::Q4K] {
        probe(precision, &mut digest)?;
    }
    Ok(*DIGEST.get_or_init(|| digest.finalize().into()))
}

fn probe(precision: Precision, digest: &mut Sha256) -> Result<(), ModelError> {
    let config: LlamaConfig = serde_json::from_str(CONFIG)
        .map_err(|e| ModelError::Config { origin: ORIGIN.to_owned(), reason: e.to_string() })?;
    let model = Model::from_tensors(&config, weights(&config)?, precision)?;
    let bytes = KvArena::bytes_of(&model, model.shape().context) * PROMPTS.len();
    let mut arena = KvArena::new(&model, bytes);
    let vocab = model.shape().vocab as u32;
    let sequences = PROMPTS.map(|length| (arena.open(), length));
    for step in 0..=STEPS {
        let tokens = |length: usize, seed: u32| -> Vec<u32> {
            let count = if step == 0 { length as u32 } else { 1 };
            (0..count).map(|at| (at * 7 + seed * 13 + step * 5) % vocab).collect()
        };
        let fed: Vec<Vec<u32>> =
            sequences.iter().zip(0..).map(|((_, length), number)| tokens(*length, number)).collect();
        let steps: Vec<SeqStep<'_>> = sequences
            .iter()
            .zip(&fed)
            .map(|((seq, _), tokens)| SeqStep { seq: *seq, tokens, logits: LogitRows::All, attention: None })
            .collect();
        let output = model.forward(&mut arena, &steps)?;
        for index in 0..steps.len() {
            for logit in output.logits(index) {
                digest.update(logit.to_bits().to_le_bytes());
            }
        }
    }
    Ok(())
}

/// What errors call the probe.
const ORIGIN: &str = "the probe of kernels";

/// Weights from whole numbers alone, so that they are the same bits everywhere.
fn weights(config: &LlamaConfig) -> Result<Vec<(String, Tensor)>, ModelError> {
    let (hidden, ffn, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let kv = hidden / config.num_attention_heads * config.num_key_value_heads();
    let mut random = 0x5eed_u64;
    let mut named = Vec::new();
    let mut add = |name: String, rows: usize, row_len: usize| -> Result<(), ModelError> {
        let mut value = || {
            // Knuth's linear congruential generator (MMIX); its upper bits are as good as the probe needs.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // From −1/8 to 1/8 in steps of 2⁻²⁶: exact in f32.
            ((random >> 40) as f32 - 8_388_608.0) / 67_108_864.0
        };
        let values: Vec<f32> = (0..rows * row_len).map(|_| value()).collect();
        let tensor = if rows == 1 {
            // Norms are near 1.
            Tensor::from_vec(values.iter().map(|v| 1.0 + v).collect(), row_len, &Device::Cpu)
        } else {
            Tensor::from_vec(values, (rows, row_len), &Device::Cpu)
        };
        let refuse = |e: candle_core::Error| ModelError::Weights { origin: ORIGIN.to_owned(), reason: e.to_string() };
        named.push((name, tensor.map_err(refuse)?));
        Ok(())
    };
    add("model.embed_tokens.weight".to_owned(), vocab, hidden)?;
    add("lm_head.weight".to_owned(), vocab, hidden)?;
    add("model.norm.weight".to_owned(), 1, hidden)?;
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        add(name("self_attn.q_proj"), hidden, hidden)?;
        add(name("self_attn.k_proj"), kv, hidden)?;
        add(name("self_attn.v_proj"), kv, hidden)?;
        add(name("self_attn.o_proj"), hidden, hidden)?;
        add(name("mlp.gate_proj"), ffn, hidden)?;
        add(name("mlp.up_proj"), ffn, hidden)?;
        add(name("mlp.down_proj"), hidden, ffn)?;
        add(name("input_layernorm"), 1, hidden)?;
        add(name("post_attention_layernorm"), 1, hidden)?;
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_repeatable_and_tells_precisions_apart() {
        let one = |precision| {
            let mut digest = Sha256::new();
            probe(precision, &mut digest).unwrap();
            <[u8; 32]>::from(digest.finalize())
        };
        let [f32, q8_0, q4_k] = [Precision::F32, Precision::Q8_0, Precision::Q4K].map(one);
        assert!(f32 != q8_0 && q8_0 != q4_k && f32 != q4_k);
        assert_eq!(one(Precision::Q8_0), q8_0);
        assert_eq!(kernel_digest().unwrap(), kernel_digest().unwrap());
    }

    #[test]
    fn its_logits_are_finite_and_differ() {
        let config: LlamaConfig = serde_json::from_str(CONFIG).unwrap();
        for precision in [Precision::F32, Precision::Q8_0, Precision::Q4K] {
            let model = Model::from_tensors(&config, weights(&config).unwrap(), precision).unwrap();
            assert!(model.fallbacks().is_empty(), "{precision}");
            let mut arena = KvArena::new(&model, 16 << 20);
            let seq = arena.open();
            let tokens: Vec<u32> = (0..80).collect();
            let step = SeqStep { seq, tokens: &tokens, logits: LogitRows::All, attention: None };
            let output = model.forward(&mut arena, &[step]).unwrap();
            let (first, last) = (output.logits_row(0, 0), output.logits_row(0, 79));
            assert!(last.iter().all(|logit| logit.is_finite()));
            assert!(first != last && last.iter().any(|logit| logit.abs() > 0.1), "{precision}: {last:?}");
            assert_eq!(model.non_finite_rows(), 0);
        }
    }
}
