//! `[method]` and `[methods.NAME]` to the engine's [`MethodOverrides`].

use specfleet_engine::calibration::{MethodOverrides, PayloadName, ThresholdChoice, ThresholdName};
use specfleet_engine::method::{Estimator, ImportanceStatistic, Join, MAX_BLOCK, ProbabilityBits};

use crate::ConfigError;
use crate::read::Section;

/// One table of overrides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MethodTable {
    overrides: MethodOverrides,
    /// Whether it asks for `ui-hlm`'s upload rate. That is also what a preset does by itself; here it matters because it
    /// takes back a `probability` of the general table.
    matches: bool,
}

impl MethodTable {
    /// Reads a `[method]` or `[methods.NAME]` table.
    pub(crate) fn read(section: &Section<'_>) -> Result<MethodTable, ConfigError> {
        let number = |name, range| Ok::<_, ConfigError>(section.opt_number(name, range)?.map(|number| number as f32));
        let payload = section.section("payload")?;
        let overrides = MethodOverrides {
            uncertainty_threshold: threshold(section)?,
            estimator: section
                .opt_choice("estimator", &[("sampled", Estimator::Sampled), ("expected", Estimator::Expected)])?,
            statistic: section.opt_choice(
                "statistic",
                &[("concentration", ImportanceStatistic::Concentration), ("lookahead", ImportanceStatistic::Lookahead)],
            )?,
            layer: section.opt_integer("layer", 0..=255)?,
            kappa: number("kappa", -10.0..=10.0)?,
            join: section.opt_choice("join", &[("and", Join::And), ("or", Join::Or)])?,
            probability: number("probability", 0.0..=1.0)?,
            payload: payload.opt_choice(
                "form",
                &[
                    ("full", PayloadName::Full),
                    ("top-k", PayloadName::TopK),
                    ("sparse-exact", PayloadName::SparseExact),
                    ("token-only", PayloadName::TokenOnly),
                ],
            )?,
            bits: bits(&payload)?,
            k: payload.opt_integer("k", 1..=1_000_000)?,
            // Below 1 by enough that rounding to f32 stays below 1.
            tail_mass: payload.opt_number("theta", 0.0..=0.999)?.map(|number| number as f32),
            block: section.opt_integer("block", 1..=MAX_BLOCK as u64)?,
            bonus: section.opt_flag("bonus")?,
            draft_ahead: section.opt_flag("draft_ahead")?,
            entropy_threshold: number("entropy_threshold", 0.0..=20.0)?,
            max_probability_threshold: number("max_probability_threshold", 0.0..=1.0)?,
            risk_per_joule: number("risk_per_joule", 0.0..=1e6)?,
            risk_per_second: number("risk_per_second", 0.0..=1e6)?,
            price_half_life: section.opt_millis("price_half_life_ms", 1.0..=3_600_000.0)?,
        };
        let matches = section.opt_choice("match", &[("ui-hlm", ())])?.is_some();
        if matches && overrides.probability.is_some() {
            return Err(section.conflict("match", "cannot stand beside probability: each gives the upload rate"));
        }
        check_keep(&payload, &overrides)?;
        Ok(MethodTable { overrides, matches })
    }

    /// What this table sets, and where it says nothing, what `general` sets.
    pub(crate) fn over(&self, general: &MethodTable) -> MethodOverrides {
        let (own, other) = (self.overrides, general.overrides);
        // Two keys that exclude each other are taken together from one table.
        let own_keep = own.k.is_some() || own.tail_mass.is_some();
        let keep = if own_keep { own } else { other };
        MethodOverrides {
            uncertainty_threshold: own.uncertainty_threshold.or(other.uncertainty_threshold),
            estimator: own.estimator.or(other.estimator),
            statistic: own.statistic.or(other.statistic),
            layer: own.layer.or(other.layer),
            kappa: own.kappa.or(other.kappa),
            join: own.join.or(other.join),
            probability: if self.matches { None } else { own.probability.or(other.probability) },
            payload: own.payload.or(other.payload),
            bits: own.bits.or(other.bits),
            k: keep.k,
            tail_mass: keep.tail_mass,
            block: own.block.or(other.block),
            bonus: own.bonus.or(other.bonus),
            draft_ahead: own.draft_ahead.or(other.draft_ahead),
            entropy_threshold: own.entropy_threshold.or(other.entropy_threshold),
            max_probability_threshold: own.max_probability_threshold.or(other.max_probability_threshold),
            risk_per_joule: own.risk_per_joule.or(other.risk_per_joule),
            risk_per_second: own.risk_per_second.or(other.risk_per_second),
            price_half_life: own.price_half_life.or(other.price_half_life),
        }
    }
}

fn threshold(section: &Section<'_>) -> Result<Option<ThresholdChoice>, ConfigError> {
    const NAME: &str = "uncertainty_threshold";
    if let Some(toml::Value::String(_)) = section.value(NAME) {
        let names = [("risk-averse", ThresholdName::RiskAverse), ("risk-prone", ThresholdName::RiskProne)];
        return Ok(section.opt_choice(NAME, &names)?.map(ThresholdChoice::Named));
    }
    Ok(section.opt_number(NAME, 0.0..=1.0)?.map(|number| ThresholdChoice::Number(number as f32)))
}

fn bits(payload: &Section<'_>) -> Result<Option<ProbabilityBits>, ConfigError> {
    const NAME: &str = "bits";
    match payload.opt_integer::<u64>(NAME, 8..=32)? {
        None => Ok(None),
        Some(8) => Ok(Some(ProbabilityBits::B8)),
        Some(16) => Ok(Some(ProbabilityBits::B16)),
        Some(32) => Ok(Some(ProbabilityBits::B32)),
        Some(other) => Err(payload.out_of_range(NAME, &other, "must be 8, 16 or 32")),
    }
}

fn check_keep(payload: &Section<'_>, overrides: &MethodOverrides) -> Result<(), ConfigError> {
    let (k, theta) = (overrides.k.is_some(), overrides.tail_mass.is_some());
    if k && theta {
        return Err(payload.conflict("theta", "cannot stand beside k: each says how many entries are kept"));
    }
    if (k || theta) && matches!(overrides.payload, Some(PayloadName::Full | PayloadName::TokenOnly)) {
        return Err(payload.conflict("form", "k and theta belong to top-k and sparse-exact only"));
    }
    Ok(())
}
