//! The orchestrator: from a scenario to a run, its ledger and its table.
//!
//! Start reading at [`run::run`], the whole job in order: load the pair, resolve the methods ([`methods`], with
//! [`calibrate`] where thresholds are missing), start the pool and the [`recorder`], send each method's fleet through the
//! workload ([`fleet`]), audit what was skipped ([`audit`]), and sum up from the stored rows ([`results`]).

pub mod against;
pub mod audit;
pub mod budget;
pub mod calibrate;
pub mod capacity;
pub mod checked;
pub mod cli;
mod commands;
pub mod compare;
pub mod cores;
pub mod dashboard;
pub mod error;
mod faults;
pub mod filter;
pub mod fleet;
pub mod frontier;
mod host;
mod inputs;
pub mod live;
pub mod methods;
pub mod opened;
pub mod page;
pub mod pair;
pub mod paired;
pub mod parts;
mod passes;
pub mod place;
pub mod point;
pub mod pool_cost;
pub mod precheck;
pub mod progress;
mod prompts;
pub mod query;
pub mod recorder;
pub mod refit;
pub mod report;
pub mod report_data;
pub mod results;
pub mod room;
pub mod run;
mod run_meta;
pub mod scores;
pub mod simulate;
pub mod sizes;
mod standstills;
pub mod stored;
pub mod sweep;
pub mod tasks;
pub mod thresholds;
pub mod wall_clock;
pub mod work;
