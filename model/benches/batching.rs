//! What batching brings, and how far the whole forward is from its matrix products alone.
//!
//! `cargo bench -p specfleet-model --bench batching` prints one table. Every figure is the best of several rounds, and
//! what is compared is measured in turn within the same run. candle's products alone are measured in child processes of
//! this program, one per number of threads, because candle fixes its threads at start.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{process::Command, time::Instant};

use candle_core::{
    DType, Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QTensor},
};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use specfleet_model::{Embedded, KvArena, LogitRows, Model, Precision, SeqId, SeqStep};

const BATCHES: [usize; 4] = [1, 4, 16, 64];
const CONTEXT: usize = 128;

fn main() {
    if let Ok(kind) = std::env::var("PRODUCTS_ALONE") {
        products_alone(&kind);
        return;
    }
    println!("embedded verifier, context {CONTEXT}, one new token per sequence, tokens/s");
    for precision in [Precision::F32, Precision::Q8_0, Precision::Q4K] {
        let model = Model::embedded(Embedded::Verifier, precision).unwrap();
        let one = BATCHES.map(|b| decode(&model, b, 1));
        let two = BATCHES.map(|b| decode(&model, b, 2));
        row(&format!("{precision}, 1 thread"), &one);
        row(&format!("{precision}, 2 threads"), &two);
        println!("  64 sequences against 1: {:.2}× on one thread, {:.2}× on two", one[3] / one[0], two[3] / two[0]);
        if precision != Precision::Q4K {
            let alone = ["1", "2"].map(|threads| alone(&precision.to_string(), threads));
            row(&format!("  {precision} products alone in candle, 1 thread"), &alone[0]);
            row(&format!("  {precision} products alone in candle, 2 threads"), &alone[1]);
            let best = alone[0][3].max(alone[1][3]);
            println!(
                "  whole forward at 64 against the products alone (best threads of each): {:.0} %",
                100.0 * one[3].max(two[3]) / best
            );
        }
        let replicas = two_replicas(&model, 32);
        let whole = decode(&model, 64, 2);
        println!(
            "  two replicas × 1 thread × 32: {replicas:.0}; one × 2 threads × 64: {whole:.0}; ratio {:.2}",
            replicas / whole
        );
    }
    one_sequence();
}

fn row(name: &str, figures: &[f64; 4]) {
    let cells: Vec<String> = figures.iter().map(|f| format!("{f:>8.0}")).collect();
    println!("{name:<44}{}", cells.join(""));
}

/// The best rate of several rounds of `work`, which does `count` units.
fn best_rate(count: usize, mut work: impl FnMut()) -> f64 {
    work();
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    count as f64 / best
}

fn token(i: usize) -> u32 {
    (i * 7919 % 2000 + 2) as u32
}

fn filled(model: &Model, batch: usize, threads: usize) -> (KvArena, Vec<SeqId>) {
    let mut arena = KvArena::new(model, 1 << 30).with_threads(threads);
    let ids: Vec<SeqId> = (0..batch).map(|_| arena.open()).collect();
    for (i, seq) in ids.iter().enumerate() {
        let tokens: Vec<u32> = (0..CONTEXT - 1).map(|t| token(t + i)).collect();
        let step = SeqStep { seq: *seq, tokens: &tokens, logits: LogitRows::None, attention: None };
        model.forward(&mut arena, &[step]).unwrap();
    }
    (arena, ids)
}

fn decode(model: &Model, batch: usize, threads: usize) -> f64 {
    let (mut arena, ids) = filled(model, batch, threads);
    best_rate(batch, || pass(model, &mut arena, &ids))
}

fn pass(model: &Model, arena: &mut KvArena, ids: &[SeqId]) {
    let steps: Vec<SeqStep<'_>> = ids
        .iter()
        .map(|seq| SeqStep { seq: *seq, tokens: &[5], logits: LogitRows::Last(1), attention: None })
        .collect();
    model.forward(arena, &steps).unwrap();
    for seq in ids {
        arena.truncate(*seq, CONTEXT - 1);
    }
}

