//! From the drafter's logits to a draft token and the signals that the device machine decides on.

use serde::{Deserialize, Serialize};

use super::gate::{AttentionRows, concentration, uncertainty};
use super::payload;
use crate::distribution::Distribution;
use crate::method::{Estimator, Gate, ImportanceRule, ImportanceStatistic, Method, PayloadForm, Sampling};
use crate::random::{DrawKey, Purpose};

/// Which figure of the drafter's logits the gate compares with its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateStatistic {
    /// None: the gate does not look.
    None,
    /// u(t), by this estimator.
    Uncertainty(Estimator),
    /// Entropy of x in nats.
    Entropy,
    /// 1 − max x.
    MaxProbability,
}

impl From<&Gate> for GateStatistic {
    fn from(gate: &Gate) -> GateStatistic {
        match *gate {
            Gate::Never | Gate::Always | Gate::Random { .. } => GateStatistic::None,
            Gate::Uncertainty { estimator, .. } | Gate::Joint { estimator, .. } => {
                GateStatistic::Uncertainty(estimator)
            }
            Gate::Price(rule) => GateStatistic::Uncertainty(rule.estimator),
            Gate::Entropy { .. } => GateStatistic::Entropy,
            Gate::MaxProbability { .. } => GateStatistic::MaxProbability,
        }
    }
}

/// What a draft step has to compute besides the draft itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DraftSpec {
    /// How the draft is drawn.
    pub sampling: Sampling,
    /// Form of the payload: `sparse-exact` changes the distribution that drafts are drawn from, uploaded or not.
    pub payload: PayloadForm,
    pub statistic: GateStatistic,
    /// The importance criterion of a joint gate: says which layer's attention to read.
    pub importance: Option<ImportanceRule>,
}

impl DraftSpec {
    /// What `method` needs.
    pub fn of(method: &Method, sampling: Sampling) -> DraftSpec {
        let importance = match method.gate {
            Gate::Joint { importance, .. } => Some(importance),
            Gate::Price(rule) => Some(rule.importance),
            _ => None,
        };
        DraftSpec { sampling, payload: method.payload, statistic: GateStatistic::from(&method.gate), importance }
    }
}

/// What a gate needs to know about a draft. A machine sees these, never logits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// u(t), the entropy in nats, or 1 − max x, as [`GateStatistic`] says; NaN when none.
    pub statistic: f32,
    /// I(t). NaN without an importance criterion, and for `lookahead` until the two further steps were taken.
    pub importance: f32,
    /// What I(t) has to reach, for `lookahead` only: mean + κ·std over the current attention row. NaN for
    /// `concentration`, whose running threshold the device machine keeps.
    pub importance_threshold: f32,
    /// x_d, the draft's probability under the distribution it was drawn from.
    pub draft_probability: f32,
    /// A keyed uniform draw from [0, 1) for `rand-hlm`.
    pub gate_draw: f32,
}

/// A draft and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Drafted {
    pub token: u32,
    /// What the gate decides on.
    pub signals: Signals,
    /// The distribution that d was drawn from: encode this one, and resample against this one.
    pub distribution: Distribution,
}

