//! Watches the host of a live run: when nothing ran for a while, and what others took of the processors.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use specfleet_engine::disturbance::{Disturbance, STALL};
use specfleet_engine::time::Span;

/// How often the thread wants to run.
const BEAT: Duration = Duration::from_millis(20);

/// A thread that sleeps and looks how late it wakes.
pub struct HostWatch {
    over: Arc<AtomicBool>,
    /// Absent where the thread did not start.
    thread: Option<JoinHandle<Standstills>>,
    started: Instant,
    before: Option<Processors>,
}

/// Times at which nothing ran.
#[derive(Clone, Copy, Debug, Default)]
struct Standstills {
    count: u32,
    length: Duration,
}

impl HostWatch {
    /// Begins to watch.
    pub fn start() -> HostWatch {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let thread = thread::Builder::new().name("host-watch".to_owned()).spawn(move || watch(&told)).ok();
        HostWatch { over, thread, started: Instant::now(), before: Processors::now() }
    }

    /// Ends, and adds what was seen.
    pub fn finish(mut self, disturbance: &mut Disturbance) {
        self.over.store(true, Ordering::Relaxed);
        let seen = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        disturbance.stalls = seen.count;
        disturbance.stalled = span(seen.length);
        disturbance.watched = span(self.started.elapsed());
        if let Some((before, after)) = self.before.zip(Processors::now()) {
            (disturbance.others, disturbance.stolen) = before.shares(after);
        }
    }
}

impl Drop for HostWatch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn watch(over: &AtomicBool) -> Standstills {
    let mut seen = Standstills::default();
    while !over.load(Ordering::Relaxed) {
        let asleep = Instant::now();
        thread::sleep(BEAT);
        let late = asleep.elapsed().saturating_sub(BEAT);
        if span(late) > STALL {
            seen.count += 1;
            seen.length += late;
        }
    }
    seen
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Processor time since the machine started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Processors {
    /// Of all processors, idle time included.
    all: u64,
    /// In which they did something.
    busy: u64,
    /// In which the machine below ran something else.
    stolen: u64,
    /// In which this process ran.
    own: u64,
}

impl Processors {
    /// Read from `/proc`; `None` where there is none.
    fn now() -> Option<Processors> {
        Processors::parse(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// From the texts of `/proc/stat` and `/proc/self/stat` (proc(5)).
    fn parse(machine: &str, process: &str) -> Option<Processors> {
        let line = machine.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, idle, waiting, interrupts, soft, stolen] = *ticks.first_chunk()?;
        let busy = user + nice + system + interrupts + soft;
        // The name in parentheses may hold anything; user and system time are the 14th and 15th field.
        let fields: Vec<&str> = process.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let own = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Processors { all: busy + idle + waiting + stolen, busy, stolen, own })
    }

    /// The shares of other processes and of the machine below until `later`.
    fn shares(self, later: Processors) -> (Option<f64>, Option<f64>) {
        let all = later.all.saturating_sub(self.all);
        let share = |ticks: u64| (all > 0).then(|| (ticks as f64 / all as f64).min(1.0));
        let own = later.own.saturating_sub(self.own);
        let others = later.busy.saturating_sub(self.busy).saturating_sub(own);
        (share(others), share(later.stolen.saturating_sub(self.stolen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors(machine: &str, process: &str) -> Processors {
        Processors::parse(machine, process).expect("a text of /proc")
    }

    #[test]
    fn ticks_are_those_of_the_manual() {
        let machine = "cpu  100 5 20 900 10 3 2 60 0 0\ncpu0 50 2 10 450 5 1 1 30 0 0\n";
        let process = "42 (spec) fleet) x) S 1 1 1 0 -1 4194304 9 9 9 9 70 8 1 1 20 0 4 0 100 1000 100";
        let before = processors(machine, process);
        assert_eq!(before, Processors { all: 1100, busy: 130, stolen: 60, own: 78 });
        let after = Processors { all: 2100, busy: 630, stolen: 110, own: 378 };
        assert_eq!(before.shares(after), (Some(0.2), Some(0.05)));
        assert_eq!(before.shares(before), (None, None));
        assert_eq!(Processors::parse("cpu 1 2", process), None);
        assert_eq!(Processors::parse(machine, "no parenthesis"), None);
    }

    #[test]
    fn a_watch_says_how_long_it_watched() {
        let mut seen = Disturbance::default();
        let watch = HostWatch::start();
        thread::sleep(Duration::from_millis(5));
        watch.finish(&mut seen);
        assert!(seen.watched >= Span::from_millis(5) && seen.stalled <= seen.watched, "{seen:?}");
    }
}
