//! The commands, each in a file of its own name, and what they share.

pub(crate) mod calibrate;
pub(crate) mod capacity;
pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod dashboard;
pub(crate) mod export;
pub(crate) mod frontier;
pub(crate) mod import;
pub(crate) mod man;
pub(crate) mod metrics;
pub(crate) mod query;
pub(crate) mod report;
pub(crate) mod rescue;
pub(crate) mod rm;
pub(crate) mod run;
mod run_args;
pub(crate) mod runs;
pub(crate) mod score;
pub(crate) mod simulate;
pub(crate) mod sweep;
pub(crate) mod tag;
pub(crate) mod verify;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::error::Error;
pub(crate) use crate::place::find;
use anyhow::Context;
use specfleet_logs::visible_name;

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

/// Does something with each run, with those after one that fails too: 1 if any failed or was found wanting, 2 if all that
/// failed was for the user to mend.
pub(crate) fn for_each_run(
    folders: &[PathBuf],
    mut act: impl FnMut(&Path) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    if let [folder] = folders {
        return act(folder);
    }
    let mut codes = Vec::new();
    for folder in folders {
        match act(folder) {
            Ok(ExitCode::SUCCESS) => {}
            Ok(_) => codes.push(1),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Interrupted(_)) | None => return Err(error),
                // It names the run's folder.
                Some(ours) => {
                    specfleet_logs::say!("specfleet: {}", visible_name(&ours.to_string()));
                    codes.push(ours.exit_code());
                }
            },
        }
    }
    let code = if codes.contains(&1) { 1 } else { codes.into_iter().max().unwrap_or(0) };
    Ok(ExitCode::from(code))
}

/// The name of a run by its folder, as it is shown in a line.
pub(crate) fn name(folder: &Path) -> String {
    visible_name(&folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy()).into_owned()
}
