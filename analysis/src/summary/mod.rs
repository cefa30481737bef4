//! From the records of a run to its summary: per method, and per data set and method, the distribution of each metric of
//! method.md §8.

mod books;
mod builder;
mod cells;
mod collector;
mod kind;
mod ordered;
mod pairs;
mod phase;
mod piecewise;
mod samples;
mod stream;
mod tally;

use serde::{Deserialize, Serialize};
use specfleet_engine::disturbance::Noise;
use specfleet_engine::record::{AuditRecord, GenerationRecord, RoundRecord, RunClock, UploadCounts};
use thiserror::Error;

pub use builder::SummaryBuilder;
pub use kind::metric_names;
pub use ordered::Ordered;
pub use piecewise::{GenerationTotals, Joint, PiecewiseSummary, Quantiles, RoundPlace};
pub use stream::StreamSummary;
pub use tally::GenerationTally;

use crate::distribution::Metric;

/// Version of the summary's layout; it grows when a name or a unit changes its meaning. 2: latencies count from the
/// scheduled start.
pub const SUMMARY_SCHEMA: u32 = 2;

/// Metrics by name, in the order of the tables.
pub type Metrics = Ordered<Metric>;

/// A run's results: what `summary.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub schema: u32,
    /// The run's name; empty in a file that two equal runs share byte for byte.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Its seed; that of its first pass where passes have seeds of their own.
    pub seed: u64,
    /// Passes with the same seed.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repeat: u16,
    /// Passes with seeds of their own.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub seeds: u16,
    /// Digest of its scenario.
    pub scenario_hash: String,
    /// How joules and waiting are accounted ([`specfleet_engine::record::ACCOUNTING`]).
    #[serde(default = "first_accounting")]
    pub accounting: u32,
    /// What batches are charged: `measured`, `calibrated`, `roofline` or `fixed`.
    #[serde(default = "measured")]
    pub pool_cost: String,
    /// What its times follow.
    #[serde(default)]
    pub clock: RunClock,
    /// Whether its figures can be trusted.
    pub state: Validity,
    /// What disturbed a live run too much; empty for a quiet one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noise: Vec<Noise>,
    /// Why it is invalid: the first twenty reasons, and how many more there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Faults that the scenario injected.
    pub faults_injected: u32,
    /// How the percentiles were taken: `exact`, or `sketch, relative error 0.01`.
    pub quantiles: String,
    /// Generations that entered, the dropped ones included.
    pub generations: u64,
    /// Of these, those that ended without an answer. Their uploads and energy count, their texts are scored as they are.
    pub failed: u64,
    /// Of these, those that were never started, because too many requests waited for their device.
    pub dropped: u64,
    /// Of these, those whose device left in the middle.
    pub left: u64,
    /// Of these, those whose device's battery was empty.
    pub battery: u64,
    /// Upload attempts of all methods, by how they ended.
    pub uploads: UploadCounts,
    /// Metrics by method, methods in run order.
    pub methods: Ordered<Metrics>,
    /// The same by data set, data sets in run order.
    pub data_sets: Ordered<DataSet>,
}

/// That of summaries that do not say.
fn first_accounting() -> u32 {
    1
}

/// What batches cost where a summary does not say.
fn measured() -> String {
    "measured".to_owned()
}

/// Passes of summaries that do not say.
fn one() -> u16 {
    1
}

/// Serde asks by reference.
fn is_one(passes: &u16) -> bool {
    *passes == 1
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
    Invalid,
}

/// What names a run in its summary.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHeader {
    pub run: String,
    pub seed: u64,
    /// Digest of its scenario.
    pub scenario_hash: String,
    /// Faults that the scenario injected.
    pub faults_injected: u32,
    /// How joules and waiting are accounted ([`specfleet_engine::record::ACCOUNTING`]).
    pub accounting: u32,
    /// What batches are charged: `measured`, `calibrated`, `roofline` or `fixed`.
    pub pool_cost: String,
    /// What its times follow.
    pub clock: RunClock,
    /// Passes with the same seed, at least 1.
    pub repeat: u16,
    /// Passes with seeds of their own, at least 1.
    pub seeds: u16,
    /// What disturbed it too much.
    pub noise: Vec<Noise>,
}

impl RunHeader {
    /// Passes over all methods.
    pub fn passes(&self) -> u16 {
        self.repeat.max(self.seeds).max(1)
    }
}

/// Everything known about one generation. Its method, prompt, repetition and data set stand in the record.
#[derive(Clone, Copy, Debug)]
pub struct GenerationView<'a> {
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

/// How good a generation's text is, as far as it was scored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Whether its final answer is the reference's.
    pub exact_match: Option<bool>,
    /// ROUGE-L against the reference.
    pub rouge_l: Option<f64>,
}

/// A record that does not belong to the run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SummaryError {
    /// Its method is not in the run's list.
    #[error("a record names method {index}, the run has {methods}")]
    UnknownMethod {
        index: u16,
        /// Methods of the run.
        methods: usize,
    },
    /// Its pass is beyond those of the run.
    #[error("a record names pass {index}, the run has {passes}")]
    UnknownPass {
        /// The pass, from 0.
        index: u16,
        /// Passes of the run.
        passes: u16,
    },
    /// Its data set is not in the run's list.
    #[error("a generation names data set {index}, the run has {data_sets}")]
    UnknownDataSet {
        index: u16,
        /// Data sets of the run.
        data_sets: usize,
    },
    /// Summaries of two runs, or of one with other methods or data sets, do not merge.
    #[error("summaries of {run} and {other} were to be merged, which are not the same run")]
    OtherRun {
        /// The one that was to grow.
        run: String,
        other: String,
    },
}
