//! A live run from beginning to end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use device_agent::{Connector, ConnectorOptions, DeviceEvent, Drafter, HostClock, Timer, Trust};
use specfleet_analysis::{StreamSummary, Summary};
use specfleet_config::{Settings, Threshold};
use specfleet_engine::cost::BatchCost;
use specfleet_engine::id::PhaseId;
use specfleet_engine::method::Method;
use specfleet_engine::record::{RunClock, VerifierRecord};
use specfleet_engine::wire::AdmissionToken;
use specfleet_engine::wire::FrameLimits;
use specfleet_ledger::{Meta, RunState, RunWriter};
use specfleet_metrics::{FleetMetrics, PoolMetrics, PoolObserver, Registry};
use tokio::sync::{mpsc, watch};
use verifier_pool::{PoolHandle, PoolOptions, PoolStatus};

use crate::audit::{Audited, Case};
use crate::error::Error;
use crate::faults::inject;
use crate::fleet::{FleetContext, Patience, Turn};
use crate::host::HostWatch;
use crate::methods::{Calibrations, Resolved};
use crate::pair::Pair;
use crate::paired::Comparison;
use crate::passes;
use crate::pool_cost;
use crate::precheck;
use crate::progress::Progress;
use crate::prompts;
use crate::recorder::{Disturbed, Recorder, ThresholdWatcher, Watching};
use crate::report;
use crate::results::{header, results};
use crate::run_meta::meta_of_run;
use crate::simulate;
use crate::standstills::{self, Phases};
use crate::work::WorkPlan;

/// Devices per client endpoint: a QUIC endpoint is driven by one task.
const DEVICES_PER_ENDPOINT: usize = 128;

/// How often the pool is asked what it is doing; its answer is as old as that at most.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// What a run needs beyond its scenario.
pub struct RunOptions<'a> {
    pub settings: Settings,
    /// Its text, for repeating the run.
    pub scenario: String,
    /// Folder of all runs.
    pub ledger: &'a Path,
    /// Where result files go, if anywhere.
    pub out: Option<&'a Path>,
    /// What the user sees meanwhile.
    pub progress: &'a Progress,
    /// Where metrics are shown, if anywhere.
    pub metrics: Option<&'a Registry>,
}

/// What a run left.
#[derive(Debug)]
pub struct Finished {
    pub summary: Summary,
    /// `ui-hlm` against the others, if it ran.
    pub comparisons: Vec<Comparison>,
    /// The run's folder in the ledger.
    pub folder: PathBuf,
    /// Lines a reader of the figures should see.
    pub notes: Vec<String>,
    /// The failed threshold that ended it early, if one did.
    pub aborted: Option<String>,
}

/// The verifiers' idle seconds and joules, if the run got to its end, and what ended it early otherwise.
type RunEnd = (Option<(f64, f64)>, Option<String>);

/// Runs the scenario: every method's fleet through the whole workload, one method after another.
///
/// Must be awaited inside an actix system. Ctrl-C ends the run early; what was recorded until then is kept.
///
/// The future is boxed so that its code is compiled here, once: the body of an `async fn` is compiled again in every crate
/// that awaits it.
pub fn run<'a>(options: RunOptions<'a>) -> Pin<Box<dyn Future<Output = Result<Finished, Error>> + 'a>> {
    Box::pin(run_scenario(options))
}

