//! Who starts which job when, over one phase (one method's run through the workload): the same for the live fleet and the
//! simulated one.
//!
//! Call order: ask [`Dispatch::poll_timeout`] (at first it is the start of the phase) and, when that time has come, call
//! [`Dispatch::handle`] with [`DispatchEvent::Timeout`]; call it with the other events as they happen; carry out what it appended to
//! `out`, in order. Time must not run backwards. The phase is over when every instance's [`Dispatch::is_done`] says so.
//!
//! `Join` is answered by `Ready`, as often as the device says so; `Start` by `Finished`, once; `Leave` by nothing but the
//! `Finished` of a generation that was under way. A device whose generation ends for good
//! ([`FinishReason::is_last`](crate::record::FinishReason::is_last)) is not asked again.
//!
//! **Shards.** What happens to a device depends on its own events and on the phase's settings alone. So the devices may be
//! divided over several instances, each told of its own devices only, and every device is treated as one instance for all
//! would treat it. Each instance walks the whole sequence of arrivals and takes its devices' own.
//!
//! **Memory.** Eight bytes per device, and 16 to 24 per device that thinks, will leave, or has a request waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{ArrivalTimes, Backlog, Churn, Dropped, Load};
use crate::id::DeviceId;
use crate::record::FinishReason;
use crate::time::Time;

/// Which device does which job. Jobs are numbered from 0; the answers never change.
pub trait Jobs {
    /// How many there are.
    fn count(&self) -> u64;
    /// Whose job this is.
    fn device(&self, job: u64) -> DeviceId;
    /// The n-th job of a device, from 0, in ascending order.
    fn nth(&self, device: DeviceId, n: u32) -> Option<u64>;
}

/// Job i belongs to device i mod N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    pub jobs: u64,
    /// Number of devices N, at least 1.
    pub devices: u32,
}

impl Jobs for Turns {
    fn count(&self) -> u64 {
        self.jobs
    }

    fn device(&self, job: u64) -> DeviceId {
        // The remainder is less than a `u32`.
        DeviceId((job % u64::from(self.devices.max(1))) as u32)
    }

    fn nth(&self, device: DeviceId, n: u32) -> Option<u64> {
        let job = u64::from(n) * u64::from(self.devices) + u64::from(device.0);
        Some(job).filter(|&job| device.0 < self.devices && job < self.jobs)
    }
}

/// The phase to run.
#[derive(Clone, Copy, Debug)]
pub struct DispatchPhase<'a> {
    pub load: &'a Load,
    /// When they come and go.
    pub churn: Churn,
    pub seed: u64,
    /// Devices of the whole fleet.
    pub devices: u32,
    /// When the phase begins.
    pub start: Time,
}

/// The devices d with d mod `of` = `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatchShard {
    pub index: u32,
    /// Of how many, at least 1.
    pub of: u32,
}

impl DispatchShard {
    /// All devices.
    pub const WHOLE: DispatchShard = DispatchShard { index: 0, of: 1 };

