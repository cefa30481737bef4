//! The fleet: one method's devices, connected, given their prompts as the load says, and dismissed.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use actix::prelude::Request;
use device_agent::{
    AgentError, AgentOptions, Connector, Device, DeviceEvent, DraftError, Drafter, Generate, HostClock, LastLinkError,
    Leave, Ready, Timer,
};
use specfleet_config::Settings;
use specfleet_engine::device::DeviceSettings;
use specfleet_engine::id::{DeviceId, GenerationId, PhaseId};
use specfleet_engine::load::{self, Dispatch, DispatchEvent, DispatchOrder, DispatchShard, Jobs, Load};
use specfleet_engine::method::Method;
use specfleet_engine::record::{FinishReason, GenerationRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::AdmissionToken;
use specfleet_model::ModelError;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::Error;
use crate::pair::Pair;
use crate::parts::device_settings;
use crate::progress::ProgressPhase;
use crate::sizes::Sizes;
use crate::tasks::Tasks;
use crate::work::{PromptJob, WorkPlan};

/// Devices that connect at a time: a thousand handshakes at once would only time each other out.
const WAVE: usize = 64;

/// Events that may wait to be dispatched; a device whose event waits has nothing else to do.
const EVENTS: usize = 1024;

/// How long a device may take to be ready after the one before it. A pool that has a place answers within milliseconds, so what
/// takes longer is something that the user has to know of.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this the user is told what is waited for.
    pub say_after: Duration,
    /// After this the run ends.
    pub end_after: Duration,
}

impl Patience {
    /// That of a run.
    pub const OF_A_RUN: Patience = Patience { say_after: Duration::from_secs(10), end_after: Duration::from_secs(60) };
}

/// What all fleets of a run share.
pub struct FleetContext {
    pub pair: Pair,
    /// Where drafts are computed.
    pub drafter: Drafter,
    /// The way to the pool.
    pub connector: Connector,
    pub timer: Timer,
    /// The host's clock, which starts with the run.
    pub clock: HostClock,
    /// What lets its devices into the pool.
    pub admission: AdmissionToken,
    /// How long its devices may take to get there.
    pub patience: Patience,
}

/// What a device reports to the dispatcher; `at` by the device's clock, where that is not the host's.
struct Happened {
    at: Option<Time>,
    event: DispatchEvent,
}

/// One method's turn in a pass.
pub struct Turn<'a> {
    /// The scenario, with the seed of the pass.
    pub settings: &'a Settings,
    /// Whose turn it is.
    pub phase: PhaseId,
    pub method: &'a Method,
    pub work: &'a WorkPlan,
    /// Where the devices report.
    pub events: mpsc::Sender<DeviceEvent>,
}

impl<'a> Turn<'a> {
    /// Starts the devices that are there from the beginning and waits until every one is ready. Only devices that have
    /// something to do are started.
    pub async fn assemble(self, shared: &'a FleetContext) -> Result<LiveFleet<'a>, Error> {
        let sizes = Sizes::of_pair(self.settings, &shared.pair);
        let parts = device_settings(self.settings, &sizes, self.method);
        let count = self.settings.run.devices;
        let tasks = Tasks(self.settings.assignment());
        let churn = self.settings.churn;
        let mut fleet = LiveFleet { shared, turn: self, parts, tasks, devices: BTreeMap::new() };
        let present: Vec<DeviceId> = (0..count)
            .map(DeviceId)
            .filter(|&device| fleet.tasks.nth(device, 0).is_some() && churn.joins(device, count) == Time::ZERO)
            .collect();
        for wave in present.chunks(WAVE) {
            let started = wave.iter().map(|&device| fleet.switch_on(device)).collect::<Result<Vec<_>, Error>>()?;
            for (&number, device) in wave.iter().zip(started) {
                let asked = device.send(Ready);
                reach_pool(device, asked, fleet.waiting(number)).await?;
            }
        }
        Ok(fleet)
    }

    /// The whole turn.
    pub async fn run(self, shared: &'a FleetContext, progress: ProgressPhase) -> Result<(), Error> {
        let mut fleet = self.assemble(shared).await?;
        let start = fleet.now();
        let outcome = fleet.serve(start, progress).await;
        fleet.dismiss().await;
        outcome.map(drop)
    }
}

/// The devices of one method's phase.
pub struct LiveFleet<'a> {
    shared: &'a FleetContext,
    turn: Turn<'a>,
    /// What each part of the fleet runs under.
    parts: Vec<Arc<DeviceSettings>>,
    tasks: Tasks,
    /// Those that have been switched on.
    devices: BTreeMap<DeviceId, Addr<Device>>,
}

