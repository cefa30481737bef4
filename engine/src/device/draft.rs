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
            Gate::Uncertainty { estimator, .. } | Gate::Joint { estimator, .. } => GateStatistic::Uncertainty(estimator),
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
    /// Form of the payload: `sparse-exact` changes the law that drafts are drawn from, uploaded or not.
    pub payload: PayloadForm,
    /// The gate's statistic.
    pub statistic: GateStatistic,
    /// The importance criterion of a joint gate: says which layer's attention to read.
    pub importance: Option<ImportanceRule>,
}

impl DraftSpec {
    /// What `method` needs.
    pub fn of(method: &Method, sampling: Sampling) -> DraftSpec {
        let importance = match method.gate {
            Gate::Joint { importance, .. } => Some(importance),
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
    /// x_d, the draft's probability under the law it was drawn from.
    pub draft_probability: f32,
    /// A keyed uniform draw from [0, 1) for `rand-hlm`.
    pub gate_draw: f32,
}

/// A draft and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Drafted {
    /// The draft d.
    pub token: u32,
    /// What the gate decides on.
    pub signals: Signals,
    /// The law that d was drawn from: encode this one, and resample against this one.
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
pub fn draft_outcome(
    logits: &[f32],
    attention: Option<AttentionRows<'_>>,
    key: DrawKey,
    spec: &DraftSpec,
) -> Drafted {
    let full = Distribution::from_logits(logits, &spec.sampling);
    let informative = || {
        (!(spec.sampling.temperature > 0.0))
            .then(|| Distribution::from_logits(logits, &Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 }))
    };
    let of_law = |figure: fn(&Distribution) -> f32| figure(informative().as_ref().unwrap_or(&full));
    let whole_law_statistic = match spec.statistic {
        GateStatistic::Entropy => of_law(Distribution::entropy),
        GateStatistic::MaxProbability => 1.0 - of_law(Distribution::max_probability),
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
