//! What a stored run says, as data: what `specfleet report --json` prints and what the page and the dashboard draw.
//!
//! Numbers are SI units, or have their unit in the name. What does not apply is absent or an empty list, never zero.

mod build;
mod caveats;
mod collect;
mod energy;
mod figures;
mod rules;
mod spread;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use specfleet_analysis::{Metrics, Statistic, Summary, Validity};
use specfleet_engine::record::{Provenance, RunClock};
use specfleet_ledger::{Machine, RunKind, RunState};

pub use build::{EXACT_UP_TO, of_run, report};
pub use text::text;
pub(crate) use text::with_interval;

use crate::paired::Comparison;

/// Version of the layout; it grows when a name changes its meaning.
pub const REPORT_SCHEMA: u32 = 1;

/// A run's report.
#[derive(Clone, Debug, Serialize)]
pub struct ReportData {
    pub schema: u32,
    /// What the run is.
    pub run: RunIdentity,
    /// Whether its figures can be trusted.
    pub validity: ReportValidity,
    /// How percentiles were taken: `exact`, or `sketch, relative error 0.01`.
    pub quantiles: String,
    /// What a reader of the figures should know: what is missing and the command that adds it, what was left out.
    pub notes: Vec<String>,
    /// Generations that entered, and how they ended.
    pub counts: Counts,
    /// The columns of the method table, in order; a column that no method has a figure for is left out.
    pub table: Vec<TableColumn>,
    /// The same for the pool's table.
    pub pool_table: Vec<TableColumn>,
    /// The figures of each method, methods in run order.
    pub methods: Vec<MethodReport>,
    /// Joules per token by method and part, with where they come from.
    pub energy: Vec<EnergyFigure>,
    /// Accuracy against energy, one point per method that has both.
    pub pareto: Vec<ParetoPoint>,
    /// Histograms of latencies over logarithmic bins.
    pub latency: Vec<LatencyHistogram>,
    /// How many completed batches had how many sequences.
    pub batch_sizes: Vec<BatchSize>,
    /// Uncertainty against rejection, for methods that measure u(t).
    pub risk: Vec<Risk>,
    /// The run in at most 200 stretches of time.
    pub timeline: Vec<TimelineBin>,
    /// How figures are spread over the devices of one profile.
    pub devices: Vec<DeviceSpread>,
    /// Acceptance by the place of a draft in its upload, from 0.
    pub positions: Vec<PositionAcceptance>,
    /// Acceptance by the place of a draft in its answer, in bins of several tokens.
    pub answer_positions: Vec<AnswerPositionAcceptance>,
    /// What each method uploads, its thresholds as numbers.
    pub rules: Vec<Rule>,
    /// `ui-hlm` against each other method, paired by prompt.
    pub paired: Vec<Comparison>,
    /// What the filter let through that the verifier would have rejected, by method.
    pub damage: Vec<Damage>,
}

/// What a method does, every parameter a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub method: String,
    /// Which drafts it uploads.
    pub uploads: String,
    pub payload: String,
    pub block: u8,
}

/// What a run is.
#[derive(Clone, Debug, Serialize)]
pub struct RunIdentity {
    /// Its name, also its folder's.
    pub name: String,
    /// Live, or simulated and how.
    pub kind: RunKind,
    pub kind_name: &'static str,
    /// Where it stands: an object with `state`, and `reason` where it failed.
    #[serde(flatten)]
    pub state: RunState,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// When it ended, in seconds since 1970.
    pub ended: Option<u64>,
    /// What it took in real time.
    pub wall_seconds: Option<f64>,
    /// Its scenario as TOML text.
    pub scenario: String,
    /// Digest of the scenario.
    pub scenario_hash: String,
    /// What batches were charged: `measured`, `calibrated`, `roofline` or `fixed`.
    pub pool_cost: String,
    /// What its times follow.
    pub clock: RunClock,
    /// `NOISY` with what disturbed it too much, in words; absent for a quiet run.
    pub noise: Option<String>,
    /// Its seed; that of its first pass where passes have seeds of their own.
    pub seed: u64,
    /// Passes with the same seed.
    pub repeat: u16,
    /// Passes with seeds of their own.
    pub seeds: u16,
    /// Devices of the fleet.
    pub devices: u32,
    /// Verifiers of the pool.
    pub verifiers: u32,
    /// Name → version of what made it.
    pub versions: BTreeMap<String, String>,
    pub machine: Machine,
    /// Tags that users gave it.
    pub tags: Vec<String>,
    /// Rounds in the store.
    pub rounds: u64,
    /// Batches in the store.
    pub batches: u64,
}

