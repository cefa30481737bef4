//! `[calibration]`: what thresholds are fitted on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::work::WorkloadPart;
use crate::ConfigError;
use crate::read::Section;

/// Where thresholds come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationOptions {
    /// Prompts that a calibration runs, disjoint from the workload unless the user decides otherwise.
    pub workload: WorkloadPart,
    /// A calibration file to take instead of fitting one; it must belong to the same models, sampling and estimator.
    pub file: Option<PathBuf>,
}

impl CalibrationOptions {
    pub(super) fn read(section: &Section<'_>) -> Result<CalibrationOptions, ConfigError> {
        let prompts = section.integer("prompts", 1..=100_000, 100)?;
        Ok(CalibrationOptions {
            workload: WorkloadPart::read_single(section, "workload", "calibration", prompts)?,
            file: section.opt_path("file")?,
        })
    }
}
