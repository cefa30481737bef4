//! Device profiles.

use std::ops::RangeInclusive;

use specfleet_engine::device::energy::{DeviceCost, DeviceProfile, StepCost};
use specfleet_engine::time::Span;

use crate::ConfigError;
use crate::read::Section;

pub(super) const WATTS: RangeInclusive<f64> = 0.0..=100_000.0;
/// Seconds of one step.
const SECONDS: RangeInclusive<f64> = 0.0..=60.0;
/// Joules of one step.
const JOULES: RangeInclusive<f64> = 0.0..=100_000.0;

#[derive(Clone, Copy)]
enum DeviceKind {
    Declared,
    Host,
}

/// Reads a device profile: seconds and joules per step, or the power of this machine.
pub(super) fn read(section: &Section<'_>) -> Result<DeviceProfile, ConfigError> {
    let name = super::name_of(section)?;
    let source = section.required_text("source")?.to_owned();
    let kind = section.required_choice("kind", &[("declared", DeviceKind::Declared), ("host", DeviceKind::Host)])?;
    let cost = match kind {
        DeviceKind::Declared => DeviceCost::Declared {
            draft: step(section, "draft_seconds", "draft_joules")?,
            prefill: step(section, "prefill_seconds", "prefill_joules")?,
            uncertainty: step(section, "uncertainty_seconds", "uncertainty_joules")?,
            importance: step(section, "importance_seconds", "importance_joules")?,
        },
        DeviceKind::Host => DeviceCost::Host { active_watts: section.required_number("active_watts", WATTS)? },
    };
    Ok(DeviceProfile { name, source, cost, idle_watts: section.required_number("idle_watts", WATTS)? })
}

fn step(section: &Section<'_>, seconds: &str, joules: &str) -> Result<StepCost, ConfigError> {
    Ok(StepCost {
        span: Span::from_seconds(section.required_number(seconds, SECONDS)?),
        // At most 1e14, far inside u64.
        nanojoules: (section.required_number(joules, JOULES)? * 1e9).round() as u64,
    })
}
