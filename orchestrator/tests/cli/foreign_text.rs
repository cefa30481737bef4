//! Texts from elsewhere: what would drop settings, talk to a terminal, or be a formula in a spreadsheet.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::common::*;

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", said(output));
    let error = String::from_utf8(output.stderr.clone()).expect("text");
    assert!(error.lines().count() == 1 && error.starts_with("specfleet: "), "{error}");
    error
}

/// A whole table in place of another one drops nothing that a flag or the file said.
#[test]
fn a_table_drops_no_key() {
    let place = Place::new();
    let check = |arguments: &[&str]| place.command(arguments).output().expect("the binary runs");
    let small = ["--prompts", "2", "--methods", "hlm", "--max-new-tokens", "4"];
    let error = refused(&place.try_run(&[&small[..], &["--set", "run={devices=1}"]].concat()));
    assert!(error.starts_with("specfleet: --set: run: this table would drop run."), "{error}");
    assert!(error.contains("--methods") && error.contains("set its keys one by one, such as run.devices=…"), "{error}");
    let error = refused(&place.try_run(&["--set", "run.devices=2", "--set", "run={prompts=3}"]));
    assert!(error.contains("run.devices (--set)"), "{error}");
    let error = refused(&place.try_run(&["--fault", "kill-verifier@1", "--set", "faults={}"]));
    assert!(error.contains("faults.inject (--fault)"), "{error}");
    let scenario = place.file("s.toml", "[run]\nseed = 7\nprompts = 2\nmethods = \"hlm\"\nmax_new_tokens = 4\n");
    let error = refused(&check(&["run", &scenario, "--set", "run={devices=1}", "--ui", "none"]));
    assert!(error.contains("run.seed") && error.contains("s.toml"), "{error}");
    let varied = ["sweep", &scenario, "--vary", "run={devices=1},{devices=2}"];
    assert!(refused(&check(&varied)).contains("would drop"), "{}", said(&check(&varied)));
    // One that names all of it may replace it, and so may one where there was none.
    let all = "run={devices=1, seed=8, prompts=1, methods='hlm', max_new_tokens=4}";
    let command =
        ["run", &scenario, "--set", all, "--set", "methods.hlm={payload={form='full'}}", "--json", "--ui", "none"];
    let output = check(&[&command[..], &FAST[..4]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&summary["seed"], &summary["generations"]), (&8.into(), &1.into()), "{summary}");
}

/// Names and tags have an alphabet.
#[test]
fn names_and_tags_are_plain() {
    let place = Place::new();
    place.run("a", &["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "4"]);
    let run = place.name_of("a");
    for tag in ["=cmd|' /C calc'!A0", "=cmd|calc", "@x", "+1", "a\u{202e}b", "a\u{1b}[31mb", "a\nb"] {
        let error = refused(&call(&place, &["tag", &run, tag]));
        assert!(error.contains("is none: use 1 to 64 letters") && !error.contains('\u{1b}'), "{error:?}");
    }
    printed(&place, &["tag", &run, "paper-1", "seed=3", "größe"]);
    for name in ["a\\u001b[31m", "a\\u202eb", "=cmd", "two\\nlines", "-x"] {
        let profile = format!(
            "[device]\nprofile = {{ name = \"{name}\", source = \"x\", kind = \"host\", active_watts = 1.0, idle_watts = 0.1 }}\n"
        );
        let scenario = place.file("named.toml", profile);
        let error = refused(&place.command(&["check", &scenario]).output().expect("the binary runs"));
        assert!(error.contains("device.profile.name") && error.contains("is no name"), "{error:?}");
    }
}

/// What was stored before names had an alphabet, or came from elsewhere, is shown and not obeyed.
#[test]
fn stored_names_reach_no_terminal_and_no_spreadsheet() {
    let place = Place::new();
    place.run("a", &["--methods", "hlm,slm-only", "--prompts", "2", "--max-new-tokens", "4"]);
    let run = place.name_of("a");
    printed(&place, &["tag", &run, "tagged"]);
    let file = place.path("runs").join(&run).join("meta.json");
    let meta = fs::read_to_string(&file).expect("meta.json");
    let hostile = meta
        .replace("\"name\": \"hlm\"", "\"name\": \"=cmd|' /C calc'!A0\"")
        .replace("\"name\": \"slm-only\"", "\"name\": \"red\\u001b[31m\\u202edesrever\"")
        .replace("\"tagged\"", "\"two\\nlines\\u001b]0;title\\u0007\"");
    assert_ne!(hostile, meta);
    put_meta(&file, &serde_json::from_str(&hostile).expect("JSON"));
    let folder = place.path("runs");
    let beside = folder.join("a\u{1b}[31m\nb");
    let copied = std::process::Command::new("cp").arg("-r").arg(folder.join(&run)).arg(&beside).status();
    assert!(copied.expect("cp runs").success());
    let beside = text(&beside);
    let query = ["query", &run, "--group-by", "method", "--metric", "tokens:sum", "--format"];
    let calls: [&[&str]; 8] = [
        &["runs"],
        &["runs", "--json"],
        &["report", &run],
        &["report", &run, "--json"],
        &["verify", &beside],
        &["tag", &run, "--remove", "none"],
        &["frontier", &beside],
        &["compact", &beside, &beside],
    ];
    for arguments in calls.into_iter().chain([&[&query[..], &["table"]].concat()[..], &[&query[..], &["csv"]].concat()])
    {
        let output = call(&place, arguments);
        let shown = [output.stdout.clone(), output.stderr.clone()].concat();
        let shown = String::from_utf8(shown).expect("text");
        let obeyed = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!shown.is_empty() && !shown.contains(obeyed), "{arguments:?}: {shown:?}");
        if arguments.contains(&"--json") {
            serde_json::from_str::<Value>(&shown).expect("JSON all the same");
        }
    }
    let listed = printed(&place, &["runs"]);
    assert!(listed.contains("two\\u000alines\\u001b]0;title\\u0007"), "{listed}");
    assert!(printed(&place, &["verify", &beside]).contains("a\\u001b[31m\\u000ab: sound"));
    let csv = printed(&place, &[&query[..], &["csv"]].concat());
    assert!(csv.contains("\n\"'=cmd|' /C calc'!A0\",8\n"), "{csv}");
    printed(&place, &["export", &run, "--out", "out", "--format", "csv", "--tables", "generations"]);
    let exported = fs::read_to_string(place.path("out/generations.csv")).expect("a file");
    assert!(exported.contains("\"'=cmd|' /C calc'!A0\"") && !exported.contains(",=cmd"), "{exported}");
    // An import is refused, in one line.
    printed(&place, &["export", &run, "--out", "lines", "--format", "jsonl"]);
    let error = refused(&call(&place, &["import", "lines", "--name", "back"]));
    assert!(error.contains("holds characters that no line shows"), "{error}");
}