async fn run_scenario(options: RunOptions<'_>) -> Result<Finished, Error> {
    let RunOptions { settings, scenario, ledger, out, progress, metrics: registry } = options;
    let PreparedRun { settings, pair, work, resolved, cost, too_long } = prepare(settings, ledger, out, progress)?;
    let began = Instant::now();
    let mut meta = meta_of_run(&settings, scenario, &resolved, &work.data_sets);
    meta.versions.extend(pair.versions());
    meta.inputs.digests.extend_from_slice(&pair.digests);
    meta.pool_cost = pool_cost::name(cost.as_ref()).to_owned();
    meta.clock = settings.clock(cost.is_some());
    let (failed, watched) = watch::channel(None);
    let held = held(&settings, &meta, failed);
    let writer = RunWriter::create(ledger, meta)?;
    let folder = writer.run_dir().to_path_buf();
    let (told, status) = watch::channel(None);
    let generations = (resolved.methods.len() * work.jobs.len()) as u64 * u64::from(settings.run.passes());
    let names: Vec<String> = resolved.methods.iter().map(|method| method.name.clone()).collect();
    let metrics = registry.map(|registry| {
        let Meta { run, scenario_hash, .. } = writer.meta();
        FleetMetrics::new(registry, &names, generations, run, scenario_hash)
    });
    let beside = metrics.as_ref().map(|metrics| metrics.pool().clone());
    let recorder = Recorder::start(writer, Watching { held, generations, status, metrics })?;
    let watched_host = HostWatch::start();
    let context = RunContext {
        settings: &settings,
        pair: &pair,
        work: &work,
        resolved: &resolved,
        recorder: &recorder,
        progress,
    };
    let (outcome, disturbed) = context.drive(cost, watched, told, beside).await;
    let non_finite = pair.non_finite();
    let state = state(&outcome, non_finite.clone());
    // A recorder that stopped says why when it is closed: a full disk, mostly.
    let injected = disturbed.injected;
    let between = standstills::note(&disturbed.standstills);
    let noted = recorder.ended(disturbed, began.elapsed().as_secs_f64(), watched_host).await;
    recorder.close(state).await?;
    noted?;
    let (idle, aborted) = match outcome {
        Ok(ended) => ended,
        Err(Error::Interrupted(_)) => return Err(Error::Interrupted(folder)),
        Err(error) => return Err(error),
    };

    let mut problems: Vec<String> = faults_missed(&settings, injected).into_iter().collect();
    problems.extend(aborted.as_deref().map(early));
    problems.extend(non_finite);
    let (summary, comparisons) = results(&folder, &work, &pair.tokenizer, &problems, out)?;
    if let (Some(registry), Some(out)) = (registry, out) {
        let path = out.join("metrics.prom");
        std::fs::write(&path, registry.text()).map_err(|source| Error::Output { path, source })?;
    }
    let mut notes: Vec<String> = too_long.into_iter().chain(resolved.warnings).chain(between).collect();
    if let Some(idle) = idle {
        notes.push(format!("verifiers idle for {:.1} s, {:.1} J that no method is charged", idle.0, idle.1));
    }
    notes.extend(simulate::not_asked(&settings, &summary));
    Ok(Finished { summary, comparisons, folder, notes, aborted })
}

/// What is known and loaded before anything starts.
struct PreparedRun {
    settings: Settings,
    pair: Pair,
    work: WorkPlan,
    resolved: Resolved,
    /// What batches are charged; absent where that is what the verifiers measure.
    cost: Option<BatchCost>,
    /// What there is to say about prompts that are too long.
    too_long: Option<String>,
}

/// Refuses what cannot run, loads the pair and the prompts, and resolves the methods.
fn prepare(
    mut settings: Settings,
    ledger: &Path,
    out: Option<&Path>,
    progress: &Progress,
) -> Result<PreparedRun, Error> {
    precheck::fleet(&settings)?;
    let pair = Pair::load(&settings.model)?;
    let too_long = prompts::settle(&mut settings, &pair.tokenizer, pair.context())?;
    let work = WorkPlan::new(&settings, &pair)?;
    precheck::places(&settings, ledger, out)?;
    progress.say(&report::headline(&settings));
    // Said whatever is shown of the progress: what was asked for is not what is run.
    too_long.iter().for_each(|note| specfleet_logs::say!("note: {note}"));
    let announce = |text: &str| progress.say(text);
    let resolved = Calibrations::new(&settings, &pair, ledger, &announce).resolve()?;
    for warning in &resolved.warnings {
        progress.say(&format!("note: {warning}"));
    }
    let cost = pool_cost::live(&settings, &pair, &resolved)?;
    Ok(PreparedRun { settings, pair, work, resolved, cost, too_long })
}

