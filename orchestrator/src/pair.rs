//! The model pair of a run.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use specfleet_config::{ModelChoice, ModelOptions, Precision};
use specfleet_ledger::InputDigest;
use specfleet_model::{Embedded, Model, ModelError, Tokenizer, check_pair};

/// Names of digests among a run's versions.
pub(crate) const DRAFTER_VERSION: &str = "drafter_sha256";
pub(crate) const VERIFIER_VERSION: &str = "verifier_sha256";
pub(crate) const TOKENIZER_VERSION: &str = "tokenizer_sha256";

/// What a run's digest of its tokenizer is called.
pub(crate) const TOKENIZER: &str = "tokenizer";

/// What the digests of a pair are called.
pub(crate) const PARTS: [&str; 5] =
    ["drafter weights", "drafter configuration", "verifier weights", "verifier configuration", TOKENIZER];

/// Files of a model's folder, beside its weights, that decide what it computes and where its texts end.
const CONFIGURATION: [&str; 2] = ["config.json", "generation_config.json"];

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
    /// Digests of its parts, as a run stores them.
    pub digests: Vec<InputDigest>,
}

impl Pair {
    /// Loads both models. A pair whose tokenizers or vocabularies differ is an error.
    pub fn load(options: &ModelOptions) -> Result<Pair, ModelError> {
        let drafter = load(&options.drafter, Embedded::Drafter, options.drafter_precision)?;
        let verifier = load(&options.verifier, Embedded::Verifier, options.verifier_precision)?;
        check_pair((&drafter.model, &drafter.tokenizer), (&verifier.model, &verifier.tokenizer))?;
        Ok(Pair {
            digests: recorded(&drafter.digests, &verifier.digests, &drafter.tokenizer),
            drafter: drafter.model,
            verifier: verifier.model,
            tokenizer: drafter.tokenizer,
            drafter_digest: drafter.digest,
            verifier_digest: verifier.digest,
        })
    }

    /// What a calibration's key says about the tokenizer, which decides what the models read of a prompt: nothing for the
    /// embedded pair, whose digests stand for all of it.
    pub(crate) fn tokenizer_of_its_own(&self) -> String {
        let is_folder = self.digests.iter().any(|digest| digest.path.is_some());
        if is_folder { format!(" by tokenizer {}", hex(&self.tokenizer.digest())) } else { String::new() }
    }

    /// Why a run of this pair is worth nothing: logits that were no finite numbers. `None` if there were none.
    pub(crate) fn non_finite(&self) -> Option<String> {
        let (drafter, verifier) = (self.drafter.non_finite_rows(), self.verifier.non_finite_rows());
        (drafter + verifier > 0).then(|| {
            format!("logits that are no finite numbers: {drafter} rows of the drafter's, {verifier} of the verifier's")
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
    digests: ModelDigests,
}

/// The verifier alone, as a run has it in its pool.
pub(crate) fn load_verifier(options: &ModelOptions) -> Result<Loaded, ModelError> {
    load(&options.verifier, Embedded::Verifier, options.verifier_precision)
}

/// The tokenizer that prompts and texts of a run go through, as in [`Pair`], without loading a model.
pub(crate) fn load_tokenizer(options: &ModelOptions) -> Result<Tokenizer, ModelError> {
    match &options.drafter {
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
    let (model, tokenizer) = match choice {
        ModelChoice::Embedded => (Model::embedded(which, precision)?, Tokenizer::embedded()?),
        ModelChoice::Folder(folder) => (Model::load_dir(folder, precision)?, Tokenizer::load_dir(folder)?),
    };
    let digests = ModelDigests::of(choice, which);
    Ok(Loaded { model, tokenizer, digest: digests.whole.clone(), digests })
}

/// What is in a model, told apart by SHA-256 in hex.
#[derive(Clone, Debug)]
pub(crate) struct ModelDigests {
    /// Of everything: what a calibration belongs to.
    whole: String,
    weights: String,
    configuration: String,
    /// Where it lies, unless it is embedded.
    path: Option<String>,
}

impl ModelDigests {
    /// Those of the model that a scenario names, without loading it. A file that cannot be read has failed the loader before;
    /// here it counts as empty.
    pub(crate) fn of(choice: &ModelChoice, which: Embedded) -> ModelDigests {
        match choice {
            ModelChoice::Embedded => {
                let weights = hex(Sha256::digest(which.weights()).as_slice());
                let configuration = hex(Sha256::digest(which.config()).as_slice());
                ModelDigests { whole: weights.clone(), weights, configuration, path: None }
            }
            ModelChoice::Folder(folder) => ModelDigests::of_folder(folder),
        }
    }

    fn of_folder(folder: &Path) -> ModelDigests {
        let is_weights = |path: &Path| path.extension().is_some_and(|extension| extension == "safetensors");
        let is_named = |path: &Path, name: &str| path.file_name().is_some_and(|found| found == name);
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_weights(path) || CONFIGURATION.iter().any(|name| is_named(path, name)))
            .collect();
        paths.sort();
        // Beside the whole weights, shards are a remainder that nobody reads.
        let merged = paths.iter().any(|path| is_named(path, "model.safetensors"));
        let (mut whole, mut weights, mut configuration) = (Sha256::new(), Sha256::new(), Sha256::new());
        for path in &paths {
            let bytes = specfleet_files::read(path, u64::MAX).unwrap_or_default();
            whole.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            whole.update(&bytes);
            if !is_weights(path) {
                configuration.update(&bytes);
            } else if !merged || is_named(path, "model.safetensors") {
                weights.update(&bytes);
            }
        }
        let [whole, weights, configuration] = [whole, weights, configuration].map(|digest| hex(&digest.finalize()));
        let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        ModelDigests { whole, weights, configuration, path: Some(path.to_string_lossy().into_owned()) }
    }

    /// As a run stores them, of the model that is called `role`.
    fn recorded(&self, role: &str) -> [InputDigest; 2] {
        let entry = |what: &str, sha256: &String| InputDigest {
            of: format!("{role} {what}"),
            path: self.path.clone(),
            sha256: sha256.clone(),
        };
        [entry("weights", &self.weights), entry("configuration", &self.configuration)]
    }
}

/// Digests of what a scenario's pair is made of, as a run stores them; the tokenizer is read, the models are not loaded.
pub(crate) fn digests(options: &ModelOptions) -> Result<Vec<InputDigest>, ModelError> {
    let drafter = ModelDigests::of(&options.drafter, Embedded::Drafter);
    let verifier = ModelDigests::of(&options.verifier, Embedded::Verifier);
    Ok(recorded(&drafter, &verifier, &load_tokenizer(options)?))
}

fn recorded(drafter: &ModelDigests, verifier: &ModelDigests, tokenizer: &Tokenizer) -> Vec<InputDigest> {
    let tokenizer =
        InputDigest { of: TOKENIZER.to_owned(), path: drafter.path.clone(), sha256: hex(&tokenizer.digest()) };
    let models = [drafter.recorded("drafter"), verifier.recorded("verifier")];
    models.into_iter().flatten().chain([tokenizer]).collect()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
