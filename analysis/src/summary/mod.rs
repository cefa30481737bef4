//! From the records of a run to its summary: per method, and per data set and method, the distribution of each metric of
//! method.md §8.

mod ordered;
mod pairs;
mod samples;

use serde::{Deserialize, Serialize};
use specfleet_engine::method::Method;
use specfleet_engine::record::{AuditRecord, FinishReason, GenerationRecord, RoundRecord, UploadCounts};
use thiserror::Error;

pub use ordered::Ordered;

use crate::balance::check_energy_closes;
use crate::distribution::Metric;
use pairs::{Outcome, Pairs};
use samples::MethodSamples;

/// Version of the summary's layout; it grows when a name or a unit changes its meaning.
pub const SUMMARY_SCHEMA: u32 = 1;

/// Problems that a summary lists in words; it counts the others.
const LISTED_PROBLEMS: usize = 20;

/// Metrics by name, in the order of the tables.
pub type Metrics = Ordered<Metric>;

/// A run's results: what `summary.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SUMMARY_SCHEMA`].
    pub schema: u32,
    /// The run's name.
    pub run: String,
    /// Its seed.
    pub seed: u64,
    /// Digest of its scenario.
    pub scenario_hash: String,
    /// Whether its figures can be trusted.
    pub state: Validity,
    /// Why it is invalid: the first twenty reasons, and how many more there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Faults that the scenario injected.
    pub faults_injected: u32,
    /// Generations that entered.
    pub generations: u64,
    /// Of these, those that ended without an answer. Their uploads and energy count, their texts are scored as they are.
    pub failed: u64,
    /// Upload attempts of all methods, by how they ended.
    pub uploads: UploadCounts,
    /// Metrics by method, methods in run order.
    pub methods: Ordered<Metrics>,
    /// The same by data set, data sets in run order.
    pub data_sets: Ordered<DataSet>,
}

/// Results on one data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSet {
    /// Metrics by method, methods in run order.
    pub methods: Ordered<Metrics>,
}

/// Whether a run's figures can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Validity {
    /// Every generation's books close and nothing else was reported.
    Valid,
    /// See the problems.
    Invalid,
}

/// What names a run in its summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// The run's name.
    pub run: String,
    /// Its seed.
    pub seed: u64,
    /// Digest of its scenario.
    pub scenario_hash: String,
    /// Faults that the scenario injected.
    pub faults_injected: u32,
}

/// Everything known about one generation. Its method, prompt, repetition and data set stand in the record.
#[derive(Clone, Copy, Debug)]
pub struct GenerationView<'a> {
    /// The generation.
    pub record: &'a GenerationRecord,
    /// All its rounds, in order.
    pub rounds: &'a [RoundRecord],
    /// Its audit, if it was audited.
    pub audit: Option<&'a AuditRecord>,
    /// Whether its final answer is the reference's; `None` if the reference has none ([`crate::exact_match`]).
    pub exact_match: Option<bool>,
    /// ROUGE-L against the reference ([`crate::rouge_l`]); `None` without a reference.
    pub rouge_l: Option<f64>,
}

/// A generation that does not belong to the run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SummaryError {
    /// Its method is not in the run's list.
    #[error("a generation names method {index}, the run has {methods}")]
    UnknownMethod {
        /// The index.
        index: u16,
        /// Methods of the run.
        methods: usize,
    },
    /// Its data set is not in the run's list.
    #[error("a generation names data set {index}, the run has {data_sets}")]
    UnknownDataSet {
        /// The index.
        index: u16,
        /// Data sets of the run.
        data_sets: usize,
    },
}

/// Collects a run generation by generation. The result does not depend on the order.
///
/// Memory: sixteen bytes per sample (one per generation and metric, one per token gap), and the tokens and the energy of
/// each generation, which the pairings with `llm-only` and `hlm` need.
#[derive(Debug)]
pub struct SummaryBuilder {
    header: RunHeader,
    methods: Vec<Method>,
    data_sets: Vec<String>,
    /// By data set, then method.
    samples: Vec<Vec<MethodSamples>>,
    pairs: Pairs,
    uploads: UploadCounts,
    generations: u64,
    failed: u64,
    problems: Vec<String>,
}

