//! `[model]`: the pair of models.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::PoolSection;
use crate::read::Section;
use crate::{ConfigError, PrecisionChoice};

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelChoice {
    /// The one in the binary.
    Embedded,
    /// A Hugging Face folder. Its path stands for it in the canonical text; digests of the weights are the loader's.
    Folder(#[serde(with = "path_as_text")] PathBuf),
}

/// A path in the canonical text: as in a scenario.
pub(super) mod path_as_text {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::read::{path_to_text, text_to_path};

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&path_to_text(path))
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<PathBuf, D::Error> {
        String::deserialize(deserializer).map(|text| text_to_path(&text))
    }
}

/// Most KV memory of a verifier.
const MOST_MEBIBYTES: u64 = 4_194_304;

/// The pair of models and how they are held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelOptions {
    /// The model on the devices.
    pub drafter: ModelChoice,
    /// The model in the pool.
    pub verifier: ModelChoice,
    /// How the drafter's matrices are stored.
    pub drafter_precision: PrecisionChoice,
    /// How the verifier's matrices are stored.
    pub verifier_precision: PrecisionChoice,
    /// Threads of the drafter that the devices of one process share.
    pub drafter_threads: u16,
    /// Threads of each verifier replica.
    pub verifier_threads: u16,
    /// KV memory of the devices of one process together, in MiB.
    pub drafter_kv_mebibytes: u32,
    /// KV memory of each verifier replica, in MiB; less where the memory in the pool's profile does not hold as much beside
    /// the weights of the verifier that is loaded.
    pub verifier_kv_mebibytes: u32,
}

impl ModelOptions {
    /// The KV caches of a verifier whose batches are computed from a declared model have what its weights leave of the memory
    /// in the pool's profile: by themselves all of it, and never more.
    pub(super) fn read(section: &Section<'_>, pool: &PoolSection) -> Result<ModelOptions, ConfigError> {
        let precision = |name| Ok(section.opt_choice(name, &PrecisionChoice::NAMES)?.unwrap_or(PrecisionChoice::Q8_0));
        Ok(ModelOptions {
            drafter: choice(section, "drafter")?,
            verifier: choice(section, "verifier")?,
            drafter_precision: precision("drafter_precision")?,
            verifier_precision: precision("verifier_precision")?,
            drafter_threads: section.integer("drafter_threads", 1..=1024, 1)?,
            verifier_threads: section.integer("verifier_threads", 1..=1024, 1)?,
            drafter_kv_mebibytes: section.integer("drafter_kv_mebibytes", 1..=4_194_304, 512)?,
            verifier_kv_mebibytes: verifier_kv(section, pool)?,
        })
    }
}

fn verifier_kv(section: &Section<'_>, pool: &PoolSection) -> Result<u32, ConfigError> {
    const NAME: &str = "verifier_kv_mebibytes";
    let given: Option<u32> = section.opt_integer(NAME, 1..=MOST_MEBIBYTES)?;
    let Some((roofline, memory)) = pool.cost.roofline().zip(pool.memory) else { return Ok(given.unwrap_or(256)) };
    let (model, machine) = (&roofline.model, &pool.profile.name);
    let weights = model.weight_bytes();
    let parts = format!(
        "{machine} has {:.1} GB, of which pool.memory_share = {} leaves {:.1} GB, and the weights of {} take {:.1} GB",
        memory.bytes as f64 * 1e-9,
        memory.share,
        memory.bytes as f64 * memory.share * 1e-9,
        model.name,
        weights * 1e-9,
    );
    let room = memory.for_kv(weights).unwrap_or(0) >> 20;
    match given {
        _ if room == 0 => Err(section.conflict(NAME, format!("there is no memory for it: {parts}"))),
        Some(asked) if u64::from(asked) > room => {
            Err(section.out_of_range(NAME, &asked, format!("must lie in 1 to {room}: {parts}")))
        }
        Some(asked) => Ok(asked),
        // The most is far below `u32::MAX`.
        None => Ok(room.min(MOST_MEBIBYTES) as u32),
    }
}

fn choice(section: &Section<'_>, name: &str) -> Result<ModelChoice, ConfigError> {
    Ok(match section.opt_text(name)? {
        None | Some("embedded") => ModelChoice::Embedded,
        Some(text) => ModelChoice::Folder(section.resolve(name, text)),
    })
}
