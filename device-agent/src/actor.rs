//! The device actor: turns each message into one call of the machine and carries out what the machine asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::prelude::*;
use specfleet_engine::acceptance::Next;
use specfleet_engine::device::payload::{downlink_bits, token_bits};
use specfleet_engine::device::{
    DeviceClock, DeviceMachine, DeviceSettings, Due, Input, NextToken, NextTurn, Output, Refusal, Start, Step,
    UploadPlan, Verdict,
};
use specfleet_engine::id::{DeviceId, GenerationId, UploadId};
use specfleet_engine::record::{FinishReason, GenerationRecord, RoundRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::{
    AdmissionToken, ClientFrame, ClockReading, Hello, PROTOCOL_VERSION, ServerFrame, VerdictFrame, VerifierIdentity,
};
use specfleet_timer::{HostClock, Timer};
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Connection, Incoming, Outgoing};
use crate::connector::Connector;
use crate::drafter::{Drafter, Sequence};
use crate::drafting::Draft;
use crate::error::{AgentError, DraftError, LinkError};
use crate::rounds::{self, RoundSpan};
use crate::store::Store;

/// What no promise is: each is later.
const NO_PROMISE: Time = Time::ZERO;

/// What a device is made of.
#[derive(Clone)]
pub struct AgentOptions {
    /// Its number.
    pub device: DeviceId,
    /// What its machine runs under.
    pub settings: Arc<DeviceSettings>,
    /// Where its drafts are computed.
    pub drafter: Drafter,
    /// Its way to the pool.
    pub connector: Connector,
    /// What wakes it.
    pub timer: Timer,
    /// Digest of the pair's tokenizer; the pool refuses another one's.
    pub tokenizer_digest: [u8; 32],
    /// What lets it into the pool of a run.
    pub admission: AdmissionToken,
    /// Where its records go. When it is full, the device waits.
    pub events: mpsc::Sender<DeviceEvent>,
    /// The host's clock, which starts with the run.
    pub clock: HostClock,
    /// Whether the pool's times are of that clock too. An emulated device then tells it when things arrive.
    pub shares_clock: bool,
    /// How many generations it is given one after another, the first as soon as it is ready; 0 where that is not known.
    pub in_a_row: u32,
    /// Sees every call of the machine, for replaying a live run; `None` outside tests.
    pub journal: Option<Journal>,
}

/// Is shown every call of a device's machine, on the device's own thread.
pub type Journal = Arc<dyn Fn(DeviceId, Time, Call<'_>) + Send + Sync>;

/// A call of the machine and what it led to.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// [`DeviceMachine::handle`].
    Handle {
        /// What happened.
        input: &'a Input,
        /// What the machine asked for.
        outputs: &'a [Output],
    },
    /// [`DeviceMachine::left_pool`] and [`DeviceMachine::receive`].
    Receive {
        /// What the frame answers.
        upload: UploadId,
        /// How long that was in the pool.
        pool: Span,
        /// Nominal bits of the frame.
        bits: u64,
        /// When the machine wants it handed over.
        arrives: Time,
    },
}

/// What a device reports.
#[derive(Clone, Debug)]
pub enum DeviceEvent {
    /// A token is committed.
    Round {
        /// In which generation.
        generation: GenerationId,
        /// On which device.
        device: DeviceId,
        /// What it was and what it cost.
        record: RoundRecord,
    },
    /// A generation is over; its tokens are filled in. Its rounds have all been reported before.
    Finished(Box<GenerationRecord>),
}

/// Resolves when the device can start its first generation: connected, if its method ever uploads. The error is one that
/// trying again does not help against; until then the device keeps trying.
#[derive(Message)]
#[rtype(result = "Result<(), AgentError>")]
pub struct Ready;

/// Run a generation; resolves when it is over and its records are handed over. The error is a failure of this program or
/// of the pair; a generation that ends as its settings say (`on_unreachable = fail` included) is a record.
#[derive(Message)]
#[rtype(result = "Result<GenerationRecord, AgentError>")]
pub struct Generate {
    /// Which one; its `method` is the index of the settings' method in the run.
    pub generation: GenerationId,
    /// Index into the run's list of data sets.
    pub data_set: u16,
    /// The prompt's tokens.
    pub prompt: Arc<[u32]>,
    /// When it was due; `None`: now.
    pub scheduled: Option<Time>,
}

/// Close the connection at once, whatever is under way: the fault that tests and scenarios inject. The device connects
/// again as after any other loss.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CutConnection;

/// Why the last connection ended, or could not be made: what to tell a user who waits.
#[derive(Message)]
#[rtype(result = "Option<LinkError>")]
pub struct LastLinkError;

