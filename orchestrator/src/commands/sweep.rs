//! `specfleet sweep`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use specfleet_config::Vary;

use super::print;
use super::run_args::heading::{OUTPUT, SEARCH};
use super::run_args::{ScenarioArgs, refuse_thresholds, threads_of};
use crate::error::Error;
use crate::point::Bench;
use crate::progress::Progress;
use crate::sweep;

/// The flags of `specfleet sweep`.
#[derive(Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    run: ScenarioArgs,
    /// A key and its values: key=from..to:count or key=a,b,c; may be repeated
    #[arg(long, value_name = "KEY=VALUES", required = true, help_heading = SEARCH)]
    vary: Vec<String>,
    /// Write the rows here
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    csv: Option<PathBuf>,
    /// Threads; no result depends on them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Runs it.
pub(crate) fn run(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    refuse_thresholds("sweep", &args.run)?;
    let scenario = args.run.read().map_err(Error::from)?;
    let varied = args
        .vary
        .iter()
        .map(|text| text.parse::<Vary>().map_err(|error| Error::Simulation(format!("--vary: {error}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let progress = Progress::new(args.run.shown());
    let bench =
        Bench { runs: &args.run.ledger, threads: threads_of(args.threads), interrupted: specfleet_signals::flag() };
    let (swept, outcome) = sweep::sweep(&scenario, &varied, &bench, args.csv.as_deref(), |line| progress.say(line))?;
    if args.run.json {
        print(serde_json::to_string_pretty(&swept).context("writing the rows")?)?;
    } else if !swept.rows.is_empty() {
        print(sweep::table(&swept))?;
        swept.notes.iter().try_for_each(|note| print(format!("note: {note}")))?;
    }
    outcome?;
    Ok(ExitCode::SUCCESS)
}
