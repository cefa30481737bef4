//! When requests arrive at a fleet, and when devices come and go: pure functions of the scenario and its seed, the same
//! for the live fleet and the simulated one.

mod arrivals;
mod backlog;
mod churn;

pub use arrivals::{ArrivalTimes, Arrivals, Stage};
pub use backlog::{Backlog, Dropped};
pub use churn::Churn;

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// What makes a device start its next generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "pattern")]
pub enum Load {
    /// Closed loop: each device starts its next prompt when it has finished the last and its user has thought.
    Closed {
        /// Mean of the thinking time, which is exponential; zero goes on at once.
        think: Span,
    },
    /// Open loop: requests arrive whether or not their device is free. Job i of a phase arrives at the i-th arrival;
    /// latencies count from there.
    Open {
        /// When they arrive.
        arrivals: Arrivals,
        /// Most requests that wait for one device; beyond it they are dropped, and recorded as such.
        backlog: u32,
    },
}
