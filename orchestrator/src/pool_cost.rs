//! What the batches of a run are charged: declared by the scenario, or fitted in a calibration of its pair.

use specfleet_config::{CALIBRATIONS, CostChoice, Settings};
use specfleet_engine::calibration::{Calibration, CalibrationKey};
use specfleet_engine::cost::BatchCost;

use crate::error::Error;
use crate::methods::Resolved;
use crate::pair::Pair;

/// What a live run charges its batches; `None` charges what its verifiers measure.
pub fn live(settings: &Settings, pair: &Pair, resolved: &Resolved) -> Result<Option<BatchCost>, Error> {
    match &settings.pool.cost {
        CostChoice::Measured => Ok(None),
        CostChoice::Default => Ok(calibrated(settings, pair, resolved)),
        CostChoice::Calibrated => match calibrated(settings, pair, resolved) {
            Some(cost) => Ok(Some(cost)),
            None => Err(Error::Simulation(
                "pool.cost = \"calibrated\": no calibration of this pair has batch costs: fit one with `specfleet calibrate \
                 RUN` on a run with pool.cost = \"measured\" and name its file with calibration.file"
                    .to_owned(),
            )),
        },
        declared => Ok(declared.declared()),
    }
}

/// The batch costs that a calibration of this pair has: the scenario's file and no other where it names one, else one that
/// the methods took their numbers from, or a shipped one. What batches take depends on neither sampling nor estimator.
pub fn calibrated(settings: &Settings, pair: &Pair, resolved: &Resolved) -> Option<BatchCost> {
    let parse = |text: &str| serde_json::from_str::<Calibration>(text).ok();
    let known: Vec<Calibration> = match &settings.calibration.file {
        Some(file) => parse(&file.text).into_iter().collect(),
        None => {
            let shipped = CALIBRATIONS.iter().filter_map(|text| parse(text));
            resolved.calibrations.iter().cloned().chain(shipped).collect()
        }
    };
    let known = known.into_iter();
    let mut costs = known.filter(|known| is_of(&known.key, pair)).filter_map(|known| known.batch_cost);
    costs.next().map(BatchCost::Measured)
}

fn is_of(key: &CalibrationKey, pair: &Pair) -> bool {
    (&key.drafter, &key.verifier) == (&pair.drafter_digest, &pair.verifier_digest)
        && key.verifier_precision == pair.verifier.precision().to_string()
}

/// The word for it in scenarios, tables and files.
pub fn name(cost: Option<&BatchCost>) -> &'static str {
    match cost {
        None => "measured",
        Some(BatchCost::Measured(_)) => "calibrated",
        Some(BatchCost::Roofline(_)) => "roofline",
        Some(BatchCost::Fixed { .. }) => "fixed",
    }
}
