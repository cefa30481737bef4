//! A small world in virtual time: the device and pool machines, the wire codec and toy models, with every delay drawn
//! from a keyed generator and faults at will. It is the reference driver: the shortest honest one, slow and obvious.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use specfleet_engine::acceptance::Next;
use specfleet_engine::device::payload::downlink_bits;
use specfleet_engine::device::{self, DeviceMachine, DeviceSettings, Refusal, Start, Step, UploadPlan, Verdict};
use specfleet_engine::id::{ConnectionId, DeviceId, GenerationId, VerifierId};
use specfleet_engine::pool::{self, Batch, ItemOutcome, JobRequest, PoolMachine, PoolSettings, SessionKey};
use specfleet_engine::random::{DrawKey, Draws, Purpose};
use specfleet_engine::record::{ACCOUNTING, BatchRecord, GenerationRecord, RoundRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::{ClientFrame, FrameDecoder, ServerFrame, Upload, VerdictFrame, encode};

use crate::answers::{self, DraftDistributions, LIMITS, key};
use crate::toy::Toy;

/// What can go wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A verifier dies with everything it holds.
    KillVerifier(u16),
    /// A device's connection breaks, frames in flight and all.
    CutConnection(u32),
    /// What the pool sends to this device gets lost until it uploads again. (Single frames cannot get lost: they travel on
    /// one ordered stream.)
    LoseVerdict(u32),
    /// A device leaves for good.
    Leave(u32),
}

/// How the world is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What every device runs.
    pub device: DeviceSettings,
    /// The pool.
    pub pool: PoolSettings,
    /// Number of devices.
    pub devices: u32,
    /// Prompts; prompt i goes to device i mod `devices`.
    pub prompts: Vec<Vec<u32>>,
    /// The drafter.
    pub drafter: Toy,
    /// The verifier.
    pub verifier: Toy,
    /// Seed of the delays, which must not change any token.
    pub delays: u64,
    /// When which fault strikes.
    pub faults: Vec<(Time, Fault)>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By prompt number: the generation and its rounds.
    pub generations: BTreeMap<u32, (GenerationRecord, Vec<RoundRecord>)>,
    /// Prompts of devices that had gone before they came to them.
    pub left_over: Vec<u32>,
    /// All batches.
    pub batches: Vec<BatchRecord>,
    /// Largest size of a device machine in bytes.
    pub device_bytes: usize,
}

#[derive(Debug)]
enum Event {
    ToPool { connection: ConnectionId, bytes: Vec<u8> },
    ToDevice { device: u32, connection: ConnectionId, bytes: Vec<u8> },
    Deliver { device: u32, connection: ConnectionId, frame: Box<VerdictFrame>, bytes: u32, downlink: Span },
    StepDone { device: u32, step: Step, session: u32 },
    DeviceTimer { device: u32 },
    Dial { device: u32, attempt: u32 },
    BatchDone { verifier: VerifierId, batch: u64 },
    PoolTimer,
    VerifierReady(VerifierId),
    Fault(Fault),
}

struct Simulated {
    machine: DeviceMachine,
    tokens: Vec<u32>,
    /// DraftDistributions of the drafts that are not decided, by position.
    distributions: DraftDistributions,
    rounds: Vec<RoundRecord>,
    queue: Vec<u32>,
    connection: Option<ConnectionId>,
    /// Attempts to connect so far, and lost links: an attempt that an outage has cut off is told by its number.
    attempt: u32,
    gone: bool,
    /// May start its next prompt.
    free: bool,
    decoder: FrameDecoder<ServerFrame>,
    /// Key of the upload under way, to resample with.
    sent_key: DrawKey,
    /// Loses what the pool sends, until it uploads again.
    deaf: bool,
}

/// Uploads that wait to be admitted.
type Waiting = BTreeMap<(SessionKey, u32), Upload>;
/// What the verifiers have computed and not yet delivered: outcomes and tokens per item.
type Computed = BTreeMap<u64, Vec<(ItemOutcome, Next)>>;

struct PoolSide {
    machine: PoolMachine,
    sessions: BTreeMap<SessionKey, (Vec<u32>, Upload)>,
    waiting: Waiting,
    computed: Computed,
    /// The batch whose `BatchDone` is being handled.
    delivering: Vec<(ItemOutcome, Next)>,
    decoders: BTreeMap<ConnectionId, (u32, FrameDecoder<ClientFrame>)>,
}

