//! From a preset's name to a [`Method`] with every parameter a number (method.md §4).

use serde::{Deserialize, Serialize};

use super::{Calibration, ImportanceFit};
use crate::method::{
    Estimator, Gate, ImportanceRule, ImportanceStatistic, Join, Keep, MAX_BLOCK, METHOD_NAMES, Method, PayloadForm,
    PriceRule, ProbabilityBits, Writer,
};
use crate::time::Span;

/// k of `cu-hlm` \[CU-HLM\], and of any sparse payload that is asked for without one.
const DEFAULT_KEEP: Keep = Keep::Top(30);

const DEFAULT_BLOCK: u8 = 4;

/// ω_E of `price` \[ours\]. This and [`DEFAULT_RISK_PER_SECOND`] are chosen so that on the embedded pair's calibration
/// positions at T = 1, on link `fair` with a pool that announces no price, `price` uploads as often as `ui-hlm` does (30 %),
/// and that joules and seconds have equal parts in the median price, some 0.005.
const DEFAULT_RISK_PER_JOULE: f32 = 0.18;

/// ω_T of `price` \[ours\].
const DEFAULT_RISK_PER_SECOND: f32 = 0.14;

/// How long `price` takes to believe half of the pool's last price \[ours\].
const DEFAULT_HALF_LIFE: Span = Span::from_millis(1_000);

/// An uncertainty threshold by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdName {
    /// u_th = −b / a.
    RiskAverse,
    /// u_th = (Δ − b) / a.
    RiskProne,
}

/// An uncertainty threshold: a number, or the name of one that the calibration holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ThresholdChoice {
    Number(f32),
    /// From the risk line.
    Named(ThresholdName),
}

/// A payload form by name; bits and number of entries are overrides of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PayloadName {
    Full,
    TopK,
    SparseExact,
    TokenOnly,
}

/// What a scenario changes about a preset. What a preset has no use for is left aside, so that one set of overrides can
/// serve all methods of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MethodOverrides {
    /// u_th of `u-hlm`, `ui-hlm`, `cu-hlm`: a number in [0, 1], `"risk-averse"` (the default) or `"risk-prone"`.
    pub uncertainty_threshold: Option<ThresholdChoice>,
    /// Estimator of u. Thresholds by name need a calibration made with the same one.
    pub estimator: Option<Estimator>,
    /// Importance statistic of `ui-hlm`; by default the better predictor of harm.
    pub statistic: Option<ImportanceStatistic>,
    /// Drafter layer of the importance statistic, from 0; by default the better predictor of harm.
    pub layer: Option<u16>,
    /// κ of the importance threshold; by default that of the calibration at the same layer.
    pub kappa: Option<f32>,
    /// How `ui-hlm` joins its criteria; `and` by default.
    pub join: Option<Join>,
    /// p of `rand-hlm` in [0, 1]; by default `ui-hlm`'s upload rate.
    pub probability: Option<f32>,
    pub payload: Option<PayloadName>,
    pub bits: Option<ProbabilityBits>,
    /// Entries of a sparse payload, ≥ 1; excludes `tail_mass`.
    pub k: Option<u32>,
    /// θ of a sparse payload, in [0, 1): the smallest k whose tail mass is at most θ.
    pub tail_mass: Option<f32>,
    /// γ, 1 ..= [`MAX_BLOCK`].
    pub block: Option<u8>,
    /// Whether a fully accepted block adds a token.
    pub bonus: Option<bool>,
    /// Whether the device drafts on while it waits.
    pub draft_ahead: Option<bool>,
    /// Threshold of `entropy` in nats, ≥ 0; by default the one that matches `ui-hlm`'s upload rate.
    pub entropy_threshold: Option<f32>,
    /// Threshold of `max-prob` in [0, 1]; by default the one that matches `ui-hlm`'s upload rate.
    pub max_probability_threshold: Option<f32>,
    /// ω_E of `price`, ≥ 0: accepted risk per joule of the uplink.
    pub risk_per_joule: Option<f32>,
    /// ω_T of `price`, ≥ 0: accepted risk per second of the uplink.
    pub risk_per_second: Option<f32>,
    /// In what time `price` forgets half of the pool's last price, > 0.
    pub price_half_life: Option<Span>,
}

