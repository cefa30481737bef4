//! `specfleet check`: whether a scenario can be run, without running it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use specfleet_config::Scenario;

use super::print;
use crate::error::Error;
use crate::{report, thresholds};

/// The flags of `specfleet check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The scenario: a file, or the name of a shipped one
    scenario: PathBuf,
}

/// Runs it.
pub(crate) fn run(CheckArgs { scenario }: &CheckArgs) -> anyhow::Result<ExitCode> {
    let scenario = Scenario::load(scenario).map_err(Error::from)?;
    let settings = scenario.settings().map_err(Error::from)?;
    thresholds::check_all(&settings)?;
    print(report::headline(&settings))?;
    print(format!("scenario {}", settings.scenario_hash()))?;
    Ok(ExitCode::SUCCESS)
}