    fn has(self, device: DeviceId) -> bool {
        device.0 % self.of == self.index
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispatchEvent {
    /// The time of [`Dispatch::poll_timeout`] has come.
    Timeout,
    /// A device can start a generation.
    Ready(DeviceId),
    /// A device's generation is over.
    Finished { device: DeviceId, finish: FinishReason },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispatchOrder {
    /// The device comes: switch it on.
    Join(DeviceId),
    /// The device, which is ready and free, starts a job.
    Start {
        device: DeviceId,
        job: u64,
        /// When it was due, now or earlier.
        scheduled: Time,
    },
    /// A job is dropped: record it ([`GenerationRecord::dropped`](crate::record::GenerationRecord::dropped)).
    Drop {
        device: DeviceId,
        job: u64,
        /// When it was due.
        scheduled: Time,
    },
    /// The device goes, whatever it does.
    Leave(DeviceId),
}

/// Gives the requests of a phase to the devices of one shard.
#[derive(Clone, Debug)]
pub struct Dispatch<'a, J> {
    phase: DispatchPhase<'a>,
    jobs: J,
    shard: DispatchShard,
    /// By (number − index) / of.
    devices: Vec<Slot>,
    /// Place in `devices` of the one that joins next. They join in the order of their numbers.
    joining: u32,
    /// Times at which users have thought and devices leave.
    timers: BinaryHeap<Reverse<(Time, DispatchTimer, DeviceId)>>,
    arrivals: Option<ArrivingRequest<'a>>,
    /// Requests of devices that are not free, by device.
    backlogs: BTreeMap<DeviceId, Backlog<u64>>,
    running: u32,
    /// Closed loop: devices that have jobs left.
    unfinished: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: DispatchState,
    /// Closed loop: jobs started.
    started: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DispatchState {
    /// Not there yet, or not ready yet.
    Away,
    Free,
    Busy,
    /// Runs a generation and will not run another.
    Leaving,
    Gone,
}

/// In this order where both are due at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DispatchTimer {
    Thought,
    Leaves,
}

/// The arrivals of the whole fleet.
#[derive(Clone, Debug)]
struct ArrivingRequest<'a> {
    times: ArrivalTimes<'a>,
    /// The next job of this shard and when it arrives, since the start of the phase.
    next: Option<(Time, u64)>,
    /// Jobs that `times` has been asked for.
    asked: u64,
    /// Most requests that wait for one device.
    backlog: u32,
}

impl<'a, J: Jobs> Dispatch<'a, J> {
    /// A phase that has not begun.
    pub fn new(phase: DispatchPhase<'a>, jobs: J, shard: DispatchShard) -> Dispatch<'a, J> {
        let own = phase.devices.saturating_sub(shard.index).div_ceil(shard.of);
        let mut dispatch = Dispatch {
            phase,
            shard,
            devices: vec![Slot { state: DispatchState::Away, started: 0 }; own as usize],
            joining: 0,
            timers: BinaryHeap::new(),
            arrivals: None,
            backlogs: BTreeMap::new(),
            running: 0,
            unfinished: 0,
            jobs,
        };
        match phase.load {
            Load::Closed { .. } => {
                let has_work = |place: &u32| dispatch.jobs.nth(dispatch.device(*place), 0).is_some();
                dispatch.unfinished = (0..own).filter(has_work).count() as u32;
            }
            Load::Open { arrivals, backlog } => {
                let times = arrivals.times(phase.seed);
                dispatch.arrivals = Some(ArrivingRequest { times, next: None, asked: 0, backlog: *backlog });
                dispatch.next_arrival();
            }
        }
        dispatch.skip_idle();
        dispatch
    }

    /// Takes in what happened at `now` and appends what to do about it to `out`.
    pub fn handle(&mut self, now: Time, event: DispatchEvent, out: &mut Vec<DispatchOrder>) {
        match event {
            DispatchEvent::Timeout => self.timeout(now, out),
            DispatchEvent::Ready(device) => {
                if self.slot(device).is_some_and(|slot| slot.state == DispatchState::Away) {
                    self.free(now, device, out);
                }
            }
            DispatchEvent::Finished { device, finish } => self.finished(now, device, finish, out),
        }
    }

    /// When to call [`Self::handle`] with [`DispatchEvent::Timeout`], unless the phase is over before.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.next_due().map(|(at, _)| at)
    }

    /// Whether all is done: every job has finished or was dropped, but for those of devices that are gone (closed loop) and
    /// those that never arrive (open loop).
    pub fn is_done(&self) -> bool {
        let coming = self.arrivals.as_ref().is_some_and(|arriving| arriving.next.is_some());
        self.running == 0 && self.unfinished == 0 && !coming && self.backlogs.is_empty()
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// Everything that is due, in order.
    fn timeout(&mut self, now: Time, out: &mut Vec<DispatchOrder>) {
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= now) {
            match due {
                DueEvent::Join => self.join(at, out),
                DueEvent::Arrival => self.arrive(at, out),
                DueEvent::Timer => {
                    if let Some(Reverse((_, timer, device))) = self.timers.pop() {
                        match timer {
                            DispatchTimer::Thought => self.start_next(device, at, out),
                            DispatchTimer::Leaves => self.leave(device, out),
                        }
                    }
                }
            }
        }
    }

