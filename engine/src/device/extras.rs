//! What only some settings need of a device: an account of its battery, the outages of its link, the pool's last price.

use super::energy::nanojoules;
use super::machine::NEVER;
use super::settings::{DeviceSettings, Outages};
use crate::id::DeviceId;
use crate::method::{Gate, PriceRule};
use crate::random::{DrawKey, Purpose};
use crate::time::{Span, Time};

/// The conditions under which few devices run: a battery, outages of the link, the last price.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceConditions {
    /// What finished generations, their radio included, and the rest between them have drawn, in nanojoules.
    drawn: u64,
    /// Since when the device rests; [`NEVER`] before it joins and while a generation runs.
    resting: Time,
    /// The outage that comes next or lasts; `None` before the device joins, and if there are none.
    outage: Option<Outage>,
    /// λ_pool as last announced, and when.
    price: f32,
    announced: Time,
}

/// One loss of the link. The n-th of a device is a fact of the scenario, whenever the device joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    number: u32,
    /// When the link is lost.
    pub(super) from: Time,
    /// When it comes back.
    pub(super) to: Time,
}

impl DeviceConditions {
    /// `None` where no setting needs any of it.
    pub(super) fn of(settings: &DeviceSettings) -> Option<DeviceConditions> {
        let outages = settings.outages.is_some() && settings.connects();
        let needed = settings.battery_nanojoules > 0 || outages || matches!(settings.method.gate, Gate::Price(_));
        needed.then_some(DeviceConditions { drawn: 0, resting: NEVER, outage: None, price: 0.0, announced: Time::ZERO })
    }

    /// The device is there from now on.
    pub(super) fn joined(&mut self, settings: &DeviceSettings, device: DeviceId, now: Time) {
        self.resting = now;
        let Some(outages) = settings.outages.filter(|_| settings.connects()) else { return };
        let mut outage = outages.first(settings.seed, device);
        while outage.to <= now {
            outage = outages.after(outage, settings.seed, device);
        }
        self.outage = Some(outage);
    }

    // ---- outages -----------------------------------------------------------------------------------------------

    /// The outage that comes next or lasts.
    pub(super) fn outage(&self) -> Option<Outage> {
        self.outage
    }

    /// The outage is over: looks ahead to the next.
    pub(super) fn next_outage(&mut self, settings: &DeviceSettings, device: DeviceId) {
        self.outage = settings.outages.zip(self.outage).map(|(all, last)| all.after(last, settings.seed, device));
    }

    // ---- battery -----------------------------------------------------------------------------------------------

    /// A generation starts: books the rest before it.
    pub(super) fn rested(&mut self, settings: &DeviceSettings, now: Time) {
        let rest = now.since(std::mem::replace(&mut self.resting, NEVER));
        self.drawn = self.drawn.saturating_add(nanojoules(settings.profile.idle_watts, rest));
    }

    /// A generation is over and has drawn this much.
    pub(super) fn worked(&mut self, now: Time, nanojoules: u64) {
        self.drawn = self.drawn.saturating_add(nanojoules);
        self.resting = now;
    }

    /// What is booked, in nanojoules.
    pub(super) fn drawn(&self) -> u64 {
        self.drawn
    }

    // ---- price -------------------------------------------------------------------------------------------------

    /// The pool has announced its price.
    pub(super) fn announced(&mut self, now: Time, price: f32) {
        (self.price, self.announced) = (price, now);
    }

    /// λ_pool as far as the device still believes it.
    pub(super) fn pool_price(&self, rule: &PriceRule, now: Time) -> f32 {
        rule.faded(self.price, now.since(self.announced))
    }
}

impl Outages {
    /// The first outage of `device`.
    pub(super) fn first(&self, seed: u64, device: DeviceId) -> Outage {
        self.nth(0, Time::ZERO, seed, device)
    }

    /// The one behind `last`.
    pub(super) fn after(&self, last: Outage, seed: u64, device: DeviceId) -> Outage {
        self.nth(last.number.wrapping_add(1), last.to, seed, device)
    }

    fn nth(&self, number: u32, earliest: Time, seed: u64, device: DeviceId) -> Outage {
        let key = DrawKey { seed, prompt: device.0, repetition: 1, position: number, rejections: 0 };
        let mut draws = key.draws(Purpose::Load);
        let from = earliest + draws.exponential(self.every);
        // At least a nanosecond: an outage that ends when it begins would not be seen to end.
        let to = from + draws.exponential(self.length).max(Span(1));
        Outage { number, from, to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTAGES: Outages = Outages { every: Span::from_millis(3_000), length: Span::from_millis(200) };

    #[test]
    fn gaps_and_lengths_are_exponential() {
        let (mut gaps, mut lengths) = (Vec::new(), Vec::new());
        for device in 0..20 {
            let mut outage = OUTAGES.first(1, DeviceId(device));
            for _ in 0..2_000 {
                lengths.push(outage.to.since(outage.from).seconds());
                let next = OUTAGES.after(outage, 1, DeviceId(device));
                gaps.push(next.from.since(outage.to).seconds());
                outage = next;
            }
        }
        for (values, mean) in [(gaps, 3.0), (lengths, 0.2)] {
            let n = values.len() as f64;
            let found = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - found).powi(2)).sum::<f64>() / n;
            assert!((found / mean - 1.0).abs() < 0.02, "mean {found}, not {mean}");
            assert!((variance / (mean * mean) - 1.0).abs() < 0.06, "an exponential's variance is its mean squared");
        }
    }

    #[test]
    fn outages_differ_by_device_and_seed() {
        let of = |seed, device| OUTAGES.first(seed, DeviceId(device));
        assert_eq!(of(1, 2), of(1, 2));
        assert_ne!(of(1, 2), of(1, 3));
        assert_ne!(of(1, 2), of(2, 2));
    }
}
