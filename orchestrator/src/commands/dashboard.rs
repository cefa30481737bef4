//! `specfleet dashboard`, and `specfleet run --dashboard`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use specfleet::cores::cores;
use specfleet::dashboard::{Dashboard, DashboardOptions};
use specfleet::error::Error;
use specfleet::report_data::{self, ReportData};

use crate::commands::LEDGER;

/// Where the page is without a flag: on this machine alone.
const LISTEN: &str = "127.0.0.1:8080";

/// The flags of `specfleet dashboard`.
#[derive(Args)]
pub(crate) struct DashboardArgs {
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
    /// Address and port; an address that other machines reach shows them every run
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
}

/// The flag that shows a run while it runs.
#[derive(Args)]
pub(crate) struct PageArgs {
    /// Show the run in a browser while it goes on
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = LISTEN)]
    dashboard: Option<SocketAddr>,
}

impl PageArgs {
    /// Starts the page, if it is asked for.
    pub(crate) fn start(&self, ledger: &Path) -> Result<Option<Dashboard>, Error> {
        self.dashboard.map(|listen| start(ledger, listen)).transpose()
    }
}

/// Starts the page and says where it is, on standard error: standard output is for results.
fn start(ledger: &Path, listen: SocketAddr) -> Result<Dashboard, Error> {
    let dashboard = Dashboard::start(DashboardOptions { ledger: ledger.to_path_buf(), listen, report })?;
    if let Some(warning) = dashboard.warning() {
        specfleet_logs::say!("{warning}");
    }
    specfleet_logs::say!("dashboard of {} at {}", ledger.display(), dashboard.url());
    Ok(dashboard)
}

/// The report of a run that has ended.
fn report(folder: &Path) -> Result<ReportData, Error> {
    report_data::report(folder, cores())
}

/// Shows the ledger until Ctrl-C.
pub(crate) fn run(args: &DashboardArgs) -> anyhow::Result<ExitCode> {
    let dashboard = start(&args.ledger, args.listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Ending is what a server is asked to do: no failure.
    let _ = runtime.block_on(specfleet_signals::asked());
    dashboard.stop();
    Ok(ExitCode::SUCCESS)
}