/// Why a method cannot be resolved.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MethodError {
    /// No preset has this name.
    #[error("unknown method \"{name}\"; the methods are {}", METHOD_NAMES.join(", "))]
    UnknownMethod {
        /// As it was given.
        name: String,
    },
    /// A parameter has to come from a calibration, and there is none, or it could not find one.
    #[error("method \"{method}\" needs {parameter}: {why}; give it as a number or calibrate this pair")]
    Missing {
        method: String,
        /// Key of the override that would do.
        parameter: &'static str,
        /// Why it is missing.
        why: &'static str,
    },
    /// An override is out of range.
    #[error("method \"{method}\": {key} = {value} is out of range, it must be {range}")]
    OutOfRange {
        method: String,
        /// Key of the override.
        key: &'static str,
        /// As it was given.
        value: String,
        /// What would be right.
        range: String,
    },
    /// Two overrides that exclude each other.
    #[error("method \"{method}\": {first} and {second} exclude each other")]
    Conflict {
        method: String,
        first: &'static str,
        /// Key of the other.
        second: &'static str,
    },
}

impl Calibration {
    /// [`resolve`] with this calibration.
    pub fn resolve(&self, name: &str, overrides: &MethodOverrides) -> Result<Method, MethodError> {
        resolve(Some(self), name, overrides)
    }
}

/// The preset `name` with `overrides`; numbers that neither gives come from `calibration`.
///
/// `slm-only`, `llm-only`, `hlm`, `dssd` and `block` need no calibration, nor does any other preset whose thresholds the
/// overrides give as numbers.
///
/// Every preset sends 32 bits per probability unless told otherwise, `cu-hlm` too (CU-HLM itself counts 8): methods then
/// differ in what they send, never in how exactly.
pub fn resolve(
    calibration: Option<&Calibration>,
    name: &str,
    overrides: &MethodOverrides,
) -> Result<Method, MethodError> {
    let Some(&known) = METHOD_NAMES.iter().find(|&&known| known == name) else {
        return Err(MethodError::UnknownMethod { name: name.to_owned() });
    };
    let preset = Preset { name: known, calibration, overrides };
    let gate = match known {
        "slm-only" | "llm-only" => Gate::Never,
        "rand-hlm" => Gate::Random { probability: preset.probability()? },
        "u-hlm" | "cu-hlm" => {
            Gate::Uncertainty { estimator: preset.estimator(), threshold: preset.uncertainty_threshold()? }
        }
        "ui-hlm" => Gate::Joint {
            estimator: preset.estimator(),
            threshold: preset.uncertainty_threshold()?,
            importance: preset.importance()?,
            join: overrides.join.unwrap_or(Join::And),
        },
        "entropy" => Gate::Entropy { threshold: preset.entropy_threshold()? },
        "price" => Gate::Price(preset.price()?),
        "max-prob" => Gate::MaxProbability { threshold: preset.max_probability_threshold()? },
        // hlm, dssd, block: whatever METHOD_NAMES lists besides uploads every token.
        _ => Gate::Always,
    };
    let blocks = known == "block";
    Ok(Method {
        name: known.to_owned(),
        writer: if known == "llm-only" { Writer::Verifier } else { Writer::Drafter },
        gate,
        payload: preset.payload()?,
        block: preset.block(if blocks { DEFAULT_BLOCK } else { 1 })?,
        bonus: overrides.bonus.unwrap_or(blocks),
        draft_ahead: overrides.draft_ahead.unwrap_or(blocks),
    })
}

/// A preset on its way to a method.
struct Preset<'a> {
    name: &'static str,
    calibration: Option<&'a Calibration>,
    overrides: &'a MethodOverrides,
}

