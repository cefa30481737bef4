//! From files or embedded bytes to a configuration and named tensors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor, safetensors};
use candle_transformers::models::llama::LlamaConfig;
use serde_json::Value;

use crate::{ModelError, config::parse_config};

/// A model that is part of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Embedded {
    /// 865,152 parameters: hidden 128, 3 layers, 4 heads.
    Drafter,
    /// 5,344,512 parameters: hidden 256, 6 layers, 8 heads.
    Verifier,
}

impl Embedded {
    /// The bytes of its `model.safetensors`: what a digest of the weights is taken over.
    pub fn weights(self) -> &'static [u8] {
        match self {
            Embedded::Drafter => include_bytes!("../assets/drafter/model.safetensors"),
            Embedded::Verifier => include_bytes!("../assets/verifier/model.safetensors"),
        }
    }

    /// The bytes of its `config.json`.
    pub fn config(self) -> &'static [u8] {
        match self {
            Embedded::Drafter => include_bytes!("../assets/drafter/config.json"),
            Embedded::Verifier => include_bytes!("../assets/verifier/config.json"),
        }
    }
}

/// A configuration with its tensors, and where they come from (for errors).
pub(crate) struct Source {
    pub(crate) origin: String,
    pub(crate) config: LlamaConfig,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

pub(crate) fn embedded(which: Embedded) -> Result<Source, ModelError> {
    let origin = match which {
        Embedded::Drafter => "embedded drafter",
        Embedded::Verifier => "embedded verifier",
    };
    Ok(Source {
        origin: origin.to_owned(),
        config: parse_config(which.config(), origin)?,
        tensors: parse_safetensors(which.weights(), origin)?,
    })
}

/// Reads a Hugging Face folder: `config.json`, and the weights as one `model.safetensors`, else as the files that
/// `model.safetensors.index.json` lists, or else as the folder's only `*.safetensors`.
pub(crate) fn folder(dir: &Path) -> Result<Source, ModelError> {
    let config_path = dir.join("config.json");
    let config = parse_config(&read(&config_path)?, &config_path.display().to_string())?;
    let mut tensors = BTreeMap::new();
    for path in weight_files(dir)? {
        tensors.extend(parse_safetensors(&read(&path)?, &path.display().to_string())?);
    }
    Ok(Source { origin: dir.display().to_string(), config, tensors })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}

pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = dir.join("model.safetensors");
    // An index beside the whole file is a remainder of shards that were merged: they need not be there any more.
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if index.is_file() {
        let refuse = |reason: String| ModelError::Weights { origin: index.display().to_string(), reason };
        let json: Value = serde_json::from_slice(&read(&index)?).map_err(|e| refuse(e.to_string()))?;
        let map = json
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| refuse("no `weight_map` object".to_owned()))?;
        let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
        // A listed file is a plain name in this folder; anything else would read outside it.
        if let Some(odd) = names.iter().find(|n| n.contains(['/', '\\'])) {
            return Err(refuse(format!("`{odd}` is not a file name in this folder")));
        }
        return Ok(names.into_iter().map(|n| dir.join(n)).collect());
    }
    let listing = fs::read_dir(dir).map_err(|source| ModelError::Read { path: dir.to_owned(), source })?;
    let mut found: Vec<PathBuf> = listing
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    found.sort();
    if found.len() == 1 {
        return Ok(found);
    }
    Err(ModelError::Weights {
        origin: dir.display().to_string(),
        reason: format!(
            "expected model.safetensors or model.safetensors.index.json, found {} other *.safetensors files",
            found.len()
        ),
    })
}

pub(crate) fn parse_safetensors(bytes: &[u8], origin: &str) -> Result<BTreeMap<String, Tensor>, ModelError> {
    match safetensors::load_buffer(bytes, &Device::Cpu) {
        Ok(tensors) => Ok(tensors.into_iter().collect()),
        Err(e) => Err(ModelError::Weights {
            origin: origin.to_owned(),
            reason: format!("not a whole safetensors file ({e})"),
        }),
    }
}
