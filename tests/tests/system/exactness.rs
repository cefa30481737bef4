//! With an exact payload and every token uploaded the output follows the verifier's own distribution: joint distributions of three
//! tokens, 100,000 generations each through the codec and both machines, against the distribution computed by hand.

use std::collections::BTreeMap;

use specfleet_engine::distribution::Distribution;
use specfleet_engine::method::{Keep, Method, PayloadForm, ProbabilityBits};
use specfleet_tests::setups::{VOCAB, block, hlm, hlm_with, llm_only, small};
use specfleet_tests::world::World;

const GENERATIONS: u32 = 100_000;
const PROMPT: [u32; 3] = [2, 3, 1];

/// χ² of the three generated tokens against the verifier's distribution, over the 64 possible texts.
fn chi_square(method: Method) -> f64 {
    let mut setup = small(method, 0, 3);
    setup.prompts = vec![PROMPT.to_vec(); GENERATIONS as usize];
    setup.devices = 64;
    // A drafter far from the verifier, so that rejections are common.
    setup.drafter.strays = 6.0;
    let (verifier, sampling) = (setup.verifier, setup.device.sampling);
    let outcome = World::run(setup);
    let mut counts: BTreeMap<&[u32], f64> = BTreeMap::new();
    for (record, _) in outcome.generations.values() {
        *counts.entry(&record.tokens).or_default() += 1.0;
    }
    let mut statistic = 0.0;
    for text in 0..VOCAB.pow(3) {
        let tokens = [text / VOCAB / VOCAB, text / VOCAB % VOCAB, text % VOCAB].map(|t| t as u32);
        let mut context = PROMPT.to_vec();
        let mut probability = 1.0;
        for token in tokens {
            let distribution = Distribution::from_logits(&verifier.logits(&context), &sampling);
            probability *= f64::from(distribution.probability(token));
            context.push(token);
        }
        let expected = probability * f64::from(GENERATIONS);
        let found = counts.get(&tokens[..]).copied().unwrap_or(0.0);
        statistic += (found - expected).powi(2) / expected;
    }
    statistic
}

/// The 99.99 % point of χ² with 63 degrees of freedom.
const LIMIT: f64 = 112.3;

#[test]
fn exact_methods_follow_the_verifiers_distribution() {
    let sparse = |bits| PayloadForm::SparseExact { keep: Keep::Top(2), bits };
    let methods = [
        ("llm-only", llm_only()),
        ("hlm full 32", hlm()),
        ("sparse-exact 32", hlm_with(sparse(ProbabilityBits::B32))),
        ("sparse-exact 8", hlm_with(sparse(ProbabilityBits::B8))),
        ("dssd", hlm_with(PayloadForm::TokenOnly { bits: ProbabilityBits::B32 })),
        ("block 2 with bonus", block(2, false)),
        ("block 3 with bonus, drafting ahead", block(3, true)),
    ];
    for (name, method) in methods {
        let statistic = chi_square(method);
        assert!(statistic < LIMIT, "{name}: χ² = {statistic:.1}, limit {LIMIT}");
    }
}

#[test]
fn the_test_can_fail() {
    let statistic = chi_square(hlm_with(PayloadForm::TopK { keep: Keep::Top(1), bits: ProbabilityBits::B32 }));
    assert!(statistic > 2.0 * LIMIT, "top-1 passes as exact: χ² = {statistic:.1}");
}
