//! `specfleet capacity`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use specfleet_config::Check;

use super::print;
use super::run_args::heading::SEARCH;
use super::run_args::{ScenarioArgs, refuse_thresholds, threads_of};
use crate::error::Error;
use crate::point::Bench;
use crate::progress::Progress;
use crate::{budget, capacity};

/// The flags of `specfleet capacity`.
#[derive(Args)]
pub(crate) struct CapacityArgs {
    #[command(flatten)]
    run: ScenarioArgs,
    /// A target, such as inter_token_p95<250ms; may be repeated
    #[arg(long, value_name = "TARGET", required = true, help_heading = SEARCH)]
    slo: Vec<String>,
    /// Wall time after which the search ends with what it knows by then, such as 60s or 5min
    #[arg(long, value_name = "TIME", value_parser = budget::parse, help_heading = SEARCH)]
    budget: Option<Duration>,
    /// Threads; no result depends on them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Runs it.
pub(crate) fn run(args: &CapacityArgs) -> anyhow::Result<ExitCode> {
    refuse_thresholds("capacity", &args.run)?;
    // --devices bounds the search; the load per device is that of the scenario.
    let scenario = args.run.without_devices().read().map_err(Error::from)?;
    let targets = args
        .slo
        .iter()
        .map(|text| text.parse::<Check>().map_err(|error| Error::Simulation(format!("--slo: {error}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let most = match args.run.devices {
        None => capacity::MOST_DEVICES,
        Some(most) => {
            u32::try_from(most).ok().filter(|most| (1..=capacity::MOST_DEVICES).contains(most)).ok_or_else(|| {
                let range = format!("must lie in 1 to {}, the largest fleet that is tried", capacity::MOST_DEVICES);
                Error::Simulation(format!("--devices = {most} is out of range: {range}"))
            })?
        }
    };
    let progress = Progress::new(args.run.shown());
    let interrupted = specfleet_signals::flag();
    let stop = budget::flag(args.budget, interrupted);
    let bench = Bench { runs: &args.run.ledger, threads: threads_of(args.threads), interrupted: stop };
    let answers = capacity::capacity(&scenario, &targets, most, &bench, |line| progress.say(line))?;
    if args.run.json {
        print(serde_json::to_string_pretty(&answers.capacities).context("writing the answers")?)?;
    } else {
        answers.lines().into_iter().try_for_each(print)?;
    }
    if interrupted.load(Ordering::Relaxed) {
        return Err(Error::Interrupted(PathBuf::new()).into());
    }
    Ok(if answers.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
