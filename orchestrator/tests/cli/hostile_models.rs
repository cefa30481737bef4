//! Models that would compute nonsense, or take all memory: refused when they are loaded, in one line that names the file and
//! the tensor or key.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::bad_input::refused_at;
use crate::common::*;

/// A run with a copy of the embedded drafter that was changed is refused, with exit code 2 and no run left.
fn assert_refused(change: impl FnOnce(&Place), expected: Expect) {
    let place = Place::new();
    copy_model("drafter", &place.path("own"));
    change(&place);
    let quick = ["--methods", "slm-only", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];
    refused_at(&place, &[&["run", "--drafter", "own"][..], &quick].concat(), expected);
}

/// Writes one key into a JSON file of the copy.
fn set(place: &Place, file: &str, key: &str, value: Value) {
    let path = place.path("own").join(file);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    json[key] = value;
    fs::write(path, json.to_string()).expect("written");
}

/// Writes a number in the place of the first elements of a tensor of the copy, from byte `skip` of it on.
fn spoil(place: &Place, tensor: &str, skip: u64, number: &[u8]) {
    let path = place.path("own/model.safetensors");
    let mut bytes = fs::read(&path).expect("readable");
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    let header: Value = serde_json::from_slice(&rest[..length as usize]).expect("a JSON header");
    let from = header[tensor]["data_offsets"][0].as_u64().expect("an offset");
    let at = (8 + length + from + skip) as usize;
    bytes[at..][..number.len()].copy_from_slice(number);
    fs::write(path, bytes).expect("written");
}

#[test]
fn weights_that_are_no_finite_numbers_are_refused() {
    let spoiled = |tensor: &'static str, element: u64, f16: u16, expected: Expect| {
        assert_refused(|place| spoil(place, tensor, 2 * element, &f16.to_le_bytes()), expected);
    };
    spoiled(
        "model.embed_tokens.weight",
        130,
        0x7e00,
        expect![
            "specfleet: own/model.safetensors: tensor `model.embed_tokens.weight` holds NaN (row 1, element 2); every weight must be a finite number"
        ],
    );
    spoiled(
        "model.layers.1.mlp.down_proj.weight",
        8,
        0x7c00,
        expect![
            "specfleet: own/model.safetensors: tensor `model.layers.1.mlp.down_proj.weight` holds inf (row 0, element 8); every weight must be a finite number"
        ],
    );
    spoiled(
        "model.norm.weight",
        4,
        0xfc00,
        expect![
            "specfleet: own/model.safetensors: tensor `model.norm.weight` holds -inf (element 4); every weight must be a finite number"
        ],
    );
}

#[test]
fn numbers_that_make_no_finite_logits_are_refused() {
    let configured = |key: &str, value: Value, expected: Expect| {
        assert_refused(|place| set(place, "config.json", key, value), expected);
    };
    configured(
        "rms_norm_eps",
        json!(-1),
        expect!["specfleet: own/config.json: rms_norm_eps = -1.0 is out of range: must lie in 1e-12 to 0.1"],
    );
    configured(
        "rms_norm_eps",
        json!(0),
        expect!["specfleet: own/config.json: rms_norm_eps = 0.0 is out of range: must lie in 1e-12 to 0.1"],
    );
    configured(
        "rms_norm_eps",
        json!(1e300),
        expect!["specfleet: own/config.json: rms_norm_eps = 1e300 is out of range: must lie in 1e-12 to 0.1"],
    );
    configured(
        "rope_theta",
        json!(-1),
        expect!["specfleet: own/config.json: rope_theta = -1 must be a number above 0"],
    );
    configured(
        "rope_theta",
        json!(1e-300),
        expect!["specfleet: own/config.json: rope_theta = 0.0 is out of range: must lie in 1.0 to 1000000000000.0"],
    );
    let scaling = |factor: f64, low: f64, high: f64| {
        json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": 512})
    };
    configured(
        "rope_scaling",
        scaling(0.0, 1.0, 4.0),
        expect!["specfleet: own/config.json: rope_scaling.factor = 0.0 must be a number above 0"],
    );
    configured(
        "rope_scaling",
        scaling(1e-300, 1.0, 4.0),
        expect!["specfleet: own/config.json: rope_scaling.factor = 0.0 is out of range: must lie in 1.0 to 1000000.0"],
    );
    configured(
        "rope_scaling",
        scaling(8.0, -1.0, 4.0),
        expect!["specfleet: own/config.json: rope_scaling.low_freq_factor = -1.0 must be a number above 0"],
    );
    configured(
        "rope_scaling",
        scaling(8.0, 4.0, 4.0),
        expect!["specfleet: own/config.json: rope_scaling.high_freq_factor = 4 must be above low_freq_factor = 4"],
    );
}

