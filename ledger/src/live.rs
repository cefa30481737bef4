//! What a run is doing right now (`live.json`), for whoever watches it from another process.
//!
//! Its writer replaces it at each flush, and takes it away when the run ends: from then on the rows say all of it, and
//! better. Where a writer died its last word stays, and [`crate::list()`] says that the run is interrupted. It is no part of
//! what a crash must keep, so it is replaced whole but not waited for on the disk.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::LedgerError;
use crate::meta;

pub(crate) const LIVE_FILE: &str = "live.json";

/// Figures of a run that goes on. Counts and joules are of the whole run so far, over all of its methods.
///
/// Forward compatible: unknown fields are ignored, missing ones take their defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// Seconds since time zero of the run: of the clock in a live run, virtual ones in a simulation.
    pub seconds: f64,
    /// The method that runs, or ran last.
    pub method: String,
    /// Its index in the run's list.
    pub method_index: u16,
    /// Methods of the run.
    pub methods: u16,
    /// Generations that have ended, those that were dropped included.
    pub generations: u64,
    /// Generations that the run will have.
    pub generations_total: u64,
    pub tokens: u64,
    /// Upload attempts, resends included.
    pub uploads: u64,
    /// Judged drafts that the verifier replaced.
    pub rejected: u64,
    /// Drafts that the verifier accepted or replaced.
    pub judged: u64,
    /// Tokens per second over the last five seconds of `seconds`.
    pub tokens_per_second: f64,
    /// Uploads per second over the same time.
    pub uploads_per_second: f64,
    /// Uploads that wait in the pool.
    pub queue_jobs: u32,
    /// Tokens of work in them.
    pub queue_tokens: u64,
    /// Mean sequences of the batches that ended in the last five seconds; 0 without one.
    pub batch_sequences_mean: f64,
    /// Batches that have ended.
    pub batches: u64,
    /// Energy of the generations that have ended.
    pub joules: LiveJoules,
    pub verifiers: Vec<LiveVerifier>,
}

/// Energy by part, in joules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveJoules {
    pub device: f64,
    pub radio: f64,
    pub cloud: f64,
}

/// One verifier right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveVerifier {
    pub verifier: u16,
    pub state: VerifierState,
    /// Batches that it has ended.
    pub batches: u64,
    /// Share of the last five seconds that it spent in batches which ended in them, at most 1.
    pub busy_share: f64,
    /// Times it was started anew.
    pub restarts: u32,
}

/// What a verifier does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifierState {
    /// Waits for a batch.
    #[default]
    Idle,
    Busy,
    /// Has failed, and is being started anew.
    Down,
    /// Takes no work: scaled away, or not started yet.
    Off,
}

impl Live {
    /// Reads the run's `live.json`; `None` if there is none: the run has ended, or has not flushed yet.
    pub fn read(run_dir: &Path) -> Result<Option<Live>, LedgerError> {
        let Some(text) = meta::read_text(run_dir, LIVE_FILE)? else { return Ok(None) };
        let damaged = |source| LedgerError::DamagedFile { path: run_dir.join(LIVE_FILE), source };
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// Replaces the run's `live.json`.
    pub(crate) fn write(&self, run_dir: &Path) -> Result<(), LedgerError> {
        meta::replace_json(run_dir, LIVE_FILE, self, false)
    }
}

/// Takes `live.json` away, if it is there.
pub(crate) fn remove(run_dir: &Path) -> Result<(), LedgerError> {
    let path = run_dir.join(LIVE_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(LedgerError::io(&path, error)),
        _ => Ok(()),
    }
}