    fn next_due(&self) -> Option<(Time, DueEvent)> {
        let join = (self.joining < self.devices.len() as u32).then(|| {
            let offset = self.phase.churn.joins(self.device(self.joining), self.phase.devices);
            (self.since_start(offset), DueEvent::Join)
        });
        let arrival = self.arrivals.as_ref().and_then(|arriving| arriving.next);
        let arrival = arrival.map(|(at, _)| (self.since_start(at), DueEvent::Arrival));
        let timer = self.timers.peek().map(|Reverse((at, _, _))| (*at, DueEvent::Timer));
        [join, arrival, timer].into_iter().flatten().min()
    }

    fn since_start(&self, offset: Time) -> Time {
        self.phase.start + offset.since(Time::ZERO)
    }

    fn join(&mut self, at: Time, out: &mut Vec<DispatchOrder>) {
        let device = self.device(self.joining);
        self.joining += 1;
        self.skip_idle();
        out.push(DispatchOrder::Join(device));
        if let Some(leaves) = self.phase.churn.leaves(self.phase.seed, device, self.phase.devices) {
            self.timers.push(Reverse((self.since_start(leaves).max(at), DispatchTimer::Leaves, device)));
        }
    }

    /// Devices without a job never join.
    fn skip_idle(&mut self) {
        while (self.joining as usize) < self.devices.len() && self.jobs.nth(self.device(self.joining), 0).is_none() {
            self.joining += 1;
        }
    }

    fn leave(&mut self, device: DeviceId, out: &mut Vec<DispatchOrder>) {
        let Some(Slot { state, started }) = self.slot(device) else { return };
        match state {
            DispatchState::Away | DispatchState::Free => {
                if self.arrivals.is_none() && self.jobs.nth(device, started).is_some() {
                    self.unfinished -= 1;
                }
                out.push(DispatchOrder::Leave(device));
                self.gone(device, out);
            }
            DispatchState::Busy => {
                out.push(DispatchOrder::Leave(device));
                self.set(device, DispatchState::Leaving);
            }
            DispatchState::Leaving | DispatchState::Gone => {}
        }
    }

    // ---- arrivals ----------------------------------------------------------------------------------------------

    fn arrive(&mut self, at: Time, out: &mut Vec<DispatchOrder>) {
        let Some((_, job)) = self.arrivals.as_mut().and_then(|arriving| arriving.next.take()) else { return };
        self.next_arrival();
        let device = self.jobs.device(job);
        match self.slot(device).map(|slot| slot.state) {
            Some(DispatchState::Free) => self.start(device, job, at, out),
            Some(DispatchState::Away | DispatchState::Busy) => {
                let most = self.arrivals.as_ref().map_or(0, |arriving| arriving.backlog);
                let waiting = self.backlogs.entry(device).or_insert_with(|| Backlog::new(most));
                if let Err(Dropped(job)) = waiting.offer(at, job) {
                    out.push(DispatchOrder::Drop { device, job, scheduled: at });
                }
                if waiting.is_empty() {
                    self.backlogs.remove(&device);
                }
            }
            Some(DispatchState::Leaving | DispatchState::Gone) | None => {
                out.push(DispatchOrder::Drop { device, job, scheduled: at })
            }
        }
    }

