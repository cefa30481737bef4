//! `specfleet score`: what it adds to a stored run, that it adds nothing twice, and what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use serde_json::Value;
use specfleet::scores::{bertscore, document_frequencies, load};
use specfleet_engine::id::GenerationId;
use specfleet_model::Encoder;

use crate::bad_input::refused_at;
use crate::common::*;

/// A tiny encoder that the tests of BERTScore recorded.
fn encoder(name: &str) -> String {
    text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/bertscore").join(name))
}

/// A run of four methods over some prompts; its name.
fn scored_run(place: &Place, methods: &str) -> String {
    place.run("out", &["--methods", methods, "--prompts", "6", "--max-new-tokens", "24", "--devices", "3"]);
    place.name_of("out")
}

/// Scores and answers with the JSON; fails if that fails.
fn score(place: &Place, run: &str, arguments: &[&str]) -> Value {
    let mut command = place.command(&["score", run, "--ledger", "runs", "--json"]);
    let output = command.args(arguments).output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    assert!(output.stderr.is_empty(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What is printed for people, with the names of places taken out.
fn shown(place: &Place, run: &str, arguments: &[&str]) -> String {
    let mut command = place.command(&["score", run, "--ledger", "runs", "--ui", "none"]);
    let output = command.args(arguments).output().expect("the binary runs");
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("text").replace(run, "RUN")
}

fn metrics(figures: &Value, method: &str) -> BTreeMap<String, Value> {
    let methods = figures["methods"].as_array().expect("methods");
    let found = methods.iter().find(|entry| entry["name"] == method).unwrap_or_else(|| panic!("{method}: {figures}"));
    serde_json::from_value(found["metrics"].clone()).expect("metrics by name")
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-5
}

#[test]
fn a_scored_run_has_the_figures_of_its_own_texts() {
    let place = Place::new();
    let run = scored_run(&place, "llm-only,hlm,dssd");
    let folder = encoder("bert-small");
    let baseline = encoder("baseline.csv");
    let arguments = ["--encoder", &folder, "--layer", "1", "--idf", "--baseline", &baseline, "--perplexity"];
    let figures = score(&place, &run, &arguments);

    // The texts as `run --out` wrote them, scored by the library: the same figures as those stored.
    let lines = Results::read(&place.path("out")).lines;
    let of = |line: &Value, key: &str| line[key].as_str().expect(key).to_owned();
    let llm_only = |prompt: &Value| {
        let line = lines.iter().find(|line| line["method"] == "llm-only" && line["prompt_id"] == *prompt);
        of(line.expect("an answer of llm-only"), "text")
    };
    let scores = load(&place.reader(&place.run_of("out"))).expect("scores");
    let encoder = Encoder::load_dir(Path::new(&folder), Some(1)).expect("an encoder");
    let references: BTreeMap<u64, String> =
        lines.iter().map(|line| (line["prompt_id"].as_u64().expect("a number"), of(line, "reference"))).collect();
    let idf = document_frequencies(&encoder, references.values().map(String::as_str)).expect("tokens");
    let answers: Vec<String> = references.keys().map(|prompt| llm_only(&(*prompt).into())).collect();
    let idf_llm_only = document_frequencies(&encoder, answers.iter().map(String::as_str)).expect("tokens");
    let methods = ["llm-only", "hlm", "dssd"];
    for line in &lines {
        let method = methods.iter().position(|name| line["method"] == **name).expect("a method") as u16;
        let prompt = line["prompt_id"].as_u64().expect("a number") as u32;
        let id = GenerationId { method, prompt, repetition: 0, pass: 0 };
        let (own, reference) = (of(line, "text"), of(line, "reference"));
        let raw = bertscore(&encoder, &[(&own, &reference)], Some(&idf)).expect("a score")[0];
        for (name, value) in [("precision", raw.precision), ("recall", raw.recall), ("f1", raw.f1)] {
            let stored = scores.get(id, &format!("bertscore_{name}")).expect("a figure");
            assert!(near(stored, f64::from(value)), "{id:?} {name}: {stored} stored, {value} expected");
        }
        // The file's row of layer 1.
        let rescaled = (f64::from(raw.f1) - 0.415) / (1.0 - 0.415);
        assert!(near(scores.get(id, "bertscore_f1_rescaled").expect("a figure"), rescaled));
        let against = scores.get(id, "bertscore_f1_llm_only");
        if method == 0 {
            assert_eq!(against, None, "llm-only is not compared with itself");
        } else {
            let other = llm_only(&line["prompt_id"]);
            let expected = bertscore(&encoder, &[(&own, &other)], Some(&idf_llm_only)).expect("a score")[0];
            assert!(near(against.expect("a figure"), f64::from(expected.f1)));
            let equal = own == other;
            assert_eq!(scores.get(id, "rouge_l_llm_only") == Some(1.0), equal, "{own:?} {other:?}");
        }
        assert!(scores.get(id, "perplexity").is_some_and(|value| value >= 1.0));
        assert!(
            scores.of(id).all(|(name, unit, _)| unit == if name.starts_with("first_") { "tokens" } else { "ratio" })
        );
    }

    // What dssd wrote is what hlm wrote, so all their figures are equal; of each there are six.
    assert_eq!(metrics(&figures, "hlm"), metrics(&figures, "dssd"));
    let hlm = metrics(&figures, "hlm");
    assert_eq!(hlm["bertscore_f1"]["count"], 6);
    let mean = |name: &str| hlm[name]["mean"].as_f64().expect("a mean");
    assert!(near(mean("bertscore_f1_rescaled"), (mean("bertscore_f1") - 0.415) / 0.585));
    assert!(metrics(&figures, "llm-only").len() < hlm.len());
    assert_eq!(figures["kept"], 0);
    assert_eq!(figures["notes"], serde_json::json!([]));
}

#[test]
fn the_same_scorer_adds_nothing_and_another_is_a_new_one() {
    let place = Place::new();
    let run = scored_run(&place, "llm-only,slm-only");
    let small = encoder("bert-small");
    let first = score(&place, &run, &["--encoder", &small, "--methods", "slm-only", "--against", "reference"]);
    // Precision, recall, F1 and the embedding's F1, of six texts.
    assert_eq!((&first["added"], &first["kept"]), (&24.into(), &0.into()));
    // The other method is added, what is there stays.
    let both = score(&place, &run, &["--encoder", &small, "--against", "reference"]);
    assert_eq!((&both["added"], &both["kept"]), (&24.into(), &24.into()));
    assert_eq!(metrics(&first, "slm-only"), metrics(&both, "slm-only"));
    let again = score(&place, &run, &["--encoder", &small, "--against", "reference"]);
    assert_eq!((&again["added"], &again["kept"]), (&0.into(), &48.into()));
    assert_eq!(again["methods"], both["methods"]);
    let shown = shown(&place, &run, &["--encoder", &small, "--against", "reference"]);
    assert!(shown.contains("\nall 48 scores were there already: nothing was replaced\n"), "{shown}");

    // Another layer is another scorer: the figures of the last one count, and the run says so.
    let layer = score(&place, &run, &["--encoder", &small, "--against", "reference", "--layer", "0"]);
    assert_eq!((&layer["added"], &layer["kept"]), (&36.into(), &12.into()));
    assert_ne!(metrics(&layer, "slm-only")["bertscore_f1"], metrics(&both, "slm-only")["bertscore_f1"]);
    let notes = layer["notes"].as_array().expect("notes");
    let said = "several scorers (bert-small, layer 2 of 2; bert-small, layer 0 of 2) computed bertscore_f1, \
                bertscore_precision, bertscore_recall: the last one's figures are shown";
    assert!(notes.iter().any(|note| note == said), "{notes:?}");
    // The rows are whole and the run still says what it said.
    let reader = place.reader(&place.run_of("out"));
    assert!(reader.damaged().is_empty());
    assert_eq!((reader.closed_generations(), reader.meta().scorers.len()), (12, 7));
}

#[test]
fn what_is_missing_is_said_with_the_way_to_get_it() {
    let place = Place::new();
    let run = scored_run(&place, "hlm");
    let shown = shown(&place, &run, &[]);
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    // The figure itself depends on the processor's arithmetic.
    assert!(lines[2].starts_with(" hlm         6"), "{shown}");
    let rest = [&lines[..2], &lines[3..]].concat().join("\n");
    expect![[r#"
         method  texts  embedding
                        F1 %
        6 scores added to runs/RUN
        note: nothing is compared with llm-only: the run has no answers of it
        note: BERTScore is missing: specfleet score RUN --encoder DIR adds it (DIR: a BERT, RoBERTa or XLM-RoBERTa with config.json, tokenizer.json or vocab.txt, and *.safetensors)
        note: perplexity is missing: specfleet score RUN --perplexity adds it"#]]
    .assert_eq(&rest);
}

/// A folder of the small encoder with a change.
fn spoiled(place: &Place, name: &str, spoil: impl FnOnce(&Path)) {
    let folder = place.path(name);
    fs::create_dir_all(&folder).expect("a folder");
    for file in ["config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(PathBuf::from(encoder("bert-small")).join(file), folder.join(file)).expect("a copy");
    }
    spoil(&folder);
}

#[test]
fn a_folder_that_is_no_encoder_is_refused() {
    let place = Place::new();
    let run = scored_run(&place, "hlm");
    let set = |key: &'static str, value: Value| {
        move |folder: &Path| {
            let path = folder.join("config.json");
            let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).expect("a file")).expect("JSON");
            config[key] = value;
            fs::write(path, config.to_string()).expect("a file");
        }
    };
    let remove = |file: &'static str| move |folder: &Path| fs::remove_file(folder.join(file)).expect("a file");
    spoiled(&place, "bare", remove("config.json"));
    spoiled(&place, "wordless", remove("vocab.txt"));
    spoiled(&place, "weightless", remove("model.safetensors"));
    spoiled(&place, "decoder", set("model_type", "llama".into()));
    spoiled(&place, "distilled", set("model_type", "distilbert".into()));
    spoiled(&place, "tall", set("num_hidden_layers", 3.into()));
    spoiled(&place, "wide", set("intermediate_size", 96.into()));
    let refused = |folder: &str, expected: Expect| {
        refused_at(&place, &["score", &run, "--encoder", folder], expected);
    };
    refused("nowhere", expect!["specfleet: --encoder: nowhere: there is no such folder"]);
    refused(
        "bare",
        expect![
            "specfleet: --encoder: bare: it has no config.json (an encoder's folder holds config.json, tokenizer.json or vocab.txt, and *.safetensors)"
        ],
    );
    refused("wordless", expect!["specfleet: --encoder: wordless: it has no tokenizer.json and no vocab.txt"]);
    refused(
        "weightless",
        expect![
            "specfleet: --encoder: weightless: expected model.safetensors or model.safetensors.index.json, found 0 other *.safetensors files"
        ],
    );
    refused(
        "decoder",
        expect![
            "specfleet: --encoder: decoder/config.json: model_type `llama` is a decoder; BERTScore needs an encoder: bert, roberta, xlm-roberta"
        ],
    );
    refused(
        "distilled",
        expect![
            "specfleet: --encoder: distilled/config.json: model_type `distilbert` is not supported (candle computes its activation by another formula than the reference); supported are bert, roberta, xlm-roberta"
        ],
    );
    refused(
        "tall",
        expect!["specfleet: --encoder: tall: tensor `encoder.layer.2.attention.self.query.weight` is missing"],
    );
    refused(
        "wide",
        expect![
            "specfleet: --encoder: wide/model.safetensors: tensor `encoder.layer.0.intermediate.dense.weight` has shape [64, 32], the configuration needs [96, 32]"
        ],
    );
    // None of this left a trace in the run.
    assert!(place.reader(&place.run_of("out")).meta().scorers.is_empty());
}

#[test]
fn flags_and_runs_that_do_not_fit_are_refused() {
    let place = Place::new();
    let run = scored_run(&place, "hlm");
    let small = encoder("bert-small");
    place.file("short.csv", "LAYER,P,R,F\n0,0.1,0.1,0.1\n");
    let refused = |arguments: &[&str], expected: Expect| {
        refused_at(&place, &[&["score"], arguments].concat(), expected);
    };
    refused(&["other"], expect!["specfleet: runs/other holds no run (no meta.json)"]);
    refused(
        &[&run, "--idf"],
        expect!["specfleet: the following required arguments were not provided: --encoder <DIR>"],
    );
    refused(
        &[&run, "--methods", "hlm,llm"],
        expect![[r#"specfleet: --methods: run RUN has no method "llm"; it has hlm"#]],
    );
    refused(
        &[&run, "--against", "llm-only"],
        expect!["specfleet: run RUN: --against: it has no answers of llm-only to compare with; use reference"],
    );
    refused(
        &[&run, "--against", "both"],
        expect!["specfleet: run RUN: --against: it has no answers of llm-only to compare with; use reference"],
    );
    refused(
        &[&run, "--encoder", &small, "--baseline", "short.csv"],
        expect!["specfleet: --baseline: short.csv: the file has no row for layer 2, only for 0 to 0"],
    );
    refused(
        &[&run, "--encoder", &small, "--baseline", "none.csv"],
        expect!["specfleet: --baseline: none.csv: No such file or directory (os error 2)"],
    );
    let output = place.command(&["score", &run, "--ledger", "runs", "--encoder", &small, "--layer", "3"]).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("it has no layer 3, only 0 (the embeddings) to 2"), "{}", said(&output));
}

#[test]
fn a_run_whose_texts_are_gone_is_refused() {
    let place = Place::new();
    let line = r#"{"prompt": "Question: 1 + 1?\nAnswer:", "reference": " 2\n#### 2"}"#;
    let other = r#"{"prompt": "Question: 1 + 10 + 100?\nAnswer:", "reference": " 111\n#### 111"}"#;
    place.file("own.jsonl", line);
    let own =
        ["--workload", "own.jsonl", "--prompts", "1", "--methods", "hlm", "--max-new-tokens", "4", "--devices", "1"];
    place.run("out", &own);
    let run = place.name_of("out");
    score(&place, &run, &[]);
    place.file("own.jsonl", other);
    refused_at(
        &place,
        &["score", &run],
        expect![
            "specfleet: run RUN: FOLDER/own.jsonl changed since the run: SHA-256 10cca70fdf05 then, 1694030210a6 now; its texts cannot be rebuilt"
        ],
    );
    fs::remove_file(place.path("own.jsonl")).expect("a file");
    refused_at(
        &place,
        &["score", &run],
        expect![
            "specfleet: run RUN: cannot read FOLDER/own.jsonl: No such file or directory (os error 2); its texts cannot be rebuilt"
        ],
    );
}

#[test]
fn models_that_have_changed_are_noticed() {
    let place = Place::new();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets");
    let folder = place.path("pair");
    fs::create_dir_all(&folder).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(assets.join("drafter").join(file), folder.join(file)).expect("a copy");
    }
    fs::copy(assets.join("tokenizer.json"), folder.join("tokenizer.json")).expect("a copy");
    let own =
        ["--drafter", "pair", "--verifier", "pair", "--methods", "hlm", "--prompts", "2", "--max-new-tokens", "4"];
    place.run("out", &[&own[..], &["--devices", "1"]].concat());
    let run = place.name_of("out");
    let figures = score(&place, &run, &["--perplexity"]);
    assert_eq!(metrics(&figures, "hlm")["perplexity"]["count"], 2);

    let weights = folder.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("a file");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&weights, bytes).expect("a file");
    refused_at(
        &place,
        &["score", &run, "--perplexity"],
        expect![
            "specfleet: run RUN: --perplexity: its verifier changed since the run: SHA-256 f1dff4681b30 then, 3b12da194897 now"
        ],
    );
    // What needs the tokenizer alone still goes.
    score(&place, &run, &[]);
    let path = folder.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&fs::read_to_string(&path).expect("a file")).expect("JSON");
    let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let (a, b) = (vocab["A"].clone(), vocab["B"].clone());
    vocab.insert("A".into(), b);
    vocab.insert("B".into(), a);
    fs::write(&path, tokenizer.to_string()).expect("a file");
    refused_at(
        &place,
        &["score", &run],
        expect![
            "specfleet: run RUN: the tokenizer in FOLDER/pair changed since the run: SHA-256 935cc7fee271 then, 0b4ea80008db now; its texts cannot be rebuilt"
        ],
    );
}

#[test]
fn a_simulation_without_text_is_refused() {
    let place = Place::new();
    let fitted = ["--fidelity", "fitted", "--methods", "hlm", "--prompts", "4", "--max-new-tokens", "4"];
    place.quick("simulate", "out", &[&fitted[..], &FIXED].concat());
    let run = place.name_of("out");
    refused_at(
        &place,
        &["score", &run],
        expect!["specfleet: run RUN: it was simulated with fitted answers, which have no text to score"],
    );
}
