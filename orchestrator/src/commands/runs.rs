//! `specfleet runs`: the ledger's runs, all or some.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Error;
use crate::filter::{Asked, Filter};
use crate::report;
use anyhow::Context;
use clap::Args;

use super::{LEDGER, print};

/// Flags of `runs`.
#[derive(Args)]
pub(crate) struct RunsArgs {
    /// Only those in this state: running, completed, interrupted, failed or unreadable
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only those with this method
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Only those of this kind: live or simulated
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only those started on this day (UTC) or later
    #[arg(long, value_name = "YYYY-MM-DD")]
    since: Option<String>,
    /// Only those started on this day (UTC) or earlier
    #[arg(long, value_name = "YYYY-MM-DD")]
    until: Option<String>,
    /// Only those of the scenario whose hash starts like this
    #[arg(long, value_name = "HASH")]
    scenario: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &RunsArgs) -> anyhow::Result<ExitCode> {
    let mut runs = specfleet_ledger::list(&args.ledger).map_err(Error::from)?;
    let asked = Asked {
        state: args.state.as_deref(),
        method: args.method.as_deref(),
        tag: args.tag.as_deref(),
        kind: args.kind.as_deref(),
        since: args.since.as_deref(),
        until: args.until.as_deref(),
        scenario: args.scenario.as_deref(),
    };
    let all = runs.len();
    let filter = Filter::new(&asked, &runs)?;
    runs.retain(|run| filter.keeps(run));
    if args.json {
        print(serde_json::to_string_pretty(&runs).context("writing the list")?)?;
    } else if all == 0 {
        print(format!("no runs in {}", args.ledger.display()))?;
    } else if runs.is_empty() {
        print(format!("none of the {all} runs in {}", args.ledger.display()))?;
    } else {
        print(report::run_table(&runs))?;
    }
    let left = specfleet_ledger::leftovers(&args.ledger).map_err(Error::from)?.len();
    if left > 0 {
        specfleet_logs::say!(
            "note: {left} folders are left of commands that were killed: the next run, or rm, removes them"
        );
    }
    Ok(ExitCode::SUCCESS)
}