impl SummaryBuilder {
    /// A summary without generations. `methods` and `data_sets` are the run's lists: records name them by index.
    pub fn new(header: RunHeader, methods: &[Method], data_sets: &[String]) -> SummaryBuilder {
        SummaryBuilder {
            header,
            methods: methods.to_vec(),
            data_sets: data_sets.to_vec(),
            samples: vec![vec![MethodSamples::default(); methods.len()]; data_sets.len()],
            pairs: Pairs::default(),
            uploads: UploadCounts::default(),
            generations: 0,
            failed: 0,
            problems: Vec::new(),
        }
    }

    /// Adds a generation. If its books do not close, the summary is invalid and says why.
    pub fn add(&mut self, view: GenerationView<'_>) -> Result<(), SummaryError> {
        let record = view.record;
        let (data_set, method) = (usize::from(record.data_set), usize::from(record.id.method));
        if method >= self.methods.len() {
            return Err(SummaryError::UnknownMethod { index: record.id.method, methods: self.methods.len() });
        }
        if data_set >= self.data_sets.len() {
            return Err(SummaryError::UnknownDataSet { index: record.data_set, data_sets: self.data_sets.len() });
        }
        if let Err(imbalance) = check_energy_closes(record, view.rounds) {
            let (prompt, repetition) = (record.id.prompt, record.id.repetition);
            let name = &self.methods[method].name;
            self.problems.push(format!("{name}, prompt {prompt}, repetition {repetition}: {imbalance}"));
        }
        self.samples[data_set][method].add(&self.methods[method], view);
        self.pairs.add(record, Outcome { tokens: record.tokens.clone(), nanojoules: record.energy.total() });
        self.uploads.sent += record.uploads.sent;
        self.uploads.verdicts += record.uploads.verdicts;
        self.uploads.refused += record.uploads.refused;
        self.uploads.cancelled += record.uploads.cancelled;
        self.generations += 1;
        self.failed += u64::from(record.finish == FinishReason::Failed);
        Ok(())
    }

    /// Declares the run invalid for a reason that lies outside its rows (it was interrupted, a pool was out of reach).
    pub fn problem(&mut self, reason: impl Into<String>) {
        self.problems.push(reason.into());
    }

    /// The summary.
    pub fn finish(mut self) -> Summary {
        self.pairs.fill(&self.methods, &mut self.samples);
        let metrics = |samples: Vec<MethodSamples>| -> Ordered<Metrics> {
            let named = self.methods.iter().zip(samples);
            named
                .filter(|(_, samples)| samples.any())
                .map(|(method, samples)| (method.name.clone(), samples.metrics()))
                .collect()
        };
        let mut overall = vec![MethodSamples::default(); self.methods.len()];
        for data_set in &self.samples {
            for (sum, samples) in overall.iter_mut().zip(data_set) {
                sum.merge(samples);
            }
        }
        let methods = metrics(overall);
        let data_sets = self.data_sets.iter().cloned().zip(self.samples);
        let data_sets = data_sets.map(|(name, samples)| (name, DataSet { methods: metrics(samples) }));
        let data_sets = data_sets.filter(|(_, data_set)| !data_set.methods.is_empty()).collect();
        let state = if self.problems.is_empty() { Validity::Valid } else { Validity::Invalid };
        // Generations arrive in the order of their ends, which is not the run's own.
        self.problems.sort();
        if let Some(more) = self.problems.len().checked_sub(LISTED_PROBLEMS).filter(|more| *more > 0) {
            self.problems.truncate(LISTED_PROBLEMS);
            self.problems.push(format!("… and {more} more"));
        }
        Summary {
            schema: SUMMARY_SCHEMA,
            run: self.header.run,
            seed: self.header.seed,
            scenario_hash: self.header.scenario_hash,
            state,
            problems: self.problems,
            faults_injected: self.header.faults_injected,
            generations: self.generations,
            failed: self.failed,
            uploads: self.uploads,
            methods,
            data_sets,
        }
    }
}
