//! What a scenario changes about an upload method; the calibration fills in the rest.

use serde::{Deserialize, Serialize};
use specfleet_engine::method::{Estimator, ImportanceStatistic, Join, MAX_BLOCK, METHOD_NAMES, ProbabilityBits};

use crate::ConfigError;
use crate::read::Section;

/// An uncertainty threshold, or the rule by which the calibration gives one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threshold {
    /// u_th = −b/a.
    RiskAverse,
    /// u_th = (Δ − b)/a.
    RiskProne,
    /// u_th itself.
    Fixed(f32),
}

/// Which payload form (method.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// All V probabilities.
    Full,
    /// The most likely tokens.
    TopK,
    /// The most likely tokens, from which the draft is drawn.
    SparseExact,
    /// The token and its probability.
    TokenOnly,
}

/// What a scenario says about a payload; what it leaves out is the method's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PayloadOverrides {
    /// The form.
    pub form: Option<Form>,
    /// Entries of a sparse payload. Never set together with `theta`.
    pub k: Option<u32>,
    /// Tail mass θ of a sparse payload of varying length.
    pub theta: Option<f32>,
    /// Bits per probability.
    pub bits: Option<ProbabilityBits>,
}

/// What a scenario says about a method; what it leaves out comes from the preset and the calibration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MethodOverrides {
    /// Threshold of u.
    pub uncertainty_threshold: Option<Threshold>,
    /// Estimator of u.
    pub estimator: Option<Estimator>,
    /// Statistic of importance.
    pub statistic: Option<ImportanceStatistic>,
    /// Layer of the drafter whose attention is read, from 0.
    pub layer: Option<u16>,
    /// κ of the importance threshold.
    pub kappa: Option<f32>,
    /// How uncertainty and importance combine.
    pub join: Option<Join>,
    /// Upload probability of a random gate. Never set together with `match_method`.
    pub probability: Option<f32>,
    /// The method whose calibrated upload rate a random or simple gate takes.
    pub match_method: Option<String>,
    /// The payload.
    #[serde(default)]
    pub payload: PayloadOverrides,
    /// Drafts per upload γ, 1 to [`MAX_BLOCK`].
    pub block: Option<u8>,
    /// Whether a fully accepted block adds one token from the verifier.
    pub bonus: Option<bool>,
    /// Whether the device drafts on while it waits for a verdict.
    pub draft_ahead: Option<bool>,
    /// Threshold of the entropy of x, in nats.
    pub entropy_threshold: Option<f32>,
    /// Threshold of max x.
    pub max_probability_threshold: Option<f32>,
}

impl MethodOverrides {
    /// Reads a `[method]` or `[methods.NAME]` table.
    pub(crate) fn read(section: &Section<'_>) -> Result<MethodOverrides, ConfigError> {
        let number = |name, range| Ok::<_, ConfigError>(section.opt_number(name, range)?.map(|number| number as f32));
        let overrides = MethodOverrides {
            uncertainty_threshold: threshold(section)?,
            estimator: section
                .opt_choice("estimator", &[("sampled", Estimator::Sampled), ("expected", Estimator::Expected)])?,
            statistic: section.opt_choice(
                "statistic",
                &[
                    ("concentration", ImportanceStatistic::Concentration),
                    ("lookahead", ImportanceStatistic::Lookahead),
                ],
            )?,
            layer: section.opt_integer("layer", 0..=255)?,
            kappa: number("kappa", -10.0..=10.0)?,
            join: section.opt_choice("join", &[("and", Join::And), ("or", Join::Or)])?,
            probability: number("probability", 0.0..=1.0)?,
            match_method: section
                .opt_choice("match", &METHOD_NAMES.map(|name| (name, name)))?
                .map(str::to_owned),
            payload: payload(&section.section("payload")?)?,
            block: section.opt_integer("block", 1..=MAX_BLOCK as u64)?,
            bonus: section.opt_flag("bonus")?,
            draft_ahead: section.opt_flag("draft_ahead")?,
            entropy_threshold: number("entropy_threshold", 0.0..=20.0)?,
            max_probability_threshold: number("max_probability_threshold", 0.0..=1.0)?,
        };
        if overrides.probability.is_some() && overrides.match_method.is_some() {
            return Err(section.conflict("match", "cannot stand beside probability: each gives the upload rate"));
        }
        Ok(overrides)
    }

