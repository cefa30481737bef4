//! From samples to a [`Calibration`].

use std::collections::BTreeMap;

use super::statistics::{StatisticPairs, concordance, percentiles, threshold_above};
use super::{Calibration, CalibrationKey, CalibrationSample, HarmMeasure, HarmSample, ImportanceFit, RiskLine};
use crate::device::gate::ImportanceReading;
use crate::method::{Estimator, ImportanceStatistic};

/// How κ is chosen \[ours\]: the largest κ of [`KAPPA_TENTHS`] at which the positions that pass still hold this share of all
/// harm. So importance may save as many uploads as it can, on the condition that it gives up at most a tenth of what
/// uploading is for. A statistic that does not predict harm gets a low κ from this rule, and `ui-hlm` comes close to
/// `u-hlm`, which is what should happen. Where no harm was measured, κ = 0: the mean itself.
pub const HARM_KEPT_TARGET: f64 = 0.9;

/// The values that κ is chosen from, in tenths of a standard deviation.
pub const KAPPA_TENTHS: std::ops::RangeInclusive<i32> = -30..=30;

impl Calibration {
    /// Fits everything to `samples` (in the order in which they were drafted) and to the harm study.
    ///
    /// Total: without samples, or where something never varies, the figures that need it are zero or absent.
    pub fn fit(
        key: CalibrationKey,
        samples: &[CalibrationSample],
        harm: &[HarmSample],
        harm_measure: HarmMeasure,
    ) -> Calibration {
        let estimator = key.estimator;
        let u = |sample: &CalibrationSample| match estimator {
            Estimator::Expected => sample.u_expected,
            Estimator::Sampled => sample.u_sampled,
        };
        let line = RiskLine::fit(samples.iter().map(|sample| (u(sample), sample.rejection)));
        let delta = share(samples, |sample| sample.rejection > 0.0);
        let mut calibration = Calibration {
            samples: samples.len() as u64,
            harm_samples: harm.len() as u64,
            harm_measure,
            mean_rejection: mean(samples.iter().map(|sample| sample.rejection)),
            delta,
            risk_averse: line.risk_averse(),
            risk_prone: line.risk_prone(delta),
            entropy_threshold: None,
            max_probability_threshold: None,
            uncertainty_percentiles: percentiles(samples.iter().map(u).collect()),
            entropy_percentiles: percentiles(samples.iter().map(|sample| sample.entropy).collect()),
            max_probability_percentiles: percentiles(samples.iter().map(|sample| sample.max_probability).collect()),
            key,
            line,
            upload_rates: BTreeMap::new(),
            importance: importance_fits(samples, harm),
            batch_cost: None,
            host: None,
            host_methods: BTreeMap::new(),
            distributions: None,
        };
        calibration.match_rates(samples, u);
        calibration
    }

    /// Upload rates of the presets, and the thresholds that match `ui-hlm`'s.
    fn match_rates(&mut self, samples: &[CalibrationSample], u: impl Fn(&CalibrationSample) -> f32) {
        let mut rate = |name: &str, rate: f64| {
            self.upload_rates.insert(name.to_owned(), rate);
        };
        rate("slm-only", 0.0);
        for name in ["hlm", "dssd", "block"] {
            rate(name, 1.0);
        }
        let Some(threshold) = self.risk_averse.filter(|_| !samples.is_empty()) else {
            return;
        };
        let uncertain = share(samples, |sample| u(sample) > threshold);
        rate("u-hlm", uncertain);
        rate("cu-hlm", uncertain);
        let Some((statistic, layer, kappa)) = self.best_importance().map(|fit| (fit.statistic, fit.layer, fit.kappa))
        else {
            return;
        };
        let passes = |sample: &CalibrationSample| {
            let readings = readings_of(statistic, &sample.concentration, &sample.lookahead);
            readings.get(usize::from(layer)).is_none_or(|reading| reading.passes(kappa))
        };
        let uploads = samples.iter().filter(|sample| u(sample) > threshold && passes(sample)).count();
        let joint = uploads as f64 / samples.len() as f64;
        let entropy = threshold_above(samples.iter().map(|sample| sample.entropy).collect(), uploads);
        let surprise = threshold_above(samples.iter().map(|sample| -sample.max_probability).collect(), uploads);
        self.entropy_threshold = entropy.map(|threshold| threshold.max(0.0));
        self.max_probability_threshold = surprise.map(|threshold| (-threshold).clamp(0.0, 1.0));
        let mut rate = |name: &str, rate: f64| {
            self.upload_rates.insert(name.to_owned(), rate);
        };
        rate("ui-hlm", joint);
        rate("rand-hlm", joint);
        if let Some(threshold) = self.entropy_threshold {
            rate("entropy", share(samples, |sample| sample.entropy > threshold));
        }
        if let Some(threshold) = self.max_probability_threshold {
            rate("max-prob", share(samples, |sample| sample.max_probability < threshold));
        }
    }
}

