//! The recorder: the ledger's only writer, on a thread of its own behind bounded queues.
//!
//! Devices and verifiers wait while it is behind; nothing is dropped. It flushes twice a second, so that a killed run
//! loses at most the last second, and then says what the run is doing (`live.json`).

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use device_agent::DeviceEvent;
use specfleet_analysis::{Scores, StreamSummary};
use specfleet_config::Threshold;
use specfleet_engine::disturbance::{self, Disturbance, StoodStill};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, GenerationRecord, Provenance, RoundRecord, Source};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{LedgerError, Live, Meta, RunState, RunWriter};
use specfleet_metrics::{Course, FleetMetrics};
use tokio::sync::{mpsc, oneshot, watch};
use verifier_pool::{PoolEvent, PoolStatus};

use crate::error::Error;
use crate::host::HostWatch;
use crate::live::{Batches, Figures, Seen};
use crate::thresholds::Watch;

/// Records that may wait.
const QUEUE: usize = 16 * 1024;
/// How often the rounds of open generations are handed to the ledger and everything is put on the disk.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// How often the checks that can end a run are looked at.
const CHECK_EVERY: Span = Span::from_millis(1_000);

/// A finished generation, as the audit needs it.
#[derive(Clone, Debug)]
pub struct Finished {
    pub id: GenerationId,
    pub tokens: Vec<u32>,
    /// Its skipped tokens: position among the generated ones and x_d.
    pub skipped: Vec<(u32, f32)>,
}

enum RecorderCommand {
    Audits(Vec<AuditRecord>),
    TakeFinished(oneshot::Sender<Vec<Finished>>),
    Ended { disturbed: Disturbed, wall_seconds: f64, host: HostWatch },
    Close(RunState, oneshot::Sender<Meta>),
}

/// What was done to a run, on purpose and by its host.
#[derive(Clone, Debug, Default)]
pub struct Disturbed {
    /// Faults that were injected.
    pub injected: u32,
    /// Frames that came to an emulated pool too late.
    pub late: u64,
    /// When the whole process stood still, where times follow the host.
    pub standstills: Vec<StoodStill>,
}

/// A handle of the recorder's thread.
pub struct Recorder {
    devices: mpsc::Sender<DeviceEvent>,
    pool: mpsc::Sender<PoolEvent>,
    commands: mpsc::Sender<RecorderCommand>,
    thread: thread::JoinHandle<Result<(), LedgerError>>,
}

impl Recorder {
    /// Starts the thread over an open run.
    pub fn start(writer: RunWriter, watching: Watching) -> Result<Recorder, Error> {
        let Watching { held, generations, status, metrics } = watching;
        let (devices, device_events) = mpsc::channel(QUEUE);
        let (pool, pool_events) = mpsc::channel(QUEUE);
        let (commands, orders) = mpsc::channel(64);
        let methods = writer.meta().methods.iter().map(|method| method.name.clone()).collect();
        let watched = Watched {
            began: Instant::now(),
            method: 0,
            seen: Seen::default(),
            batches: Batches::default(),
            figures: Figures::new(methods, generations),
            status,
        };
        let worker = RecorderWorker {
            writer,
            open: BTreeMap::new(),
            finished: Vec::new(),
            held,
            watched,
            metrics,
            disturbance: Disturbance::default(),
        };
        let thread = thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                // A current-thread runtime with a timer needs no resource that could be missing.
                match runtime {
                    Ok(runtime) => runtime.block_on(worker.run(device_events, pool_events, orders)),
                    Err(_) => Ok(()),
                }
            })
            .map_err(|_| Error::Stopped("the recorder"))?;
        Ok(Recorder { devices, pool, commands, thread })
    }

    /// Where devices report.
    pub fn device_events(&self) -> mpsc::Sender<DeviceEvent> {
        self.devices.clone()
    }

    /// Where the pool reports.
    pub fn pool_events(&self) -> mpsc::Sender<PoolEvent> {
        self.pool.clone()
    }

    /// Resolves when the recorder has stopped by itself: it could not write, and a run without it is worth nothing.
    pub async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// The generations that have finished since the last call.
    pub async fn take_finished(&self) -> Result<Vec<Finished>, Error> {
        let (answer, finished) = oneshot::channel();
        self.order(RecorderCommand::TakeFinished(answer)).await?;
        finished.await.map_err(|_| Error::Stopped("the recorder"))
    }

    /// Stores audits.
    pub async fn audits(&self, audits: Vec<AuditRecord>) -> Result<(), Error> {
        self.order(RecorderCommand::Audits(audits)).await
    }

    /// Notes how many faults were injected, how many seconds the run took, and what its host did.
    pub async fn ended(&self, disturbed: Disturbed, wall_seconds: f64, host: HostWatch) -> Result<(), Error> {
        self.order(RecorderCommand::Ended { disturbed, wall_seconds, host }).await
    }

    /// Stores what is left and ends the run.
    pub async fn close(self, state: RunState) -> Result<Meta, Error> {
        let (answer, closed) = oneshot::channel();
        let ordered = self.order(RecorderCommand::Close(state, answer)).await;
        let Recorder { devices, pool, commands, thread } = self;
        drop((devices, pool, commands));
        let meta = closed.await;
        // The thread's own error says more than the queue that it closed.
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Error::Stopped("the recorder")),
        }
        ordered?;
        meta.map_err(|_| Error::Stopped("the recorder"))
    }

    async fn order(&self, command: RecorderCommand) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Stopped("the recorder"))
    }
}

