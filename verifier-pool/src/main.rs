//! A verifier pool of its own, for devices on this machine or others.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use sha2::{Digest, Sha256};
use specfleet_config::{CostChoice, HostPort, ModelChoice, Scenario, Settings};
use specfleet_engine::disturbance::Standstill;
use specfleet_files::room;
use specfleet_logs::LogArgs;
use specfleet_metrics::{PoolMetrics, PoolObserver, Registry, Server};
use specfleet_model::{Embedded, Model, ModelDigests, ModelError, Precision, Tokenizer, check_tokenizer};
use specfleet_signals::Ending;
use specfleet_timer::HostClock;
use tokio::sync::mpsc;
use verifier_pool::{PoolEvent, PoolHandle, PoolOptions, TlsOptions, observed};

/// Records that may wait to be dropped.
const EVENTS: usize = 1024;

/// How often the pool is asked what it is doing, for the gauges.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Serves a pool of verifiers until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "verifier-pool", version)]
struct PoolArguments {
    /// Scenario to take the verifier and the pool's settings from; without one, the default scenario.
    scenario: Option<PathBuf>,
    /// Where to listen instead, such as 0.0.0.0:4433; a port alone means this machine's loopback, 0 a free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<HostPort>,
    /// Write the pool's certificate there in PEM, for devices to trust.
    #[arg(long, value_name = "FILE")]
    certificate_out: Option<PathBuf>,
    /// Model replicas.
    #[arg(long, value_name = "N")]
    verifiers: Option<u16>,
    /// Hugging Face folder of another verifier.
    #[arg(long, value_name = "DIR")]
    verifier: Option<PathBuf>,
    /// Override any key of the scenario.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Serve metrics for Prometheus there, under /metrics; a port alone means this machine's loopback (such as 9464).
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<HostPort>,
    #[command(flatten)]
    log: LogArgs,
}

/// Threads and open files that are needed beside those of models: timers, signals, event loops and sockets.
const ROOM: (usize, usize) = (8, 24);

fn main() -> ExitCode {
    room::on_own_stack(program).unwrap_or_else(no_room)
}

fn no_room(full: room::NoRoom) -> ExitCode {
    specfleet_logs::say!("error: {full}");
    ExitCode::FAILURE
}

