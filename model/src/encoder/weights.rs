//! An encoder's tensors: found whatever prefix their names have, checked before anything is built from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Tensor;

use super::config::EncoderConfig;
use crate::ModelError;
use crate::load::parse_safetensors;

/// What the names start with, by who saved the model: alone, or as part of one with a head.
const PREFIXES: [&str; 3] = ["", "bert.", "roberta."];

/// A tensor that is in every encoder and tells the prefix.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// The tensors of the first `layers` layers in f32, by their names without prefix. `origin` names the folder in errors.
pub(super) fn tensors(
    files: Vec<(PathBuf, Vec<u8>)>,
    config: &EncoderConfig,
    layers: usize,
    origin: &str,
) -> Result<BTreeMap<String, Tensor>, ModelError> {
    let mut all = BTreeMap::new();
    for (path, bytes) in files {
        all.extend(parse_safetensors(&bytes, &path.display().to_string())?);
    }
    let found = PREFIXES.into_iter().find(|prefix| all.contains_key(&format!("{prefix}{WORDS}")));
    let prefix =
        found.ok_or_else(|| ModelError::MissingTensor { origin: origin.to_owned(), name: WORDS.to_owned() })?;
    let mut taken = BTreeMap::new();
    let mut take = |name: String, shape: &[usize]| {
        let stored = format!("{prefix}{name}");
        // Checkpoints from before PyTorch call a norm's weight gamma and its bias beta.
        let old = stored.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let tensor = all.remove(&stored).or_else(|| all.remove(&old));
        let missing = || ModelError::MissingTensor { origin: origin.to_owned(), name: stored.clone() };
        taken.insert(name, tensor.ok_or_else(missing)?.check(&stored, shape)?);
        Ok(())
    };
    let (hidden, ffn) = (config.hidden, config.ffn);
    take(WORDS.to_owned(), &[config.vocab, hidden])?;
    take("embeddings.position_embeddings.weight".to_owned(), &[config.positions, hidden])?;
    take("embeddings.token_type_embeddings.weight".to_owned(), &[config.types, hidden])?;
    take("embeddings.LayerNorm.weight".to_owned(), &[hidden])?;
    take("embeddings.LayerNorm.bias".to_owned(), &[hidden])?;
    for layer in 0..layers {
        for (part, rows, columns) in [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", ffn, hidden),
            ("output.dense", hidden, ffn),
        ] {
            take(format!("encoder.layer.{layer}.{part}.weight"), &[rows, columns])?;
            take(format!("encoder.layer.{layer}.{part}.bias"), &[rows])?;
        }
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            take(format!("encoder.layer.{layer}.{norm}.weight"), &[hidden])?;
            take(format!("encoder.layer.{layer}.{norm}.bias"), &[hidden])?;
        }
    }
    Ok(taken)
}
