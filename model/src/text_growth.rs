//! How much longer a tokenizer can make a text. Normalizers and decoders replace parts of a text by others, as often as
//! their file says, so a small file and a short prompt can ask for more memory than there is. What they can make of a text
//! is bounded here before anything is computed.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::normalizers::Precompiled;

use crate::charsmap::check_charsmap;

/// Longest text that a tokenizer puts into another one, and longest entry of a vocabulary, in bytes.
const LONGEST_PIECE: usize = 1024;

/// Most bytes of a text once it is normalized. Where each came from takes sixteen more.
const MOST_BYTES: f64 = 67_108_864.0;

/// Most bytes that a normalizer or a decoder can make of one.
const MOST_OF_ONE: f64 = 4096.0;

/// A text of n bytes has at most `factor · n + added` once it is normalized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    factor: f64,
    added: f64,
}

impl Growth {
    /// That of a tokenizer; or why it is refused. Nothing is encoded meanwhile.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Result<Growth, String> {
        let longest = tokenizer.get_vocab(true).into_keys().max_by_key(String::len).unwrap_or_default();
        if longest.len() > LONGEST_PIECE {
            let begins: String = longest.chars().take(16).collect();
            return Err(format!(
                "its token {begins:?}… has {} bytes, at most {LONGEST_PIECE} are taken",
                longest.len()
            ));
        }
        let written = |part: serde_json::Result<Value>| part.map_err(|e| e.to_string());
        growth_of("decoder", &written(serde_json::to_value(tokenizer.get_decoder()))?)?;
        growth_of("normalizer", &written(serde_json::to_value(tokenizer.get_normalizer()))?)
    }

    /// Refuses a text that may become too long.
    pub(crate) fn check(self, text: &str) -> Result<(), String> {
        let most = self.factor * text.len() as f64 + self.added;
        if most > MOST_BYTES {
            return Err(format!(
                "a text of {} bytes may become {most} in it, at most {MOST_BYTES} are taken",
                text.len()
            ));
        }
        Ok(())
    }
}

/// The parts of a tokenizer's file that the library takes for granted.
#[derive(Deserialize)]
struct TextParts {
    /// The library panics on one that is no JSON.
    #[serde(default, rename = "decoder")]
    _decoder: Value,
    #[serde(default)]
    normalizer: Value,
}

/// Refuses a tokenizer's file on which the library would panic, or which it would reserve memory for by its word alone.
pub(crate) fn check_file(json: &[u8]) -> Result<(), String> {
    // The vocabulary, nearly all of a large file, is passed over.
    let TextParts { normalizer, .. } = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let mut open = vec![&normalizer];
    while let Some(value) = open.pop() {
        if value.get("type").and_then(Value::as_str) == Some("Precompiled")
            || value.get("precompiled_charsmap").is_some()
        {
            let refuse = |reason: &str| Err(format!("its normalizer of type Precompiled cannot be used: {reason}"));
            let map = value.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
            if let Err(reason) = check_charsmap(&decode_base64(map)) {
                return refuse(&reason);
            }
            // It reads borrowed texts only.
            if let Err(error) = serde_json::from_str::<Precompiled>(&value.to_string()) {
                return refuse(&error.to_string());
            }
        }
        open.extend(value.get("normalizers").and_then(Value::as_array).into_iter().flatten());
    }
    Ok(())
}

/// What the steps of a part of a tokenizer do one after the other.
fn growth_of(part: &str, steps: &Value) -> Result<Growth, String> {
    let mut whole = Growth { factor: 1.0, added: 0.0 };
    // In order: a stack that takes the first step next.
    let mut open = vec![steps];
    while let Some(step) = open.pop() {
        if let Some(inner) = step.get("normalizers").or_else(|| step.get("decoders")).and_then(Value::as_array) {
            open.extend(inner.iter().rev());
            continue;
        }
        let Growth { factor, added } = growth_of_step(part, step)?;
        whole = Growth { factor: whole.factor * factor, added: whole.added * factor + added };
        if whole.factor + whole.added > MOST_OF_ONE {
            return Err(format!("its {part} can make more than {MOST_OF_ONE} bytes of one"));
        }
    }
    Ok(whole)
}