/// Whether a run's figures can be trusted.
#[derive(Clone, Debug, Serialize)]
pub struct ReportValidity {
    pub state: Validity,
    pub problems: Vec<String>,
}

/// Generations and uploads by how they ended.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Generations, the dropped ones included.
    pub generations: u64,
    /// Ended without an answer.
    pub failed: u64,
    pub dropped: u64,
    pub left: u64,
    /// Their device's battery was empty.
    pub battery: u64,
    /// Upload attempts that left a device.
    pub uploads_sent: u64,
    /// Ended by a verdict.
    pub uploads_answered: u64,
    /// Ended by a refusal.
    pub uploads_refused: u64,
    /// Ended by a timeout, a lost connection or the end of their generation.
    pub uploads_cancelled: u64,
    /// Faults that the scenario injected.
    pub faults_injected: u32,
}

impl Counts {
    /// A summary's counts.
    pub fn of(summary: &Summary) -> Counts {
        Counts {
            generations: summary.generations,
            failed: summary.failed,
            dropped: summary.dropped,
            left: summary.left,
            battery: summary.battery,
            uploads_sent: summary.uploads.sent,
            uploads_answered: summary.uploads.verdicts,
            uploads_refused: summary.uploads.refused,
            uploads_cancelled: summary.uploads.cancelled,
            faults_injected: summary.faults_injected,
        }
    }
}

/// A column of a table: `statistic` of the metric `key`, times `factor`, with `decimals` digits, is in `unit`.
#[derive(Clone, Debug, Serialize)]
pub struct TableColumn {
    pub key: &'static str,
    /// Heading, without the unit.
    pub title: &'static str,
    /// The unit shown; empty for a plain number.
    pub unit: &'static str,
    /// From the metric's unit to the one shown.
    pub factor: f64,
    /// Digits after the point.
    pub decimals: usize,
    /// Which figure of the metric.
    pub statistic: Statistic,
}

/// One method's figures.
#[derive(Clone, Debug, Serialize)]
pub struct MethodReport {
    pub name: String,
    /// Its metrics by name.
    pub metrics: Metrics,
}

/// Energy of one part of the system.
#[derive(Clone, Debug, Serialize)]
pub struct EnergyFigure {
    pub method: String,
    /// `device`, `radio`, `cloud`, or `idle`: verifiers without work, which no generation pays for.
    pub part: &'static str,
    /// Σ joules / Σ committed tokens.
    pub joules_per_token: f64,
    pub joules: f64,
    /// Where the joules come from; several where devices differ.
    pub provenance: Vec<Provenance>,
}

/// A method between accuracy and energy.
#[derive(Clone, Debug, Serialize)]
pub struct ParetoPoint {
    pub method: String,
    /// Mean of the accuracy metric, 0 to 1.
    pub accuracy: f64,
    /// Which metric it is.
    pub accuracy_metric: &'static str,
    /// Total joules per token.
    pub joules_per_token: f64,
    /// Whether no other method is at least as good in both and better in one.
    pub front: bool,
}

/// A histogram of one latency of one method.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyHistogram {
    pub method: String,
    /// `time_to_first_token_seconds`, `inter_token_latency_seconds` or `queue_seconds`.
    pub metric: &'static str,
    /// Ten bins per decade from the smallest to the largest sample, empty ones between them included. What is below
    /// a microsecond (tokens of one block follow each other at once) is in a first bin from 0.
    pub bins: Vec<LatencyBin>,
}

