//! `[calibration]`: what thresholds are fitted on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::work::WorkloadPart;
use crate::ConfigError;
use crate::read::{Section, without_mark};
use crate::workload::sha256_hex;

/// KV memory of a calibration whose scenario does not say.
const KV_MEBIBYTES: u32 = 2_048;

fn default_kv_mebibytes() -> u32 {
    KV_MEBIBYTES
}

/// Where thresholds come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationOptions {
    /// Prompts that a calibration runs, disjoint from the workload unless the user decides otherwise.
    pub workload: WorkloadPart,
    /// Most KV memory that fitting one takes, in MiB. Not part of the canonical text: no result depends on it.
    #[serde(skip, default = "default_kv_mebibytes")]
    pub kv_mebibytes: u32,
    /// A calibration file to take instead of fitting one; it must belong to the same models, sampling and estimator.
    pub file: Option<CalibrationFile>,
}

/// A calibration file, read but not yet understood: what it must fit is known only once the models are loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationFile {
    /// SHA-256 of its contents, in hex.
    pub sha256: String,
    /// Where it lies; empty in recorded settings.
    #[serde(skip)]
    pub path: PathBuf,
    /// Its contents; empty in recorded settings.
    #[serde(skip)]
    pub text: String,
}

impl CalibrationFile {
    fn open(section: &Section<'_>, name: &str) -> Result<Option<CalibrationFile>, ConfigError> {
        let Some(path) = section.opt_path(name)? else { return Ok(None) };
        let text = without_mark(&section.read_file(name, &path)?).to_owned();
        Ok(Some(CalibrationFile { sha256: sha256_hex(text.as_bytes()), path, text }))
    }
}

impl CalibrationOptions {
    pub(super) fn read(section: &Section<'_>) -> Result<CalibrationOptions, ConfigError> {
        let prompts = section.integer("prompts", 1..=100_000, 100)?;
        Ok(CalibrationOptions {
            workload: WorkloadPart::read_single(section, "workload", "calibration", prompts)?,
            kv_mebibytes: section.integer("kv_mebibytes", 1..=4_194_304, KV_MEBIBYTES)?,
            file: CalibrationFile::open(section, "file")?,
        })
    }
}
