//! How fast a fleet of fitted devices runs: events and simulated tokens per second of wall time.
//!
//! ```text
//! cargo bench -p specfleet-simulator --bench fleet                                  the table
//! cargo bench -p specfleet-simulator --bench fleet -- DEVICES [TOKENS] [THREADS] [PERCENT] [figures]
//! ```
//!
//! The second form runs one case (for a profiler, or `/usr/bin/time -v`): each of DEVICES writes one answer of TOKENS (20),
//! on THREADS (2), uploading PERCENT (30) of its drafts; with `figures` the records go where those of
//! `specfleet simulate` go.
//!
//! **What runs.** Every device drafts in 4.3 ms a token, uploads over a Rayleigh-fading link of 30 ms round trip and writes
//! answers of 20 tokens in a closed loop, one behind the other; a verifier serves 500 devices, in batches of up to 256
//! sequences that take 2 ms + 10 µs per token. The table shows the mean time in its queue, so that an overloaded pool would
//! be seen. Fleets of all sizes write the same number of tokens, so that what differs is the size alone.
//!
//! **What is timed.** Everything between the settings and the result: the fleet's memory, the run, and for streamed figures
//! their merging and their summary. *counted*: records end in three counters, which is the engine by itself. *figures*:
//! records end in `StreamSummary`, whose cost every user pays.
//!
//! A machine that other work shares gives a process less than its cores: the last two columns are tokens per second of
//! *processor* time, on one thread, by the kernel's account (Linux; in ticks of 10 ms).
//!
//! Ratios are of one process: case by case, the same run on one thread and on two directly after each other. An event is
//! an entry taken from a queue; local drafts run ahead without one, so that there are fewer events than tokens where few
//! tokens are uploaded.

mod scene;
mod sinks;

use std::time::Instant;

use scene::Scene;
use sinks::Count;

/// Tokens of each answer.
const TOKENS: u32 = 20;
/// Answers of each case in the table, whatever the number of devices.
const ANSWERS: u32 = 100_000;

/// What one run came to.
struct Outcome {
    wall: f64,
    /// Seconds of processor time, if the system tells.
    processor: Option<f64>,
    tokens: u64,
    events: u64,
    count: Count,
    virtual_seconds: f64,
    batches: u64,
}

impl Outcome {
    /// Millions of tokens per second of wall time.
    fn tokens_rate(&self) -> f64 {
        self.tokens as f64 / self.wall * 1e-6
    }

    /// Millions of events per second of wall time.
    fn events_rate(&self) -> f64 {
        self.events as f64 / self.wall * 1e-6
    }

    /// Millions of tokens per second of processor time; NaN if that is not known.
    fn tokens_per_processor(&self) -> f64 {
        self.processor.map_or(f64::NAN, |seconds| self.tokens as f64 / seconds * 1e-6)
    }
}

/// Wall time, and processor time of all threads.
struct Clock {
    began: Instant,
    processor: Option<f64>,
}

impl Clock {
    fn start() -> Clock {
        Clock { began: Instant::now(), processor: Clock::processor() }
    }

    fn stop(&self) -> (f64, Option<f64>) {
        let wall = self.began.elapsed().as_secs_f64();
        (wall, Clock::processor().zip(self.processor).map(|(now, then)| now - then))
    }

    /// User and system time of this process so far, in seconds.
    fn processor() -> Option<f64> {
        let line = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields 14 and 15, counted from 1; the name in field 2 may hold spaces, but nothing behind its parenthesis does.
        let fields: Vec<&str> = line.rsplit(')').next()?.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks / 100.0)
    }
}

fn counted(scene: &Scene, threads: usize) -> Outcome {
    let clock = Clock::start();
    let (totals, sinks, pool) = scene.run(threads, &scene.fitted(), |_| Count::default(), Count::default());
    let (wall, processor) = clock.stop();
    let count = Count::all(sinks.iter().chain([&pool]));
    assert_eq!(count.ended, u64::from(scene.requests), "every request is answered");
    Outcome {
        wall,
        processor,
        tokens: count.rounds,
        events: totals.progress.events,
        count,
        virtual_seconds: totals.last_end.0 as f64 * 1e-9,
        batches: totals.batches,
    }
}

fn with_figures(scene: &Scene, threads: usize) -> Outcome {
    let clock = Clock::start();
    let (totals, summary) = sinks::with_figures(scene, threads);
    let (wall, processor) = clock.stop();
    Outcome {
        wall,
        processor,
        tokens: totals.progress.tokens,
        events: totals.progress.events,
        count: Count { uploads: summary.uploads.verdicts, ..Count::default() },
        virtual_seconds: totals.last_end.0 as f64 * 1e-9,
        batches: totals.batches,
    }
}

fn table() {
    println!("answers of {TOKENS} tokens, {ANSWERS} in each case; millions per second of wall time\n");
    println!(
        "{:24} | {:^23} | {:^23} | {:^23} | {:^15}",
        "", "events, counted", "tokens, counted", "tokens, figures", "per processor"
    );
    let threads = format!("{:>7} {:>7} {:>7}", "1 thr.", "2 thr.", "ratio");
    println!(
        "{:>8} {:>6} {:>8} | {threads} | {threads} | {threads} | {:>7} {:>7}",
        "devices", "upload", "queue", "counted", "figures"
    );
    for devices in [1_000, 10_000, 100_000] {
        for upload_rate in [0.1, 0.3, 1.0] {
            let scene = Scene::new(devices, ANSWERS / devices, TOKENS, upload_rate);
            let [one, two] = [1, 2].map(|threads| counted(&scene, threads));
            let [figures_one, figures_two] = [1, 2].map(|threads| with_figures(&scene, threads));
            let Count { queue, uploads, rounds, .. } = one.count;
            print!(
                "{devices:>8} {:>6.3} {:>5.1} ms",
                uploads as f64 / rounds as f64,
                1e3 * queue.seconds() / uploads as f64
            );
            for [one, two] in [
                [one.events_rate(), two.events_rate()],
                [one.tokens_rate(), two.tokens_rate()],
                [figures_one.tokens_rate(), figures_two.tokens_rate()],
            ] {
                print!(" | {one:>7.2} {two:>7.2} {:>7.2}", two / one);
            }
            println!(" | {:>7.2} {:>7.2}", one.tokens_per_processor(), figures_one.tokens_per_processor());
        }
    }
}

fn main() {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let figures = arguments.iter().any(|argument| argument == "figures");
    let mut numbers = arguments.iter().filter(|a| *a != "figures").map(|a| a.parse::<u32>().expect("a number"));
    let Some(devices) = numbers.next() else { return table() };
    let tokens = numbers.next().unwrap_or(TOKENS);
    let threads = numbers.next().unwrap_or(2) as usize;
    let upload_rate = numbers.next().unwrap_or(30) as f32 / 100.0;
    let scene = Scene::new(devices, 1, tokens, upload_rate);
    let outcome = if figures { with_figures(&scene, threads) } else { counted(&scene, threads) };
    println!(
        "{devices} devices, {threads} threads: {} tokens, upload rate {:.3}, {} batches, {:.1} s of virtual time in {:.2} s",
        outcome.tokens,
        outcome.count.uploads as f64 / outcome.tokens as f64,
        outcome.batches,
        outcome.virtual_seconds,
        outcome.wall,
    );
    println!(
        "{:.2} million tokens/s, {:.2} million events/s, {:.2} million tokens per processor second",
        outcome.tokens_rate(),
        outcome.events_rate(),
        outcome.tokens_per_processor(),
    );
}
