//! Encoders of the BERT family, for BERTScore: texts in, one state per token out.
//!
//! The forwards are candle-transformers' own. What is here says which folders they may be given: `config.json` is read
//! strictly, every tensor's name and shape is checked before anything is built, and what candle would compute otherwise
//! than the reference (transformers) is refused by name.

mod config;
mod layers;
mod weights;
mod words;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, xlm_roberta};
use sha2::{Digest, Sha256};

use self::config::{EncoderConfig, EncoderFamily};
use self::words::Words;
use crate::ModelError;
use crate::load::{read, read_weights, weight_files};

/// An encoder, ready to run, with its tokenizer.
///
/// A folder holds `config.json`, `tokenizer.json` (or the `vocab.txt` of a WordPiece vocabulary), optionally
/// `tokenizer_config.json`, and the weights as `*.safetensors` in f32, f16 or bf16; it computes in f32.
pub struct Encoder {
    forward: Forward,
    words: Words,
    config: EncoderConfig,
    layer: usize,
    digest: [u8; 32],
}

enum Forward {
    Bert(bert::BertModel),
    Roberta(xlm_roberta::XLMRobertaModel),
}

impl Encoder {
    /// Loads the folder's encoder up to `layer`: its states after that many layers, 0 being the embeddings. Without one,
    /// the layer is the one that bert-score 0.3.13 uses for the model of this name (the folder's, or the one that its
    /// configuration gives), else the last.
    ///
    /// Errors name the file, key or tensor at fault: a folder without configuration, weights or tokenizer, a decoder, a
    /// family that is not supported, tensors that are missing or of another shape, a layer that does not exist.
    pub fn load_dir(dir: &Path, layer: Option<usize>) -> Result<Encoder, ModelError> {
        let origin = dir.display().to_string();
        let refuse = |reason: &str| ModelError::Encoder { origin: origin.clone(), reason: reason.to_owned() };
        if !dir.is_dir() {
            return Err(refuse("there is no such folder"));
        }
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(refuse(
                "it has no config.json (an encoder's folder holds config.json, tokenizer.json or vocab.txt, and *.safetensors)",
            ));
        }
        let mut digest = Sha256::new();
        let json = read(&path)?;
        digest.update(&json);
        let config = EncoderConfig::parse(&json, &path.display().to_string())?;
        let layer = layer.unwrap_or_else(|| config.usual_layer(dir));
        if layer > config.layers {
            return Err(refuse(&format!("it has no layer {layer}, only 0 (the embeddings) to {}", config.layers)));
        }
        let words = Words::load(dir, &config, &mut digest)?;
        let mut files = Vec::new();
        for path in weight_files(dir)? {
            let bytes = read_weights(&path)?;
            digest.update(&bytes);
            files.push((path, bytes));
        }
        let tensors = weights::tensors(files, &config, layer, &origin)?;
        let vars = VarBuilder::from_tensors(tensors.into_iter().collect(), DType::F32, &Device::Cpu);
        let failed =
            |error: candle_core::Error| ModelError::Weights { origin: origin.clone(), reason: error.to_string() };
        let forward = match config.family {
            EncoderFamily::Bert => Forward::Bert(bert::BertModel::load(vars, &config.bert(layer)).map_err(failed)?),
            EncoderFamily::Roberta | EncoderFamily::XlmRoberta => {
                Forward::Roberta(xlm_roberta::XLMRobertaModel::new(&config.roberta(layer), vars).map_err(failed)?)
            }
        };
        Ok(Encoder { forward, words, config, layer, digest: digest.finalize().into() })
    }

    /// The family as `config.json` names it: `bert`, `roberta` or `xlm-roberta`.
    pub fn family(&self) -> &'static str {
        self.config.family.name()
    }

    /// The layer that states are taken after.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// The encoder's own number of layers.
    pub fn layers(&self) -> usize {
        self.config.layers
    }

    /// Width of a state.
    pub fn width(&self) -> usize {
        self.config.hidden
    }

    /// Most tokens of a text, the two around it included; longer ones are cut.
    pub fn limit(&self) -> usize {
        self.words.limit()
    }

    /// The two tokens that stand around every text (`[CLS]` and `[SEP]`, or what this vocabulary calls them).
    pub fn around(&self) -> [u32; 2] {
        self.words.around()
    }

    /// SHA-256 over everything that was read: configuration, tokenizer and weights.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The tokens of `text` as bert-score takes them: whitespace around the text stripped, cut to [`Encoder::limit`], with
    /// the two tokens around it. A text without words is these two alone.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.words.tokens(text)
    }

    /// The states of a batch of texts, given as [`Encoder::tokens`]: `[tokens, width]` each, row-major. Texts of about the
    /// same length go well together, because the shorter ones are padded; the padding is masked and leaves no trace.
    pub fn states(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let longest = batch.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); batch.len()]);
        }
        if longest > self.limit() {
            return Err(self.failed(&format!("a text of {longest} tokens exceeds its limit of {}", self.limit())));
        }
        let run = || {
            let (mut ids, mut mask) = (Vec::new(), Vec::new());
            for tokens in batch {
                let padding = longest - tokens.len();
                ids.extend_from_slice(tokens);
                ids.extend(std::iter::repeat_n(self.config.pad, padding));
                mask.extend(std::iter::repeat_n(1u32, tokens.len()));
                mask.extend(std::iter::repeat_n(0u32, padding));
            }
            let shape = (batch.len(), longest);
            let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
            let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
            let types = ids.zeros_like()?;
            let states = match &self.forward {
                Forward::Bert(model) => model.forward(&ids, &types, Some(&mask))?,
                Forward::Roberta(model) => model.forward(&ids, &mask, &types, None, None, None)?,
            };
            states.flatten_all()?.to_vec1::<f32>()
        };
        let all = run().map_err(|error: candle_core::Error| self.failed(&error.to_string()))?;
        let rows = all.chunks_exact(longest * self.width()).zip(batch);
        Ok(rows.map(|(row, tokens)| row[..tokens.len() * self.width()].to_vec()).collect())
    }

    fn failed(&self, reason: &str) -> ModelError {
        ModelError::Encoder { origin: format!("{} encoder", self.family()), reason: reason.to_owned() }
    }
}
