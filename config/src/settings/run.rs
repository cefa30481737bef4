//! `[run]`: sizes and sampling.

use serde::{Deserialize, Serialize};
use specfleet_engine::device::{OnRefused, OnUnreachable};
use specfleet_engine::method::Sampling;
use specfleet_engine::prompt::TooLong;
use specfleet_engine::time::Span;

use crate::ConfigError;
use crate::read::Section;

/// Most verifier replicas of a pool.
pub(super) const MOST_VERIFIERS: u64 = 4_096;

/// Most passes of a run.
const MOST_PASSES: u64 = 1_000;

/// Sizes and sampling of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSection {
    /// Every random draw of the run comes from it.
    pub seed: u64,
    /// Passes over all methods with the same seed, 1 to 1,000. Their tokens are equal; what differs is what the host adds.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repeat: u16,
    /// Passes over all methods with seeds of their own, `seed`, `seed` + 1, …; 1 to 1,000. Not together with `repeat`.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub seeds: u16,
    /// Passes before all others that no figure counts, 0 to 100.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warmup: u16,
    /// Devices of the fleet, 1 to 1,000,000.
    pub devices: u32,
    /// Verifier replicas of the pool, 1 to 4,096. A live run has a bound of its own.
    pub verifiers: u16,
    /// Most tokens of a generation, at least 1.
    pub max_new_tokens: u32,
    /// How tokens are drawn, by drafter and verifier alike.
    pub sampling: Sampling,
    /// What a device does while the pool is out of reach.
    pub on_unreachable: OnUnreachable,
    /// From when on the pool counts as out of reach.
    pub unreachable_after: Span,
    /// What a device does with an upload that the pool refuses for now.
    pub on_refused: OnRefused,
    /// What is done with prompts that leave no room for an answer. Not in the canonical text where it is what a run does by
    /// itself, so that scenarios keep their hashes.
    #[serde(default, skip_serializing_if = "TooLong::is_default")]
    pub too_long: TooLong,
}

impl RunSection {
    pub(super) fn read(section: &Section<'_>) -> Result<RunSection, ConfigError> {
        // TOML's integers end here.
        let last = i64::MAX as u64;
        let seed = section.integer("seed", 0..=last, 1)?;
        let (repeat, seeds) =
            (section.integer("repeat", 1..=MOST_PASSES, 1)?, section.integer("seeds", 1..=MOST_PASSES, 1)?);
        if repeat > 1 && seeds > 1 {
            return Err(
                section.conflict("seeds", "has no use with repeat: passes have one seed, or each its own".to_owned())
            );
        }
        if seed > last - u64::from(seeds - 1) {
            return Err(section.conflict("seeds", format!("seed {seed} and those behind it would pass {last}")));
        }
        Ok(RunSection {
            seed,
            repeat,
            seeds,
            warmup: section.integer("warmup", 0..=100, 0)?,
            devices: section.integer("devices", 1..=1_000_000, 16)?,
            verifiers: section.integer("verifiers", 1..=MOST_VERIFIERS, 2)?,
            max_new_tokens: section.integer("max_new_tokens", 1..=1_000_000, 96)?,
            sampling: Sampling {
                temperature: temperature(section)?,
                top_k: section.integer("top_k", 0..=1_000_000, 0)?,
                top_p: section.number("top_p", 0.001..=1.0, 1.0)? as f32,
            },
            on_unreachable: section
                .opt_choice(
                    "on_unreachable",
                    &[("wait", OnUnreachable::Wait), ("local", OnUnreachable::Local), ("fail", OnUnreachable::Fail)],
                )?
                .unwrap_or(OnUnreachable::Wait),
            unreachable_after: section.millis("unreachable_after_ms", 1.0..=3_600_000.0, 2_000.0)?,
            on_refused: section
                .opt_choice(
                    "on_refused",
                    &[("retry", OnRefused::Retry), ("wait", OnRefused::Wait), ("local", OnRefused::Local)],
                )?
                .unwrap_or(OnRefused::Retry),
            too_long: section
                .opt_choice(
                    "too_long",
                    &[("refuse", TooLong::Refuse), ("skip", TooLong::Skip), ("truncate", TooLong::Truncate)],
                )?
                .unwrap_or_default(),
        })
    }

    /// Passes over all methods that figures count.
    pub fn passes(&self) -> u16 {
        self.repeat.max(self.seeds)
    }

    /// The seed of a pass.
    pub fn seed_of(&self, pass: u16) -> u64 {
        if self.seeds > 1 { self.seed + u64::from(pass) } else { self.seed }
    }
}

/// Serde wants functions for defaults and for what is left out, so that older scenarios keep their digests.
fn one() -> u16 {
    1
}

fn is_one(passes: &u16) -> bool {
    *passes == 1
}

fn is_zero(passes: &u16) -> bool {
    *passes == 0
}

fn temperature(section: &Section<'_>) -> Result<f32, ConfigError> {
    const NAME: &str = "temperature";
    let temperature = section.number(NAME, 0.0..=5.0, 1.0)?;
    // Between the two, logits divided by the temperature would overflow.
    if temperature > 0.0 && temperature < 0.001 {
        return Err(section.out_of_range(NAME, &temperature, "must be 0 (greedy) or lie in 0.001 to 5"));
    }
    Ok(temperature as f32)
}
