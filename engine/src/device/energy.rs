//! Energy as pure functions of counts, times and declared profiles (method.md §7, declared).
//!
//! All energies are integer nanojoules: a generation's joules can be recomputed exactly from its stored row, and the
//! shares of a batch add up to the batch.

use serde::{Deserialize, Serialize};

use super::link::LinkProfile;
use crate::record::{DeviceCounts, DeviceTimes, Provenance};
use crate::time::Span;

/// What one step of something takes on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCost {
    pub span: Span,
    /// Energy in nanojoules, everything the device draws during the step included.
    pub nanojoules: u64,
}

/// What computing costs a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum DeviceCost {
    /// Declared seconds and joules, slept in real time (provenance `constant`).
    Declared {
        draft: StepCost,
        /// One token fed beyond the one that a draft step feeds anyway (prompt, catch-up).
        prefill: StepCost,
        /// One estimate of u(t).
        uncertainty: StepCost,
        /// One computation of I(t).
        importance: StepCost,
    },
    /// As long as this machine takes, at this power (provenance `modelled`).
    Host {
        /// Power while computing, in watts.
        active_watts: f64,
    },
}

/// A device profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceProfile {
    /// Name, as in the scenario.
    pub name: String,
    /// Where its numbers come from.
    pub source: String,
    pub cost: DeviceCost,
    /// Power while waiting, in watts.
    pub idle_watts: f64,
}

/// The verifier's power.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifierProfile {
    /// Name, as in the scenario.
    pub name: String,
    /// Where its numbers come from.
    pub source: String,
    /// Power of one replica during a batch, in watts.
    pub batch_watts: f64,
    /// Power of one replica between batches, in watts.
    pub idle_watts: f64,
}

/// How long a step is declared to take, by what it does. All zero on a host profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// The draft step and its prefill.
    pub draft: Span,
    /// The estimate of u(t).
    pub uncertainty: Span,
    /// The computation of I(t).
    pub importance: Span,
}

impl Charge {
    /// The whole step.
    pub fn total(&self) -> Span {
        self.draft + self.uncertainty + self.importance
    }
}

impl DeviceProfile {
    /// The declared time of one draft step that feeds `prefill_tokens` more than one token.
    pub fn charge(&self, prefill_tokens: u32, uncertainty: bool, importance: bool) -> Charge {
        match &self.cost {
            DeviceCost::Declared { draft, prefill, uncertainty: u, importance: i } => Charge {
                draft: draft.span + Span(prefill.span.0.saturating_mul(u64::from(prefill_tokens))),
                uncertainty: if uncertainty { u.span } else { Span::ZERO },
                importance: if importance { i.span } else { Span::ZERO },
            },
            DeviceCost::Host { .. } => Charge::default(),
        }
    }

    /// The device's energy in nanojoules: declared joules per step (or the active power times the measured time on a
    /// host), plus the idle power over the rest. Overrun is time of the machine that emulates a declared device, and costs
    /// that device nothing; on a host it is rest like any other.
    pub fn energy(&self, counts: &DeviceCounts, times: &DeviceTimes) -> u64 {
        let resting = times.waiting + times.idle;
        match &self.cost {
            DeviceCost::Declared { draft, prefill, uncertainty, importance } => {
                counts.draft_steps * draft.nanojoules
                    + counts.prefill_tokens * prefill.nanojoules
                    + counts.uncertainty * uncertainty.nanojoules
                    + counts.importance * importance.nanojoules
                    + nanojoules(self.idle_watts, resting)
            }
            DeviceCost::Host { active_watts } => {
                nanojoules(*active_watts, times.draft + times.uncertainty + times.importance)
                    + nanojoules(self.idle_watts, resting + times.overrun + times.waiting_overrun)
            }
        }
    }

    /// Whether its times are declared, and not those of this machine.
    pub fn is_declared(&self) -> bool {
        matches!(self.cost, DeviceCost::Declared { .. })
    }

    /// Where its joules come from.
    pub fn provenance(&self) -> Provenance {
        match self.cost {
            DeviceCost::Declared { .. } => Provenance::Constant,
            DeviceCost::Host { .. } => Provenance::Modelled,
        }
    }
}

impl LinkProfile {
    /// The radio's energy in nanojoules for this much airtime.
    pub fn energy(&self, airtime_up: Span, airtime_down: Span) -> u64 {
        nanojoules(self.transmit_watts, airtime_up) + nanojoules(self.receive_watts, airtime_down)
    }
}

impl VerifierProfile {
    /// The energy of a batch that took `compute`, in nanojoules.
    pub fn batch_energy(&self, compute: Span) -> u64 {
        nanojoules(self.batch_watts, compute)
    }

    /// The energy of resting for `idle`, in nanojoules.
    pub fn idle_energy(&self, idle: Span) -> u64 {
        nanojoules(self.idle_watts, idle)
    }
}

/// Watts times nanoseconds, rounded to whole nanojoules.
pub fn nanojoules(watts: f64, span: Span) -> u64 {
    (watts * span.0 as f64).round() as u64
}

/// Splits `total` in proportion to `weights`, in whole units that add up to `total` exactly: each share is the
/// difference of two rounded cumulative sums. All weights zero: the first share takes everything.
pub fn split(total: u64, weights: &[u32]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|&w| u128::from(w)).sum();
    let mut before = 0u128;
    let mut given = 0u64;
    weights
        .iter()
        .enumerate()
        .map(|(index, &weight)| {
            before += u128::from(weight);
            let upto = if sum == 0 || index + 1 == weights.len() {
                total
            } else {
                // The quotient is at most `total`, because `before` is at most `sum`.
                (u128::from(total) * before / sum) as u64
            };
            let share = upto - given;
            given = upto;
            share
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_add_up(total in any::<u64>(), weights in proptest::collection::vec(any::<u32>(), 1..50)) {
            let shares = split(total, &weights);
            prop_assert_eq!(shares.iter().map(|&s| u128::from(s)).sum::<u128>(), u128::from(total));
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        assert_eq!(split(100, &[1, 3]), [25, 75]);
        assert_eq!(split(100, &[0, 0]), [100, 0]);
        assert_eq!(split(100, &[]), Vec::<u64>::new());
    }
}
