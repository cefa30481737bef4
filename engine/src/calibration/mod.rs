//! Calibration (method.md §2, §3): what a pair's own figures say about thresholds, importance and matched rates.
//!
//! The published risk lines do not carry over to other pairs, so the program fits its own on prompts of their own. A driver
//! collects [`CalibrationSample`]s and [`HarmSample`]s; [`Calibration::fit`] is a pure function of them; [`resolve`] turns a
//! preset's name into a [`Method`](crate::method::Method) with every threshold a number.

mod fit;
mod fitted;
mod resolve;
mod statistics;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cost::MeasuredCost;
use crate::device::gate::ImportanceReading;
use crate::method::{Estimator, ImportanceStatistic, PayloadForm, Sampling};

pub use fit::{HARM_KEPT_TARGET, KAPPA_TENTHS};
pub use fitted::{Distributions, HostOverheads};
pub use resolve::{MethodError, MethodOverrides, PayloadName, ThresholdChoice, ThresholdName, resolve};
pub use statistics::percentiles;

/// What a calibration belongs to: with another of these it is another calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationKey {
    /// Digest of the drafter's weights.
    pub drafter: String,
    /// Digest of the verifier's weights.
    pub verifier: String,
    /// Precision that the drafter runs in, as in scenarios (`f32`, `q8_0`, …).
    pub drafter_precision: String,
    /// Precision that the verifier runs in.
    pub verifier_precision: String,
    /// Digest of the calibration prompts and of how many tokens were drafted on each.
    pub prompts: String,
    pub estimator: Estimator,
    pub sampling: Sampling,
    /// The form that drafts are sampled from; absent where they are drawn from x itself (all but `sparse-exact`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples_from: Option<PayloadForm>,
}

/// How the model in a role differs from the one that a calibration was made with.
fn other(role: &str, (model, stored): (&str, &str), digests: &[&str], precision: &str) -> Option<String> {
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    if !digests.contains(&model) {
        let now = digests.first().map_or_else(String::new, |digest| short(digest));
        Some(format!("it was made with another {role} (SHA-256 {}, and this one's is {now})", short(model)))
    } else if stored != precision {
        Some(format!("it was made with the {role} in {stored}, and this one runs in {precision}"))
    } else {
        None
    }
}

impl CalibrationKey {
    /// `form` as it stands in a key: only `sparse-exact` changes the distribution of the drafts.
    pub fn samples_from(form: PayloadForm) -> Option<PayloadForm> {
        matches!(form, PayloadForm::SparseExact { .. }).then_some(form)
    }

    /// What is not as in this key, in words, where a device drafts with the drafter that one of `digests` names in
    /// `precision`; `None` if it is the calibration's. A model has more than one digest: a folder of files has one of its own.
    pub fn other_drafter(&self, digests: &[&str], precision: &str) -> Option<String> {
        other("drafter", (&self.drafter, &self.drafter_precision), digests, precision)
    }

    /// The same for the verifier of the pool.
    pub fn other_verifier(&self, digests: &[&str], precision: &str) -> Option<String> {
        other("verifier", (&self.verifier, &self.verifier_precision), digests, precision)
    }

    /// 16 hexadecimal digits that differ where keys differ (64-bit FNV-1a over the fields): the name of a cached
    /// calibration. Not a defence against an adversary.
    pub fn fingerprint(&self) -> String {
        let Sampling { temperature, top_k, top_p } = self.sampling;
        let numbers = format!(
            "{:?} {:08x} {top_k} {:08x} {:?}",
            self.estimator,
            temperature.to_bits(),
            top_p.to_bits(),
            self.samples_from
        );
        let fields =
            [&self.drafter, &self.verifier, &self.drafter_precision, &self.verifier_precision, &self.prompts, &numbers];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for field in fields {
            // The zero byte keeps the boundary between fields.
            for byte in field.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        format!("{hash:016x}")
    }
}

/// One drafted position of the calibration prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationSample {
    /// u by the `expected` estimator.
    pub u_expected: f32,
    /// u by the `sampled` estimator.
    pub u_sampled: f32,
    /// Entropy of x in nats, as the `entropy` gate sees it.
    pub entropy: f32,
    /// max x, as the `max-prob` gate sees it.
    pub max_probability: f32,
    /// 1 − min(1, y_d / x_d).
    pub rejection: f32,
    /// `concentration` per drafter layer, beside the moments of this generation's earlier values
    /// ([`RunningMoments::reading`](crate::device::gate::RunningMoments::reading)). Empty if not measured.
    pub concentration: Vec<ImportanceReading>,
    /// `lookahead` per drafter layer, beside the moments of its row. Empty if not measured.
    pub lookahead: Vec<ImportanceReading>,
}

