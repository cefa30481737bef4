//! The host's clock, without the time for which the whole process stood still.
//!
//! A process that is stopped, or whose machine is suspended, must charge that to nobody. So everything of a run reads one
//! clock, which looks at each reading whether the process has run since it was last seen: a heartbeat looks every
//! [`BEAT`], and whoever reads the clock is seen too. A gap that is a standstill
//! ([`specfleet_engine::disturbance::is_standstill`]) is left out of this reading and of all that follow. The one that
//! wakes first finds the gap, whoever that is, so nobody sees a time with the gap in it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use specfleet_engine::disturbance::{STANDSTILL, Standstill, is_standstill};
use specfleet_engine::time::{Span, Time};

/// How often the heartbeat looks.
const BEAT: Duration = Duration::from_millis(50);

/// Time since the start of a run, by the host's clock without standstills; cloning shares it. Its heartbeat ends when the
/// last handle is dropped.
#[derive(Clone)]
pub struct HostClock(Arc<ClockState>);

struct ClockState {
    origin: Instant,
    watch: Mutex<StandstillWatch>,
}

/// What has been seen of the process.
#[derive(Debug)]
struct StandstillWatch {
    /// That may run at a time.
    processors: usize,
    /// When it was last seen to run, since the origin and with standstills.
    seen: Span,
    /// The processor time that it had taken then or before, when somebody last asked.
    used: Option<Span>,
    skipped: Span,
    standstills: Vec<Standstill>,
}

impl HostClock {
    /// A clock that starts now.
    pub fn start() -> io::Result<HostClock> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let watch = Mutex::new(StandstillWatch::new(processors, processor_time()));
        let shared = Arc::new(ClockState { origin: Instant::now(), watch });
        let of_thread = Arc::downgrade(&shared);
        thread::Builder::new().name("heartbeat".to_owned()).spawn(move || beat(&of_thread))?;
        Ok(HostClock(shared))
    }

    /// Time since the start.
    pub fn now(&self) -> Time {
        let mut watch = self.0.lock();
        // Read under the lock: whoever stands still between the two must not take an old time for a new one.
        watch.read(since(self.0.origin), processor_time)
    }

    /// When it will be `at`, unless the process stands still until then: who wakes too early asks again. `None` for what is
    /// beyond what the system can tell.
    pub fn instant(&self, at: Time) -> Option<Instant> {
        let skipped = self.0.lock().skipped;
        self.0.origin.checked_add(Duration::from_nanos(at.0.checked_add(skipped.0)?))
    }

    /// All standstills so far.
    pub fn standstills(&self) -> Vec<Standstill> {
        self.0.lock().standstills.clone()
    }
}

impl ClockState {
    /// No code that holds the lock can panic half way, so a poisoned lock is still in order.
    fn lock(&self) -> MutexGuard<'_, StandstillWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StandstillWatch {
    fn new(processors: usize, used: Option<Span>) -> StandstillWatch {
        StandstillWatch { processors, seen: Span::ZERO, used, skipped: Span::ZERO, standstills: Vec::new() }
    }

    /// The time at `raw`, which is without standstills, as far as they are known then. `used` is only asked after a long gap.
    fn read(&mut self, raw: Span, used: impl FnOnce() -> Option<Span>) -> Time {
        let gap = raw - self.seen;
        if gap >= STANDSTILL {
            let used = used();
            let meanwhile = used.zip(self.used).map(|(now, before)| now - before);
            if is_standstill(gap, meanwhile, self.processors) {
                self.standstills.push(Standstill { at: self.time(self.seen), length: gap });
                self.skipped += gap;
            }
            self.used = used;
        }
        self.seen = raw.max(self.seen);
        self.time(self.seen)
    }

    fn beat(&mut self, raw: Span, used: Option<Span>) {
        self.read(raw, || used);
        self.used = used;
    }

    fn time(&self, raw: Span) -> Time {
        Time::ZERO + (raw - self.skipped)
    }
}

/// Looks until the clock is gone.
fn beat(clock: &Weak<ClockState>) {
    while let Some(shared) = clock.upgrade() {
        let mut watch = shared.lock();
        watch.beat(since(shared.origin), processor_time());
        drop(watch);
        drop(shared);
        thread::sleep(BEAT);
    }
}

