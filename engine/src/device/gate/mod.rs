//! Upload or commit locally: the decision that every method of method.md §4 makes from a draft's [`Signals`].

mod importance;
mod price;
mod uncertainty;

pub use importance::{AttentionRows, ImportanceReading, RunningMoments, concentration, lookahead_importance};
pub use uncertainty::{DRAWS, expected_uncertainty, sampled_uncertainty, uncertainty};

use serde::{Deserialize, Serialize};

use super::draft::Signals;
use crate::method::{Gate, ImportanceStatistic, Join};

/// Why a draft was uploaded or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum GateReason {
    /// Skipped: the method uploads nothing.
    Never = 0,
    /// Uploaded: the method uploads everything.
    Always = 1,
    /// Skipped: the coin of `rand-hlm` said so.
    NotDrawn = 2,
    /// Uploaded: the coin of `rand-hlm` said so.
    Drawn = 3,
    /// Skipped: the drafter is certain (under `and`, whatever the importance).
    Certain = 4,
    /// Uploaded: the drafter is uncertain (under `or`, whatever the importance).
    Uncertain = 5,
    /// Skipped on importance: uncertain but unimportant under `and`, certain and unimportant under `or`.
    Unimportant = 6,
    /// Uploaded on importance: uncertain and important under `and`, certain but important under `or`.
    Important = 7,
    /// Skipped: what is at risk is less than what an upload costs now.
    TooDear = 8,
    /// Uploaded: what is at risk is worth what an upload costs now.
    Worth = 9,
}

impl GateReason {
    /// Whether this reason uploads: the odd ones do.
    pub fn uploads(self) -> bool {
        self as u8 % 2 == 1
    }
}

/// What became of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Ask the verifier, instead of committing the draft locally.
    pub upload: bool,
    pub reason: GateReason,
}

impl From<GateReason> for Decision {
    fn from(reason: GateReason) -> Decision {
        Decision { upload: reason.uploads(), reason }
    }
}

/// Whether [`decide`] will look at the importance of a draft with these signals: not where uncertainty alone settles it.
/// For `lookahead` this saves the two extra drafter steps.
pub fn needs_importance(gate: &Gate, signals: &Signals) -> bool {
    match *gate {
        Gate::Joint { threshold, join, .. } => match join {
            Join::And => is_uncertain(signals.statistic, threshold),
            Join::Or => !is_uncertain(signals.statistic, threshold),
        },
        Gate::Never
        | Gate::Always
        | Gate::Random { .. }
        | Gate::Uncertainty { .. }
        | Gate::Entropy { .. }
        | Gate::MaxProbability { .. } => false,
        Gate::Price(_) => true,
    }
}

/// Decides about one draft.
///
/// `running` are the moments of this generation's earlier concentration values: call `decide` first, then
/// [`RunningMoments::push`] this draft's value. `price` is λ_link + λ_pool of an upload now. Gates that do not look at
/// them ignore them. A statistic that is missing (NaN) counts as uncertain or important: in doubt the verifier is asked.
pub fn decide(gate: &Gate, signals: &Signals, running: &RunningMoments, price: f32) -> Decision {
    let by_uncertainty = |uncertain| if uncertain { GateReason::Uncertain } else { GateReason::Certain };
    let reason = match *gate {
        Gate::Never => GateReason::Never,
        Gate::Always => GateReason::Always,
        Gate::Random { probability } => {
            if signals.gate_draw < probability {
                GateReason::Drawn
            } else {
                GateReason::NotDrawn
            }
        }
        Gate::Uncertainty { threshold, .. } | Gate::Entropy { threshold } => {
            by_uncertainty(is_uncertain(signals.statistic, threshold))
        }
        // The statistic is 1 − max x.
        Gate::MaxProbability { threshold } => {
            by_uncertainty(1.0 - signals.statistic < threshold || signals.statistic.is_nan())
        }
        Gate::Price(rule) => rule.weigh(signals, price),
        Gate::Joint { threshold, importance, join, .. } => {
            let uncertain = is_uncertain(signals.statistic, threshold);
            let important = || {
                let reading = match importance.statistic {
                    ImportanceStatistic::Concentration => running.reading(signals.importance),
                    // The threshold came with the row; mean = threshold, std = 0 passes at the same value.
                    ImportanceStatistic::Lookahead => {
                        ImportanceReading { value: signals.importance, mean: signals.importance_threshold, std: 0.0 }
                    }
                };
                if reading.passes(importance.kappa) { GateReason::Important } else { GateReason::Unimportant }
            };
            match (join, uncertain) {
                (Join::And, false) => GateReason::Certain,
                (Join::Or, true) => GateReason::Uncertain,
                (Join::And, true) | (Join::Or, false) => important(),
            }
        }
    };
    Decision::from(reason)
}