#[test]
fn sizes_that_no_machine_has_room_for_are_refused() {
    let configured = |key: &str, value: Value, expected: Expect| {
        assert_refused(|place| set(place, "config.json", key, value), expected);
    };
    configured(
        "num_hidden_layers",
        json!(1_000_000_000),
        expect!["specfleet: own/config.json: num_hidden_layers = 1000000000 is out of range: must lie in 1 to 10000"],
    );
    configured(
        "num_hidden_layers",
        json!(1u64 << 61),
        expect![
            "specfleet: own/config.json: num_hidden_layers = 2305843009213693952 is out of range: must lie in 1 to 10000"
        ],
    );
    configured(
        "hidden_size",
        json!(1u64 << 33),
        expect!["specfleet: own/config.json: hidden_size = 8589934592 is out of range: must lie in 1 to 1048576"],
    );
    configured(
        "intermediate_size",
        json!(u64::MAX),
        expect![
            "specfleet: own/config.json: intermediate_size = 18446744073709551615 is out of range: must lie in 1 to 4194304"
        ],
    );
    configured(
        "vocab_size",
        json!(1u64 << 62),
        expect![
            "specfleet: own/config.json: vocab_size = 4611686018427387904 is out of range: must lie in 1 to 16777216"
        ],
    );
    configured(
        "num_key_value_heads",
        json!(1u64 << 63),
        expect![
            "specfleet: own/config.json: num_key_value_heads = 9223372036854775808 is out of range: must lie in 1 to 65536"
        ],
    );
    configured(
        "max_position_embeddings",
        json!(1u64 << 31),
        expect![
            "specfleet: own/config.json: max_position_embeddings = 2147483648 is out of range: must lie in 1 to 1048576"
        ],
    );
    configured(
        "eos_token_id",
        json!(5000),
        expect!["specfleet: own/config.json: eos_token_id 5000 is outside the vocabulary 0..2048"],
    );
}

/// The library panics where a decoder strips more than a token has; its message and its trace are no answer to a user.
#[test]
fn a_tokenizer_that_its_library_panics_on_is_refused_in_one_line() {
    let place = Place::new();
    for which in ["drafter", "verifier"] {
        copy_model(which, &place.path(which));
        let path = place.path(which).join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
        tokenizer["decoder"] = json!({"type": "Strip", "content": "Ġ", "start": 0, "stop": 40});
        fs::write(path, tokenizer.to_string()).expect("written");
    }
    let quick = ["--methods", "slm-only", "--prompts", "1", "--max-new-tokens", "32", "--ui", "none"];
    let pair = ["run", "--drafter", "drafter", "--verifier", "verifier"];
    let expected =
        expect!["specfleet: drafter/tokenizer.json: not a usable tokenizer: the library that reads it panicked"];
    refused_at(&place, &[&pair[..], &quick].concat(), expected);
}

