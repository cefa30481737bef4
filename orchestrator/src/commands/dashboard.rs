//! `specfleet dashboard`, and `specfleet run --dashboard`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cores::cores;
use crate::dashboard::{AllowedHost, Dashboard, DashboardOptions};
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::report_data::{self, ReportData};
use clap::{ArgGroup, Args};
use specfleet_config::HostPort;

use crate::commands::LEDGER;

/// Where the page is without a flag: on this machine alone.
const LISTEN: &str = "127.0.0.1:8080";

/// The flags of `specfleet dashboard`.
#[derive(Args)]
pub(crate) struct DashboardArgs {
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
    /// Where to listen: a port of this machine's loopback, or HOST:PORT; an address that other machines reach shows them
    /// every run
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: HostPort,
    /// Answer to this host name too, such as that of a proxy in front of the page, with or without a port; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<AllowedHost>,
}

/// The flag that shows a run while it runs.
#[derive(Args)]
#[command(group = ArgGroup::new("pages").multiple(true))]
pub(crate) struct PageArgs {
    /// Show the run in a browser while it goes on
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = LISTEN, group = "pages")]
    dashboard: Option<HostPort>,
    /// With --dashboard or --metrics: answer to this host name too, with or without a port; may be repeated
    #[arg(long, value_name = "NAME", requires = "pages")]
    allow_host: Vec<AllowedHost>,
}

impl PageArgs {
    /// Further names of the page and of the metrics.
    pub(crate) fn allowed_hosts(&self) -> &[AllowedHost] {
        &self.allow_host
    }

    /// Starts the page, if it is asked for.
    pub(crate) fn start(&self, ledger: &Path) -> Result<Option<Dashboard>, Error> {
        let start = |listen| start(ledger, "--dashboard", listen, &self.allow_host);
        self.dashboard.as_ref().map(start).transpose()
    }
}

/// Starts the page and says where it is, on standard error: standard output is for results.
fn start(ledger: &Path, flag: &'static str, listen: &HostPort, hosts: &[AllowedHost]) -> Result<Dashboard, Error> {
    let listen = listen.resolve().map_err(|source| Error::Address { flag, source })?;
    let (ledger_folder, allowed_hosts) = (ledger.to_path_buf(), hosts.to_vec());
    let dashboard = Dashboard::start(DashboardOptions { ledger: ledger_folder, listen, allowed_hosts, report })?;
    if let Some(warning) = dashboard.warning() {
        specfleet_logs::say!("{warning}");
    }
    specfleet_logs::say!("dashboard of {} at {}", ledger.display(), dashboard.url());
    Ok(dashboard)
}

/// The report of a run that has ended.
fn report(folder: &Path) -> Result<ReportData, Error> {
    // The page shows damage among the reasons of an invalid run.
    report_data::report(&OpenedRuns::default(), folder, cores())
}

/// Shows the ledger until Ctrl-C.
pub(crate) fn run(args: &DashboardArgs) -> anyhow::Result<ExitCode> {
    let dashboard = start(&args.ledger, "--listen", &args.listen, &args.allow_host)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Ending is what a server is asked to do: no failure.
    let _ = runtime.block_on(specfleet_signals::asked());
    dashboard.stop();
    Ok(ExitCode::SUCCESS)
}
