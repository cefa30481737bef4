//! Pure statistics over records: scores, distributions, bootstrap, summaries. Nothing here reads a file, a clock or a
//! random source other than a seed that the caller passes.
//!
//! Start reading at [`SummaryBuilder`]: it turns the records of a run into the figures of its table.

mod against;
mod agreement;
mod balance;
mod bertscore;
mod bootstrap;
mod distribution;
mod effect;
mod figures;
mod fit;
mod frontier;
mod host_timed;
mod number;
mod pareto;
mod passes;
mod pool_account;
mod rate;
mod sketch;
mod statistic;
mod summary;
mod text;

pub use against::{AgainstRow, compare_summaries};
pub use agreement::{first_divergence, token_agreement};
pub use balance::{Imbalance, check_energy_closes};
pub use bertscore::{Baseline, Idf, Matching, TextStates, greedy_matching};
pub use bootstrap::{BootstrapError, PairedDifference, paired_bootstrap};
pub use distribution::{Metric, Samples};
pub use effect::{PairedTest, holm, paired_difference, paired_test};
pub use figures::{
    ANSWER_BIN, Judged, LogBin, LogBins, MethodFigures, RiskBins, RiskCell, RiskFit, Stretches, TimelineStretch,
};
pub use fit::{FitReport, GenerationRows, fit_batch_cost, fit_distributions, fit_host, refit_line};
pub use frontier::{
    Candidate, FrontierError, FrontierLog, FrontierPoint, ImportanceChoice, LoggedGeneration, LoggedRound,
    SUPPORTED_ABOVE,
};
pub use host_timed::is_host_timed;
pub use pareto::pareto;
pub use passes::{Crossed, CrossedDifference, MeanInterval, Over};
pub use pool_account::{PoolAccount, Unpaid};
pub use rate::{Rate, RateBuilder};
pub use sketch::{RELATIVE_ERROR, Sketch};
pub use statistic::{Statistic, UnknownStatistic, full_metric_name, nearest_metrics, value_of};
pub use summary::{
    DataSet, GenerationTally, GenerationTotals, GenerationView, Joint, Metrics, Ordered, PiecewiseSummary, Quantiles,
    RoundPlace, RunHeader, SUMMARY_SCHEMA, Scores, StreamSummary, Summary, SummaryBuilder, SummaryError, Validity,
    metric_names,
};
pub use text::{exact_match, final_answer, rouge_l, strip_calculator_marks, words};