struct RecorderWorker {
    writer: RunWriter,
    /// Rounds of open generations that are not stored yet, and what was skipped in them so far.
    open: BTreeMap<GenerationId, Open>,
    finished: Vec<Finished>,
    held: Option<ThresholdWatcher>,
    watched: Watched,
    metrics: Option<FleetMetrics>,
    /// How late devices and verifiers were.
    disturbance: Disturbance,
}

/// Who looks on while a run is recorded.
pub struct Watching {
    /// The checks that can end it early, if there are any.
    pub held: Option<ThresholdWatcher>,
    /// How many generations the run will have.
    pub generations: u64,
    /// What the pool last said of itself.
    pub status: watch::Receiver<Option<PoolStatus>>,
    /// Where everything is counted too, if anywhere.
    pub metrics: Option<FleetMetrics>,
}

/// What somebody who watches the run is told.
struct Watched {
    began: Instant,
    /// Of the last record.
    method: u16,
    seen: Seen,
    batches: Batches,
    figures: Figures,
    status: watch::Receiver<Option<PoolStatus>>,
}

impl Watched {
    fn look(&mut self) -> Live {
        let now = Time(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.figures.look(now, self.method, &self.seen, &self.batches, self.status.borrow().as_ref())
    }
}

/// Holds a running run to the checks that can end it, on what its finished generations show.
pub struct ThresholdWatcher {
    thresholds: Vec<Threshold>,
    methods: Vec<String>,
    summary: StreamSummary,
    /// Rounds of open generations.
    rounds: BTreeMap<GenerationId, Vec<RoundRecord>>,
    /// Since when each method runs, as far as its first generation shows.
    started: BTreeMap<u16, Time>,
    /// Not before this time again: a summary costs more than a generation.
    next: Time,
    /// Told of the first check that fails.
    failed: watch::Sender<Option<String>>,
}

impl ThresholdWatcher {
    /// Nothing seen yet; `empty` is a summary of the run, `failed` is told of the first check that fails.
    pub fn new(
        thresholds: Vec<Threshold>,
        methods: Vec<String>,
        empty: StreamSummary,
        failed: watch::Sender<Option<String>>,
    ) -> ThresholdWatcher {
        ThresholdWatcher {
            thresholds,
            methods,
            summary: empty,
            rounds: BTreeMap::new(),
            started: BTreeMap::new(),
            next: Time::ZERO,
            failed,
        }
    }

    fn round(&mut self, generation: GenerationId, record: RoundRecord) {
        self.rounds.entry(generation).or_default().push(record);
    }

