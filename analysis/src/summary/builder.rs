//! The exact summary: every sample is kept until the end.

use specfleet_engine::method::Method;
use specfleet_engine::record::{BatchRecord, FinishReason, VerifierRecord};

use super::books::Books;
use super::pairs::{MethodPairs, Outcome};
use super::{GenerationView, RunHeader, Scores, Summary, SummaryError};
use crate::balance::check_energy_closes;
use crate::distribution::Samples;

/// Collects a run generation by generation. The result does not depend on the order.
///
/// Memory: sixteen bytes per sample (one per generation and metric, one per token gap), and the tokens and the energy of
/// each generation, which the pairings with `llm-only` and `hlm` need. Where that is too much, there is
/// [`StreamSummary`](super::StreamSummary).
#[derive(Debug)]
pub struct SummaryBuilder {
    books: Books<Samples>,
    pairs: MethodPairs,
}

impl SummaryBuilder {
    /// A summary without generations. `methods` and `data_sets` are the run's lists: records name them by index.
    pub fn new(header: RunHeader, methods: &[Method], data_sets: &[String]) -> SummaryBuilder {
        SummaryBuilder { books: Books::new(header, methods, data_sets), pairs: MethodPairs::default() }
    }

    /// Adds a generation. If its books do not close, the summary is invalid and says why.
    pub fn add(&mut self, view: GenerationView<'_>) -> Result<(), SummaryError> {
        let record = view.record;
        let mut tally =
            self.books.start(record.id.phase(), record.data_set, record.scheduled, record.latency_target)?;
        if let Err(imbalance) = check_energy_closes(record, view.rounds, self.books.accounting()) {
            self.books.imbalance(record.id, &imbalance);
        }
        let samples = self.books.samples_of(&tally);
        for round in view.rounds {
            tally.enter(round, samples, true);
        }
        if let Some(audit) = view.audit {
            tally.audit_all(audit);
        }
        self.books.generation(record, &tally, Scores { exact_match: view.exact_match, rouge_l: view.rouge_l });
        // What was never started has no text to compare.
        if record.finish != FinishReason::Dropped {
            let local = view.rounds.iter().any(|round| round.source.is_without_pool());
            self.pairs.add(record, Outcome::of(record, local));
        }
        Ok(())
    }

    /// Adds a verification batch. Batches between the methods are left out.
    pub fn batch(&mut self, batch: &BatchRecord) -> Result<(), SummaryError> {
        self.books.batch(batch)
    }

    /// Adds what a verifier did in a method's phase. What it did between the methods is left out.
    pub fn verifier(&mut self, verifier: &VerifierRecord) -> Result<(), SummaryError> {
        self.books.verifier(verifier)
    }

    /// Declares the run invalid for a reason that lies outside its rows (it was interrupted, a pool was out of reach).
    pub fn problem(&mut self, reason: impl Into<String>) {
        self.books.problem(reason.into());
    }

    /// The summary.
    pub fn finish(mut self) -> Summary {
        self.pairs.fill(&mut self.books);
        self.books.finish()
    }
}
