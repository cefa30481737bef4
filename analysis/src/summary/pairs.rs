//! What generations say about each other: token agreement and first divergence against `llm-only`, energy saved against
//! `hlm`, both on the same prompt in the same pass; and whether passes with one seed gave the same tokens.

use std::collections::BTreeMap;

use specfleet_engine::id::GenerationId;
use specfleet_engine::method::Gate;
use specfleet_engine::record::{FinishReason, GenerationRecord};

use super::books::Books;
use super::collector::CollectedDistribution;
use super::kind::MetricId;
use crate::agreement::{first_divergence, token_agreement};

/// What a comparison needs of a generation.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    tokens: Vec<u32>,
    /// Device, radio and cloud together.
    nanojoules: u64,
    /// Whether the tokens are a matter of the seed alone: the answer came to its end, and no draft was committed because
    /// the pool did not answer in time.
    settled: bool,
}

impl Outcome {
    /// Of a generation; `local`: whether a draft was committed because the pool did not answer.
    pub(super) fn of(record: &GenerationRecord, local: bool) -> Outcome {
        let ended = matches!(record.finish, FinishReason::Stop | FinishReason::Length);
        Outcome { tokens: record.tokens.clone(), nanojoules: record.energy.total(), settled: ended && !local }
    }
}

/// What makes two generations comparable: data set, prompt, repetition, pass.
type PairTask = (u16, u32, u16, u16);

/// Every generation's outcome, by task and then method.
#[derive(Clone, Debug, Default)]
pub(super) struct MethodPairs {
    outcomes: BTreeMap<PairTask, BTreeMap<u16, Outcome>>,
}

impl MethodPairs {
    pub(super) fn add(&mut self, record: &GenerationRecord, outcome: Outcome) {
        let task = (record.data_set, record.id.prompt, record.id.repetition, record.id.pass);
        self.outcomes.entry(task).or_default().insert(record.id.method, outcome);
    }

    /// Adds the samples of both comparisons, and a problem for each generation whose tokens differ from those of the pass
    /// before. A method is not compared with itself, and a task that lacks the standard's generation gives no sample.
    pub(super) fn fill<C: CollectedDistribution>(&self, books: &mut Books<C>) {
        let index =
            |name: &str| books.methods().iter().position(|method| method.name == name).map(|index| index as u16);
        let (llm_only, hlm) = (index("llm-only"), index("hlm"));
        for (&(data_set, prompt, repetition, pass), outcomes) in &self.outcomes {
            let text = llm_only.and_then(|method| outcomes.get(&method));
            let standard = hlm.and_then(|method| outcomes.get(&method));
            for (&method, outcome) in outcomes {
                let id = GenerationId { method, prompt, repetition, pass };
                if let Some(text) = text.filter(|_| Some(method) != llm_only) {
                    let agreement = token_agreement(&outcome.tokens, &text.tokens);
                    books.paired_sample(id, data_set, MetricId::TokenAgreement, agreement);
                    let equal = first_divergence(&outcome.tokens, &text.tokens).unwrap_or(outcome.tokens.len());
                    books.paired_sample(id, data_set, MetricId::FirstDivergence, equal as f64);
                }
                if let Some(standard) = standard.filter(|_| Some(method) != hlm) {
                    let saved = standard.nanojoules as i64 - outcome.nanojoules as i64;
                    books.paired_ratio(id, data_set, MetricId::EnergySaved, saved, standard.nanojoules);
                }
            }
        }
        if books.repeats() {
            self.check_passes(books);
        }
    }

    fn check_passes<C: CollectedDistribution>(&self, books: &mut Books<C>) {
        for (&(data_set, prompt, repetition, pass), outcomes) in &self.outcomes {
            let Some(before) = pass.checked_sub(1) else { continue };
            let Some(earlier) = self.outcomes.get(&(data_set, prompt, repetition, before)) else { continue };
            for (&method, outcome) in outcomes {
                let Some(earlier) = earlier.get(&method) else { continue };
                // What the pool's price was is a matter of time.
                let by_seed = !matches!(books.methods()[usize::from(method)].gate, Gate::Price(_));
                if by_seed && outcome.settled && earlier.settled && outcome.tokens != earlier.tokens {
                    let id = GenerationId { method, prompt, repetition, pass };
                    books.imbalance(id, &format!("other tokens than in pass {before}, with the same seed"));
                }
            }
        }
    }
}
