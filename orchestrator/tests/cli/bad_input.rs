//! Bad input: one line that names the file, the key or the range, exit code 2, and nothing runs.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use expect_test::{Expect, expect};

use crate::common::*;

/// Calls the binary and compares what it says, with the names of the temporary folder and of runs taken out. Fails if that is more than a
/// line, if anything else was printed, if the code is not 2, or if a run was left.
pub(crate) fn refused_at(place: &Place, arguments: &[&str], expected: Expect) {
    let before = place.runs();
    let output = call(place, arguments);
    let error = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", said(&output));
    assert_eq!(error.trim_end().lines().count(), 1, "{arguments:?}: {error}");
    assert_eq!(place.runs().len(), before.len(), "{arguments:?} left a run");
    let named = |error: String, run: &serde_json::Value| error.replace(run["run"].as_str().expect("a name"), "RUN");
    let error = before.iter().fold(error, named);
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
    refused(
        &["--devices", "abc"],
        expect!["specfleet: invalid value 'abc' for '--devices <N>': invalid digit found in string"],
    );
    refused(
        &["--devices=-1"],
        expect!["specfleet: --devices: run.devices = -1 is out of range: must lie in 1 to 1000000"],
    );
    refused(
        &["--devices", "1000000", "--prompts", "1000000"],
        expect![
            "specfleet: run.devices: 1000000 devices would run at the same time, a live run takes at most 10000 (each has a connection of its own)"
        ],
    );
    refused(
        &["--verifiers", "4097"],
        expect!["specfleet: --verifiers: run.verifiers = 4097 is out of range: must lie in 1 to 4096"],
    );
    refused(
        &["--verifiers", "65"],
        expect![
            "specfleet: run.verifiers: 65 verifiers would run at the same time, a live run takes at most 64 (each has threads and KV memory of its own)"
        ],
    );
    refused(
        &["--set", "pool.autoscale.max=65"],
        expect![
            "specfleet: pool.autoscale.max: 65 verifiers would run at the same time, a live run takes at most 64 (each has threads and KV memory of its own)"
        ],
    );
    refused(
        &["--prompts", "0"],
        expect!["specfleet: --prompts: run.prompts = 0 is out of range: must lie in 1 to 10000000"],
    );
    refused(
        &["--max-new-tokens", "0"],
        expect!["specfleet: --max-new-tokens: run.max_new_tokens = 0 is out of range: must lie in 1 to 1000000"],
    );
    refused(
        &["--temperature", "9"],
        expect!["specfleet: --temperature: run.temperature = 9 is out of range: must lie in 0 to 5"],
    );
    refused(
        &["--temperature", "NaN"],
        expect!["specfleet: --temperature: run.temperature = NaN is out of range: must lie in 0 to 5"],
    );
    refused(
        &["--temperature", "0.0001"],
        expect![
            "specfleet: --temperature: run.temperature = 0.0001 is out of range: must be 0 (greedy) or lie in 0.001 to 5"
        ],
    );
    refused(
        &["--seed", "9223372036854775808"],
        expect![
            "specfleet: invalid value '9223372036854775808' for '--seed <S>': number too large to fit in target type"
        ],
    );
    refused(
        &["--methods", "hlm,ui-hml"],
        expect![[
            r#"specfleet: --methods: run.methods = "ui-hml" is not known; valid: slm-only, llm-only, hlm, rand-hlm, u-hlm, ui-hlm, cu-hlm, dssd, block, entropy, max-prob, price, or all"#
        ]],
    );
    refused(&["--methods", ""], expect!["specfleet: --methods: run.methods: must name at least one method"]);
    refused(&["--methods", "hlm,hlm"], expect!["specfleet: --methods: run.methods: names hlm twice"]);
    refused(
        &["--precision", "q3"],
        expect![[r#"specfleet: --precision: model.drafter_precision = "q3" is not known; valid: f32, q8_0, q4_k"#]],
    );
    refused(
        &["--ui", "fancy"],
        expect!["specfleet: invalid value 'fancy' for '--ui <UI>'; [possible values: auto, plain, none]"],
    );
    refused(
        &["--frobnicate"],
        expect![
            "specfleet: unexpected argument '--frobnicate' found; tip: to pass '--frobnicate' as a value, use '-- --frobnicate'"
        ],
    );
    refused(
        &["--fault", "reboot@1"],
        expect![[
            r#"specfleet: --fault: faults.inject = "reboot@1" is not known; valid: kill-verifier@SECONDS, with 0 to 1000000 seconds"#
        ]],
    );
    refused(
        &["--fault", "kill-verifier@soon"],
        expect![[
            r#"specfleet: --fault: faults.inject = "kill-verifier@soon" is not known; valid: kill-verifier@SECONDS, with 0 to 1000000 seconds"#
        ]],
    );
}

#[test]
fn set() {
    refused(&["--set", "run.devces=3"], expect!["specfleet: --set: unknown key run.devces; did you mean run.devices?"]);
    refused(
        &["--set", "run.temperature=9"],
        expect!["specfleet: --set: run.temperature = 9 is out of range: must lie in 0 to 5"],
    );
    refused(
        &["--set", "run.devices=many"],
        expect![[r#"specfleet: --set: run.devices must be a whole number, not the text "many""#]],
    );
    refused(
        &["--set", "run.devices"],
        expect!["specfleet: --set run.devices: must be key=value, such as run.devices=100"],
    );
    refused(&["--set", "=3"], expect!["specfleet: --set =3: must be key=value, such as run.devices=100"]);
    refused(
        &["--set", "run..devices=3"],
        expect!["specfleet: --set run..devices=3: must be key=value, such as run.devices=100"],
    );
    refused(&["--set", ""], expect!["specfleet: --set : must be key=value, such as run.devices=100"]);
    refused(&["--set", "run=3"], expect!["specfleet: --set: run must be a table, not the number 3"]);
    refused(
        &["--set", "device.link=swift"],
        expect![[
            r#"specfleet: --set: device.link = "swift" is not known; valid: good, fair, poor, wifi, lte, ethernet, real, or a path to a .toml file"#
        ]],
    );
    refused(
        &["--set", "methods.ui-hlm.layer=9", "--methods", "ui-hlm"],
        expect![[
            r#"specfleet: method "ui-hlm": layer = 9 is out of range, it must be 0 to 2: the drafter has 3 layers"#
        ]],
    );
    refused(
        &["--set", "pool.listen=localhost"],
        expect![[
            r#"specfleet: --set: pool.listen: "localhost" is no address; use HOST:PORT, such as localhost:8080 or [::1]:8080, or a port alone for this machine's loopback"#
        ]],
    );
    refused(
        &["--set", "pool.tls.certificate=none.pem", "--set", "pool.tls.key=none.key"],
        expect!["specfleet: none.pem: No such file or directory (os error 2); expected a certificate chain in PEM"],
    );
    refused(
        &["--set", "calibration.file=none.json"],
        expect!["specfleet: cannot read none.json: No such file or directory (os error 2)"],
    );
}

#[test]
fn scenarios() {
    let place = Place::new();
    refused_at(
        &place,
        &["nowhere.toml"],
        expect![
            "specfleet: nowhere.toml: no such file, and no scenario of that name ships; those that do: default, paper, street, crowd, rush, h200, million, reference"
        ],
    );
    refused_at(
        &place,
        &["run", "nowhere"],
        expect![
            "specfleet: nowhere: no such file, and no scenario of that name ships; those that do: default, paper, street, crowd, rush, h200, million, reference"
        ],
    );
    refused_at(
        &place,
        &[&place.file("broken.toml", "[run]\ndevices = \n")],
        expect![
            "specfleet: FOLDER/broken.toml:2: not valid TOML: string values must be quoted, expected literal string"
        ],
    );
    refused_at(
        &place,
        &[&place.file("key.toml", "[run]\ndevices = 2\nmax_tokens = 3\n")],
        expect!["specfleet: FOLDER/key.toml: unknown key run.max_tokens; did you mean run.max_new_tokens?"],
    );
    refused_at(
        &place,
        &[&place.file("range.toml", "[pool]\nbatch_tokens = 0\n")],
        expect!["specfleet: FOLDER/range.toml: pool.batch_tokens = 0 is out of range: must lie in 1 to 1048576"],
    );
    refused_at(
        &place,
        &[&place.file("latin1.toml", b"[run] # \xe9\n")],
        expect!["specfleet: cannot read FOLDER/latin1.toml: invalid utf-8 sequence of 1 bytes from index 8"],
    );
}

#[test]
fn workloads() {
    let place = Place::new();
    let with = |name: &str, contents: &str, expected| {
        refused_at(&place, &["--workload", &place.file(name, contents), "--methods", "hlm"], expected);
    };
    with(
        "empty.jsonl",
        "",
        expect!["specfleet: FOLDER/empty.jsonl: the file is empty; it needs one JSON object per line"],
    );
    with(
        "broken.jsonl",
        "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \n",
        expect!["specfleet: FOLDER/broken.jsonl:2: not a valid prompt: EOF while parsing a value (column 13)"],
    );
    with(
        "white.jsonl",
        "{\"prompt\": \" \\n\", \"reference\": \"b\"}\n",
        expect!["specfleet: FOLDER/white.jsonl:1: question, answer, prompt and reference must not be empty"],
    );
    let long = format!("{{\"prompt\": \"{}\", \"reference\": \"b\"}}\n", "one two ".repeat(600));
    with(
        "long.jsonl",
        &("{\"prompt\": \"a\", \"reference\": \"b\"}\n".to_owned() + &long),
        expect![[
            r#"specfleet: data set "long", line 2: the prompt has 1202 tokens and leaves no room in a context of 1024; run.too_long = "skip" or "truncate" goes on without it, or with its end"#
        ]],
    );
    refused_at(
        &place,
        &["--workload", "none.jsonl"],
        expect!["specfleet: cannot read none.jsonl: No such file or directory (os error 2)"],
    );
    refused_at(
        &place,
        &["--workload", "gsm9k"],
        expect![[
            r#"specfleet: --workload: run.workload = "gsm9k" is not known; valid: word-problems, gsm8k, calibration, or a path to a .jsonl file"#
        ]],
    );
    refused_at(
        &place,
        &["--workload", ""],
        expect!["specfleet: a value is required for '--workload <FILE.jsonl>' but none was supplied"],
    );
}

/// Another tokenizer of the same size: two tokens have each other's numbers.
fn swap_two_tokens(file: &Path) {
    let text = fs::read_to_string(file).expect("text");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let vocab = &mut tokenizer["model"]["vocab"];
    let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
    (vocab["a"], vocab["b"]) = (b, a);
    fs::write(file, tokenizer.to_string()).expect("a temporary file");
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
    refused_at(
        &place,
        &["--drafter", "nowhere", "--methods", "hlm"],
        expect!["specfleet: cannot read nowhere/config.json: No such file or directory (os error 2)"],
    );
    with(
        "no-weights",
        &|folder| fs::remove_file(folder.join("model.safetensors")).expect("it is there"),
        expect![
            "specfleet: FOLDER/no-weights: expected model.safetensors or model.safetensors.index.json, found 0 other *.safetensors files"
        ],
    );
    with(
        "truncated",
        &|folder| {
            let path = folder.join("model.safetensors");
            let bytes = fs::read(&path).expect("weights");
            fs::write(&path, &bytes[..bytes.len() / 2]).expect("a temporary file");
        },
        expect![
            "specfleet: FOLDER/truncated/model.safetensors: not a whole safetensors file (incomplete metadata, file not fully covered)"
        ],
    );
    with(
        "header",
        &|folder| fs::write(folder.join("model.safetensors"), b"abc").expect("a temporary file"),
        expect!["specfleet: FOLDER/header/model.safetensors: not a whole safetensors file (header too small)"],
    );
    with(
        "no-tokenizer",
        &|folder| fs::remove_file(folder.join("tokenizer.json")).expect("it is there"),
        expect!["specfleet: cannot read FOLDER/no-tokenizer/tokenizer.json: No such file or directory (os error 2)"],
    );
    with(
        "other-tokenizer",
        &|folder| swap_two_tokens(&folder.join("tokenizer.json")),
        expect![
            "specfleet: drafter and verifier do not form a pair: their tokenizers differ (digests b46c751c and 935cc7fe) though both have 2048 tokens"
        ],
    );
    with(
        "broken-tokenizer",
        &|folder| edit(&folder.join("tokenizer.json"), "{", "["),
        expect![
            "specfleet: FOLDER/broken-tokenizer/tokenizer.json: not a usable tokenizer: expected `,` or `]` at line 2 column 12"
        ],
    );
    with(
        "shape",
        &|folder| edit(&folder.join("config.json"), "\"num_hidden_layers\": ", "\"num_hidden_layers\": 1"),
        expect!["specfleet: FOLDER/shape: tensor `model.layers.3.input_layernorm.weight` is missing"],
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
    let error = String::from_utf8(output.stderr).expect("text").replace(&port, "PORT");
    expect!["specfleet: 127.0.0.1:PORT is in use by another process; stop it, or listen on another port (port 0 takes a free one)"].assert_eq(error.trim_end());
    assert_eq!(place.runs().len(), 0);
}

#[test]
fn folders_that_cannot_be_written() {
    let place = Place::new();
    let file = place.file("file", "");
    let quick = ["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];
    refused_at(
        &place,
        &[&["--out", &file], &quick[..]].concat(),
        expect!["specfleet: --out: cannot write in FOLDER/file: File exists (os error 17)"],
    );
    refused_at(
        &place,
        &[&["--out", &format!("{file}/below")], &quick[..]].concat(),
        expect!["specfleet: --out: cannot write in FOLDER/file/below: Not a directory (os error 20)"],
    );
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
    expect!["specfleet: bad.toml: run.devices = 0 is out of range: must lie in 1 to 1000000"]
        .assert_eq(error.trim_end());
    let output = place.command(&["check"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    expect!["specfleet: the following required arguments were not provided: <SCENARIO>"]
        .assert_eq(String::from_utf8_lossy(&output.stderr).trim_end());
}

#[test]
fn what_is_near_is_named() {
    let place = Place::new();
    for (arguments, line) in [
        (
            &["runn"][..],
            expect![
                "specfleet: runn: no command, no file, and no scenario of that name ships; those that do: default, paper, street, crowd, rush, h200, million, reference; did you mean run?"
            ],
        ),
        (
            &["stret"],
            expect![
                "specfleet: stret: no command, no file, and no scenario of that name ships; those that do: default, paper, street, crowd, rush, h200, million, reference; did you mean street?"
            ],
        ),
        (
            &["simulate", "--repeat", "3"],
            expect!["specfleet: unexpected argument '--repeat' found; it is a flag of run"],
        ),
        (
            &["simulate", "--devces", "3"],
            expect!["specfleet: unexpected argument '--devces' found; tip: a similar argument exists: '--devices'"],
        ),
    ] {
        let output = place.command(arguments).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        line.assert_eq(String::from_utf8_lossy(&output.stderr).trim_end());
    }
}
