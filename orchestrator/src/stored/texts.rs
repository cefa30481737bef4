//! What a run's texts are worth: against the references of its workload and against `llm-only`, on several threads.

use std::collections::BTreeMap;

use specfleet_analysis::{exact_match, first_divergence, rouge_l, token_agreement};
use specfleet_engine::record::{FinishReason, GenerationRecord};
use specfleet_files::room;
use specfleet_model::Tokenizer;

use super::inputs::tokenizer_of;
use super::{LEFT_OUT, StoredRun};

/// What is known of one generation's text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextFigures {
    /// Whether its final answer is the reference's.
    pub exact_match: Option<bool>,
    /// ROUGE-L against the reference.
    pub rouge_l: Option<f64>,
    /// Share of tokens equal to those of `llm-only`.
    pub token_agreement: Option<f64>,
    /// Leading tokens equal to those of `llm-only`.
    pub first_divergence: Option<u32>,
}

impl StoredRun {
    /// Scores every generation's text.
    pub(super) fn score_texts(&mut self, threads: usize) -> Vec<TextFigures> {
        let mut figures = vec![TextFigures::default(); self.generations.len()];
        if !self.has_text() {
            return figures;
        }
        let references: BTreeMap<(u32, u16), &str> = match &self.settings {
            Some(settings) => settings
                .tasks()
                .filter_map(|task| Some(((task.prompt_id, task.repetition), task.prompt.reference.as_deref()?)))
                .collect(),
            None => BTreeMap::new(),
        };
        // Without references nobody asks for a text.
        let settings = self.settings.as_ref().filter(|_| !references.is_empty());
        let tokenizer = match settings.map(|settings| tokenizer_of(self.meta(), settings)).transpose() {
            Ok(tokenizer) => tokenizer,
            Err(why) => {
                self.notes.push(format!("{why}; {LEFT_OUT}"));
                None
            }
        };
        let llm_only = self.meta().methods.iter().position(|method| method.name == "llm-only");
        let generations = &self.generations;
        let of_llm_only = |record: &GenerationRecord| {
            let method = llm_only.map(|index| index as u16).filter(|index| *index != record.id.method)?;
            let id = specfleet_engine::id::GenerationId { method, ..record.id };
            let index = generations.binary_search_by_key(&id, |other| other.id).ok()?;
            (generations[index].finish != FinishReason::Dropped).then(|| &generations[index].tokens)
        };
        let one = |record: &GenerationRecord, tokenizer: Option<&Tokenizer>| {
            if record.finish == FinishReason::Dropped {
                return TextFigures::default();
            }
            let mut figures = TextFigures::default();
            let reference = references.get(&(record.id.prompt, record.id.repetition));
            if let Some((tokenizer, reference)) = tokenizer.zip(reference)
                && let Ok(text) = tokenizer.decode(&record.tokens)
            {
                figures.exact_match = exact_match(&text, reference);
                figures.rouge_l = Some(rouge_l(&text, reference));
            }
            if let Some(other) = of_llm_only(record) {
                figures.token_agreement = Some(token_agreement(&record.tokens, other));
                let equal = first_divergence(&record.tokens, other).unwrap_or(record.tokens.len());
                figures.first_divergence = Some(equal as u32);
            }
            figures
        };
        let part = generations.len().div_ceil(threads.max(1)).max(1);
        let tokenizer = tokenizer.as_ref();
        room::share_out(generations.chunks(part).zip(figures.chunks_mut(part)), |(records, figures)| {
            for (record, figures) in records.iter().zip(figures) {
                *figures = one(record, tokenizer);
            }
        });
        figures
    }
}
