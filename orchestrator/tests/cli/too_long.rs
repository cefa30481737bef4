//! `run.too_long`: what becomes of a prompt that leaves no room for an answer in the models' context.

use std::fs;
use std::path::Path;

use expect_test::expect;
use serde_json::{Value, json};

use crate::bad_input::refused_at;
use crate::calibration::MEASURED;
use crate::common::*;

/// Three prompts, the second of them too long, under two methods.
const ASKED: [&str; 8] =
    ["--workload", "one-too-long.jsonl", "--prompts", "3", "--methods", "hlm,llm-only", "--max-new-tokens", "24"];

const SKIP: [&str; 2] = ["--set", "run.too_long=skip"];
const TRUNCATE: [&str; 2] = ["--set", "run.too_long=truncate"];
const SKIPPED: &str =
    "note: prompts too long for the models (run.too_long): 1 skipped: prompt 1 of one-too-long with 6002 tokens";

fn place() -> Place {
    let place = Place::new();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/inputs/one-too-long.jsonl");
    place.file("one-too-long.jsonl", fs::read(sample).expect("it is there"));
    place
}

fn recorded(place: &Place, out: &str) -> Value {
    let path = place.path("runs").join(place.name_of(out)).join("meta.json");
    let meta: Value = serde_json::from_slice(&fs::read(path).expect("meta.json")).expect("JSON");
    meta["inputs"]["workload"][0].clone()
}

fn prompts(results: &Results, method: &str) -> Vec<u64> {
    results.tokens(method).into_keys().collect()
}

