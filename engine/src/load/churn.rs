//! When devices join and leave.

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::random::{DrawKey, Purpose};
use crate::time::{Span, Time};

/// When devices join and leave, within each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Churn {
    /// Devices join evenly over this time; zero has all of them there from the start.
    pub join_over: Span,
    /// Mean of the time that a device stays, which is exponential; `None` stays to the end.
    pub stay: Option<Span>,
}

impl Churn {
    /// When `device` of `devices` joins, since the start of the phase.
    pub fn joins(&self, device: DeviceId, devices: u32) -> Time {
        let share = u128::from(self.join_over.0) * u128::from(device.0) / u128::from(devices.max(1));
        Time(share as u64)
    }

    /// When it leaves, since the start of the phase; `None` if it stays.
    pub fn leaves(&self, seed: u64, device: DeviceId, devices: u32) -> Option<Time> {
        let stay = self.stay?;
        let key = DrawKey { seed, prompt: device.0, repetition: 0, position: 1, epoch: 0 };
        Some(self.joins(device, devices) + key.draws(Purpose::Load).exponential(stay))
    }
}