/// The world; see the module.
pub struct World {
    setup: Setup,
    settings: Arc<DeviceSettings>,
    now: Time,
    sequence: u64,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    bodies: BTreeMap<u64, Event>,
    devices: Vec<Simulated>,
    pool: PoolSide,
    next_connection: u64,
    delays: Draws,
    outcome: Outcome,
}

impl World {
    /// Runs every prompt to its end and checks the conservation distributions on the way.
    pub fn run(setup: Setup) -> Outcome {
        let settings = Arc::new(setup.device.clone());
        let devices = (0..setup.devices)
            .map(|device| Simulated {
                machine: DeviceMachine::new(DeviceId(device), settings.clone()).expect("valid settings"),
                tokens: Vec::new(),
                distributions: BTreeMap::new(),
                rounds: Vec::new(),
                queue: (0..setup.prompts.len() as u32).filter(|p| p % setup.devices == device).rev().collect(),
                connection: None,
                attempt: 0,
                gone: false,
                free: false,
                decoder: FrameDecoder::new(LIMITS),
                sent_key: key(0, 0, 0, 0),
                deaf: false,
            })
            .collect();
        let mut world = World {
            settings,
            now: Time::ZERO,
            sequence: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            devices,
            pool: PoolSide {
                machine: PoolMachine::new(Time::ZERO, setup.pool.clone()),
                sessions: BTreeMap::new(),
                waiting: BTreeMap::new(),
                computed: BTreeMap::new(),
                delivering: Vec::new(),
                decoders: BTreeMap::new(),
            },
            next_connection: 0,
            delays: DrawKey { seed: setup.delays, ..key(0, 0, 0, 0) }.draws(Purpose::Load),
            outcome: Outcome::default(),
            setup,
        };
        for (at, fault) in world.setup.faults.clone() {
            world.at(at, Event::Fault(fault));
        }
        for device in 0..world.setup.devices {
            world.device(device, device::Input::Join);
        }
        while let Some(Reverse((at, sequence))) = world.events.pop() {
            world.now = at;
            let event = world.bodies.remove(&sequence).expect("every queued number has an event");
            world.step(event);
            assert!(world.sequence < 10_000_000, "the world does not come to rest");
        }
        world.finish()
    }

    fn finish(self) -> Outcome {
        assert_eq!(self.ended(), self.setup.prompts.len(), "every prompt ends");
        // All permits are back, all sessions gone, every arrival ended once.
        let machine = &self.pool.machine;
        assert_eq!(machine.outstanding(), (0, 0, 0));
        assert_eq!(machine.sessions(), 0, "closed generations leave no session");
        let counts = machine.counts();
        assert_eq!(counts.sent, counts.verdicts + counts.refused + counts.cancelled, "{counts:?}");
        assert!(self.pool.sessions.is_empty() && self.pool.waiting.is_empty());
        self.outcome
    }

    /// Prompts that have come to their end.
    fn ended(&self) -> usize {
        self.outcome.generations.len() + self.outcome.left_over.len()
    }

    fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence)));
        self.bodies.insert(self.sequence, event);
    }

    /// Something between 0 and `most` from now.
    fn soon(&mut self, most: u64, event: Event) {
        let delay = (self.delays.uniform() * most as f64) as u64;
        self.at(self.now + Span(delay), event);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::ToPool { connection, bytes } => self.pool_bytes(connection, &bytes),
            Event::ToDevice { device, connection, bytes } => self.device_bytes(device, connection, &bytes),
            Event::Deliver { device, connection, frame, bytes, downlink } => {
                if self.devices[device as usize].connection == Some(connection) {
                    self.deliver(device, *frame, bytes, downlink);
                }
            }
            Event::StepDone { device, step, session } => self.step_done(device, step, session),
            Event::DeviceTimer { device } => {
                let due = self.devices[device as usize].machine.poll_timeout();
                if due.is_some_and(|(at, _)| at <= self.now) {
                    self.device(device, device::Input::Timeout);
                }
            }
            Event::Dial { device, attempt } => {
                if self.devices[device as usize].attempt != attempt {
                    return;
                }
                self.next_connection += 1;
                let connection = ConnectionId(self.next_connection);
                self.pool.decoders.insert(connection, (device, FrameDecoder::new(LIMITS)));
                let simulated = &mut self.devices[device as usize];
                simulated.connection = Some(connection);
                simulated.decoder = FrameDecoder::new(LIMITS);
                self.device(device, device::Input::Connected);
            }
            Event::BatchDone { verifier, batch } => {
                let Some(computed) = self.pool.computed.remove(&batch) else { return };
                let outcomes = computed.iter().map(|(outcome, _)| *outcome).collect();
                let (waited, compute) = (Span(10), Span(1_000 + 100 * computed.len() as u64));
                self.pool.delivering = computed;
                self.pool(pool::Input::BatchDone { verifier, batch, waited, compute, outcomes });
            }
            Event::PoolTimer => {
                if self.pool.machine.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.pool(pool::Input::Timeout);
                }
            }
            Event::VerifierReady(verifier) => self.pool(pool::Input::VerifierReady(verifier)),
            Event::Fault(fault) => self.fault(fault),
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::KillVerifier(verifier) => self.pool(pool::Input::VerifierFailed(VerifierId(verifier))),
            Fault::CutConnection(device) => {
                if self.devices.get(device as usize).is_some_and(|d| d.connection.is_some()) {
                    self.hang_up(device);
                    self.device(device, device::Input::Disconnected);
                }
            }
            Fault::Leave(device) => {
                if (device as usize) < self.devices.len() {
                    self.device(device, device::Input::Leave);
                }
            }
            Fault::LoseVerdict(device) => {
                if let Some(simulated) = self.devices.get_mut(device as usize) {
                    simulated.deaf = true;
                }
            }
        }
    }

    /// The connection of this device is no more, nor the attempt to make one; the pool learns of it.
    fn hang_up(&mut self, device: u32) {
        let simulated = &mut self.devices[device as usize];
        simulated.attempt += 1;
        if let Some(connection) = simulated.connection.take() {
            self.pool.decoders.remove(&connection);
            self.pool(pool::Input::Disconnected(connection));
        }
    }

    // ---- device side -------------------------------------------------------------------------------------------

    fn device(&mut self, device: u32, input: device::Input) {
        let mut out = Vec::new();
        self.devices[device as usize].machine.handle(self.now, input, &mut out);
        for output in out {
            self.device_output(device, output);
        }
        // One that finishes and goes at once starts nothing any more.
        let simulated = &mut self.devices[device as usize];
        if std::mem::take(&mut simulated.free) && !simulated.gone {
            self.next_prompt(device);
        }
        let machine = &self.devices[device as usize].machine;
        self.outcome.device_bytes = self.outcome.device_bytes.max(machine.bytes());
        // When all is done, links would still be lost and come back for ever.
        if let Some((at, _)) = machine.poll_timeout().filter(|_| self.ended() < self.setup.prompts.len()) {
            self.at(at.max(self.now), Event::DeviceTimer { device });
        }
    }

    fn device_output(&mut self, device: u32, output: device::Output) {
        let simulated = &mut self.devices[device as usize];
        match output {
            device::Output::Connect => {
                simulated.attempt += 1;
                let attempt = simulated.attempt;
                self.soon(3_000, Event::Dial { device, attempt });
            }
            device::Output::Ready => simulated.free = true,
            device::Output::Step(step) => {
                let session = simulated.machine.session();
                self.soon(2_000, Event::StepDone { device, step, session });
            }
            device::Output::Set { position, token } => answers::set(&mut simulated.tokens, position, token),
            device::Output::Upload(plan) => self.send_upload(device, plan),
            device::Output::Cancel(upload) => {
                let session = simulated.machine.session();
                self.send(device, &ClientFrame::Cancel { session, upload, at: None });
            }
            device::Output::Record(record) => simulated.rounds.push(record),
            device::Output::HangUp => self.hang_up(device),
            device::Output::Gone => {
                assert!(!simulated.gone, "a device goes once");
                simulated.gone = true;
                self.outcome.left_over.append(&mut simulated.queue);
                self.hang_up(device);
            }
            device::Output::Finished(mut record) => {
                let (session, last) = (simulated.machine.session(), record.finish.is_last());
                simulated.tokens.truncate(record.prompt_tokens as usize + simulated.rounds.len());
                record.tokens = simulated.tokens.split_off(record.prompt_tokens as usize);
                let rounds = std::mem::take(&mut simulated.rounds);
                check_generation(&record, &rounds);
                simulated.free = !last;
                let earlier = self.outcome.generations.insert(record.id.prompt, (*record, rounds));
                assert!(earlier.is_none(), "a prompt ends once");
                self.send(device, &ClientFrame::Close { session, at: None });
            }
        }
    }

    fn next_prompt(&mut self, device: u32) {
        let simulated = &mut self.devices[device as usize];
        let Some(prompt) = simulated.queue.pop() else { return };
        simulated.tokens = self.setup.prompts[prompt as usize].clone();
        simulated.distributions.clear();
        let generation = GenerationId { method: 0, prompt, repetition: 0, pass: 0 };
        let prompt_tokens = simulated.tokens.len() as u32;
        self.device(
            device,
            device::Input::Start(Start { generation, data_set: 0, prompt_tokens, scheduled: self.now }),
        );
    }

    fn step_done(&mut self, device: u32, step: Step, session: u32) {
        let settings = self.settings.clone();
        let simulated = &mut self.devices[device as usize];
        if session != simulated.machine.session() {
            return;
        }
        let (result, distribution) = answers::draft(&settings, &self.setup.drafter, &simulated.tokens, &step);
        simulated.distributions.insert(step.position, distribution);
        self.device(device, device::Input::StepDone(result));
    }

    fn send_upload(&mut self, device: u32, plan: UploadPlan) {
        let settings = self.settings.clone();
        let simulated = &mut self.devices[device as usize];
        let (patience, wanted) = (plan.deadline.since(self.now), plan.wanted.map(|wanted| wanted.since(self.now)));
        let upload = answers::compose(&settings, &simulated.tokens, &simulated.distributions, &plan, patience, wanted);
        simulated.sent_key = upload.key;
        simulated.deaf = false;
        let bytes = self.send(device, &ClientFrame::Upload(Box::new(upload)));
        self.device(device, device::Input::Sent { upload: plan.upload, bytes });
    }

    fn send(&mut self, device: u32, frame: &ClientFrame) -> u32 {
        let Some(connection) = self.devices[device as usize].connection else { return 0 };
        let mut bytes = Vec::new();
        let length = encode(frame, LIMITS, &mut bytes).expect("within the limits");
        // One stream keeps its order: constant delay.
        self.at(self.now + Span(500), Event::ToPool { connection, bytes });
        length as u32
    }

    fn device_bytes(&mut self, device: u32, connection: ConnectionId, bytes: &[u8]) {
        if self.devices[device as usize].connection != Some(connection) {
            return;
        }
        self.devices[device as usize].decoder.push(bytes);
        while let Some((frame, length)) =
            self.devices[device as usize].decoder.next_frame().expect("the pool sends frames")
        {
            if self.devices[device as usize].deaf {
                continue;
            }
            match frame {
                ServerFrame::Verdict(frame) => {
                    let settings = &self.settings;
                    let resample = matches!(frame.next, Next::Resample(_));
                    let bits = downlink_bits(&settings.method.payload, settings.vocab as usize, resample);
                    let now = self.now;
                    let (at, downlink) = self.devices[device as usize].machine.receive(now, bits);
                    self.at(at, Event::Deliver { device, connection, frame, bytes: length as u32, downlink });
                }
                ServerFrame::Refused { session, upload, reason, retry_after, price } => {
                    if session == self.devices[device as usize].machine.session() {
                        // The small world sends refusals down without a downlink.
                        let downlink = Span::ZERO;
                        let refusal = Refusal { upload, reason, retry_after, price, downlink };
                        self.device(device, device::Input::Refused(refusal));
                    }
                }
                ServerFrame::Welcome(_) | ServerFrame::Goodbye(_) => unreachable!("this pool skips the handshake"),
            }
        }
    }

    fn deliver(&mut self, device: u32, frame: VerdictFrame, bytes: u32, downlink: Span) {
        let simulated = &mut self.devices[device as usize];
        let next = answers::next_token(&frame.next, frame.accepted, &simulated.distributions, simulated.sent_key);
        self.device(
            device,
            device::Input::Verdict(Verdict {
                upload: frame.upload,
                accepted: frame.accepted,
                next,
                more: frame.more,
                cost: frame.cost,
                price: frame.price,
                bytes,
                downlink,
            }),
        );
    }

    // ---- pool side ---------------------------------------------------------------------------------------------

    fn pool_bytes(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let Some((_, decoder)) = self.pool.decoders.get_mut(&connection) else { return };
        decoder.push(bytes);
        let mut frames = Vec::new();
        while let Some((frame, _)) = decoder.next_frame().expect("devices send frames") {
            frames.push(frame);
        }
        for frame in frames {
            match frame {
                ClientFrame::Hello(_) => unreachable!("this world skips the handshake"),
                ClientFrame::Upload(upload) => {
                    let session = SessionKey { connection, session: upload.session };
                    let request = JobRequest {
                        session,
                        upload: upload.upload,
                        base: upload.base,
                        catch_up: upload.tokens.len() as u32,
                        kind: answers::kind(&upload),
                        risk: upload.risk,
                        deadline: self.now + upload.patience,
                        wanted: upload.wanted.map(|within| self.now + within),
                    };
                    self.pool.waiting.insert((session, upload.upload.0), *upload);
                    self.pool(pool::Input::Upload(request));
                }
                ClientFrame::Cancel { session, upload, .. } => {
                    self.pool(pool::Input::Cancel { session: SessionKey { connection, session }, upload });
                }
                ClientFrame::Promise { .. } => {}
                ClientFrame::Close { session, .. } => {
                    self.pool(pool::Input::Close(SessionKey { connection, session }));
                }
            }
        }
    }

    fn pool(&mut self, input: pool::Input) {
        let mut out = Vec::new();
        self.pool.machine.handle(self.now, input, &mut out);
        for output in out {
            self.pool_output(output);
        }
        if let Some(at) = self.pool.machine.poll_timeout() {
            self.at(at.max(self.now), Event::PoolTimer);
        }
    }

    fn pool_output(&mut self, output: pool::Output) {
        match output {
            pool::Output::Admitted { session, upload } => {
                let upload = self.pool.waiting.remove(&(session, upload.0)).expect("it waits");
                let mut tokens = self.pool.sessions.remove(&session).map(|(tokens, _)| tokens).unwrap_or_default();
                answers::admit(&mut tokens, &upload);
                self.pool.sessions.insert(session, (tokens, upload));
            }
            pool::Output::Refused { session, upload, reason, retry_after, price } => {
                self.pool.waiting.remove(&(session, upload.0));
                let frame = ServerFrame::Refused { session: session.session, upload, reason, retry_after, price };
                self.reply(session, &frame);
            }
            pool::Output::Start(batch) => self.start(&batch),
            pool::Output::Verdict { session, upload, item, more, cost, price } => {
                let (outcome, next) = self.pool.delivering[item as usize].clone();
                let (tokens, last) = self.pool.sessions.get_mut(&session).expect("alive");
                answers::deliver(tokens, last, &outcome, more);
                let frame = VerdictFrame {
                    session: session.session,
                    upload,
                    accepted: outcome.accepted,
                    next,
                    more,
                    cost,
                    price,
                };
                self.reply(session, &ServerFrame::Verdict(Box::new(frame)));
            }
            pool::Output::Forget(session) => {
                self.pool.sessions.remove(&session);
            }
            pool::Output::DropKv { .. } => {}
            pool::Output::Restart(verifier) => self.soon(5_000, Event::VerifierReady(verifier)),
            pool::Output::Record(record) => self.outcome.batches.push(record),
            pool::Output::VerifierRecord(_) => {}
        }
    }

    fn start(&mut self, batch: &Batch) {
        let items = batch
            .items
            .iter()
            .map(|item| {
                assert!(item.keep < item.committed);
                let (tokens, upload) = &self.pool.sessions[&item.session];
                answers::judge(&self.setup.verifier, &tokens[..item.committed as usize], upload)
            })
            .collect();
        self.pool.computed.insert(batch.batch, items);
        let (verifier, batch) = (batch.verifier, batch.batch);
        self.soon(4_000, Event::BatchDone { verifier, batch });
    }

    fn reply(&mut self, session: SessionKey, frame: &ServerFrame) {
        let Some(&(device, _)) = self.pool.decoders.get(&session.connection) else { return };
        let mut bytes = Vec::new();
        encode(frame, LIMITS, &mut bytes).expect("within the limits");
        self.at(self.now + Span(500), Event::ToDevice { device, connection: session.connection, bytes });
    }
}

/// What must hold of every closed generation, whatever went wrong on the way.
pub fn check_generation(record: &GenerationRecord, rounds: &[RoundRecord]) {
    assert_eq!(record.times.total(ACCOUNTING), record.ended.since(record.started), "state times add up: {record:?}");
    let uploads = record.uploads;
    assert_eq!(uploads.sent, uploads.verdicts + uploads.refused + uploads.cancelled, "{uploads:?}");
    assert_eq!(rounds.len(), record.tokens.len(), "one round per token");
    for (at, (round, &token)) in rounds.iter().zip(&record.tokens).enumerate() {
        assert_eq!((round.position as usize, round.token), (at, token), "in order, once");
    }
    let cloud: u64 = rounds.iter().map(|r| r.cloud_nanojoules()).sum();
    assert_eq!(cloud, record.energy.cloud, "cloud energy is that of its rounds");
}