/// By itself a run refuses such a prompt, whatever answers, and names the key.
#[test]
fn a_prompt_that_is_too_long_is_refused() {
    let place = place();
    let fitted = [&["simulate"], &ASKED[..], &FIXED, &QUICK, &["--fidelity", "fitted"]].concat();
    for arguments in [
        [&["run"], &ASKED[..], &FAST].concat(),
        [&["simulate"], &ASKED[..], &FIXED, &QUICK].concat(),
        fitted,
        [&["capacity"], &ASKED[..], &FIXED, &QUICK, &["--slo", "request_p95<60s"]].concat(),
        [&["sweep"], &ASKED[..], &FIXED, &QUICK, &["--vary", "run.devices=1,2"]].concat(),
    ] {
        let mut arguments = arguments;
        arguments.retain(|argument| !["--ui", "none"].contains(argument));
        let output = call(&place, &[&arguments[..], &["--ui", "none"]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        let why = "data set \"one-too-long\", line 2: the prompt has 6002 tokens and leaves no room in a context of 1024; \
            run.too_long = \"skip\" or \"truncate\" goes on without it, or with its end";
        assert!(said(&output).contains(why), "{arguments:?}: {}", said(&output));
    }
    let lines = fs::read_to_string(place.path("one-too-long.jsonl")).expect("a file");
    place.file("only.jsonl", lines.lines().nth(1).expect("a line"));
    refused_at(
        &place,
        &[&["run", "--workload", "only.jsonl", "--prompts", "1", "--methods", "hlm"], &FAST[..], &SKIP].concat(),
        expect!["specfleet: run.too_long: every prompt leaves no room for an answer in a context of 1024"],
    );
    refused_at(
        &place,
        &["run", "--set", "run.too_long=cut"],
        expect![[r#"specfleet: --set: run.too_long = "cut" is not known; valid: refuse, skip, truncate"#]],
    );
}

/// A skipped prompt is counted and said, and every other is answered as it would be without it.
#[test]
fn a_skipped_prompt_is_counted() {
    let place = place();
    let live = place.try_run(&[&["--out", "live"], &ASKED[..], &SKIP, &["--devices", "2"]].concat());
    assert!(live.status.success(), "{}", said(&live));
    assert!(String::from_utf8_lossy(&live.stderr).contains(SKIPPED), "{}", said(&live));
    assert!(String::from_utf8_lossy(&live.stdout).contains(SKIPPED), "{}", said(&live));
    let results = Results::read(&place.path("live"));
    results.assert_sound();
    assert_eq!(prompts(&results, "hlm"), [0, 2]);
    let workload = recorded(&place, "live");
    assert_eq!((&workload["prompts"], &workload["requests"]), (&json!(3), &json!(2)));
    assert_eq!(workload["too_long"], json!([{"prompt": 1, "tokens": 6002, "kept": 0}]));

    let run = place.name_of("live");
    let report: Value = serde_json::from_str(&printed(&place, &["report", &run, "--json"])).expect("JSON");
    assert_eq!(report["validity"]["state"], "VALID", "{}", report["validity"]);
    assert!(report["notes"].to_string().contains("1 skipped: prompt 1 of one-too-long"), "{}", report["notes"]);
    assert!(call(&place, &["score", &run]).status.success());

    let simulated = place.quick("simulate", "model", &[&ASKED[..], &SKIP, &FIXED, &["--devices", "2"]].concat());
    assert!(said(&simulated).contains(SKIPPED), "{}", said(&simulated));
    assert_eq!(Results::read(&place.path("model")).decisions(), results.decisions());
    let trace = format!("simulate.trace={run}");
    let trace = ["--fidelity", "trace", "--set", &trace];
    place.quick("simulate", "trace", &[&ASKED[..], &SKIP, &FIXED, &trace, &["--devices", "3"]].concat());
    assert_eq!(prompts(&Results::read(&place.path("trace")), "hlm"), [0, 2]);
    let fitted = place.quick("simulate", "fitted", &[&ASKED[..], &SKIP, &FIXED, &["--fidelity", "fitted"]].concat());
    assert!(said(&fitted).contains(SKIPPED), "{}", said(&fitted));
    assert_eq!(recorded(&place, "fitted")["requests"], 2);

    // More requests than prompts: the skipped one is left out each time.
    let again = [&ASKED[..2], &ASKED[4..], &["--prompts", "8"], &SKIP, &FIXED].concat();
    place.quick("simulate", "again", &again);
    let lines = Results::read(&place.path("again")).lines;
    assert_eq!((lines.len(), recorded(&place, "again")["requests"].clone()), (2 * 5, json!(5)));
}

/// Of a truncated prompt the models read the start token and the end.
#[test]
fn a_truncated_prompt_keeps_its_end() {
    let place = place();
    let results = place.run("out", &[&ASKED[..], &TRUNCATE].concat());
    results.assert_sound();
    assert_eq!(prompts(&results, "hlm"), [0, 1, 2]);
    // Room for an answer of 24 tokens and two lookahead steps is left of 1024.
    assert_eq!(recorded(&place, "out")["too_long"], json!([{"prompt": 1, "tokens": 6002, "kept": 998}]));
    let run = place.name_of("out");
    let scored = call(&place, &["score", &run, "--perplexity"]);
    assert!(scored.status.success(), "the same prompts are read again: {}", said(&scored));

    let generations = place.rows_of("out").generations;
    let lengths: Vec<u32> =
        generations.iter().filter(|(row, _)| row.id.prompt == 1).map(|(row, _)| row.prompt_tokens).collect();
    assert_eq!(lengths, [998, 998]);

    let simulated = place.quick("simulate", "model", &[&ASKED[..], &TRUNCATE, &FIXED].concat());
    assert!(said(&simulated).contains("1 truncated: prompt 1 of one-too-long with 6002 tokens to 998"));
    assert_eq!(Results::read(&place.path("model")).decisions(), results.decisions());

    // What stands before the end does not matter, and the end does.
    let answer = |out: &str, prompt: &str| {
        place.file("long.jsonl", json!({"prompt": prompt}).to_string());
        let long = ["--workload", "long.jsonl", "--prompts", "1", "--methods", "llm-only", "--max-new-tokens", "24"];
        place.run(out, &[&long[..], &TRUNCATE, &["--temperature", "0"]].concat()).tokens("llm-only")
    };
    let text = "word ".repeat(2_000);
    let question = "Question: Ann has 3 pens and buys 4 more. How many pens does Ann have?\nAnswer:";
    let same = answer("same", &format!("{text}{question}"));
    assert_eq!(answer("start", &format!("Ben had 9 shells. {text}{question}")), same);
    assert_ne!(answer("end", &format!("{question}{text}")), same);
}

/// Whoever simulates a scenario, or repeats a run, leaves out the same prompts.
#[test]
fn searches_repetitions_and_calibrations_skip_too() {
    let place = place();
    let search = [&ASKED[..4], &["--methods", "hlm", "--max-new-tokens", "8"], &SKIP, &FIXED, &QUICK].concat();
    let call_search = |command: &str, more: &[&str]| {
        let output = call(&place, &[&[command], &search[..], more, &["--ui", "none"]].concat());
        assert!(output.status.success() && said(&output).contains(SKIPPED), "{command}: {}", said(&output));
    };
    call_search("capacity", &["--slo", "request_p95<60s", "--devices", "2"]);
    call_search("sweep", &["--vary", "run.devices=1,2"]);

    place.quick("run", "live", &[&ASKED[..], &SKIP].concat());
    let against = call(&place, &["simulate", "--against", &place.name_of("live"), "--ui", "none"]);
    assert!(against.status.success(), "{}", said(&against));
    place.quick("run", "measured", &[&ASKED[..], &SKIP, &MEASURED].concat());
    let calibrated = call_calibrate(&place, &place.name_of("measured"));
    assert!(calibrated.status.success(), "{}", said(&calibrated));

    // A calibration of prompts of its own, one of which is too long.
    let own = ["--set", "calibration.workload=one-too-long.jsonl", "--set", "calibration.prompts=3"];
    let run = ["--methods", "u-hlm", "--prompts", "2", "--max-new-tokens", "4"];
    let refused = place.try_run(&[&run[..], &own].concat());
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("data set \"one-too-long\", line 2: the prompt has 6002 tokens"),
        "{}",
        said(&refused)
    );
    place.run("own", &[&run[..], &own, &SKIP].concat());
}

fn call_calibrate(place: &Place, run: &str) -> std::process::Output {
    call(place, &["calibrate", run, "--out", "calibration.json"])
}
