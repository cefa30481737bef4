//! Child processes, and what the system says of them (Linux).

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::attack::{Tally, begin, say};

/// A child that does not outlive the bench.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        Program(command.stdin(Stdio::null()).spawn().expect("it starts"))
    }

    /// How it ends; `None` if it does not in time.
    pub(crate) fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The most that a process had at any time, and its processor time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Peak {
    pub(crate) mebibytes: u64,
    pub(crate) descriptors: usize,
    pub(crate) processor_seconds: f64,
}

impl Peak {
    /// The larger of each.
    pub(crate) fn max(self, other: Peak) -> Peak {
        Peak {
            mebibytes: self.mebibytes.max(other.mebibytes),
            descriptors: self.descriptors.max(other.descriptors),
            processor_seconds: self.processor_seconds.max(other.processor_seconds),
        }
    }
}

/// Looks at a process ten times a second.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<Peak>,
}

impl Watch {
    pub(crate) fn start(process: u32) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watching = thread::spawn(move || {
            let mut peak = Peak::default();
            while !stopped.load(Ordering::SeqCst) {
                peak = peak.max(Peak {
                    mebibytes: most_memory(process).unwrap_or_default(),
                    descriptors: fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count),
                    processor_seconds: processor_seconds(process).unwrap_or_default(),
                });
                thread::sleep(Duration::from_millis(100));
            }
            peak
        });
        Watch { stop, watching }
    }

    pub(crate) fn stop(self) -> Peak {
        self.stop.store(true, Ordering::SeqCst);
        self.watching.join().expect("it does not panic")
    }
}

/// The most memory that a process ever had, in MiB.
fn most_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1_024)
}

/// Processor time of a process with all its threads, by the kernel's account in ticks of 10 ms.
fn processor_seconds(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may have anything in it but the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

/// Seconds that all processors were busy, and that there were, since the machine started.
fn busy_seconds() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().next()?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let all: f64 = ticks.iter().sum();
    Some(((all - ticks.get(3)? - ticks.get(4)?) / 100.0, all / 100.0))
}

/// The share of all processors that somebody takes, in per cent, while the bench does nothing for two seconds.
pub(crate) fn taken_by_others() -> f64 {
    let look = || busy_seconds().expect("Linux");
    let before = look();
    thread::sleep(Duration::from_secs(2));
    let after = look();
    100.0 * (after.0 - before.0) / (after.1 - before.1)
}

/// A child that does something beside a fleet.
pub(crate) struct Beside {
    program: Program,
    said: BufReader<ChildStdout>,
    began: (Instant, f64),
}

/// What it came to.
pub(crate) struct Done {
    /// Processor time over time.
    pub(crate) share: f64,
    pub(crate) said: String,
}

impl Beside {
    /// Starts this program with other arguments, and waits until it is ready.
    pub(crate) fn ready(arguments: &[&str]) -> Beside {
        let mut command = Command::new(env::current_exe().expect("Linux"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = Program(command.spawn().expect("it starts"));
        let said = BufReader::new(program.0.stdout.take().expect("piped"));
        let mut beside = Beside { program, said, began: (Instant::now(), 0.0) };
        beside.wait_for("ready");
        beside
    }

    pub(crate) fn begin(&mut self) {
        self.began = (Instant::now(), self.processor_seconds());
        let stdin = self.program.0.stdin.as_mut().expect("piped");
        stdin.write_all(b"begin\n").expect("it reads");
    }

    /// Waits until it says so.
    pub(crate) fn wait_for(&mut self, wanted: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("text");
        assert_eq!(line.trim(), wanted);
    }

    pub(crate) fn end(mut self) -> Done {
        let share = (self.processor_seconds() - self.began.1) / self.began.0.elapsed().as_secs_f64();
        drop(self.program.0.stdin.take());
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("text");
        Done { share, said: said.lines().last().unwrap_or_default().to_owned() }
    }

    fn processor_seconds(&self) -> f64 {
        processor_seconds(self.program.0.id()).expect("it runs")
    }
}

/// Takes this share of a processor, a little of it every few milliseconds, and does nothing with it.
pub(crate) fn burn(share: f64) -> ! {
    begin(&Arc::new(Tally::default()));
    say("under way");
    // One thread after the other if it is more than a processor.
    let threads = share.ceil().max(1.0) as usize;
    for _ in 1..threads {
        thread::spawn(move || burn_here(share / threads as f64));
    }
    burn_here(share / threads as f64)
}

fn burn_here(share: f64) -> ! {
    // Nanoseconds on a processor stand first.
    let used = || -> f64 {
        let told = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        told.split(' ').next().and_then(|first| first.parse().ok()).expect("a number")
    };
    let (began, already) = (Instant::now(), used());
    loop {
        let due = share * began.elapsed().as_nanos() as f64;
        if used() - already < due {
            let piece = Instant::now();
            while piece.elapsed() < Duration::from_micros(200) {
                std::hint::spin_loop();
            }
        } else {
            thread::sleep(Duration::from_millis(2));
        }
    }
}