/// What becomes of the run. `non_finite`: why its figures cannot be trusted although it came to its end.
fn state(outcome: &Result<RunEnd, Error>, non_finite: Option<String>) -> RunState {
    match outcome {
        Ok((_, Some(check))) => RunState::Failed { reason: early(check) },
        Ok((_, None)) => non_finite.map_or(RunState::Completed, |reason| RunState::Failed { reason }),
        Err(Error::Interrupted(_)) => RunState::Interrupted,
        Err(error) => RunState::Failed { reason: error.to_string() },
    }
}

/// A problem of a run that was over before all its faults were injected.
pub(crate) fn faults_missed(settings: &Settings, injected: u32) -> Option<String> {
    let planned = settings.faults.len();
    ((injected as usize) < planned)
        .then(|| format!("{injected} of {planned} faults were injected: the run was over before the others"))
}

/// The checks that can end the run, for the recorder; `None` if there are none.
fn held(settings: &Settings, meta: &Meta, failed: watch::Sender<Option<String>>) -> Option<ThresholdWatcher> {
    let thresholds: Vec<Threshold> =
        settings.thresholds.iter().filter(|threshold| threshold.abort_on_fail).cloned().collect();
    let names = meta.methods.iter().map(|method| method.name.clone()).collect();
    let empty = StreamSummary::new(header(meta), &meta.methods, &meta.data_sets);
    (!thresholds.is_empty()).then(|| ThresholdWatcher::new(thresholds, names, empty, failed))
}

/// Why a run is not whole that a failed check has ended.
pub(crate) fn early(check: &str) -> String {
    format!("ended early: {check}")
}

/// Resolves when a check has failed that ends the run.
async fn early_end(watched: &mut watch::Receiver<Option<String>>) -> String {
    loop {
        if let Some(check) = watched.borrow_and_update().clone() {
            return check;
        }
        if watched.changed().await.is_err() {
            // Nobody watches.
            std::future::pending::<()>().await;
        }
    }
}

/// What a run has at hand from its first to its last phase.
struct RunContext<'a> {
    settings: &'a Settings,
    pair: &'a Pair,
    work: &'a WorkPlan,
    resolved: &'a Resolved,
    recorder: &'a Recorder,
    progress: &'a Progress,
}

/// The pool of a run, and what goes with it.
struct RunningPool {
    pool: PoolHandle,
    clock: HostClock,
    /// What lets the run's devices into the pool.
    admission: AdmissionToken,
    /// When which phase ran.
    ran: Phases,
}

