//! What a run records of the files that it was made from, and what commands say when these are other ones by now.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::*;

/// A live run that is soon over and that `simulate --against` can repeat.
const LIVE: [&str; 4] = ["--devices", "2", "--max-new-tokens", "16"];

/// A device profile in a file of its own.
const PROFILE: &str = "name = \"mine\"\nsource = \"these tests\"\nkind = \"declared\"\ndraft_seconds = 0.0005\n\
    draft_joules = 0.001\nprefill_seconds = 0.00001\nprefill_joules = 0.00001\nuncertainty_seconds = 0.00005\n\
    uncertainty_joules = 0.0001\nimportance_seconds = 0.00005\nimportance_joules = 0.0001\nidle_watts = 0.4\n";

/// Questions that the embedded models can answer; `number` makes them others.
fn workload(number: u32) -> String {
    let line = |name: &str| {
        let question = format!("{name} has {number} pens and buys 4 more. How many pens does {name} have?");
        json!({"question": question, "answer": format!("{number} + 4 = {0}\n#### {0}", number + 4)}).to_string()
    };
    ["Ann", "Ben", "Gina", "Tara"].map(line).join("\n")
}

fn meta(place: &Place, run: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path("runs").join(run).join("meta.json")).expect("meta.json")).expect("JSON")
}

/// Takes out of a stored run what earlier versions did not record.
fn forget_inputs(place: &Place, run: &str) {
    let path = place.path("runs").join(run).join("meta.json");
    let mut meta = meta(place, run);
    meta.as_object_mut().expect("an object").remove("inputs").expect("it was there");
    put_meta(&path, &meta);
}

