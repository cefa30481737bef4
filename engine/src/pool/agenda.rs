//! What a live pool's machine is told next, and when.
//!
//! A pool whose batches are charged a declared or fitted cost must not know how fast, or how busy, the machine is that
//! emulates it \[ours\]. So its machine is told of everything at the time at which it happens by the declared times, in the
//! order of these times: of an upload when it arrives by the clock of its device, of a batch when it is over by what it is
//! charged. While a batch that should be over is still computed nothing that comes after it is told, so a host that is too
//! slow makes such a pool slower and changes none of its figures.
//!
//! Devices on the same clock send their uploads ahead and promise until when nothing of them arrives
//! ([`crate::device::DeviceClock`]): nothing is told that a device may come before. One that keeps silent after its promise
//! holds the pool up for [`MOST_HELD`] once; an upload that comes too late arrives when it comes.
//!
//! A pool that charges what its verifiers take is told of everything at once, at the host's time.

use std::collections::BTreeMap;

use super::message::Input;
use crate::id::{ConnectionId, DeviceId, VerifierId};
use crate::time::{Span, Time};

/// A time that does not come.
const NEVER: Time = Time(u64::MAX);

/// How long a host may take to bring what was due to an emulated pool from devices that promise nothing.
const GRACE: Span = Span::from_millis(2);

/// How long nothing is told because a device may come before.
const MOST_HELD: Span = Span::from_millis(10_000);

/// How much of that is looked at together: where the whole host stood still for longer, the device did too.
const HELD_AT_A_TIME: Span = Span::from_millis(1_000);

/// How far ahead of the host a device may send: further than any link takes for an upload that somebody waits for.
const MOST_AHEAD: Span = Span::from_millis(60_000);

/// Orders what arrives at an emulated pool by the shared clock. `C`: what a driver keeps with an input.
#[derive(Debug)]
pub struct Agenda<C> {
    emulated: bool,
    /// How long it waits for what may be on its way.
    grace: Span,
    now: Time,
    waiting: BTreeMap<DueJob, WaitingJob<C>>,
    next: u64,
    /// When the batches that are being computed are over by what they are charged.
    computing: BTreeMap<VerifierId, Time>,
    /// Devices on the same clock.
    promises: BTreeMap<ConnectionId, Promise>,
    /// For how long nothing is told because of them, and until when that was counted.
    held: Option<(Span, Time)>,
    late: u64,
}

/// An input that waits for its time, and the connection that it came over.
#[derive(Debug)]
struct WaitingJob<C> {
    input: Input,
    cargo: C,
    connection: Option<ConnectionId>,
}

/// What a device has said.
#[derive(Clone, Copy, Debug)]
struct Promise {
    device: u32,
    /// Nothing arrives before; `None` while an upload waits for its answer.
    until: Option<Time>,
    after_answer: Span,
    /// Frames of it that wait for their time: nothing else of it arrives before them.
    waiting: u32,
    /// It has held everything up for too long: it is waited for no more.
    broken: bool,
}

/// When; at the same time results by verifier, then frames by device, then the rest, each in the order in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DueJob(Time, Rank, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Result(VerifierId),
    /// By device, so that it does not matter whose frame came first.
    Device(u32),
    Outside,
}

/// What a driver does next.
#[derive(Debug)]
pub enum NextInput<C> {
    /// Tell the machine of this, at this time; `None` for its timeout.
    Now(Time, Option<(Input, C)>),
    /// Nothing before this time of the host.
    At(Time),
    /// Nothing before something happens.
    Nothing,
}

impl<C> Agenda<C> {
    /// Nothing yet. `emulated`: the pool's batches are charged a cost ([`super::PoolSettings::cost`]). `shares_clock`: its
    /// devices go by the same clock.
    pub fn new(now: Time, emulated: bool, shares_clock: bool) -> Agenda<C> {
        Agenda {
            emulated,
            grace: if emulated && shares_clock { GRACE } else { Span::ZERO },
            now,
            waiting: BTreeMap::new(),
            next: 0,
            computing: BTreeMap::new(),
            promises: BTreeMap::new(),
            held: None,
            late: 0,
        }
    }

    /// The machine's time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How much came from devices when what it should have come before was done.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// When something arrives that came from a device at `host`; `claimed`: when it arrives by the clock of the device.
    pub fn arrival(&self, claimed: Option<Time>, host: Time) -> Time {
        claimed.filter(|&at| self.emulated && at.since(host) <= MOST_AHEAD).unwrap_or(host)
    }

    /// Something comes from a device, and arrives at `at`; so nothing else of it arrives before.
    pub fn arrive(&mut self, connection: ConnectionId, at: Time, input: Input, cargo: C) {
        // A close may come after the account of its phase has ended, and changes nothing there.
        self.late += u64::from(at < self.now && !matches!(input, Input::Close(_)));
        match self.promises.get_mut(&connection) {
            Some(promise) => {
                promise.waiting += 1;
                let rank = Rank::Device(promise.device);
                self.push(at, rank, WaitingJob { input, cargo, connection: Some(connection) });
            }
            None => self.push(at, Rank::Outside, WaitingJob { input, cargo, connection: None }),
        }
    }