fn program() -> ExitCode {
    let arguments = match PoolArguments::try_parse() {
        Ok(arguments) => arguments,
        Err(asked) if !asked.use_stderr() => return specfleet_logs::print_help("error", &asked),
        Err(error) => {
            // clap goes on about usage behind an empty line: what is wrong stands before it.
            let message = error.to_string();
            let wrong = message.split("\n\n").next().unwrap_or_default();
            specfleet_logs::say!("{}", wrong.lines().map(str::trim).collect::<Vec<_>>().join(" "));
            return ExitCode::from(2);
        }
    };
    if let Err(full) = room::check(ROOM.0, ROOM.1) {
        return no_room(full);
    }
    specfleet_signals::listen();
    match actix::System::new().block_on(run(&arguments)) {
        // Ctrl-C is how a person ends a server: nothing went wrong.
        Ok(Ending::Interrupt) => ExitCode::SUCCESS,
        Ok(ending) => ExitCode::from(ending.exit_code()),
        Err(error) => {
            specfleet_logs::say!("error: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::from(2)
        }
    }
}

/// Serves until it is asked to end, and says how it was. Whatever keeps it from starting is the user's to change.
async fn run(arguments: &PoolArguments) -> Result<Ending> {
    arguments.log.start()?;
    let settings = arguments.settings()?;
    if settings.pool.cost == CostChoice::Calibrated {
        bail!(
            "pool.cost = \"calibrated\" needs a pair's calibration, and a pool alone has half of a pair: choose measured, fixed or roofline"
        );
    }
    let registry = Registry::new("verifier-pool", env!("CARGO_PKG_VERSION"));
    let server = match &arguments.metrics {
        Some(address) => Some(Server::start(address.resolve().context("--metrics")?, registry.clone())?),
        None => None,
    };
    let metrics = server.as_ref().map(|_| PoolMetrics::new(&registry));
    let (model, digests, tokenizer) = load_verifier(&settings)?;
    check_tokenizer(&model, &tokenizer)?;
    let (events, mut records) = mpsc::channel(EVENTS);
    let clock = HostClock::start().context("cannot start the thread of the clock")?;
    let mut options =
        PoolOptions::from_settings(&settings, (model, digests), tokenizer.digest(), events, clock.clone());
    if let Some(listen) = &arguments.listen {
        options.listen = listen.clone();
    }
    let given = match &options.tls {
        TlsOptions::Development => None,
        TlsOptions::Pem { certificate, .. } => Some(certificate.clone()),
    };
    options.journal = metrics.clone().map(|metrics| observed(PoolObserver::alone(metrics)));
    // Nobody keeps a pool's records here: devices have their own.
    let counted = metrics.clone();
    actix::spawn(async move {
        while let Some(event) = records.recv().await {
            match (&counted, event) {
                (Some(metrics), PoolEvent::Batch(record)) => metrics.batch(&record),
                (Some(metrics), PoolEvent::Verifier(record)) => metrics.verifier(&record),
                (None, _) => {}
            }
        }
    });
    let (mebibytes, verifiers) = (options.kv_bytes >> 20, options.settings.replicas());
    let pool = verifier_pool::start(options).await?;
    let pem = arguments.write_certificate(&pool)?.or(given.as_deref());
    if let Some(server) = &server {
        specfleet_logs::say!("metrics at http://{}/metrics", server.local_addr());
    }
    let greeting = greeting(&pool, pem);
    if let Err(error) = specfleet_logs::print_line(&greeting) {
        // The pool is there all the same, and somebody needs its address and fingerprint.
        specfleet_logs::say!("cannot print: {error}");
        specfleet_logs::say!("{greeting}");
    }
    specfleet_logs::say!(
        "KV caches take up to {mebibytes} MiB in each of {verifiers} verifiers, and the pool keeps what they once took"
    );
    if let Some(metrics) = metrics {
        actix::spawn(show(pool.clone(), metrics));
    }
    let ending = specfleet_signals::asked().await;
    specfleet_logs::say!("interrupted: no new uploads are taken, those at hand are answered");
    pool.shutdown(Duration::from_nanos(settings.pool.shutdown_timeout.0)).await;
    for Standstill { length, .. } in clock.standstills() {
        specfleet_logs::say!("the process stood still for {:.1} s, which no batch is charged", length.seconds());
    }
    Ok(ending)
}

/// Asks the pool what it is doing, again and again, for the metrics.
async fn show(pool: PoolHandle, metrics: PoolMetrics) {
    while let Ok(status) = pool.status().await {
        status.show(&metrics);
        tokio::time::sleep(ASK_EVERY).await;
    }
}

impl PoolArguments {
    /// The scenario with the flags on top.
    fn settings(&self) -> Result<Settings> {
        let mut scenario = match &self.scenario {
            Some(path) => Scenario::load(path)?,
            None => Scenario::shipped_default()?,
        };
        for assignment in &self.set {
            scenario.set(assignment)?;
        }
        if let Some(count) = self.verifiers {
            scenario.set_flag("--verifiers", "run.verifiers", i64::from(count))?;
        }
        if let Some(folder) = &self.verifier {
            scenario.set_path_flag("--verifier", "model.verifier", folder)?;
        }
        Ok(scenario.settings()?)
    }

    /// Writes the certificate where the user wants it, and says where that is.
    fn write_certificate(&self, pool: &PoolHandle) -> Result<Option<&Path>> {
        let Some(path) = self.certificate_out.as_deref() else { return Ok(None) };
        std::fs::write(path, pool.certificate_pem())
            .with_context(|| format!("cannot write the certificate to {}", path.display()))?;
        Ok(Some(path))
    }
}

fn load_verifier(settings: &Settings) -> Result<(Model, ModelDigests, Tokenizer), ModelError> {
    let precision = match settings.model.verifier_precision {
        specfleet_config::PrecisionChoice::F32 => Precision::F32,
        specfleet_config::PrecisionChoice::Q8_0 => Precision::Q8_0,
        specfleet_config::PrecisionChoice::Q4K => Precision::Q4K,
    };
    match &settings.model.verifier {
        ModelChoice::Embedded => {
            let model = Model::embedded(Embedded::Verifier, precision)?;
            Ok((model, ModelDigests::embedded(Embedded::Verifier), Tokenizer::embedded()?))
        }
        ModelChoice::Folder(folder) => {
            let model = Model::load_dir(folder, precision)?;
            Ok((model, ModelDigests::folder(folder), Tokenizer::load_dir(folder)?))
        }
    }
}

/// Where the pool is, and how a device knows that it is this one.
fn greeting(pool: &PoolHandle, pem: Option<&Path>) -> String {
    let fingerprint = specfleet_files::hex(&Sha256::digest(pool.certificate_der()));
    let line = format!("listening on {}, certificate SHA-256 {fingerprint}", pool.local_addr());
    match pem {
        Some(path) => line + " in " + &path.display().to_string(),
        None => line + " (--certificate-out FILE writes it)",
    }
}
