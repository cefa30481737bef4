//! Simulated tokens per second of wall time: this simulator and the published crate `aisimulate-core` 0.13 on an equal
//! request load, in turns in one process.
//!
//! ```text
//! cargo run --release --manifest-path simulator/side-by-side/Cargo.toml [-- REQUESTS [IN_FLIGHT]]
//! ```
//!
//! **Equal load.** Both answer the same requests (prompts of 30 to 90 tokens, answers of 20) on the same number of workers
//! with the same limits of a batch (256 sequences, 4,096 tokens). *open*: they arrive at the same times, evenly, at a rate
//! that both keep up with. *closed*: the same number is in flight all the time, one per device. There, a closed loop keeps
//! every batch full and the virtual time short, which is the load that server simulators are fastest at.
//!
//! **Not equal, and not to be made equal.** `aisimulate-core` schedules servers: each token of a request is a row of a
//! worker's decode step, over blocks of KV cache. This simulator runs devices, links and a pool: each token is a device's
//! decision, those that are uploaded go over a fading link into a queue and a batch, and all of it is accounted for in
//! time and energy. At an upload rate of 1 every token takes a row of a worker's batch, here as there. What is compared is
//! what a user waits for: answered requests.
//!
//! **The benefit of the doubt.** There: round robin, fixed timing (its cheapest), no prefix caching, no events, no rows per
//! request, and requests made before its clock starts. Here: the clock covers everything from settings to totals, with
//! records that are counted, and records that end in the figures of `specfleet simulate`.

#[path = "../../benches/fleet/scene.rs"]
#[allow(dead_code, reason = "a scene has more to it than is used here")]
mod scene;
#[path = "../../benches/fleet/sinks.rs"]
#[allow(dead_code, reason = "counts have more to them than is used here")]
mod sinks;

use std::time::Instant;

use aisimulate_core::engine::{Backend, EngineConfig, TimingModelConfig};
use aisimulate_core::replay::{
    ProviderSpec, ReplayAdapters, ReplayEngineConfig, ReplayEngineFactory, ReplayRequest, ReplaySpec, ReplayTopology,
    Replayer, WorkerPoolSpec,
};
use scene::Scene;
use sinks::Count;
use specfleet_engine::load::{Arrivals, Load};
use specfleet_engine::time::Span;

/// Tokens of an answer.
const TOKENS: u32 = 20;
/// Times that the three are run in turns; the median counts.
const TURNS: usize = 3;

/// Requests per second of the open loop.
const RATE: f64 = 10_000.0;

/// When a request arrives, in seconds.
fn arrival(scene: &Scene, index: u32) -> f64 {
    match &scene.load {
        Load::Closed { .. } => 0.0,
        Load::Open { .. } => f64::from(index) / RATE,
    }
}

/// The fleet of a case.
fn scene(load: Load, requests: u32, devices: u32, upload_rate: f32) -> Scene {
    Scene { load, ..Scene::new(devices, requests / devices, TOKENS, upload_rate) }
}

/// Millions of tokens per second that `aisimulate-core` simulates, and the seconds of virtual time that it took.
fn published(scene: &Scene) -> (f64, f64) {
    let rank = EngineConfig {
        max_num_seqs: scene.batch.1 as usize,
        max_num_batched_tokens: scene.batch.0 as usize,
        // Room for every sequence of a worker: nothing is preempted.
        num_gpu_blocks: 16_384,
        block_size: 64,
        enable_prefix_caching: false,
        timing_model: TimingModelConfig::Fixed { prefill_ms: 2.0, decode_ms: 2.0 },
        ..EngineConfig::for_backend(Backend::Vllm)
    };
    let requests = (0..scene.requests).map(|index| ReplayRequest {
        id: index.to_string(),
        arrival_time_ms: arrival(scene, index) * 1e3,
        // Even over 30 to 90, as the prompts of the scene are.
        input_tokens: 30 + index as usize % 61,
        input_token_ids: None,
        output_tokens: scene.tokens as usize,
        output_token_ids: None,
        dp_rank: None,
        prefill_dp_rank: None,
        session_id: None,
        turn_index: None,
        metadata: serde_json::Value::Null,
    });
    let spec = ReplaySpec {
        version: 1,
        topology: ReplayTopology::Aggregated {
            workers: WorkerPoolSpec { initial_workers: usize::from(scene.verifiers), startup_delay_ms: 0.0 },
        },
        engine: serde_json::to_value(ReplayEngineConfig { rank, ..ReplayEngineConfig::default() })
            .expect("plain settings"),
        adapters: ReplayAdapters { placement: ProviderSpec::round_robin(), scaling: ProviderSpec::no_scaling() },
        max_sim_time_ms: None,
        max_in_flight: matches!(scene.load, Load::Closed { .. }).then_some(scene.devices as usize),
        record_per_request: false,
        sla: Default::default(),
        requests: requests.collect(),
    };
    let replayer = Replayer::new(spec, ReplayEngineFactory::new()).expect("a valid specification");
    let began = Instant::now();
    let report = replayer.run().expect("a replay");
    let wall = began.elapsed().as_secs_f64();
    assert_eq!(report.request_counts.completed_requests, scene.requests as usize, "every request is answered");
    let tokens = report.request_counts.total_output_tokens;
    assert_eq!(tokens, (scene.requests * scene.tokens) as usize, "with all its tokens");
    (tokens as f64 / wall * 1e-6, report.throughput.duration_ms * 1e-3)
}

