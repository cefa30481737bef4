//! Files as other programs write them: workloads, final answers, and folders of models.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Place, call, copy_model, printed, said, text};

fn sample(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/inputs").join(name)).expect(name)
}

/// One device answers the prompts in their order.
const GREEDY: [&str; 8] = ["--devices", "1", "--methods", "llm-only", "--temperature", "0", "--max-new-tokens", "96"];

/// The models answer one question with 7; what the reference has after its mark decides whether that is right.
#[test]
fn final_answers_are_read_as_numbers_are_written() {
    let place = Place::new();
    let table = String::from_utf8(sample("final-answers.tsv")).expect("text");
    let rows: Vec<(&str, &str)> = table.lines().skip(1).map(|row| row.split_once('\t').expect("two columns")).collect();
    assert_eq!(rows.len(), 18);
    let question =
        "Priya is 7 years old. Tara is 10 years older than Priya. Gina is 10 years younger than Tara. How old is Gina?";
    let line = |answer: &str| json!({"question": question, "answer": format!("#### {answer}")}).to_string();
    let workload = rows.iter().map(|(written, _)| line(written)).collect::<Vec<_>>().join("\n");
    let workload = place.file("answers.jsonl", workload);
    let run = place.run("out", &[&GREEDY[..], &["--workload", &workload, "--prompts", "18"]].concat());
    let said = run.lines[0]["text"].as_str().expect("a text");
    assert!(said.contains("#### 7"), "the question is one that the models can answer: {said}");
    for (line, (written, number)) in run.lines.iter().zip(&rows) {
        let right = if number.is_empty() { Value::Null } else { json!(*number == "7") };
        assert_eq!(line["exact_match"], right, "#### {written} is {number:?}");
    }
}

#[test]
fn workloads_as_other_programs_write_them() {
    let place = Place::new();
    let run = |name: &str, prompts: &str| {
        let workload = place.file(name, sample(name));
        let run = place
            .run(&format!("out-{name}"), &[&GREEDY[..], &["--workload", &workload, "--prompts", prompts]].concat());
        run.assert_sound();
        run
    };
    let plain = run("crlf.jsonl", "2");
    assert!(plain.lines.iter().all(|line| line["exact_match"].is_boolean()));
    for name in ["bom.jsonl", "blank-lines.jsonl"] {
        let other = run(name, "2");
        assert_eq!(other.decisions(), plain.decisions(), "{name}");
        for (line, same) in other.lines.iter().zip(&plain.lines) {
            assert_eq!((&line["reference"], &line["prompt"]), (&same["reference"], &same["prompt"]), "{name}");
        }
    }
    let numeric = run("numeric-answer.jsonl", "1");
    assert_eq!(numeric.lines[0]["exact_match"], plain.lines[0]["exact_match"]);

    let utf16 = place.file("utf16.jsonl", sample("utf16.jsonl"));
    let output = place.try_run(&["--workload", &utf16]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error, format!("specfleet: {utf16}: the file is UTF-16; convert it to UTF-8\n"));
}

/// Without a reference there is nothing to be right about: the figures are absent everywhere, and not 0.
#[test]
fn a_workload_without_references_has_no_scores_against_them() {
    let place = Place::new();
    let workload = place.file("no-reference.jsonl", sample("no-reference.jsonl"));
    let arguments = ["--workload", &workload, "--prompts", "1", "--max-new-tokens", "8", "--methods", "llm-only,hlm"];
    let run = place.run("out", &arguments);
    run.assert_sound();
    for line in &run.lines {
        assert!(line["reference"].is_null() && line["exact_match"].is_null(), "{line}");
    }
    let name = place.name_of("out");
    let report: Value = serde_json::from_str(&printed(&place, &["report", &name, "--json"])).expect("JSON");
    for method in ["llm-only", "hlm"] {
        let figures = &run.summary["methods"][method];
        assert!(figures["energy_per_token_joules_total"].is_object(), "{figures}");
        assert!(figures.get("exact_match").is_none() && figures.get("rouge_l").is_none(), "{figures}");
    }
    let shown = report.to_string();
    assert!(!shown.contains("\"rouge_l\":{") && !shown.contains("\"exact_match\":{"), "{shown}");
    let found = printed(&place, &["query", &name, "--metric", "exact_match:mean,rouge_l:mean", "--format", "csv"]);
    assert!(!found.lines().nth(1).expect("a row").contains('0'), "{found}");
    let scored = call(&place, &["score", &name, "--against", "reference"]);
    assert_eq!(scored.status.code(), Some(2), "{}", said(&scored));
    assert!(
        said(&scored).contains("its workload has no references to compare with; use llm-only"),
        "{}",
        said(&scored)
    );
    let scored = call(&place, &["score", &name]);
    assert!(scored.status.success(), "{}", said(&scored));
}

