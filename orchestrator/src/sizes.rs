//! The sizes of a pair that machines need to know.

use specfleet_config::{CostChoice, Settings};

use crate::pair::Pair;

/// An end token where an emulated pair declares none: what LLaMA's tokenizers use.
const EMULATED_END: u32 = 2;

/// What machines know of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Longest sequence that both models take.
    pub context: u32,
    /// Longest sequence that the verifier takes.
    pub verifier_context: u32,
    /// Size of the vocabulary.
    pub vocab: u32,
    /// Tokens that end a text.
    pub end_tokens: Vec<u32>,
    /// Tokens that a verifier's KV memory holds.
    pub kv_tokens: u64,
}

impl Sizes {
    /// Those of a loaded pair.
    pub fn of_pair(settings: &Settings, pair: &Pair) -> Sizes {
        let shape = pair.verifier.shape();
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        Sizes {
            context: number(pair.context()),
            verifier_context: number(shape.context),
            vocab: number(shape.vocab),
            end_tokens: pair.end_tokens(),
            kv_tokens: settings.verifier_kv_bytes(pair.verifier.weight_bytes() as f64)
                / (shape.kv_bytes_per_token as u64).max(1),
        }
    }

    /// Those of the pair that the scenario declares with `pool.cost = "roofline"`, if it does.
    pub fn emulated(settings: &Settings) -> Option<Sizes> {
        let CostChoice::Roofline { roofline, .. } = &settings.pool.cost else { return None };
        let model = &roofline.model;
        Some(Sizes {
            context: model.context,
            verifier_context: model.context,
            vocab: model.vocab,
            end_tokens: vec![EMULATED_END],
            kv_tokens: settings.verifier_kv_bytes(model.weight_bytes()) / model.kv_bytes_per_token.max(1),
        })
    }
}
