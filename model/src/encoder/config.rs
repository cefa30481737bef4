//! `config.json` of an encoder, read strictly.

use std::path::Path;

use candle_nn::Activation;
use candle_transformers::models::{bert, xlm_roberta};
use serde_json::Value;

use super::layers::USUAL_LAYERS;
use crate::ModelError;

/// A family whose forward in candle agrees with the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EncoderFamily {
    Bert,
    /// Positions count from behind the padding token.
    Roberta,
    /// The same computation with another tokenizer.
    XlmRoberta,
}

impl EncoderFamily {
    const ALL: [EncoderFamily; 3] = [EncoderFamily::Bert, EncoderFamily::Roberta, EncoderFamily::XlmRoberta];

    pub(super) fn name(self) -> &'static str {
        match self {
            EncoderFamily::Bert => "bert",
            EncoderFamily::Roberta => "roberta",
            EncoderFamily::XlmRoberta => "xlm-roberta",
        }
    }
}

/// Model types that are decoders: a frequent slip is to name the folder of a language model.
const DECODERS: [&str; 12] = [
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neox", "phi3", "falcon",
];

/// Families of encoders that candle has and this program does not take, and why not.
const REFUSED: [(&str, &str); 1] =
    [("distilbert", "candle computes its activation by another formula than the reference")];

/// The sizes of an encoder.
#[derive(Clone, Debug)]
pub(super) struct EncoderConfig {
    pub(super) family: EncoderFamily,
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) ffn: usize,
    /// Rows of the position matrix.
    pub(super) positions: usize,
    /// Rows of the matrix of segments.
    pub(super) types: usize,
    pub(super) pad: u32,
    heads: usize,
    eps: f64,
    activation: Act,
    /// The name that the configuration gives the model, without its owner.
    name: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// With the error function.
    Gelu,
    GeluTanh,
    Relu,
}

impl EncoderConfig {
    /// Parses `config.json`; `origin` is its path.
    pub(super) fn parse(json: &[u8], origin: &str) -> Result<EncoderConfig, ModelError> {
        let refuse = |reason: String| ModelError::Encoder { origin: origin.to_owned(), reason };
        let raw: Value = serde_json::from_slice(json).map_err(|e| refuse(format!("not a JSON configuration: {e}")))?;
        let family = family(&raw).map_err(refuse)?;
        let number = |key: &str| -> Result<usize, ModelError> {
            let value = raw.get(key).ok_or_else(|| refuse(format!("{key} is missing")))?;
            match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
                Some(value) if value > 0 => Ok(value),
                _ => Err(refuse(format!("{key} = {value} must be a whole number, at least 1"))),
            }
        };
        let text = |key: &str, default: &'static str| match raw.get(key) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(refuse(format!("{key} = {other} must be a text"))),
        };
        let positions = text("position_embedding_type", "absolute")?;
        if positions != "absolute" {
            return Err(refuse(format!("position_embedding_type `{positions}` is not supported, only `absolute` is")));
        }
        if raw.get("is_decoder") == Some(&Value::Bool(true)) {
            return Err(refuse("is_decoder = true: BERTScore needs an encoder".to_owned()));
        }
        let activation = match text("hidden_act", "gelu")?.as_str() {
            "gelu" => Act::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Act::GeluTanh,
            "relu" => Act::Relu,
            other => {
                return Err(refuse(format!(
                    "hidden_act `{other}` is not supported, only gelu, gelu_new, gelu_pytorch_tanh and relu are"
                )));
            }
        };
        let eps = match raw.get("layer_norm_eps") {
            None => 1e-12,
            Some(value) => value
                .as_f64()
                .filter(|eps| (0.0..=0.1).contains(eps))
                .ok_or_else(|| refuse(format!("layer_norm_eps = {value} must be a number from 0 to 0.1")))?,
        };
        let pad = match raw.get("pad_token_id") {
            None | Some(Value::Null) => u32::from(family != EncoderFamily::Bert),
            Some(value) => value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| refuse(format!("pad_token_id = {value} must be a token")))?,
        };
        let name = raw.get("_name_or_path").and_then(Value::as_str);
        let config = EncoderConfig {
            family,
            vocab: number("vocab_size")?,
            hidden: number("hidden_size")?,
            layers: number("num_hidden_layers")?,
            ffn: number("intermediate_size")?,
            positions: number("max_position_embeddings")?,
            types: if raw.get("type_vocab_size").is_some() { number("type_vocab_size")? } else { 2 },
            pad,
            heads: number("num_attention_heads")?,
            eps,
            activation,
            name: name.and_then(|name| name.rsplit('/').next()).map(str::to_owned),
        };
        if !config.hidden.is_multiple_of(config.heads) {
            return Err(refuse(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                config.hidden, config.heads
            )));
        }
        if pad as usize >= config.vocab {
            return Err(refuse(format!("pad_token_id {pad} is outside the vocabulary 0..{}", config.vocab)));
        }
        Ok(config)
    }

    /// The layer that bert-score uses for the model of this folder's name, or of the configuration's; else the last.
    pub(super) fn usual_layer(&self, dir: &Path) -> usize {
        let known = |name: &str| {
            let entry = USUAL_LAYERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            entry.map(|(_, layer)| *layer).filter(|layer| *layer <= self.layers)
        };
        let folder = dir.file_name().and_then(|name| name.to_str());
        folder.and_then(known).or_else(|| self.name.as_deref().and_then(known)).unwrap_or(self.layers)
    }

    /// Most tokens that the positions allow, those around a text included.
    pub(super) fn position_limit(&self) -> usize {
        match self.family {
            EncoderFamily::Bert => self.positions,
            EncoderFamily::Roberta | EncoderFamily::XlmRoberta => self.positions.saturating_sub(self.pad as usize + 1),
        }
    }

    /// candle's configuration, with the first `layers` layers.
    pub(super) fn bert(&self, layers: usize) -> bert::Config {
        bert::Config {
            vocab_size: self.vocab,
            hidden_size: self.hidden,
            num_hidden_layers: layers,
            num_attention_heads: self.heads,
            intermediate_size: self.ffn,
            hidden_act: match self.activation {
                Act::Gelu => bert::HiddenAct::Gelu,
                Act::GeluTanh => bert::HiddenAct::GeluApproximate,
                Act::Relu => bert::HiddenAct::Relu,
            },
            max_position_embeddings: self.positions,
            type_vocab_size: self.types,
            layer_norm_eps: self.eps,
            pad_token_id: self.pad as usize,
            ..bert::Config::default()
        }
    }

    /// The same for both RoBERTas.
    pub(super) fn roberta(&self, layers: usize) -> xlm_roberta::Config {
        xlm_roberta::Config {
            hidden_size: self.hidden,
            layer_norm_eps: self.eps,
            attention_probs_dropout_prob: 0.0,
            hidden_dropout_prob: 0.0,
            num_attention_heads: self.heads,
            position_embedding_type: "absolute".to_owned(),
            intermediate_size: self.ffn,
            hidden_act: match self.activation {
                Act::Gelu => Activation::Gelu,
                Act::GeluTanh => Activation::NewGelu,
                Act::Relu => Activation::Relu,
            },
            num_hidden_layers: layers,
            vocab_size: self.vocab,
            max_position_embeddings: self.positions,
            type_vocab_size: self.types,
            pad_token_id: self.pad,
        }
    }
}

