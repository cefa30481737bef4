//! `specfleet run`, which is also what no command does.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use specfleet_config::{Mode, Threshold};

use super::dashboard::PageArgs;
use super::metrics::MetricsArgs;
use super::print;
use super::run_args::heading::PROMPTS;
use super::run_args::{RunArgs, show, verdict};
use crate::error::Error;
use crate::progress::Progress;
use crate::run::{Finished, RunOptions};
use crate::{room, run, thresholds};

/// What a live run can be told beyond what every run can.
#[derive(Args)]
pub(crate) struct LiveArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Passes over all methods with the same seed: figures get intervals over passes and prompts
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = PROMPTS)]
    repeat: Option<i64>,
    /// Passes before them that no figure counts
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = PROMPTS)]
    warmup: Option<i64>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

impl LiveArgs {
    /// What stands where a scenario may.
    pub(crate) fn scenario(&self) -> Option<&Path> {
        self.run.scenario.scenario.as_deref()
    }
}

/// Runs it.
pub(crate) fn run(LiveArgs { run: args, repeat, warmup, page, metrics }: &LiveArgs) -> anyhow::Result<ExitCode> {
    let mut scenario = args.scenario.read().map_err(Error::from)?;
    for (flag, key, value) in [("--repeat", "run.repeat", repeat), ("--warmup", "run.warmup", warmup)] {
        if let Some(value) = value {
            scenario.set_flag(flag, key, *value).map_err(Error::from)?;
        }
    }
    scenario.refuse_in(Mode::Live).map_err(Error::from)?;
    let settings = scenario.settings().map_err(Error::from)?;
    thresholds::check_all(&settings)?;
    room::check_run(&settings)?;
    let checks = settings.thresholds.clone();
    let progress = Progress::new(args.scenario.shown());
    let served = metrics.start(page.allowed_hosts())?;
    let options = RunOptions {
        settings,
        scenario: scenario.to_toml(),
        ledger: &args.scenario.ledger,
        out: args.out.as_deref(),
        progress: &progress,
        metrics: served.as_ref().map(|served| &served.registry),
    };
    let page = page.start(&args.scenario.ledger)?;
    let finished = actix::System::new().block_on(run::run(options));
    if let Some(page) = page {
        page.stop();
    }
    let printed = finish(args, &checks, &finished?);
    if let Some(served) = served {
        served.linger();
    }
    printed
}

/// Prints what a live run found and where it is stored.
fn finish(args: &RunArgs, checks: &[Threshold], finished: &Finished) -> anyhow::Result<ExitCode> {
    let Finished { summary, comparisons, folder, notes, aborted } = finished;
    show(&args.scenario, summary, comparisons, notes)?;
    if !args.scenario.json {
        print(format!("run {} in {}", summary.run, folder.display()))?;
        if let Some(out) = &args.out {
            print(format!("generations.jsonl, summary.json, paired.json and run.json in {}", out.display()))?;
        }
    }
    verdict(&args.scenario, checks, summary, aborted.as_deref())
}
