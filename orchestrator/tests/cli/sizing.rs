//! Sizing that is true: memory from profiles, lengths from the workload, a search with a bound and a budget, and the name
//! of what a fleet runs out of.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use expect_test::expect;
use serde_json::Value;

use crate::bad_input::refused_at;
use crate::calibration::calibrated;
use crate::common::*;

/// A declared 7 B verifier on a declared board, and devices that take 50 ms for a draft, under `hlm`.
const BOARD: &str = r#"
[run]
devices = 1
verifiers = 1
prompts = 1
methods = ["hlm"]
[device.profile]
name = "slow-drafter"
source = "these tests"
kind = "declared"
draft_seconds = 0.05
draft_joules = 0.001
prefill_seconds = 0.00001
prefill_joules = 0.00001
uncertainty_seconds = 0.00005
uncertainty_joules = 0.0001
importance_seconds = 0.00005
importance_joules = 0.0001
idle_watts = 0.4
[device.link]
name = "wire"
source = "these tests"
emulated = true
kind = "constant"
uplink_bps = 1e9
downlink_bps = 1e9
round_trip_ms = 0.5
transmit_watts = 1
receive_watts = 1
[method.payload]
form = "top-k"
k = 30
[pool.profile]
name = "board"
source = "these tests"
batch_watts = 100
idle_watts = 10
flops_per_second = 1e14
bytes_per_second = 1e13
overhead_seconds = 0.0001
memory_bytes = 40_000_000_000
[simulate]
fidelity = "fitted"
cost = "roofline"
verifier_model = "llama-2-7b"
ignore_eos = true
"#;

fn call_capacity(place: &Place, arguments: &[&str]) -> Value {
    let scenario = place.file("board.toml", BOARD);
    let output = place.command(&["capacity", &scenario, "--json"]).args(arguments).output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    let answers: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    answers[0].clone()
}

/// A quarter more of the resource that is named carries a larger fleet, a quarter more of any other does not.
#[test]
fn the_named_resource_binds() {
    let memory = ("KV memory", "model.verifier_kv_mebibytes", 2_000.0);
    let time = ("verifier time", "pool.profile.flops_per_second", 1e14);
    let link = ("link", "device.link.uplink_bps", 1e9);
    let ample = ("KV memory", "model.verifier_kv_mebibytes", 16_000.0);
    let scenarios = [
        ("kv-memory", "run.max_new_tokens=192", "inter_token_p95<150ms", [memory, time, link]),
        (
            "verifier-time",
            "run.max_new_tokens=48",
            "inter_token_p95<400ms",
            [ample, ("verifier time", "pool.profile.flops_per_second", 4e12), link],
        ),
        (
            "link",
            "run.max_new_tokens=48",
            "inter_token_p95<180ms",
            [ample, time, ("link", "device.link.uplink_bps", 10e3)],
        ),
    ];
    let place = Place::new();
    for (named, length, target, resources) in scenarios {
        let answer = |more_of: Option<usize>| {
            let keys = resources.iter().enumerate().map(|(index, (_, key, amount))| {
                let amount = if Some(index) == more_of { amount * 1.25 } else { *amount };
                // The memory is a whole number.
                if key.ends_with("mebibytes") { format!("{key}={amount:.0}") } else { format!("{key}={amount:e}") }
            });
            let mut arguments = vec!["--slo", target, "--devices", "400", "--set", length];
            let keys: Vec<String> = keys.collect();
            keys.iter().for_each(|key| arguments.extend(["--set", key.as_str()]));
            call_capacity(&place, &arguments)
        };
        let devices = |answer: &Value| answer["devices"].as_u64().expect("a number");
        let base = answer(None);
        assert_eq!((&base["binding"], &base["complete"]), (&named.into(), &true.into()), "{base}");
        for (index, (name, ..)) in resources.iter().enumerate() {
            let more = answer(Some(index));
            let is_named = name.to_lowercase().replace(' ', "-") == named;
            // The search is exact to two per cent.
            let grown = devices(&more) as f64 > devices(&base) as f64 * 1.05;
            assert_eq!(grown, is_named, "{named}: 25 % more {name}: {base}\n{more}");
        }
    }
}

