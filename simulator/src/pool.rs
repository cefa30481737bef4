//! The pool through one window of virtual time after another: its machine, and verifiers whose batches take what a cost
//! model says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

use specfleet_engine::cost::{BatchCost, BatchWork};
use specfleet_engine::device::Refusal;
use specfleet_engine::id::{PhaseId, VerifierId};
use specfleet_engine::pool::{Batch, Input, ItemOutcome, Output, PoolMachine, PoolSettings, SessionKey};
use specfleet_engine::random::{DrawKey, Purpose};
use specfleet_engine::time::{Span, Time};

use crate::answers::PoolAnswers;
use crate::fleet::{SHARDS, device_of};
use crate::host::Host;
use crate::message::{DeviceBody, PoolBody, ToDevice, ToPool, VerdictBody};
use crate::sink::PoolSink;

/// From the death of a replica to its successor [declared]: the weights are shared, so that only a thread starts anew.
const RESTART: Span = Span::from_millis(1);

/// A time that does not come.
const NEVER: Time = Time(u64::MAX);

/// A verifier that dies at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedKill {
    pub at: Time,
    pub verifier: VerifierId,
}

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolSetup {
    /// What its machine is told.
    pub settings: PoolSettings,
    /// What its batches take, by the method of the phase; the last holds for more.
    pub timings: Vec<Timing>,
    /// Draws the spread of batch times.
    pub seed: u64,
    pub kills: Vec<PlannedKill>,
}

/// What a method's batches take on the simulated host; an emulated pool charges what its settings say all the same.
#[derive(Clone, Debug)]
pub struct Timing {
    pub cost: BatchCost,
    /// And what the host adds.
    pub host: Host,
}

/// What is due for the pool; the order is the rank among events at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PoolTurn {
    /// A verifier's batch of this number is over.
    Done(u16, u64),
    /// A verifier is there again.
    Ready(u16),
    /// A verifier dies of its batch.
    Fail(u16),
    /// A verifier is killed.
    Kill(u16),
}

/// When a message arrives, its device, its number, and its place among those of the device's shard: whatever order they
/// are to be taken in, in a few bytes to sort.
type Arrival = (Time, u32, u32, u32);

/// A batch under way.
struct BatchUnderWay<V> {
    batch: u64,
    waited: Span,
    compute: Span,
    outcomes: Vec<ItemOutcome>,
    verdicts: Vec<Option<V>>,
}

/// The pool in virtual time, with its verifiers.
pub(crate) struct SimulatedPool<A: PoolAnswers, S> {
    pub(crate) machine: PoolMachine,
    pub(crate) answers: A,
    pub(crate) sink: S,
    timings: Vec<Timing>,
    /// The place among them that this phase takes.
    timing: usize,
    seed: u64,
    running: Vec<Option<BatchUnderWay<A::Verdict>>>,
    computing: u16,
    due: BinaryHeap<Reverse<(Time, PoolTurn)>>,
    /// By shard, as they were sent.
    pub(crate) inbox: Vec<Vec<ToPool<A::Upload>>>,
    /// Kept for its memory: when what lies in the inbox arrives, and from which device.
    arrivals: Vec<Arrival>,
    pub(crate) outbox: Vec<Vec<ToDevice<A::Verdict>>>,
    out: Vec<Output>,
    /// The wake that the machine last asked for, and when it comes.
    wake: (Time, Time),
    pub(crate) killed: u32,
    pub(crate) events: u64,
    pub(crate) batches: u64,
    /// Tokens fed in all batches.
    pub(crate) work: u64,
}

impl<A: PoolAnswers, S: PoolSink> SimulatedPool<A, S> {
    /// An empty pool at time zero.
    pub(crate) fn new(setup: PoolSetup, answers: A, sink: S) -> SimulatedPool<A, S> {
        let PoolSetup { settings, timings, seed, kills } = setup;
        assert!(!timings.is_empty(), "batches take something");
        let replicas = settings.autoscale.map_or(settings.verifiers, |scale| scale.max).max(settings.verifiers);
        SimulatedPool {
            machine: PoolMachine::new(Time::ZERO, settings),
            answers,
            sink,
            timings,
            timing: 0,
            seed,
            running: (0..replicas).map(|_| None).collect(),
            computing: 0,
            due: kills.iter().map(|kill| Reverse((kill.at, PoolTurn::Kill(kill.verifier.0)))).collect(),
            inbox: (0..SHARDS).map(|_| Vec::new()).collect(),
            arrivals: Vec::new(),
            outbox: (0..SHARDS).map(|_| Vec::new()).collect(),
            out: Vec::new(),
            wake: (NEVER, NEVER),
            killed: 0,
            events: 0,
            batches: 0,
            work: 0,
        }
    }