/// Skip iff u ≤ u_th \[paper\].
fn is_uncertain(statistic: f32, threshold: f32) -> bool {
    statistic > threshold || statistic.is_nan()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Estimator, ImportanceRule};

    fn signals(statistic: f32, importance: f32, importance_threshold: f32) -> Signals {
        Signals { statistic, importance, importance_threshold, draft_probability: 0.5, gate_draw: 0.25 }
    }

    fn joint(statistic: ImportanceStatistic, join: Join) -> Gate {
        Gate::Joint {
            estimator: Estimator::Expected,
            threshold: 0.5,
            importance: ImportanceRule { statistic, layer: 0, kappa: 1.0 },
            join,
        }
    }

    fn reason(gate: &Gate, signals: &Signals) -> GateReason {
        decide(gate, signals, &RunningMoments::default(), f32::NAN).reason
    }

    #[test]
    fn simple_gates() {
        let s = signals(0.5, f32::NAN, f32::NAN);
        assert_eq!(reason(&Gate::Never, &s), GateReason::Never);
        assert_eq!(reason(&Gate::Always, &s), GateReason::Always);
        assert_eq!(reason(&Gate::Random { probability: 0.25 }, &s), GateReason::NotDrawn);
        assert_eq!(reason(&Gate::Random { probability: 0.26 }, &s), GateReason::Drawn);
        let u = |threshold| Gate::Uncertainty { estimator: Estimator::Sampled, threshold };
        assert_eq!(reason(&u(0.5), &s), GateReason::Certain, "u ≤ u_th skips");
        assert_eq!(reason(&u(0.49), &s), GateReason::Uncertain);
        assert_eq!(reason(&Gate::Entropy { threshold: 0.5 }, &s), GateReason::Certain);
        assert_eq!(
            reason(&Gate::MaxProbability { threshold: 0.5 }, &s),
            GateReason::Certain,
            "max x < threshold uploads"
        );
        assert_eq!(reason(&Gate::MaxProbability { threshold: 0.51 }, &s), GateReason::Uncertain);
    }

    #[test]
    fn joint_gates() {
        use GateReason::{Certain, Important, Uncertain, Unimportant};
        let lookahead = |join| joint(ImportanceStatistic::Lookahead, join);
        for (u, i, and, or) in [
            (0.6, 0.2, Important, Uncertain),
            (0.6, 0.1, Unimportant, Uncertain),
            (0.5, 0.2, Certain, Important),
            (0.5, 0.1, Certain, Unimportant),
        ] {
            let s = signals(u, i, 0.2);
            assert_eq!(reason(&lookahead(Join::And), &s), and);
            assert_eq!(reason(&lookahead(Join::Or), &s), or);
            assert_eq!(needs_importance(&lookahead(Join::And), &s), u > 0.5);
            assert_eq!(needs_importance(&lookahead(Join::Or), &s), u <= 0.5);
        }
    }

    #[test]
    fn concentration_passes_until_two_values_are_known() {
        let gate = joint(ImportanceStatistic::Concentration, Join::And);
        let s = signals(0.9, 0.1, f32::NAN);
        let mut running = RunningMoments::default();
        assert!(decide(&gate, &s, &running, f32::NAN).upload);
        running.push(0.2);
        assert!(decide(&gate, &s, &running, f32::NAN).upload);
        running.push(0.4); // mean 0.3, std 0.1
        assert!(!decide(&gate, &s, &running, f32::NAN).upload);
        assert!(decide(&gate, &signals(0.9, 0.41, f32::NAN), &running, f32::NAN).upload);
    }

    #[test]
    fn missing_signals_ask_the_verifier() {
        let nothing = signals(f32::NAN, f32::NAN, f32::NAN);
        assert_eq!(reason(&joint(ImportanceStatistic::Lookahead, Join::And), &nothing), GateReason::Important);
        assert_eq!(reason(&Gate::MaxProbability { threshold: 0.1 }, &nothing), GateReason::Uncertain);
    }
}
