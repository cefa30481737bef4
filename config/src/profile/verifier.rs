//! Verifier profiles.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use specfleet_engine::cost::{ModelSize, Roofline};
use specfleet_engine::device::energy::VerifierProfile;
use specfleet_engine::time::Span;

use super::device::WATTS;
use crate::ConfigError;
use crate::read::Section;

/// Operations, or bytes, per second.
const PER_SECOND: RangeInclusive<f64> = 1e3..=1e21;

/// How fast one replica is declared to be, for batches whose time is computed rather than measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifierSpeed {
    /// Floating-point operations per second that are reached in practice.
    pub flops_per_second: f64,
    /// Memory traffic in bytes per second that is reached in practice.
    pub bytes_per_second: f64,
    /// Launch and scheduling time of a batch.
    pub overhead: Span,
}

impl VerifierSpeed {
    /// The cost of batches of this model on this machine.
    pub fn roofline(&self, model: ModelSize) -> Roofline {
        Roofline {
            flops_per_second: self.flops_per_second,
            bytes_per_second: self.bytes_per_second,
            overhead: self.overhead,
            model,
        }
    }
}

/// Memory of one replica.
const MEMORY: RangeInclusive<u64> = 1_000_000..=1_000_000_000_000_000;

/// What a profile says about one replica.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeclaredVerifier {
    pub(crate) profile: VerifierProfile,
    /// How fast it is, if that is declared.
    pub(crate) speed: Option<VerifierSpeed>,
    /// Its memory in bytes, if that is declared.
    pub(crate) memory_bytes: Option<u64>,
}

/// Reads a verifier profile.
pub(super) fn read(section: &Section<'_>) -> Result<DeclaredVerifier, ConfigError> {
    let profile = VerifierProfile {
        name: super::name_of(section)?,
        source: section.required_text("source")?.to_owned(),
        batch_watts: section.required_number("batch_watts", WATTS)?,
        idle_watts: section.required_number("idle_watts", WATTS)?,
    };
    let memory_bytes = section.opt_integer("memory_bytes", MEMORY)?;
    Ok(DeclaredVerifier { profile, speed: speed(section)?, memory_bytes })
}

fn speed(section: &Section<'_>) -> Result<Option<VerifierSpeed>, ConfigError> {
    let flops = section.opt_number("flops_per_second", PER_SECOND)?;
    let bytes = section.opt_number("bytes_per_second", PER_SECOND)?;
    let overhead = section.opt_seconds("overhead_seconds", 0.0..=60.0)?;
    if flops.is_none() && bytes.is_none() && overhead.is_none() {
        return Ok(None);
    }
    Ok(Some(VerifierSpeed {
        flops_per_second: section.required_number("flops_per_second", PER_SECOND)?,
        bytes_per_second: section.required_number("bytes_per_second", PER_SECOND)?,
        overhead: overhead.unwrap_or(Span::ZERO),
    }))
}
