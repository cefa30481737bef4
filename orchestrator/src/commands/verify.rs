//! `specfleet verify`: every chunk is read, and the books are added up.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::checked;
use clap::Args;

use super::{LEDGER, find_all, for_each_run, name, print};

/// Flags of `verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The runs: their names in the ledger, or their folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it. A run that cannot be checked keeps no other from being checked.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    for_each_run(&find_all(&args.ledger, &args.runs)?, |folder| {
        let checked = checked::check(folder)?;
        print(checked::table(&checked))?;
        checked.problems().into_iter().try_for_each(print)?;
        let verdict = if checked.is_sound() { "sound: every chunk is whole and the books close" } else { "DAMAGED" };
        print(format!("{}: {verdict}", name(folder)))?;
        Ok(if checked.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
