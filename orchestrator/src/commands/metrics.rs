//! The flags `--metrics` and `--metrics-linger` of `specfleet run`.

use std::time::Duration;

use crate::dashboard::AllowedHost;
use crate::error::Error;
use clap::Args;
use specfleet_config::HostPort;
use specfleet_metrics::{Registry, Server};

/// The flags.
#[derive(Args)]
pub(crate) struct MetricsArgs {
    /// Serve metrics for Prometheus there, under /metrics; a port alone means this machine's loopback (such as 9464)
    #[arg(long, value_name = "HOST:PORT", group = "pages")]
    metrics: Option<HostPort>,
    /// Go on serving them for so long after the run, for a last scrape
    #[arg(long, value_name = "SECONDS", requires = "metrics", default_value_t = 0)]
    metrics_linger: u32,
}

/// Metrics that are being served.
pub(crate) struct Served {
    pub(crate) registry: Registry,
    server: Server,
    linger: Duration,
}

impl MetricsArgs {
    /// Starts the server, if it is asked for, and says where it is on standard error: standard output is for results.
    pub(crate) fn start(&self, hosts: &[AllowedHost]) -> Result<Option<Served>, Error> {
        let Some(address) = &self.metrics else { return Ok(None) };
        let address = address.resolve().map_err(|source| Error::Address { flag: "--metrics", source })?;
        let registry = Registry::new("specfleet", env!("CARGO_PKG_VERSION"));
        let server = Server::start_for(address, registry.clone(), hosts.to_vec())?;
        specfleet_logs::say!("metrics at http://{}/metrics", server.local_addr());
        Ok(Some(Served { registry, server, linger: Duration::from_secs(u64::from(self.metrics_linger)) }))
    }
}

impl Served {
    /// Waits as long as was asked for, or until Ctrl-C, and stops.
    pub(crate) fn linger(self) {
        if !self.linger.is_zero() {
            specfleet_logs::say!(
                "metrics stay at http://{}/metrics for {} s",
                self.server.local_addr(),
                self.linger.as_secs()
            );
            actix::System::new().block_on(async {
                tokio::select! {
                    () = tokio::time::sleep(self.linger) => {}
                    _ = specfleet_signals::asked() => {}
                }
            });
        }
    }
}