/// One position where the draft would be rejected, and what going on with it all the same does to the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HarmSample {
    /// The loss in [`HarmMeasure`] of going on with the draft instead of the replacement; negative where it did better.
    pub harm: f32,
    pub concentration: Vec<ImportanceReading>,
    pub lookahead: Vec<ImportanceReading>,
}

/// How harm was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HarmMeasure {
    /// Loss in exact match of the final answer.
    ExactMatch,
    /// Loss in token agreement over the next 32 tokens.
    TokenAgreement,
}

/// β ≈ clip(a·u + b, 0, 1), the rejection probability at uncertainty u \[paper; fitted here by least squares\].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskLine {
    pub a: f64,
    pub b: f64,
    /// Correlation of u and rejection; 0 if either never varies.
    pub r: f64,
    /// r²: the share of the rejection's variance that the line explains.
    pub r2: f64,
    /// Root mean squared distance of the rejections from the unclipped line.
    pub rmse: f64,
    pub n: u64,
}

impl RiskLine {
    /// The clipped line at `u`.
    pub fn risk(&self, u: f64) -> f64 {
        (self.a * u + self.b).clamp(0.0, 1.0)
    }

    /// Where the line reaches `risk`, clamped to [0, 1]; `None` if it does not rise.
    fn reaches(&self, risk: f64) -> Option<f32> {
        (self.a > 0.0).then(|| ((risk - self.b) / self.a).clamp(0.0, 1.0) as f32)
    }

    /// u_th = −b / a \[paper\]: no accepted risk. `None` if a ≤ 0.
    pub fn risk_averse(&self) -> Option<f32> {
        self.reaches(0.0)
    }

    /// u_th = (Δ − b) / a \[paper\] with Δ = P(y_d < x_d). `None` if a ≤ 0.
    pub fn risk_prone(&self, delta: f64) -> Option<f32> {
        self.reaches(delta)
    }
}

/// One importance statistic at one layer of the drafter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportanceFit {
    pub statistic: ImportanceStatistic,
    /// The layer, from 0.
    pub layer: u16,
    /// Probability that of two positions of different harm the more harmful one scores higher (ties count half): the area
    /// under the ROC curve where harm is yes or no; 0.5 is chance. Absent without two different harms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
    /// Correlation of value and harm. Absent where either never varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<f64>,
    /// κ of the threshold mean + κ·std; see [`HARM_KEPT_TARGET`].
    pub kappa: f32,
    /// Share of the harm at positions that pass at κ. Absent if none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harm_kept: Option<f64>,
    /// Share of the drafted positions that pass at κ.
    pub pass_rate: f64,
    /// Percentiles 0 ..= 100 of the value over the drafted positions.
    pub percentiles: Vec<f32>,
}

