//! `[model]`: the pair of models.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::read::Section;
use crate::{ConfigError, Precision};

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelChoice {
    /// The one in the binary.
    Embedded,
    /// A Hugging Face folder. Its path stands for it in the canonical text; digests of the weights are the loader's.
    Folder(#[serde(serialize_with = "as_text")] PathBuf),
}

/// A path as text. What is no Unicode is replaced, because TOML cannot hold it.
pub(super) fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The pair of models and how they are held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelOptions {
    /// The model on the devices.
    pub drafter: ModelChoice,
    /// The model in the pool.
    pub verifier: ModelChoice,
    /// How the drafter's matrices are stored.
    pub drafter_precision: Precision,
    /// How the verifier's matrices are stored.
    pub verifier_precision: Precision,
    /// Threads of the drafter that the devices of one process share.
    pub drafter_threads: u16,
    /// Threads of each verifier replica.
    pub verifier_threads: u16,
    /// KV memory of the devices of one process together, in MiB.
    pub drafter_kv_mebibytes: u32,
    /// KV memory of each verifier replica, in MiB.
    pub verifier_kv_mebibytes: u32,
}

impl ModelOptions {
    pub(super) fn read(section: &Section<'_>) -> Result<ModelOptions, ConfigError> {
        let precision = |name| Ok(section.opt_choice(name, &Precision::NAMES)?.unwrap_or(Precision::Q8_0));
        Ok(ModelOptions {
            drafter: choice(section, "drafter")?,
            verifier: choice(section, "verifier")?,
            drafter_precision: precision("drafter_precision")?,
            verifier_precision: precision("verifier_precision")?,
            drafter_threads: section.integer("drafter_threads", 1..=1024, 1)?,
            verifier_threads: section.integer("verifier_threads", 1..=1024, 1)?,
            drafter_kv_mebibytes: section.integer("drafter_kv_mebibytes", 1..=4_194_304, 512)?,
            verifier_kv_mebibytes: section.integer("verifier_kv_mebibytes", 1..=4_194_304, 256)?,
        })
    }
}

fn choice(section: &Section<'_>, name: &str) -> Result<ModelChoice, ConfigError> {
    Ok(match section.opt_text(name)? {
        None | Some("embedded") => ModelChoice::Embedded,
        Some(text) => ModelChoice::Folder(section.resolve(name, text)),
    })
}
