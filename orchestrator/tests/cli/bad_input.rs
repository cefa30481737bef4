//! Bad input: one line that names the file, the key or the range, exit code 2, and nothing runs.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use expect_test::{Expect, expect};

use crate::common::*;

/// What the user reads, with the temporary folder's name taken out; fails if it is more than a line, if anything else was
/// printed, if the code is not 2, or if a run was left.
fn refused_at(place: &Place, arguments: &[&str], expected: Expect) {
    let output = place.command(arguments).args(["--ledger", "runs"]).output().expect("the binary runs");
    let error = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", said(&output));
    assert_eq!(error.trim_end().lines().count(), 1, "{arguments:?}: {error}");
    assert_eq!(place.runs().len(), 0, "{arguments:?} left a run");
    let error = error.replace(&text(&place.path("")), "FOLDER/").replace("FOLDER//", "FOLDER/");
    expected.assert_eq(error.trim_end());
}

fn refused(arguments: &[&str], expected: Expect) {
    let quick = ["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];
    let unset = quick.chunks(2).filter(|pair| !arguments.contains(&pair[0])).flatten();
    refused_at(&Place::new(), &arguments.iter().chain(unset).copied().collect::<Vec<_>>(), expected);
}

#[test]
fn flags() {
    refused(
        &["--devices", "0"],
        expect!["specfleet: --devices: run.devices = 0 is out of range: must lie in 1 to 1000000"],
    );
    refused(&["--devices", "abc"], expect![]);
    refused(&["--devices=-1"], expect![]);
    refused(&["--devices", "1000000", "--prompts", "1000000"], expect![]);
    refused(&["--verifiers", "65"], expect![]);
    refused(&["--prompts", "0"], expect![]);
    refused(&["--max-new-tokens", "0"], expect![]);
    refused(&["--temperature", "9"], expect![]);
    refused(&["--temperature", "NaN"], expect![]);
    refused(&["--temperature", "0.0001"], expect![]);
    refused(&["--seed", "9223372036854775808"], expect![]);
    refused(&["--methods", "hlm,ui-hml"], expect![]);
    refused(&["--methods", ""], expect![]);
    refused(&["--methods", "hlm,hlm"], expect![]);
    refused(&["--precision", "q3"], expect![]);
    refused(&["--ui", "fancy"], expect![]);
    refused(&["--frobnicate"], expect![]);
    refused(&["--fault", "reboot@1"], expect![]);
    refused(&["--fault", "kill-verifier@soon"], expect![]);
}

#[test]
fn set() {
    refused(&["--set", "run.devces=3"], expect![]);
    refused(&["--set", "run.temperature=9"], expect![]);
    refused(&["--set", "run.devices=many"], expect![]);
    refused(&["--set", "run.devices"], expect![]);
    refused(&["--set", "=3"], expect![]);
    refused(&["--set", "run..devices=3"], expect![]);
    refused(&["--set", ""], expect![]);
    refused(&["--set", "run=3"], expect![]);
    refused(&["--set", "device.link=swift"], expect![]);
    refused(&["--set", "methods.ui-hlm.layer=9", "--methods", "ui-hlm"], expect![]);
    refused(&["--set", "pool.listen=localhost"], expect![]);
    refused(&["--set", "pool.tls.certificate=none.pem", "--set", "pool.tls.key=none.key"], expect![]);
    refused(&["--set", "calibration.file=none.json"], expect![]);
}

#[test]
fn scenarios() {
    let place = Place::new();
    refused_at(&place, &["nowhere.toml"], expect![]);
    refused_at(&place, &["run", "nowhere"], expect![]);
    refused_at(&place, &[&place.file("broken.toml", "[run]\ndevices = \n")], expect![]);
    refused_at(&place, &[&place.file("key.toml", "[run]\ndevices = 2\nmax_tokens = 3\n")], expect![]);
    refused_at(&place, &[&place.file("range.toml", "[pool]\nbatch_tokens = 0\n")], expect![]);
    refused_at(&place, &[&place.file("latin1.toml", b"[run] # \xe9\n")], expect![]);
}

#[test]
fn workloads() {
    let place = Place::new();
    let mut with = |name: &str, contents: &str, expected| {
        refused_at(&place, &["--workload", &place.file(name, contents), "--methods", "hlm"], expected);
    };
    with("empty.jsonl", "", expect![]);
    with("blank.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n\n", expect![]);
    with("broken.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \n", expect![]);
    with("half.jsonl", "{\"question\": \"a\"}\n", expect![]);
    with("white.jsonl", "{\"prompt\": \" \\n\", \"reference\": \"b\"}\n", expect![]);
    let long = format!("{{\"prompt\": \"{}\", \"reference\": \"b\"}}\n", "one two ".repeat(600));
    with("long.jsonl", &("{\"prompt\": \"a\", \"reference\": \"b\"}\n".to_owned() + &long), expect![]);
    refused_at(&place, &["--workload", "none.jsonl"], expect![]);
    refused_at(&place, &["--workload", "gsm9k"], expect![]);
    refused_at(&place, &["--workload", ""], expect![]);
}

/// Copies an embedded model into a folder of its own.
fn copy_model(which: &str, to: &Path) {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets");
    fs::create_dir_all(to).expect("a temporary folder");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(assets.join(which).join(name), to.join(name)).expect(name);
    }
    fs::copy(assets.join("tokenizer.json"), to.join("tokenizer.json")).expect("tokenizer.json");
}

