//! What somebody writes by hand or has a tool write: scenarios and data sets.

use std::fs;
use std::path::Path;

use crate::watch::{Input, temporary_folder, watch};
use specfleet_config::{Scenario, Workload};
use specfleet_tests::mutator::{Mutator, Notation};

/// Longest line of a data set that is taken.
const LONGEST_LINE: usize = 1 << 20;

/// The files of a folder of the workspace, in the order of their names.
fn files_of(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort_unstable();
    paths.iter().map(|path| fs::read(path).expect("a file")).collect()
}

/// Settings of every kind that the scenarios that ship do not have.
const OWN: &str = r#"
[run]
workload = [{ data = "a.jsonl", prompts = 1 }, { data = "gsm8k", prompts = 3 }]
methods = ["hlm", "ui-hlm"]
devices = 6
[device]
profile = "phone, raspberry-pi-5"
link = ["fair", "good"]
[load]
pattern = "csv"
file = "at.csv"
"#;

#[test]
fn scenarios_are_read_or_refused() {
    let dir = temporary_folder();
    fs::write(dir.path().join("a.jsonl"), "{\"prompt\": \"a\"}\n").expect("written");
    fs::write(dir.path().join("at.csv"), "0.5\n1\n2\n").expect("written");
    let mut bases = files_of("config/scenarios", "toml");
    assert!(bases.len() > 3, "the scenarios that ship lie elsewhere");
    bases.push(OWN.into());
    let make = |mutator: &mut Mutator, bases: &[Vec<u8>]| {
        let base = mutator.below(bases.len());
        Input { base, bytes: mutator.mutate(&bases[base], Notation::Text) }
    };
    watch("scenarios", 6, bases, make, move |input| {
        let path = dir.path().join("scenario.toml");
        fs::write(&path, &input.bytes).expect("written");
        let Ok(scenario) = Scenario::load(&path) else { return false };
        let Ok(settings) = scenario.settings() else { return false };
        // What a run stores of its scenario must be that scenario, wherever it is read again.
        let stored = scenario.to_toml();
        let again = Scenario::parse("stored", &stored, None).and_then(|again| again.settings());
        let again = again.unwrap_or_else(|error| panic!("{error}: {stored}"));
        assert_eq!(again.scenario_hash(), settings.scenario_hash(), "{stored}");
        true
    });
}

/// Lines of all forms, with what is hard in texts.
const LINES: &str = "{\"question\": \"2+2?\", \"answer\": \"It is <<2+2=4>>4.\\n#### 4\"}\r\n\
    {\"question\": \"How many?\", \"answer\": 12345678901234567890}\n \n\
    {\"prompt\": \"Say \\ud83d\\ude00 h\u{e9}\", \"reference\": \" hi << >> <<\", \"id\": 7, \"tags\": [[1, [2]], {\"a\": null}]}\n\
    {\"prompt\": \"c\", \"reference\": -1.5e10}\n";

#[test]
fn data_sets_are_read_or_refused() {
    let dir = temporary_folder();
    let mut bases = files_of("config/workloads", "jsonl");
    assert_eq!(bases.len(), 3);
    for base in &mut bases {
        // Some lines: the others are of the same form.
        base.truncate(4096);
        base.truncate(base.iter().rposition(|byte| *byte == b'\n').expect("lines"));
    }
    // A line near the limit, whose growth goes over it.
    bases.push(format!("{{\"prompt\": \"{}\"}}\n{{\"prompt\": \"1\"}}", "x".repeat(LONGEST_LINE - 100)).into());
    bases.extend([LINES.as_bytes().to_vec(), LINES.as_bytes().to_vec()]);
    let make = |mutator: &mut Mutator, bases: &[Vec<u8>]| {
        let base = mutator.below(bases.len());
        Input { base, bytes: mutator.mutate(&bases[base], Notation::Text) }
    };
    watch("data sets", 7, bases, make, move |input| {
        let path = dir.path().join("data.jsonl");
        fs::write(&path, &input.bytes).expect("written");
        let Ok(workload) = Workload::open(&path) else { return false };
        let lines: Vec<&str> = str::from_utf8(&input.bytes).expect("a text, or it is refused").lines().collect();
        assert!(!workload.prompts.is_empty());
        for prompt in &workload.prompts {
            assert!(lines[prompt.line as usize].len() <= LONGEST_LINE, "line {} is too long", prompt.line);
            assert!(!prompt.question.trim().is_empty(), "line {} asks nothing", prompt.line);
        }
        true
    });
}