    /// These, and where they say nothing, `general`.
    pub(crate) fn over(self, general: &MethodOverrides) -> MethodOverrides {
        // Two keys that exclude each other are taken together from one table.
        let own_rate = self.probability.is_some() || self.match_method.is_some();
        let own_keep = self.payload.k.is_some() || self.payload.theta.is_some();
        MethodOverrides {
            uncertainty_threshold: self.uncertainty_threshold.or(general.uncertainty_threshold),
            estimator: self.estimator.or(general.estimator),
            statistic: self.statistic.or(general.statistic),
            layer: self.layer.or(general.layer),
            kappa: self.kappa.or(general.kappa),
            join: self.join.or(general.join),
            probability: if own_rate { self.probability } else { general.probability },
            match_method: if own_rate { self.match_method } else { general.match_method.clone() },
            payload: PayloadOverrides {
                form: self.payload.form.or(general.payload.form),
                k: if own_keep { self.payload.k } else { general.payload.k },
                theta: if own_keep { self.payload.theta } else { general.payload.theta },
                bits: self.payload.bits.or(general.payload.bits),
            },
            block: self.block.or(general.block),
            bonus: self.bonus.or(general.bonus),
            draft_ahead: self.draft_ahead.or(general.draft_ahead),
            entropy_threshold: self.entropy_threshold.or(general.entropy_threshold),
            max_probability_threshold: self.max_probability_threshold.or(general.max_probability_threshold),
        }
    }
}

fn threshold(section: &Section<'_>) -> Result<Option<Threshold>, ConfigError> {
    const NAME: &str = "uncertainty_threshold";
    match section.value(NAME) {
        Some(toml::Value::String(_)) => section
            .opt_choice(NAME, &[("risk-averse", Threshold::RiskAverse), ("risk-prone", Threshold::RiskProne)]),
        // Below 0 everything is uploaded, at 1 nothing is: both ends of a sweep are useful.
        _ => Ok(section.opt_number(NAME, -1.0..=1.0)?.map(|number| Threshold::Fixed(number as f32))),
    }
}

fn payload(section: &Section<'_>) -> Result<PayloadOverrides, ConfigError> {
    let bits = match section.opt_integer::<u64>("bits", 8..=32)? {
        None => None,
        Some(8) => Some(ProbabilityBits::B8),
        Some(16) => Some(ProbabilityBits::B16),
        Some(32) => Some(ProbabilityBits::B32),
        Some(other) => return Err(section.unknown_name("bits", &other.to_string(), "8, 16, 32".to_owned())),
    };
    let payload = PayloadOverrides {
        form: section.opt_choice(
            "form",
            &[
                ("full", Form::Full),
                ("top-k", Form::TopK),
                ("sparse-exact", Form::SparseExact),
                ("token-only", Form::TokenOnly),
            ],
        )?,
        k: section.opt_integer("k", 1..=1_000_000)?,
        theta: section.opt_number("theta", 0.0..=1.0)?.map(|number| number as f32),
        bits,
    };
    if payload.k.is_some() && payload.theta.is_some() {
        return Err(section.conflict("theta", "cannot stand beside k: each says how many entries are kept"));
    }
    if matches!(payload.form, Some(Form::Full | Form::TokenOnly)) && (payload.k.is_some() || payload.theta.is_some()) {
        return Err(section.conflict("form", "k and theta belong to top-k and sparse-exact only"));
    }
    Ok(payload)
}