#[test]
fn memory_is_that_of_the_profile() {
    let place = Place::new();
    let slo = ["--slo", "inter_token_p95<300ms"];
    for command in ["capacity", "simulate"] {
        let slo = if command == "capacity" { &slo[..] } else { &[] };
        let more = ["--set", "pool.profile=h100", "--set", "model.verifier_kv_mebibytes=110000"];
        refused_at(
            &place,
            &[&[command, "h200"], &more[..], slo].concat(),
            expect![
                "specfleet: --set: model.verifier_kv_mebibytes = 110000 is out of range: must lie in 1 to 55812: h100 has 80.0 GB, of which pool.memory_share = 0.9 leaves 72.0 GB, and the weights of llama-2-7b take 13.5 GB"
            ],
        );
    }
    refused_at(
        &place,
        &["simulate", "h200", "--set", "pool.memory_share=0.09"],
        expect![
            "specfleet: scenarios/h200.toml: model.verifier_kv_mebibytes: there is no memory for it: h200 has 141.0 GB, of which pool.memory_share = 0.09 leaves 12.7 GB, and the weights of llama-2-7b take 13.5 GB"
        ],
    );
    refused_at(
        &place,
        &["simulate", "--set", "pool.memory_share=0.5"],
        expect![[
            r#"specfleet: --set: pool.memory_share: has no use: pool.profile "host-cpu" declares no memory_bytes"#
        ]],
    );
    // All that the weights leave, and not more; the answer says so.
    let scenario = place.file("board.toml", BOARD);
    let arguments = ["--slo", "inter_token_p95<1s", "--devices", "1", "--set", "run.max_new_tokens=4"];
    let output = place.command(&["capacity", &scenario]).args(arguments).output().expect("the binary runs");
    let text = said(&output);
    let note = "note: KV memory of each verifier: 21480 MiB (board has 40.0 GB, of which pool.memory_share = 0.9";
    assert!(output.status.success() && text.contains(note), "{text}");

    // A verifier that is loaded takes the smaller of the two by itself, or says that there is none.
    let small = "pool.profile={ name = 'small', source = 'these tests', batch_watts = 1, idle_watts = 1, memory_bytes = 5000000 }";
    let output = place.try_run(&["--methods", "hlm", "--prompts", "1", "--set", small]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("leave no room for KV caches beside the verifier's weights"), "{}", said(&output));
}

#[test]
fn lengths_are_those_of_the_workload() {
    let place = Place::new();
    let calibration = format!("calibration.file={}", place.file("calibration.json", calibrated()));
    let words = "many words ".repeat(40);
    let workload = place.file("long.jsonl", format!("{{\"prompt\": \"{words}\", \"reference\": \"x\"}}\n"));
    let fitted = ["--set", "simulate.fidelity=fitted", "--set", &calibration, "--methods", "hlm", "--devices", "2"];
    let run = |out: &str, arguments: &[&str]| {
        let output = place.quick("simulate", out, &[&fitted[..], &FIXED, arguments].concat());
        let rows = place.rows_of(out);
        let lengths: Vec<(u32, usize)> =
            rows.generations.iter().map(|(record, rounds)| (record.prompt_tokens, rounds.len())).collect();
        (String::from_utf8(output.stdout).expect("text"), lengths)
    };
    // Every request has the workload's prompt, which has more words than the calibration's prompts had tokens.
    let endless =
        ["--workload", &workload, "--prompts", "3", "--max-new-tokens", "20", "--set", "simulate.ignore_eos=true"];
    let (text, lengths) = run("endless", &endless);
    assert!(lengths.iter().all(|(prompt, answer)| *prompt > 80 && *answer == 20) && lengths.len() == 3, "{lengths:?}");
    assert!(text.contains("counted with the embedded pair's tokenizer; answers: 20 tokens each"), "{text}");
    // Recorded requests say both themselves.
    let trace = place.file("trace.csv", "at,prompt_tokens,answer_tokens\n0,12,5\n0.2,40,9\n0.4,7,1\n");
    let file = format!("load.file={trace}");
    let csv = ["--set", "load.pattern=csv", "--set", &file, "--max-new-tokens", "8"];
    let (text, mut lengths) = run("trace", &[&csv[..], &["--prompts", "3"]].concat());
    lengths.sort_unstable();
    assert_eq!(lengths, [(7, 1), (12, 5), (40, 8)], "{text}");
    assert!(text.contains("as load.file says; answers: as load.file says, at most 8 tokens"), "{text}");
    // A recording that is shorter than the workload is pointed out, live and simulated.
    let (text, lengths) = run("short", &[&csv[..], &["--prompts", "5"]].concat());
    assert!(lengths.len() == 3 && text.contains("note: 3 of 5 requests were made"), "{text}");
    let live =
        place.quick("run", "live", &[&csv[..], &["--prompts", "5", "--methods", "hlm", "--devices", "2"]].concat());
    assert!(said(&live).contains("note: 3 of 5 requests were made"), "{}", said(&live));
    // What does not fit is refused, with a declared pair too.
    let endless =
        place.file("endless.jsonl", format!("{{\"prompt\": \"{}\", \"reference\": \"x\"}}\n", words.repeat(60)));
    for scenario in [&FIXED[..], &["h200"]] {
        let arguments = [&["simulate", "--workload", &endless, "--ui", "none"], scenario].concat();
        let scenario = if scenario == ["h200"] { &[][..] } else { &fitted[..] };
        let output = place.command(&[&arguments[..], scenario].concat()).output().expect("the binary runs");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("data set \"endless\", line 1: the prompt has"), "{text}");
    }
}

