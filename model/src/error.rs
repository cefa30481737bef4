//! Everything that can go wrong, each message naming the file, tensor or range at fault.

use std::path::PathBuf;

use crate::{Precision, SeqId};

/// Why a model, tokenizer or forward pass was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// `config.json` is not a configuration that can be used.
    #[error("{origin}: {reason}")]
    Config {
        /// Where the configuration comes from: a file, or the name of an embedded model.
        origin: String,
        /// What is wrong with it, naming the key.
        reason: String,
    },
    /// A weights file is truncated, malformed or inconsistent with its index.
    #[error("{origin}: {reason}")]
    Weights {
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the configuration calls for is not in the weights.
    #[error("{origin}: tensor `{name}` is missing")]
    MissingTensor {
        /// Where the weights come from.
        origin: String,
        /// The tensor's name, as in Hugging Face's `LlamaForCausalLM`.
        name: String,
    },
    /// A tensor has another shape than the configuration calls for.
    #[error("{origin}: tensor `{name}` has shape {found:?}, the configuration needs {expected:?}")]
    TensorShape {
        /// Where the weights come from.
        origin: String,
        name: String,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor could not be converted to the precision.
    #[error("{origin}: tensor `{name}` cannot be stored as {precision}: {reason}")]
    Quantise {
        /// Where the weights come from.
        origin: String,
        name: String,
        /// The precision it was to be stored in.
        precision: Precision,
        /// What is in the way.
        reason: String,
    },
    /// A precision's name is not known.
    #[error("unknown precision `{0}`, expected one of f32, q8_0, q4_k")]
    UnknownPrecision(String),
    /// A tokenizer could not be read or used.
    #[error("{origin}: {reason}")]
    Tokenizer {
        /// The file, or `embedded tokenizer`.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder is no encoder that can be used.
    #[error("{origin}: {reason}")]
    Encoder {
        /// The folder, or the file in it.
        origin: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// A drafter and a verifier cannot work together.
    #[error("drafter and verifier do not form a pair: {0}")]
    Pair(String),
    /// A sequence id that this arena does not hold (closed, or of another arena).
    #[error("{0} is not open in this arena")]
    UnknownSequence(SeqId),
    /// A pass names a sequence twice.
    #[error("{0} appears twice in one pass")]
    DuplicateSequence(SeqId),
    /// A step brings no tokens.
    #[error("{0} has no new tokens in this pass")]
    EmptyStep(SeqId),
    /// An arena was built for a model of another shape.
    #[error("this arena was built for a model of another shape")]
    ForeignArena,
    /// A token id beyond the vocabulary.
    #[error("token {token} is outside the vocabulary 0..{vocab}")]
    TokenOutOfRange { token: u32, vocab: usize },
    /// A sequence would grow past the model's context.
    #[error("{seq}: {len} tokens in the cache and {new} new ones exceed the model's context of {context}")]
    ContextExceeded {
        seq: SeqId,
        /// Tokens in its cache.
        len: usize,
        /// Tokens to be appended.
        new: usize,
        /// The longest sequence that the model takes.
        context: usize,
    },
    /// The pass needs more cache than the arena's budget has left.
    #[error("the KV arena holds {used} of {budget} bytes and this pass needs {needed} more")]
    BudgetExceeded {
        /// Bytes in use before the pass.
        used: usize,
        /// Bytes that the pass would add.
        needed: usize,
        /// The arena's budget in bytes.
        budget: usize,
    },
    /// Attention was asked of a layer that does not exist.
    #[error("layer {layer} does not exist, the model has layers 0..{layers}")]
    LayerOutOfRange {
        /// The layer asked for.
        layer: usize,
        /// The number of layers.
        layers: usize,
    },
}
