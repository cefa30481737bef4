//! The tensors of a model, checked against its shape and packed.

use candle_core::Tensor;

use crate::{Fallback, ModelError, ModelShape, Precision, linear::Linear, load::Tensors};

/// One transformer layer. Projections that read the same row are stacked into one matrix.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    /// Queries, then keys, then values.
    pub(crate) qkv: Linear,
    pub(crate) attention_out: Linear,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
}

/// All weights of a model.
pub(crate) struct Weights {
    pub(crate) embeddings: Vec<f32>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Vec<f32>,
    pub(crate) head: Linear,
    pub(crate) fallbacks: Vec<Fallback>,
}

impl Weights {
    /// Takes what `shape` calls for out of `tensors`, in Hugging Face's names; others are ignored. `origin` names the
    /// source in errors.
    pub(crate) fn new(
        shape: &ModelShape,
        tensors: Tensors,
        precision: Precision,
        origin: &str,
    ) -> Result<Self, ModelError> {
        let mut take = Take { tensors, origin };
        let mut fallbacks = Vec::new();
        let (hidden, ffn, kv) = (shape.hidden, shape.ffn, shape.kv_dim());
        let mut layers = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let mut stack = |parts: &[(&str, usize, usize)], take: &mut Take<'_>| {
                let parts = parts
                    .iter()
                    .map(|(part, rows, len)| Ok((name(part), take.tensor(&name(part), &[*rows, *len])?)))
                    .collect::<Result<Vec<_>, ModelError>>()?;
                Linear::new(&parts, precision, origin, &mut fallbacks)
            };
            layers.push(Layer {
                attention_norm: take.vector(&name("input_layernorm"), &[hidden])?,
                qkv: stack(
                    &[
                        ("self_attn.q_proj", hidden, hidden),
                        ("self_attn.k_proj", kv, hidden),
                        ("self_attn.v_proj", kv, hidden),
                    ],
                    &mut take,
                )?,
                attention_out: stack(&[("self_attn.o_proj", hidden, hidden)], &mut take)?,
                ffn_norm: take.vector(&name("post_attention_layernorm"), &[hidden])?,
                gate_up: stack(&[("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden)], &mut take)?,
                down: stack(&[("mlp.down_proj", hidden, ffn)], &mut take)?,
            });
        }
        let final_norm = take.vector("model.norm.weight", &[hidden])?;
        let embedding_name = "model.embed_tokens.weight";
        let embedding = take.tensor(embedding_name, &[shape.vocab, hidden])?;
        let head = if shape.tied_head {
            (embedding_name.to_owned(), embedding.clone())
        } else {
            let name = "lm_head.weight";
            (name.to_owned(), take.tensor(name, &[shape.vocab, hidden])?)
        };
        Ok(Self {
            embeddings: take.floats(embedding_name, &embedding)?,
            layers,
            final_norm,
            head: Linear::new(&[head], precision, origin, &mut fallbacks)?,
            fallbacks,
        })
    }
}

/// Named tensors that are taken out one by one, so that a file's memory is freed as it is packed.
struct Take<'a> {
    tensors: Tensors,
    origin: &'a str,
}

impl Take<'_> {
    /// The tensor in f32, checked.
    fn tensor(&mut self, name: &str, expected: &[usize]) -> Result<Tensor, ModelError> {
        let stored = self.tensors.remove(name);
        let missing = || ModelError::MissingTensor { origin: self.origin.to_owned(), name: name.to_owned() };
        stored.ok_or_else(missing)?.check(name, expected)
    }

    fn vector(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name, expected)?;
        self.floats(name, &tensor)
    }

    fn floats(&self, name: &str, tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
        let refuse = |e: candle_core::Error| ModelError::Weights {
            origin: self.origin.to_owned(),
            reason: format!("tensor `{name}` {e}"),
        };
        tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(refuse)
    }
}