fn since(origin: Instant) -> Span {
    Span(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The processor time that all threads of the process have taken; `None` where the system does not say.
#[cfg(unix)]
fn processor_time() -> Option<Span> {
    use rustix::time::{ClockId, clock_gettime};
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u64::try_from(taken.tv_sec).ok()?.checked_mul(1_000_000_000)?;
    Some(Span(nanos.checked_add(u64::try_from(taken.tv_nsec).ok()?)?))
}

#[cfg(not(unix))]
fn processor_time() -> Option<Span> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    /// A clock over times that the test makes up.
    struct Made(StandstillWatch);

    impl Made {
        fn new() -> Made {
            Made(StandstillWatch::new(2, Some(Span::ZERO)))
        }

        /// A reading at `at` ms, when the process has taken `used` ms of processor time.
        fn read(&mut self, at: u64, used: u64) -> u64 {
            self.0.read(Span::from_millis(at), || Some(Span::from_millis(used))).0 / 1_000_000
        }

        fn beat(&mut self, at: u64, used: u64) {
            self.0.beat(Span::from_millis(at), Some(Span::from_millis(used)));
        }

        fn standstills(&self) -> Vec<(u64, u64)> {
            let in_millis = |still: &Standstill| (still.at.0 / 1_000_000, still.length.0 / 1_000_000);
            self.0.standstills.iter().map(in_millis).collect()
        }
    }

    #[test]
    fn a_standstill_is_left_out_once_whoever_sees_it_first() {
        for heartbeat_first in [false, true] {
            let mut clock = Made::new();
            clock.beat(50, 40);
            assert_eq!(clock.read(60, 50), 60);
            if heartbeat_first {
                clock.beat(60 + 6 * SECOND, 52);
            }
            assert_eq!(clock.read(60 + 6 * SECOND, 52), 60, "the gap is in no reading");
            assert_eq!(clock.read(65 + 6 * SECOND, 60), 65, "and the clock goes on");
            clock.beat(70 + 6 * SECOND, 70);
            assert_eq!(clock.read(75 + 6 * SECOND, 80), 75);
            assert_eq!(clock.standstills(), [(60, 6 * SECOND)]);
        }
    }

    #[test]
    fn one_standstill_right_after_another_is_two() {
        let mut clock = Made::new();
        clock.beat(50, 10);
        assert_eq!(clock.read(50 + 5 * SECOND, 10), 50);
        assert_eq!(clock.read(51 + 5 * SECOND, 11), 51);
        assert_eq!(clock.read(51 + 17 * SECOND, 11), 51);
        assert_eq!(clock.standstills(), [(50, 5 * SECOND), (51, 12 * SECOND)]);
    }

    #[test]
    fn a_process_that_computes_stands_not_still() {
        let mut clock = Made::new();
        clock.beat(50, 50);
        // Nobody could look for two seconds, and both processors were busy with this process.
        assert_eq!(clock.read(50 + 2 * SECOND, 50 + 4 * SECOND), 50 + 2 * SECOND);
        // Nor is one that is only late.
        assert_eq!(clock.read(1_049 + 2 * SECOND, 50 + 4 * SECOND), 1_049 + 2 * SECOND);
        assert_eq!(clock.standstills(), []);
    }

    #[test]
    fn readings_never_run_backwards() {
        let mut clock = Made::new();
        let mut last = 0;
        for (at, used) in [(900, 0), (2_000, 0), (1_900, 0), (9_000, 1), (9_001, 1), (10_500, 1_400), (12_000, 1_400)] {
            let now = clock.read(at, used);
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        assert_eq!(clock.standstills().len(), 3);
    }

    #[test]
    fn alarms_come_later_by_what_was_left_out() {
        let clock = HostClock::start().expect("threads can be started");
        let at = Time::ZERO + Span::from_millis(500);
        let before = clock.instant(at).expect("soon");
        let mut watch = clock.0.lock();
        let seen = watch.seen;
        watch.read(seen + Span::from_millis(6 * SECOND), || Some(Span::ZERO));
        drop(watch);
        assert_eq!(clock.instant(at).expect("soon") - before, Duration::from_secs(6));
        assert_eq!(clock.standstills().len(), 1);
        assert_eq!(clock.instant(Time(u64::MAX)), None, "a time that does not come");
    }

    #[test]
    fn the_clock_goes_with_the_host_and_its_heartbeat_ends_with_it() {
        let clock = HostClock::start().expect("threads can be started");
        let (began, first) = (Instant::now(), clock.now());
        thread::sleep(Duration::from_millis(5));
        let passed = clock.now().since(first);
        assert!(passed >= Span::from_millis(5) && passed <= Span(began.elapsed().as_nanos() as u64), "{passed:?}");
        if cfg!(unix) {
            assert!(processor_time() > Some(Span::ZERO));
        }
        let shared = Arc::downgrade(&clock.0);
        drop(clock);
        // The heartbeat may hold it for a moment.
        while shared.strong_count() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
