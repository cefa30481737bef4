//! `specfleet rm`: deletes runs.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::error::Error;
use anyhow::Context;
use clap::Args;
use specfleet_ledger::{LedgerError, RunProgress, is_busy, remove, run_bytes};

use super::{LEDGER, find_all, for_each_run, name, print};

/// Flags of `rm`.
#[derive(Args)]
pub(crate) struct RmArgs {
    /// The runs: their names in the ledger, or their folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Delete without asking
    #[arg(long)]
    yes: bool,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it. All runs are looked at before the first is deleted.
pub(crate) fn run(args: &RmArgs) -> anyhow::Result<ExitCode> {
    let folders = find_all(&args.ledger, &args.runs)?;
    for folder in &folders {
        if is_busy(folder).map_err(Error::from)? {
            return Err(Error::from(LedgerError::StillRunning(folder.clone())).into());
        }
    }
    if !args.yes {
        folders.iter().try_for_each(|folder| print(format!("would delete {}", description(folder)?)))?;
        if !std::io::stdin().is_terminal() {
            return Err(Error::Asked("nothing was deleted; say --yes to delete without being asked".to_owned()).into());
        }
        if !agreed(folders.len())? {
            print("nothing was deleted")?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    for_each_run(&folders, |folder| {
        let description = description(folder)?;
        remove(folder).map_err(Error::from)?;
        print(format!("deleted {description}"))?;
        Ok(ExitCode::SUCCESS)
    })
}

fn description(folder: &Path) -> Result<String, Error> {
    // A run whose plain files are damaged can be deleted too.
    let generations = RunProgress::read(folder).map_or(0, |progress| progress.generations);
    Ok(format!("{}: {generations} generations, {} bytes in {}", name(folder), run_bytes(folder)?, folder.display()))
}

fn agreed(count: usize) -> anyhow::Result<bool> {
    let what = if count == 1 { "it".to_owned() } else { format!("these {count} runs") };
    // A question that nobody sees has no answer: here a reader that has gone is a failure like any other.
    let mut output = std::io::stdout().lock();
    write!(output, "delete {what}? [y/N] ").and_then(|()| output.flush()).context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
