//! The commands that have files of their own, and what they share.

pub(crate) mod compact;
pub(crate) mod compare;
pub(crate) mod dashboard;
pub(crate) mod export;
pub(crate) mod frontier;
pub(crate) mod import;
pub(crate) mod metrics;
pub(crate) mod query;
pub(crate) mod report;
pub(crate) mod rm;
pub(crate) mod runs;
pub(crate) mod score;
pub(crate) mod tag;
pub(crate) mod verify;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::Context;
use specfleet::error::Error;
pub(crate) use specfleet::place::find;

/// Folder of all runs, unless a flag says otherwise.
pub(crate) const LEDGER: &str = "specfleet-runs";

/// Prints a line. Nobody listening any more (`| head`) is no mistake.
pub(crate) fn print(line: impl Display) -> anyhow::Result<()> {
    specfleet_logs::print_line(line).context("cannot print")
}

/// The folders of several runs, each once.
pub(crate) fn find_all(ledger: &Path, runs: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut folders = Vec::new();
    for run in runs {
        let folder = find(ledger, run)?;
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    Ok(folders)
}

/// The name of a run by its folder.
pub(crate) fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}