impl RiskLine {
    /// Least squares over pairs of u and rejection (1 − min(1, y_d / x_d), or 0 and 1 for what the verifier did); a flat
    /// line through the mean where u never varies. Pairs with a number that is not finite are left out.
    pub fn fit(pairs: impl Iterator<Item = (f32, f32)> + Clone) -> RiskLine {
        let p = StatisticPairs::of(pairs);
        let a = if p.xx > 0.0 { p.xy / p.xx } else { 0.0 };
        let b = p.mean_y - a * p.mean_x;
        let r = p.correlation().unwrap_or(0.0);
        let residual = (p.yy - a * p.xy).max(0.0);
        RiskLine { a, b, r, r2: r * r, rmse: (residual / p.n.max(1) as f64).sqrt(), n: p.n as u64 }
    }
}

/// Every statistic at every layer that all samples measure.
fn importance_fits(samples: &[CalibrationSample], harm: &[HarmSample]) -> Vec<ImportanceFit> {
    let mut fits = Vec::new();
    for statistic in [ImportanceStatistic::Concentration, ImportanceStatistic::Lookahead] {
        let layers =
            samples.iter().map(|s| readings_of(statistic, &s.concentration, &s.lookahead).len()).min().unwrap_or(0);
        for layer in 0..layers {
            let drafted: Vec<ImportanceReading> =
                samples.iter().map(|s| readings_of(statistic, &s.concentration, &s.lookahead)[layer]).collect();
            let harmful: Vec<(ImportanceReading, f32)> = harm
                .iter()
                .filter_map(|h| {
                    let reading = readings_of(statistic, &h.concentration, &h.lookahead).get(layer)?;
                    Some((*reading, h.harm))
                })
                .collect();
            fits.push(importance_fit(statistic, layer as u16, &drafted, &harmful));
        }
    }
    fits
}

fn importance_fit(
    statistic: ImportanceStatistic,
    layer: u16,
    drafted: &[ImportanceReading],
    harmful: &[(ImportanceReading, f32)],
) -> ImportanceFit {
    // Ranked by what the rule compares, value against its own threshold, not by the bare value.
    let scores: Vec<(f32, f32)> = harmful.iter().map(|(reading, harm)| (reading.score(), *harm)).collect();
    let (kappa, harm_kept) = choose_kappa(harmful);
    ImportanceFit {
        statistic,
        layer,
        auc: concordance(&scores),
        correlation: StatisticPairs::of(harmful.iter().map(|(reading, harm)| (reading.value, *harm))).correlation(),
        kappa,
        harm_kept,
        pass_rate: share(drafted, |reading| reading.passes(kappa)),
        percentiles: percentiles(drafted.iter().map(|reading| reading.value).collect()),
    }
}

/// κ, and the share of the harm that passes at it. Positions where the draft did better than the replacement count as no
/// harm, not as negative harm: missing them costs nothing.
fn choose_kappa(harmful: &[(ImportanceReading, f32)]) -> (f32, Option<f64>) {
    let mass = |kept: &dyn Fn(&ImportanceReading) -> bool| -> f64 {
        harmful.iter().filter(|(reading, _)| kept(reading)).map(|(_, harm)| f64::from(harm.max(0.0))).sum()
    };
    let total = mass(&|_| true);
    if total <= 0.0 || total.is_nan() {
        return (0.0, None);
    }
    let kept_at = |kappa: f32| mass(&|reading| reading.passes(kappa)) / total;
    let grid = KAPPA_TENTHS.rev().map(|tenths| tenths as f32 / 10.0);
    let lowest = *KAPPA_TENTHS.start() as f32 / 10.0;
    let kappa = grid.into_iter().find(|&kappa| kept_at(kappa) >= HARM_KEPT_TARGET).unwrap_or(lowest);
    (kappa, Some(kept_at(kappa)))
}

fn readings_of<'a>(
    statistic: ImportanceStatistic,
    concentration: &'a [ImportanceReading],
    lookahead: &'a [ImportanceReading],
) -> &'a [ImportanceReading] {
    match statistic {
        ImportanceStatistic::Concentration => concentration,
        ImportanceStatistic::Lookahead => lookahead,
    }
}

fn mean(values: impl ExactSizeIterator<Item = f32>) -> f64 {
    let n = values.len().max(1) as f64;
    values.map(f64::from).sum::<f64>() / n
}

/// Share of `items` for which `holds`; 0 of none.
fn share<T>(items: &[T], holds: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| holds(item)).count() as f64 / items.len().max(1) as f64
}