impl RunContext<'_> {
    /// Starts everything, runs every method, stops everything. Returns how it ended, and how many faults were injected,
    /// whatever the outcome.
    async fn drive(
        &self,
        cost: Option<BatchCost>,
        mut watched: watch::Receiver<Option<String>>,
        told: watch::Sender<Option<PoolStatus>>,
        beside: Option<PoolMetrics>,
    ) -> (Result<RunEnd, Error>, Disturbed) {
        let settings = self.settings;
        let follows_host = settings.clock(cost.is_some()) == RunClock::Host;
        let running = match self.start_pool(cost, beside).await {
            Ok(running) => running,
            Err(error) => return (Err(error), Disturbed::default()),
        };
        let RunningPool { pool, clock, ran, .. } = &running;
        if let Some(warning) = exposed(pool.local_addr()) {
            specfleet_logs::say!("{warning}");
        }
        let (injected, watch_injected) = watch::channel(0);
        let faults = inject(pool.clone(), settings.faults.clone(), settings.run.verifiers, clock.clone(), injected);
        let faults = actix::spawn(faults);
        let asking = actix::spawn(ask(pool.clone(), told));
        let outcome = tokio::select! {
            outcome = self.run_methods(&running) => outcome.map(|idle| (Some(idle), None)),
            check = early_end(&mut watched) => Ok((None, Some(check))),
            // Why shows when it is closed.
            () = self.recorder.stopped() => Err(Error::Stopped("the recorder")),
            _ = specfleet_signals::asked() => Err(Error::Interrupted(PathBuf::new())),
        };
        faults.abort();
        asking.abort();
        let late = pool.status().await.map_or(0, |status| status.late);
        pool.shutdown(duration(settings.pool.shutdown_timeout.0)).await;
        let injected = *watch_injected.borrow();
        // Where all times are declared a standstill is in none of them, and only makes the run noisy.
        let standstills = if follows_host { ran.standstills(clock) } else { Vec::new() };
        (outcome, Disturbed { injected, late, standstills })
    }

    async fn start_pool(&self, cost: Option<BatchCost>, beside: Option<PoolMetrics>) -> Result<RunningPool, Error> {
        let (settings, pair) = (self.settings, self.pair);
        let clock = HostClock::start().map_err(|_| Error::Stopped("the clock"))?;
        let admission = verifier_pool::admission_token()?;
        let mut options = PoolOptions::from_settings(
            settings,
            (pair.verifier.clone(), pair.verifier_files.clone()),
            pair.tokenizer.digest(),
            self.recorder.pool_events(),
            clock.clone(),
        );
        options.settings.phase = PhaseId::BETWEEN;
        options.settings.cost = cost;
        options.admission = admission;
        options.idle_timeout = idle_timeout(settings);
        options.shares_clock = settings.has_emulated_fleet();
        options.journal = beside.map(|metrics| verifier_pool::observed(PoolObserver::beside_devices(metrics)));
        let pool = verifier_pool::start(options).await?;
        Ok(RunningPool { pool, clock, admission, ran: Phases::default() })
    }

    /// Sends the fleet of every method through the workload, pass by pass. Returns the verifiers' idle seconds and joules.
    async fn run_methods(&self, running: &RunningPool) -> Result<(f64, f64), Error> {
        let shared = self.start_shared(running)?;
        self.warm_up(&shared).await?;
        let (mut idle, mut audited) = ((0.0, 0.0), Audited::default());
        for pass in 0..self.settings.run.passes() {
            let settings = &self.settings.of_pass(pass);
            for phase in passes::of_pass(pass, self.resolved.methods.len()) {
                for record in self.run_phase(settings, phase, &shared, running).await? {
                    idle.0 += record.idle.seconds();
                    idle.1 += record.idle_nanojoules as f64 * 1e-9;
                }
                let finished = self.recorder.take_finished().await?;
                if settings.audit {
                    let cases = cases(self.work, finished);
                    let (verifier, sampling) = (&self.pair.verifier, &settings.run.sampling);
                    let audits = audited.audit(verifier, sampling, settings.run.repeat > 1, cases)?;
                    self.recorder.audits(audits).await?;
                }
            }
        }
        shared.drafter.stop().await;
        Ok(idle)
    }

    /// Starts what all fleets of the run share.
    fn start_shared(&self, running: &RunningPool) -> Result<FleetContext, Error> {
        let (settings, pair) = (self.settings, self.pair);
        let drafter_bytes = (settings.model.drafter_kv_mebibytes as usize) << 20;
        let started = Drafter::start(
            pair.drafter.clone(),
            drafter_bytes,
            specfleet_model::useful_threads(settings.model.drafter_threads.into()),
        );
        let agent = |source| Error::Agent { device: 0, source };
        let drafter = started.map_err(agent)?;
        let shape = pair.verifier.shape();
        let connector = Connector::new(ConnectorOptions {
            server: reachable(running.pool.local_addr()),
            server_name: "localhost".to_owned(),
            trust: Trust::Pinned(running.pool.certificate_der().to_vec().into()),
            identity: None,
            // Only devices with something to do connect.
            endpoints: usize::from(settings.pool.endpoints)
                .max((settings.run.devices as usize).min(self.work.jobs.len()).div_ceil(DEVICES_PER_ENDPOINT)),
            idle_timeout: idle_timeout(settings),
            limits: FrameLimits::for_pair(shape.vocab, shape.context),
        })?;
        Ok(FleetContext {
            pair: pair.clone(),
            drafter,
            connector,
            timer: Timer::start().map_err(|_| Error::Stopped("the timer"))?,
            clock: running.clock.clone(),
            admission: running.admission,
            patience: Patience::OF_A_RUN,
        })
    }

    /// The passes that nobody keeps a record of.
    async fn warm_up(&self, shared: &FleetContext) -> Result<(), Error> {
        let (settings, work) = (self.settings, self.work);
        for pass in 0..settings.run.warmup {
            let unheard = unheard();
            for phase in passes::of_pass(pass, self.resolved.methods.len()) {
                let method = self.method_of(phase);
                let turn = Turn { settings, phase, method, work, events: unheard.clone() };
                let label = format!("{} (warm-up)", method.name);
                // The pool goes on counting as between the methods.
                turn.run(shared, self.progress.phase(&label, work.jobs.len())).await?;
            }
        }
        Ok(())
    }

    /// One method's fleet in one pass, from its first device to its last. `settings`: with the seed of the pass. Returns
    /// the pool's account of the phase.
    async fn run_phase(
        &self,
        settings: &Settings,
        phase: PhaseId,
        shared: &FleetContext,
        running: &RunningPool,
    ) -> Result<Vec<VerifierRecord>, Error> {
        let RunningPool { pool, ran, .. } = running;
        let (method, work) = (self.method_of(phase), self.work);
        let turn = Turn { settings, phase, method, work, events: self.recorder.device_events() };
        let label = passes::label(&method.name, phase.pass, settings.run.passes());
        let mut fleet = turn.assemble(shared).await?;
        // The account of the phase starts when the fleet stands.
        let start = fleet.now();
        ran.begin(phase, start);
        let shared_clock = |at| Some(at).filter(|_| settings.has_emulated_fleet());
        pool.next_phase_at(phase, shared_clock(start)).await?;
        let served = fleet.serve(start, self.progress.phase(&label, work.jobs.len())).await;
        ran.end(fleet.now());
        // The account ends before the devices leave, which the host times.
        let accounts = match served {
            Ok(end) => Ok(pool.next_phase_at(PhaseId::BETWEEN, shared_clock(end)).await),
            Err(error) => Err(error),
        };
        fleet.dismiss().await;
        Ok(accounts??)
    }

    fn method_of(&self, phase: PhaseId) -> &Method {
        &self.resolved.methods[usize::from(phase.method)]
    }
}

