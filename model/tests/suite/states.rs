//! The final states that a pass can give in place of logits.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::common::{GROUPED, config, tensors};
use specfleet_model::{KvArena, LogitRows, Model, Precision, SeqStep};

#[test]
fn logits_are_the_head_times_the_states() {
    let tensors = tensors(GROUPED, 5);
    let head: Vec<f32> = tensors["lm_head.weight"].flatten_all().unwrap().to_vec1().unwrap();
    let model = Model::from_tensors(&config(GROUPED), tensors, Precision::F32).unwrap();
    let (hidden, vocab) = (GROUPED.hidden, GROUPED.vocab);
    let texts: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[7], &[9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]];
    // The last two rows of each, of several sequences on several threads.
    let pass = |arena: &mut KvArena| -> Vec<_> { texts.iter().map(|tokens| (arena.open(), *tokens)).collect() };
    let steps = |sequences: &[(specfleet_model::SeqId, &'static [u32])]| -> Vec<SeqStep<'static>> {
        let step = |&(seq, tokens)| SeqStep { seq, tokens, logits: LogitRows::Last(2), attention: None };
        sequences.iter().map(step).collect()
    };
    let mut arena = KvArena::new(&model, 1 << 24).with_threads(2);
    let sequences = pass(&mut arena);
    let logits = model.forward(&mut arena, &steps(&sequences)).unwrap();
    let sequences = pass(&mut arena);
    let states = model.forward_states(&mut arena, &steps(&sequences)).unwrap();
    for (step, tokens) in texts.iter().enumerate() {
        let rows = tokens.len().min(2);
        assert_eq!(states.states(step).len(), rows * hidden);
        for (row, state) in states.states(step).chunks_exact(hidden).enumerate() {
            for (token, weights) in head.chunks_exact(hidden).enumerate() {
                let expected: f32 = weights.iter().zip(state).map(|(w, x)| w * x).sum();
                let found = logits.logits(step)[row * vocab + token];
                assert!((found - expected).abs() < 1e-4, "step {step}, row {row}, token {token}: {found} {expected}");
            }
        }
    }
}
