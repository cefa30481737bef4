//! Metrics that compare a generation with another method's on the same prompt: token agreement and first divergence
//! against `llm-only`, energy saved against `hlm`.

use std::collections::BTreeMap;

use specfleet_engine::record::GenerationRecord;

use super::books::Books;
use super::collector::Collector;
use super::kind::Kind;
use crate::agreement::{first_divergence, token_agreement};

/// What a comparison needs of a generation.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) tokens: Vec<u32>,
    /// Device, radio and cloud together.
    pub(super) nanojoules: u64,
}

/// What makes two generations comparable: data set, prompt, repetition.
type Task = (u16, u32, u16);

/// Every generation's outcome, by task and then method.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    outcomes: BTreeMap<Task, BTreeMap<u16, Outcome>>,
}

impl Pairs {
    pub(super) fn add(&mut self, record: &GenerationRecord, outcome: Outcome) {
        let task = (record.data_set, record.id.prompt, record.id.repetition);
        self.outcomes.entry(task).or_default().insert(record.id.method, outcome);
    }

    /// Adds the samples of both comparisons. A method is not compared with itself, and a task that lacks the standard's
    /// generation gives no sample.
    pub(super) fn fill<C: Collector>(&self, books: &mut Books<C>) {
        let index =
            |name: &str| books.methods().iter().position(|method| method.name == name).map(|index| index as u16);
        let (llm_only, hlm) = (index("llm-only"), index("hlm"));
        for ((data_set, ..), outcomes) in &self.outcomes {
            let text = llm_only.and_then(|method| outcomes.get(&method));
            let standard = hlm.and_then(|method| outcomes.get(&method));
            for (method, outcome) in outcomes {
                let samples = books.samples_at(*data_set, *method);
                if let Some(text) = text.filter(|_| Some(*method) != llm_only) {
                    samples.sample(Kind::TokenAgreement, token_agreement(&outcome.tokens, &text.tokens));
                    let equal = first_divergence(&outcome.tokens, &text.tokens).unwrap_or(outcome.tokens.len());
                    samples.sample(Kind::FirstDivergence, equal as f64);
                }
                if let Some(standard) = standard.filter(|_| Some(*method) != hlm) {
                    let saved = standard.nanojoules as i64 - outcome.nanojoules as i64;
                    samples.signed_ratio(Kind::EnergySaved, saved, standard.nanojoules);
                }
            }
        }
    }
}
