//! `[device]`: the fleet's profiles and patience.

use serde::{Deserialize, Serialize};
use specfleet_engine::device::Retry;
use specfleet_engine::device::energy::DeviceProfile;
use specfleet_engine::device::link::LinkProfile;
use specfleet_engine::id::DeviceId;
use specfleet_engine::time::Span;

use crate::ConfigError;
use crate::profile;
use crate::read::Section;

/// The fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceOptions {
    /// Device profiles, at least one.
    pub profiles: Vec<DeviceProfile>,
    /// Link profiles, at least one.
    pub links: Vec<LinkProfile>,
    /// How long a device waits for a verdict before it cancels the upload and sends it again.
    pub verdict_timeout: Span,
    /// Waiting times of reconnection and of refused uploads.
    pub retry: Retry,
}

impl DeviceOptions {
    pub(super) fn read(section: &Section<'_>) -> Result<DeviceOptions, ConfigError> {
        let retry = Retry {
            first: section.millis("retry_first_ms", 1.0..=600_000.0, 10.0)?,
            last: section.millis("retry_last_ms", 1.0..=600_000.0, 1_000.0)?,
        };
        if retry.last < retry.first {
            return Err(section.conflict("retry_last_ms", "must not be below retry_first_ms"));
        }
        Ok(DeviceOptions {
            profiles: profile::devices(section, "profile", "phone")?,
            links: profile::links(section, "link", "fair")?,
            verdict_timeout: section.millis("verdict_timeout_ms", 1.0..=3_600_000.0, 10_000.0)?,
            retry,
        })
    }

    /// The link of a device: the links in turn.
    pub fn link(&self, device: DeviceId) -> &LinkProfile {
        &self.links[device.0 as usize % self.links.len()]
    }

    /// The profile of a device: one profile for each full turn of the links, so that a fleet that is large enough has
    /// every profile on every link.
    pub fn profile(&self, device: DeviceId) -> &DeviceProfile {
        &self.profiles[device.0 as usize / self.links.len() % self.profiles.len()]
    }
}
