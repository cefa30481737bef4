//! When requests arrive at a fleet, and when devices come and go: pure functions of the scenario and its seed, the same
//! for the live fleet and the simulated one.

mod arrivals;
mod backlog;
mod churn;
mod dispatch;

pub use arrivals::{ArrivalTimes, Arrivals, Stage};
pub use backlog::{Backlog, Dropped};
pub use churn::Churn;
pub use dispatch::{Dispatch, DispatchEvent, DispatchOrder, DispatchPhase, DispatchShard, Jobs, Turns};

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::random::{DrawKey, Purpose};
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
        arrivals: Arrivals,
        /// Most requests that wait for one device; beyond it they are dropped, and recorded as such.
        backlog: u32,
    },
}

impl Load {
    /// How long the user of `device` thinks before its n-th generation of a phase (the first, n = 0, starts without). The
    /// same for every method. Zero in an open loop.
    pub fn think(&self, seed: u64, device: DeviceId, n: u32) -> Span {
        match self {
            Load::Closed { think } if *think > Span::ZERO && n > 0 => {
                let key = DrawKey { seed, prompt: device.0, repetition: 2, position: n, rejections: 0 };
                key.draws(Purpose::Load).exponential(*think)
            }
            Load::Closed { .. } | Load::Open { .. } => Span::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_exponential() {
        let load = Load::Closed { think: Span::from_millis(400) };
        let n = 20_000;
        let thoughts: Vec<f64> = (1..=n).map(|n| load.think(1, DeviceId(n % 7), n).seconds()).collect();
        let mean = thoughts.iter().sum::<f64>() / f64::from(n);
        let variance = thoughts.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.4).abs() < 0.01 && (variance.sqrt() - 0.4).abs() < 0.02, "{mean} {variance}");
        assert_eq!(load.think(1, DeviceId(0), 0), Span::ZERO);
        assert_ne!(load.think(1, DeviceId(0), 1), load.think(1, DeviceId(1), 1));
        assert_eq!(Load::Closed { think: Span::ZERO }.think(1, DeviceId(0), 1), Span::ZERO);
    }
}