#[test]
fn a_search_ends_with_its_budget_or_a_signal() {
    let place = Place::new();
    let scenario = place.file("board.toml", BOARD);
    let search = [&scenario, "--slo", "inter_token_p95<10s", "--set", "run.max_new_tokens=64"];
    // Nothing can be tried in a millisecond: a table, and no answer.
    let output = place
        .command(&["capacity"])
        .args(search)
        .args(["--budget", "1ms", "--ui", "none"])
        .output()
        .expect("the binary runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("not known yet") && text.contains("note: the search was broken off"), "{text}");
    // A budget that is long enough changes nothing.
    let answer = call_capacity(&place, &["--slo", "inter_token_p95<10s", "--devices", "3", "--budget", "10min"]);
    assert_eq!((&answer["devices"], &answer["complete"]), (&3.into(), &true.into()), "{answer}");
    assert_eq!(answer["trials"].as_array().map(Vec::len), Some(2), "{answer}");
    // Ctrl-C gives what is known by then.
    let mut child = place
        .command(&["capacity"])
        .args(search)
        .args(["--ui", "plain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut tried = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let first = tried.next().expect("a line").expect("text");
    assert!(first.starts_with("hlm: 1 devices holds"), "{first}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs").success());
    // What it goes on to say must be taken from it.
    tried.for_each(drop);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("note: the search was broken off"), "{}", said(&output));
    for (budget, message) in
        [("60", "has no unit; write a time above 0 with ms, s, min or h, such as 60s"), ("0s", "write a time above 0")]
    {
        let output = place.command(&["capacity"]).args(search).args(["--budget", budget]).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(message), "{}", said(&output));
    }
    refused_at(
        &place,
        &["capacity", "--slo", "ttft<1s", "--devices", "0"],
        expect!["specfleet: --devices = 0 is out of range: must lie in 1 to 1000000, the largest fleet that is tried"],
    );
}

/// A pair that nobody has calibrated: as many texts side by side as there is memory for, and the same whatever that is.
#[test]
fn calibration_keeps_to_its_memory() {
    let calibrate = |mebibytes: &str| {
        let place = Place::new();
        let memory = format!("calibration.kv_mebibytes={mebibytes}");
        let keys = ["--set", "calibration.prompts=5", "--set", &memory, "--methods", "ui-hlm", "--prompts", "1"];
        let output = place
            .command(&[&["simulate", "--ledger", "runs", "--ui", "plain"], &FIXED[..], &keys].concat())
            .output()
            .expect("the binary runs");
        let text = said(&output);
        let cached = fs::read_dir(place.path("runs/calibrations")).ok().and_then(|mut files| files.next());
        let cached = cached.map(|file| fs::read_to_string(file.expect("a file").path()).expect("text"));
        (output.status.code(), text, cached)
    };
    let (code, text, plenty) = calibrate("512");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("calibration follows 32 texts at a time, for which it takes up to "), "{text}");
    // One that is kept and was changed is computed again, and one that was not is taken.
    let place = Place::new();
    let keys = ["--set", "calibration.prompts=5", "--methods", "ui-hlm", "--prompts", "1"];
    let command = [&["simulate", "--ledger", "runs", "--ui", "plain"], &FIXED[..], &keys].concat();
    let again = || said(&place.command(&command).output().expect("the binary runs"));
    let calibrates = |text: &str| text.contains("calibrating this pair");
    assert!(calibrates(&again()) && !calibrates(&again()));
    let kept = fs::read_dir(place.path("runs/calibrations")).expect("a folder").next().expect("a file");
    let kept = kept.expect("an entry").path();
    let whole = fs::read(&kept).expect("a file");
    let mut flipped = whole.clone();
    let digit = flipped.iter().position(u8::is_ascii_digit).expect("a number");
    flipped[digit] ^= 1;
    fs::write(&kept, flipped).expect("a file");
    let text = again();
    assert!(calibrates(&text) && text.contains("is not what was written: it is computed again"), "{text}");
    assert_eq!(fs::read(&kept).expect("a file"), whole);
    let (code, text, little) = calibrate("8");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("texts at a time") && !text.contains("follows 32 texts"), "{text}");
    assert!(plenty.is_some() && plenty == little, "the fits do not depend on the memory");
    let (code, text, none) = calibrate("1");
    assert_eq!((code, none), (Some(2), None), "{text}");
    assert!(text.contains("specfleet: calibration.kv_mebibytes = 1 is out of range: following two texts"), "{text}");
}
