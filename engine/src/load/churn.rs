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
    /// All devices are there from the start to the end.
    pub const NONE: Churn = Churn { join_over: Span::ZERO, stay: None };

    /// When `device` of `devices` joins, since the start of the phase.
    pub fn joins(&self, device: DeviceId, devices: u32) -> Time {
        let share = u128::from(self.join_over.0) * u128::from(device.0) / u128::from(devices.max(1));
        Time(share as u64)
    }

    /// When it leaves, since the start of the phase; `None` if it stays.
    pub fn leaves(&self, seed: u64, device: DeviceId, devices: u32) -> Option<Time> {
        let stay = self.stay?;
        let key = DrawKey { seed, prompt: device.0, repetition: 0, position: 1, rejections: 0 };
        Some(self.joins(device, devices) + key.draws(Purpose::Load).exponential(stay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHURN: Churn = Churn { join_over: Span::from_millis(1_000), stay: Some(Span::from_millis(5_000)) };

    #[test]
    fn devices_join_evenly() {
        let joins: Vec<u64> = (0..4).map(|device| CHURN.joins(DeviceId(device), 4).0).collect();
        assert_eq!(joins, [0, 250_000_000, 500_000_000, 750_000_000]);
        assert_eq!(Churn::NONE.joins(DeviceId(3), 4), Time::ZERO);
        let long = Churn { join_over: Span(u64::MAX), ..CHURN };
        assert_eq!(long.joins(DeviceId(u32::MAX - 1), u32::MAX).0 >> 32, 0xffff_fffe, "no overflow");
    }

    #[test]
    fn they_stay_for_an_exponential_time() {
        assert_eq!(Churn::NONE.leaves(1, DeviceId(0), 1), None);
        let n = 50_000;
        let stays: Vec<f64> = (0..n)
            .map(|device| {
                let device = DeviceId(device);
                CHURN.leaves(1, device, n).expect("it leaves").since(CHURN.joins(device, n)).seconds()
            })
            .collect();
        let mean = stays.iter().sum::<f64>() / f64::from(n);
        let long = stays.iter().filter(|&&stay| stay > 5.0).count() as f64 / f64::from(n);
        assert!((mean - 5.0).abs() < 0.1, "{mean}");
        assert!((long - (-1.0_f64).exp()).abs() < 0.01, "{long}");
        assert_ne!(CHURN.leaves(1, DeviceId(0), n), CHURN.leaves(2, DeviceId(0), n));
    }
}
