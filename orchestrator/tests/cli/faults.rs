//! Faults lose nothing, and a pool that refuses loses nothing either.

use crate::common::*;

/// Where fleet and pool live by declared times, which a killed verifier does not.
#[test]
fn killed_verifiers_end_no_emulated_run() {
    let place = Place::new();
    let common = ["--devices", "6", "--prompts", "12", "--max-new-tokens", "24", "--methods", "hlm,llm-only"];
    place.quick("run", "whole", &common);
    let faults = ["--fault", "kill-verifier@0.05", "--fault", "kill-verifier@0.1", "--fault", "kill-verifier@0.2"];
    place.quick("run", "killed", &[&common[..], &faults].concat());
    let (whole, killed) = (Results::read(&place.path("whole")), Results::read(&place.path("killed")));
    assert_eq!((&killed.summary["state"], &killed.summary["clock"]), (&"VALID".into(), &"host".into()));
    assert_eq!(whole.summary["clock"], "emulated");
    assert_eq!(whole.decisions(), killed.decisions());
}

#[test]
fn killed_verifiers_change_no_token() {
    let place = Place::new();
    let common = ["--devices", "8", "--prompts", "16", "--max-new-tokens", "32", "--methods", "hlm,block,llm-only"];
    let whole = place.run("whole", &common);
    let faults = ["--fault", "kill-verifier@0.1", "--fault", "kill-verifier@0.25"];
    let killed = place.run("killed", &[&common[..], &faults].concat());
    for run in [&whole, &killed] {
        run.assert_sound();
    }
    assert_eq!(whole.summary["faults_injected"], 0);
    assert_eq!(killed.summary["faults_injected"], 2);
    assert_eq!(whole.decisions(), killed.decisions());
    let runs = place.runs();
    assert!(runs.iter().all(|run| run["state"] == "completed") && runs.len() == 2, "{runs:?}");
    let restarts =
        place.reader(&place.run_of("killed")).verifiers().map(|row| row.expect("a row").restarts).sum::<u32>();
    assert_eq!(restarts, 2);
}

#[test]
fn a_fault_after_the_end_makes_the_run_invalid() {
    let place = Place::new();
    let arguments = ["--prompts", "1", "--max-new-tokens", "1", "--methods", "hlm", "--fault", "kill-verifier@1000"];
    let run = place.run("out", &arguments);
    assert_eq!(run.summary["state"], "INVALID");
    assert_eq!(run.summary["faults_injected"], 0);
}

#[test]
fn refusals_change_no_token() {
    let place = Place::new();
    let common = ["--devices", "16", "--prompts", "16", "--max-new-tokens", "8", "--methods", "hlm,block"];
    let roomy = place.run("roomy", &common);
    let tight = [
        "--set",
        "pool.queue_jobs=1",
        "--set",
        "pool.retry_after_ms=2",
        "--set",
        "device.retry_last_ms=10",
        "--verifiers",
        "1",
    ];
    let tight = place.run("tight", &[&common[..], &tight].concat());
    tight.assert_sound();
    assert!(tight.summary["uploads"]["refused"].as_u64() > Some(0), "{}", tight.summary["uploads"]);
    assert_eq!(roomy.decisions(), tight.decisions());
}
