//! BERTScore against the Python package bert-score 0.3.13, whose figures `tests/fixtures/bertscore/make.py` recorded: 200
//! pairs of texts, encoders of different sizes and families, several layers, with and without idf, raw and rescaled.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use specfleet::scores::{bertscore, document_frequencies};
use specfleet_analysis::{Baseline, Matching};
use specfleet_model::{Encoder, ModelError};

/// The most that a figure may differ.
const TOLERANCE: f64 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bertscore")
}

fn text(name: &str) -> String {
    fs::read_to_string(fixtures().join(name)).expect(name)
}

#[derive(Deserialize)]
struct Expected {
    versions: std::collections::BTreeMap<String, String>,
    cases: Vec<Case>,
}

/// One call of the package; null stands for NaN.
#[derive(Deserialize)]
struct Case {
    encoder: String,
    layer: usize,
    idf: bool,
    /// Precision, recall and F1 of each pair.
    raw: [Vec<Option<f64>>; 3],
    rescaled: [Vec<Option<f64>>; 3],
}

fn expected() -> Expected {
    serde_json::from_str(&text("expected.json")).expect("recorded figures")
}

fn pairs() -> Vec<(String, String)> {
    serde_json::from_str(&text("pairs.json")).expect("recorded texts")
}

/// The largest difference from the recorded figures; fails beyond [`TOLERANCE`].
fn compare(what: &str, ours: &[Matching], recorded: &[Vec<Option<f64>>; 3], pairs: &[(String, String)]) -> f64 {
    let mut worst = 0f64;
    for (index, ours) in ours.iter().enumerate() {
        let figures = [("precision", ours.precision), ("recall", ours.recall), ("F1", ours.f1)];
        for ((name, ours), recorded) in figures.into_iter().zip(recorded) {
            let ours = f64::from(ours);
            let pair = &pairs[index];
            match recorded[index] {
                None => assert!(ours.is_nan(), "{what}, pair {index} {pair:?}: {name} {ours}, recorded none"),
                Some(recorded) => {
                    let difference = (ours - recorded).abs();
                    assert!(
                        difference <= TOLERANCE,
                        "{what}, pair {index} {pair:?}: {name} {ours}, recorded {recorded}"
                    );
                    worst = worst.max(difference);
                }
            }
        }
    }
    worst
}

#[test]
fn precision_recall_and_f1_are_the_references() {
    let (expected, pairs) = (expected(), pairs());
    assert_eq!(expected.versions["bert-score"], "0.3.13");
    assert_eq!(pairs.len(), 200);
    let texts: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let mut seen = std::collections::BTreeSet::new();
    for case in &expected.cases {
        let encoder = Encoder::load_dir(&fixtures().join(&case.encoder), Some(case.layer)).expect("an encoder");
        let idf = case.idf.then(|| document_frequencies(&encoder, texts.iter().map(|pair| pair.1)).expect("tokens"));
        let ours = bertscore(&encoder, &texts, idf.as_ref()).expect("scores");
        assert_eq!(ours.len(), pairs.len());
        let what = format!("{} layer {} idf {}", case.encoder, case.layer, case.idf);
        let worst = compare(&what, &ours, &case.raw, &pairs);
        let baseline = Baseline::parse(&text("baseline.csv"), case.layer).expect("a row");
        let rescaled: Vec<Matching> = ours.iter().map(|matching| matching.rescaled(baseline)).collect();
        let worst_rescaled = compare(&format!("{what} rescaled"), &rescaled, &case.rescaled, &pairs);
        println!("{what}: largest difference {worst:.1e}, rescaled {worst_rescaled:.1e}");
        seen.insert((case.encoder.clone(), encoder.width(), encoder.layer() == encoder.layers(), case.idf));
    }
    // Encoders of three families and two sizes at their last layer, each with and without idf; and other layers.
    assert!(seen.len() >= 10, "{seen:?}");
}

/// That the comparison can fail: other weights, another layer and another encoder are told apart.
#[test]
fn the_comparison_tells_settings_apart() {
    let (expected, pairs) = (expected(), pairs());
    let texts: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let encoder = Encoder::load_dir(&fixtures().join("bert-small"), Some(2)).expect("an encoder");
    let ours = bertscore(&encoder, &texts, None).expect("scores");
    for case in &expected.cases {
        let far = ours.iter().zip(&case.raw[2]).filter(|(ours, recorded)| {
            recorded.is_some_and(|recorded| (f64::from(ours.f1) - recorded).abs() > TOLERANCE)
        });
        let same = (case.encoder.as_str(), case.layer, case.idf) == ("bert-small", 2, false);
        assert_eq!(far.count() > 50, !same, "{} layer {} idf {}", case.encoder, case.layer, case.idf);
    }
}

