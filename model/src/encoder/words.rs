//! Text to an encoder's tokens, as bert-score does it (`sent_encode` in its utils.py).

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NFC, Sequence};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, TruncationParams};

use super::config::{EncoderConfig, EncoderFamily};
use crate::ModelError;
use crate::load::read;
use crate::text_growth::{Growth, check_file};
use crate::tokenizer::{guarded, last_id};

/// A tokenizer that puts two tokens around each text and cuts what is too long.
pub(super) struct Words {
    inner: tokenizers::Tokenizer,
    around: [u32; 2],
    limit: usize,
    growth: Growth,
    /// Byte-level vocabularies tell a word at the start of a text from one behind a space; bert-score wants the latter.
    space_in_front: bool,
    origin: String,
}

impl Words {
    /// Reads `tokenizer.json`, or else `vocab.txt`; and from `tokenizer_config.json`, if it is there, how long a text may
    /// be and how `vocab.txt` is meant. Everything read is fed to `digest`.
    pub(super) fn load(dir: &Path, config: &EncoderConfig, digest: &mut Sha256) -> Result<Words, ModelError> {
        let (whole, vocabulary) = (dir.join("tokenizer.json"), dir.join("vocab.txt"));
        let options_path = dir.join("tokenizer_config.json");
        let options = if options_path.exists() {
            let bytes = read(&options_path)?;
            digest.update(&bytes);
            serde_json::from_slice(&bytes)
                .map_err(|e| unusable(&options_path.display().to_string(), &format!("not a JSON configuration: {e}")))?
        } else {
            Value::Null
        };
        let (mut inner, origin) = if whole.exists() {
            let (bytes, origin) = (read(&whole)?, whole.display().to_string());
            digest.update(&bytes);
            check_file(&bytes).map_err(|reason| unusable(&origin, &reason))?;
            let parsed = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes));
            (parsed.map_err(|reason| unusable(&origin, &format!("not a usable tokenizer: {reason}")))?, origin)
        } else if vocabulary.exists() {
            let (bytes, origin) = (read(&vocabulary)?, vocabulary.display().to_string());
            digest.update(&bytes);
            (word_pieces(&bytes, &options).map_err(|reason| unusable(&origin, &reason))?, origin)
        } else {
            let origin = dir.display().to_string();
            return Err(ModelError::Encoder { origin, reason: "it has no tokenizer.json and no vocab.txt".to_owned() });
        };
        let entries = inner.get_vocab_size(true);
        if entries > config.vocab {
            let reason = format!("it has {entries} tokens, the encoder's vocab_size is {}", config.vocab);
            return Err(unusable(&origin, &reason));
        }
        // Before anything is encoded: padding can be of any length.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| unusable(&origin, &e.to_string()))?;
        let growth = Growth::of(&inner).map_err(|reason| unusable(&origin, &reason))?;
        let last = last_id(&inner).map_err(|reason| unusable(&origin, &reason))?;
        if last as usize >= config.vocab {
            let reason = format!("it has a token {last}, outside the encoder's vocabulary 0..{}", config.vocab);
            return Err(unusable(&origin, &reason));
        }
        let limit = limit(&options, config);
        if limit < 3 {
            let reason = format!("a text may have {limit} tokens, which leaves no room between the two around it");
            return Err(unusable(&origin, &reason));
        }
        let empty = guarded(|| inner.encode("", true)).map_err(|reason| unusable(&origin, &reason))?;
        let around: [u32; 2] = empty.get_ids().try_into().map_err(|_| {
            let found = empty.get_ids().len();
            unusable(&origin, &format!("it puts {found} tokens around a text, expected two ([CLS] and [SEP])"))
        })?;
        let cut = TruncationParams { max_length: limit, ..TruncationParams::default() };
        inner.with_truncation(Some(cut)).map_err(|e| unusable(&origin, &e.to_string()))?;
        Ok(Words { inner, around, limit, growth, space_in_front: config.family == EncoderFamily::Roberta, origin })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn around(&self) -> [u32; 2] {
        self.around
    }

    pub(super) fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let text = strip(text);
        self.growth.check(text).map_err(|reason| unusable(&self.origin, &reason))?;
        let encoded = guarded(|| {
            if self.space_in_front && !text.is_empty() {
                self.inner.encode(format!(" {text}"), true)
            } else {
                self.inner.encode(text, true)
            }
        });
        Ok(encoded.map_err(|reason| unusable(&self.origin, &reason))?.get_ids().to_vec())
    }
}

