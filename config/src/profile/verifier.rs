//! Verifier profiles.

use specfleet_engine::device::energy::VerifierProfile;

use super::device::WATTS;
use crate::ConfigError;
use crate::read::Section;

/// Reads a verifier profile: the power of one replica.
pub(super) fn read(section: &Section<'_>) -> Result<VerifierProfile, ConfigError> {
    Ok(VerifierProfile {
        name: section.required_text("name")?.to_owned(),
        source: section.required_text("source")?.to_owned(),
        batch_watts: section.required_number("batch_watts", WATTS)?,
        idle_watts: section.required_number("idle_watts", WATTS)?,
    })
}
