//! Rules about the workspace itself: which way dependencies point, what the pure core may know, what drivers must not
//! decide, and that the documents name things that exist. Each failure says what to do.
//!
//! Sources are read as text, without their comments; a rule that a comment could break would be a nuisance.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

// ---- reading the workspace -----------------------------------------------------------------------------------------

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in a folder of the workspace");
    root.to_path_buf()
}

/// `cargo metadata`, without the network if what it needs is there.
fn metadata() -> Value {
    let ask = |offline: &[&str]| {
        let command = ["metadata", "--format-version", "1", "--locked"];
        Command::new(env!("CARGO")).args(command).args(offline).current_dir(root()).output().expect("cargo runs")
    };
    // Packages of other platforms may be missing offline: their manifests are fetched then.
    let mut answer = ask(&["--offline"]);
    if !answer.status.success() {
        answer = ask(&[]);
    }
    assert!(answer.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).expect("cargo metadata prints JSON")
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("a string, by the format of cargo metadata")
}

fn list_of(value: &Value) -> &[Value] {
    value.as_array().expect("a list, by the format of cargo metadata")
}

/// A Rust file, by its path from the root.
struct Source {
    path: String,
    lines: usize,
    /// Without comments.
    code: String,
}

/// The Rust files below these folders of the workspace.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        let mut open = vec![root().join(folder)];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(
                    fs::read_dir(&path).expect("a readable folder").map(|entry| entry.expect("an entry").path()),
                );
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push(Source {
                    path: relative(&path),
                    lines: text.lines().count(),
                    code: without_comments(&text),
                });
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file below {folders:?}: the rule looks in the wrong place");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("a file of the workspace");
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Line comments go; `//` in a string that is not an address (`://`) goes with its rest, which no rule here minds.
fn without_comments(text: &str) -> String {
    let code = |line: &'_ str| {
        let cut = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        line[..cut.map_or(line.len(), |(at, _)| at)].to_owned() + "\n"
    };
    text.lines().map(code).collect()
}

/// The members of the workspace: name of the package and folder.
fn members(metadata: &Value) -> BTreeMap<String, String> {
    let members: BTreeSet<&str> = list_of(&metadata["workspace_members"]).iter().map(text_of).collect();
    let folder = |package: &Value| {
        let manifest = Path::new(text_of(&package["manifest_path"]));
        relative(manifest.parent().expect("a manifest lies in a folder"))
    };
    list_of(&metadata["packages"])
        .iter()
        .filter(|package| members.contains(text_of(&package["id"])))
        .map(|package| (text_of(&package["name"]).to_owned(), folder(package)))
        .collect()
}

/// Whether `code` has `word`, not as a part of a longer one.
fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let starts = word.starts_with(part);
    let ends = word.ends_with(part);
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = code[at + word.len()..].chars().next().is_some_and(part);
        !(starts && before || ends && after)
    })
}

/// Fails if one of `sources` has one of `words`.
fn ban(sources: &[Source], words: &[&str], why: &str) {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.code.lines().enumerate() {
            let banned = words.iter().filter(|word| has_word(line, word));
            found.extend(banned.map(|word| format!("{}:{}: `{word}`", source.path, number + 1)));
        }
    }
    assert!(found.is_empty(), "{}\n{why}", found.join("\n"));
}

// ---- dependencies --------------------------------------------------------------------------------------------------