fn unusable(origin: &str, reason: &str) -> ModelError {
    ModelError::Tokenizer { origin: origin.to_owned(), reason: reason.to_owned() }
}

/// Python's `str.strip`: it also takes the four separators of ASCII for white space.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// Most tokens of a text: what `tokenizer_config.json` says, and no more than the encoder has positions for. (A tokenizer
/// that knows no limit writes 10^30.)
fn limit(options: &Value, config: &EncoderConfig) -> usize {
    let said = options.get("model_max_length").and_then(Value::as_f64).filter(|said| said.is_finite() && *said >= 0.0);
    // A number beyond the range of usize becomes its largest.
    said.map_or(usize::MAX, |said| said as usize).min(config.position_limit())
}

/// The tokenizer that transformers makes of a BERT's `vocab.txt`.
fn word_pieces(vocabulary: &[u8], options: &Value) -> Result<tokenizers::Tokenizer, String> {
    let flag = |key: &str, default: bool| options.get(key).and_then(Value::as_bool).unwrap_or(default);
    let lower_case = flag("do_lower_case", true);
    let strip_accents = flag("strip_accents", lower_case);
    // A byte order mark would belong to the first token.
    let vocabulary = vocabulary.strip_prefix("\u{feff}".as_bytes()).unwrap_or(vocabulary);
    let vocabulary = WordPiece::read_bytes(vocabulary).map_err(|e| format!("not a vocabulary: {e}"))?;
    let model = WordPiece::builder().vocab(vocabulary).unk_token("[UNK]".to_owned()).build();
    let mut tokenizer = tokenizers::Tokenizer::new(model.map_err(|e| format!("not a vocabulary: {e}"))?);
    let id = |tokenizer: &tokenizers::Tokenizer, token: &str| {
        tokenizer.token_to_id(token).ok_or_else(|| format!("not a vocabulary of word pieces: it has no {token}"))
    };
    id(&tokenizer, "[UNK]")?;
    let (cls, sep) = (id(&tokenizer, "[CLS]")?, id(&tokenizer, "[SEP]")?);
    // The order of transformers' BasicTokenizer; it composes characters in between.
    let steps = vec![
        NormalizerWrapper::BertNormalizer(BertNormalizer::new(
            true,
            flag("tokenize_chinese_chars", true),
            Some(false),
            false,
        )),
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::BertNormalizer(BertNormalizer::new(false, false, Some(strip_accents), lower_case)),
    ];
    tokenizer.with_normalizer(Some(Sequence::new(steps))).map_err(|e| e.to_string())?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(BertProcessing::new(("[SEP]".to_owned(), sep), ("[CLS]".to_owned(), cls))));
    let special = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"];
    let known = special.into_iter().filter(|token| tokenizer.token_to_id(token).is_some());
    let known: Vec<AddedToken> = known.map(|token| AddedToken::from(token, true)).collect();
    tokenizer.add_special_tokens(known).map_err(|e| e.to_string())?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_pythons() {
        assert_eq!(strip("\u{3000}\x1f\t a b\u{a0}\x1c\n"), "a b");
        assert_eq!(strip("\u{200b}a\x1b"), "\u{200b}a\x1b");
        assert_eq!(strip(" \r\n\u{2028}"), "");
    }
}
