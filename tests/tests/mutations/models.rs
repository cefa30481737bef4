//! What lies in a model's folder: configuration, weights, tokenizer.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use specfleet_model::{Model, Precision, Tokenizer};
use specfleet_tests::mutator::{Mutator, Notation};

use crate::watch::{Input, temporary_folder, watch};

/// Bytes of the header's length, in front of it.
const PREFIX: usize = 8;

fn config() -> Value {
    json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "vocab_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "bos_token_id": 0, "eos_token_id": [1, 2], "max_position_embeddings": 256, "tie_word_embeddings": false,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}})
}

/// The weights of that model in a file: the header, and the zeros that it describes.
fn weights() -> (Vec<u8>, Vec<u8>) {
    let layer = |name: &str, shape: &[usize]| (format!("model.layers.0.{name}.weight"), shape.to_vec());
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![16, 8]),
        ("lm_head.weight".to_owned(), vec![16, 8]),
        ("model.norm.weight".to_owned(), vec![8]),
        layer("input_layernorm", &[8]),
        layer("post_attention_layernorm", &[8]),
        layer("self_attn.q_proj", &[8, 8]),
        layer("self_attn.k_proj", &[4, 8]),
        layer("self_attn.v_proj", &[4, 8]),
        layer("self_attn.o_proj", &[8, 8]),
        layer("mlp.gate_proj", &[12, 8]),
        layer("mlp.up_proj", &[12, 8]),
        layer("mlp.down_proj", &[8, 12]),
    ];
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (number, (name, shape)) in tensors.into_iter().enumerate() {
        let (dtype, size) = if number % 2 == 0 { ("F32", 4) } else { ("BF16", 2) };
        let start = end;
        end += shape.iter().product::<usize>() * size;
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
    }
    (Value::Object(header).to_string().into_bytes(), vec![0; end])
}

fn safetensors(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// What a model that was taken must be made of: tensors of the shapes that its configuration calls for, all finite.
fn assert_whole(file: &[u8]) {
    let length = file.first_chunk().map(|length| u64::from_le_bytes(*length) as usize).expect("a length");
    let (header, data) = file[PREFIX..].split_at(length);
    let found: Value = serde_json::from_slice(header).expect("a header");
    let whole: Value = serde_json::from_slice(&weights().0).expect("a header");
    for (name, tensor) in whole.as_object().expect("tensors") {
        assert_eq!(found[name]["shape"], tensor["shape"], "{name}");
        let at = |place: usize| found[name]["data_offsets"][place].as_u64().expect("an offset") as usize;
        let bytes = &data[at(0)..at(1)];
        // The exponent of what is not finite is all ones; that of `bf16` is as long as that of `f32`.
        let size = match found[name]["dtype"].as_str() {
            Some("F32") => 4,
            Some("BF16") => 2,
            _ => continue,
        };
        let is_finite = |value: &[u8]| value[size - 1] & 0x7f != 0x7f || value[size - 2] & 0x80 == 0;
        assert!(bytes.chunks_exact(size).all(is_finite), "{name} is not finite");
    }
}

/// Loads the folder's model; whether it could be.
fn load(dir: &Path) -> bool {
    let Ok(model) = Model::load_dir(dir, Precision::F32) else { return false };
    let shape = model.shape();
    assert_eq!(shape.head_dim * shape.heads, shape.hidden);
    true
}

#[test]
fn weights_are_read_or_refused() {
    let dir = temporary_folder();
    fs::write(dir.path().join("config.json"), config().to_string()).expect("written");
    let (header, data) = weights();
    let bases = vec![safetensors(&header, &data)];
    let make = move |mutator: &mut Mutator, bases: &[Vec<u8>]| {
        // Mostly a header as long as it says, so that what is in it is read.
        let bytes = match mutator.below(4) {
            0 => mutator.mutate(&bases[0], Notation::Binary),
            1 => {
                let mut file = bases[0].clone();
                let length = mutator.mutate(&file[..PREFIX], Notation::Binary);
                file.splice(..PREFIX, length.into_iter().chain([0; PREFIX]).take(PREFIX));
                file
            }
            _ => safetensors(&mutator.mutate(&header, Notation::Text), &data),
        };
        Input { base: 0, bytes }
    };
    watch("safetensors", 3, bases, make, move |input| {
        fs::write(dir.path().join("model.safetensors"), &input.bytes).expect("written");
        let is_taken = load(dir.path());
        if is_taken {
            assert_whole(&input.bytes);
        }
        is_taken
    });
}

#[test]
fn configurations_are_read_or_refused() {
    let dir = temporary_folder();
    let (header, data) = weights();
    fs::write(dir.path().join("model.safetensors"), safetensors(&header, &data)).expect("written");
    let bases = vec![config().to_string().into_bytes()];
    let make =
        |mutator: &mut Mutator, bases: &[Vec<u8>]| Input { base: 0, bytes: mutator.mutate(&bases[0], Notation::Text) };
    watch("configurations of models", 4, bases, make, move |input| {
        fs::write(dir.path().join("config.json"), &input.bytes).expect("written");
        load(dir.path())
    });
}

/// Small tokenizers with what the embedded one lacks, and that one.
fn tokenizers() -> Vec<Vec<u8>> {
    let words = json!({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "##c": 5, "1": 6, "hello": 7});
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": true, "normalized": false,
            "special": true})
    };
    let pieces = json!([["<unk>", 0.0], ["a", -1.5], ["\u{2581}", -2.0], ["b", -3.25], ["ab", -2.5], ["<0x0A>", -9.0]]);
    let replace = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u{2581}"});
    [
        json!({"version": "1.0",
            "truncation": {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "[UNK]"},
            "added_tokens": [special(1, "[CLS]"), special(2, "[SEP]")],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": words}}),
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "<unk>")],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap()}, replace,
                {"type": "Prepend", "prepend": "\u{2581}"}, {"type": "NFKC"}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
            "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<unk>", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<unk>": {"id": "<unk>", "ids": [0], "tokens": ["<unk>"]}}},
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false}}),
    ]
    .iter()
    .map(|tokenizer| tokenizer.to_string().into_bytes())
    .chain([include_bytes!("../../../model/assets/tokenizer.json").to_vec()])
    .collect()
}

