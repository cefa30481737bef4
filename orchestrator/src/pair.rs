//! The model pair of a run.

use specfleet_config::{ModelChoice, ModelOptions, PrecisionChoice};
use specfleet_files::hex;
use specfleet_ledger::InputDigest;
use specfleet_model::{Embedded, Model, ModelDigests, ModelError, Tokenizer, check_pair};

/// Names of digests among a run's versions.
pub(crate) const DRAFTER_VERSION: &str = "drafter_sha256";
pub(crate) const VERIFIER_VERSION: &str = "verifier_sha256";
pub(crate) const TOKENIZER_VERSION: &str = "tokenizer_sha256";

/// What a run's digest of its tokenizer is called.
pub(crate) const TOKENIZER: &str = "tokenizer";

/// What the digests of a pair are called.
pub(crate) const PARTS: [&str; 5] =
    ["drafter weights", "drafter configuration", "verifier weights", "verifier configuration", TOKENIZER];

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
    /// Digests of the verifier's files, for the pool.
    pub verifier_files: ModelDigests,
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
            verifier_files: verifier.digests,
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

    /// Tokens that end a text: those of the verifier, whose distribution counts.
    pub fn end_tokens(&self) -> Vec<u32> {
        self.verifier.shape().eos.clone()
    }
}

/// One model with its tokenizer.
pub(crate) struct Loaded {
    pub(crate) model: Model,
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

fn load(choice: &ModelChoice, which: Embedded, precision: PrecisionChoice) -> Result<Loaded, ModelError> {
    let precision = match precision {
        PrecisionChoice::F32 => specfleet_model::Precision::F32,
        PrecisionChoice::Q8_0 => specfleet_model::Precision::Q8_0,
        PrecisionChoice::Q4K => specfleet_model::Precision::Q4K,
    };
    let (model, tokenizer) = match choice {
        ModelChoice::Embedded => (Model::embedded(which, precision)?, Tokenizer::embedded()?),
        ModelChoice::Folder(folder) => (Model::load_dir(folder, precision)?, Tokenizer::load_dir(folder)?),
    };
    let digests = digests_of(choice, which);
    Ok(Loaded { model, tokenizer, digest: hex(&digests.whole), digests })
}

/// Digests of the model that a scenario names, without loading it.
fn digests_of(choice: &ModelChoice, which: Embedded) -> ModelDigests {
    match choice {
        ModelChoice::Embedded => ModelDigests::embedded(which),
        ModelChoice::Folder(folder) => ModelDigests::folder(folder),
    }
}

/// As a run stores them, of the model that is called `role`.
fn recorded_as(role: &str, digests: &ModelDigests) -> [InputDigest; 2] {
    let path = digests.path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let entry = |what: &str, sha256: &[u8; 32]| InputDigest {
        of: format!("{role} {what}"),
        path: path.clone(),
        sha256: hex(sha256),
    };
    [entry("weights", &digests.weights), entry("configuration", &digests.configuration)]
}

/// Digests of what a scenario's pair is made of, as a run stores them; the tokenizer is read, the models are not loaded.
pub(crate) fn digests(options: &ModelOptions) -> Result<Vec<InputDigest>, ModelError> {
    let drafter = digests_of(&options.drafter, Embedded::Drafter);
    let verifier = digests_of(&options.verifier, Embedded::Verifier);
    Ok(recorded(&drafter, &verifier, &load_tokenizer(options)?))
}

fn recorded(drafter: &ModelDigests, verifier: &ModelDigests, tokenizer: &Tokenizer) -> Vec<InputDigest> {
    let [weights, configuration] = recorded_as("drafter", drafter);
    let tokenizer =
        InputDigest { of: TOKENIZER.to_owned(), path: weights.path.clone(), sha256: hex(&tokenizer.digest()) };
    [weights, configuration].into_iter().chain(recorded_as("verifier", verifier)).chain([tokenizer]).collect()
}
