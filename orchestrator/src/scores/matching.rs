//! BERTScore and its relatives: texts to states in batches, then greedy matching pair by pair.

use std::collections::{BTreeMap, BTreeSet};

use specfleet_analysis::{Idf, Matching, TextStates, greedy_matching};
use specfleet_files::room;
use specfleet_model::{Encoder, KvArena, LogitRows, Model, ModelError, SeqStep, Tokenizer};

use crate::cores::cores;

/// Most tokens of a batch, padding included, and most texts: enough for the matrix products, little enough for memory.
const BATCH_TOKENS: usize = 4096;
const BATCH_TEXTS: usize = 64;

/// What turns texts into states of tokens.
pub trait Embed {
    /// Width of a state.
    fn width(&self) -> usize;
    /// The tokens of a text.
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError>;
    /// The tokens that stand around every text and weigh nothing.
    fn around(&self) -> Vec<u32>;
    /// The states of texts of about the same length, `[tokens, width]` each.
    fn states(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError>;
}

impl Embed for Encoder {
    fn width(&self) -> usize {
        Encoder::width(self)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        Encoder::tokens(self, text)
    }

    fn around(&self) -> Vec<u32> {
        Encoder::around(self).to_vec()
    }

    fn states(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        Encoder::states(self, batch)
    }
}

/// The final states of a decoder, each of which has seen what stands before it: not an encoder, and never called one.
pub(super) struct DecoderStates {
    pub(super) model: Model,
    pub(super) tokenizer: Tokenizer,
}

impl Embed for DecoderStates {
    fn width(&self) -> usize {
        self.model.shape().hidden
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let mut tokens = self.tokenizer.encode(text.trim())?;
        tokens.truncate(self.model.shape().context);
        Ok(tokens)
    }

    /// The begin-of-text token: it opens every text.
    fn around(&self) -> Vec<u32> {
        self.model.shape().bos.into_iter().collect()
    }

    fn states(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        // Whole pages per sequence.
        let tokens: usize = batch.iter().map(|tokens| tokens.len() + 256).sum();
        let threads = cores();
        let budget = tokens * self.model.shape().kv_bytes_per_token;
        let mut arena = KvArena::new(&self.model, budget).with_threads(threads);
        let filled: Vec<usize> = (0..batch.len()).filter(|index| !batch[*index].is_empty()).collect();
        let steps: Vec<SeqStep<'_>> = filled
            .iter()
            .map(|&index| SeqStep { seq: arena.open(), tokens: batch[index], logits: LogitRows::All, attention: None })
            .collect();
        let output = self.model.forward_states(&mut arena, &steps)?;
        let mut states = vec![Vec::new(); batch.len()];
        for (step, &index) in filled.iter().enumerate() {
            states[index] = output.states(step).to_vec();
        }
        Ok(states)
    }
}

/// Texts with their tokens and states. Equal texts are one.
pub(super) struct Bank {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    tokens: Vec<u32>,
    /// Every token weighs 1, those around the text 0.
    states: TextStates,
}

impl Bank {
    /// Embeds texts, in batches of about equal lengths.
    pub(super) fn embed<'a>(source: &dyn Embed, texts: impl IntoIterator<Item = &'a str>) -> Result<Bank, ModelError> {
        let texts: BTreeSet<&str> = texts.into_iter().collect();
        let mut waiting: Vec<(&str, Vec<u32>)> = Vec::with_capacity(texts.len());
        for text in texts {
            waiting.push((text, source.tokens(text)?));
        }
        waiting.sort_by_key(|(_, tokens)| std::cmp::Reverse(tokens.len()));
        let around = source.around();
        let mut entries = BTreeMap::new();
        let mut rest = &waiting[..];
        while let Some((_, longest)) = rest.first() {
            let most = (BATCH_TOKENS / longest.len().max(1)).clamp(1, BATCH_TEXTS);
            let (batch, later) = rest.split_at(most.min(rest.len()));
            rest = later;
            let tokens: Vec<&[u32]> = batch.iter().map(|(_, tokens)| &tokens[..]).collect();
            for ((text, tokens), states) in batch.iter().zip(source.states(&tokens)?) {
                let weights = tokens.iter().map(|token| f32::from(!around.contains(token))).collect();
                let states = TextStates::new(source.width(), states, weights, around.len());
                entries.insert((*text).to_owned(), Entry { tokens: tokens.clone(), states });
            }
        }
        Ok(Bank { entries })
    }

    /// Matches a candidate with a reference, both among the embedded texts; `None` if one is not.
    fn matching(&self, candidate: &str, reference: &str, idf: Option<&Idf>) -> Option<Matching> {
        let (candidate, reference) = (self.entries.get(candidate)?, self.entries.get(reference)?);
        let Some(idf) = idf else { return Some(greedy_matching(&candidate.states, &reference.states)) };
        let weighted =
            |entry: &Entry| entry.states.weighted(entry.tokens.iter().map(|token| idf.weight(*token)).collect());
        Some(greedy_matching(&weighted(candidate), &weighted(reference)))
    }

    /// Matches many pairs of candidate and reference, on all cores; `None` where a text was not embedded.
    pub(super) fn match_all(&self, pairs: &[(&str, &str)], idf: Option<&Idf>) -> Vec<Option<Matching>> {
        let threads = cores();
        let share = pairs.len().div_ceil(threads).max(1);
        let mut found = vec![None; pairs.len()];
        room::share_out(pairs.chunks(share).zip(found.chunks_mut(share)), |(pairs, found)| {
            for ((candidate, reference), found) in pairs.iter().zip(found) {
                *found = self.matching(candidate, reference, idf);
            }
        });
        found
    }
}

/// The document frequencies of an encoder's tokens over reference texts.
pub fn document_frequencies<'a>(
    source: &dyn Embed,
    references: impl IntoIterator<Item = &'a str>,
) -> Result<Idf, ModelError> {
    let tokens = references.into_iter().map(|text| source.tokens(text)).collect::<Result<Vec<_>, _>>()?;
    Ok(Idf::of(tokens.iter().map(Vec::as_slice)))
}

/// BERTScore of pairs of candidate and reference; with idf weights if they are given.
pub fn bertscore(source: &dyn Embed, pairs: &[(&str, &str)], idf: Option<&Idf>) -> Result<Vec<Matching>, ModelError> {
    let bank = Bank::embed(source, pairs.iter().flat_map(|(candidate, reference)| [*candidate, *reference]))?;
    Ok(bank.match_all(pairs, idf).into_iter().flatten().collect())
}
