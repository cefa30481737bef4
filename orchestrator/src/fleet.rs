//! The fleet: one method's devices, connected, given their prompts as the load says, and dismissed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use actix::prelude::Request;
use device_agent::{
    AgentError, AgentOptions, Connector, Device, DeviceEvent, DraftError, Drafter, Generate, Leave, Ready, Timer,
};
use specfleet_config::Settings;
use specfleet_engine::device::DeviceSettings;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::load::{self, Dispatch, Event, Jobs, Order, Shard};
use specfleet_engine::method::Method;
use specfleet_engine::record::{FinishReason, GenerationRecord};
use specfleet_engine::time::Time;
use specfleet_model::ModelError;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::pair::Pair;
use crate::parts::device_settings;
use crate::progress::Phase;
use crate::sizes::Sizes;
use crate::tasks::Tasks;
use crate::work::{Job, Work};

/// Devices that connect at a time: a thousand handshakes at once would only time each other out.
const WAVE: usize = 64;

/// Events that may wait to be dispatched; a device whose event waits has nothing else to do.
const EVENTS: usize = 1024;

/// What all fleets of a run share.
pub struct Shared {
    /// The scenario.
    pub settings: Settings,
    /// The pair.
    pub pair: Pair,
    /// Where drafts are computed.
    pub drafter: Drafter,
    /// The way to the pool.
    pub connector: Connector,
    /// What wakes devices.
    pub timer: Timer,
    /// Where they report.
    pub events: mpsc::Sender<DeviceEvent>,
    /// Time zero.
    pub origin: Instant,
}

/// The devices of one method's phase.
pub struct Fleet<'a> {
    shared: &'a Shared,
    work: &'a Work,
    method: u16,
    /// What each part of the fleet runs under.
    parts: Vec<Arc<DeviceSettings>>,
    tasks: Tasks,
    /// Those that have been switched on.
    devices: BTreeMap<DeviceId, Addr<Device>>,
}

