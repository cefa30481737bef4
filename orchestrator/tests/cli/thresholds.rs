//! What a run is held to: met is exit code 0, missed is 99, and some end a run early.

use serde_json::Value;

use crate::common::*;

const SMALL: [&str; 8] = ["--devices", "2", "--prompts", "2", "--max-new-tokens", "8", "--methods", "hlm,ui-hlm"];

/// Too long for a test that waits for its end.
const LONG: [&str; 8] = ["--devices", "4", "--prompts", "2000", "--max-new-tokens", "32", "--methods", "hlm,ui-hlm"];

/// The lines about thresholds, without their figures.
fn verdicts(text: &str) -> Vec<String> {
    let line = |line: &str| line.rsplit_once(" (").map_or(line, |(line, _)| line).to_owned();
    text.lines().filter(|line| line.starts_with("threshold ")).map(line).collect()
}

/// Calls `command` with the checks; returns its exit code and what it printed.
fn held(place: &Place, command: &str, checks: &str, arguments: &[&str]) -> (i32, String) {
    let checks = format!("thresholds.checks={checks}");
    let fixed = if command == "run" { &[][..] } else { &FIXED };
    let output = place.try_quick(command, "out", &[arguments, fixed, &["--set", &checks]].concat());
    assert!(output.stderr.is_empty(), "{}", said(&output));
    (output.status.code().expect("it ended by itself"), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn met_and_missed() {
    let place = Place::new();
    for command in ["run", "simulate"] {
        let (code, text) = held(&place, command, "ttft < 100s, upload_rate_max <= 100%", &SMALL);
        let met = |check: &str, method: &str| format!("threshold met    {method}: {check}");
        let [ttft, rate] = ["time_to_first_token_seconds < 100s", "upload_rate_max <= 1"];
        let expected = [met(ttft, "hlm"), met(ttft, "ui-hlm"), met(rate, "hlm"), met(rate, "ui-hlm")];
        assert_eq!((code, verdicts(&text)), (0, expected.to_vec()), "{command}: {text}");

        // The filter uploads less than everything, which is what hlm does.
        let (code, text) = held(&place, command, "['upload_rate < 100%', 'ttft < 100s']", &SMALL);
        assert_eq!(code, 99, "{command}: {text}");
        assert!(text.contains("threshold MISSED hlm: upload_rate < 1 (1.000000)"), "{text}");
        assert!(text.contains("threshold met    ui-hlm: upload_rate < 1 ("), "{text}");

        // For one method only.
        let one = "[{ check = 'upload_rate < 100%', method = 'ui-hlm' }]";
        let (code, text) = held(&place, command, one, &SMALL);
        assert_eq!((code, verdicts(&text).len()), (0, 1), "{command}: {text}");

        // Nobody can keep to a latency that no user has asked for.
        let (code, text) = held(&place, command, "goodput_share > 0", &SMALL);
        assert_eq!(code, 99, "{command}: {text}");
        assert!(text.contains("threshold MISSED hlm: goodput_share > 0 (no figure)"), "{text}");
    }
    // A missed threshold makes no run invalid.
    for run in place.runs() {
        assert_eq!(run["state"], "completed");
    }
}

#[test]
fn json_stays_json() {
    let place = Place::new();
    let arguments = [&SMALL[..], &FIXED, &["--json", "--set", "thresholds.checks=ttft<1us"]].concat();
    let output = place.try_quick("simulate", "out", &arguments);
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(summary["state"], "VALID");
}

/// A check that cannot hold ends a run long before its end, and the run says so.
#[test]
fn some_end_a_run_early() {
    let place = Place::new();
    let check = "check = 'ttft < 1us', abort_on_fail = true";
    let mut generations = Vec::new();
    for (command, delay) in [("run", 0), ("simulate", 0), ("simulate", 4)] {
        let checks = format!("[{{ {check}, delay_seconds = {delay} }}]");
        let (code, text) = held(&place, command, &checks, &LONG);
        assert_eq!(code, 99, "{command}: {text}");
        let why = "ended early: hlm: time_to_first_token_seconds < 0.000001s failed with ";
        assert!(text.contains("INVALID: ") && text.contains(why), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with(why)).count(), 1, "{text}");

        let run = place.run_of("out");
        assert_eq!(run["state"], "failed", "{run}");
        assert!(run["reason"].as_str().is_some_and(|reason| reason.starts_with(why)), "{run}");
        let summary = Results::read(&place.path("out")).summary;
        let problems = summary["problems"].as_array().expect("a list");
        let told = |why: &str| problems.iter().filter(|p| p.as_str().is_some_and(|p| p.contains(why))).count();
        assert_eq!((told(why), told("generations are missing")), (1, 1), "{problems:?}");
        // Its rows can be read, and there are not many.
        let rows = place.rows_of("out");
        assert!((1..1000).contains(&rows.generations.len()), "{}", rows.generations.len());
        assert!(rows.generations.iter().all(|(record, _)| record.id.method == 0), "the second method never began");
        generations.push(rows.generations.len());
    }
    assert!(generations[2] > 2 * generations[1], "the delay is virtual time: {generations:?}");
}
