//! What a user asked for in scores, checked against the run: methods, texts to compare with, verifier and baselines.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clap::ValueEnum;
use sha2::{Digest, Sha256};
use specfleet_analysis::Baseline;
use specfleet_config::short;
use specfleet_engine::calibration::Calibration;
use specfleet_files::hex;
use specfleet_ledger::Meta;
use specfleet_model::Model;

use super::texts::Texts;
use crate::error::Error;
use crate::pair::{VERIFIER_VERSION, load_verifier};
use crate::progress::Progress;

/// What texts are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// The references of the workload.
    Reference,
    /// What `llm-only` wrote for the same prompt.
    LlmOnly,
    /// Both.
    Both,
}

/// What to compute, and how to say so.
pub struct ScoreOptions<'a> {
    /// Folder of an encoder, for BERTScore.
    pub encoder: Option<&'a Path>,
    /// Layer of its states; without one the reference's choice for its name, else the last.
    pub layer: Option<usize>,
    /// Whether tokens weigh by their inverse document frequency.
    pub idf: bool,
    /// File of baselines, for rescaled figures too.
    pub baseline: Option<&'a Path>,
    /// What to compare with; without one both, as far as the run has them.
    pub against: Option<Against>,
    /// Whether to compute perplexities.
    pub perplexity: bool,
    /// Only generations of these methods; all without any.
    pub methods: Option<Vec<String>>,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Set when somebody wants it to end.
    pub interrupted: &'a AtomicBool,
}

fn refuse(meta: &Meta, why: &str) -> Error {
    Error::Score(format!("run {}: {why}", meta.run))
}

/// Indices of the methods to score.
pub(super) fn chosen_methods(meta: &Meta, options: &ScoreOptions<'_>) -> Result<BTreeSet<u16>, Error> {
    let names: Vec<&str> = meta.methods.iter().map(|method| method.name.as_str()).collect();
    let index = |name: &str| names.iter().position(|known| *known == name).map(|index| index as u16);
    match &options.methods {
        None => Ok((0..names.len() as u16).collect()),
        Some(asked) => asked
            .iter()
            .map(|name| {
                index(name).ok_or_else(|| {
                    Error::Score(format!(
                        "--methods: run {} has no method {name:?}; it has {}",
                        meta.run,
                        names.join(", ")
                    ))
                })
            })
            .collect(),
    }
}

/// Whether to compare with the references, and whether with `llm-only`.
pub(super) fn targets(
    meta: &Meta,
    texts: &Texts,
    options: &ScoreOptions<'_>,
    notes: &mut Vec<String>,
) -> Result<(bool, bool), Error> {
    let reference = texts.references().next().is_some();
    let llm_only = texts.llm_only_texts().next().is_some();
    match options.against {
        Some(Against::Reference | Against::Both) if !reference => {
            Err(refuse(meta, "--against: its workload has no references to compare with; use llm-only"))
        }
        Some(Against::LlmOnly | Against::Both) if !llm_only => {
            Err(refuse(meta, "--against: it has no answers of llm-only to compare with; use reference"))
        }
        Some(Against::Reference) => Ok((true, false)),
        Some(Against::LlmOnly) => Ok((false, true)),
        Some(Against::Both) => Ok((true, true)),
        None if !reference && !llm_only && !options.perplexity => {
            Err(refuse(meta, "it has neither references nor answers of llm-only to compare with; use --perplexity"))
        }
        None => {
            if !reference {
                notes.push("nothing is compared with references: the run's workload has none".to_owned());
            }
            if !llm_only {
                notes.push("nothing is compared with llm-only: the run has no answers of it".to_owned());
            }
            Ok((reference, llm_only))
        }
    }
}

/// The verifier that the run had in its pool. One that has changed since is refused, as far as the run can tell.
pub(super) fn verifier_of(meta: &Meta, texts: &Texts) -> Result<(Model, String), Error> {
    let loaded = load_verifier(&texts.settings.model)
        .map_err(|error| refuse(meta, &format!("--perplexity: its verifier cannot be loaded: {error}")))?;
    // Runs of before digests were kept may still have a calibration that names them.
    let calibrations = || {
        let stored = meta.calibration.clone()?;
        Some(serde_json::from_value::<Vec<Calibration>>(stored).ok()?.into_iter().next()?.key.verifier)
    };
    let recorded = meta.versions.get(VERIFIER_VERSION).cloned().or_else(calibrations);
    if let Some(recorded) = recorded.filter(|recorded| *recorded != loaded.digest) {
        let (then, now) = (short(&recorded), short(&loaded.digest));
        let why = format!("--perplexity: its verifier changed since the run: SHA-256 {then} then, {now} now");
        return Err(refuse(meta, &why));
    }
    Ok((loaded.model, loaded.digest))
}

/// A file of baselines and the row that counts.
pub(super) struct BaselineFile {
    pub(super) row: Baseline,
    pub(super) digest: String,
}

impl BaselineFile {
    pub(super) fn read(path: &Path, layer: usize) -> Result<BaselineFile, Error> {
        let refuse = |why: String| Error::Score(format!("--baseline: {}: {why}", path.display()));
        let bytes = specfleet_files::read(path, specfleet_files::DATA).map_err(|error| refuse(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
        let row = Baseline::parse(&text, layer).map_err(refuse)?;
        Ok(BaselineFile { row, digest: hex(Sha256::digest(text.as_bytes()).as_slice()) })
    }
}
