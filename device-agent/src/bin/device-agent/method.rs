//! From the method's name to its numbers.

use anyhow::{Context, Result};
use specfleet_config::{CALIBRATIONS, MethodChoice, ModelChoice, Settings};
use specfleet_engine::calibration::{
    Calibration, CalibrationKey, MethodError, MethodOverrides, ThresholdChoice, resolve,
};
use specfleet_engine::method::{ImportanceStatistic, Method};

/// u_th = −b/a of U-HLM's published risk line (a = 0.82, b = −0.06).
const PUBLISHED_THRESHOLD: f32 = 0.06 / 0.82;

/// The method to run, what the user should know about where its numbers come from, and the key of the calibration that they
/// come from.
///
/// They come from the scenario's overrides, then from a calibration of this pair. Without one, published numbers of
/// another pair stand in where there are any.
pub(crate) fn method_for(settings: &Settings) -> Result<(Method, Option<String>, Option<CalibrationKey>)> {
    let MethodChoice { name, overrides } = &settings.methods[0];
    let calibration = calibration(settings)?;
    match resolve(calibration.as_ref(), name, overrides) {
        Err(MethodError::Missing { .. }) if calibration.is_none() => {
            let method = resolve(None, name, &published(overrides)).with_context(|| format!("--method {name}"))?;
            let notice = format!(
                "no calibration given: {name} runs with a threshold published for another pair (u_th = \
                 {PUBLISHED_THRESHOLD:.3}, U-HLM) and an uncalibrated importance rule; --calibration FILE gives its own"
            );
            Ok((method, Some(notice), None))
        }
        resolved => {
            let notice = calibration.as_ref().and_then(Calibration::fits_badly);
            // A method all of whose numbers are given asks no calibration.
            let asked = resolve(None, name, overrides).is_err();
            Ok((resolved?, notice, calibration.filter(|_| asked).map(|calibration| calibration.key)))
        }
    }
}

/// The calibration file that the settings name, or the shipped one of the embedded pair.
fn calibration(settings: &Settings) -> Result<Option<Calibration>> {
    let Some(file) = &settings.calibration.file else { return Ok(shipped(settings)) };
    let path = file.path.display();
    let calibration: Calibration =
        serde_json::from_str(&file.text).with_context(|| format!("{path}: not a calibration"))?;
    anyhow::ensure!(
        calibration.key.sampling == settings.run.sampling,
        "{path}: made at another temperature or truncation"
    );
    Ok(Some(calibration))
}

/// The shipped calibration that fits the embedded drafter under these settings. A device learns which
/// verifier the pool has when it connects, and says so if that is not the embedded one. No token is wrong in that case: only
/// the thresholds are rougher.
fn shipped(settings: &Settings) -> Option<Calibration> {
    if settings.model.drafter != ModelChoice::Embedded {
        return None;
    }
    CALIBRATIONS.iter().filter_map(|text| serde_json::from_str::<Calibration>(text).ok()).find(|calibration| {
        calibration.key.sampling == settings.run.sampling
            && calibration.key.drafter_precision == settings.model.drafter_precision.as_str()
    })
}

/// Stand-ins for what no calibration gives: \[paper\] for the threshold, \[ours\] for the importance rule.
fn published(overrides: &MethodOverrides) -> MethodOverrides {
    MethodOverrides {
        uncertainty_threshold: match overrides.uncertainty_threshold {
            Some(ThresholdChoice::Number(number)) => Some(ThresholdChoice::Number(number)),
            Some(ThresholdChoice::Named(_)) | None => Some(ThresholdChoice::Number(PUBLISHED_THRESHOLD)),
        },
        statistic: overrides.statistic.or(Some(ImportanceStatistic::Concentration)),
        layer: overrides.layer.or(Some(0)),
        kappa: overrides.kappa.or(Some(0.0)),
        ..*overrides
    }
}
