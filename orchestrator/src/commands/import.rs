//! `specfleet import`: a run that was exported elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Error;
use clap::Args;
use specfleet_export::{ImportOptions, Imported, import};

use super::{LEDGER, print};

/// Flags of `import`.
#[derive(Args)]
pub(crate) struct ImportArgs {
    /// Folder of an export as parquet or jsonl
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Name of the run here [default: the name that it had]
    #[arg(long, value_name = "RUN")]
    name: Option<String>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let interrupted = specfleet_signals::flag();
    let options = ImportOptions { dir: &args.dir, ledger: &args.ledger, name: args.name.as_deref(), interrupted };
    let imported = import(&options).map_err(Error::from)?;
    let Imported { folder, rounds, generations, checked, .. } = imported;
    if !checked {
        specfleet_logs::say!(
            "note: run.json has no digests, as in exports of earlier versions: whether the files are as they were exported \
             cannot be checked"
        );
    }
    print(format!("{rounds} rounds of {generations} generations in {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
