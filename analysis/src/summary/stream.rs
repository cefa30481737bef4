//! The summary of runs that are too big to keep: counters, sums and sketches.

use specfleet_engine::id::PhaseId;
use specfleet_engine::method::Method;
use specfleet_engine::record::{BatchRecord, GenerationRecord, VerifierRecord};
use specfleet_engine::time::{Span, Time};

use super::books::Books;
use super::tally::GenerationTally;
use super::{RunHeader, Scores, Summary, SummaryError};
use crate::balance::check_totals;
use crate::sketch::Sketch;

/// Collects a run record by record and keeps none of them. The same figures under the same names as
/// [`SummaryBuilder`](super::SummaryBuilder), with percentiles from sketches; only the comparisons with `llm-only` and
/// `hlm` are absent, because they need every generation's text and energy at hand.
///
/// The result depends on the records alone: not on their order, nor on how they were spread over summaries that are
/// merged. What is checked of the books is what a generation's record says about itself: time and uploads.
///
/// Memory: some hundred KiB per data set and method, and about sixty bytes per method and device, for the fairness among
/// them.
#[derive(Clone, Debug)]
pub struct StreamSummary {
    pub(super) books: Books<Sketch>,
}

impl StreamSummary {
    /// A summary without generations. `methods` and `data_sets` are the run's lists: records name them by index.
    pub fn new(header: RunHeader, methods: &[Method], data_sets: &[String]) -> StreamSummary {
        StreamSummary { books: Books::new(header, methods, data_sets) }
    }

    /// The counters of a generation that begins; see [`GenerationTally`] for what comes next. `latency_target`: per
    /// token, zero for none.
    pub fn start(
        &self,
        phase: PhaseId,
        data_set: u16,
        scheduled: Time,
        latency_target: Span,
    ) -> Result<GenerationTally, SummaryError> {
        self.books.start(phase, data_set, scheduled, latency_target)
    }

    /// Adds a generation that ended, with what its rounds left in `tally`. The record's tokens are not looked at. If its
    /// books do not close, the summary is invalid and says why.
    ///
    /// # Panics
    ///
    /// If the tally is one of another run, with more methods or data sets.
    pub fn generation(&mut self, record: &GenerationRecord, tally: &GenerationTally, scores: Scores) {
        if let Err(imbalance) = check_totals(record, self.books.accounting()) {
            self.books.imbalance(record.id, &imbalance);
        }
        self.books.generation(record, tally, scores);
    }

    /// Adds a verification batch. Batches between the methods are left out.
    pub fn batch(&mut self, batch: &BatchRecord) -> Result<(), SummaryError> {
        self.books.batch(batch)
    }

    /// Adds what a verifier did in a method's phase. What it did between the methods is left out.
    pub fn verifier(&mut self, verifier: &VerifierRecord) -> Result<(), SummaryError> {
        self.books.verifier(verifier)
    }

    /// Declares the run invalid for a reason that lies outside its records.
    pub fn problem(&mut self, reason: impl Into<String>) {
        self.books.problem(reason.into());
    }

    /// Adds what another summary of the same run collected.
    pub fn merge(&mut self, other: &StreamSummary) -> Result<(), SummaryError> {
        self.books.merge(&other.books)
    }

    /// The summary.
    pub fn finish(self) -> Summary {
        self.books.finish()
    }
}
