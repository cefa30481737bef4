//! A Llama-family forward over packed ragged batches, with its KV arena, weights and tokenizer; and encoders of the BERT
//! family, for scores ([`Encoder`]).
//!
//! Start at [`Model`] (weights, shared by reference count), [`KvArena`] (the caches of many sequences under one byte
//! budget) and [`Model::forward`] (one pass over any number of sequences). Inside, read `forward.rs` first: it is the
//! whole computation in order, and the other files are the steps it calls.
//!
//! **Batch invariance.** The logits and attention of a row are bit-identical, on one machine, whatever else is in the
//! pass, for any number of threads, and however the sequence's own tokens were divided into passes. It holds because
//! every output number is computed by one fixed sequence of operations that depends only on its own row and on
//! positions in its own cache, never on how many rows the pass has. Each kernel says how it keeps this.

mod arena;
mod attention;
mod charsmap;
mod config;
mod digests;
mod elementwise;
mod encoder;
mod error;
mod finite;
mod forward;
mod kernel;
mod linear;
mod load;
mod model;
mod pair;
mod precision;
mod probe;
mod rope;
mod shape;
mod text_growth;
mod tokenizer;
mod weights;

pub use arena::{KvArena, SeqId, useful_threads};
pub use candle_transformers::models::llama::LlamaConfig;
pub use digests::ModelDigests;
pub use encoder::Encoder;
pub use error::ModelError;
pub use forward::{ForwardOutput, LogitRows, SeqStep, States};
pub use load::Embedded;
pub use model::Model;
pub use pair::{check_pair, check_tokenizer};
pub use precision::{Fallback, Precision};
pub use probe::kernel_digest;
pub use shape::ModelShape;
pub use tokenizer::{TokenStream, Tokenizer};
