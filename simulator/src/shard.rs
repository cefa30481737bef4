//! The devices of one shard, through one window of virtual time after another.

mod exchange;

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;

use specfleet_engine::device::{DeviceMachine, Input, Output, Start};
use specfleet_engine::id::{ConnectionId, DeviceId, GenerationId};
use specfleet_engine::load::{self, Dispatch, DispatchOrder};
use specfleet_engine::record::{FinishReason, GenerationRecord};
use specfleet_engine::time::{Span, Time};

use self::exchange::{request, session};
use crate::answers::DeviceAnswers;
use crate::fleet::{Assigned, Fleet, SHARDS, device_at};
use crate::message::{DeviceBody, PoolBody, ToDevice, ToPool};
use crate::places::Slots;
use crate::queue::{Calendar, QueuedEvent};
use crate::sink::DeviceSink;

/// What is due for a shard. The order is the rank among events at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ShardEvent {
    Dialled(u32),
    /// What lies at this place in [`Shard::arriving`] has reached the device or come through its downlink.
    Arrived(u32),
    /// A generation is over.
    Finished(u32),
    /// The dispatch wants to be woken.
    Dispatch,
    /// A device's machine wants to be woken.
    Timer(u32),
}

impl ShardEvent {
    fn rank(self) -> u32 {
        match self {
            ShardEvent::Dialled(_) => 0,
            ShardEvent::Arrived(_) => 1,
            ShardEvent::Finished(_) => 2,
            ShardEvent::Dispatch => 3,
            ShardEvent::Timer(_) => 4,
        }
    }
}

struct SimulatedDevice {
    machine: DeviceMachine,
    /// What its machine was last told; ahead of the queue while nobody can reach it.
    now: Time,
    /// The running (or last) generation.
    generation: GenerationId,
    finish: FinishReason,
    /// When its machine will be woken if nobody comes before: a matter of the machine's state alone, never of what is queued.
    wake: Time,
    /// The earliest wake that is queued for it, at or before `wake`. Later ones may be queued too; they count for nothing.
    timer: Time,
    /// When it leaves; it never runs ahead of that.
    leaves: Time,
    /// Connections made so far; the last one stands if `connected`.
    connections: u32,
    connected: bool,
    running: bool,
    /// A verdict may come, however alone the device seems to be: an upload of this generation was cancelled, or something of
    /// the last generation was on its way down when this one started.
    in_doubt: bool,
    /// Messages on their way down.
    arriving: u16,
    /// When the last of them was sent, lateness included.
    last_message: Time,
}

/// Something on its way down.
enum ArrivingAnswer<V> {
    /// Sent at this time; its first bit is yet to come, and then the downlink.
    Sent(Time, u32, DeviceBody<V>),
    /// Its last bit is yet to come.
    Last(Input),
}

impl SimulatedDevice {
    /// Until when nothing can happen to it, neither by others nor by itself.
    fn left_alone_until(&self) -> Time {
        if self.arriving > 0 || self.in_doubt { Time::ZERO } else { self.wake.min(self.leaves) }
    }
}

/// Whose it is, and over which connection it came.
type InDownlink<V> = (u32, ConnectionId, ArrivingAnswer<V>);

/// The devices of one shard, with the events that are due for them.
pub(crate) struct Shard<'a, A: DeviceAnswers, S> {
    fleet: &'a Fleet,
    index: u32,
    devices: Vec<SimulatedDevice>,
    calendar: Calendar<ShardEvent>,
    sequence: u32,
    window: Span,
    /// Where the running window ends.
    end: Time,
    /// Verdicts and refusals on their way down.
    arriving: Slots<InDownlink<A::Verdict>>,
    /// Messages to the pool of devices that are ahead of the queue, by the numbers of the windows in which they leave. No events:
    /// the pool sorts whatever leaves in the same window.
    departing: BTreeMap<u64, Vec<ToPool<A::Upload>>>,
    /// Kept for their memory.
    spare: Vec<Vec<ToPool<A::Upload>>>,
    sent: u32,
    dispatch: Dispatch<'a, Assigned<'a>>,
    /// The earliest wake that is queued for it.
    dispatch_timer: Time,
    /// What it is still to be told, the first thing first.
    news: VecDeque<(Time, load::DispatchEvent)>,
    orders: Vec<DispatchOrder>,
    pub(crate) answers: A,
    pub(crate) sink: S,
    pub(crate) inbox: Vec<ToDevice<A::Verdict>>,
    pub(crate) outbox: Vec<ToPool<A::Upload>>,
    out: Vec<Output>,
    /// Generations that have started and not ended.
    pub(crate) running: u64,
    /// Ended, dropped ones included.
    pub(crate) ended: u64,
    pub(crate) tokens: u64,
    pub(crate) events: u64,
    /// When the last generation ended.
    pub(crate) last_end: Time,
}

