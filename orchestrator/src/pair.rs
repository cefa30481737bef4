//! The model pair of a run.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use specfleet_config::{ModelChoice, ModelOptions, Precision};
use specfleet_model::{Embedded, Model, ModelError, Tokenizer, check_pair};

/// Names of digests among a run's versions.
pub(crate) const DRAFTER_VERSION: &str = "drafter_sha256";
pub(crate) const VERIFIER_VERSION: &str = "verifier_sha256";
pub(crate) const TOKENIZER_VERSION: &str = "tokenizer_sha256";

/// Drafter, verifier and the tokenizer they share.
#[derive(Clone)]
pub struct Pair {
    /// The small model on the devices.
    pub drafter: Model,
    /// The large model in the pool.
    pub verifier: Model,
    /// The tokenizer of both.
    pub tokenizer: Tokenizer,
    /// SHA-256 of the drafter's weights, hexadecimal.
    pub drafter_digest: String,
    /// SHA-256 of the verifier's weights, hexadecimal.
    pub verifier_digest: String,
}

impl Pair {
    /// Loads both models. A pair whose tokenizers or vocabularies differ is an error.
    pub fn load(options: &ModelOptions) -> Result<Pair, ModelError> {
        let drafter = load(&options.drafter, Embedded::Drafter, options.drafter_precision)?;
        let verifier = load(&options.verifier, Embedded::Verifier, options.verifier_precision)?;
        check_pair((&drafter.model, &drafter.tokenizer), (&verifier.model, &verifier.tokenizer))?;
        Ok(Pair {
            drafter: drafter.model,
            verifier: verifier.model,
            tokenizer: drafter.tokenizer,
            drafter_digest: drafter.digest,
            verifier_digest: verifier.digest,
        })
    }

    /// Longest sequence that both take.
    pub fn context(&self) -> usize {
        self.drafter.shape().context.min(self.verifier.shape().context)
    }

    /// Digests of what decides the tokens, for the run's versions: a run says later whether its models have changed.
    pub fn versions(&self) -> Vec<(String, String)> {
        let entry = |name: &str, digest: String| (name.to_owned(), digest);
        vec![
            entry(DRAFTER_VERSION, self.drafter_digest.clone()),
            entry(VERIFIER_VERSION, self.verifier_digest.clone()),
            entry(TOKENIZER_VERSION, hex(&self.tokenizer.digest())),
        ]
    }

    /// Tokens that end a text: those of the verifier, whose law counts.
    pub fn end_tokens(&self) -> Vec<u32> {
        self.verifier.shape().eos.clone()
    }
}

/// One model with its tokenizer.
pub(crate) struct Loaded {
    /// The model.
    pub(crate) model: Model,
    /// Its tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// SHA-256 of its weights, hexadecimal.
    pub(crate) digest: String,
}

/// The verifier alone, as a run has it in its pool.
pub(crate) fn load_verifier(options: &ModelOptions) -> Result<Loaded, ModelError> {
    load(&options.verifier, Embedded::Verifier, options.verifier_precision)
}

/// The tokenizer that both models share, without loading either.
pub(crate) fn load_tokenizer(options: &ModelOptions) -> Result<Tokenizer, ModelError> {
    match &options.verifier {
        ModelChoice::Embedded => Tokenizer::embedded(),
        ModelChoice::Folder(folder) => Tokenizer::load_dir(folder),
    }
}

fn load(choice: &ModelChoice, which: Embedded, precision: Precision) -> Result<Loaded, ModelError> {
    let precision = match precision {
        Precision::F32 => specfleet_model::Precision::F32,
        Precision::Q8_0 => specfleet_model::Precision::Q8_0,
        Precision::Q4K => specfleet_model::Precision::Q4K,
    };
    match choice {
        ModelChoice::Embedded => Ok(Loaded {
            model: Model::embedded(which, precision)?,
            tokenizer: Tokenizer::embedded()?,
            digest: hex(Sha256::digest(which.weights()).as_slice()),
        }),
        ModelChoice::Folder(folder) => Ok(Loaded {
            model: Model::load_dir(folder, precision)?,
            tokenizer: Tokenizer::load_dir(folder)?,
            digest: folder_digest(folder),
        }),
    }
}

/// Digest over names and contents of the folder's weights and configuration, in order of name. A file that cannot be
/// read has failed the loader before; here it counts as empty.
fn folder_digest(folder: &Path) -> String {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|e| e == "safetensors") || path.file_name().is_some_and(|n| n == "config.json")
        })
        .collect();
    names.sort();
    let mut digest = Sha256::new();
    for path in names {
        digest.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        digest.update(fs::read(&path).unwrap_or_default());
    }
    hex(digest.finalize().as_slice())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