/// Which verifier the pool said that it has, when it was last connected to.
#[derive(Message)]
#[rtype(result = "Option<VerifierIdentity>")]
pub struct PoolVerifier;

/// End gracefully. A generation under way ends as `left`, and its record says so.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Leave;

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
    journal: Option<Journal>,
}

/// A connection in use.
struct Link {
    number: u32,
    outgoing: Outgoing,
    listening: SpawnHandle,
}

/// What leaves the actor through [`Device::outbox`].
enum Report {
    Event(DeviceEvent),
    Answer(oneshot::Sender<Result<GenerationRecord, AgentError>>, Result<GenerationRecord, AgentError>),
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
                    journal(self.device, at, Call::Handle { input: &input, outputs: &outputs });
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

    // ---- the connection ----------------------------------------------------------------------------------------

    fn connect(&mut self, ctx: &mut Context<Self>) {
        if self.fatal.is_some() {
            return;
        }
        let (connector, device, hello) = (self.connector.clone(), self.device, self.hello.clone());
        self.attempt += 1;
        let number = self.attempt;
        let attempt = async move { connector.connect(device, hello).await };
        ctx.spawn(attempt.into_actor(self).map(move |result, device, ctx| match result {
            // The machine has hung up meanwhile and hears nothing of it.
            Ok(connection) if device.attempt != number => connection.outgoing.cut(),
            Err(_) if device.attempt != number => {}
            Ok(connection) => device.connected(connection, ctx),
            Err(error) => device.lost(error, ctx),
        }));
    }

    fn connected(&mut self, connection: Connection, ctx: &mut Context<Self>) {
        let Connection { verifier, outgoing, incoming } = connection;
        if let Some(change) = self.begun_with.as_ref().and_then(|before| before.change_to(&verifier)) {
            outgoing.cut();
            return self.lost(LinkError::OtherVerifier(change), ctx);
        }
        self.verifier = Some(verifier);
        let number = self.attempt;
        let listening = self.listen(number, incoming, ctx);
        self.link = Some(Link { number, outgoing, listening });
        self.promised = NO_PROMISE;
        self.last_link_error = None;
        rounds::connected(self.device, number);
        self.happened(Input::Connected, ctx);
    }

    /// The connection, or the attempt to make one, has ended.
    fn lost(&mut self, error: LinkError, ctx: &mut Context<Self>) {
        self.hang_up(error, ctx);
        self.happened(Input::Disconnected, ctx);
    }

    /// Ends the connection, or the attempt to make one, without a word to the machine.
    fn hang_up(&mut self, error: LinkError, ctx: &mut Context<Self>) {
        self.attempt += 1;
        if let Some(link) = self.link.take() {
            ctx.cancel_future(link.listening);
            link.outgoing.cut();
        }
        rounds::lost(self.device, self.attempt - 1, &error);
        // What was still in the downlink is lost with it.
        self.downlink.clear();
        if error.is_final() {
            self.give_up(AgentError::Link(error.clone()));
        }
        self.last_link_error = Some(error);
    }