/// What each crate may depend on inside the workspace, in its tests and build scripts too.
const DIRECTIONS: [(&str, &[&str]); 16] = [
    ("specfleet-engine", &[]),
    ("specfleet-files", &[]),
    ("specfleet-model", &["specfleet-files"]),
    ("specfleet-timer", &["specfleet-engine"]),
    ("specfleet-logs", &[]),
    ("specfleet-signals", &[]),
    ("specfleet-web", &[]),
    ("specfleet-metrics", &["specfleet-engine", "specfleet-web"]),
    ("specfleet-config", &["specfleet-engine", "specfleet-files"]),
    ("specfleet-ledger", &["specfleet-engine", "specfleet-files"]),
    ("specfleet-analysis", &["specfleet-engine"]),
    ("specfleet-export", &["specfleet-engine", "specfleet-files", "specfleet-ledger"]),
    ("specfleet-simulator", &["specfleet-engine", "specfleet-analysis"]),
    (
        "device-agent",
        &[
            "specfleet-engine",
            "specfleet-files",
            "specfleet-model",
            "specfleet-config",
            "specfleet-timer",
            "specfleet-logs",
            "specfleet-signals",
        ],
    ),
    (
        "verifier-pool",
        &[
            "specfleet-engine",
            "specfleet-files",
            "specfleet-model",
            "specfleet-config",
            "specfleet-timer",
            "specfleet-logs",
            "specfleet-signals",
            "specfleet-metrics",
        ],
    ),
    (
        "specfleet",
        &[
            "specfleet-engine",
            "specfleet-files",
            "specfleet-model",
            "specfleet-config",
            "specfleet-ledger",
            "specfleet-analysis",
            "specfleet-export",
            "specfleet-simulator",
            "specfleet-logs",
            "specfleet-signals",
            "specfleet-metrics",
            "specfleet-web",
            "device-agent",
            "verifier-pool",
        ],
    ),
];

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let members = members(&metadata);
    let mut allowed: BTreeMap<&str, &[&str]> = DIRECTIONS.into();
    // The crate of whole-system tests may know everybody; nobody may know it.
    let everybody: Vec<&str> = allowed.keys().copied().collect();
    allowed.insert("specfleet-tests", &everybody);
    for package in list_of(&metadata["packages"]).iter().filter(|p| members.contains_key(text_of(&p["name"]))) {
        let name = text_of(&package["name"]);
        let Some(may) = allowed.get(name) else {
            panic!("{name} is new in the workspace: say in DIRECTIONS (tests/tests/tidy.rs) what it may depend on")
        };
        for dependency in list_of(&package["dependencies"]).iter().map(|d| text_of(&d["name"])) {
            assert!(
                !members.contains_key(dependency) || may.contains(&dependency),
                "{name} depends on {dependency}, against ARCHITECTURE.md (\"Map of folders\"). Move what they share \
                 into a crate below both; a test over both belongs into tests/."
            );
        }
    }
}

/// Crates that bring a clock, a socket, a thread pool, a model, a store or randomness from outside. Names that end in
/// `-` stand for a family.
const NOT_IN_THE_CORE: [&str; 25] = [
    "actix-",
    "async-std",
    "candle-",
    "chrono",
    "crossbeam-",
    "fastrand",
    "gemm",
    "getrandom",
    "hf-hub",
    "instant",
    "jiff",
    "libc",
    "memmap2",
    "mio",
    "quinn-",
    "rand",
    "rayon-",
    "rustls",
    "sled",
    "smol",
    "socket2",
    "time",
    "tokenizers",
    "tokio-",
    "web-time",
];

