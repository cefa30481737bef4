//! The recorder: the ledger's only writer, on a thread of its own behind bounded queues.
//!
//! Devices and verifiers wait while it is behind; nothing is dropped. It flushes twice a second, so that a killed run
//! loses at most the last second.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use device_agent::DeviceEvent;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, Provenance, RoundRecord, Source};
use specfleet_ledger::{LedgerError, Meta, RunState, RunWriter};
use tokio::sync::{mpsc, oneshot};
use verifier_pool::PoolEvent;

use crate::error::Error;

/// Records that may wait.
const QUEUE: usize = 16 * 1024;
/// How often the rounds of open generations are handed to the ledger and everything is put on the disk.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// A finished generation, as the audit needs it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Which generation.
    pub id: GenerationId,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Its skipped tokens: position among the generated ones and x_d.
    pub skipped: Vec<(u32, f32)>,
}

enum Command {
    Audits(Vec<AuditRecord>),
    TakeFinished(oneshot::Sender<Vec<Finished>>),
    Faults(u32),
    Close(RunState, oneshot::Sender<Meta>),
}

/// A handle of the recorder's thread.
pub struct Recorder {
    devices: mpsc::Sender<DeviceEvent>,
    pool: mpsc::Sender<PoolEvent>,
    commands: mpsc::Sender<Command>,
    thread: thread::JoinHandle<Result<(), LedgerError>>,
}

impl Recorder {
    /// Starts the thread over an open run.
    pub fn start(writer: RunWriter) -> Result<Recorder, Error> {
        let (devices, device_events) = mpsc::channel(QUEUE);
        let (pool, pool_events) = mpsc::channel(QUEUE);
        let (commands, orders) = mpsc::channel(64);
        let worker = Worker { writer, open: BTreeMap::new(), finished: Vec::new() };
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

    /// The generations that have finished since the last call.
    pub async fn take_finished(&self) -> Result<Vec<Finished>, Error> {
        let (answer, finished) = oneshot::channel();
        self.order(Command::TakeFinished(answer)).await?;
        finished.await.map_err(|_| Error::Stopped("the recorder"))
    }

    /// Stores audits.
    pub async fn audits(&self, audits: Vec<AuditRecord>) -> Result<(), Error> {
        self.order(Command::Audits(audits)).await
    }

    /// Notes how many faults have been injected so far.
    pub async fn faults(&self, injected: u32) -> Result<(), Error> {
        self.order(Command::Faults(injected)).await
    }

    /// Stores what is left and ends the run.
    pub async fn close(self, state: RunState) -> Result<Meta, Error> {
        let (answer, closed) = oneshot::channel();
        let ordered = self.order(Command::Close(state, answer)).await;
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

    async fn order(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Stopped("the recorder"))
    }
}

struct Worker {
    writer: RunWriter,
    /// Rounds of open generations that are not stored yet, and what was skipped in them so far.
    open: BTreeMap<GenerationId, Open>,
    finished: Vec<Finished>,
}

#[derive(Default)]
struct Open {
    device: DeviceId,
    waiting: Vec<RoundRecord>,
    skipped: Vec<(u32, f32)>,
}

impl Worker {
    async fn run(
        mut self,
        mut devices: mpsc::Receiver<DeviceEvent>,
        mut pool: mpsc::Receiver<PoolEvent>,
        mut orders: mpsc::Receiver<Command>,
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
                    Some(Command::Audits(audits)) => {
                        for audit in audits {
                            self.writer.append_audit(audit)?;
                        }
                    }
                    Some(Command::TakeFinished(answer)) => {
                        // Nobody waiting is not the recorder's business.
                        let _ = answer.send(std::mem::take(&mut self.finished));
                    }
                    Some(Command::Faults(injected)) => self.writer.update_meta(|meta| meta.faults_injected = injected)?,
                    Some(Command::Close(state, answer)) => {
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
                let open = self.open.entry(generation).or_default();
                open.device = device;
                if record.source == Source::Skipped {
                    open.skipped.push((record.position, record.draft_probability));
                }
                open.waiting.push(record);
            }
            DeviceEvent::Finished(record) => {
                let open = self.open.remove(&record.id).unwrap_or_default();
                self.finished.push(Finished { id: record.id, tokens: record.tokens.clone(), skipped: open.skipped });
                self.writer.close_generation(*record, &open.waiting)?;
            }
        }
        Ok(())
    }

    fn pool(&mut self, event: PoolEvent) -> Result<(), LedgerError> {
        match event {
            PoolEvent::Batch(record) => self.writer.append_batch(record),
            PoolEvent::Verifier(record) => self.writer.append_verifier(record, Provenance::Modelled),
        }
    }

    fn flush(&mut self) -> Result<(), LedgerError> {
        for (&id, open) in &mut self.open {
            if !open.waiting.is_empty() {
                self.writer.append_rounds(id, open.device, &open.waiting)?;
                open.waiting.clear();
            }
        }
        self.writer.flush()
    }
}
