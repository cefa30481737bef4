//! `specfleet calibrate`: what a live run says of its host, its batches and its texts, in one file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{LEDGER, find, print};
use crate::error::Error;
use crate::refit;

/// The flags of `specfleet calibrate`.
#[derive(Args)]
pub(crate) struct CalibrateArgs {
    /// The run: its name in the ledger, or its folder
    run: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "calibration.json")]
    out: PathBuf,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it.
pub(crate) fn run(CalibrateArgs { run, out, ledger }: &CalibrateArgs) -> anyhow::Result<ExitCode> {
    let refit = refit::refit(&find(ledger, run)?, ledger, &|line| specfleet_logs::say!("{line}"))?;
    refit.lines.iter().try_for_each(print)?;
    let text = serde_json::to_string_pretty(&refit.calibration).context("writing the calibration")?;
    std::fs::write(out, text + "\n").map_err(|source| Error::Output { path: out.clone(), source })?;
    print(format!("calibration in {}; a scenario names it with calibration.file", out.display()))?;
    Ok(ExitCode::SUCCESS)
}
