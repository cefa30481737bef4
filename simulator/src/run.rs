//! Window after window until a phase is over, on any number of threads.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use specfleet_engine::id::PhaseId;
use specfleet_engine::pool::{PoolMachine, PoolSettings};
use specfleet_engine::time::{Span, Time};

use crate::answers::{DeviceAnswers, PoolAnswers};
use crate::fleet::{Fleet, SHARDS};
use crate::pool::{PoolSetup, SimulatedPool};
use crate::rendezvous::Rendezvous;
use crate::shard::Shard;
use crate::sink::{DeviceSink, PoolSink};

/// What cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimulationError {
    /// A link that takes no virtual time.
    #[error(
        "link {link:?} has no modelled delay: a simulation needs an emulated link with a round trip of at least 4 ns"
    )]
    NoDelay { link: String },
    /// The clock has no room for what is due next.
    #[error(
        "virtual time has come to its end, after 584 years, with {ended} of the phase's generations over: what is left \
         would never end"
    )]
    TimeIsOver {
        /// Generations of the phase that were over by then.
        ended: u64,
    },
}

/// How far a phase is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimulationProgress {
    /// Virtual time since the start of the run.
    pub now: Time,
    /// Windows worked off in this phase.
    pub windows: u64,
    /// Generations that are over, dropped requests included.
    pub ended: u64,
    pub tokens: u64,
    /// Events taken from all queues.
    pub events: u64,
}

/// What a phase came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub progress: SimulationProgress,
    /// When its last generation ended.
    pub last_end: Time,
    pub batches: u64,
    /// Tokens fed in them.
    pub work: u64,
    /// Whether the observer ended it early.
    pub stopped: bool,
}

/// Shows every shard's sink to a visitor.
type Each<'a, S> = &'a mut dyn FnMut(&mut dyn FnMut(&mut S));

/// The sinks between two windows.
pub struct Sinks<'a, S, K> {
    shards: Each<'a, S>,
    pub pool: &'a mut K,
}

impl<S, K> Sinks<'_, S, K> {
    /// Calls `visit` with each shard's sink, in the order of the shards.
    pub fn each(&mut self, mut visit: impl FnMut(&mut S)) {
        (self.shards)(&mut visit);
    }
}

/// A run in virtual time: the pool, and one phase of devices after another.
pub struct Simulation<A: PoolAnswers, K> {
    pool: Mutex<SimulatedPool<A, K>>,
    now: Time,
    threads: usize,
}

impl<A: PoolAnswers, K: PoolSink> Simulation<A, K> {
    /// A pool at time zero. `threads`: at least 1; changes no result, and more than there are tasks in a window are not started.
    pub fn new(setup: PoolSetup, threads: usize, answers: A, sink: K) -> Simulation<A, K> {
        let settings = PoolSettings { phase: PhaseId::BETWEEN, ..setup.settings };
        let pool = SimulatedPool::new(PoolSetup { settings, ..setup }, answers, sink);
        Simulation { pool: Mutex::new(pool), now: Time::ZERO, threads: threads.clamp(1, SHARDS as usize + 1) }
    }

    /// When the next phase would start.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The pool's machine, as the last phase has left it.
    pub fn machine(&mut self) -> &PoolMachine {
        &self.pool.get_mut().unwrap_or_else(PoisonError::into_inner).machine
    }

    /// Faults that have struck.
    pub fn killed(&mut self) -> u32 {
        lock(&self.pool).killed
    }

    /// The pool's sink, at the end.
    pub fn into_sink(self) -> K {
        self.pool.into_inner().unwrap_or_else(PoisonError::into_inner).sink
    }

