//! Listing runs from their plain files alone: no store is opened, no running run is disturbed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use specfleet_engine::disturbance::{Disturbance, Noise};

use crate::error::LedgerError;
use crate::lock;
use crate::meta::{self, META_FILE, RunKind, RunProgress};

/// Where a run stands, as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum ListedState {
    /// A living process writes it.
    Running,
    Completed,
    /// Ended early; its complete rows can be read.
    Interrupted,
    /// Ended by an error; its complete rows can be read.
    Failed {
        reason: String,
    },
    /// Its plain files cannot be read (damaged, or of another schema).
    Unreadable {
        reason: String,
    },
}

impl ListedState {
    /// The word for tables and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            ListedState::Running => "running",
            ListedState::Completed => "completed",
            ListedState::Interrupted => "interrupted",
            ListedState::Failed { .. } => "failed",
            ListedState::Unreadable { .. } => "unreadable",
        }
    }
}

/// A folder for people to read: text holds no path that is no Unicode, and a listing must not fail because of one.
fn folder_as_text<S: serde::Serializer>(folder: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&folder.to_string_lossy())
}

/// One run of a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunListing {
    pub run: String,
    #[serde(serialize_with = "folder_as_text")]
    pub dir: PathBuf,
    #[serde(flatten)]
    pub state: ListedState,
    pub kind: RunKind,
    /// When it started, in seconds since 1970; 0 if unreadable.
    pub started: u64,
    /// When it ended, in seconds since 1970.
    pub ended: Option<u64>,
    /// Digest of its scenario.
    pub scenario_hash: String,
    pub seed: u64,
    /// Names of its methods, in run order.
    pub methods: Vec<String>,
    /// Devices of the fleet.
    pub devices: u32,
    /// Verifiers of the pool.
    pub verifiers: u32,
    /// Rows that are safely stored.
    pub progress: RunProgress,
    /// Words that somebody put on it.
    pub tags: Vec<String>,
    /// What disturbed it too much.
    pub noise: Vec<Noise>,
}

/// The part of `meta.json` that a listing needs; the long texts are skipped over.
#[derive(Deserialize)]
struct RunHead {
    run: String,
    state: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    kind: RunKind,
    started: u64,
    #[serde(default)]
    ended: Option<u64>,
    scenario_hash: String,
    seed: u64,
    #[serde(default)]
    methods: Vec<Named>,
    #[serde(default)]
    devices: u32,
    #[serde(default)]
    verifiers: u32,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    disturbance: Option<Disturbance>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Lists the runs of a ledger folder, oldest first. A ledger folder that does not exist has no runs. Folders without a
/// `meta.json` are no runs; a run whose plain files cannot be read is listed as such and hides no other.
pub fn list(ledger_dir: &Path) -> Result<Vec<RunListing>, LedgerError> {
    let entries = match fs::read_dir(ledger_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LedgerError::io(ledger_dir, error)),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| LedgerError::io(ledger_dir, error))?;
        // On its way to be a run, or to be none.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let dir = entry.path();
        match listing(&dir) {
            Ok(run) => runs.push(run),
            Err(LedgerError::NotFound(_)) => {}
            Err(error) => runs.push(unreadable(dir, &error)),
        }
    }
    runs.sort_by(|a, b| (a.started, &a.run).cmp(&(b.started, &b.run)));
    Ok(runs)
}

fn listing(dir: &Path) -> Result<RunListing, LedgerError> {
    let mut head: RunHead = meta::read_checked(dir)?;
    let mut state = state(&head);
    if state == ListedState::Running && !lock::is_held(dir)? {
        // It may have ended between the two looks; what it says now, with nobody writing, is final.
        head = meta::read_checked(dir)?;
        state = match self::state(&head) {
            ListedState::Running => ListedState::Interrupted,
            ended => ended,
        };
    }
    Ok(RunListing {
        run: head.run,
        dir: dir.to_path_buf(),
        state,
        kind: head.kind,
        started: head.started,
        ended: head.ended,
        scenario_hash: head.scenario_hash,
        seed: head.seed,
        methods: head.methods.into_iter().map(|method| method.name).collect(),
        devices: head.devices,
        verifiers: head.verifiers,
        progress: RunProgress::read(dir)?,
        tags: head.tags,
        noise: head.disturbance.map_or_else(Vec::new, |disturbance| disturbance.noise()),
    })
}

fn state(head: &RunHead) -> ListedState {
    match head.state.as_str() {
        "running" => ListedState::Running,
        "completed" => ListedState::Completed,
        "interrupted" => ListedState::Interrupted,
        "failed" => ListedState::Failed { reason: head.reason.clone() },
        other => ListedState::Unreadable { reason: format!("{META_FILE} says {other:?}, which is no state") },
    }
}

fn unreadable(dir: PathBuf, error: &LedgerError) -> RunListing {
    RunListing {
        run: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        dir,
        state: ListedState::Unreadable { reason: error.to_string() },
        kind: RunKind::default(),
        started: 0,
        ended: None,
        scenario_hash: String::new(),
        seed: 0,
        methods: Vec::new(),
        devices: 0,
        verifiers: 0,
        progress: RunProgress::default(),
        tags: Vec::new(),
        noise: Vec::new(),
    }
}
