//! `pool.cost`: what a verification batch is charged, live and simulated alike.

use serde::{Deserialize, Serialize};
use specfleet_engine::cost::{BatchCost, Roofline};
use specfleet_engine::time::Span;

use crate::ConfigError;
use crate::profile::{self, VerifierSpeed};
use crate::read::Section;

/// Where the time of a verification batch, and with it its energy, comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum CostChoice {
    /// The scenario does not say: from the pair's calibration if it has batch costs; else a live run measures, and a
    /// simulation is refused.
    Default,
    /// As the verifiers of a live run measure it. A simulation has nothing to measure.
    Measured,
    /// From the calibration, which fitted it on a live run.
    Calibrated,
    /// From a declared model on the pool's declared verifier. In a simulation that is an *emulated* pair.
    Roofline {
        /// Where the model's sizes come from.
        source: String,
        roofline: Roofline,
    },
    /// The same for every batch.
    Fixed {
        /// Time of a batch.
        span: Span,
    },
}

/// The keys, in `[pool]`; in `[simulate]` they are older names.
const KEYS: [&str; 3] = ["cost", "batch_ms", "verifier_model"];

impl CostChoice {
    /// The cost, where the scenario declares it.
    pub fn declared(&self) -> Option<BatchCost> {
        match self {
            CostChoice::Default | CostChoice::Measured | CostChoice::Calibrated => None,
            CostChoice::Roofline { roofline, .. } => Some(BatchCost::Roofline(roofline.clone())),
            CostChoice::Fixed { span } => Some(BatchCost::Fixed { span: *span }),
        }
    }

    /// The declared model on the declared verifier, if batches are computed from them.
    pub fn roofline(&self) -> Option<&Roofline> {
        match self {
            CostChoice::Roofline { roofline, .. } => Some(roofline),
            CostChoice::Default | CostChoice::Measured | CostChoice::Calibrated | CostChoice::Fixed { .. } => None,
        }
    }

    /// Reads the keys from `[pool]`, or from `[simulate]` where a scenario has their older names.
    pub(super) fn read(
        pool: &Section<'_>,
        simulate: &Section<'_>,
        profile: &str,
        speed: Option<VerifierSpeed>,
    ) -> Result<CostChoice, ConfigError> {
        let given = |section: &Section<'_>| KEYS.into_iter().find(|key| section.value(key).is_some());
        let (newer, older) = (given(pool), given(simulate));
        match (newer, older) {
            (Some(newer), Some(older)) => {
                Err(pool.conflict(newer, format!("is given beside simulate.{older}, its table's older name: keep one")))
            }
            (None, Some(_)) => read_in(simulate, "simulate", "measured", profile, speed),
            _ => read_in(pool, "pool", "calibrated", profile, speed),
        }
    }
}

/// `table`: the section's name. `usual`: what it calls the cost of a calibration.
fn read_in(
    section: &Section<'_>,
    table: &str,
    usual: &str,
    profile: &str,
    speed: Option<VerifierSpeed>,
) -> Result<CostChoice, ConfigError> {
    #[derive(Clone, Copy)]
    enum Name {
        Measured,
        Calibrated,
        Roofline,
        Fixed,
    }
    // Under its older name the cost of a calibration was called what it had been fitted on.
    let measured = if table == "simulate" { Name::Calibrated } else { Name::Measured };
    let names = [
        ("measured", measured),
        ("calibrated", Name::Calibrated),
        ("roofline", Name::Roofline),
        ("fixed", Name::Fixed),
    ];
    let name = section.opt_choice("cost", &names)?;
    let because = |name: &str| format!("{table}.cost = \"{name}\"");
    match name {
        None => {
            section.refuse_unused(&["batch_ms", "verifier_model"], &because(usual))?;
            Ok(CostChoice::Default)
        }
        Some(Name::Measured) => {
            section.refuse_unused(&["batch_ms", "verifier_model"], &because("measured"))?;
            Ok(CostChoice::Measured)
        }
        Some(Name::Calibrated) => {
            section.refuse_unused(&["batch_ms", "verifier_model"], &because(usual))?;
            Ok(CostChoice::Calibrated)
        }
        Some(Name::Roofline) => {
            section.refuse_unused(&["batch_ms"], &because("roofline"))?;
            let model = profile::model(section, "verifier_model")?;
            let speed = speed.ok_or_else(|| {
                let problem = format!(
                    "\"roofline\" needs flops_per_second and bytes_per_second in pool.profile, and {profile:?} has none"
                );
                section.conflict("cost", problem)
            })?;
            Ok(CostChoice::Roofline { source: model.source, roofline: speed.roofline(model.size) })
        }
        Some(Name::Fixed) => {
            section.refuse_unused(&["verifier_model"], &because("fixed"))?;
            let millis = section.opt_millis("batch_ms", 0.001..=600_000.0)?;
            let expected = "the time of a batch, 0.001 to 600000";
            Ok(CostChoice::Fixed { span: millis.ok_or_else(|| section.missing("batch_ms", expected.into()))? })
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::scenario::tests::{refused, valid};

    fn cost(text: &str) -> CostChoice {
        valid(text).pool.cost
    }

    #[test]
    fn one_key_has_two_names() {
        assert_eq!(cost(""), CostChoice::Default);
        assert_eq!(cost("[pool]\ncost = \"measured\""), CostChoice::Measured);
        assert_eq!(cost("[pool]\ncost = \"calibrated\""), CostChoice::Calibrated);
        assert_eq!(cost("[simulate]\ncost = \"measured\""), CostChoice::Calibrated);
        assert_eq!(cost("[simulate]\ncost = \"calibrated\""), CostChoice::Calibrated);
        let fixed = CostChoice::Fixed { span: Span::from_seconds(0.0025) };
        assert_eq!(cost("[pool]\ncost = \"fixed\"\nbatch_ms = 2.5"), fixed);
        assert_eq!(cost("[simulate]\ncost = \"fixed\"\nbatch_ms = 2.5"), fixed);
    }

    #[test]
    fn both_names_at_once_are_refused() {
        refused(
            "[pool]\ncost = \"measured\"\n[simulate]\ncost = \"fixed\"\nbatch_ms = 2",
            expect![["my.toml: pool.cost: is given beside simulate.cost, its table's older name: keep one"]],
        );
        refused(
            "[pool]\nbatch_ms = 3",
            expect![[r#"my.toml: pool.batch_ms: has no use with pool.cost = "calibrated""#]],
        );
        refused(
            "[pool]\ncost = \"free\"",
            expect![[r#"my.toml: pool.cost = "free" is not known; valid: measured, calibrated, roofline, fixed"#]],
        );
    }
}
