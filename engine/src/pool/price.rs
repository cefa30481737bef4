//! The congestion price λ_pool (method.md §4 [ours]): once per period, λ ← max(0, λ + η(ρ − ρ*)).
//!
//! ρ is the work that arrived in the period (uploads that were refused for want of room too, and each further token of
//! texts that the pool writes) over what the verifiers that take work could do in it, by the learned pace of full batches;
//! with no verifier there, over what one could do. While no batch has ever been done nothing is known, and λ stays.
//!
//! Nobody sees the price but in answers, so that periods are made up for when the next input comes; those in which nothing
//! arrived all at once.

use super::settings::PriceUpdate;
use crate::time::{Span, Time};

#[derive(Debug)]
pub(super) struct Price {
    update: PriceUpdate,
    lambda: f64,
    /// Tokens in the period at hand.
    offered: u64,
    end: Time,
}

impl Price {
    pub(super) fn new(now: Time, update: PriceUpdate) -> Price {
        let update = PriceUpdate { period: update.period.max(Span(1)), ..update };
        Price { update, lambda: 0.0, offered: 0, end: now + update.period }
    }

    pub(super) fn value(&self) -> f32 {
        self.lambda as f32
    }

    pub(super) fn offer(&mut self, tokens: u32) {
        self.offered = self.offered.saturating_add(u64::from(tokens));
    }

    /// Whether a period has ended by `now`.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.update.step != 0.0 && now >= self.end
    }

    /// Ends all periods that are over by `now`. `pace`: tokens per second of all verifiers together, if known.
    pub(super) fn catch_up(&mut self, now: Time, pace: Option<f64>) {
        if !self.is_due(now) {
            return;
        }
        let period = self.update.period;
        let over = now.since(self.end).0 / period.0 + 1;
        if let Some(pace) = pace {
            self.step(self.offered as f64 / (pace * period.seconds()), 1);
            // Nothing arrived in the others.
            self.step(0.0, over - 1);
        }
        self.offered = 0;
        self.end = self.end + Span(period.0.saturating_mul(over));
    }

    /// `periods` of the same load. Below 0 it stays at 0, so that they can be taken in one step if λ falls, and only then.
    fn step(&mut self, load: f64, periods: u64) {
        let change = f64::from(self.update.step) * (load - f64::from(self.update.target_load));
        self.lambda = (self.lambda + change * periods as f64).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against one step per period.
        #[test]
        fn periods_are_made_up_for(arrivals in proptest::collection::vec((0u64..1000, 0u32..50), 0..100)) {
            let update = PriceUpdate { step: 0.5, target_load: 0.8, period: Span(100) };
            let mut price = Price::new(Time(7), update);
            // 1 token per ns.
            let pace = Some(1e9);
            let (mut naive, mut offered, mut end, mut now) = (0.0f64, 0u32, 107, 7);
            for (elapsed, tokens) in arrivals {
                now += elapsed;
                while end <= now {
                    naive = (naive + 0.5 * (f64::from(offered) / 100.0 - f64::from(0.8f32))).max(0.0);
                    (offered, end) = (0, end + 100);
                }
                price.catch_up(Time(now), pace);
                prop_assert!((price.lambda - naive).abs() < 1e-9, "{} {naive}", price.lambda);
                price.offer(tokens);
                offered += tokens;
            }
        }
    }

    #[test]
    fn a_step_of_zero_and_an_unknown_pace_keep_it() {
        let update = PriceUpdate { step: 0.0, target_load: 0.0, period: Span::ZERO };
        for (update, pace) in [(update, Some(1.0)), (PriceUpdate { step: 1.0, ..update }, None)] {
            let mut price = Price::new(Time(0), update);
            price.offer(1_000_000);
            price.catch_up(Time(1 << 40), pace);
            assert_eq!(price.value(), 0.0);
        }
    }
}