/// Somewhere to report to where nobody keeps a record.
fn unheard() -> mpsc::Sender<DeviceEvent> {
    let (events, mut heard) = mpsc::channel(64);
    actix::spawn(async move { while heard.recv().await.is_some() {} });
    events
}

/// A line for a pool that other machines can reach; `None` on the loopback.
fn exposed(address: SocketAddr) -> Option<String> {
    let text = || {
        format!(
            "warning: the pool listens at {address}, where other machines reach it; it works for this run alone, but anybody \
             can knock"
        )
    };
    (!address.ip().is_loopback()).then(text)
}

/// Where the fleet finds a pool that listens here: one that listens everywhere is reached by the loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Asks the pool what it is doing, again and again, and passes it on. Not the recorder's task: a pool that waits for the
/// recorder answers nobody.
async fn ask(pool: PoolHandle, told: watch::Sender<Option<PoolStatus>>) {
    while let Ok(status) = pool.status().await {
        told.send_replace(Some(status));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The finished generations with their prompts, for the audit.
fn cases(work: &WorkPlan, finished: Vec<crate::recorder::Finished>) -> Vec<Case> {
    let jobs: BTreeMap<_, _> = work.jobs.iter().map(|job| ((job.prompt_id, job.repetition), job)).collect();
    finished
        .into_iter()
        .filter_map(|generation| {
            let job = jobs.get(&(generation.id.prompt, generation.id.repetition))?;
            Some(Case {
                id: generation.id,
                tokens: [&job.tokens[..], &generation.tokens[..]].concat(),
                prompt_tokens: job.tokens.len(),
                skipped: generation.skipped,
            })
        })
        .collect()
}

/// How long a connection of a run may be silent: devices and pool are one process, so silence means that it stood still, as in
/// a suspended laptop, and not that one of them is gone.
fn idle_timeout(settings: &Settings) -> Duration {
    duration(settings.pool.idle_timeout.0).max(Duration::from_secs(600))
}

fn duration(nanoseconds: u64) -> Duration {
    Duration::from_nanos(nanoseconds)
}
