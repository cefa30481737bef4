//! Waking up on time, and a clock of the host that leaves standstills out ([`HostClock`]).
//!
//! tokio's timers tick in milliseconds and round up, which is too coarse for emulated times of a few milliseconds:
//! whatever a device sleeps too long is booked as `overrun` or `waiting`. One thread per process that waits on a condition
//! variable is late by some 0.15 ms (tokio: 1.2 ms, medians on two busy cores), without spinning. Devices use it for their
//! emulated times, the pool for the longest wait of a batch.

mod host_clock;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use tokio::sync::oneshot;

pub use host_clock::HostClock;

/// The timer thread; cloning shares it. It ends when the last handle is dropped.
#[derive(Clone)]
pub struct Timer(Arc<Owner>);

/// What the handles share and the thread does not, so that the thread sees the last of them go.
struct Owner(Arc<TimerState>);

struct TimerState {
    alarms: Mutex<Alarms>,
    changed: Condvar,
}

#[derive(Default)]
struct Alarms {
    /// Numbered, so that two alarms for the same instant are two alarms.
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    next: u64,
    stopped: bool,
}

/// A future that is ready at its instant, never before it. Dropping it takes the alarm back.
pub struct Alarm {
    shared: Arc<TimerState>,
    key: (Instant, u64),
    rung: oneshot::Receiver<()>,
}

impl Timer {
    /// Starts the thread.
    pub fn start() -> io::Result<Timer> {
        let shared = Arc::new(TimerState { alarms: Mutex::default(), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("timer".to_owned()).spawn(move || of_thread.run())?;
        Ok(Timer(Arc::new(Owner(shared))))
    }

    /// Rings at `at`.
    pub fn at(&self, at: Instant) -> Alarm {
        let shared = Arc::clone(&self.0.0);
        let (ring, rung) = oneshot::channel();
        let mut alarms = shared.lock();
        let key = (at, alarms.next);
        alarms.next += 1;
        alarms.waiting.insert(key, ring);
        let is_first = alarms.waiting.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(alarms);
        if is_first {
            shared.changed.notify_one();
        }
        Alarm { shared, key, rung }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_one();
    }
}

impl TimerState {
    /// No code that holds the lock can panic half way, so a poisoned lock is still in order.
    fn lock(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut alarms = self.lock();
        while !alarms.stopped {
            let now = Instant::now();
            alarms = match alarms.waiting.first_key_value().map(|(&(at, _), _)| at) {
                None => self.changed.wait(alarms).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at > now => {
                    self.changed.wait_timeout(alarms, at - now).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    if let Some((_, ring)) = alarms.waiting.pop_first() {
                        // Nobody listens any more: fine.
                        let _ = ring.send(());
                    }
                    alarms
                }
            };
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The sender only goes away unsent when the last `Timer` does; whoever still waits then is woken too.
        Pin::new(&mut self.rung).poll(context).map(|_| ())
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn alarms_ring_in_time_and_in_order_and_are_taken_back() {
        let timer = Timer::start().expect("threads can be started");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let start = Instant::now();
            let late = timer.at(start + Duration::from_millis(6));
            let never = timer.at(start + Duration::from_secs(3600));
            let early = timer.at(start + Duration::from_millis(3));
            early.await;
            assert!(start.elapsed() >= Duration::from_millis(3));
            late.await;
            assert!(start.elapsed() >= Duration::from_millis(6));
            assert_eq!(timer.0.0.lock().waiting.len(), 1);
            drop(never);
            assert!(timer.0.0.lock().waiting.is_empty());
        });
    }

    /// Not a test of correctness but the figure that the module's documentation quotes:
    /// `cargo test --release -p specfleet-timer overshoot -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn overshoot() {
        let timer = Timer::start().expect("threads can be started");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let report = |name: &str, mut late: Vec<u64>| {
            late.sort_unstable();
            let at = |q: usize| late[(late.len() - 1) * q / 100] as f64 * 1e-3;
            println!("{name}: overshoot p50 {:.0} p90 {:.0} p99 {:.0} max {:.0} µs", at(50), at(90), at(99), at(100));
        };
        let (mut ours, mut tokios) = (Vec::new(), Vec::new());
        runtime.block_on(async {
            for step in 0..400_u64 {
                let at = Instant::now() + Duration::from_micros(1_000 + step * 7 % 3_000);
                timer.at(at).await;
                ours.push(at.elapsed().as_nanos() as u64);
                let at = Instant::now() + Duration::from_micros(1_000 + step * 7 % 3_000);
                tokio::time::sleep_until(at.into()).await;
                tokios.push(at.elapsed().as_nanos() as u64);
            }
        });
        report("timer thread", ours);
        report("tokio", tokios);
    }
}