fn growth_of_step(part: &str, step: &Value) -> Result<Growth, String> {
    let piece = |value: Option<&Value>| {
        let length = value.and_then(Value::as_str).map_or(0, str::len);
        if length > LONGEST_PIECE {
            return Err(format!("its {part} puts in a text of {length} bytes, at most {LONGEST_PIECE} are taken"));
        }
        Ok(length as f64)
    };
    let factor = match step.get("type").and_then(Value::as_str).unwrap_or_default() {
        "Prepend" => return Ok(Growth { factor: 1.0, added: piece(step.get("prepend"))? }),
        "Replace" => {
            let content = piece(step.get("content"))?;
            match step.pointer("/pattern/String").and_then(Value::as_str).map_or(0, str::len) {
                // A pattern that matches nothing at all does so before each byte.
                0 => content + 1.0,
                matched => (content / matched as f64).max(1.0),
            }
        }
        "Precompiled" => longest_replacement(step.get("precompiled_charsmap").and_then(Value::as_str)),
        // Unicode's own bounds (UAX #15), and that of accents that are taken off, with lower case and room around ideographs.
        "NFC" => 3.0,
        "NFD" => 4.0,
        "NFKC" | "NFKD" => 12.0,
        "BertNormalizer" => 8.0,
        "Lowercase" | "ByteLevel" => 2.0,
        _ => 1.0,
    };
    Ok(Growth { factor, added: 0.0 })
}

/// The longest text in a precompiled map: behind four bytes with the length of its trie and the trie, each ends with a zero.
fn longest_replacement(map: Option<&str>) -> f64 {
    let bytes = decode_base64(map.unwrap_or_default());
    let Some((length, rest)) = bytes.split_first_chunk() else { return 1.0 };
    let texts = rest.get(u32::from_le_bytes(*length) as usize..).unwrap_or(rest);
    texts.split(|byte| *byte == 0).map(|text| text.len().max(1)).max().unwrap_or(1) as f64
}

fn decode_base64(text: &str) -> Vec<u8> {
    let value = |digit: u8| match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(value).map(u32::from).collect();
    let four = |four: &[u32]| {
        let bits = four.iter().chain(&[0; 3]).take(4).fold(0, |bits, digit| bits << 6 | digit);
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(four).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(normalizer: Value) -> Result<Growth, String> {
        let file =
            json!({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, "normalizer": normalizer});
        let file = file.to_string();
        check_file(file.as_bytes())?;
        Growth::of(&Tokenizer::from_bytes(file).expect("a tokenizer"))
    }

    #[test]
    fn usual_normalizers_are_taken() {
        let llama = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]});
        assert_eq!(of(llama), Ok(Growth { factor: 3.0, added: 9.0 }));
        assert_eq!(of(json!({"type": "NFKC"})), Ok(Growth { factor: 12.0, added: 0.0 }));
        assert_eq!(of(Value::Null), Ok(Growth { factor: 1.0, added: 0.0 }));
        let growth = of(json!({"type": "NFKC"})).expect("taken");
        assert!(growth.check(&"a".repeat(1 << 20)).is_ok());
        assert!(growth.check(&"a".repeat(1 << 23)).is_err());
    }

    #[test]
    fn what_grows_without_bound_is_refused() {
        let refused = |normalizer| of(normalizer).expect_err("refused");
        let long = "a".repeat(2000);
        assert_eq!(
            refused(json!({"type": "Prepend", "prepend": long})),
            "its normalizer puts in a text of 2000 bytes, at most 1024 are taken"
        );
        // The form of older files, without a type.
        assert_eq!(
            refused(json!({"pattern": {"String": "a"}, "content": long})),
            "its normalizer puts in a text of 2000 bytes, at most 1024 are taken"
        );
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let doubles = json!({"type": "Sequence", "normalizers": vec![double; 40]});
        assert_eq!(refused(doubles), "its normalizer can make more than 4096 bytes of one");
        let nothing = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "a".repeat(80)});
        let nothings = json!({"type": "Sequence", "normalizers": [nothing, nothing]});
        assert_eq!(refused(nothings), "its normalizer can make more than 4096 bytes of one");
        let damaged = json!({"type": "Precompiled", "precompiled_charsmap": "AA=="});
        assert!(refused(damaged).starts_with("its normalizer of type Precompiled cannot be used"));
    }

    #[test]
    fn base64_and_the_longest_replacement() {
        assert_eq!(decode_base64("aGVsbG8="), b"hello");
        assert_eq!(decode_base64("aGVsbA=="), b"hell");
        assert_eq!(decode_base64("aGVs"), b"hel");
        // A trie of four bytes, and "ab", "cde".
        assert_eq!(longest_replacement(Some("BAAAAAAAAABhYgBjZGUA")), 3.0);
        assert_eq!(longest_replacement(None), 1.0);
    }
}