    /// Runs `fleet` until every request is answered or dropped, or `observe` breaks off. `sides`: for each shard in order
    /// its answers and its sink, which come back. `observe` is called between windows, on this thread.
    pub fn phase<D, S>(
        &mut self,
        phase: PhaseId,
        fleet: &Fleet,
        sides: Vec<(D, S)>,
        mut observe: impl FnMut(&SimulationProgress, Sinks<'_, S, K>) -> ControlFlow<()>,
    ) -> Result<(Totals, Vec<S>), SimulationError>
    where
        D: DeviceAnswers<Upload = A::Upload, Verdict = A::Verdict>,
        S: DeviceSink,
    {
        let window = window_of(fleet)?;
        let start = fleet.start;
        lock(&self.pool).next_phase(start, phase);
        let mut index = 0;
        let shards: Vec<Mutex<Shard<'_, D, S>>> = sides
            .into_iter()
            .map(|(answers, sink)| {
                index += 1;
                Mutex::new(Shard::new(index - 1, fleet, window, answers, sink))
            })
            .collect();
        let work = ShardWork {
            shards: &shards,
            pool: &self.pool,
            next: AtomicUsize::new(0),
            span: Mutex::new((start, start, start)),
            over: AtomicBool::new(false),
            barrier: Rendezvous::default(),
            panic: Mutex::new(None),
        };
        let totals = thread::scope(|scope| {
            // A system that has no room for more threads has room for fewer. The first task is this thread's own.
            let helpers = 1..self.threads;
            let started = helpers.map_while(|_| thread::Builder::new().spawn_scoped(scope, || work.help()).ok());
            work.barrier.expect(1 + started.count());
            let totals = catch_unwind(AssertUnwindSafe(|| work.lead(window, start, &mut observe)));
            work.over.store(true, Ordering::Release);
            work.barrier.wait();
            totals.unwrap_or_else(|panic| resume_unwind(panic))
        })?;
        let end = totals.progress.now.max(totals.last_end);
        {
            let mut pool = lock(&self.pool);
            // It is one window behind: a fault or a restart may be due before the end.
            pool.window(end);
            pool.next_phase(end, PhaseId::BETWEEN);
        }
        self.now = end;
        let sinks =
            shards.into_iter().map(|shard| shard.into_inner().unwrap_or_else(PoisonError::into_inner).sink).collect();
        Ok((totals, sinks))
    }
}

/// Half the smallest delay from the pool to a device: what the pool emits in one window is due two windows later at the
/// earliest, which leaves one for devices and pool to work side by side.
fn window_of(fleet: &Fleet) -> Result<Span, SimulationError> {
    let mut window = Span(u64::MAX);
    for link in fleet.links() {
        let delay = if link.emulated { link.round_trip.0 / 2 } else { 0 };
        if delay < 2 {
            return Err(SimulationError::NoDelay { link: link.name.clone() });
        }
        window = window.min(Span(delay / 2));
    }
    Ok(window)
}

/// What the threads of a phase share.
struct ShardWork<'a, 'f, D: DeviceAnswers, S, A: PoolAnswers, K> {
    shards: &'a [Mutex<Shard<'f, D, S>>],
    pool: &'a Mutex<SimulatedPool<A, K>>,
    /// The next task of this step: 0 is the pool, the others are shards.
    next: AtomicUsize,
    /// Start and end of the devices' window, and end of the pool's.
    span: Mutex<(Time, Time, Time)>,
    over: AtomicBool,
    barrier: Rendezvous,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<D, S, A, K> ShardWork<'_, '_, D, S, A, K>
where
    A: PoolAnswers,
    D: DeviceAnswers<Upload = A::Upload, Verdict = A::Verdict>,
    S: DeviceSink,
    K: PoolSink,
{
    fn help(&self) {
        loop {
            self.barrier.wait();
            if self.over.load(Ordering::Acquire) {
                return;
            }
            self.tasks();
            self.barrier.wait();
        }
    }

    /// Takes tasks until none is left. A panic is kept for the leader: a thread that missed a barrier would leave the
    /// others waiting for ever.
    fn tasks(&self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks())) {
            lock(&self.panic).get_or_insert(panic);
        }
    }

    fn take_tasks(&self) {
        let (start, end, pool_end) = *lock(&self.span);
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task == 0 {
                lock(self.pool).window(pool_end);
            } else if let Some(shard) = self.shards.get(task - 1) {
                lock(shard).window(start, end);
            } else {
                return;
            }
        }
    }

    fn lead(
        &self,
        window: Span,
        start: Time,
        observe: &mut impl FnMut(&SimulationProgress, Sinks<'_, S, K>) -> ControlFlow<()>,
    ) -> Result<Totals, SimulationError> {
        // Times are held at the largest that there is: what would be due later seems due there, again and again.
        let last = (u64::MAX / window.0).saturating_sub(2);
        // Windows are numbered from time zero, as calendars number them.
        let mut number = start.0 / window.0;
        let mut windows = 0;
        loop {
            let starts = Time(number * window.0);
            *lock(&self.span) = (starts, starts + window, starts);
            self.next.store(0, Ordering::Release);
            self.barrier.wait();
            self.tasks();
            self.barrier.wait();
            if let Some(panic) = lock(&self.panic).take() {
                resume_unwind(panic);
            }
            windows += 1;
            let handed_over = self.exchange();
            let (mut progress, last_end, done) = self.look(starts + window, windows);
            let flow = {
                let pool = &mut *lock(self.pool);
                let mut each = |visit: &mut dyn FnMut(&mut S)| {
                    for shard in self.shards {
                        visit(&mut lock(shard).sink);
                    }
                };
                progress.events += pool.events;
                observe(&progress, Sinks { shards: &mut each, pool: &mut pool.sink })
            };
            let idle = lock(self.pool).is_idle();
            if flow.is_break() || (done && idle && !handed_over) {
                let pool = lock(self.pool);
                let (batches, work) = (pool.batches, pool.work);
                return Ok(Totals { progress, last_end, batches, work, stopped: flow.is_break() });
            }
            number += 1;
            // Nothing under way and nothing due for a while: skip the empty windows.
            if !handed_over && let Some(next) = self.next(window) {
                number = number.max(next);
            }
            if number > last {
                return Err(SimulationError::TimeIsOver { ended: progress.ended });
            }
        }
    }

    /// Hands over what shards and pool have sent each other. Returns whether there was anything.
    fn exchange(&self) -> bool {
        let mut pool = lock(self.pool);
        let mut handed_over = false;
        for (index, shard) in self.shards.iter().enumerate() {
            let mut shard = lock(shard);
            handed_over |= !shard.outbox.is_empty() || !pool.outbox[index].is_empty();
            // Both have worked off what they were handed before.
            std::mem::swap(&mut shard.outbox, &mut pool.inbox[index]);
            std::mem::swap(&mut shard.inbox, &mut pool.outbox[index]);
        }
        handed_over
    }

    /// The number of the next window in which something is due.
    fn next(&self, window: Span) -> Option<u64> {
        let shards = self.shards.iter().filter_map(|shard| lock(shard).next()).map(|at| at.0 / window.0);
        // The pool is one window behind.
        let pool = lock(self.pool).next().map(|at| at.0 / window.0 + 1);
        shards.chain(pool).min()
    }

    fn look(&self, now: Time, windows: u64) -> (SimulationProgress, Time, bool) {
        let mut progress = SimulationProgress { now, windows, ..SimulationProgress::default() };
        let mut last_end = Time::ZERO;
        let mut done = true;
        for shard in self.shards {
            let shard = lock(shard);
            progress.ended += shard.ended;
            progress.tokens += shard.tokens;
            progress.events += shard.events;
            last_end = last_end.max(shard.last_end);
            done &= shard.is_done();
        }
        (progress, last_end, done)
    }
}

/// A panic on one thread ends the phase: the scope passes it on. What it held is not used again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