#[test]
fn the_core_is_pure() {
    let metadata = metadata();
    let names: BTreeMap<&str, &str> =
        list_of(&metadata["packages"]).iter().map(|p| (text_of(&p["id"]), text_of(&p["name"]))).collect();
    let nodes: BTreeMap<&str, &Value> =
        list_of(&metadata["resolve"]["nodes"]).iter().map(|node| (text_of(&node["id"]), node)).collect();
    let engine = names.iter().find(|(_, name)| **name == "specfleet-engine").expect("the engine is a member");
    let mut seen = BTreeSet::new();
    let mut open = vec![*engine.0];
    while let Some(id) = open.pop() {
        for dependency in list_of(&nodes[id]["deps"]) {
            // What tests and build scripts use is not in the library.
            let normal = list_of(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let id = text_of(&dependency["pkg"]);
            if normal && seen.insert(id) {
                open.push(id);
            }
        }
    }
    assert!(seen.len() > 3, "the walk over the dependencies of the engine is broken: it found {seen:?}");
    for name in seen.iter().map(|id| names[id]) {
        let family = |banned: &str| {
            let stem = banned.trim_end_matches('-');
            name == stem || banned.ends_with('-') && name.starts_with(banned)
        };
        assert!(
            !NOT_IN_THE_CORE.into_iter().any(family),
            "the engine's dependency tree holds {name} (see `cargo tree -p specfleet-engine -i {name} -e normal`). The \
             engine decides and touches nothing: take the feature or the dependency away, or move the code into a driver."
        );
    }
}

#[test]
fn the_core_touches_nothing() {
    let touching = [
        "Instant",
        "SystemTime",
        "std::time",
        "std::net",
        "std::fs",
        "std::thread",
        "std::env",
        "std::process",
        "std::io",
        "std::sync::Mutex",
        "std::sync::mpsc",
        "println",
        "eprintln",
    ];
    ban(
        &sources(&["engine/src"]),
        &touching,
        "The engine owns no clock, socket, file, thread or terminal. Pass the value in as an input, or ask for it by an \
         output and let a driver do it.",
    );
}

// ---- who may do what -----------------------------------------------------------------------------------------------

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
    ("orchestrator/src/simulate/source.rs", "traces: the same"),
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

/// Most lines of a file in a crate's `src`: one idea, read in one go.
const MOST_LINES: usize = 800;

/// Files that are longer, and why.
const LONGER: [(&str, &str); 0] = [];

#[test]
fn files_stay_small() {
    let metadata = metadata();
    let folders: Vec<String> = members(&metadata).into_values().map(|folder| format!("{folder}/src")).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    for Source { path, lines, .. } in sources(&folders) {
        match LONGER.iter().find(|(longer, _)| *longer == path) {
            None => assert!(
                lines <= MOST_LINES,
                "{path} has {lines} lines, more than {MOST_LINES}: divide it by ideas, or list it in LONGER \
                 (tests/tests/tidy.rs) with the reason why it is one"
            ),
            Some(_) => assert!(lines > MOST_LINES, "{path} has {lines} lines by now: take it off the list LONGER"),
        }
    }
}

// ---- documents -----------------------------------------------------------------------------------------------------

/// What stands between single backticks in `text`, without code blocks.
fn quoted(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

/// Whether the workspace has a file or folder of this path.
fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// Fails if `reference`, a `path` or `path.rs::function`, names what is not there.
fn check_reference(document: &str, reference: &str) {
    let (path, function) = reference.split_once("::").map_or((reference, None), |(path, f)| (path, Some(f)));
    assert!(exists(path), "{document} names `{reference}`, but there is no {path}: correct the document");
    if let Some(function) = function {
        let text = fs::read_to_string(root().join(path)).expect("a Rust file");
        assert!(
            has_word(&text, &format!("fn {function}")),
            "{document} names `{reference}`, but {path} has no function of that name: correct the document"
        );
    }
}

/// A quotation that means a file of this workspace: it starts with a folder of the workspace, or ends like a source.
fn is_reference(quotation: &str, folders: &BTreeSet<String>) -> bool {
    let path = quotation.split("::").next().unwrap_or_default();
    let plain = path.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
    let ours = path.split_once('/').is_some_and(|(first, _)| folders.contains(first));
    plain && ours && (path.ends_with('/') || path.rsplit('/').next().is_some_and(|name| name.contains('.')))
}

#[test]
fn documents_name_what_exists() {
    let metadata = metadata();
    let folders: BTreeSet<String> = members(&metadata).into_values().collect();
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap_or_else(|_| panic!("{document} is missing"));
        for quotation in quoted(&text).into_iter().filter(|quotation| is_reference(quotation, &folders)) {
            check_reference(document, quotation);
        }
    }
}

#[test]
fn every_invariant_names_its_test() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let paragraphs: Vec<&str> = text.split("\n\n").filter(|part| part.contains("Architecture Invariant:")).collect();
    assert!(paragraphs.len() >= 7, "ARCHITECTURE.md lists {} invariants; the project has more", paragraphs.len());
    for paragraph in paragraphs {
        let tests = quoted(paragraph).into_iter().filter(|quotation| quotation.contains(".rs::")).count();
        let title = paragraph.lines().next().unwrap_or_default();
        let owed = paragraph.split_once("Owed: ").and_then(|(_, rest)| rest.split_whitespace().next());
        if let Some(path) = owed {
            assert!(!exists(path), "\"{title}\" still owes {path}, which is there now: name its test instead");
        }
        assert!(
            tests > 0 || owed.is_some(),
            "\"{title}\" names no test: an invariant that nothing proves is a wish (`path/file.rs::test`)"
        );
    }
}

#[test]
fn every_crate_is_on_the_map() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    for folder in members(&metadata()).into_values() {
        assert!(
            text.contains(&format!("`{folder}/`")),
            "ARCHITECTURE.md does not say what `{folder}/` is for: add it to the map of folders"
        );
    }
}

#[test]
fn members_share_the_rules_of_the_workspace() {
    for folder in members(&metadata()).into_values() {
        let manifest = fs::read_to_string(root().join(&folder).join("Cargo.toml")).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder}/Cargo.toml does not take the workspace's lints: add `[lints]` with `workspace = true`"
        );
    }
}

// ---- the rules' own tools ------------------------------------------------------------------------------------------

#[test]
fn words_and_comments_are_told_apart() {
    assert!(has_word("gate::decide(x)", "decide") && !has_word("undecided", "decide"));
    assert!(has_word("self.retry.delay()", ".retry") && !has_word("self.retry_after", ".retry"));
    assert_eq!(without_comments("a // b\nlet u = \"http://c\";"), "a \nlet u = \"http://c\";\n");
    assert_eq!(quoted("a `b` c\n```\n`d`\n```\n`e/f.rs`"), ["b", "e/f.rs"]);
}