#[test]
fn models() {
    let place = Place::new();
    let with = |name: &str, spoil: &dyn Fn(&Path), expected: Expect| {
        let folder = place.path(name);
        copy_model("drafter", &folder);
        spoil(&folder);
        refused_at(&place, &["--drafter", &text(&folder), "--methods", "hlm"], expected);
    };
    let edit = |file: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(file).expect("text");
        assert!(text.contains(from), "{from} is not in {}", file.display());
        fs::write(file, text.replacen(from, to, 1)).expect("a temporary file");
    };
    refused_at(&place, &["--drafter", "nowhere", "--methods", "hlm"], expect![]);
    with("no-weights", &|folder| fs::remove_file(folder.join("model.safetensors")).expect("it is there"), expect![]);
    with(
        "truncated",
        &|folder| {
            let path = folder.join("model.safetensors");
            let bytes = fs::read(&path).expect("weights");
            fs::write(&path, &bytes[..bytes.len() / 2]).expect("a temporary file");
        },
        expect![],
    );
    with("header", &|folder| fs::write(folder.join("model.safetensors"), b"abc").expect("a temporary file"), expect![]);
    with("no-tokenizer", &|folder| fs::remove_file(folder.join("tokenizer.json")).expect("it is there"), expect![]);
    with("other-tokenizer", &|folder| edit(&folder.join("tokenizer.json"), "\"e\":", "\"\u{2603}\":"), expect![]);
    with("broken-tokenizer", &|folder| edit(&folder.join("tokenizer.json"), "{", "["), expect![]);
    with(
        "shape",
        &|folder| edit(&folder.join("config.json"), "\"num_hidden_layers\": ", "\"num_hidden_layers\": 1"),
        expect![],
    );
}

/// The embedded pair from folders is the embedded pair.
#[test]
fn models_from_folders_write_the_same() {
    let place = Place::new();
    copy_model("drafter", &place.path("d"));
    copy_model("verifier", &place.path("v"));
    let common = ["--methods", "llm-only,hlm", "--prompts", "2", "--max-new-tokens", "8"];
    let embedded = place.run("embedded", &common);
    let folders = place.run("folders", &[&common[..], &["--drafter", "d", "--verifier", "v"]].concat());
    assert_eq!(embedded.decisions(), folders.decisions());
}

#[test]
fn a_port_in_use() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let place = Place::new();
    let arguments = ["--methods", "hlm", "--set", &format!("pool.listen=127.0.0.1:{port}")];
    let output = place.command(&["run", "--ledger", "runs"]).args(arguments).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    // The headline may stand before it.
    let error = String::from_utf8(output.stderr).expect("text").replace(&port, "PORT");
    let last = error.lines().last().unwrap_or_default();
    expect![].assert_eq(last);
    assert_eq!(place.runs().len(), 0);
}

#[test]
fn folders_that_cannot_be_written() {
    let place = Place::new();
    let file = place.file("file", "");
    let quick = ["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];
    refused_at(&place, &[&["--out", &file], &quick[..]].concat(), expect![]);
    refused_at(&place, &[&["--out", &format!("{file}/below")], &quick[..]].concat(), expect![]);
    for command in [&["runs", "--ledger", &file][..], &[&["run", "--ledger", &file], &quick[..]].concat()] {
        let output = place.command(command).output().expect("the binary runs");
        let error = String::from_utf8(output.stderr.clone()).expect("text");
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", said(&output));
        assert!(error.trim_end().lines().count() == 1 && error.contains(&file), "{error}");
    }
}

#[test]
fn check() {
    let place = Place::new();
    for (scenario, expected) in [
        ("default", "16 devices, 2 verifiers, 48 prompts, T = 1, seed 1; methods: slm-only, llm-only, hlm, "),
        ("paper", "48 devices, 2 verifiers, 300 prompts, T = 1, seed 1; methods: slm-only, llm-only, hlm, "),
        ("paper.toml", "48 devices, "),
        ("reference", "16 devices, "),
    ] {
        let output = place.command(&["check", scenario]).output().expect("the binary runs");
        let said_out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        assert!(said_out.starts_with(expected), "{said_out}");
        assert!(said_out.lines().nth(1).is_some_and(|line| line.starts_with("scenario ")), "{said_out}");
    }
    let bad = place.file("bad.toml", "[run]\ndevices = 0\n");
    let output = place.command(&["check", &bad]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).replace(&bad, "bad.toml");
    expect![].assert_eq(error.trim_end());
    let output = place.command(&["check"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    expect![].assert_eq(String::from_utf8_lossy(&output.stderr).trim_end());
}