/// Draws the draft d(t) and computes its signals: pure, and the same on every driver.
///
/// * `logits`: l(t), V values.
/// * `attention`: rows of the query that produced `logits`, at the layer that `spec.importance` names; only the
///   `concentration` statistic reads them here, and without them I(t) is NaN. For `lookahead` see
///   [`lookahead_importance`](super::gate::lookahead_importance).
///
/// Entropy and max x are those of x at the run's sampling; at T = 0, where x is one-hot and both say nothing, they are those
/// of softmax(l) \[ours\].
pub fn draft_outcome(logits: &[f32], attention: Option<AttentionRows<'_>>, key: DrawKey, spec: &DraftSpec) -> Drafted {
    let full = Distribution::from_logits(logits, &spec.sampling);
    let informative = || {
        spec.sampling
            .is_greedy()
            .then(|| Distribution::from_logits(logits, &Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 }))
    };
    let of_distribution = |figure: fn(&Distribution) -> f32| figure(informative().as_ref().unwrap_or(&full));
    let whole_law_statistic = match spec.statistic {
        GateStatistic::Entropy => of_distribution(Distribution::entropy),
        GateStatistic::MaxProbability => 1.0 - of_distribution(Distribution::max_probability),
        GateStatistic::None | GateStatistic::Uncertainty(_) => f32::NAN,
    };
    let distribution = payload::sparsify(&spec.payload, full);
    let token = distribution.sample(key.draws(Purpose::Draft).uniform());
    let statistic = match spec.statistic {
        GateStatistic::Uncertainty(estimator) => uncertainty(estimator, logits, token, key),
        GateStatistic::None | GateStatistic::Entropy | GateStatistic::MaxProbability => whole_law_statistic,
    };
    let importance = match (spec.importance.map(|rule| rule.statistic), attention) {
        (Some(ImportanceStatistic::Concentration), Some(attention)) => concentration(attention),
        (Some(ImportanceStatistic::Concentration), None) | (Some(ImportanceStatistic::Lookahead) | None, _) => f32::NAN,
    };
    let signals = Signals {
        statistic,
        importance,
        importance_threshold: f32::NAN,
        draft_probability: distribution.probability(token),
        gate_draw: key.draws(Purpose::Gate).uniform_f32(),
    };
    Drafted { token, signals, distribution }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::{MethodOverrides, resolve};
    use crate::method::{Keep, ProbabilityBits};

    const KEY: DrawKey = DrawKey { seed: 1, prompt: 2, repetition: 0, position: 3, rejections: 0 };
    const LOGITS: [f32; 5] = [0.0, 2.0, 1.5, -1.0, 0.5];

    fn spec(temperature: f32, statistic: GateStatistic) -> DraftSpec {
        DraftSpec {
            sampling: Sampling { temperature, top_k: 0, top_p: 1.0 },
            payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
            statistic,
            importance: None,
        }
    }

    #[test]
    fn drafts_follow_the_sparsified_distribution() {
        let mut spec = spec(1.0, GateStatistic::None);
        spec.payload = PayloadForm::SparseExact { keep: Keep::Top(2), bits: ProbabilityBits::B8 };
        for position in 0..200 {
            let drafted = draft_outcome(&LOGITS, None, KEY.at(position), &spec);
            assert!([1, 2].contains(&drafted.token));
            assert_eq!(drafted.signals.draft_probability, drafted.distribution.probability(drafted.token));
        }
    }

    #[test]
    fn the_same_key_draws_the_same_whatever_the_gate() {
        for position in 0..50 {
            let key = KEY.at(position);
            let plain = draft_outcome(&LOGITS, None, key, &spec(1.0, GateStatistic::None));
            for statistic in [
                GateStatistic::Uncertainty(Estimator::Sampled),
                GateStatistic::Uncertainty(Estimator::Expected),
                GateStatistic::Entropy,
                GateStatistic::MaxProbability,
            ] {
                let other = draft_outcome(&LOGITS, None, key, &spec(1.0, statistic));
                assert_eq!((other.token, other.signals.gate_draw), (plain.token, plain.signals.gate_draw));
                assert!(other.signals.statistic.is_finite());
            }
            assert!(plain.signals.statistic.is_nan());
        }
    }

    #[test]
    fn simple_statistics_still_speak_when_greedy() {
        let warm = draft_outcome(&LOGITS, None, KEY, &spec(1.0, GateStatistic::Entropy));
        let greedy = draft_outcome(&LOGITS, None, KEY, &spec(0.0, GateStatistic::Entropy));
        assert_eq!((greedy.token, greedy.signals.draft_probability), (1, 1.0));
        assert_eq!(greedy.signals.statistic, warm.signals.statistic);
        let greedy = draft_outcome(&LOGITS, None, KEY, &spec(0.0, GateStatistic::MaxProbability));
        assert!((greedy.signals.statistic - 0.5037).abs() < 1e-3, "{}", greedy.signals.statistic);
    }

    #[test]
    fn concentration_is_read_and_lookahead_is_not() {
        let weights = [0.7, 0.3, 0.0, 0.0];
        let attention = AttentionRows::new(1, 4, &weights);
        let mut spec = spec(1.0, GateStatistic::Uncertainty(Estimator::Expected));
        spec.importance = Some(ImportanceRule { statistic: ImportanceStatistic::Concentration, layer: 0, kappa: 0.0 });
        let signals = draft_outcome(&LOGITS, attention, KEY, &spec).signals;
        assert!((signals.importance - 1.0).abs() < 1e-6 && signals.importance_threshold.is_nan());
        assert!(draft_outcome(&LOGITS, None, KEY, &spec).signals.importance.is_nan());
        spec.importance = Some(ImportanceRule { statistic: ImportanceStatistic::Lookahead, layer: 0, kappa: 0.0 });
        assert!(draft_outcome(&LOGITS, attention, KEY, &spec).signals.importance.is_nan());
    }

    #[test]
    fn spec_of_a_method() {
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
        let dssd = resolve(None, "dssd", &MethodOverrides::default()).unwrap();
        let spec = DraftSpec::of(&dssd, sampling);
        assert_eq!((spec.statistic, spec.importance), (GateStatistic::None, None));
        assert_eq!(spec.payload, PayloadForm::TokenOnly { bits: ProbabilityBits::B32 });
    }
}