/// Everything that a run takes from calibration. Serialises to TOML and JSON; nothing in it is ever NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Number of drafted positions.
    pub samples: u64,
    /// Number of positions studied for harm.
    pub harm_samples: u64,
    /// How harm was measured.
    pub harm_measure: HarmMeasure,
    /// Mean of 1 − min(1, y_d / x_d).
    pub mean_rejection: f64,
    /// Δ = P(y_d < x_d); at T = 0, P(d ≠ arg max y).
    pub delta: f64,
    /// u_th = −b / a. Absent if the line does not rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_averse: Option<f32>,
    /// u_th = (Δ − b) / a. Absent if the line does not rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_prone: Option<f32>,
    /// Threshold in nats of `entropy` at `ui-hlm`'s upload rate. Absent if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy_threshold: Option<f32>,
    /// Threshold of `max-prob` at `ui-hlm`'s upload rate. Absent if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_probability_threshold: Option<f32>,
    /// Percentiles 0 ..= 100 of u.
    pub uncertainty_percentiles: Vec<f32>,
    /// Percentiles 0 ..= 100 of the entropy in nats.
    pub entropy_percentiles: Vec<f32>,
    /// Percentiles 0 ..= 100 of max x.
    pub max_probability_percentiles: Vec<f32>,
    /// What it belongs to.
    pub key: CalibrationKey,
    pub line: RiskLine,
    /// Upload rate over the calibration's positions of each preset with its default parameters: the share of drafts that
    /// the gate uploads.
    pub upload_rates: BTreeMap<String, f64>,
    /// Every importance statistic at every layer, `concentration` first, layers ascending.
    pub importance: Vec<ImportanceFit>,
    /// What batches take, fitted on a live run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_cost: Option<MeasuredCost>,
    /// What the host adds, measured on a live run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostOverheads>,
    /// The same by method, by its name; `host` holds for the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_methods: BTreeMap<String, HostOverheads>,
    /// What a fitted simulation draws from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distributions: Option<Distributions>,
}

impl Calibration {
    /// Below this correlation the risk line is reported as a bad fit \[ours\]: it explains less than a quarter of the
    /// variance.
    pub const WEAK_CORRELATION: f64 = 0.5;

    /// One line for the user if the risk line says little about this pair.
    pub fn fits_badly(&self) -> Option<String> {
        let RiskLine { a, b, r, n, .. } = self.line;
        if a <= 0.0 {
            Some(format!(
                "the risk line does not rise (a = {a:.3}, b = {b:.3}, {n} samples): uncertainty says nothing about rejection \
                 here, and u-hlm, ui-hlm and cu-hlm need an uncertainty_threshold given as a number"
            ))
        } else if r < Self::WEAK_CORRELATION {
            Some(format!(
                "the risk line fits badly (correlation {r:.2} < {}, a = {a:.3}, b = {b:.3}, {n} samples): thresholds from it \
                 are rough",
                Self::WEAK_CORRELATION
            ))
        } else {
            None
        }
    }

    /// The layer of `statistic` that predicts harm best (highest AUC, the deepest layer among equals and where no harm
    /// was measured). `None` if the statistic was not measured.
    pub fn best_layer(&self, statistic: ImportanceStatistic) -> Option<&ImportanceFit> {
        self.importance
            .iter()
            .filter(|fit| fit.statistic == statistic)
            .max_by(|a, b| a.auc.unwrap_or(0.5).total_cmp(&b.auc.unwrap_or(0.5)))
    }

    /// The statistic and layer that `ui-hlm` uses unless told otherwise: the better predictor of harm; `concentration`
    /// among equals, because it costs no extra drafter steps.
    pub fn best_importance(&self) -> Option<&ImportanceFit> {
        let concentration = self.best_layer(ImportanceStatistic::Concentration);
        let lookahead = self.best_layer(ImportanceStatistic::Lookahead);
        match (concentration, lookahead) {
            (Some(concentration), Some(lookahead)) => {
                let better = lookahead.auc.unwrap_or(0.5) > concentration.auc.unwrap_or(0.5);
                Some(if better { lookahead } else { concentration })
            }
            (one, other) => one.or(other),
        }
    }

    /// What the host adds to a method's times; `None` if no live run has said.
    pub fn host_of(&self, method: &str) -> Option<&HostOverheads> {
        self.host_methods.get(method).or(self.host.as_ref())
    }

    /// The fit of one statistic at one layer.
    pub fn importance_at(&self, statistic: ImportanceStatistic, layer: u16) -> Option<&ImportanceFit> {
        self.importance.iter().find(|fit| fit.statistic == statistic && fit.layer == layer)
    }
}

#[cfg(test)]
mod tests;