    /// The account of the phase that ends at `now`; `phase` is the next one.
    pub(crate) fn next_phase(&mut self, now: Time, phase: PhaseId) {
        let mut out = std::mem::take(&mut self.out);
        self.machine.next_phase(now, phase, &mut out);
        self.out = out;
        self.timing = usize::from(phase.method).min(self.timings.len() - 1);
        self.carry_out(now);
    }

    /// When something is due next. Faults count: what a verifier that dies was computing is computed by another at once, and
    /// may be answered before anything else is due.
    pub(crate) fn next(&self) -> Option<Time> {
        let own = self.due.peek().map(|Reverse((at, _))| *at);
        let waiting = if self.machine.outstanding().0 > 0 { self.asked_wake() } else { None };
        own.into_iter().chain(waiting).min()
    }

    /// Whether nothing waits and nothing is computed.
    pub(crate) fn is_idle(&self) -> bool {
        self.computing == 0 && self.machine.outstanding().0 == 0 && self.inbox.iter().all(Vec::is_empty)
    }

    /// Works off everything that is due before `end`.
    pub(crate) fn window(&mut self, end: Time) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let places = inbox.iter().flat_map(|messages| messages.iter().zip(0..));
        arrivals.extend(places.map(|(message, place)| (message.at, message.device, message.number, place)));
        // By time, then device, then the device's own order: whichever shard's messages came first.
        arrivals.sort_unstable();
        // All of them are looked up first, so that a processor waits for their memory once and not for each.
        for (_, device, _, place) in &arrivals {
            let message = &inbox[(device % SHARDS) as usize][*place as usize];
            if let Some(PoolBody::Upload(request, _)) = &message.body {
                black_box(self.machine.is_open(request.session));
            }
        }
        let mut messages = arrivals.drain(..).peekable();
        loop {
            let message = messages.peek().map_or(NEVER, |arrival| arrival.0);
            let own = self.due.peek().map_or(NEVER, |Reverse((at, _))| *at);
            let timer = self.wake_at().unwrap_or(NEVER);
            // At the same time own events go first and timers last, so that a batch is as full as it can be.
            let now = own.min(message).min(timer);
            if now >= end {
                break;
            }
            self.events += 1;
            if own == now {
                let Some(Reverse((_, event))) = self.due.pop() else { break };
                self.happen(now, event);
            } else if message == now {
                let Some((_, device, _, place)) = messages.next() else { break };
                let message = &mut inbox[(device % SHARDS) as usize][place as usize];
                if let Some(body) = message.body.take() {
                    self.receive(now, body);
                }
            } else {
                self.tell(now, Input::Timeout);
            }
        }
        debug_assert!(messages.next().is_none(), "what devices send arrives within the window");
        drop(messages);
        inbox.iter_mut().for_each(Vec::clear);
        (self.inbox, self.arrivals) = (inbox, arrivals);
    }

    /// When the machine is woken: the host is late by a draw for each time that it asks for.
    fn wake_at(&mut self) -> Option<Time> {
        let asked = self.machine.poll_timeout()?;
        if self.wake.0 != asked {
            self.wake = (asked, asked + self.timings[self.timing].host.pool_wake(self.seed, asked));
        }
        Some(self.wake.1)
    }

    /// The same, without asking again.
    fn asked_wake(&self) -> Option<Time> {
        let asked = self.machine.poll_timeout()?;
        Some(if self.wake.0 == asked { self.wake.1 } else { asked })
    }

    fn happen(&mut self, now: Time, event: PoolTurn) {
        match event {
            PoolTurn::Done(verifier, batch) => {
                let slot = &mut self.running[usize::from(verifier)];
                let Some(mut done) = slot.take_if(|running| running.batch == batch) else { return };
                self.computing -= 1;
                let input = Input::BatchDone {
                    verifier: VerifierId(verifier),
                    batch,
                    waited: done.waited,
                    compute: done.compute,
                    outcomes: std::mem::take(&mut done.outcomes),
                };
                self.delivered(now, input, &mut done.verdicts);
            }
            PoolTurn::Ready(verifier) => self.tell(now, Input::VerifierReady(VerifierId(verifier))),
            PoolTurn::Fail(verifier) | PoolTurn::Kill(verifier) => {
                if self.running[usize::from(verifier)].take().is_some() {
                    self.computing -= 1;
                }
                self.killed += u32::from(matches!(event, PoolTurn::Kill(_)));
                self.answers.lose_caches(verifier);
                self.tell(now, Input::VerifierFailed(VerifierId(verifier)));
            }
        }
    }

    fn receive(&mut self, now: Time, body: PoolBody<A::Upload>) {
        match body {
            PoolBody::Upload(request, cargo) => {
                let mut out = std::mem::take(&mut self.out);
                self.machine.handle(now, Input::Upload(request), &mut out);
                self.out = out;
                self.carry_out_with(now, Some(cargo), &[], &mut []);
            }
            PoolBody::Cancel(session, upload) => self.tell(now, Input::Cancel { session, upload }),
            PoolBody::Close(session) => self.tell(now, Input::Close(session)),
            PoolBody::Disconnected(connection) => self.tell(now, Input::Disconnected(connection)),
        }
    }

    fn tell(&mut self, now: Time, input: Input) {
        self.delivered(now, input, &mut []);
    }

    /// Tells the machine, with the verdicts at hand that it may want to send.
    fn delivered(&mut self, now: Time, input: Input, verdicts: &mut [Option<A::Verdict>]) {
        let outcomes = match &input {
            Input::BatchDone { outcomes, .. } => outcomes.clone(),
            _ => Vec::new(),
        };
        let mut out = std::mem::take(&mut self.out);
        self.machine.handle(now, input, &mut out);
        self.out = out;
        self.carry_out_with(now, None, &outcomes, verdicts);
    }

    fn carry_out(&mut self, now: Time) {
        self.carry_out_with(now, None, &[], &mut []);
    }

    /// `cargo`: what the input at hand has brought, if that is an upload; the other two belong to a batch that is done.
    fn carry_out_with(
        &mut self,
        now: Time,
        mut cargo: Option<A::Upload>,
        outcomes: &[ItemOutcome],
        verdicts: &mut [Option<A::Verdict>],
    ) {
        let mut out = std::mem::take(&mut self.out);
        // In their places: what has just been written in parts is slow to move as a whole.
        for output in &out {
            match *output {
                Output::Admitted { session, .. } => {
                    if let Some(cargo) = cargo.take() {
                        self.answers.admitted(device_of(session), session, cargo);
                    }
                }
                Output::Refused { session, upload, reason, retry_after, price } => {
                    // Its way down is still before it.
                    let refusal = Refusal { upload, reason, retry_after, price, downlink: Span::ZERO };
                    self.send(now, session, DeviceBody::Refused(refusal));
                }
                Output::Start(ref batch) => self.start(now, batch),
                Output::Verdict { session, upload, item, more, cost, price } => {
                    let item = item as usize;
                    // The machine names items of the batch that it was just told of.
                    let (Some(outcome), Some(Some(verdict))) =
                        (outcomes.get(item), verdicts.get_mut(item).map(Option::take))
                    else {
                        continue;
                    };
                    self.answers.delivered(device_of(session), session, outcome, more);
                    let body = VerdictBody { upload, accepted: outcome.accepted, more, cost, price };
                    self.send(now, session, DeviceBody::Verdict(body, verdict));
                }
                Output::Forget(session) => self.answers.forget(device_of(session), session),
                Output::DropKv { verifier, session } => self.answers.drop_cache(verifier.0, session),
                Output::Restart(verifier) => self.due.push(Reverse((now + RESTART, PoolTurn::Ready(verifier.0)))),
                Output::Record(ref record) => {
                    self.batches += 1;
                    self.work += u64::from(record.work);
                    self.sink.batch(record);
                }
                Output::VerifierRecord(ref record) => self.sink.verifier(record),
            }
        }
        out.clear();
        self.out = out;
    }

    fn start(&mut self, now: Time, batch: &Batch) {
        for session in &batch.evict {
            self.answers.drop_cache(batch.verifier.0, *session);
        }
        let mut outcomes = Vec::with_capacity(batch.items.len());
        let mut verdicts = Vec::with_capacity(batch.items.len());
        if !self.answers.compute(batch, &device_of, &mut outcomes, &mut verdicts) {
            self.due.push(Reverse((now, PoolTurn::Fail(batch.verifier.0))));
            return;
        }
        let work = BatchWork {
            tokens: batch.items.iter().map(|item| item.work()).sum(),
            sequences: batch.items.len() as u32,
            cached: batch.items.iter().map(|item| u64::from(item.keep)).sum(),
            beside: self.computing,
        };
        let Timing { cost, host } = &self.timings[self.timing];
        let key = DrawKey {
            seed: self.seed,
            prompt: batch.batch as u32,
            // Apart from the host's own draws, and other ones on each of its days.
            repetition: u16::MAX - host.day(),
            position: (batch.batch >> 32) as u32,
            rejections: 0,
        };
        let compute = cost.span(&work, key.draws(Purpose::Simulation).uniform());
        let waited = host.batch(self.seed, now);
        self.computing += 1;
        self.running[usize::from(batch.verifier.0)] = Some(BatchUnderWay {
            batch: batch.batch,
            waited,
            compute,
            outcomes,
            verdicts: verdicts.into_iter().map(Some).collect(),
        });
        // An emulated pool holds its verdicts back until the time is over that it charges.
        let done = (now + waited + compute).max(batch.release);
        self.due.push(Reverse((done, PoolTurn::Done(batch.verifier.0, batch.batch))));
    }

    fn send(&mut self, at: Time, session: SessionKey, body: DeviceBody<A::Verdict>) {
        let device = device_of(session).0;
        self.outbox[(device % SHARDS) as usize].push(ToDevice {
            at,
            device,
            connection: session.connection,
            session: session.session,
            body,
        });
    }
}