/// Tokens/s of two replicas that run at the same time, each with its own arena.
fn two_replicas(model: &Model, batch: usize) -> f64 {
    let mut best = 0f64;
    for _ in 0..3 {
        let rates: Vec<f64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut arena, ids) = filled(model, batch, 1);
                        let start = Instant::now();
                        let mut passes = 0;
                        while start.elapsed().as_secs_f64() < 0.5 {
                            pass(model, &mut arena, &ids);
                            passes += 1;
                        }
                        (passes * batch) as f64 / start.elapsed().as_secs_f64()
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        best = best.max(rates.iter().sum());
    }
    best
}

/// `[out, in]` of every product of the verifier, as candle would hold them.
fn shapes() -> Vec<(usize, usize)> {
    let layer = [(256, 256), (256, 256), (256, 256), (256, 256), (704, 256), (704, 256), (256, 704)];
    let mut all: Vec<_> = (0..6).flat_map(|_| layer).collect();
    all.push((2048, 256));
    all
}

fn alone(kind: &str, threads: &str) -> [f64; 4] {
    let out = Command::new(std::env::current_exe().unwrap())
        .env("PRODUCTS_ALONE", kind)
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|w| w.parse().unwrap()).collect();
    figures.try_into().unwrap()
}

fn products_alone(kind: &str) {
    let cpu = Device::Cpu;
    let weights: Vec<Tensor> = shapes().iter().map(|s| Tensor::randn(0f32, 0.05, *s, &cpu).unwrap()).collect();
    for batch in BATCHES {
        let inputs: Vec<Tensor> =
            shapes().iter().map(|s| Tensor::randn(0f32, 1.0, (batch, s.1), &cpu).unwrap()).collect();
        let rate = if kind == "f32" {
            let turned: Vec<Tensor> = weights.iter().map(|w| w.t().unwrap().contiguous().unwrap()).collect();
            best_rate(batch, || {
                for (x, w) in inputs.iter().zip(&turned) {
                    x.matmul(w).unwrap();
                }
            })
        } else {
            let quantised: Vec<QMatMul> = weights
                .iter()
                .map(|w| QMatMul::from_qtensor(QTensor::quantize(w, GgmlDType::Q8_0).unwrap()).unwrap())
                .collect();
            best_rate(batch, || {
                for (x, w) in inputs.iter().zip(&quantised) {
                    w.forward(x).unwrap();
                }
            })
        };
        println!("{rate}");
    }
}

/// Prefill of 128 and 64 decode steps of one sequence, against candle-transformers' own Llama in f32.
fn one_sequence() {
    let cpu = Device::Cpu;
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/verifier");
    let config: LlamaConfig = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let config = config.into_config(false);
    let stored = candle_core::safetensors::load(dir.join("model.safetensors"), &cpu).unwrap();
    let tensors = stored.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F32).unwrap())).collect();
    let llama = Llama::load(VarBuilder::from_tensors(tensors, DType::F32, &cpu), &config).unwrap();
    let prompt: Vec<u32> = (0..128).map(token).collect();
    let theirs = best_rate(192, || {
        let mut cache = Cache::new(true, DType::F32, &config, &cpu).unwrap();
        let mut feed = |tokens: &[u32], at: usize| {
            let input = Tensor::new(tokens, &cpu).unwrap().unsqueeze(0).unwrap();
            llama.forward(&input, at, &mut cache).unwrap();
        };
        feed(&prompt, 0);
        for at in 128..192 {
            feed(&[5], at);
        }
    });
    println!("one sequence, prefill 128 + decode 64, tokens/s; candle-transformers f32: {theirs:.0}");
    for precision in [Precision::F32, Precision::Q8_0, Precision::Q4K] {
        let model = Model::embedded(Embedded::Verifier, precision).unwrap();
        let mut arena = KvArena::new(&model, 1 << 28);
        let ours = best_rate(192, || {
            let seq = arena.open();
            let mut feed = |tokens: &[u32]| {
                let step = SeqStep { seq, tokens, logits: LogitRows::Last(1), attention: None };
                model.forward(&mut arena, &[step]).unwrap();
            };
            feed(&prompt);
            for _ in 0..64 {
                feed(&[5]);
            }
            arena.close(seq);
        });
        println!("  {precision}: {ours:.0}, {:.2}×", ours / theirs);
    }
}
