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

/// Sizes and sampling of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunOptions {
    /// Every random draw of the run comes from it.
    pub seed: u64,
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

impl RunOptions {
    pub(super) fn read(section: &Section<'_>) -> Result<RunOptions, ConfigError> {
        Ok(RunOptions {
            // TOML's integers end here.
            seed: section.integer("seed", 0..=i64::MAX as u64, 1)?,
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
