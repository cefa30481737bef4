//! What one real device tells at the end.

use std::path::Path;

use device_agent::meters::{EnergyMeter, MeterError, POWERCAP};
use serde_json::{Value, json};
use specfleet_engine::record::{GenerationRecord, Provenance, RoundRecord, Source};
use specfleet_engine::wire::VerifierIdentity;
use specfleet_files::hex;

/// The hardware meter, or why there is none.
pub(crate) struct Meter(Result<EnergyMeter, MeterError>);

impl Meter {
    pub(crate) fn open() -> Meter {
        Meter(EnergyMeter::open(Path::new(POWERCAP)))
    }

    /// Reads the counters: once per token, so that none starts over unseen.
    pub(crate) fn read(&mut self) -> Option<u64> {
        match self.0.as_mut().map(EnergyMeter::nanojoules) {
            Ok(Ok(nanojoules)) => Some(nanojoules),
            Ok(Err(error)) => {
                self.0 = Err(error);
                None
            }
            Err(_) => None,
        }
    }

    /// Puts the measurement in the place of the profile's estimate.
    pub(crate) fn correct(&mut self, record: &mut GenerationRecord) {
        if let Some(nanojoules) = self.read() {
            record.energy.device = nanojoules;
            record.device_provenance = Provenance::Measured;
        }
    }

    /// Where the device's joules come from, in words.
    fn source(&self) -> String {
        match &self.0 {
            Ok(_) => "the processor's own counters, everything that ran on it included".to_owned(),
            Err(error) => format!("the profile; {error}"),
        }
    }
}

/// Everything that is reported about one generation.
pub(crate) struct Report<'a> {
    pub(crate) record: &'a GenerationRecord,
    pub(crate) rounds: &'a [RoundRecord],
    pub(crate) method: &'a str,
    pub(crate) meter: &'a Meter,
    /// The verifier of the pool, if one was met.
    pub(crate) verifier: Option<VerifierIdentity>,
}

impl Report<'_> {
    fn seconds(&self) -> f64 {
        self.record.ended.since(self.record.started).seconds()
    }

    fn tokens_per_second(&self) -> f64 {
        self.rounds.len() as f64 / self.seconds().max(1e-9)
    }

    /// Answered uploads of drafts over committed tokens, as in the reports of a fleet: `None` for a text that the verifier
    /// writes, because nothing of it was drafted.
    fn upload_rate(&self) -> Option<f64> {
        let uploads = self.rounds.iter().filter(|round| round.judged_upload().is_some()).count();
        let drafted = self.rounds.iter().all(|round| round.source != Source::Verifier);
        drafted.then(|| uploads as f64 / self.rounds.len().max(1) as f64)
    }

    fn parts(&self) -> [(&'static str, f64, Provenance); 3] {
        let GenerationRecord { energy, device_provenance, radio_provenance, cloud_provenance, .. } = self.record;
        let joules = |nanojoules: u64| nanojoules as f64 * 1e-9;
        [
            ("device", joules(energy.device), *device_provenance),
            ("radio", joules(energy.radio), *radio_provenance),
            ("cloud", joules(energy.cloud), *cloud_provenance),
        ]
    }

    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}: {} tokens in {:.2} s, {:.1} tokens/s",
            self.method,
            self.rounds.len(),
            self.seconds(),
            self.tokens_per_second()
        )];
        lines.extend(self.upload_rate().map(|rate| format!("uploads: {:.0} % of the tokens", 100.0 * rate)));
        for (part, joules, provenance) in self.parts() {
            lines.push(format!("energy, {part}: {joules:.3} J ({})", name(provenance)));
        }
        lines.push(format!("the device's joules are from {}", self.meter.source()));
        lines.join("\n")
    }

    pub(crate) fn json(&self, text: &str) -> Value {
        let energy: serde_json::Map<String, Value> = self
            .parts()
            .into_iter()
            .map(|(part, joules, provenance)| (part.to_owned(), json!({"joules": joules, "from": name(provenance)})))
            .collect();
        let uploads = &self.record.uploads;
        json!({
            "method": self.method,
            "text": text,
            "token_ids": self.record.tokens,
            "finish_reason": self.record.finish,
            "seconds": self.seconds(),
            "tokens_per_second": self.tokens_per_second(),
            "upload_rate": self.upload_rate(),
            "uploads": {
                "sent": uploads.sent,
                "verdicts": uploads.verdicts,
                "refused": uploads.refused,
                "cancelled": uploads.cancelled,
            },
            "energy": energy,
            "energy_source": self.meter.source(),
            "verifier": self.verifier.as_ref().map(|verifier| json!({
                "sha256": hex(&verifier.model),
                "precision": verifier.precision.as_str(),
                "kernels_sha256": hex(&verifier.kernels),
            })),
        })
    }
}

fn name(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Measured => "measured",
        Provenance::Modelled => "modelled",
        Provenance::Constant => "constant",
    }
}