/// The same of this simulator, with records that are counted.
fn counted(scene: &Scene, threads: usize) -> (f64, f64) {
    let began = Instant::now();
    let (totals, sinks, pool) = scene.run(threads, &scene.fitted(), |_| Count::default(), Count::default());
    let wall = began.elapsed().as_secs_f64();
    let count = Count::all(sinks.iter().chain([&pool]));
    assert_eq!(count.ended, u64::from(scene.requests), "every request is answered");
    assert_eq!(count.rounds, u64::from(scene.requests * scene.tokens), "with all its tokens");
    (count.rounds as f64 / wall * 1e-6, totals.last_end.0 as f64 * 1e-9)
}

/// The same with the figures that `specfleet simulate` keeps.
fn with_figures(scene: &Scene, threads: usize) -> f64 {
    let began = Instant::now();
    let (totals, _summary) = sinks::with_figures(scene, threads);
    let wall = began.elapsed().as_secs_f64();
    totals.progress.tokens as f64 / wall * 1e-6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u32>().expect("a number"));
    let requests = numbers.next().unwrap_or(100_000);
    let devices = numbers.next().unwrap_or(10_000);
    assert!(devices > 0 && requests % devices == 0, "each device answers equally many requests");
    println!(
        "{requests} requests of {TOKENS} tokens, {devices} devices, {} workers; open: {RATE} requests/s, closed: {devices} in \
         flight; millions of simulated tokens per second of wall time, medians of {TURNS} turns\n",
        Scene::new(devices, requests / devices, TOKENS, 0.3).verifiers
    );
    println!("{:>14} | {:>15} | {:^36} | {:^36}", "", "aisimulate-core", "specfleet, counted", "specfleet, figures");
    let ours = format!("{:>8} {:>8} {:>8} {:>9}", "1 thread", "ratio", "2 thr.", "ratio");
    println!("{:>6} {:>7} | {:>15} | {ours} | {ours} | virtual time", "load", "upload", "1 thread");
    let open = Load::Open { arrivals: Arrivals::Constant { rate: RATE }, backlog: 1_000 };
    for (name, load) in [("open", open), ("closed", Load::Closed { think: Span::ZERO })] {
        for upload_rate in [0.3, 1.0] {
            let scene = scene(load.clone(), requests, devices, upload_rate);
            let mut rates: [Vec<f64>; 5] = Default::default();
            let mut virtual_seconds = (0.0, 0.0);
            for _ in 0..TURNS {
                let (rate, seconds) = published(&scene);
                rates[0].push(rate);
                virtual_seconds.0 = seconds;
                for (threads, to) in [(1, 1), (2, 2)] {
                    let (rate, seconds) = counted(&scene, threads);
                    rates[to].push(rate);
                    virtual_seconds.1 = seconds;
                }
                for (threads, to) in [(1, 3), (2, 4)] {
                    rates[to].push(with_figures(&scene, threads));
                }
            }
            let [theirs, one, two, figures_one, figures_two] = rates.map(median);
            print!("{name:>6} {upload_rate:>7.1} | {theirs:>15.2}");
            for (one, two) in [(one, two), (figures_one, figures_two)] {
                print!(" | {one:>8.2} {:>7.1}x {two:>8.2} {:>8.1}x", one / theirs, two / theirs);
            }
            println!(" | {:.1} s, {:.1} s", virtual_seconds.0, virtual_seconds.1);
        }
    }
}