impl<'a> LiveFleet<'a> {
    /// Sends the jobs through the fleet from `start` on, as the load says; ends when all are done, or with the first failure.
    /// Returns when the last that a device has sent has arrived, by the clock of the devices. [`LiveFleet::dismiss`] comes after.
    pub async fn serve(&mut self, start: Time, progress: ProgressPhase) -> Result<Time, Error> {
        let settings = self.turn.settings;
        let phase = load::DispatchPhase {
            load: &settings.load,
            churn: settings.churn,
            seed: settings.run.seed,
            devices: settings.run.devices,
            start,
        };
        let mut last = start;
        let mut dispatch = Dispatch::new(phase, self.tasks.clone(), DispatchShard::WHOLE);
        // A device reports once that it is ready, and once per generation; neither is lost where nobody listens.
        let (tell, mut happened) = mpsc::channel(EVENTS);
        let mut orders = Vec::new();
        while !dispatch.is_done() {
            // After a standstill it comes too early, and is set again. A time beyond what the clock can tell never comes.
            let wake = dispatch.poll_timeout().and_then(|at| self.shared.clock.instant(at));
            let Happened { at, event } = tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {
                    Happened { at: None, event: DispatchEvent::Timeout }
                }
                Some(happened) = happened.recv() => happened?,
            };
            if let DispatchEvent::Finished { device, .. } = event {
                progress.tick();
                let way = self.part(device).link.propagation();
                last = last.max(at.unwrap_or_else(|| self.now()) + way);
            }
            dispatch.handle(at.unwrap_or_else(|| self.now()), event, &mut orders);
            for order in orders.drain(..) {
                self.carry_out(order, start, &tell).await?;
            }
        }
        progress.finish();
        Ok(last)
    }

    /// `start`: of the phase.
    async fn carry_out(
        &mut self,
        order: DispatchOrder,
        start: Time,
        tell: &mpsc::Sender<Result<Happened, Error>>,
    ) -> Result<(), Error> {
        let tell = tell.clone();
        match order {
            DispatchOrder::Join(number) => {
                // One that was assembled has been ready since before the phase began.
                let at = self.on_own_clock(number, start).filter(|_| self.devices.contains_key(&number));
                // Sent now, not when the task below runs: no later message may overtake it.
                let device = self.switch_on(number)?;
                let (asked, waiting) = (device.send(Ready), self.waiting(number));
                actix::spawn(async move {
                    let event = match reach_pool(device, asked, waiting).await {
                        Ok(()) => Ok(Happened { at, event: DispatchEvent::Ready(number) }),
                        // It was told to leave before it was ready.
                        Err(Error::Agent { source: AgentError::Left, .. }) => return,
                        Err(error) => Err(error),
                    };
                    // Nobody listens to a phase that has failed.
                    let _ = tell.send(event).await;
                });
            }
            DispatchOrder::Start { device: number, job, scheduled } => {
                let Some(device) = self.devices.get(&number).cloned() else { return Ok(()) };
                let (generation, job) = (self.generation(job), self.job(job));
                let (data_set, prompt) = (job.data_set, job.tokens.clone());
                let message = Generate { generation, data_set, prompt, scheduled: Some(scheduled) };
                let asked = device.send(message);
                let emulated = self.on_own_clock(number, start).is_some();
                actix::spawn(async move {
                    let ended = generate(asked, number).await.map(|(finish, at)| Happened {
                        at: at.filter(|_| emulated),
                        event: DispatchEvent::Finished { device: number, finish },
                    });
                    let _ = tell.send(ended).await;
                });
            }
            DispatchOrder::Drop { device, job: number, scheduled } => {
                let job = self.job(number);
                let (id, prompt_tokens) = (self.generation(number), job.tokens.len() as u32);
                let settings = &self.parts[self.turn.settings.device.part_index(device)];
                let record = GenerationRecord::dropped(id, device, job.data_set, prompt_tokens, scheduled, settings);
                let event = DeviceEvent::Finished(Box::new(record));
                self.turn.events.send(event).await.map_err(|_| Error::Stopped("the recorder"))?;
            }
            DispatchOrder::Leave(device) => {
                if let Some(device) = self.devices.get(&device) {
                    // It may have left by itself.
                    let _ = device.send(Leave).await;
                }
            }
        }
        Ok(())
    }

    /// The same time where the device does not go by the host's clock.
    fn on_own_clock(&self, device: DeviceId, at: Time) -> Option<Time> {
        self.part(device).is_emulated().then_some(at)
    }

    fn part(&self, device: DeviceId) -> &DeviceSettings {
        &self.parts[self.turn.settings.device.part_index(device)]
    }

    /// The device's actor, started if it was not yet.
    fn switch_on(&mut self, number: DeviceId) -> Result<Addr<Device>, Error> {
        if let Some(device) = self.devices.get(&number) {
            return Ok(device.clone());
        }
        let shared = self.shared;
        let options = AgentOptions {
            device: number,
            settings: self.parts[self.turn.settings.device.part_index(number)].clone(),
            drafter: shared.drafter.clone(),
            connector: shared.connector.clone(),
            timer: shared.timer.clone(),
            tokenizer_digest: shared.pair.tokenizer.digest(),
            events: self.turn.events.clone(),
            clock: shared.clock.clone(),
            shares_clock: self.turn.settings.has_emulated_fleet(),
            admission: shared.admission,
            in_a_row: self.in_a_row(number),
            journal: None,
        };
        let device = Device::start(options).map_err(|source| Error::Agent { device: number.0, source })?;
        self.devices.insert(number, device.clone());
        Ok(device)
    }

    /// How the device is waited for. Outages of an emulated link last as long as the scenario says, so they end no run.
    fn waiting(&self, number: DeviceId) -> WaitingDevice {
        WaitingDevice { number, patience: self.shared.patience, for_ever: self.part(number).outages.is_some() }
    }

    /// How many jobs the device does one after another.
    fn in_a_row(&self, device: DeviceId) -> u32 {
        let without_pause = matches!(&self.turn.settings.load, Load::Closed { think } if *think == Span::ZERO);
        let jobs = (0..).take_while(|&n| self.tasks.nth(device, n).is_some()).filter(|_| without_pause);
        // A device has fewer jobs than there are numbers for them.
        jobs.count() as u32
    }

    fn job(&self, number: u64) -> &'a PromptJob {
        &self.turn.work.jobs[number as usize]
    }

    fn generation(&self, number: u64) -> GenerationId {
        let PromptJob { prompt_id, repetition, .. } = *self.job(number);
        let PhaseId { method, pass } = self.turn.phase;
        GenerationId { method, prompt: prompt_id, repetition, pass }
    }

    /// Time since the start of the run, by the host's clock.
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// Lets the devices go.
    pub async fn dismiss(self) {
        for device in self.devices.values() {
            let _ = device.send(Leave).await;
        }
        self.shared.connector.drain().await;
    }
}

