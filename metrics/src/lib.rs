//! Metrics for Prometheus: the records that go into a run's ledger become counters, histograms and gauges, and a small
//! HTTP server shows them under `/metrics`, in the text format 0.0.4.
//!
//! Read [`family`] for what there is; `docs/metrics.md` is the same table, and a test keeps the two equal.
//! [`FleetMetrics`] is what the orchestrator shows, [`PoolMetrics`] what a pool of its own does (and the orchestrator beside
//! its devices). [`Server`] answers.
//!
//! * **Names.** What a user of vLLM looks for has vLLM's name behind our prefix, so that a dashboard moves over by replacing
//!   `vllm:` with `specfleet_`. The prefix ends in an underscore: in a metric's name the colon is reserved for recording
//!   rules, `promtool check metrics` objects to it in an exposition, and vLLM's own use of it is history, not a model.
//! * **Labels are bounded** by lists that are closed before a run begins: methods of the scenario, reasons, parts, positions
//!   in a block. Never a device, a prompt or a connection.
//! * **Counters are sums of stored rows.** They are fed where the ledger is, from the same records, so that at the end of a
//!   run each equals the sum over the rows that the table names.

pub mod family;
mod fleet;
mod labels;
mod observer;
mod pool;
mod registry;
mod server;

pub use fleet::{Course, FleetMetrics};
pub use observer::PoolObserver;
pub use pool::{PoolMetrics, PoolState};
pub use registry::Registry;
pub use server::{PORT, ServeError, Server};
