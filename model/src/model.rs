//! A loaded model.

use std::{
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use candle_core::Tensor;
use candle_transformers::models::llama::LlamaConfig;

use crate::{
    Embedded, Fallback, ModelError, ModelShape, Precision,
    load::{self, ModelSource, StoredTensor},
    rope::Rope,
    weights::Weights,
};

/// A Llama-family model, ready to run. Cloning shares the weights.
#[derive(Clone)]
pub struct Model(Arc<ModelInner>);

pub(crate) struct ModelInner {
    pub(crate) shape: ModelShape,
    pub(crate) weights: Weights,
    pub(crate) rope: Rope,
    /// Rows of logits that were not all finite.
    pub(crate) non_finite: AtomicU64,
    precision: Precision,
}

impl Model {
    /// Loads a Hugging Face folder: `config.json` and the weights in f32, f16 or bf16, as `model.safetensors`, as the
    /// shards of `model.safetensors.index.json`, or as the folder's only `*.safetensors`. Errors name the file, key or
    /// tensor at fault.
    pub fn load_dir(dir: &Path, precision: Precision) -> Result<Self, ModelError> {
        Self::from_source(load::folder(dir)?, precision)
    }

    /// Loads a model of the pair that is part of the binary; reads no file.
    pub fn embedded(which: Embedded, precision: Precision) -> Result<Self, ModelError> {
        Self::from_source(load::embedded(which)?, precision)
    }

    /// Builds a model from tensors in Hugging Face's names (`model.layers.0.self_attn.q_proj.weight`, …).
    pub fn from_tensors(
        config: &LlamaConfig,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let origin = Rc::from("given tensors");
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, StoredTensor::new(tensor, &origin))).collect();
        Self::from_source(
            ModelSource {
                origin: origin.to_string(),
                config_origin: origin.to_string(),
                config: config.clone(),
                tensors,
            },
            precision,
        )
    }

    fn from_source(source: ModelSource, precision: Precision) -> Result<Self, ModelError> {
        let shape = ModelShape::new(&source.config, &source.config_origin)?;
        Ok(Self(Arc::new(ModelInner {
            weights: Weights::new(&shape, source.tensors, precision, &source.origin)?,
            rope: Rope::new(&source.config),
            non_finite: AtomicU64::new(0),
            shape,
            precision,
        })))
    }

    /// The model's sizes.
    pub fn shape(&self) -> &ModelShape {
        &self.0.shape
    }

    /// Memory that the weights take, in bytes; norms, which are small beside it, are left out.
    pub fn weight_bytes(&self) -> usize {
        let shape = self.shape();
        let embeddings = shape.vocab * shape.hidden;
        // A tied head is packed again beside the embeddings, which stay `f32`.
        let packed = shape.parameters - if shape.tied_head { 0 } else { embeddings };
        let block = self.precision().block();
        let block_bytes = match self.precision() {
            Precision::F32 => 4,
            Precision::Q8_0 => 34,
            Precision::Q4K => 144,
        };
        embeddings * size_of::<f32>() + packed / block * block_bytes
    }

    /// How many rows of logits were not all finite, in all passes of this model and its clones: weights that are finite can
    /// still overflow on the way. What is drawn from such a row means nothing.
    pub fn non_finite_rows(&self) -> u64 {
        self.0.non_finite.load(Ordering::Relaxed)
    }

    /// The precision that was asked for.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// Matrices that are stored finer than asked because of their row length; empty in most cases.
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.0.weights.fallbacks
    }

    pub(crate) fn inner(&self) -> &ModelInner {
        &self.0
    }
}