/// A device that is waited for.
struct WaitingDevice {
    number: DeviceId,
    patience: Patience,
    /// Whether it may take as long as it likes.
    for_ever: bool,
}

/// Waits until the device is ready, and says after a while what it is that it waits for.
async fn reach_pool(device: Addr<Device>, asked: Request<Device, Ready>, waiting: WaitingDevice) -> Result<(), Error> {
    let WaitingDevice { number, patience: Patience { say_after, end_after }, for_ever } = waiting;
    let mut reached = pin!(ready(asked, number));
    if let Ok(outcome) = timeout(say_after, &mut reached).await {
        return outcome;
    }
    specfleet_logs::say!("waiting for device {} to reach the pool: {}", number.0, obstacle(&device).await);
    if for_ever {
        return reached.await;
    }
    match timeout(end_after.saturating_sub(say_after), reached).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let why = obstacle(&device).await;
            Err(Error::Unreachable { device: number.0, seconds: end_after.as_secs_f64(), why })
        }
    }
}

/// What keeps the device from the pool.
async fn obstacle(device: &Addr<Device>) -> String {
    let last = device.send(LastLinkError).await.ok().flatten();
    last.map_or("it has had no answer yet".to_owned(), |error| error.to_string())
}

async fn ready(asked: Request<Device, Ready>, number: DeviceId) -> Result<(), Error> {
    let ready = asked.await.map_err(|_| Error::Stopped("a device"))?;
    ready.map_err(|source| Error::Agent { device: number.0, source })
}

/// How the generation ended, and when by the clock of its device.
async fn generate(asked: Request<Device, Generate>, number: DeviceId) -> Result<(FinishReason, Option<Time>), Error> {
    let DeviceId(device_number) = number;
    let answered = asked.await.map_err(|_| Error::Stopped("a device"))?;
    match answered {
        Ok(record) => Ok((record.finish, Some(record.ended))),
        // `on_unreachable = fail` and a full arena end a generation, and its record says so; anything else is an error.
        Err(AgentError::Refused(_)) => Ok((FinishReason::Failed, None)),
        Err(source) if is_out_of_memory(&source) => Err(Error::DrafterMemory { device: device_number, source }),
        Err(source) => Err(Error::Agent { device: device_number, source }),
    }
}

fn is_out_of_memory(error: &AgentError) -> bool {
    matches!(error, AgentError::Draft(DraftError::Model(model)) if matches!(**model, ModelError::BudgetExceeded { .. }))
}