#[test]
fn without_a_layer_the_last_counts_and_batches_do_not_matter() {
    let pairs = pairs();
    let encoder = Encoder::load_dir(&fixtures().join("bert-large"), None).expect("an encoder");
    assert_eq!((encoder.layer(), encoder.layers(), encoder.limit(), encoder.width()), (4, 4, 128, 48));
    assert_eq!(Encoder::load_dir(&fixtures().join("bert-small"), None).expect("an encoder").limit(), 48);
    assert_eq!(Encoder::load_dir(&fixtures().join("roberta"), None).expect("an encoder").limit(), 98);
    let texts: Vec<(&str, &str)> = pairs[30..60].iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let together = bertscore(&encoder, &texts, None).expect("scores");
    for (pair, together) in texts.iter().zip(together) {
        let alone = bertscore(&encoder, std::slice::from_ref(pair), None).expect("scores")[0];
        for (a, b) in [(alone.precision, together.precision), (alone.recall, together.recall), (alone.f1, together.f1)]
        {
            assert!((a - b).abs() < 1e-5, "{pair:?}: {alone:?} alone, {together:?} in a batch");
        }
    }
}

/// A folder of one of the recorded encoders, to be spoiled.
fn copy(encoder: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(fixtures().join(encoder)).expect("a fixture") {
        let path = entry.expect("a file").path();
        fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    folder
}

/// Rewrites keys of the folder's `config.json`.
fn configure(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("config.json");
    let mut config = serde_json::from_str(&fs::read_to_string(&path).expect("a file")).expect("JSON");
    change(&mut config);
    fs::write(path, config.to_string()).expect("a file");
}

fn refusal(folder: &Path) -> String {
    let error: ModelError = Encoder::load_dir(folder, None).err().expect("the folder must be refused");
    error.to_string().replace(&folder.display().to_string(), "DIR")
}

#[test]
fn old_names_of_norms_load_and_xlm_roberta_computes_as_roberta() {
    let folder = copy("bert-small");
    let path = folder.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).expect("weights");
    let old =
        |name: &str| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let renamed = tensors.iter().map(|(name, tensor)| (old(name), tensor.clone())).collect();
    candle_core::safetensors::save(&renamed, &path).expect("weights");
    let same = |a: &Encoder, b: &Encoder, tokens: &[u32]| {
        assert_eq!(a.states(&[tokens]).expect("states"), b.states(&[tokens]).expect("states"));
    };
    let recorded = Encoder::load_dir(&fixtures().join("bert-small"), None).expect("an encoder");
    let tokens = recorded.tokens("Bella has 6 candles.").expect("tokens");
    same(&Encoder::load_dir(folder.path(), None).expect("an encoder"), &recorded, &tokens);

    let folder = copy("roberta");
    configure(folder.path(), |config| config["model_type"] = "xlm-roberta".into());
    let other = Encoder::load_dir(folder.path(), None).expect("an encoder");
    let recorded = Encoder::load_dir(&fixtures().join("roberta"), None).expect("an encoder");
    assert_eq!(other.family(), "xlm-roberta");
    same(&other, &recorded, &recorded.tokens("Bella has 6 candles.").expect("tokens"));
}

#[test]
fn a_folder_that_is_no_encoder_says_so() {
    for (key, value, message) in [
        (
            "model_type",
            "llama".into(),
            "DIR/config.json: model_type `llama` is a decoder; BERTScore needs an encoder: bert, roberta, xlm-roberta",
        ),
        (
            "model_type",
            "distilbert".into(),
            "DIR/config.json: model_type `distilbert` is not supported (candle computes its activation by another formula than the reference); supported are bert, roberta, xlm-roberta",
        ),
        (
            "model_type",
            "albert".into(),
            "DIR/config.json: model_type `albert` is not supported; supported are bert, roberta, xlm-roberta",
        ),
        (
            "model_type",
            serde_json::Value::Null,
            "DIR/config.json: it has no model_type; supported are bert, roberta, xlm-roberta",
        ),
        (
            "position_embedding_type",
            "relative_key".into(),
            "DIR/config.json: position_embedding_type `relative_key` is not supported, only `absolute` is",
        ),
        (
            "hidden_act",
            "swish".into(),
            "DIR/config.json: hidden_act `swish` is not supported, only gelu, gelu_new, gelu_pytorch_tanh and relu are",
        ),
        ("is_decoder", true.into(), "DIR/config.json: is_decoder = true: BERTScore needs an encoder"),
        ("hidden_size", 0.into(), "DIR/config.json: hidden_size = 0 must be a whole number, at least 1"),
        ("hidden_size", 33.into(), "DIR/config.json: hidden_size 33 is not a multiple of num_attention_heads 2"),
        (
            "hidden_size",
            64.into(),
            "DIR/model.safetensors: tensor `embeddings.word_embeddings.weight` has shape [WORDS, 32], the configuration needs [WORDS, 64]",
        ),
        ("num_hidden_layers", 3.into(), "DIR: tensor `encoder.layer.2.attention.self.query.weight` is missing"),
        ("vocab_size", 10.into(), "DIR/vocab.txt: it has WORDS tokens, the encoder's vocab_size is 10"),
        (
            "intermediate_size",
            serde_json::json!("wide"),
            "DIR/config.json: intermediate_size = \"wide\" must be a whole number, at least 1",
        ),
        ("pad_token_id", 100_000.into(), "DIR/config.json: pad_token_id 100000 is outside the vocabulary 0..WORDS"),
        (
            "max_position_embeddings",
            2.into(),
            "DIR/vocab.txt: a text may have 2 tokens, which leaves no room between the two around it",
        ),
    ] {
        let folder = copy("bert-small");
        let words = fs::read_to_string(folder.path().join("vocab.txt")).expect("a vocabulary").lines().count();
        configure(folder.path(), |config| config[key] = value);
        assert_eq!(refusal(folder.path()), message.replace("WORDS", &words.to_string()));
    }
}

