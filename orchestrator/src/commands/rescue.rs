//! `specfleet rescue`: what is whole of a damaged run, as a new one.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Error;
use clap::Args;
use specfleet_ledger::{Table, rescue};

use super::{LEDGER, find, name, print};

/// Lost parts and generations that are listed; the others are counted.
const LISTED: usize = 100;

/// Flags of `rescue`.
#[derive(Args)]
pub(crate) struct RescueArgs {
    /// The damaged run: its name in the ledger, or its folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Name of the new run
    #[arg(long, value_name = "NEW")]
    to: String,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &RescueArgs) -> anyhow::Result<ExitCode> {
    let folder = find(&args.ledger, &args.run)?;
    let rescued = rescue(&folder, &args.ledger, &args.to).map_err(Error::from)?;
    // How many pieces the rounds lie in is nobody's concern.
    for (table, (saved, said)) in rescued.rows.iter().filter(|(table, _)| **table != Table::Pieces) {
        match said {
            Some(said) => print(format!("{table}: {saved} of {said} rows"))?,
            None => print(format!("{table}: {saved} rows"))?,
        }
    }
    let opened = rescued.opened.iter().map(|id| {
        format!(
            "method {}, prompt {}, repetition {}, pass {}: rounds of it are lost, so it counts as unfinished",
            id.method, id.prompt, id.repetition, id.pass
        )
    });
    let lines: Vec<String> = rescued.lost.iter().cloned().chain(opened).collect();
    lines.iter().take(LISTED).try_for_each(print)?;
    if lines.len() > LISTED {
        print(format!("and {} more like these", lines.len() - LISTED))?;
    }
    let (from, to) = (name(&folder), name(&rescued.folder));
    print(if rescued.is_whole() {
        format!("{to} holds every row of {from}")
    } else {
        format!("{to} holds what is whole of {from}, which stays as it is")
    })?;
    Ok(ExitCode::SUCCESS)
}
