//! Text to token ids and back.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use specfleet_files::guard;

use crate::{
    ModelError,
    load::read,
    shape::MOST_ENTRIES,
    text_growth::{Growth, check_file},
};

/// A Hugging Face tokenizer. Cloning copies the vocabulary; share it by reference or `Arc`.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The file, for errors.
    origin: String,
    growth: Growth,
    /// The largest id that a text can become.
    last_id: u32,
    digest: [u8; 32],
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a Hugging Face folder.
    pub fn load_dir(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("tokenizer.json");
        Self::parse(&read(&path)?, &path.display().to_string())
    }

    /// The tokenizer that the embedded drafter and verifier share.
    pub fn embedded() -> Result<Self, ModelError> {
        Self::parse(include_bytes!("../assets/tokenizer.json"), "embedded tokenizer")
    }

    fn parse(json: &[u8], origin: &str) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::Tokenizer {
            origin: origin.to_owned(),
            reason: format!("not a usable tokenizer: {reason}"),
        };
        check_file(json).map_err(refuse)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(json)).map_err(refuse)?;
        // A file may carry truncation or padding for training batches; here a text is one whole sequence. Before anything is
        // encoded: padding can be of any length.
        inner.with_truncation(None).map_err(|e| refuse(e.to_string()))?;
        inner.with_padding(None);
        let growth = Growth::of(&inner).map_err(refuse)?;
        let last_id = last_id(&inner).map_err(refuse)?;
        // A decoder that panics on a token would do so in the middle of a run.
        let all: Vec<u32> = (0..=last_id).collect();
        guarded(|| inner.decode(&all, false)).map_err(refuse)?;
        let canonical = guarded(|| inner.to_string(false)).map_err(refuse)?;
        let value: Value = serde_json::from_str(&canonical).map_err(|e| refuse(e.to_string()))?;
        let mut hasher = Sha256::new();
        hash_canonically(&value, &mut hasher);
        Ok(Self { inner, origin: origin.to_owned(), growth, last_id, digest: hasher.finalize().into() })
    }

    /// The ids of `text`, with what the tokenizer's post-processor adds (`<s>` in front, for the embedded one).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.growth.check(text).map_err(|reason| self.unusable(reason))?;
        let encoding = guarded(|| self.inner.encode(text, true));
        Ok(encoding.map_err(|reason| self.unusable(reason))?.get_ids().to_vec())
    }

    /// The text of `ids`; special tokens are left out, bytes that are not whole characters become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        guarded(|| self.inner.decode(ids, true)).map_err(|reason| self.unusable(reason))
    }

    fn unusable(&self, reason: String) -> ModelError {
        ModelError::Tokenizer { origin: self.origin.clone(), reason }
    }

    /// A decoder that yields text as tokens come.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream { tokenizer: self, ids: Vec::new(), shown: 0, text: String::new() }
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest id that a text can become; models must have an entry for it.
    pub fn last_id(&self) -> u32 {
        self.last_id
    }

    /// SHA-256 of the whole definition (vocabulary, merges, normaliser, pre-tokeniser, post-processor, decoder) in a
    /// canonical form: two tokenizers with the same digest treat every text alike. Formatting, the order of keys,
    /// truncation and padding do not enter.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// What the library answers. It takes files without complaint that it panics on later, such as one whose decoder strips more
/// characters than a token has; that is a reason like any other, and must not end whoever serves somebody else as well.
pub(crate) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    // All that a call changes in a tokenizer is a cache of words, which the library passes over if a panic has poisoned it.
    match guard::guarded(work) {
        Some(answer) => answer.map_err(|e| e.to_string()),
        None => Err("the library that reads it panicked".to_owned()),
    }
}

/// The largest id among the tokens of a vocabulary and those that are put around a text. A vocabulary that is empty, or whose
/// ids go beyond what any model has, is refused: the library walks over all ids up to the largest when it writes one out.
pub(crate) fn last_id(inner: &tokenizers::Tokenizer) -> Result<u32, String> {
    let last = inner.get_vocab(true).into_values().max().ok_or("its vocabulary is empty")?;
    let around = guarded(|| inner.encode("", true))?;
    let last = around.get_ids().iter().copied().fold(last, u32::max);
    if last as usize >= MOST_ENTRIES {
        return Err(format!("it has a token {last}, and ids must lie below {MOST_ENTRIES}"));
    }
    Ok(last)
}

/// Feeds a JSON value to a hash with object keys in order and every part delimited.
fn hash_canonically(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(map) => {
            hasher.update(b"{");
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            for (key, value) in entries {
                hash_text(key, hasher);
                hash_canonically(value, hasher);
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            items.iter().for_each(|item| hash_canonically(item, hasher));
            hasher.update(b"]");
        }
        Value::String(text) => hash_text(text, hasher),
        other => hash_text(&other.to_string(), hasher),
    }
}

fn hash_text(text: &str, hasher: &mut Sha256) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Turns tokens into text one by one, holding back bytes that are not yet whole characters.
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The tokens since the last place where the text was whole, with those before it that give context.
    ids: Vec<u32>,
    /// How many of `ids` had been shown; `text` is their text.
    shown: usize,
    text: String,
}

impl TokenStream<'_> {
    /// The text that `id` adds; empty while a character is incomplete and for special tokens.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        let new = self.unseen(&text);
        // Only the tokens since the last whole text stay: they are the context in which the next ones are decoded.
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        self.text = self.tokenizer.decode(&self.ids)?;
        Ok(new)
    }

    /// The text of a last incomplete character, if the tokens end in one.
    pub fn finish(self) -> Result<String, ModelError> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(self.unseen(&text))
    }

    fn unseen(&self, text: &str) -> String {
        text.strip_prefix(self.text.as_str()).unwrap_or(text).to_owned()
    }
}