impl<'a> Fleet<'a> {
    /// Starts the devices that are there from the beginning and waits until every one is ready. Only devices that have
    /// something to do are started.
    pub async fn assemble(shared: &'a Shared, index: u16, method: &Method, work: &'a Work) -> Result<Fleet<'a>, Error> {
        let sizes = Sizes::of_pair(&shared.settings, &shared.pair);
        let parts = device_settings(&shared.settings, &sizes, method);
        let count = shared.settings.run.devices;
        let tasks = Tasks(shared.settings.assignment());
        let mut fleet = Fleet { shared, work, method: index, parts, tasks, devices: BTreeMap::new() };
        let jobs = &fleet.tasks;
        let present: Vec<DeviceId> = (0..count)
            .map(DeviceId)
            .filter(|&device| jobs.nth(device, 0).is_some() && shared.settings.churn.joins(device, count) == Time::ZERO)
            .collect();
        for wave in present.chunks(WAVE) {
            let started = wave.iter().map(|&device| fleet.switch_on(device)).collect::<Result<Vec<_>, Error>>()?;
            for (&number, device) in wave.iter().zip(started) {
                ready(device.send(Ready), number).await?;
            }
        }
        Ok(fleet)
    }

    /// Sends the jobs through the fleet as the load says; ends when all are done, or with the first failure.
    pub async fn run(&mut self, progress: Phase) -> Result<(), Error> {
        let settings = &self.shared.settings;
        let phase = load::Phase {
            load: &settings.load,
            churn: settings.churn,
            seed: settings.run.seed,
            devices: settings.run.devices,
            start: self.now(),
        };
        let mut dispatch = Dispatch::new(phase, self.tasks.clone(), Shard::WHOLE);
        // A device reports once that it is ready, and once per generation; neither is lost where nobody listens.
        let (tell, mut happened) = mpsc::channel(EVENTS);
        let mut orders = Vec::new();
        while !dispatch.is_done() {
            let wake = dispatch.poll_timeout().map(|at| self.shared.origin + Duration::from_nanos(at.0));
            let event = tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => Event::Timeout,
                Some(event) = happened.recv() => event?,
            };
            if matches!(event, Event::Finished { .. }) {
                progress.tick();
            }
            dispatch.handle(self.now(), event, &mut orders);
            for order in orders.drain(..) {
                self.carry_out(order, &tell).await?;
            }
        }
        progress.finish();
        Ok(())
    }

    async fn carry_out(&mut self, order: Order, tell: &mpsc::Sender<Result<Event, Error>>) -> Result<(), Error> {
        let tell = tell.clone();
        match order {
            Order::Join(number) => {
                // Sent now, not when the task below runs: no later message may overtake it.
                let asked = self.switch_on(number)?.send(Ready);
                actix::spawn(async move {
                    let event = match ready(asked, number).await {
                        Ok(()) => Ok(Event::Ready(number)),
                        // It was told to leave before it was ready.
                        Err(Error::Agent { source: AgentError::Left, .. }) => return,
                        Err(error) => Err(error),
                    };
                    // Nobody listens to a phase that has failed.
                    let _ = tell.send(event).await;
                });
            }
            Order::Start { device: number, job, scheduled } => {
                let Some(device) = self.devices.get(&number).cloned() else { return Ok(()) };
                let (generation, job) = (self.generation(job), self.job(job));
                let (data_set, prompt) = (job.data_set, job.tokens.clone());
                let message = Generate { generation, data_set, prompt, scheduled: Some(scheduled) };
                let asked = device.send(message);
                actix::spawn(async move {
                    let finish = generate(asked, number).await;
                    let _ = tell.send(finish.map(|finish| Event::Finished { device: number, finish })).await;
                });
            }
            Order::Drop { device, job: number, scheduled } => {
                let job = self.job(number);
                let (id, prompt_tokens) = (self.generation(number), job.tokens.len() as u32);
                let settings = &self.parts[self.shared.settings.device.part_index(device)];
                let record = GenerationRecord::dropped(id, device, job.data_set, prompt_tokens, scheduled, settings);
                let event = DeviceEvent::Finished(Box::new(record));
                self.shared.events.send(event).await.map_err(|_| Error::Stopped("the recorder"))?;
            }
            Order::Leave(device) => {
                if let Some(device) = self.devices.get(&device) {
                    // It may have left by itself.
                    let _ = device.send(Leave).await;
                }
            }
        }
        Ok(())
    }

    /// The device's actor, started if it was not yet.
    fn switch_on(&mut self, number: DeviceId) -> Result<Addr<Device>, Error> {
        if let Some(device) = self.devices.get(&number) {
            return Ok(device.clone());
        }
        let shared = self.shared;
        let options = AgentOptions {
            device: number,
            settings: self.parts[shared.settings.device.part_index(number)].clone(),
            drafter: shared.drafter.clone(),
            connector: shared.connector.clone(),
            timer: shared.timer.clone(),
            tokenizer_digest: shared.pair.tokenizer.digest(),
            events: shared.events.clone(),
            origin: shared.origin,
            journal: None,
        };
        let device = Device::start(options).map_err(|source| Error::Agent { device: number.0, source })?;
        self.devices.insert(number, device.clone());
        Ok(device)
    }

    fn job(&self, number: u64) -> &'a Job {
        &self.work.jobs[number as usize]
    }

    fn generation(&self, number: u64) -> GenerationId {
        let Job { prompt_id, repetition, .. } = *self.job(number);
        GenerationId { method: self.method, prompt: prompt_id, repetition }
    }

    /// Nanoseconds since the start of the run.
    fn now(&self) -> Time {
        Time(u64::try_from(self.shared.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Lets the devices go.
    pub async fn dismiss(self) {
        for device in self.devices.values() {
            let _ = device.send(Leave).await;
        }
        self.shared.connector.drain().await;
    }
}

async fn ready(asked: Request<Device, Ready>, number: DeviceId) -> Result<(), Error> {
    let ready = asked.await.map_err(|_| Error::Stopped("a device"))?;
    ready.map_err(|source| Error::Agent { device: number.0, source })
}

async fn generate(asked: Request<Device, Generate>, number: DeviceId) -> Result<FinishReason, Error> {
    let DeviceId(device_number) = number;
    let answered = asked.await.map_err(|_| Error::Stopped("a device"))?;
    match answered {
        Ok(record) => Ok(record.finish),
        // `on_unreachable = fail` and a full arena end a generation, and its record says so; anything else is an error.
        Err(AgentError::Refused(_)) => Ok(FinishReason::Failed),
        Err(source) if is_out_of_memory(&source) => Err(Error::DrafterMemory { device: device_number, source }),
        Err(source) => Err(Error::Agent { device: device_number, source }),
    }
}

fn is_out_of_memory(error: &AgentError) -> bool {
    matches!(error, AgentError::Draft(DraftError::Model(model)) if matches!(**model, ModelError::BudgetExceeded { .. }))
}