    /// Tells everybody who waits that it is in vain.
    fn give_up(&mut self, error: AgentError) {
        for waiting in self.wait_until_ready.drain(..) {
            let _ = waiting.send(Err(error.clone()));
        }
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(Err(error.clone()));
        }
        self.fatal = Some(error);
    }

    /// Waits for the next frame of the connection with this number.
    fn listen(&mut self, number: u32, mut incoming: Incoming, ctx: &mut Context<Self>) -> SpawnHandle {
        let next = async move { (incoming.next().await, incoming) };
        ctx.spawn(next.into_actor(self).map(move |(heard, incoming), device, ctx| {
            if device.link.as_ref().is_none_or(|link| link.number != number) {
                return;
            }
            match heard {
                Ok((frame, bytes)) => {
                    let listening = device.listen(number, incoming, ctx);
                    if let Some(link) = &mut device.link {
                        link.listening = listening;
                    }
                    device.heard(frame, bytes, ctx);
                }
                Err(error) => device.lost(error, ctx),
            }
        }))
    }

    fn heard(&mut self, frame: ServerFrame, bytes: usize, ctx: &mut Context<Self>) {
        match frame {
            ServerFrame::Verdict(verdict) if verdict.session == self.machine.session() => {
                self.verdict(*verdict, bytes, ctx);
            }
            ServerFrame::Refused { session, upload, reason, retry_after, price }
                if session == self.machine.session() =>
            {
                if reason.is_final() && self.plan.is_some_and(|plan| plan.upload == upload) {
                    self.failure = Some(AgentError::Refused(reason));
                }
                self.round.refused(upload, reason, retry_after);
                // It goes down like a verdict of one token number.
                let bits = token_bits(self.machine.settings().vocab as usize);
                let (arrives, downlink) = self.receive(upload, Span::ZERO, bits);
                let refusal = Refusal { upload, reason, retry_after, price, downlink };
                self.downlink.push_back((arrives, Input::Refused(refusal)));
                self.wake(ctx);
            }
            // Too late: of a generation that is over.
            ServerFrame::Verdict(_) | ServerFrame::Refused { .. } => {}
            ServerFrame::Goodbye(goodbye) => self.lost(LinkError::Goodbye(goodbye), ctx),
            ServerFrame::Welcome(_) => self.lost(LinkError::Protocol("it welcomes twice"), ctx),
        }
    }

    /// A verdict's first bit has arrived: sends it through the emulated downlink.
    fn verdict(&mut self, frame: VerdictFrame, bytes: usize, ctx: &mut Context<Self>) {
        let resample = matches!(frame.next, Next::Resample(_));
        let Some(next) = self.next_token(&frame) else {
            self.lost(LinkError::Protocol("its verdict does not fit the upload"), ctx);
            return;
        };
        self.round.verdict(&frame, bytes);
        let settings = self.machine.settings();
        let bits = downlink_bits(&settings.method.payload, settings.vocab as usize, resample);
        let (arrives, downlink) = self.receive(frame.upload, frame.cost.pool_time(), bits);
        let verdict = Verdict {
            upload: frame.upload,
            accepted: frame.accepted,
            next,
            more: frame.more,
            cost: frame.cost,
            price: frame.price,
            // The limit on frames lies far below the largest `u32`.
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            downlink,
        };
        self.downlink.push_back((arrives, Input::Verdict(verdict)));
        self.wake(ctx);
    }

    /// A frame's first bit has arrived: when its last one has, and how long that takes.
    fn receive(&mut self, upload: UploadId, pool: Span, bits: u64) -> (Time, Span) {
        let now = self.host();
        self.clock.heard(now);
        let left = self.machine.left_pool(now, upload, pool);
        let (arrives, downlink) = self.machine.receive(left, bits);
        if let Some(journal) = &self.journal {
            journal(self.device, now, Call::Receive { upload, pool, bits, arrives });
        }
        (arrives, downlink)
    }

    /// What follows the accepted drafts; `None` if the frame asks for a draw from a law of another vocabulary.
    fn next_token(&self, frame: &VerdictFrame) -> Option<NextToken> {
        match &frame.next {
            Next::None => Some(NextToken::None),
            Next::Replacement(token) => Some(NextToken::Replacement(*token)),
            Next::Bonus(token) => Some(NextToken::Bonus(*token)),
            Next::Resample(y) => match self.plan.filter(|plan| plan.upload == frame.upload) {
                Some(plan) => {
                    let rejected = plan.committed + u32::from(frame.accepted);
                    let token = self.store.as_ref()?.resample(rejected, plan.epoch, y)?;
                    Some(NextToken::Resampled(token))
                }
                // Of an upload that is no longer under way: the machine drops it, whatever it says.
                None => Some(NextToken::None),
            },
        }
    }

    fn upload(&mut self, plan: UploadPlan, ctx: &mut Context<Self>) {
        self.plan = Some(plan);
        let now = self.clock.now();
        let arrives = self.reading(now);
        let patience = plan.deadline.since(now);
        let wanted = plan.wanted.map(|wanted| wanted.since(now));
        let upload = self.store.as_ref().and_then(|store| store.upload(&plan, patience, wanted, arrives));
        let Some(upload) = upload else { return };
        if let Some(bytes) = self.send(&ClientFrame::Upload(Box::new(upload)), ctx) {
            if let Some(store) = &self.store {
                let method = &self.machine.settings().method.name;
                self.round.uploaded(self.device, method, store.prompt_tokens(), &plan, bytes);
            }
            if self.begun_with.is_none() {
                self.begun_with = self.verifier.clone();
            }
            // It promises nothing until it is answered.
            self.promised = NO_PROMISE;
            self.inbox.push_back(Input::Sent { upload: plan.upload, bytes });
        }
    }

    /// Queues a frame for the pool, if there is a connection; one that takes no frames has ended.
    fn send(&mut self, frame: &ClientFrame, ctx: &mut Context<Self>) -> Option<u32> {
        match self.link.as_ref()?.outgoing.send(frame) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.hang_up(error, ctx);
                self.inbox.push_back(Input::Disconnected);
                None
            }
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

    // ---- the one way out ---------------------------------------------------------------------------------------

    /// Hands reports over, in order. When the queue is full, the whole device waits: nothing is dropped or parked.
    fn hand_over(&mut self, ctx: &mut Context<Self>) {
        while !self.full
            && let Some(report) = self.outbox.pop_front()
        {
            match report {
                Report::Answer(caller, answer) => {
                    let _ = caller.send(answer);
                }
                Report::Event(event) => {
                    // A receiver that has gone wants no reports.
                    if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                        self.full = true;
                        let events = self.events.clone();
                        let room = async move {
                            let _ = events.send(event).await;
                        };
                        ctx.wait(room.into_actor(self).map(|(), device, ctx| {
                            device.full = false;
                            device.hand_over(ctx);
                        }));
                    }
                }
            }
        }
        if self.gone && !self.full {
            self.give_up(AgentError::Left);
            // Dropping the link ends the connection once everything queued has gone out.
            self.link = None;
            ctx.stop();
        }
    }
}

