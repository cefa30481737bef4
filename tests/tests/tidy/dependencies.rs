//! Which way dependencies point, and what the pure core may know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::workspace::*;

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
            panic!(
                "{name} is new in the workspace: say in DIRECTIONS (tests/tests/tidy/dependencies.rs) what it may depend on"
            )
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
