//! `specfleet frontier RUN`

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cores::cores;
use crate::frontier::{self, Sweep};
use crate::opened::OpenedRuns;
use crate::stored::StoredRun;
use anyhow::Context;
use clap::Args;

use super::{LEDGER, find, print};

/// Decide the thresholds of a stored run again, without running anything: upload rate, energy, deviation.
#[derive(Args)]
pub(crate) struct FrontierArgs {
    /// The run: its name in the ledger, or its folder
    run: PathBuf,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
    /// The method [default: ui-hlm, or the first with a threshold]
    #[arg(long, value_name = "M")]
    method: Option<String>,
    /// Thresholds of the gate's statistic: 0.02..0.6:24 or 0.1,0.2 [default: 24 spread over the log]
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    uncertainty: Option<String>,
    /// Values of kappa, in the same forms [default: the run's own]
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    kappa: Option<String>,
    /// Whether importance counts: on, off or both [default: on]
    #[arg(long, value_name = "on|off|both")]
    importance: Option<String>,
    /// Write the points here
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &FrontierArgs, opened: &OpenedRuns) -> anyhow::Result<ExitCode> {
    let run = StoredRun::open(opened, &find(&args.ledger, &args.run)?, cores())?;
    let sweep = Sweep {
        method: args.method.clone(),
        uncertainty: args.uncertainty.clone(),
        kappa: args.kappa.clone(),
        importance: args.importance.clone(),
    };
    let swept = frontier::frontier(&run, &sweep)?;
    if args.json {
        print(serde_json::to_string_pretty(&swept).context("writing the points")?)?;
    } else {
        print(format!("{} of run {}", swept.method, swept.run))?;
        print(frontier::table(&swept))?;
        swept.notes.iter().try_for_each(|note| print(format!("note: {note}")))?;
    }
    if let Some(csv) = &args.csv {
        frontier::write_csv(&swept, csv)?;
    }
    Ok(ExitCode::SUCCESS)
}
