//! The rule of `price` \[ours, method.md §4\]: upload iff r(u)·w(I) ≥ λ_link + λ_pool.
//!
//! Left stands the share of drafts like this one that the verifier would reject, weighed by how important the place is;
//! right stands what asking costs now, in the same unit: risk that the scenario accepts for it.

use super::{GateReason, Signals};
use crate::method::PriceRule;
use crate::time::Span;

impl PriceRule {
    /// Whether a draft is worth `price` = λ_link + λ_pool. In doubt (a signal is NaN) the verifier is asked.
    pub(super) fn weigh(&self, signals: &Signals, price: f32) -> GateReason {
        let worth = self.risk(signals.statistic) * self.weight(signals.importance);
        if worth < price { GateReason::TooDear } else { GateReason::Worth }
    }

    /// r(u) = clip(a·u + b, 0, 1).
    pub fn risk(&self, u: f32) -> f32 {
        (self.a * u + self.b).clamp(0.0, 1.0)
    }

    /// w(I): the share of the calibration's positions that were less important, from 0 to 1, by linear interpolation
    /// between its percentiles. NaN of NaN.
    pub fn weight(&self, importance: f32) -> f32 {
        if importance.is_nan() {
            return f32::NAN;
        }
        let last = self.percentiles.len() - 1;
        let above = self.percentiles.partition_point(|&percentile| percentile <= importance);
        if above == 0 {
            0.0
        } else if above > last {
            1.0
        } else {
            let (low, high) = (self.percentiles[above - 1], self.percentiles[above]);
            ((above - 1) as f32 + (importance - low) / (high - low)) / last as f32
        }
    }

    /// λ_link = ω_E·E_up + ω_T·T_up, of an uplink's joules and seconds.
    pub fn link_price(&self, joules: f64, seconds: f64) -> f32 {
        (f64::from(self.risk_per_joule) * joules + f64::from(self.risk_per_second) * seconds) as f32
    }

    /// λ_pool as it counts `age` after it was announced: half of it every half-life.
    pub fn faded(&self, price: f32, age: Span) -> f32 {
        if age == Span::ZERO || price == 0.0 {
            return price;
        }
        price * (-(age.seconds() / self.half_life.seconds())).exp2() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Estimator, ImportanceRule, ImportanceStatistic};
    use proptest::prelude::*;

    fn rule() -> PriceRule {
        PriceRule {
            estimator: Estimator::Expected,
            a: 0.8,
            b: -0.1,
            importance: ImportanceRule { statistic: ImportanceStatistic::Concentration, layer: 0, kappa: 0.0 },
            percentiles: std::array::from_fn(|twentieth| (twentieth as f32 / 20.0).powi(2)),
            risk_per_joule: 2.0,
            risk_per_second: 3.0,
            half_life: Span::from_millis(500),
        }
    }

    fn signals(statistic: f32, importance: f32) -> Signals {
        Signals { statistic, importance, importance_threshold: f32::NAN, draft_probability: 0.5, gate_draw: 0.5 }
    }

    #[test]
    fn the_parts_are_those_of_the_formula() {
        let rule = rule();
        assert!((rule.risk(0.5) - 0.3).abs() < 1e-6);
        assert_eq!((rule.risk(0.0), rule.risk(2.0)), (0.0, 1.0));
        assert!((rule.link_price(0.01, 0.02) - 0.08).abs() < 1e-6);
        assert_eq!(rule.faded(0.4, Span::ZERO), 0.4);
        assert!((rule.faded(0.4, Span::from_millis(500)) - 0.2).abs() < 1e-6);
        assert!((rule.faded(0.4, Span::from_millis(1_500)) - 0.05).abs() < 1e-6);
        // The value at the k-th of 20 percentiles has the weight k/20.
        for (k, &value) in rule.percentiles.iter().enumerate() {
            assert!((rule.weight(value) - k as f32 / 20.0).abs() < 1e-5);
        }
        assert_eq!((rule.weight(-1.0), rule.weight(7.0)), (0.0, 1.0));
    }

    #[test]
    fn equal_percentiles_are_no_trap() {
        let flat = PriceRule { percentiles: [0.5; 21], ..rule() };
        assert_eq!((flat.weight(0.4), flat.weight(0.5), flat.weight(0.6)), (0.0, 1.0, 1.0));
        let step = PriceRule { percentiles: std::array::from_fn(|k| if k < 10 { 0.0 } else { 1.0 }), ..rule() };
        assert!((step.weight(0.5) - 9.5 / 20.0).abs() < 1e-6);
    }

    #[test]
    fn in_doubt_the_verifier_is_asked() {
        for (statistic, importance, price) in
            [(f32::NAN, 0.5, 0.9), (0.1, f32::NAN, 0.9), (0.1, 0.1, f32::NAN), (0.0, 0.0, 0.0)]
        {
            assert_eq!(rule().weigh(&signals(statistic, importance), price), GateReason::Worth);
        }
    }

    proptest! {
        /// More risk, more importance or a lower price never turns an upload into a skip.
        #[test]
        fn monotone(u in 0.0f32..1.0, i in 0.0f32..1.0, price in 0.0f32..1.0, more in 0.0f32..1.0) {
            let rule = rule();
            let uploads = |u, i, price| rule.weigh(&signals(u, i), price).uploads();
            prop_assert!((0.0..=1.0).contains(&rule.weight(i)));
            if uploads(u, i, price) {
                prop_assert!(uploads(u + more, i, price));
                prop_assert!(uploads(u, i + more, price));
                prop_assert!(uploads(u, i, price * more));
            } else {
                prop_assert!(!uploads(u, i, price + more));
            }
        }
    }
}