    fn finished(&mut self, record: &GenerationRecord) {
        let id = record.id;
        let rounds = self.rounds.remove(&id).unwrap_or_default();
        // Methods and data sets are those of the run's own lists.
        let Ok(mut tally) = self.summary.start(id.phase(), record.data_set, record.scheduled, record.latency_target)
        else {
            return;
        };
        rounds.iter().for_each(|round| tally.round(round, &mut self.summary));
        self.summary.generation(record, &tally, Scores::default());
        let started = self.started.entry(id.method).or_insert(record.started);
        *started = (*started).min(record.started);
        if self.failed.borrow().is_some() || record.ended < self.next {
            return;
        }
        self.next = record.ended + CHECK_EVERY;
        let Some(method) = self.methods.get(usize::from(id.method)) else { return };
        let mut watch = Watch::new(&self.thresholds, method, *started);
        if watch.is_due(record.ended)
            && let Some(check) = watch.failed(record.ended, &self.summary.clone().finish())
        {
            self.failed.send_replace(Some(check));
        }
    }
}

#[derive(Default)]
struct Open {
    device: DeviceId,
    waiting: Vec<RoundRecord>,
    course: Course,
    skipped: Vec<(u32, f32)>,
}

impl RecorderWorker {
    async fn run(
        mut self,
        mut devices: mpsc::Receiver<DeviceEvent>,
        mut pool: mpsc::Receiver<PoolEvent>,
        mut orders: mpsc::Receiver<RecorderCommand>,
    ) -> Result<(), LedgerError> {
        let mut tick = tokio::time::interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // In this order: what an order asks about has been reported before it was given.
            tokio::select! {
                biased;
                Some(event) = devices.recv() => self.device(event)?,
                Some(event) = pool.recv() => self.pool(event)?,
                _ = tick.tick() => self.flush()?,
                order = orders.recv() => match order {
                    Some(RecorderCommand::Audits(audits)) => {
                        for audit in audits {
                            self.writer.append_audit(audit)?;
                        }
                    }
                    Some(RecorderCommand::TakeFinished(answer)) => {
                        // Nobody waiting is not the recorder's business.
                        let _ = answer.send(std::mem::take(&mut self.finished));
                    }
                    Some(RecorderCommand::Ended { disturbed, wall_seconds, host }) => {
                        let mut disturbance = self.disturbance;
                        host.finish(&mut disturbance);
                        disturbance.leave_out(&disturbed.standstills);
                        disturbance.late_arrivals = disturbed.late;
                        self.writer.update_meta(|meta| {
                            meta.faults_injected = disturbed.injected;
                            meta.wall_seconds = Some(wall_seconds);
                            meta.noise = disturbance::verdict(&disturbance.noise());
                            meta.disturbance = Some(disturbance);
                            meta.standstills = disturbed.standstills;
                        })?;
                    }
                    Some(RecorderCommand::Close(state, answer)) => {
                        self.flush()?;
                        let _ = answer.send(self.writer.finish(state)?);
                        return Ok(());
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    fn device(&mut self, event: DeviceEvent) -> Result<(), LedgerError> {
        match event {
            DeviceEvent::Round { generation, device, record } => {
                self.watched.method = generation.method;
                self.watched.seen.round(&record);
                let open = self.open.entry(generation).or_default();
                open.device = device;
                if let Some(metrics) = &self.metrics {
                    metrics.round(generation.method, &mut open.course, &record);
                }
                if record.source == Source::Skipped {
                    open.skipped.push((record.position, record.draft_probability));
                }
                open.waiting.push(record);
                if let Some(held) = &mut self.held {
                    held.round(generation, record);
                }
            }
            DeviceEvent::Finished(record) => {
                self.watched.method = record.id.method;
                self.watched.seen.generation(&record);
                self.disturbance.generation(&record);
                if let Some(metrics) = &self.metrics {
                    metrics.generation(&record);
                }
                if let Some(held) = &mut self.held {
                    held.finished(&record);
                }
                let open = self.open.remove(&record.id).unwrap_or_default();
                self.finished.push(Finished { id: record.id, tokens: record.tokens.clone(), skipped: open.skipped });
                self.writer.close_generation(*record, &open.waiting)?;
            }
        }
        Ok(())
    }

    fn pool(&mut self, event: PoolEvent) -> Result<(), LedgerError> {
        match event {
            PoolEvent::Batch(record) => {
                self.watched.batches.batch(&record);
                self.disturbance.batch(&record);
                if let Some(metrics) = &self.metrics {
                    metrics.batch(&record);
                }
                self.writer.append_batch(record)
            }
            PoolEvent::Verifier(record) => {
                if let Some(metrics) = &self.metrics {
                    metrics.verifier(&record);
                }
                self.writer.append_verifier(record, Provenance::Modelled)
            }
        }
    }

    fn flush(&mut self) -> Result<(), LedgerError> {
        for (&id, open) in &mut self.open {
            if !open.waiting.is_empty() {
                self.writer.append_rounds(id, open.device, &open.waiting)?;
                open.waiting.clear();
            }
        }
        self.writer.flush()?;
        if let (Some(metrics), Some(status)) = (&self.metrics, self.watched.status.borrow().as_ref()) {
            status.show(metrics.pool());
        }
        let live = self.watched.look();
        self.writer.put_live(&live)
    }
}