impl Preset<'_> {
    fn calibrated(&self, parameter: &'static str) -> Result<&Calibration, MethodError> {
        self.calibration.ok_or_else(|| self.missing(parameter, "there is no calibration"))
    }

    /// The calibration, if its risk line speaks of this method's estimator.
    fn calibrated_line(&self, parameter: &'static str) -> Result<&Calibration, MethodError> {
        let calibration = self.calibrated(parameter)?;
        if calibration.key.estimator == self.estimator() {
            Ok(calibration)
        } else {
            Err(self.missing(parameter, "the calibration was made with the other estimator"))
        }
    }

    fn missing(&self, parameter: &'static str, why: &'static str) -> MethodError {
        MethodError::Missing { method: self.name.to_owned(), parameter, why }
    }

    fn out_of_range(&self, key: &'static str, value: &dyn std::fmt::Display, range: &str) -> MethodError {
        let (value, range) = (value.to_string(), range.to_owned());
        MethodError::OutOfRange { method: self.name.to_owned(), key, value, range }
    }

    /// `value` if it lies in [0, 1].
    fn share(&self, key: &'static str, value: f32) -> Result<f32, MethodError> {
        if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(self.out_of_range(key, &value, "between 0 and 1")) }
    }

    fn estimator(&self) -> Estimator {
        let calibrated = self.calibration.map(|calibration| calibration.key.estimator);
        self.overrides.estimator.or(calibrated).unwrap_or(Estimator::Expected)
    }

    fn uncertainty_threshold(&self) -> Result<f32, MethodError> {
        const KEY: &str = "uncertainty_threshold";
        let name = match self.overrides.uncertainty_threshold {
            Some(ThresholdChoice::Number(number)) => return self.share(KEY, number),
            Some(ThresholdChoice::Named(name)) => name,
            None => ThresholdName::RiskAverse,
        };
        let calibration = self.calibrated_line(KEY)?;
        let threshold = match name {
            ThresholdName::RiskAverse => calibration.risk_averse,
            ThresholdName::RiskProne => calibration.risk_prone,
        };
        threshold.ok_or_else(|| self.missing(KEY, "the calibration's risk line does not rise"))
    }

    fn importance(&self) -> Result<ImportanceRule, MethodError> {
        let MethodOverrides { statistic, layer, kappa, .. } = *self.overrides;
        if let Some(kappa) = kappa.filter(|kappa| !kappa.is_finite()) {
            return Err(self.out_of_range("kappa", &kappa, "a finite number"));
        }
        if let (Some(statistic), Some(layer), Some(kappa)) = (statistic, layer, kappa) {
            return Ok(ImportanceRule { statistic, layer, kappa });
        }
        let fit = self.importance_fit()?;
        Ok(ImportanceRule { statistic: fit.statistic, layer: fit.layer, kappa: kappa.unwrap_or(fit.kappa) })
    }

    /// What the calibration knows about the importance asked for, or about the best.
    fn importance_fit(&self) -> Result<&ImportanceFit, MethodError> {
        let MethodOverrides { statistic, layer, .. } = *self.overrides;
        let calibration = self.calibrated("statistic, layer and kappa")?;
        let fit = match (statistic, layer) {
            (Some(statistic), Some(layer)) => calibration.importance_at(statistic, layer),
            (Some(statistic), None) => calibration.best_layer(statistic),
            (None, Some(layer)) => {
                calibration.best_importance().and_then(|best| calibration.importance_at(best.statistic, layer))
            }
            (None, None) => calibration.best_importance(),
        };
        fit.ok_or_else(|| self.missing("kappa", "the calibration holds no such importance statistic"))
    }

    fn price(&self) -> Result<PriceRule, MethodError> {
        let MethodOverrides { risk_per_joule, risk_per_second, price_half_life, .. } = *self.overrides;
        let weight = |key, value: Option<f32>, default| match value.unwrap_or(default) {
            weight if weight >= 0.0 && weight.is_finite() => Ok(weight),
            weight => Err(self.out_of_range(key, &weight, "0 or more")),
        };
        let risk_per_joule = weight("risk_per_joule", risk_per_joule, DEFAULT_RISK_PER_JOULE)?;
        let risk_per_second = weight("risk_per_second", risk_per_second, DEFAULT_RISK_PER_SECOND)?;
        let half_life = price_half_life.unwrap_or(DEFAULT_HALF_LIFE);
        if half_life == Span::ZERO {
            return Err(self.out_of_range("price_half_life", &0, "more than 0"));
        }
        let line = &self.calibrated_line("a risk line")?.line;
        if line.a <= 0.0 {
            return Err(self.missing("a risk line", "the calibration's does not rise"));
        }
        let fit = self.importance_fit()?;
        if fit.percentiles.len() != 101 {
            return Err(self.missing("importance percentiles", "the calibration does not hold all 101"));
        }
        let percentiles = std::array::from_fn(|twentieth| fit.percentiles[5 * twentieth]);
        Ok(PriceRule {
            estimator: self.estimator(),
            a: line.a as f32,
            b: line.b as f32,
            importance: ImportanceRule { statistic: fit.statistic, layer: fit.layer, kappa: fit.kappa },
            percentiles,
            risk_per_joule,
            risk_per_second,
            half_life,
        })
    }

    fn probability(&self) -> Result<f32, MethodError> {
        const KEY: &str = "probability";
        if let Some(probability) = self.overrides.probability {
            return self.share(KEY, probability);
        }
        let rate = self.calibrated(KEY)?.upload_rates.get("ui-hlm");
        rate.map(|&rate| rate as f32).ok_or_else(|| self.missing(KEY, "the calibration has no upload rate of ui-hlm"))
    }

    fn entropy_threshold(&self) -> Result<f32, MethodError> {
        const KEY: &str = "entropy_threshold";
        match self.overrides.entropy_threshold {
            Some(nats) if nats >= 0.0 && nats.is_finite() => Ok(nats),
            Some(nats) => Err(self.out_of_range(KEY, &nats, "0 or more")),
            None => {
                let threshold = self.calibrated(KEY)?.entropy_threshold;
                threshold.ok_or_else(|| self.missing(KEY, "the calibration has no upload rate of ui-hlm to match"))
            }
        }
    }

    fn max_probability_threshold(&self) -> Result<f32, MethodError> {
        const KEY: &str = "max_probability_threshold";
        match self.overrides.max_probability_threshold {
            Some(probability) => self.share(KEY, probability),
            None => {
                let threshold = self.calibrated(KEY)?.max_probability_threshold;
                threshold.ok_or_else(|| self.missing(KEY, "the calibration has no upload rate of ui-hlm to match"))
            }
        }
    }

    fn payload(&self) -> Result<PayloadForm, MethodError> {
        let MethodOverrides { payload, bits, .. } = *self.overrides;
        let bits = bits.unwrap_or(ProbabilityBits::B32);
        let preset = match self.name {
            "cu-hlm" => PayloadName::TopK,
            "dssd" => PayloadName::TokenOnly,
            _ => PayloadName::Full,
        };
        let keep = self.keep()?;
        Ok(match payload.unwrap_or(preset) {
            PayloadName::Full => PayloadForm::Full { bits },
            PayloadName::TopK => PayloadForm::TopK { keep, bits },
            PayloadName::SparseExact => PayloadForm::SparseExact { keep, bits },
            PayloadName::TokenOnly => PayloadForm::TokenOnly { bits },
        })
    }

    fn keep(&self) -> Result<Keep, MethodError> {
        match (self.overrides.k, self.overrides.tail_mass) {
            (None, None) => Ok(DEFAULT_KEEP),
            (Some(0), None) => Err(self.out_of_range("k", &0, "1 or more")),
            (Some(k), None) => Ok(Keep::Top(k)),
            (None, Some(theta)) if (0.0..1.0).contains(&theta) => Ok(Keep::TailMass(theta)),
            (None, Some(theta)) => Err(self.out_of_range("tail_mass", &theta, "0 or more and less than 1")),
            (Some(_), Some(_)) => {
                Err(MethodError::Conflict { method: self.name.to_owned(), first: "k", second: "tail_mass" })
            }
        }
    }

    fn block(&self, preset: u8) -> Result<u8, MethodError> {
        let block = self.overrides.block.unwrap_or(preset);
        if (1..=MAX_BLOCK).contains(&usize::from(block)) {
            Ok(block)
        } else {
            Err(self.out_of_range("block", &block, &format!("between 1 and {MAX_BLOCK}")))
        }
    }
}