impl Actor for Device {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.happened(Input::Join, ctx);
    }
}

impl Handler<Ready> for Device {
    type Result = ResponseFuture<Result<(), AgentError>>;

    fn handle(&mut self, _: Ready, _: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        match (&self.fatal, self.ready) {
            (Some(fatal), _) => drop(answer.send(Err(fatal.clone()))),
            (None, true) => drop(answer.send(Ok(()))),
            (None, false) => self.wait_until_ready.push(answer),
        }
        Box::pin(async { answered.await.unwrap_or(Err(AgentError::Left)) })
    }
}

impl Handler<Generate> for Device {
    type Result = ResponseFuture<Result<GenerationRecord, AgentError>>;

    fn handle(&mut self, generate: Generate, ctx: &mut Context<Self>) -> Self::Result {
        match self.admit(&generate) {
            Err(error) => Box::pin(async { Err(error) }),
            Ok(start) => {
                let settings = self.machine.settings();
                let (seed, spec) = (settings.seed, settings.draft_spec());
                let sequence = self.drafter.sequence();
                self.store = Some(Store::new(generate.generation, seed, spec, &generate.prompt, sequence));
                self.failure = None;
                let (answer, answered) = oneshot::channel();
                self.caller = Some(answer);
                self.in_a_row = self.in_a_row.saturating_sub(1);
                let at = self.clock.start(start.scheduled, self.host());
                self.tell(at, Input::Start(start), ctx);
                Box::pin(async { answered.await.unwrap_or(Err(AgentError::Left)) })
            }
        }
    }
}

impl Device {
    /// Refuses what the machine cannot start.
    fn admit(&self, generate: &Generate) -> Result<Start, AgentError> {
        let Generate { generation, data_set, prompt, scheduled } = generate;
        let settings = self.machine.settings();
        let too_long = || AgentError::PromptTooLong { tokens: prompt.len(), context: settings.context };
        let prompt_tokens = u32::try_from(prompt.len()).map_err(|_| too_long())?;
        if let Some(fatal) = &self.fatal {
            Err(fatal.clone())
        } else if self.store.is_some() {
            Err(AgentError::Busy)
        } else if prompt.is_empty() {
            Err(AgentError::NoPrompt)
        } else if settings.limit(prompt_tokens) == 0 {
            Err(too_long())
        } else {
            let now = self.host();
            let scheduled = scheduled.unwrap_or(now).min(now);
            Ok(Start { generation: *generation, data_set: *data_set, prompt_tokens, scheduled })
        }
    }
}

impl Handler<CutConnection> for Device {
    type Result = ();

    fn handle(&mut self, _: CutConnection, ctx: &mut Context<Self>) {
        // Without a connection an attempt to make one may be under way, whose end the machine has yet to hear of.
        if self.link.is_some() {
            self.lost(LinkError::Cut, ctx);
        }
    }
}

impl Handler<LastLinkError> for Device {
    type Result = Option<LinkError>;

    fn handle(&mut self, _: LastLinkError, _: &mut Context<Self>) -> Option<LinkError> {
        self.last_link_error.clone()
    }
}

impl Handler<PoolVerifier> for Device {
    type Result = Option<VerifierIdentity>;

    fn handle(&mut self, _: PoolVerifier, _: &mut Context<Self>) -> Option<VerifierIdentity> {
        self.verifier.clone()
    }
}

impl Handler<Leave> for Device {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Context<Self>) {
        self.happened(Input::Leave, ctx);
    }
}
