//! Rows of the energy table: what each part of the system spent, and how well that is known.

use serde::{Deserialize, Serialize};
use specfleet_engine::id::{DeviceId, GenerationId, VerifierId};
use specfleet_engine::record::{GenerationRecord, Provenance, VerifierRecord};

/// A part of the energy account (method.md §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnergyPart {
    Device,
    Radio,
    /// The verifier's share, catch-up included.
    Cloud,
    /// The same in the papers' accounting: another view of `Cloud`, never added to it.
    CloudPaper,
    /// A verifier without work.
    CloudIdle,
}

/// Who spent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnergyOwner {
    /// A generation, on a device.
    Generation { id: GenerationId, device: DeviceId },
    /// A verifier during one method's phase.
    Verifier {
        /// Index of the method in the run's list.
        method: u16,
        /// Pass of the run over all its methods, from 0.
        pass: u16,
        verifier: VerifierId,
    },
}

/// One row of the energy table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnergyRow {
    pub owner: EnergyOwner,
    pub part: EnergyPart,
    /// How much, in nanojoules.
    pub nanojoules: u64,
    /// How it is known.
    pub provenance: Provenance,
}

impl EnergyRow {
    /// The four rows of a generation. `cloud` and `cloud_paper` share their provenance.
    pub fn of_generation(record: &GenerationRecord) -> [EnergyRow; 4] {
        let owner = EnergyOwner::Generation { id: record.id, device: record.device };
        [
            (EnergyPart::Device, record.energy.device, record.device_provenance),
            (EnergyPart::Radio, record.energy.radio, record.radio_provenance),
            (EnergyPart::Cloud, record.energy.cloud, record.cloud_provenance),
            (EnergyPart::CloudPaper, record.energy.cloud_paper, record.cloud_provenance),
        ]
        .map(|(part, nanojoules, provenance)| EnergyRow { owner, part, nanojoules, provenance })
    }

    /// The idle row of a verifier.
    pub fn of_verifier(record: &VerifierRecord, provenance: Provenance) -> EnergyRow {
        EnergyRow {
            owner: EnergyOwner::Verifier { method: record.method, pass: record.pass, verifier: record.verifier },
            part: EnergyPart::CloudIdle,
            nanojoules: record.idle_nanojoules,
            provenance,
        }
    }
}