/// The family, or why the model is none that can be used.
fn family(raw: &Value) -> Result<EncoderFamily, String> {
    let supported = EncoderFamily::ALL.map(EncoderFamily::name).join(", ");
    let Some(kind) = raw.get("model_type").and_then(Value::as_str) else {
        return Err(format!("it has no model_type; supported are {supported}"));
    };
    if let Some(family) = EncoderFamily::ALL.into_iter().find(|family| family.name() == kind) {
        return Ok(family);
    }
    if DECODERS.contains(&kind) {
        return Err(format!("model_type `{kind}` is a decoder; BERTScore needs an encoder: {supported}"));
    }
    let why =
        REFUSED.iter().find(|(refused, _)| *refused == kind).map_or(String::new(), |(_, why)| format!(" ({why})"));
    Err(format!("model_type `{kind}` is not supported{why}; supported are {supported}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = r#"{"model_type": "roberta", "vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 24,
        "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 514, "pad_token_id": 1,
        "_name_or_path": "someone/roberta-large"}"#;

    #[test]
    fn the_usual_layer_goes_by_the_folder_then_the_configuration_then_the_end() {
        let config = EncoderConfig::parse(TINY.as_bytes(), "config.json").expect("valid");
        assert_eq!(config.usual_layer(Path::new("models/RoBERTa-base")), 10);
        assert_eq!(config.usual_layer(Path::new("models/mine")), 17);
        let unnamed = EncoderConfig { name: None, ..config.clone() };
        assert_eq!(unnamed.usual_layer(Path::new("mine")), 24);
        // A model that was cut has no such layer.
        assert_eq!(EncoderConfig { layers: 4, ..config }.usual_layer(Path::new("roberta-base")), 4);
    }

    #[test]
    fn positions_of_roberta_begin_behind_the_padding() {
        let config = EncoderConfig::parse(TINY.as_bytes(), "config.json").expect("valid");
        assert_eq!(config.position_limit(), 512);
        assert_eq!(EncoderConfig { family: EncoderFamily::Bert, ..config }.position_limit(), 514);
    }
}