/// Editors of other systems begin a file with a byte order mark and end its lines with two characters.
#[test]
fn scenarios_with_a_mark_and_other_line_ends() {
    let place = Place::new();
    let scenario =
        place.file("s.toml", "\u{feff}[run]\r\nmethods = \"slm-only\"\r\nprompts = 1\r\nmax_new_tokens = 2\r\n");
    assert_eq!(place.run("out", &[&scenario]).lines.len(), 1);
    let wide: Vec<u8> = "\u{feff}[run]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = place.file("wide.toml", wide);
    let error = said(&place.try_run(&[&wide]));
    assert!(error.contains(&format!("{wide}: the file is UTF-16; convert it to UTF-8")), "{error}");
}

/// Writes keys into a folder's `config.json`; null takes one out.
fn configure(folder: &Path, keys: &Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("JSON");
    for (key, value) in keys.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    fs::write(path, config.to_string()).expect("a temporary file");
}

#[test]
fn newer_keys_of_rotary_positions_mean_what_the_older_ones_do() {
    let place = Place::new();
    let tokens = |name: &str, keys: Value| {
        let (drafter, verifier) = (place.path(&format!("{name}-d")), place.path(&format!("{name}-v")));
        copy_model("drafter", &drafter);
        copy_model("verifier", &verifier);
        configure(&drafter, &keys);
        configure(&verifier, &keys);
        let pair = ["--drafter", &text(&drafter), "--verifier", &text(&verifier)];
        let run = ["--methods", "llm-only,slm-only", "--temperature", "0", "--prompts", "2", "--max-new-tokens", "24"];
        place.run(name, &[&pair[..], &run].concat()).decisions()
    };
    let small = tokens("small", json!({"rope_theta": 10000.0}));
    let older = tokens("older", json!({"rope_theta": 500000.0}));
    let newer = json!({"rope_theta": null, "rope_parameters": {"rope_theta": 500000, "rope_type": "default"}});
    assert_eq!(tokens("newer", newer), older);
    assert_ne!(older, small);

    let mut factors = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    let older_scaled = tokens("older-scaled", json!({"rope_theta": 500000.0, "rope_scaling": factors}));
    factors["rope_theta"] = json!(500000.0);
    let newer_scaled = tokens("newer-scaled", json!({"rope_theta": null, "rope_parameters": factors}));
    assert_eq!(newer_scaled, older_scaled);
    assert_ne!(older_scaled, older);
}

#[test]
fn keys_that_would_change_the_numbers_are_refused() {
    let place = Place::new();
    let folder = place.path("d");
    for (keys, problem) in [
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}),
            "rope_parameters type `yarn` is not supported",
        ),
        (json!({"sliding_window": 64}), "sliding_window = 64 is not supported"),
        (json!({"mlp_bias": true}), "mlp_bias = true is not supported"),
    ] {
        copy_model("drafter", &folder);
        configure(&folder, &keys);
        let output = place.try_run(&["--drafter", &text(&folder), "--methods", "hlm"]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let error = format!("{}: {problem}", text(&folder.join("config.json")));
        assert!(said(&output).contains(&error), "{}", said(&output));
    }
}

#[test]
fn an_index_beside_the_whole_weights_does_not_matter() {
    let place = Place::new();
    let folder = place.path("d");
    copy_model("drafter", &folder);
    let map = json!({"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}});
    fs::write(folder.join("model.safetensors.index.json"), map.to_string()).expect("a temporary file");
    let common = ["--methods", "slm-only", "--prompts", "1", "--max-new-tokens", "4"];
    let embedded = place.run("embedded", &common);
    let whole = place.run("whole", &[&common[..], &["--drafter", "d"]].concat());
    assert_eq!(embedded.decisions(), whole.decisions());
}
