//! Whether a calibration belongs to the pair that is at hand: the drafter here, the verifier in the pool.

use actix::Addr;
use device_agent::{Device, PoolVerifier};
use specfleet_config::{ModelChoice, Settings};
use specfleet_engine::calibration::CalibrationKey;
use specfleet_engine::wire::VerifierIdentity;
use specfleet_files::hex;
use specfleet_model::{Embedded, ModelDigests};

/// What to tell a user whose method has its numbers from a calibration of another drafter.
pub(crate) fn drafter(key: &CalibrationKey, settings: &Settings) -> Option<String> {
    let model = &settings.model;
    let digests = match &model.drafter {
        ModelChoice::Embedded => ModelDigests::embedded(Embedded::Drafter),
        ModelChoice::Folder(folder) => ModelDigests::folder(folder),
    };
    let (whole, weights) = (hex(&digests.whole), hex(&digests.weights));
    key.other_drafter(&[&whole, &weights], model.drafter_precision.as_str()).map(|what| notice(&what))
}

/// The same for the verifier that the pool says it has.
pub(crate) fn verifier(key: &CalibrationKey, pool: &VerifierIdentity) -> Option<String> {
    let (whole, weights) = (hex(&pool.model), hex(&pool.weights));
    key.other_verifier(&[&whole, &weights], pool.precision.as_str()).map(|what| notice(&what))
}

fn notice(what: &str) -> String {
    format!("the calibration is of another pair: {what}; the thresholds are rough, and no token is wrong because of it")
}

/// Says once, as soon as the pool has been reached, that its verifier is not the calibration's.
pub(crate) struct PairCheck {
    key: Option<CalibrationKey>,
}

impl PairCheck {
    /// For a method that has its numbers from the calibration of this key, if from any.
    pub(crate) fn new(key: Option<CalibrationKey>) -> PairCheck {
        PairCheck { key }
    }

    /// Which verifier the device has met; `None` where it has met none so far.
    pub(crate) async fn say(&mut self, device: &Addr<Device>) -> Option<VerifierIdentity> {
        let met = device.send(PoolVerifier).await.ok().flatten()?;
        if let Some(notice) = self.key.take().and_then(|key| verifier(&key, &met)) {
            specfleet_logs::say!("note: {notice}");
        }
        Some(met)
    }
}
