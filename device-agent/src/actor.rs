//! The device actor: turns each message into one call of the machine and carries out what the machine asks for.

mod link;
mod outbox;
mod requests;

use std::collections::VecDeque;

use actix::prelude::*;
use specfleet_engine::device::{DeviceClock, DeviceMachine, Due, Input, NextTurn, Output, Step, UploadPlan};
use specfleet_engine::id::DeviceId;
use specfleet_engine::record::{FinishReason, GenerationRecord};
use specfleet_engine::time::Time;
use specfleet_engine::wire::{ClientFrame, ClockReading, Hello, PROTOCOL_VERSION, VerifierIdentity};
use specfleet_timer::{HostClock, Timer};
use tokio::sync::{mpsc, oneshot};

use self::outbox::Report;
use crate::connection::FrameSender;
use crate::connector::Connector;
use crate::drafter::{Drafter, Sequence};
use crate::drafting::Draft;
use crate::error::{AgentError, DraftError, LinkError};
use crate::message::DeviceEvent;
use crate::options::{AgentOptions, DeviceCall, DeviceJournal};
use crate::rounds::RoundSpan;
use crate::store::Store;

/// What no promise is: each is later.
const NO_PROMISE: Time = Time::ZERO;

/// One device: its machine, its session store and its connection.
pub struct Device {
    device: DeviceId,
    machine: DeviceMachine,
    clock: DeviceClock,
    shares_clock: bool,
    in_a_row: u32,
    /// What the pool was last told of when something arrives.
    promised: Time,
    drafter: Drafter,
    connector: Connector,
    timer: Timer,
    hello: Hello,
    host_clock: HostClock,
    /// The running generation's tokens and drafts.
    store: Option<Store<Sequence>>,
    /// Who waits for the running generation.
    caller: Option<oneshot::Sender<Result<GenerationRecord, AgentError>>>,
    /// What failed in it.
    failure: Option<AgentError>,
    /// The upload last sent, which a verdict's position is counted from.
    plan: Option<UploadPlan>,
    /// The round under way, for the log.
    round: RoundSpan,
    link: Option<Link>,
    /// Attempts to connect are numbered, and hanging up counts as one, so that what an earlier one still delivers is told
    /// apart.
    attempt: u32,
    last_link_error: Option<LinkError>,
    /// The pool's verifier, as it said when it was last connected to.
    verifier: Option<VerifierIdentity>,
    /// The one that the running generation was begun with: the first that it sent an upload to.
    begun_with: Option<VerifierIdentity>,
    /// Why no generation can be run any more.
    fatal: Option<AgentError>,
    /// The machine is done for good: the actor stops when everything is handed over.
    gone: bool,
    ready: bool,
    wait_until_ready: Vec<oneshot::Sender<Result<(), AgentError>>>,
    /// Inputs that carrying out outputs has brought about.
    inbox: VecDeque<Input>,
    outputs: Vec<Output>,
    /// Verdicts and refusals on their way through the emulated downlink, in the order of their arrival.
    downlink: VecDeque<(Time, Input)>,
    alarm: Option<(Time, SpawnHandle)>,
    events: mpsc::Sender<DeviceEvent>,
    /// Reports and answers that are due, in order.
    outbox: VecDeque<Report>,
    /// A report waits for room in `events`; those behind it must not overtake it.
    full: bool,
    journal: Option<DeviceJournal>,
}

/// A connection in use.
struct Link {
    number: u32,
    outgoing: FrameSender,
    listening: SpawnHandle,
}