#[test]
fn missing_and_broken_files_are_named() {
    let missing = |names: &[&str]| {
        let folder = copy("bert-small");
        names.iter().for_each(|name| fs::remove_file(folder.path().join(name)).expect("a file"));
        refusal(folder.path())
    };
    assert_eq!(
        missing(&["config.json"]),
        "DIR: it has no config.json (an encoder's folder holds config.json, tokenizer.json or vocab.txt, and *.safetensors)"
    );
    assert_eq!(missing(&["vocab.txt"]), "DIR: it has no tokenizer.json and no vocab.txt");
    assert_eq!(
        missing(&["model.safetensors"]),
        "DIR: expected model.safetensors or model.safetensors.index.json, found 0 other *.safetensors files"
    );
    let error = Encoder::load_dir(Path::new("/no/such/folder"), None).err().expect("no folder");
    assert_eq!(error.to_string(), "/no/such/folder: there is no such folder");
    let error = Encoder::load_dir(&fixtures().join("bert-small"), Some(3)).err().expect("no such layer").to_string();
    assert!(error.ends_with("it has no layer 3, only 0 (the embeddings) to 2"), "{error}");

    for (name, bytes, message) in [
        ("config.json", &b"{"[..], "DIR/config.json: not a JSON configuration"),
        ("config.json", b"[]", "DIR/config.json: it has no model_type"),
        ("vocab.txt", b"a\nb\n", "DIR/vocab.txt: not a vocabulary of word pieces: it has no [UNK]"),
        ("vocab.txt", b"\xff\xfe", "DIR/vocab.txt: not a vocabulary"),
        ("tokenizer.json", b"{}", "DIR/tokenizer.json: not a usable tokenizer"),
        ("tokenizer_config.json", b"nonsense", "DIR/tokenizer_config.json: not a JSON configuration"),
        ("model.safetensors", b"nonsense", "DIR/model.safetensors: not a whole safetensors file"),
    ] {
        let folder = copy("bert-small");
        fs::write(folder.path().join(name), bytes).expect("a file");
        let said = refusal(folder.path());
        assert!(said.starts_with(message) && said.lines().count() == 1, "{name}: {said}");
    }
    // A language model's folder: the embedded verifier's own.
    let verifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets/verifier");
    let error = Encoder::load_dir(&verifier, None).err().expect("a decoder").to_string();
    assert!(error.contains("model_type `llama` is a decoder"), "{error}");
}

/// A real encoder from a folder: `SPECFLEET_ENCODER=DIR cargo test -p specfleet-tests --test bertscore -- --ignored`.
#[test]
#[ignore = "needs the folder of a real encoder in SPECFLEET_ENCODER"]
fn a_real_encoder_ranks_texts_as_people_do() {
    let folder = std::env::var("SPECFLEET_ENCODER").expect("SPECFLEET_ENCODER names the folder of an encoder");
    let encoder = Encoder::load_dir(Path::new(&folder), None).expect("an encoder");
    let reference = "The weather is cold today.";
    let candidates = ["The weather is cold today.", "It is freezing today.", "She bought seven red apples."];
    let pairs = candidates.map(|candidate| (candidate, reference));
    let scores = bertscore(&encoder, &pairs, None).expect("scores");
    println!("{} layer {} of {}: {scores:?}", encoder.family(), encoder.layer(), encoder.layers());
    assert!((scores[0].f1 - 1.0).abs() < 1e-4);
    assert!(scores[0].f1 > scores[1].f1 && scores[1].f1 > scores[2].f1, "{scores:?}");
}
