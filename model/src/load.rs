//! From files or embedded bytes to a configuration and named tensors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use candle_core::{DType, Device, Tensor, safetensors};
use candle_transformers::models::llama::LlamaConfig;
use serde_json::Value;
use specfleet_files::MEBIBYTE;

use crate::{ModelError, config::parse_config, finite::first_non_finite};

/// Most bytes of a file of weights: 64 GiB, far beyond the shards that models are published in.
const MOST_WEIGHTS: u64 = 64 * 1024 * MEBIBYTE;

/// Most bytes of what lies beside the weights. The largest tokenizers that are published have some 35 MB.
const MOST_BESIDE: u64 = 128 * MEBIBYTE;

/// A model that is part of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Embedded {
    /// 865,152 parameters: hidden 128, 3 layers, 4 heads.
    Drafter,
    /// 5,344,512 parameters: hidden 256, 6 layers, 8 heads.
    Verifier,
}

// Statics, because the bytes of a constant stand in the binary once for each place that names it.
static DRAFTER_WEIGHTS: &[u8] = include_bytes!("../assets/drafter/model.safetensors");
static VERIFIER_WEIGHTS: &[u8] = include_bytes!("../assets/verifier/model.safetensors");

impl Embedded {
    /// The bytes of its `model.safetensors`: what a digest of the weights is taken over.
    pub fn weights(self) -> &'static [u8] {
        match self {
            Embedded::Drafter => DRAFTER_WEIGHTS,
            Embedded::Verifier => VERIFIER_WEIGHTS,
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
pub(crate) struct ModelSource {
    pub(crate) origin: String,
    pub(crate) config_origin: String,
    pub(crate) config: LlamaConfig,
    pub(crate) tensors: Tensors,
}

pub(crate) type Tensors = BTreeMap<String, StoredTensor>;

/// A tensor as it is stored, in f32, f16 or bf16.
pub(crate) struct StoredTensor {
    tensor: Tensor,
    /// The file it comes from, for errors.
    origin: Rc<str>,
}

impl StoredTensor {
    pub(crate) fn new(tensor: Tensor, origin: &Rc<str>) -> StoredTensor {
        StoredTensor { tensor, origin: Rc::clone(origin) }
    }

    /// The tensor in f32, if it has the expected shape and every number in it is finite. `name` is for errors.
    pub(crate) fn check(self, name: &str, expected: &[usize]) -> Result<Tensor, ModelError> {
        let StoredTensor { tensor, origin } = self;
        let refuse = |what: String| ModelError::Weights {
            origin: origin.to_string(),
            reason: format!("tensor `{name}` {what}"),
        };
        if tensor.dims() != expected {
            return Err(ModelError::TensorShape {
                origin: origin.to_string(),
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        if !matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            return Err(refuse(format!("has type {:?}, expected f32, f16 or bf16", tensor.dtype())));
        }
        // In the type of the file, which is at most as long as f32; none of the three becomes finite or ceases to be so.
        if let Some((at, value)) = first_non_finite(&tensor).map_err(|e| refuse(e.to_string()))? {
            let row = expected.last().copied().unwrap_or(1);
            let place = match expected.len() {
                1 => format!("element {at}"),
                _ => format!("row {}, element {}", at / row, at % row),
            };
            return Err(refuse(format!("holds {value} ({place}); every weight must be a finite number")));
        }
        tensor.to_dtype(DType::F32).map_err(|e| refuse(e.to_string()))
    }
}

pub(crate) fn embedded(which: Embedded) -> Result<ModelSource, ModelError> {
    let origin = match which {
        Embedded::Drafter => "embedded drafter",
        Embedded::Verifier => "embedded verifier",
    };
    Ok(ModelSource {
        origin: origin.to_owned(),
        config_origin: origin.to_owned(),
        config: parse_config(which.config(), origin)?,
        tensors: parse_safetensors(which.weights(), origin)?,
    })
}

/// Reads a Hugging Face folder: `config.json`, and the weights as one `model.safetensors`, else as the files that
/// `model.safetensors.index.json` lists, or else as the folder's only `*.safetensors`.
pub(crate) fn folder(dir: &Path) -> Result<ModelSource, ModelError> {
    let config_path = dir.join("config.json");
    let config_origin = config_path.display().to_string();
    let config = parse_config(&read(&config_path)?, &config_origin)?;
    let mut tensors = BTreeMap::new();
    for path in weight_files(dir)? {
        tensors.extend(parse_safetensors(&read_weights(&path)?, &path.display().to_string())?);
    }
    Ok(ModelSource { origin: dir.display().to_string(), config_origin, config, tensors })
}

/// What lies beside weights: a configuration, a tokenizer, an index.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    specfleet_files::read(path, MOST_BESIDE).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}

pub(crate) fn read_weights(path: &Path) -> Result<Vec<u8>, ModelError> {
    specfleet_files::read(path, MOST_WEIGHTS).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}

pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = dir.join("model.safetensors");
    // An index beside the whole file is a remainder of shards that were merged: they need not be there any more.
    // What is there but no file is refused by whoever reads it.
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
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

pub(crate) fn parse_safetensors(bytes: &[u8], origin: &str) -> Result<Tensors, ModelError> {
    let file = Rc::from(origin);
    match safetensors::load_buffer(bytes, &Device::Cpu) {
        Ok(tensors) => Ok(tensors.into_iter().map(|(name, tensor)| (name, StoredTensor::new(tensor, &file))).collect()),
        Err(e) => Err(ModelError::Weights {
            origin: origin.to_owned(),
            reason: format!("not a whole safetensors file ({e})"),
        }),
    }
}
