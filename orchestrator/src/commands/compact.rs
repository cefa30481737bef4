//! `specfleet compact`: the same rows in fewer bytes.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Error;
use clap::Args;
use specfleet_ledger::{Compacted, compact};

use super::{LEDGER, find_all, for_each_run, name, print};

/// Flags of `compact`.
#[derive(Args)]
pub(crate) struct CompactArgs {
    /// The runs: their names in the ledger, or their folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it. A run that cannot be rewritten keeps no other from being rewritten.
pub(crate) fn run(args: &CompactArgs) -> anyhow::Result<ExitCode> {
    for_each_run(&find_all(&args.ledger, &args.runs)?, |folder| {
        let Compacted { bytes_before, bytes_after, rounds } = compact(folder).map_err(Error::from)?;
        let per_round = |bytes: u64| bytes as f64 / rounds.max(1) as f64;
        print(format!(
            "{}: {bytes_before} to {bytes_after} bytes, {:.1} to {:.1} per round of {rounds}; every row is the same",
            name(folder),
            per_round(bytes_before),
            per_round(bytes_after),
        ))?;
        Ok(ExitCode::SUCCESS)
    })
}
