//! The bits of a row do not depend on its batch mates, the threads, or how its sequence was divided into passes.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::LazyLock;

use crate::common::{GROUPED, Random, Tiny, config, tensors};
use proptest::prelude::*;
use specfleet_model::{Embedded, KvArena, LogitRows, Model, Precision, SeqId, SeqStep};

/// What a row is compared by.
#[derive(PartialEq)]
struct Rows {
    logits: Vec<Vec<u32>>,
    attention: Vec<u32>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The plainest way: one sequence alone, one token per pass, one thread.
fn one_by_one(model: &Model, tokens: &[u32], layer: usize) -> Rows {
    let mut arena = KvArena::new(model, 1 << 28);
    let seq = arena.open();
    let mut rows = Rows { logits: Vec::new(), attention: Vec::new() };
    for token in tokens {
        let step = SeqStep { seq, tokens: &[*token], logits: LogitRows::All, attention: Some(layer) };
        let out = model.forward(&mut arena, &[step]).unwrap();
        rows.logits.push(bits(out.logits(0)));
        rows.attention = bits(out.attention(0));
    }
    rows
}

/// Feeds several sequences in passes of random divisions, with rollbacks, evictions and mates that come and go.
fn shuffled(model: &Model, texts: &[Vec<u32>], layer: usize, threads: usize, random: &mut Random) -> Vec<Rows> {
    let mut arena = KvArena::new(model, 1 << 28).with_threads(threads);
    let ids: Vec<SeqId> = texts.iter().map(|_| arena.open()).collect();
    let mut rows: Vec<Rows> =
        texts.iter().map(|t| Rows { logits: vec![Vec::new(); t.len()], attention: Vec::new() }).collect();
    while ids.iter().zip(texts).any(|(id, t)| arena.len(*id) < t.len()) {
        for id in &ids {
            match random.below(12) {
                0 => arena.truncate(*id, random.below(arena.len(*id) + 1)),
                1 => arena.evict(*id),
                _ => {}
            }
        }
        let mut chosen = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let at = arena.len(ids[index]);
            if at < text.len() && random.below(4) > 0 {
                let new = match random.below(3) {
                    0 => 1,
                    1 => 1 + random.below(8.min(text.len() - at)),
                    _ => text.len() - at,
                };
                chosen.push((index, at, new));
            }
        }
        let steps: Vec<SeqStep<'_>> = chosen
            .iter()
            .map(|(index, at, new)| SeqStep {
                seq: ids[*index],
                tokens: &texts[*index][*at..at + new],
                logits: LogitRows::All,
                attention: Some(layer),
            })
            .collect();
        let out = model.forward(&mut arena, &steps).unwrap();
        for (step, (index, at, new)) in chosen.iter().enumerate() {
            for row in 0..*new {
                rows[*index].logits[at + row] = bits(out.logits_row(step, row));
            }
            rows[*index].attention = bits(out.attention(step));
        }
    }
    rows
}

fn check(model: &Model, seed: u64, longest: usize) {
    let mut random = Random(seed);
    let sequences = 1 + random.below(9);
    let layer = random.below(model.shape().layers);
    let threads = 1 + random.below(3);
    let texts: Vec<Vec<u32>> = (0..sequences)
        .map(|_| {
            let len = 1 + random.below(longest);
            (0..len).map(|_| random.below(model.shape().vocab) as u32).collect()
        })
        .collect();
    let shuffled = shuffled(model, &texts, layer, threads, &mut random);
    for (text, rows) in texts.iter().zip(shuffled) {
        assert!(rows == one_by_one(model, text, layer), "seed {seed}: a row of {} tokens differs", text.len());
    }
}

fn tiny(t: Tiny, precision: Precision) -> Model {
    Model::from_tensors(&config(t), tensors(t, 7), precision).unwrap()
}

static GROUPED_F32: LazyLock<Model> = LazyLock::new(|| tiny(GROUPED, Precision::F32));
static GROUPED_Q8: LazyLock<Model> = LazyLock::new(|| tiny(GROUPED, Precision::Q8_0));
static WIDE_Q4: LazyLock<Model> = LazyLock::new(|| {
    let wide = Tiny { hidden: 256, heads: 8, ffn: 512, ..GROUPED };
    let model = tiny(wide, Precision::Q4K);
    assert!(model.fallbacks().is_empty());
    model
});
static VERIFIER_F32: LazyLock<Model> = LazyLock::new(|| Model::embedded(Embedded::Verifier, Precision::F32).unwrap());
static VERIFIER_Q8: LazyLock<Model> = LazyLock::new(|| Model::embedded(Embedded::Verifier, Precision::Q8_0).unwrap());

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grouped_f32(seed: u64) { check(&GROUPED_F32, seed, 200) }

    #[test]
    fn grouped_q8_0(seed: u64) { check(&GROUPED_Q8, seed, 200) }

    #[test]
    fn wide_q4_k(seed: u64) { check(&WIDE_Q4, seed, 80) }

    #[test]
    fn verifier_f32(seed: u64) { check(&VERIFIER_F32, seed, 60) }

    #[test]
    fn verifier_q8_0(seed: u64) { check(&VERIFIER_Q8, seed, 60) }
}
