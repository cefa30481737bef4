//! The fleet: one method's devices, connected, sent through their prompts one after another (closed loop), and dismissed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::Addr;
use device_agent::{
    AgentError, AgentOptions, Connector, CutConnection, Device, DeviceEvent, DraftError, Drafter, Generate, Leave,
    Ready, Timer,
};
use specfleet_config::Settings;
use specfleet_engine::device::{DeviceSettings, OnRefused};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::Method;
use specfleet_engine::time::Span;
use specfleet_model::ModelError;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::pair::Pair;
use crate::progress::Phase;
use crate::work::{Job, Work};

/// Devices that connect at a time: a thousand handshakes at once would only time each other out.
const WAVE: usize = 64;

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
pub struct Fleet {
    devices: Vec<Addr<Device>>,
    method: u16,
}

impl Shared {
    /// What the devices of `method` run under; devices with the same profile and link share it.
    fn device_settings(&self, method: &Method) -> Vec<Arc<DeviceSettings>> {
        let Settings { run, device, .. } = &self.settings;
        // By their part of the fleet.
        let mut shared: BTreeMap<usize, Arc<DeviceSettings>> = BTreeMap::new();
        (0..run.devices)
            .map(|number| {
                let (profile, link) = (device.profile(DeviceId(number)), device.link(DeviceId(number)));
                let make = || {
                    Arc::new(DeviceSettings {
                        method: method.clone(),
                        sampling: run.sampling,
                        seed: run.seed,
                        max_new_tokens: run.max_new_tokens,
                        context: self.pair.context() as u32,
                        vocab: self.pair.verifier.shape().vocab as u32,
                        end_tokens: self.pair.end_tokens(),
                        profile: profile.clone(),
                        link: link.clone(),
                        verdict_timeout: device.verdict_timeout,
                        retry: device.retry,
                        on_unreachable: run.on_unreachable,
                        unreachable_after: run.unreachable_after,
                        on_refused: OnRefused::Retry,
                        latency_target: Span::ZERO,
                        battery_nanojoules: 0,
                        outages: None,
                    })
                };
                shared.entry(device.part_index(DeviceId(number))).or_insert_with(make).clone()
            })
            .collect()
    }
}

impl Fleet {
    /// Starts the devices and waits until every one is ready. Only devices that have something to do are started.
    pub async fn assemble(shared: &Shared, index: u16, method: &Method, work: &Work) -> Result<Fleet, Error> {
        let settings = shared.device_settings(method);
        let mut devices: Vec<Addr<Device>> = Vec::new();
        for wave in settings[..settings.len().min(work.jobs.len())].chunks(WAVE) {
            let first = devices.len();
            for settings in wave {
                let device = devices.len() as u32;
                let options = AgentOptions {
                    device: DeviceId(device),
                    settings: settings.clone(),
                    drafter: shared.drafter.clone(),
                    connector: shared.connector.clone(),
                    timer: shared.timer.clone(),
                    tokenizer_digest: shared.pair.tokenizer.digest(),
                    events: shared.events.clone(),
                    origin: shared.origin,
                    journal: None,
                };
                devices.push(Device::start(options).map_err(|source| Error::Agent { device, source })?);
            }
            for (offset, device) in devices[first..].iter().enumerate() {
                let ready = device.send(Ready).await.map_err(|_| Error::Stopped("a device"))?;
                ready.map_err(|source| Error::Agent { device: (first + offset) as u32, source })?;
            }
        }
        Ok(Fleet { devices, method: index })
    }

    /// Sends every device through its prompts, one after another; ends when all are answered, or with the first failure.
    pub async fn run(&self, work: &Work, phase: Phase) -> Result<(), Error> {
        let phase = Rc::new(phase);
        let failure: Rc<RefCell<Option<Error>>> = Rc::default();
        let mut tasks = Vec::new();
        for (number, device) in self.devices.iter().enumerate() {
            let jobs: Vec<Job> = work.jobs.iter().skip(number).step_by(self.devices.len()).cloned().collect();
            let (device, method, phase, failure) = (device.clone(), self.method, phase.clone(), failure.clone());
            tasks.push(actix::spawn(async move {
                for job in jobs {
                    if failure.borrow().is_some() {
                        return;
                    }
                    if let Err(error) = generate(&device, method, &job, number as u32).await {
                        failure.borrow_mut().get_or_insert(error);
                        return;
                    }
                    phase.tick();
                }
            }));
        }
        for task in tasks {
            task.await.map_err(|_| Error::Stopped("a device's task"))?;
        }
        phase.finish();
        match failure.borrow_mut().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Cuts the connection of one device at once.
    pub async fn cut_connection(&self, device: usize) {
        if let Some(device) = self.devices.get(device) {
            // A device that is gone has no connection either.
            let _ = device.send(CutConnection).await;
        }
    }

    /// Lets the devices go.
    pub async fn dismiss(self, connector: &Connector) {
        for device in &self.devices {
            let _ = device.send(Leave).await;
        }
        connector.drain().await;
    }
}

async fn generate(device: &Addr<Device>, method: u16, job: &Job, number: u32) -> Result<(), Error> {
    let generation = GenerationId { method, prompt: job.prompt_id, repetition: job.repetition };
    let message = Generate { generation, data_set: job.data_set, prompt: job.tokens.clone(), scheduled: None };
    let answered = device.send(message).await.map_err(|_| Error::Stopped("a device"))?;
    match answered {
        Ok(_) => Ok(()),
        // `on_unreachable = fail` and a full arena end a generation, and its record says so; anything else is an error.
        Err(AgentError::Refused(_)) => Ok(()),
        Err(source) if is_out_of_memory(&source) => Err(Error::DrafterMemory { device: number, source }),
        Err(source) => Err(Error::Agent { device: number, source }),
    }
}

fn is_out_of_memory(error: &AgentError) -> bool {
    matches!(error, AgentError::Draft(DraftError::Model(model)) if matches!(**model, ModelError::BudgetExceeded { .. }))
}