/// A map of `a` to `bb`, as SentencePiece writes it: a double array of 256 units for the root's children and a leaf, then
/// the texts.
fn charsmap() -> String {
    let mut units = [0u32; 512];
    // The root's children lie from 256 on, each at its byte; that of `a` has a leaf 1 before it, with text 0.
    units[0] = 256 << 10;
    units[256 ^ 97] = 97 | 1 << 8 | 1 << 10;
    units[256 ^ 97 ^ 1] = 1 << 31;
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let bytes = [&(trie.len() as u32).to_le_bytes()[..], &trie, b"bb\0"].concat();
    base64(&bytes)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().chain(&[0; 2]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let digits = (0..4).map(|place| char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
        text.extend(digits.take(three.len() + 1));
        text.extend(std::iter::repeat_n('=', 3 - three.len()));
    }
    text
}

#[test]
fn tokenizers_are_read_or_refused() {
    let dir = temporary_folder();
    let make = |mutator: &mut Mutator, bases: &[Vec<u8>]| {
        // The embedded one is larger by far, and tells less.
        let base = if mutator.below(8) == 0 { bases.len() - 1 } else { mutator.below(bases.len() - 1) };
        Input { base, bytes: mutator.mutate(&bases[base], Notation::Text) }
    };
    watch("tokenizers", 5, tokenizers(), make, move |input| {
        fs::write(dir.path().join("tokenizer.json"), &input.bytes).expect("written");
        let Ok(tokenizer) = Tokenizer::load_dir(dir.path()) else { return false };
        let mut ids: Vec<u32> = (0..=tokenizer.last_id().min(20)).chain([tokenizer.last_id(), u32::MAX]).collect();
        for text in
            ["", "ab 12  h\u{e9}llo\n[CLS] \u{4e2d}\u{1f600}", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
        {
            let Ok(encoded) = tokenizer.encode(text) else { continue };
            assert!(encoded.iter().all(|id| *id <= tokenizer.last_id()), "{encoded:?}");
            ids.extend(encoded);
        }
        let mut stream = tokenizer.stream();
        for id in ids {
            if stream.push(id).is_err() {
                return true;
            }
        }
        let _ = stream.finish();
        true
    });
}
