//! Sizes of models.

use serde::{Deserialize, Serialize};
use specfleet_engine::cost::ModelSize;

use crate::ConfigError;
use crate::read::Section;

/// A model that is not loaded: its sizes, and where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredModel {
    pub size: ModelSize,
    /// Where they come from.
    pub source: String,
}

/// Reads a model's sizes.
pub(super) fn read(section: &Section<'_>) -> Result<DeclaredModel, ConfigError> {
    Ok(DeclaredModel {
        size: ModelSize {
            name: super::name_of(section)?,
            parameters: section.required_number("parameters", 1.0..=1e15)?,
            parameter_bytes: section.required_number("parameter_bytes", 0.125..=16.0)?,
            layers: section.required_integer("layers", 1..=65_536)?,
            width: section.required_integer("width", 1..=16_777_216)?,
            kv_bytes_per_token: section.required_integer("kv_bytes_per_token", 1..=1 << 40)?,
            vocab: section.required_integer("vocab", 2..=16_777_216)?,
            context: section.required_integer("context", 4..=1 << 30)?,
        },
        source: section.required_text("source")?.to_owned(),
    })
}