/// Samples in `from` ≤ x < `to` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyBin {
    /// Lower edge in seconds.
    pub from: f64,
    /// Upper edge in seconds.
    pub to: f64,
    pub count: u64,
}

/// Completed batches of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BatchSize {
    pub method: String,
    /// Sequences in the batch.
    pub sequences: u32,
    /// Batches of this size.
    pub batches: u64,
}

/// Uncertainty against rejection.
#[derive(Clone, Debug, Serialize)]
pub struct Risk {
    pub method: String,
    /// Bins of u(t), ascending, without the empty ones.
    pub bins: Vec<RiskBin>,
    /// Least squares over all drafts whose rejection is known; absent where u never varies.
    pub line: Option<ReportLine>,
    /// The thresholds that follow from the line, and the one in use.
    pub thresholds: RiskThresholds,
}

/// Drafts of one twentieth of the uncertainty's range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RiskBin {
    /// Mean u(t) of its drafts.
    pub uncertainty: f64,
    /// Rejected of them: judged drafts count 0 or 1, audited ones 1 − min(1, y_d/x_d).
    pub rejected: f64,
    /// Drafts whose rejection is known: judged or audited.
    pub judged: u64,
}

/// rejection ≈ clip(a·u + b, 0, 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReportLine {
    pub a: f64,
    pub b: f64,
    /// Correlation of u and rejection.
    pub r: f64,
    pub samples: u64,
}

/// Thresholds of u(t).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RiskThresholds {
    /// −b / a of the fitted line.
    pub risk_averse: Option<f64>,
    /// (Δ − b) / a of the fitted line, with Δ from the run's calibration.
    pub risk_prone: Option<f64>,
    pub in_use: Option<f64>,
}

/// One stretch of a method's phase.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineBin {
    /// Middle of the stretch, since the start of the run.
    pub seconds: f64,
    pub width_seconds: f64,
    /// The method whose phase it is.
    pub method: String,
    /// Committed tokens per second.
    pub tokens_per_second: f64,
    /// Answered uploads per second.
    pub uploads_per_second: f64,
    /// Mean time in the pool's queue, over uploads answered in it.
    pub queue_seconds: Option<f64>,
    /// Mean sequences per batch, over completed batches started in it.
    pub batch_sequences: Option<f64>,
}

/// A figure over the devices of one profile.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceSpread {
    pub method: String,
    /// The devices' profile and link.
    pub profile: String,
    /// `inter_token_mean_seconds`, `energy_per_token_joules`, `upload_rate` or `tokens_per_second`.
    pub metric: &'static str,
    /// Devices that have a figure.
    pub devices: u64,
    pub min: f64,
    /// 10th percentile, by nearest rank.
    pub p10: f64,
    pub p50: f64,
    pub p90: f64,
    pub max: f64,
}

/// Acceptance at one place of an upload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PositionAcceptance {
    pub method: String,
    /// Place of the draft in its upload, from 0; only `block` has more than one.
    pub position: u32,
    /// Drafts that were judged there.
    pub judged: u64,
    pub accepted: u64,
}

/// Acceptance in one stretch of the answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerPositionAcceptance {
    pub method: String,
    /// First position of the stretch, from 0.
    pub from: u32,
    /// The position after its last.
    pub to: u32,
    /// Committed tokens in it.
    pub tokens: u64,
    /// Drafts that were judged in it.
    pub judged: u64,
    pub accepted: u64,
}

/// The filter's damage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Damage {
    pub method: String,
    /// Tokens that the device committed alone and the audit looked at.
    pub skipped_tokens: u64,
    /// Share of them that the verifier would have rejected: 1 − mean of min(1, y_d/x_d).
    pub deviation_rate: f64,
    /// Lower end of the 95 % interval, clustered by generation; absent of one generation.
    pub low: Option<f64>,
    pub high: Option<f64>,
}