impl Device {
    /// Starts a device on the current arbiter; it connects at once if its method ever uploads. It lives until it is told
    /// to [`Leave`] or its arbiter stops: dropping its address does not end an open connection.
    pub fn start(options: AgentOptions) -> Result<Addr<Device>, AgentError> {
        let AgentOptions {
            device,
            settings,
            drafter,
            connector,
            timer,
            tokenizer_digest,
            admission,
            events,
            clock,
            shares_clock,
            in_a_row,
            journal,
        } = options;
        let hello = Hello { protocol: PROTOCOL_VERSION, tokenizer: tokenizer_digest, vocab: settings.vocab, admission };
        let machine = DeviceMachine::new(device, settings)?;
        let device = Device {
            device,
            clock: DeviceClock::new(&machine),
            shares_clock,
            in_a_row,
            promised: NO_PROMISE,
            machine,
            drafter,
            connector,
            timer,
            hello,
            host_clock: clock,
            store: None,
            caller: None,
            failure: None,
            plan: None,
            round: RoundSpan::default(),
            link: None,
            attempt: 0,
            last_link_error: None,
            verifier: None,
            begun_with: None,
            fatal: None,
            gone: false,
            ready: false,
            wait_until_ready: Vec::new(),
            inbox: VecDeque::new(),
            outputs: Vec::new(),
            downlink: VecDeque::new(),
            alarm: None,
            events,
            outbox: VecDeque::new(),
            full: false,
            journal,
        };
        Ok(Actor::start(device))
    }

    /// Time since the start of the run, by the host's clock.
    fn host(&self) -> Time {
        self.host_clock.now()
    }

    /// A time of the device's clock, for a pool that goes by the same one.
    fn reading(&self, at: Time) -> Option<ClockReading> {
        (self.shares_clock && self.machine.settings().is_emulated()).then(|| at.into())
    }

    // ---- the one way in ----------------------------------------------------------------------------------------

    /// Something has happened at `at` by the device's clock: tells the machine, and then of all that is due.
    fn tell(&mut self, at: Time, input: Input, ctx: &mut Context<Self>) {
        self.feed(at, input, ctx);
        self.wake(ctx);
    }

    /// Tells the machine what happened and carries out what it asks for, in order.
    fn feed(&mut self, at: Time, input: Input, ctx: &mut Context<Self>) {
        self.inbox.push_back(input);
        while let Some(input) = self.inbox.pop_front() {
            let mut outputs = std::mem::take(&mut self.outputs);
            match &self.journal {
                None => self.machine.handle(at, input, &mut outputs),
                Some(journal) => {
                    self.machine.handle(at, input.clone(), &mut outputs);
                    journal(self.device, at, DeviceCall::Handle { input: &input, outputs: &outputs });
                }
            }
            for output in outputs.drain(..) {
                self.carry_out(output, ctx);
            }
            self.outputs = outputs;
        }
        self.hand_over(ctx);
    }

    /// Something has happened that is not emulated.
    fn happened(&mut self, input: Input, ctx: &mut Context<Self>) {
        let at = self.clock.happened(self.host());
        self.tell(at, input, ctx);
    }

    fn carry_out(&mut self, output: Output, ctx: &mut Context<Self>) {
        match output {
            Output::Connect => self.connect(ctx),
            Output::Ready => {
                self.ready = true;
                for waiting in self.wait_until_ready.drain(..) {
                    let _ = waiting.send(Ok(()));
                }
            }
            Output::Step(step) => self.step(step, ctx),
            Output::Set { position, token } => {
                if let Some(store) = &mut self.store {
                    store.set(position, token);
                }
            }
            Output::Upload(plan) => self.upload(plan, ctx),
            Output::Cancel(upload) => {
                self.round.cancelled(upload);
                let at = self.reading(self.clock.arrival(&self.machine));
                self.send(&ClientFrame::Cancel { session: self.machine.session(), upload, at }, ctx);
            }
            Output::Record(record) => {
                if let Some(store) = &mut self.store {
                    store.commit(record.position);
                    let (generation, device) = (store.generation, self.device);
                    self.round.committed(device, &self.machine.settings().method.name, generation, &record);
                    self.outbox.push_back(Report::Event(DeviceEvent::Round { generation, device, record }));
                }
            }
            Output::Finished(record) => self.finish(*record, ctx),
            Output::HangUp => self.hang_up(LinkError::Outage, ctx),
            Output::Gone => self.gone = true,
        }
    }

    // ---- drafting ----------------------------------------------------------------------------------------------

    fn step(&mut self, step: Step, ctx: &mut Context<Self>) {
        let Some(store) = &self.store else { return };
        let (drafter, job) = (self.drafter.clone(), store.job(&step));
        let answer = async move { drafter.step(job).await };
        ctx.spawn(answer.into_actor(self).map(move |draft, device, ctx| device.drafted(&step, draft, ctx)));
    }

