//! Bad input ends in one typed error that names what is at fault, and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{fs, path::Path};

use crate::common::{GROUPED, Tiny, config, tensors};
use specfleet_model::{
    Embedded, KvArena, LogitRows, Model, ModelError, Precision, SeqId, SeqStep, Tokenizer, check_pair,
};
use tempfile::TempDir;

fn asset(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

/// A copy of the embedded drafter's folder, tokenizer included.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(asset("drafter").join(file), dir.path().join(file)).unwrap();
    }
    fs::copy(asset("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    dir
}

/// Rewrites one key of the folder's `config.json`.
fn set(dir: &Path, key: &str, value: serde_json::Value) {
    let path = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

fn refusal(dir: &Path) -> String {
    let error = Model::load_dir(dir, Precision::F32).err().expect("the folder must be refused");
    error.to_string()
}

fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{message}` does not name `{part}`");
    }
}

fn step(seq: SeqId, tokens: &[u32]) -> SeqStep<'_> {
    SeqStep { seq, tokens, logits: LogitRows::Last(1), attention: None }
}

#[test]
fn a_folder_loads_like_the_embedded_model() {
    let dir = folder();
    let (a, b) = (
        Model::load_dir(dir.path(), Precision::Q8_0).unwrap(),
        Model::embedded(Embedded::Drafter, Precision::Q8_0).unwrap(),
    );
    assert_eq!(a.shape(), b.shape());
    assert_eq!(a.shape().parameters, 865_152);
    let logits = [a, b].map(|model| {
        let mut arena = KvArena::new(&model, 1 << 24);
        let seq = arena.open();
        model.forward(&mut arena, &[step(seq, &[0, 5, 9])]).unwrap().logits(0).to_vec()
    });
    assert_eq!(logits[0], logits[1]);
    let tokenizer = Tokenizer::load_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.digest(), Tokenizer::embedded().unwrap().digest());
}

#[test]
fn shards_load_through_their_index() {
    let dir = folder();
    let all = candle_core::safetensors::load(dir.path().join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let mut names: Vec<_> = all.keys().cloned().collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for (index, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let file = format!("model-{index}.safetensors");
        let part = names.iter().map(|n| (n.clone(), all[n].to_dtype(candle_core::DType::BF16).unwrap())).collect();
        candle_core::safetensors::save(&part, dir.path().join(&file)).unwrap();
        map.extend(names.iter().map(|n| (n.clone(), file.clone().into())));
    }
    let index = serde_json::json!({ "weight_map": map });
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    Model::load_dir(dir.path(), Precision::F32).unwrap();
    fs::remove_file(dir.path().join("model-1.safetensors")).unwrap();
    assert_names(&refusal(dir.path()), &["model-1.safetensors"]);
}

#[test]
fn missing_and_broken_files_are_named() {
    assert_names(&refusal(Path::new("/no/such/folder")), &["/no/such/folder/config.json"]);
    let dir = folder();
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for len in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&weights, &bytes[..len]).unwrap();
        assert_names(&refusal(dir.path()), &["model.safetensors", "not a whole safetensors file"]);
    }
    fs::remove_file(&weights).unwrap();
    assert_names(&refusal(dir.path()), &["expected model.safetensors"]);
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert_names(&refusal(dir.path()), &["config.json", "JSON"]);
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let error = Tokenizer::load_dir(dir.path()).err().unwrap();
    assert_names(&error.to_string(), &["tokenizer.json"]);
}

/// The library that reads tokenizers panics on each of these.
#[test]
fn a_tokenizer_that_the_library_panics_on_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let load = |decoder: &str| {
        let model = r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#;
        let text = format!(r#"{{"version": "1.0", "decoder": {decoder}, "model": {model}}}"#);
        fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        Tokenizer::load_dir(dir.path())
    };
    let error = load(r#"{"type": "WordPiece", "prefix": "", "cleanup": tru%}"#).err().unwrap();
    assert_names(&error.to_string(), &["tokenizer.json", "not a usable tokenizer: expected ident"]);
    // Nothing is wrong with this one until a token is shorter than what is taken off.
    let error = load(r#"{"type": "Strip", "content": "a", "start": 0, "stop": 2}"#).err().unwrap();
    assert_names(&error.to_string(), &["tokenizer.json", "not a usable tokenizer: the library that reads it panicked"]);
    let tokenizer = load(r#"{"type": "Strip", "content": "a", "start": 0, "stop": 1}"#).unwrap();
    assert_eq!((tokenizer.decode(&[0]).unwrap(), tokenizer.encode("a").unwrap()), (String::new(), vec![0]));
}

#[test]
fn the_padding_of_a_tokenizer_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let padding = r#"{"strategy": {"Fixed": 1000000000000}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}"#;
    let model = r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#;
    let text = format!(r#"{{"version": "1.0", "padding": {padding}, "model": {model}}}"#);
    fs::write(dir.path().join("tokenizer.json"), text).unwrap();
    let tokenizer = Tokenizer::load_dir(dir.path()).unwrap();
    assert_eq!((tokenizer.last_id(), tokenizer.encode("a").unwrap()), (0, vec![0]));
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    for (key, value, named) in [
        ("intermediate_size", 384.into(), "mlp.gate_proj"),
        ("num_hidden_layers", 4.into(), "model.layers.3.input_layernorm.weight"),
        ("tie_word_embeddings", false.into(), "lm_head.weight"),
        ("num_attention_heads", 3.into(), "num_attention_heads"),
        ("num_key_value_heads", 3.into(), "num_key_value_heads"),
        ("vocab_size", 0.into(), "vocab_size"),
        ("model_type", "qwen2".into(), "qwen2"),
        ("hidden_act", "gelu".into(), "gelu"),
        ("attention_bias", true.into(), "attention_bias"),
        ("head_dim", 64.into(), "head_dim"),
        ("rope_scaling", serde_json::json!({"rope_type": "yarn"}), "yarn"),
        ("rope_scaling", serde_json::json!({"factor": 2.0}), "(none)"),
        ("rope_scaling", serde_json::json!({"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
        ("rope_parameters", serde_json::json!({"rope_type": "dynamic", "factor": 2.0}), "dynamic"),
        ("rope_parameters", serde_json::json!({"factor": 2.0}), "(none)"),
        ("rope_parameters", serde_json::json!({"rope_theta": 5e5}), "rope_parameters.rope_theta differ"),
        ("rope_parameters", serde_json::json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        ("rope_parameters", serde_json::json!({"full_attention": {"rope_theta": 1e4}}), "full_attention"),
        ("rope_parameters", serde_json::json!(3), "rope_parameters must be an object"),
        ("rope_theta", 0.into(), "rope_theta = 0"),
        ("hidden_act", 3.into(), "hidden_act"),
        ("mlp_bias", "yes".into(), "mlp_bias"),
        ("sliding_window", 128.into(), "sliding_window"),
        ("partial_rotary_factor", 0.5.into(), "partial_rotary_factor"),
        ("head_dim", 32.5.into(), "head_dim"),
        ("logit_scale", 0.5.into(), "logit_scale"),
        ("layer_types", serde_json::json!(["sliding_attention"]), "layer_types"),
        ("quantization_config", serde_json::json!({"bits": 4}), "quantization_config"),
        ("hidden_size", "wide".into(), "config.json"),
    ] {
        let dir = folder();
        set(dir.path(), key, value);
        assert_names(&refusal(dir.path()), &[named]);
    }
}

/// Keys that stand at the value at which they change nothing are no reason to refuse a model.
#[test]
fn keys_that_change_nothing_are_accepted() {
    let dir = folder();
    for (key, value) in [
        ("pretraining_tp", serde_json::json!(2)),
        ("mlp_bias", serde_json::json!(false)),
        ("partial_rotary_factor", serde_json::json!(1)),
        ("sliding_window", serde_json::json!(1024)),
        ("rope_scaling", serde_json::json!(null)),
        ("rope_parameters", serde_json::json!({"rope_theta": 10000, "rope_type": "default"})),
        ("hidden_act", serde_json::json!("swish")),
    ] {
        set(dir.path(), key, value);
    }
    Model::load_dir(dir.path(), Precision::F32).unwrap();
}

#[test]
fn q4_k_falls_back_per_matrix_and_says_so() {
    let drafter = Model::embedded(Embedded::Drafter, Precision::Q4K).unwrap();
    assert!(drafter.fallbacks().iter().all(|f| f.used == Precision::Q8_0 && f.row_len % 256 != 0));
    // Seven matrices in each of three layers, and the head.
    assert_eq!(drafter.fallbacks().len(), 22);
    let verifier = Model::embedded(Embedded::Verifier, Precision::Q4K).unwrap();
    assert_eq!(verifier.fallbacks().len(), 6);
    assert_names(
        &verifier.fallbacks()[0].to_string(),
        &["model.layers.0.mlp.down_proj.weight", "q8_0", "multiples of 256", "704"],
    );
    let odd = Tiny { hidden: 40, ffn: 33, ..GROUPED };
    let odd = Model::from_tensors(&config(odd), tensors(odd, 1), Precision::Q8_0).unwrap();
    assert!(odd.fallbacks().iter().all(|f| f.used == Precision::F32));
}

/// Scales of blocks have sixteen bits: a weight may be a finite number and still not fit. And what is no finite number is
/// refused in every precision.
#[test]
fn weights_that_a_precision_cannot_hold_are_refused() {
    let spoiled = |value: f32, precision: Precision| {
        let mut tensors = tensors(GROUPED, 1);
        let name = "model.layers.0.self_attn.o_proj.weight";
        let filled = candle_core::Tensor::full(value, tensors[name].dims(), &candle_core::Device::Cpu).unwrap();
        tensors.insert(name.to_owned(), filled);
        Model::from_tensors(&config(GROUPED), tensors, precision).err().map(|error| error.to_string())
    };
    assert_names(&spoiled(3e38, Precision::Q8_0).unwrap(), &["o_proj.weight", "cannot be stored as q8_0", "too large"]);
    assert_eq!(spoiled(3e38, Precision::F32), None);
    for precision in [Precision::F32, Precision::Q8_0, Precision::Q4K] {
        assert_names(&spoiled(f32::NAN, precision).unwrap(), &["o_proj.weight", "holds NaN"]);
    }
}

#[test]
fn a_pair_must_share_its_tokens() {
    let drafter = Model::embedded(Embedded::Drafter, Precision::F32).unwrap();
    let verifier = Model::embedded(Embedded::Verifier, Precision::F32).unwrap();
    let own = Tokenizer::embedded().unwrap();
    check_pair((&drafter, &own), (&verifier, &own)).unwrap();

    let tiny = Model::from_tensors(&config(GROUPED), tensors(GROUPED, 1), Precision::F32).unwrap();
    let error = check_pair((&tiny, &own), (&verifier, &own)).err().unwrap();
    assert_names(&error.to_string(), &["75", "2048"]);

    // The same number of tokens, two of them exchanged.
    let dir = folder();
    let path = dir.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let (a, b) = (vocab["A"].clone(), vocab["B"].clone());
    vocab.insert("A".into(), b);
    vocab.insert("B".into(), a);
    fs::write(&path, json.to_string()).unwrap();
    let other = Tokenizer::load_dir(dir.path()).unwrap();
    let error = check_pair((&drafter, &other), (&verifier, &own)).err().unwrap();
    assert_names(&error.to_string(), &["tokenizers differ"]);
}

#[test]
fn a_refused_pass_changes_nothing() {
    let model = Model::embedded(Embedded::Drafter, Precision::Q8_0).unwrap();
    // Sixteen tokens fit, seventeen need a second page.
    let page = 16 * model.shape().kv_bytes_per_token;
    let mut arena = KvArena::new(&model, page);
    let (a, b) = (arena.open(), arena.open());
    model.forward(&mut arena, &[step(a, &[7; 10])]).unwrap();
    let long = vec![3; model.shape().context - 9];
    let mut pass = |steps: &[SeqStep<'_>]| {
        let error = model.forward(&mut arena, steps).expect_err("the pass must be refused");
        assert_eq!((arena.len(a), arena.len(b), arena.bytes_used()), (10, 0, page), "{error}");
        error
    };
    assert!(matches!(pass(&[step(a, &[1; 7])]), ModelError::BudgetExceeded { .. }));
    assert!(matches!(pass(&[step(a, &[1]), step(b, &[1])]), ModelError::BudgetExceeded { .. }));
    let error = pass(&[step(a, &long)]);
    assert!(matches!(error, ModelError::ContextExceeded { len: 10, context: 1024, .. }), "{error}");
    assert!(matches!(pass(&[step(a, &[2048])]), ModelError::TokenOutOfRange { token: 2048, vocab: 2048 }));
    assert!(matches!(pass(&[step(a, &[1]), step(a, &[2])]), ModelError::DuplicateSequence(_)));
    assert!(matches!(pass(&[step(a, &[])]), ModelError::EmptyStep(_)));
    let layer = SeqStep { attention: Some(3), ..step(a, &[1]) };
    assert!(matches!(pass(&[layer]), ModelError::LayerOutOfRange { layer: 3, layers: 3 }));

    let verifier = Model::embedded(Embedded::Verifier, Precision::Q8_0).unwrap();
    let error = verifier.forward(&mut arena, &[step(a, &[1])]).err().unwrap();
    assert!(matches!(error, ModelError::ForeignArena));
    arena.close(b);
    let error = model.forward(&mut arena, &[step(b, &[1])]).err().unwrap();
    assert!(matches!(error, ModelError::UnknownSequence(_)));
    arena.evict(a);
    assert_eq!((arena.len(a), arena.bytes_used()), (0, 0));
    model.forward(&mut arena, &[step(a, &[7; 16])]).unwrap();
}

#[test]
fn attention_rows_sum_to_one() {
    let model = Model::embedded(Embedded::Verifier, Precision::Q8_0).unwrap();
    let mut arena = KvArena::new(&model, 1 << 26);
    let (a, b) = (arena.open(), arena.open());
    model.forward(&mut arena, &[step(a, &[0; 5])]).unwrap();
    let asking = |seq, tokens| SeqStep { attention: Some(5), ..step(seq, tokens) };
    let out = model.forward(&mut arena, &[asking(a, &[4; 20]), step(b, &[0; 3])]).unwrap();
    assert_eq!((out.attention(0).len(), out.attention(1).len()), (8 * 25, 0));
    for row in out.attention(0).chunks(25) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(row.iter().all(|w| *w >= 0.0));
    }
}

#[test]
fn text_survives_encoding_and_streaming() {
    let tokenizer = Tokenizer::embedded().unwrap();
    let text = "Question: Zoë pays €12 for 3 apples 🍎.\nAnswer: 4";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids[0], 0);
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let mut stream = tokenizer.stream();
    let streamed: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(streamed, text);
    assert_eq!(tokenizer.vocab_size(), 2048);
    // A text that ends inside a character: nothing is lost, nothing is shown twice.
    for len in 1..ids.len() {
        let mut stream = tokenizer.stream();
        let mut streamed: String = ids[..len].iter().map(|id| stream.push(*id).unwrap()).collect();
        streamed += &stream.finish().unwrap();
        assert_eq!(streamed, tokenizer.decode(&ids[..len]).unwrap());
    }
}

#[test]
fn precisions_have_names() {
    for p in [Precision::F32, Precision::Q8_0, Precision::Q4K] {
        assert_eq!(p.to_string().parse::<Precision>().unwrap(), p);
    }
    assert_names(&"int4".parse::<Precision>().unwrap_err().to_string(), &["int4", "q8_0"]);
}
