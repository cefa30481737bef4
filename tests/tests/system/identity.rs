//! `llm-only` in f32 at T = 0, through QUIC, batching and KV arenas, writes what a plain greedy loop over candle-transformers'
//! own Llama writes on the same weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};
use specfleet::progress::{Progress, Ui};
use specfleet::run::{RunOptions, run};
use specfleet_config::Scenario;
use specfleet_model::{Embedded, Tokenizer};

const PROMPTS: i64 = 12;
const TOKENS: usize = 64;
/// Where the two best logits are closer than this, either may win; such a position excuses what follows it.
const TIE: f32 = 1e-4;

#[test]
fn llm_only_is_candles_own_greedy_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lines = run_llm_only(folder.path());
    let tokenizer = Tokenizer::embedded().expect("embedded");
    let (config, weights) = reference();
    let mut excused = 0;
    for line in &lines {
        let prompt = tokenizer.encode(line["prompt"].as_str().expect("text")).expect("encodes");
        let ours: Vec<u32> = serde_json::from_value(line["token_ids"].clone()).expect("tokens");
        let llama =
            Llama::load(VarBuilder::from_tensors(weights.clone(), candle_core::DType::F32, &Device::Cpu), &config);
        let llama = llama.expect("loads");
        let mut cache = Cache::new(true, candle_core::DType::F32, &config, &Device::Cpu).expect("cache");
        let mut feed = prompt;
        let mut position = 0;
        for (at, &token) in ours.iter().enumerate() {
            let input = Tensor::new(feed.as_slice(), &Device::Cpu).and_then(|t| t.unsqueeze(0)).expect("input");
            let logits = llama.forward(&input, position, &mut cache).and_then(|l| l.squeeze(0)).expect("forward");
            let logits: Vec<f32> = logits.to_vec1().expect("logits");
            let (best, margin) = best(&logits);
            if margin < TIE {
                excused += 1;
                break;
            }
            assert_eq!(token, best, "prompt {}, token {at}", line["prompt_id"]);
            position += feed.len();
            feed = vec![token];
        }
    }
    assert_eq!(lines.len(), PROMPTS as usize);
    println!("{excused} of {} texts end early at a tie", lines.len());
    assert!(excused <= lines.len() / 4, "so many ties ({excused}) that the test says little");
}

fn run_llm_only(folder: &Path) -> Vec<serde_json::Value> {
    let mut scenario = Scenario::shipped_default().expect("ships");
    for assignment in [
        "run.methods=[\"llm-only\"]",
        "run.devices=4",
        "run.temperature=0",
        "model.verifier_precision=f32",
        "device.profile=host",
        "device.link=real",
    ] {
        scenario.set(assignment).expect("valid");
    }
    scenario.set_flag("test", "run.prompts", PROMPTS).expect("valid");
    scenario.set_flag("test", "run.max_new_tokens", TOKENS as i64).expect("valid");
    let progress = Progress::new(Ui::None);
    let out = folder.join("out");
    let options = RunOptions {
        settings: scenario.settings().expect("valid"),
        scenario: scenario.to_toml(),
        ledger: &folder.join("ledger"),
        out: Some(&out),
        progress: &progress,
        metrics: None,
    };
    actix::System::new().block_on(run(options)).expect("runs");
    let text = std::fs::read_to_string(out.join("generations.jsonl")).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[expect(clippy::disallowed_types, reason = "what candle's VarBuilder takes; nothing iterates over it")]
fn reference() -> (Config, std::collections::HashMap<String, Tensor>) {
    let config: LlamaConfig =
        serde_json::from_slice(include_bytes!("../../../model/assets/verifier/config.json")).expect("a configuration");
    let tensors = candle_core::safetensors::load_buffer(Embedded::Verifier.weights(), &Device::Cpu).expect("weights");
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let f32s = tensors
        .into_iter()
        .map(|(name, tensor)| (name, tensor.to_dtype(candle_core::DType::F32).expect("converts")))
        .collect();
    (config.into_config(false), f32s)
}

/// The arg max and its distance from the second best.
fn best(logits: &[f32]) -> (u32, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    (order[0] as u32, logits[order[0]] - logits[order[1]])
}