#[test]
fn vocabularies_that_the_models_do_not_have_are_refused() {
    let own = |change: &dyn Fn(&mut Value), expected: Expect| {
        let place = Place::new();
        for which in ["drafter", "verifier"] {
            copy_model(which, &place.path(which));
            let path = place.path(which).join("tokenizer.json");
            let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
            change(&mut tokenizer);
            fs::write(path, tokenizer.to_string()).expect("written");
        }
        let quick = ["--methods", "slm-only", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];
        let pair = ["run", "--drafter", "drafter", "--verifier", "verifier"];
        refused_at(&place, &[&pair[..], &quick].concat(), expected);
    };
    let shift = |tokenizer: &mut Value| {
        for id in tokenizer["model"]["vocab"].as_object_mut().expect("an object").values_mut() {
            *id = json!(id.as_u64().expect("an id") + 100_000);
        }
    };
    own(
        &shift,
        expect![
            "specfleet: drafter and verifier do not form a pair: the tokenizer has a token 102047, outside the models' vocabularies 0..2048"
        ],
    );
    own(
        &|tokenizer| tokenizer["model"]["vocab"]["A"] = json!(4_000_000_000u32),
        expect![
            "specfleet: drafter/tokenizer.json: not a usable tokenizer: it has a token 4000000000, and ids must lie below 16777216"
        ],
    );
    let empty = |tokenizer: &mut Value| {
        tokenizer["model"] = json!({"type": "WordLevel", "vocab": {}, "unk_token": "?"});
        tokenizer["added_tokens"] = json!([]);
        tokenizer["post_processor"] = Value::Null;
    };
    own(&empty, expect!["specfleet: drafter/tokenizer.json: not a usable tokenizer: its vocabulary is empty"]);
    let only_one = |tokenizer: &mut Value| {
        empty(tokenizer);
        tokenizer["model"]["vocab"] = json!({"x": 7});
        tokenizer["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "[\\s\\S]"}, "content": ""});
    };
    own(
        &only_one,
        expect![[r#"specfleet: data set "word-problems", line 1: the tokenizer makes no token of the prompt"#]],
    );
    let outside = |tokenizer: &mut Value| {
        tokenizer["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([9999]);
    };
    own(
        &outside,
        expect![
            "specfleet: drafter and verifier do not form a pair: the tokenizer has a token 9999, outside the models' vocabularies 0..2048"
        ],
    );
    let long = "a".repeat(10 << 20);
    own(
        &|tokenizer| tokenizer["normalizer"] = json!({"type": "Prepend", "prepend": long}),
        expect![
            "specfleet: drafter/tokenizer.json: not a usable tokenizer: its normalizer puts in a text of 10485760 bytes, at most 1024 are taken"
        ],
    );
    own(
        &|tokenizer| tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AA=="}),
        expect![
            "specfleet: drafter/tokenizer.json: not a usable tokenizer: its normalizer of type Precompiled cannot be used: its map has no length"
        ],
    );
}

/// Rewrites the weights of a folder with one tensor of theirs in f32, filled with a number that f16 cannot hold.
fn fill(folder: &Path, tensor: &str, number: f32) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).expect("readable");
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&rest[..length]).expect("a JSON header");
    let (mut entries, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, entry) in header.as_object().expect("an object").iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |index: usize| length + entry["data_offsets"][index].as_u64().expect("an offset") as usize;
        let (own, from) = (&rest[offset(0)..offset(1)], data.len());
        let mut entry = entry.clone();
        if name == tensor {
            entry["dtype"] = json!("F32");
            (0..own.len() / 2).for_each(|_| data.extend(number.to_le_bytes()));
        } else {
            data.extend(own);
        }
        entry["data_offsets"] = json!([from, data.len()]);
        entries.insert(name.clone(), entry);
    }
    let mut header = Value::Object(entries).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(path, file).expect("written");
}

/// Weights that are finite can still overflow: nobody knows before the logits are there.
#[test]
fn logits_that_are_no_finite_numbers_make_a_run_invalid() {
    let place = Place::new();
    copy_model("drafter", &place.path("own"));
    fill(&place.path("own"), "model.norm.weight", 3e38);
    let arguments = ["--drafter", "own", "--methods", "slm-only", "--prompts", "1", "--max-new-tokens", "4", "--json"];
    let f32 = ["--precision", "f32"];
    let live = place.try_run(&[&arguments[..], &f32].concat());
    let simulated = call(&place, &[&["simulate", "--ui", "none"], &arguments[..], &f32, &FIXED].concat());
    for output in [live, simulated] {
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        assert_eq!(summary["state"], "INVALID", "{}", summary["problems"]);
        let problems = summary["problems"].to_string();
        assert!(problems.contains("logits that are no finite numbers: "), "{problems}");
        assert!(!problems.contains(" 0 rows of the drafter's"), "{problems}");
    }
    let report = call(&place, &["report", "latest"]);
    assert!(said(&report).contains("INVALID: the run failed: logits that are no finite numbers"), "{}", said(&report));
}
