//! Who may do what: the drivers must not decide, and each outside crate has one home.

use crate::workspace::*;

/// The drivers: everything in the two crates but what turns a scenario and flags into settings.
fn drivers() -> Vec<Source> {
    let makes_settings =
        |path: &str| path.contains("/src/bin/") || path.ends_with("/src/main.rs") || path.ends_with("/src/scenario.rs");
    let mut sources = sources(&["device-agent/src", "verifier-pool/src"]);
    sources.retain(|source| !makes_settings(&source.path));
    sources
}

#[test]
fn drivers_do_not_decide() {
    let deciding = [
        // The gate, and what it looks at.
        "decide",
        "needs_importance",
        "RunningMoments",
        "GateReason",
        "Gate",
        "concentration",
        "uncertainty",
        ".statistic <",
        ".statistic >",
        "signals.statistic",
        "signals.importance",
        "signals.importance_threshold",
        "signals.gate_draw",
        ".uncertainty_threshold",
        ".entropy_threshold",
        // Acceptance is one call of a named function, never arithmetic of a driver.
        "accept_probability",
        "residual",
        // What things cost and how long they are declared to take.
        "DeviceProfile",
        "VerifierProfile",
        "LinkProfile",
        "LinkState",
        "StepCost",
        "energy::split",
        "energy::nanojoules",
        "idle_energy",
        "batch_energy",
        // Bounds and waiting times of the machines.
        ".batch_tokens",
        ".batch_sequences",
        ".max_wait",
        ".queue_jobs",
        ".queue_tokens",
        ".retry_after",
        ".retry",
        ".verdict_timeout",
        ".unreachable_after",
        ".on_unreachable",
        "KvBook",
    ];
    ban(
        &drivers(),
        &deciding,
        "A driver may only transport, sleep, compute a named pure function of the engine, or store. What this decides \
         belongs into a machine of the engine, where both drivers share it.",
    );
}

#[test]
fn only_the_ledger_knows_sled_and_only_the_model_knows_candle() {
    let metadata = metadata();
    let members = members(&metadata);
    for (stem, home) in [("sled", "ledger"), ("candle", "model")] {
        for (name, folder) in &members {
            let package = list_of(&metadata["packages"]).iter().find(|p| p["name"] == **name).expect("a member");
            for dependency in list_of(&package["dependencies"]) {
                let dev = dependency["kind"] == "dev";
                let known = text_of(&dependency["name"]).split('-').next() == Some(stem);
                assert!(
                    !known || folder == home || dev,
                    "{name} depends on {}: only {home} may, and tests. Add what is missing to the interface of {home}.",
                    text_of(&dependency["name"])
                );
            }
        }
        let others: Vec<String> = members
            .values()
            .filter(|folder| **folder != home && *folder != "tests")
            .map(|f| format!("{f}/src"))
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let crates =
            [format!("{stem}::"), format!("{stem}_core::"), format!("{stem}_nn::"), format!("{stem}_transformers::")];
        let crates: Vec<&str> = crates.iter().map(String::as_str).collect();
        ban(&sources(&others), &crates, &format!("Only {home} may name {stem}: add what is missing to its interface."));
    }
}

/// Files that open runs on their own, and what becomes of damage there.
const OPENERS: [(&str, &str); 6] = [
    ("orchestrator/src/opened.rs", "it is the place"),
    ("orchestrator/src/checked.rs", "verify: damage is its answer"),
    ("orchestrator/src/results.rs", "a row that cannot be read is a failure"),
    ("orchestrator/src/against.rs", "simulate --against: the same, by results.rs"),
    ("orchestrator/src/refit.rs", "calibrate: the same"),
    ("orchestrator/src/simulate/input.rs", "traces: the same"),
];

#[test]
fn figures_come_from_opened_runs() {
    let others: Vec<Source> = sources(&["orchestrator/src"])
        .into_iter()
        .filter(|source| OPENERS.iter().all(|(path, _)| *path != source.path))
        .collect();
    ban(
        &others,
        &["RunReader::open"],
        "Figures of a damaged run must not pass for those of a whole one: open it by OpenedRuns (orchestrator/src/opened.rs), \
         or list the file in OPENERS with what it does about damage.",
    );
}

#[test]
fn programs_print_where_a_failure_is_handled() {
    let programs = ["orchestrator/src", "device-agent/src", "verifier-pool/src", "logs/src"];
    ban(
        &sources(&programs),
        &["println!", "print!", "eprintln!", "eprint!"],
        "These macros panic where the disk is full or the reader has gone. Use print_line or Printer of specfleet_logs for \
         standard output and say! for standard error.",
    );
}

/// Files outside the model that step outside the language's guarantees, and why.
const UNSAFE: [(&str, &str); 1] =
    [("tests/tests/mutations/heap.rs", "an allocator that counts: the standard library knows no other way to one")];

#[test]
fn unsafe_code_lives_in_the_model_alone() {
    let metadata = metadata();
    let members = members(&metadata);
    // By parts: this file must not break its own rule.
    let word = ["un", "safe"].concat();
    let others: Vec<&str> = members.values().filter(|folder| *folder != "model").map(String::as_str).collect();
    let others: Vec<Source> =
        sources(&others).into_iter().filter(|source| UNSAFE.iter().all(|(path, _)| *path != source.path)).collect();
    ban(
        &others,
        &[&word, &format!("{word}_code")],
        "Only the kernels of `model` have a reason to step outside the language's guarantees.",
    );
}