fn refused(place: &Place, arguments: &[&str], why: &[&str]) {
    let output = call(place, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
    assert!(error.lines().count() == 1 && why.iter().all(|why| error.contains(why)), "{arguments:?}: {error}");
}

/// The scenario names its files from its own folder; the run is asked about from another one, which has files of the same
/// names.
#[test]
fn a_stored_run_is_read_from_any_folder() {
    let place = Place::new();
    let scenario = "[run]\nworkload = \"w.jsonl\"\nprompts = 4\nmethods = \"hlm,llm-only\"\n\
        [device]\nprofile = \"p.toml, p.toml\"\nlink = \"ethernet\"\n";
    for (folder, number) in [("sub", 3), ("copied, elsewhere", 3), ("other", 5)] {
        place.file(&format!("{folder}/s.toml"), scenario);
        place.file(&format!("{folder}/w.jsonl"), workload(number));
        place.file(&format!("{folder}/p.toml"), PROFILE);
    }
    let run = |out: &str, folder: &str, more: &[&str]| {
        let scenario = format!("{folder}/s.toml");
        let arguments = ["run", &scenario, "--ledger", "runs", "--out", out, "--ui", "none"];
        let output = place.command(&[&arguments[..], &LIVE, more].concat()).output().expect("the binary runs");
        assert!(output.status.success(), "{}", said(&output));
        place.name_of(out)
    };
    let first = run("first", "sub", &[]);
    let copied = run("copied", "copied, elsewhere", &[]);
    let measured = run("measured", "sub", &["--set", "pool.cost=measured"]);
    let hash = |run: &str| meta(&place, run)["scenario_hash"].clone();
    assert_eq!(hash(&first), hash(&copied), "where files lie does not change what a scenario means");

    let stored = meta(&place, &first);
    let path = |name: &str| text(&place.path("sub").join(name));
    let scenario = stored["scenario"].as_str().expect("a scenario");
    assert!(scenario.contains(&path("w.jsonl")) && scenario.contains(&path("p.toml")), "{scenario}");
    let workload = &stored["inputs"]["workload"][0];
    assert_eq!((&workload["data_set"], &workload["path"]), (&json!("w"), &json!(path("w.jsonl"))));
    assert_eq!((&workload["first_id"], &workload["prompts"]), (&json!(0), &json!(4)));
    let digests = stored["inputs"]["digests"].as_array().expect("a list");
    for of in [
        "run.workload",
        "device.profile",
        "drafter weights",
        "drafter configuration",
        "verifier weights",
        "verifier configuration",
        "tokenizer",
    ] {
        let digest = digests.iter().find(|digest| digest["of"] == of).unwrap_or_else(|| panic!("{of}: {digests:?}"));
        assert_eq!(digest["sha256"].as_str().map(str::len), Some(64), "{digest}");
    }

    let from_other = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        let output = command.args(["--ledger", "../runs"]).current_dir(place.path("other")).output();
        let output = output.expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let exact =
        |method: &str| Results::read(&place.path("first")).summary["methods"][method]["exact_match"]["mean"].clone();
    for run in [&first, &copied] {
        let report: Value = serde_json::from_str(&from_other(&["report", run, "--json"])).expect("JSON");
        assert_eq!(report["methods"][1]["metrics"]["exact_match"]["mean"], exact("llm-only"), "{report}");
        assert_eq!(report["devices"][0]["profile"], "mine/ethernet", "{}", report["devices"]);
        from_other(&["score", run]);
        from_other(&["query", run, "--metric", "exact_match:mean"]);
    }
    assert!(from_other(&["compare", &first, &copied]).contains("their scenarios are equal"));
    from_other(&["calibrate", &measured, "--out", "c.json"]);
    from_other(&["simulate", "--ui", "none", "--against", &first, "--against", &copied]);
    let trace = format!("simulate.trace={first}");
    let mut simulated = vec!["simulate", "../sub/s.toml", "--ui", "none", "--fidelity", "trace", "--set", &trace];
    simulated.extend(LIVE);
    from_other(&simulated);
}

/// What a run stored stays as it is; what needs a file that has changed is left out, with the reason.
#[test]
fn figures_that_need_a_changed_file_are_left_out() {
    let place = Place::new();
    let (drafter, verifier) = (place.path("d"), place.path("v"));
    copy_model("drafter", &drafter);
    copy_model("verifier", &verifier);
    let file = place.file("w.jsonl", workload(3));
    let arguments =
        ["--workload", "w.jsonl", "--prompts", "4", "--methods", "hlm,llm-only", "--drafter", "d", "--verifier", "v"];
    place.run("out", &[&arguments[..], &LIVE].concat());
    let run = place.name_of("out");
    let report = || {
        let report: Value = serde_json::from_str(&printed(&place, &["report", &run, "--json"])).expect("JSON");
        (report["methods"][0]["metrics"].clone(), report["notes"].to_string(), report["validity"]["state"].clone())
    };
    let (before, notes, _) = report();
    assert!(before["exact_match"].is_object() && before["rouge_l"].is_object(), "{before}");
    assert!(!notes.contains("left out"), "{notes}");
    let mut rest = before.clone();
    for left_out in ["exact_match", "rouge_l"] {
        rest.as_object_mut().expect("an object").remove(left_out).expect("it was there");
    }
    let check = |why: &str| {
        let (now, notes, state) = report();
        assert_eq!((&now, state.as_str()), (&rest, Some("VALID")), "{why}");
        assert!(
            notes.contains(why) && notes.contains("exact match and ROUGE-L against its references are left out"),
            "{notes}"
        );
        let asked = ["query", &run, "--metric", "exact_match:mean,token_agreement:mean", "--format", "json"];
        let output = call(&place, &asked);
        assert!(output.status.success() && said(&output).contains(why), "{}", said(&output));
        let html = text(&place.path("report.html"));
        assert!(call(&place, &["report", &run, "--html", &html]).status.success());
        assert!(fs::read_to_string(&html).expect("a page").contains(why), "the page says it too");
        refused(&place, &["score", &run], &[why, "its texts cannot be rebuilt"]);
    };
    fs::write(&file, workload(5)).expect("a temporary file");
    check(&format!("{file} changed since the run: SHA-256 "));
    fs::remove_file(&file).expect("it was there");
    check(&format!("cannot read {file}: No such file or directory"));
    fs::write(&file, workload(3)).expect("a temporary file");
    assert_eq!(report().0, before, "the file is what it was");

    let tokenizer = drafter.join("tokenizer.json");
    let text = fs::read_to_string(&tokenizer).expect("it is there");
    let mut other: Value = serde_json::from_str(&text).expect("JSON");
    let vocab = other["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let (a, b) = (vocab["A"].clone(), vocab["B"].clone());
    vocab.insert("A".into(), b);
    vocab.insert("B".into(), a);
    fs::write(&tokenizer, other.to_string()).expect("a temporary file");
    check(&format!("the tokenizer in {} changed since the run: SHA-256 ", self::text(&drafter)));
    fs::remove_file(&tokenizer).expect("it was there");
    check(&format!("cannot read {}", self::text(&tokenizer)));
}

/// Two runs of one scenario whose files have changed in between are no pair.
#[test]
fn runs_of_other_prompts_or_models_are_not_paired() {
    let place = Place::new();
    let (drafter, verifier) = (place.path("d"), place.path("v"));
    copy_model("drafter", &drafter);
    copy_model("verifier", &verifier);
    let file = place.file("w.jsonl", workload(3));
    let run = |out: &str| {
        let arguments =
            ["--workload", "w.jsonl", "--prompts", "4", "--methods", "hlm", "--drafter", "d", "--verifier", "v"];
        place.run(out, &[&arguments[..], &LIVE].concat());
        place.name_of(out)
    };
    let first = run("first");
    assert!(printed(&place, &["compare", &first, &run("same")]).contains("their scenarios are equal"));

    fs::write(&file, workload(5)).expect("a temporary file");
    let prompts = run("prompts");
    refused(&place, &["compare", &first, &prompts], &["their prompts differ: the SHA-256 of the workload w is "]);
    refused(&place, &["simulate", "--against", &first], &[&first, &file, "changed since the run: SHA-256 "]);
    fs::write(&file, workload(3)).expect("a temporary file");

    let configured = |folder: &Path, key: &str, value: Value| {
        let path = folder.join("config.json");
        let before = fs::read(&path).expect("it is there");
        let mut config: Value = serde_json::from_slice(&before).expect("JSON");
        config[key] = value;
        fs::write(&path, config.to_string()).expect("a temporary file");
        move || fs::write(&path, before).expect("a temporary file")
    };
    let restore = configured(&verifier, "rope_theta", json!(500_000.0));
    let theta = run("theta");
    let part = ["they ran other models: the SHA-256 of the verifier configuration is "];
    refused(&place, &["compare", &first, &theta], &part);
    refused(&place, &["simulate", "--against", &first], &["verifier configuration", "changed since the run"]);
    restore();

    let weights = drafter.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("it is there");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&weights, bytes).expect("a temporary file");
    refused(&place, &["compare", &first, &run("weights")], &["the SHA-256 of the drafter weights is "]);

    // Runs of earlier versions say nothing about their files, and are read all the same.
    let third = run("third");
    let fourth = run("fourth");
    forget_inputs(&place, &third);
    assert!(call(&place, &["report", &third]).status.success());
    assert!(printed(&place, &["compare", &third, &fourth]).contains("are not recorded"), "{third}");
}