impl<'a, A: DeviceAnswers, S: DeviceSink> Shard<'a, A, S> {
    /// The devices of `fleet` that belong to shard `index`, at `start`, not yet joined.
    pub(crate) fn new(index: u32, fleet: &'a Fleet, window: Span, answers: A, sink: S) -> Shard<'a, A, S> {
        let count = fleet.devices.saturating_sub(index).div_ceil(SHARDS);
        let devices = (0..count)
            .map(|slot| {
                let device = DeviceId(slot * SHARDS + index);
                SimulatedDevice {
                    machine: fleet.machine(device),
                    now: fleet.start,
                    generation: GenerationId { method: 0, prompt: 0, repetition: 0, pass: 0 },
                    finish: FinishReason::Length,
                    wake: Time(u64::MAX),
                    timer: Time(u64::MAX),
                    leaves: fleet.leaves(device),
                    connections: 0,
                    connected: false,
                    running: false,
                    in_doubt: false,
                    arriving: 0,
                    last_message: Time::ZERO,
                }
            })
            .collect();
        let mut calendar = Calendar::new(window);
        calendar.advance(fleet.start);
        Shard {
            fleet,
            index,
            devices,
            calendar,
            sequence: 0,
            window,
            end: fleet.start,
            arriving: Slots::default(),
            departing: BTreeMap::new(),
            spare: Vec::new(),
            sent: 0,
            dispatch: fleet.dispatch(index),
            dispatch_timer: Time(u64::MAX),
            news: VecDeque::new(),
            orders: Vec::new(),
            answers,
            sink,
            inbox: Vec::new(),
            outbox: Vec::new(),
            out: Vec::new(),
            running: 0,
            ended: 0,
            tokens: 0,
            events: 0,
            last_end: fleet.start,
        }
    }

    /// When something is due next; `None` if nothing is.
    pub(crate) fn next(&self) -> Option<Time> {
        let waiting = self.dispatch.poll_timeout().filter(|_| !self.dispatch.is_done());
        let departing = self.departing.first_key_value().map(|(number, _)| Time(number * self.window.0));
        waiting.into_iter().chain(self.calendar.next()).chain(departing).min()
    }

    /// Whether every request of the phase has been answered or dropped, and all that was sent has left.
    pub(crate) fn is_done(&self) -> bool {
        self.running == 0 && self.dispatch.is_done() && self.departing.is_empty()
    }

    /// Works off the window that ends at `end`, beginning with what the pool has sent.
    pub(crate) fn window(&mut self, start: Time, end: Time) {
        self.calendar.advance(start);
        self.end = end;
        if let Some(departing) = self.departing.remove(&(start.0 / self.window.0)) {
            // The pool has taken what it held.
            self.spare.push(std::mem::replace(&mut self.outbox, departing));
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        // All of them are looked at first, so that a processor waits for their memory once and not for each.
        for message in &inbox {
            let device = &self.devices[(message.device / SHARDS) as usize];
            black_box((device.last_message, device.now));
            device.machine.prefetch();
        }
        for message in inbox.drain(..) {
            self.receive(message);
        }
        self.inbox = inbox;
        self.set_dispatch_timer(start);
        while let Some((due, event)) = self.calendar.pop_before(end) {
            self.events += 1;
            let now = due.at;
            match event {
                ShardEvent::Dialled(slot) => {
                    let device = &mut self.devices[slot as usize];
                    device.connected = true;
                    self.tell(slot, now, Input::Connected);
                }
                ShardEvent::Arrived(place) => self.arrived(now, place),
                ShardEvent::Finished(slot) => self.finished(slot, now),
                ShardEvent::Dispatch => {
                    self.dispatch_timer = Time(u64::MAX);
                    self.news.push_back((now, load::DispatchEvent::Timeout));
                }
                ShardEvent::Timer(slot) => {
                    let device = &mut self.devices[slot as usize];
                    if device.timer == now {
                        device.timer = Time(u64::MAX);
                        // What it was queued for may be done, and the device ahead of it.
                        if device.wake == now {
                            self.tell(slot, now, Input::Timeout);
                        } else {
                            self.set_timer(slot);
                        }
                    }
                }
            }
            self.tell_dispatch();
        }
    }

    fn push(&mut self, at: Time, event: ShardEvent) {
        self.sequence = self.sequence.wrapping_add(1);
        self.calendar.push(QueuedEvent { at, rank: event.rank(), sequence: self.sequence }, event);
    }

    // ---- load --------------------------------------------------------------------------------------------------

    /// Tells the dispatch what has happened, and starts and stops what it says.
    fn tell_dispatch(&mut self) {
        while let Some((now, event)) = self.news.pop_front() {
            let mut orders = std::mem::take(&mut self.orders);
            self.dispatch.handle(now, event, &mut orders);
            for order in orders.drain(..) {
                self.carry_out_order(now, order);
            }
            self.orders = orders;
            self.set_dispatch_timer(now);
        }
    }

    fn set_dispatch_timer(&mut self, now: Time) {
        if let Some(at) = self.dispatch.poll_timeout().filter(|&at| at < self.dispatch_timer)
            && !self.dispatch.is_done()
        {
            self.dispatch_timer = at;
            self.push(at.max(now), ShardEvent::Dispatch);
        }
    }

    fn carry_out_order(&mut self, now: Time, order: DispatchOrder) {
        match order {
            DispatchOrder::Join(id) => self.tell(id.0 / SHARDS, now, Input::Join),
            DispatchOrder::Leave(id) => self.tell(id.0 / SHARDS, now, Input::Leave),
            DispatchOrder::Start { device: id, job, scheduled } => {
                // Jobs are numbered by the phase's own list.
                let work = self.fleet.job(job as u32);
                let slot = id.0 / SHARDS;
                let prompt_tokens = self.answers.start(slot, id, work.generation, job as u32);
                let device = &mut self.devices[slot as usize];
                device.generation = work.generation;
                (device.running, device.in_doubt) = (true, device.arriving > 0);
                self.running += 1;
                let target = device.machine.settings().latency_target;
                self.sink.started(id, work.generation, work.data_set, scheduled, target);
                let start = Start { generation: work.generation, data_set: work.data_set, prompt_tokens, scheduled };
                self.tell(slot, now, Input::Start(start));
            }
            DispatchOrder::Drop { device: id, job, scheduled } => {
                let work = self.fleet.job(job as u32);
                let settings = self.fleet.settings(id);
                let record = GenerationRecord::dropped(work.generation, id, work.data_set, 0, scheduled, settings);
                self.ended += 1;
                self.sink.finished(record);
            }
        }
    }

    // ---- devices -----------------------------------------------------------------------------------------------

    /// Tells a device's machine what has happened and carries out what it asks for, until it waits for somebody else or
    /// for a time that others may come before.
    fn tell(&mut self, slot: u32, now: Time, input: Input) {
        let mut now = now;
        let mut out = std::mem::take(&mut self.out);
        let device = &mut self.devices[slot as usize];
        assert!(device.now <= now, "a machine's time does not run backwards");
        device.machine.handle(now, input, &mut out);
        let wake = loop {
            let next = self.carry_out(slot, now, &mut out);
            let device = &mut self.devices[slot as usize];
            if let Some(input) = next {
                device.machine.handle(now, input, &mut out);
                continue;
            }
            let wake = device.machine.poll_timeout().map_or(Time(u64::MAX), |(at, reason)| {
                // What is overdue is due at once.
                let due = at.max(now);
                due + self.fleet.host().wake(reason, self.fleet.seed, device_at(slot, self.index), due)
            });
            // Nobody can reach a device that waits for nobody, so its next step need not queue. Unless it is called by a
            // verdict that crossed its cancel, or its link is lost meanwhile, which the pool must hear of in time.
            let alone = device.machine.waits_for_nobody() && !device.in_doubt;
            if !alone || device.machine.settings().outages.is_some() || wake >= device.leaves {
                break wake;
            }
            now = wake;
            device.machine.handle(now, Input::Timeout, &mut out);
        };
        self.out = out;
        let device = &mut self.devices[slot as usize];
        (device.now, device.wake) = (now, wake);
        self.set_timer(slot);
    }

    /// Carries out what the machine asks for; returns what it must be told at once.
    fn carry_out(&mut self, slot: u32, now: Time, out: &mut Vec<Output>) -> Option<Input> {
        let mut next = None;
        let id = device_at(slot, self.index);
        // In their places: what has just been written in parts is slow to move as a whole.
        for output in out.iter_mut() {
            match output {
                Output::Connect => {
                    let device = &mut self.devices[slot as usize];
                    device.connections += 1;
                    self.sequence = self.sequence.wrapping_add(1);
                    let event = ShardEvent::Dialled(slot);
                    self.calendar.push(QueuedEvent { at: now, rank: event.rank(), sequence: self.sequence }, event);
                }
                Output::Ready => self.news.push_back((now, load::DispatchEvent::Ready(id))),
                Output::Step(step) => {
                    next = Some(match self.answers.step(slot, step) {
                        Some(result) => Input::StepDone(result),
                        None => Input::StepFailed,
                    });
                }
                Output::Set { position, token } => self.answers.set(slot, *position, *token),
                Output::Upload(plan) => {
                    let (cargo, bytes) = self.answers.upload(slot, plan);
                    let request = request(plan, session(&self.devices[slot as usize], id));
                    self.send(now, id, PoolBody::Upload(request, cargo));
                    next = Some(Input::Sent { upload: plan.upload, bytes });
                }
                Output::Cancel(upload) => {
                    self.devices[slot as usize].in_doubt = true;
                    let device = &self.devices[slot as usize];
                    let (key, arrives) = (session(device, id), now + device.machine.settings().link.propagation());
                    self.send(arrives, id, PoolBody::Cancel(key, *upload));
                }
                Output::HangUp => {
                    let key = session(&self.devices[slot as usize], id);
                    self.devices[slot as usize].connected = false;
                    self.send(now, id, PoolBody::Disconnected(key.connection));
                }
                // The dispatch knows from the last generation's end.
                Output::Gone => {}
                Output::Record(record) => {
                    self.tokens += 1;
                    self.answers.commit(slot, record.position);
                    self.sink.round(id, self.devices[slot as usize].generation, record);
                }
                Output::Finished(record) => {
                    self.answers.finish(slot, record);
                    self.last_end = self.last_end.max(record.ended);
                    let finish = record.finish;
                    if let Output::Finished(record) = std::mem::replace(output, Output::Gone) {
                        self.sink.finished(*record);
                    }
                    let device = &mut self.devices[slot as usize];
                    (device.finish, device.running) = (finish, false);
                    self.push(now, ShardEvent::Finished(slot));
                }
            }
        }
        out.clear();
        next
    }

    /// A generation that a device may have run ahead to the end of is over now for everybody else too.
    fn finished(&mut self, slot: u32, now: Time) {
        let id = device_at(slot, self.index);
        self.running -= 1;
        self.ended += 1;
        let device = &self.devices[slot as usize];
        let (connected, finish, key) = (device.connected, device.finish, session(device, id));
        let arrives = now + device.machine.settings().link.propagation();
        if connected {
            self.send(arrives, id, PoolBody::Close(key));
        }
        self.news.push_back((now, load::DispatchEvent::Finished { device: id, finish }));
    }

    /// Queues a device's next wake, unless one that is queued is early enough.
    fn set_timer(&mut self, slot: u32) {
        let device = &mut self.devices[slot as usize];
        if device.wake < device.timer {
            device.timer = device.wake;
            let at = device.wake;
            self.push(at, ShardEvent::Timer(slot));
        }
    }
}
