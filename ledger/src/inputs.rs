//! What a run was made from: its settings, the digests of the files and models that decided its results, and its prompts.
//!
//! Files change after a run. With these a reader can tell which figures are still those of the run, and two runs can be told
//! apart whose scenarios say the same.

use serde::{Deserialize, Serialize};
use specfleet_engine::prompt::TooLongPrompt;

/// What a run was made from. All of it is absent in runs of earlier versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// The settings as canonical TOML, profiles by their contents; absent where that would be too long for a file that each
    /// listing reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// The data sets of the workload, in its order.
    #[serde(default)]
    pub workload: Vec<WorkloadInput>,
    /// Everything else that was read.
    #[serde(default)]
    pub digests: Vec<InputDigest>,
}

/// A data set of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadInput {
    pub data_set: String,
    /// Where its file lies; absent for one that ships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of its contents, in hex.
    pub sha256: String,
    /// The first of the prompts' ids, by which generations name them.
    pub first_id: u32,
    /// How many of its prompts were asked for: their ids are this many from the first on.
    pub prompts: u32,
    /// Requests of each method, repetitions among them and skipped prompts not.
    pub requests: u64,
    /// Prompts that were too long for the models, and what became of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub too_long: Vec<TooLongPrompt>,
}

/// A file, or what is in several, that decided a run's results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigest {
    /// The key of the scenario that names it, or `drafter weights`, `tokenizer` and the like.
    pub of: String,
    /// Where it lies; absent for what is embedded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub sha256: String,
}

impl Inputs {
    /// The digest of what is called `of`.
    pub fn digest(&self, of: &str) -> Option<&InputDigest> {
        self.digests.iter().find(|digest| digest.of == of)
    }
}
