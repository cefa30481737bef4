//! Agreement with candle-transformers' own Llama on the same weights.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::common::{GROUPED, Random, Reference, Tiny, config, tensors};
use specfleet_model::{Embedded, KvArena, LogitRows, Model, Precision, SeqStep, Tokenizer};

fn all_logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut arena = KvArena::new(model, 1 << 28);
    let seq = arena.open();
    let step = SeqStep { seq, tokens, logits: LogitRows::All, attention: None };
    let out = model.forward(&mut arena, &[step]).unwrap();
    (0..tokens.len()).map(|r| out.logits_row(0, r).to_vec()).collect()
}

fn assert_agrees(model: &Model, reference: &Reference, tokens: &[u32]) {
    let ours = all_logits(model, tokens);
    let mut cache = reference.cache();
    for (at, ours) in ours.iter().enumerate() {
        let theirs = reference.step(&tokens[at..=at], at, &mut cache);
        for (id, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert!((a - b).abs() < 1e-4, "position {at}, token {id}: {a} against {b}");
        }
    }
}

const PROBLEM: &str =
    "Question: Anna has 12 apples and buys 3 bags with 7 apples each. How many apples has she now?\nAnswer:";

#[test]
fn the_embedded_pair_agrees_to_1e_4() {
    let tokens = Tokenizer::embedded().unwrap().encode(PROBLEM).unwrap();
    for (which, name) in [(Embedded::Drafter, "drafter"), (Embedded::Verifier, "verifier")] {
        let model = Model::embedded(which, Precision::F32).unwrap();
        assert_agrees(&model, &Reference::asset(name), &tokens);
    }
}

#[test]
fn random_models_agree_to_1e_4() {
    let variants = [
        GROUPED,
        Tiny { kv_heads: 1, tied: true, ..GROUPED },
        Tiny { kv_heads: 4, llama3: false, ..GROUPED },
        // Heads of 10 and a vocabulary that fills no panel: the odd ends of every kernel.
        Tiny { hidden: 40, heads: 4, ffn: 33, vocab: 19, ..GROUPED },
    ];
    for (seed, tiny) in variants.into_iter().enumerate() {
        let (config, tensors) = (config(tiny), tensors(tiny, seed as u64));
        let model = Model::from_tensors(&config, tensors.clone(), Precision::F32).unwrap();
        let mut random = Random(seed as u64);
        // 150 positions: past the 64 original ones of the llama3 scaling, and several pages and tiles.
        let tokens: Vec<u32> = (0..150).map(|_| random.below(tiny.vocab) as u32).collect();
        assert_agrees(&model, &Reference::new(&config, tensors), &tokens);
    }
}

#[test]
fn a_greedy_loop_gives_the_same_tokens() {
    let reference = Reference::asset("verifier");
    let model = Model::embedded(Embedded::Verifier, Precision::F32).unwrap();
    let tokens = Tokenizer::embedded().unwrap().encode(PROBLEM).unwrap();
    let mut arena = KvArena::new(&model, 1 << 28);
    let seq = arena.open();
    let mut cache = reference.cache();
    let (mut new, mut at) = (tokens, 0);
    for _ in 0..64 {
        let step = SeqStep { seq, tokens: &new, logits: LogitRows::Last(1), attention: None };
        let out = model.forward(&mut arena, &[step]).unwrap();
        let theirs = reference.step(&new, at, &mut cache);
        at += new.len();
        let next = argmax(out.logits(0));
        assert_eq!(next, argmax(&theirs), "after {at} tokens");
        if model.shape().eos.contains(&next) {
            break;
        }
        new = vec![next];
    }
    assert!(at > 60, "the loop ended at once");
}

#[test]
fn quantised_models_stay_close() {
    let tokens = Tokenizer::embedded().unwrap().encode(PROBLEM).unwrap();
    let exact = all_logits(&Model::embedded(Embedded::Verifier, Precision::F32).unwrap(), &tokens);
    for (precision, bound) in [(Precision::Q8_0, 0.02), (Precision::Q4K, 0.2)] {
        let model = Model::embedded(Embedded::Verifier, precision).unwrap();
        let rows = all_logits(&model, &tokens);
        let (mut error, mut size) = (0f32, 0f32);
        for (a, b) in rows.iter().flatten().zip(exact.iter().flatten()) {
            error += (a - b) * (a - b);
            size += b * b;
        }
        let relative = (error / size).sqrt();
        println!("{precision}: relative error of the logits {relative:.4}");
        assert!(relative < bound, "{precision}: {relative}");
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in logits.iter().enumerate() {
        if *v > logits[best] {
            best = i;
        }
    }
    best as u32
}