    fn drafted(&mut self, step: &Step, draft: Result<Draft, DraftError>, ctx: &mut Context<Self>) {
        let Some(store) = self.store.as_mut().filter(|store| store.generation == step.generation) else { return };
        match draft {
            Ok(draft) => {
                let input = Input::StepDone(store.drafted(step, draft));
                let at = self.clock.step_done(self.host());
                self.tell(at, input, ctx);
            }
            Err(error) => {
                self.failure = Some(error.into());
                self.happened(Input::StepFailed, ctx);
            }
        }
    }

    fn finish(&mut self, mut record: GenerationRecord, ctx: &mut Context<Self>) {
        // Dropping the store frees the drafter's cache.
        if let Some(store) = self.store.take() {
            record.tokens = store.generated();
        }
        record.times.waiting_overrun = self.clock.take_overrun();
        self.plan = None;
        self.begun_with = None;
        self.round = RoundSpan::default();
        let at = self.reading(self.clock.arrival(&self.machine));
        self.send(&ClientFrame::Close { session: self.machine.session(), at }, ctx);
        // A refusal that came too late for the machine to mind is no failure.
        let failure = self.failure.take().filter(|_| record.finish == FinishReason::Failed);
        let answer = match failure {
            Some(failure) => Err(failure),
            None => Ok(record.clone()),
        };
        self.outbox.push_back(Report::Event(DeviceEvent::Finished(Box::new(record))));
        if let Some(caller) = self.caller.take() {
            self.outbox.push_back(Report::Answer(caller, answer));
        }
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// What comes first: the machine's timeout or the next frame's arrival.
    fn next(&self) -> NextTurn {
        let arrival = self.downlink.front().map(|(at, _)| *at);
        self.clock.next(&self.machine, arrival, self.host())
    }

    /// Tells the machine of everything whose time has come, and sets the one alarm to what comes then.
    fn wake(&mut self, ctx: &mut Context<Self>) {
        let next = loop {
            match self.next() {
                NextTurn::Now(at, due) => {
                    let input = match due {
                        Due::Timeout => Some(Input::Timeout),
                        Due::Arrival => self.downlink.pop_front().map(|(_, input)| input),
                    };
                    let at = self.clock.turn(at, self.host());
                    if let Some(input) = input {
                        self.feed(at, input, ctx);
                    }
                }
                NextTurn::At(at) => break Some(at),
                NextTurn::Nothing => break None,
            }
        };
        self.set_alarm(next, ctx);
        self.promise();
    }

    /// Tells a pool on the same clock until when nothing arrives.
    fn promise(&mut self) {
        let Some(link) = self.link.as_ref().filter(|_| self.reading(Time::ZERO).is_some()) else { return };
        let is_last = |input: &Input| !matches!(input, Input::Verdict(verdict) if verdict.more);
        let answered = self.downlink.iter().rev().find(|(_, input)| is_last(input)).map(|(at, _)| *at);
        let Some(until) = self.clock.promise(&self.machine, answered, self.in_a_row > 0) else { return };
        if until != self.promised {
            let after_answer = self.machine.settings().link.round_trip;
            let frame = ClientFrame::Promise { device: self.device, until: until.into(), after_answer };
            let sent = link.outgoing.send_spare(&frame);
            self.promised = if sent { until } else { NO_PROMISE };
        }
    }

    fn set_alarm(&mut self, next: Option<Time>, ctx: &mut Context<Self>) {
        if next == self.alarm.map(|(at, _)| at) {
            return;
        }
        if let Some((_, handle)) = self.alarm.take() {
            ctx.cancel_future(handle);
        }
        // A time beyond what the clock can tell never comes. One that rings too early, after a standstill, is set again.
        let Some((at, instant)) = next.and_then(|at| Some((at, self.host_clock.instant(at)?))) else { return };
        let alarm = self.timer.at(instant).into_actor(self).map(|(), device, ctx| {
            device.alarm = None;
            device.wake(ctx);
        });
        self.alarm = Some((at, ctx.spawn(alarm)));
    }
}

impl Actor for Device {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.happened(Input::Join, ctx);
    }
}
