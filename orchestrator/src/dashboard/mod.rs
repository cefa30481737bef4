//! The live page: a small web server that shows a ledger folder and changes nothing in it.
//!
//! It reads files of the ledger folder and nothing else (`meta.json`, `progress.json` and `live.json` of every run, the
//! store of a run that has ended), so it shows the same beside a run in this process, a run of another process, and runs
//! of last year. [`routes`] says what it answers, [`runs`] lists, [`reports`] computes reports one at a time, [`watch`]
//! looks twice a second at what is running and tells the [`events`] of all open pages.
//!
//! Bounded: connections, what waits in each, open event streams, reports in memory and questions that wait for a report. A
//! page that does not read its events is cut off, and so is whoever does not read an answer.

mod compare;
mod events;
mod name;
mod refusal;
mod reports;
mod routes;
mod runs;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web;
pub use specfleet_web::{AllowedHost, AllowedHostError};
use specfleet_web::{HostRule, Limits};

use crate::error::Error;
use crate::report_data::ReportData;
use events::Hub;
use reports::Reports;
use runs::Runs;

const WORKERS: usize = 2;

/// Most connections at a time.
const CONNECTIONS: usize = 128;

/// How long a question may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long an answer may wait for its reader.
const STANDSTILL: Duration = Duration::from_secs(10);

/// Seconds that open answers get when the server stops.
const GRACE_SECONDS: u64 = 1;

const LIMITS: Limits = Limits {
    workers: WORKERS,
    connections: CONNECTIONS,
    request: REQUEST_TIMEOUT,
    keep_alive: KEEP_ALIVE,
    standstill: STANDSTILL,
    grace_seconds: GRACE_SECONDS,
};

/// How long stopping may take in all; a report that is being computed is not waited for any longer.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// How a report is made from the folder of a run that has ended. It may take seconds and block.
pub type ReportOf = fn(&Path) -> Result<ReportData, Error>;

/// What the page shows, and where.
#[derive(Clone, Debug)]
pub struct DashboardOptions {
    /// Folder of all runs.
    pub ledger: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names that it answers to besides those of the loopback, such as that of a proxy in front of it.
    pub allowed_hosts: Vec<AllowedHost>,
    /// What reports come from.
    pub report: ReportOf,
}

/// A running server.
pub struct Dashboard {
    address: SocketAddr,
    handle: ServerHandle,
    hub: Arc<Hub>,
    ended: mpsc::Receiver<std::io::Result<()>>,
}

/// What the answers are made from.
struct DashboardState {
    runs: Arc<Runs>,
    reports: Arc<Reports>,
    hub: Arc<Hub>,
    hosts: HostRule,
}

impl Dashboard {
    /// Starts the server on a thread of its own; it answers when this returns.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address cannot be had.
    pub fn start(options: DashboardOptions) -> Result<Dashboard, Error> {
        let failed = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (hub, wake) = Hub::new();
        let hub = Arc::new(hub);
        let runs = Arc::new(Runs::new(options.ledger.clone()));
        let state = web::Data::new(DashboardState {
            runs: runs.clone(),
            reports: Arc::new(Reports::new(options.ledger, Box::new(options.report))),
            hub: hub.clone(),
            hosts: HostRule::new(address.ip().is_loopback(), options.allowed_hosts),
        });
        let watched = hub.clone();
        let thread = std::thread::Builder::new().name("dashboard-watch".to_owned());
        thread.spawn(move || watch::watch(&watched, &runs, &wake)).map_err(|_| Error::Stopped("the dashboard"))?;
        let (started, handle) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let thread = std::thread::Builder::new().name("dashboard".to_owned());
        let serve = move || {
            let outcome = actix_web::rt::System::new().block_on(async move {
                let app = move || routes::app(state.clone());
                let server = specfleet_web::serve(listener, LIMITS, events::remember_connection, app)?;
                // Nobody waits for it: the one who started this has gone.
                let _ = started.send(server.handle());
                server.await
            });
            let _ = end.send(outcome);
        };
        thread.spawn(serve).map_err(|_| Error::Stopped("the dashboard"))?;
        match handle.recv() {
            Ok(handle) => Ok(Dashboard { address, handle, hub, ended }),
            Err(_) => match ended.recv() {
                Ok(Err(source)) => Err(failed(source)),
                _ => Err(Error::Stopped("the dashboard")),
            },
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a person opens.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A line to print for an address that other machines can reach; `None` on the loopback.
    pub fn warning(&self) -> Option<String> {
        (!self.address.ip().is_loopback()).then(|| {
            format!(
                "warning: anybody who reaches {} can read every run in this ledger, without a password",
                self.address
            )
        })
    }

    /// Ends the open pages and the server. Returns within a few seconds, whatever is still being answered.
    pub fn stop(self) {
        self.hub.close();
        // The command is on its way when this returns; its answer is the end of the thread.
        drop(self.handle.stop(true));
        let _ = self.ended.recv_timeout(STOP_DEADLINE);
    }
}

impl std::fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dashboard").field("address", &self.address).finish_non_exhaustive()
    }
}