    /// A device on the same clock promises that nothing of it arrives before `until`, nor within `after_answer` of an answer.
    pub fn promise(&mut self, connection: ConnectionId, device: DeviceId, until: Time, after_answer: Span) {
        let DeviceId(device) = device;
        if self.emulated {
            let known = self.promises.get(&connection);
            let broken = known.is_some_and(|promise| promise.broken);
            let waiting = known.map_or(0, |promise| promise.waiting);
            let until = Some(until).filter(|&until| until != NEVER && !broken);
            self.promises.insert(connection, Promise { device, until, after_answer, waiting, broken });
        }
    }

    /// The last answer to a device's upload leaves the pool now.
    pub fn answered(&mut self, connection: ConnectionId) {
        let now = self.now;
        if let Some(promise) = self.promises.get_mut(&connection) {
            promise.until = Some(now + promise.after_answer).filter(|_| !promise.broken);
        }
    }

    /// The device is gone.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.promises.remove(&connection);
    }

    /// Whether nothing waits for its time.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The machine has started a batch that is over at `release` ([`super::Batch::release`]).
    pub fn started(&mut self, verifier: VerifierId, release: Time) {
        if self.emulated {
            self.computing.insert(verifier, release);
        }
    }

    /// The verifier's batch is computed.
    pub fn computed(&mut self, verifier: VerifierId, host: Time, input: Input, cargo: C) {
        let over = self.computing.remove(&verifier).unwrap_or(host);
        self.push(over, Rank::Result(verifier), WaitingJob { input, cargo, connection: None });
    }

    /// The verifier has failed, with all that it held. The machine is told at once, at the time that this gives: it must start
    /// nothing on one that is gone.
    pub fn failed(&mut self, verifier: VerifierId, host: Time) -> Time {
        self.computing.remove(&verifier);
        self.waiting.retain(|DueJob(_, rank, _), _| *rank != Rank::Result(verifier));
        if !self.emulated {
            self.now = self.now.max(host);
        }
        self.now
    }

    /// Anything else happens.
    pub fn happen(&mut self, host: Time, input: Input, cargo: C) {
        self.push(host, Rank::Outside, WaitingJob { input, cargo, connection: None });
    }

    /// Another phase of the run begins, at `at` by the clock of the devices where all of them share one.
    pub fn next_phase(&mut self, at: Option<Time>, host: Time) -> Time {
        self.now = self.now.max(at.filter(|_| self.emulated).unwrap_or(host));
        self.now
    }

    fn push(&mut self, at: Time, rank: Rank, waiting: WaitingJob<C>) {
        self.waiting.insert(DueJob(at.max(self.now), rank, self.next), waiting);
        self.next += 1;
    }

    /// What comes first of all that waits and the machine's `timeout`, if its time has come at `host`; it is taken out.
    pub fn next(&mut self, timeout: Option<Time>, host: Time) -> NextInput<C> {
        let first = self.waiting.first_key_value().map(|(&DueJob(at, ..), _)| at);
        let is_timeout = timeout.is_some_and(|at| first.is_none_or(|first| at < first));
        let Some(at) = (if is_timeout { timeout } else { first }) else { return NextInput::Nothing };
        let at = at.max(self.now);
        if self.computing.values().any(|&release| release <= at) {
            return NextInput::Nothing;
        }
        let rank = self.waiting.first_key_value().filter(|_| !is_timeout).map(|(&DueJob(_, rank, _), _)| rank);
        if self.is_held(at, rank, host) {
            return NextInput::At(host + HELD_AT_A_TIME);
        }
        if at + self.grace > host {
            return NextInput::At(at + self.grace);
        }
        self.now = if self.emulated { at } else { host };
        let taken = if is_timeout { None } else { self.waiting.pop_first() };
        if let Some((_, waiting)) = &taken {
            self.told(waiting.connection, matches!(waiting.input, Input::Upload(_)));
        }
        NextInput::Now(self.now, taken.map(|(_, WaitingJob { input, cargo, .. })| (input, cargo)))
    }

    /// The machine is told of a frame that came over this connection: what follows comes later, and after an upload, when that
    /// is answered.
    fn told(&mut self, connection: Option<ConnectionId>, awaits: bool) {
        let now = self.now;
        let promise = connection.and_then(|connection| self.promises.get_mut(&connection));
        if let Some(promise) = promise {
            promise.waiting = promise.waiting.saturating_sub(1);
            let until = promise.until.map_or(now, |until| until.max(now));
            promise.until = (!awaits && !promise.broken).then_some(until);
        }
    }

    /// Whether a device may come before what happens at `at`, by its rank (`None`: the machine's timeout, which comes last).
    /// Those that hold everything up for too long are waited for no more.
    fn is_held(&mut self, at: Time, rank: Option<Rank>, host: Time) -> bool {
        let comes_before = |promise: &Promise| {
            let first = rank.is_none_or(|rank| Rank::Device(promise.device) < rank);
            promise.waiting == 0 && promise.until.is_some_and(|until| until < at || until == at && first)
        };
        if !self.promises.values().any(comes_before) {
            self.held = None;
            return false;
        }
        let (held, counted) = self.held.get_or_insert((Span::ZERO, host));
        *held += host.since(*counted).min(HELD_AT_A_TIME);
        *counted = host;
        if *held < MOST_HELD {
            return true;
        }
        self.held = None;
        for promise in self.promises.values_mut().filter(|promise| comes_before(promise)) {
            (promise.until, promise.broken) = (None, true);
        }
        false
    }
}