    /// Walks the common sequence to this shard's next.
    fn next_arrival(&mut self) {
        let Some(arriving) = &mut self.arrivals else { return };
        while arriving.asked < self.jobs.count() {
            let Some(at) = arriving.times.next() else { return };
            let job = arriving.asked;
            arriving.asked += 1;
            if self.shard.has(self.jobs.device(job)) {
                arriving.next = Some((at, job));
                return;
            }
        }
    }

    // ---- devices -----------------------------------------------------------------------------------------------

    fn finished(&mut self, now: Time, device: DeviceId, finish: FinishReason, out: &mut Vec<DispatchOrder>) {
        let Some(Slot { state, started }) = self.slot(device) else { return };
        if !matches!(state, DispatchState::Busy | DispatchState::Leaving) {
            return;
        }
        self.running -= 1;
        let last = state == DispatchState::Leaving || finish.is_last();
        if self.arrivals.is_none() && (last || self.jobs.nth(device, started).is_none()) {
            self.unfinished -= 1;
        }
        if last {
            self.gone(device, out);
        } else {
            self.free(now, device, out);
        }
    }

    /// The device can start: what waits for it, or after its user has thought.
    fn free(&mut self, now: Time, device: DeviceId, out: &mut Vec<DispatchOrder>) {
        self.set(device, DispatchState::Free);
        if self.arrivals.is_some() {
            let Some(waiting) = self.backlogs.get_mut(&device) else { return };
            let oldest = waiting.take();
            if waiting.is_empty() {
                self.backlogs.remove(&device);
            }
            if let Some((scheduled, job)) = oldest {
                self.start(device, job, scheduled, out);
            }
            return;
        }
        let started = self.slot(device).map_or(0, |slot| slot.started);
        if self.jobs.nth(device, started).is_none() {
            return;
        }
        let thought = now + self.phase.load.think(self.phase.seed, device, started);
        if thought > now {
            self.timers.push(Reverse((thought, DispatchTimer::Thought, device)));
        } else {
            self.start_next(device, now, out);
        }
    }

    /// Closed loop: the device's next job, unless it has left meanwhile.
    fn start_next(&mut self, device: DeviceId, scheduled: Time, out: &mut Vec<DispatchOrder>) {
        let Some(Slot { state: DispatchState::Free, started }) = self.slot(device) else { return };
        if let Some(job) = self.jobs.nth(device, started) {
            self.start(device, job, scheduled, out);
        }
    }

    fn start(&mut self, device: DeviceId, job: u64, scheduled: Time, out: &mut Vec<DispatchOrder>) {
        let Some(slot) = self.slot_mut(device) else { return };
        slot.state = DispatchState::Busy;
        slot.started += 1;
        self.running += 1;
        out.push(DispatchOrder::Start { device, job, scheduled });
    }

    /// The device is gone: nobody answers what waits for it.
    fn gone(&mut self, device: DeviceId, out: &mut Vec<DispatchOrder>) {
        self.set(device, DispatchState::Gone);
        let mut waiting = self.backlogs.remove(&device);
        while let Some((scheduled, job)) = waiting.as_mut().and_then(Backlog::take) {
            out.push(DispatchOrder::Drop { device, job, scheduled });
        }
    }

    fn device(&self, place: u32) -> DeviceId {
        DeviceId(place * self.shard.of + self.shard.index)
    }

    fn place(&self, device: DeviceId) -> Option<usize> {
        self.shard.has(device).then_some((device.0 / self.shard.of) as usize)
    }

    fn slot(&self, device: DeviceId) -> Option<Slot> {
        self.devices.get(self.place(device)?).copied()
    }

    fn slot_mut(&mut self, device: DeviceId) -> Option<&mut Slot> {
        let place = self.place(device)?;
        self.devices.get_mut(place)
    }

    fn set(&mut self, device: DeviceId, state: DispatchState) {
        if let Some(slot) = self.slot_mut(device) {
            slot.state = state;
        }
    }
}

/// What a timeout is about; in this order where several are due at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DueEvent {
    Join,
    Arrival,
    Timer,
}

#[cfg(test)]
mod tests;
