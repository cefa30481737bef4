//! What there is: every family with its type, unit, labels and meaning, and the buckets of the histograms.

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size, with these upper bounds (and +Inf).
    Histogram(&'static [f64]),
}

/// Which program shows a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Run,
    /// `specfleet run` and `verifier-pool`.
    Both,
}

/// A family of metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricFamily {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    /// One sentence; for counters it says what sum over the ledger's rows they equal.
    pub help: &'static str,
    pub shown: Shown,
}

/// From one token to the next: vLLM's own, with finer ones below, because the default drafter takes some milliseconds.
const INTER_TOKEN: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// Whole generations: vLLM's own, with finer ones below.
const REQUEST: &[f64] = &[
    0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
/// What happens in a pool, from 0.1 ms on.
const WAIT: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const SEQUENCES: &[f64] =
    &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 512.0];
const TOKENS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

macro_rules! families {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $kind:expr, $unit:literal, [$($label:literal),*], $shown:ident, $help:literal;)*) => {
        $(
            $(#[$doc])*
            pub const $id: MetricFamily = MetricFamily {
                name: concat!("specfleet_", $name),
                kind: $kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
                shown: Shown::$shown,
            };
        )*
        /// All of them, in the order of the document.
        pub const ALL: &[MetricFamily] = &[$($id),*];
    };
}

use MetricKind::{Counter, Gauge, Histogram};

families! {
    // ---- vLLM's names ----------------------------------------------------------------------------------------------
    TIME_TO_FIRST_TOKEN = "time_to_first_token_seconds", Histogram(FIRST_TOKEN), "s", ["method"], Run,
        "Time from when a generation was due until its first token was committed.";
    INTER_TOKEN_LATENCY = "inter_token_latency_seconds", Histogram(INTER_TOKEN), "s", ["method"], Run,
        "Time between successive commits of a generation; tokens of one block follow each other at 0.";
    REQUEST_LATENCY = "e2e_request_latency_seconds", Histogram(REQUEST), "s", ["method"], Run,
        "Time from when a generation was due until it ended with stop or length.";
    REQUEST_QUEUE_TIME = "request_queue_time_seconds", Histogram(WAIT), "s", [], Both,
        "Time of an answered upload in the pool's queue until it was chosen for a batch; llm-only waits once per token.";
    REQUESTS_RUNNING = "num_requests_running", Gauge, "uploads", [], Both,
        "Uploads being computed by verifiers.";
    REQUESTS_WAITING = "num_requests_waiting", Gauge, "uploads", [], Both,
        "Uploads that wait in the pool's queue.";
    PROMPT_TOKENS = "prompt_tokens_total", Counter, "tokens", ["method"], Run,
        "Tokens of the prompts of ended generations: sum of generations.prompt_tokens.";
    GENERATION_TOKENS = "generation_tokens_total", Counter, "tokens", ["method"], Run,
        "Committed tokens: number of rounds.";
    DRAFTS = "spec_decode_num_drafts_total", Counter, "drafts", [], Both,
        "Drafts (one token, or a block) that a verifier judged: number of rounds accepted, replaced or bonus with an upload.";
    DRAFT_TOKENS = "spec_decode_num_draft_tokens_total", Counter, "tokens", [], Both,
        "Draft tokens that verifiers judged: sum of batches.drafts over completed batches.";
    ACCEPTED_TOKENS = "spec_decode_num_accepted_tokens_total", Counter, "tokens", [], Both,
        "Draft tokens that verifiers accepted: number of rounds accepted.";
    ACCEPTED_PER_POSITION = "spec_decode_num_accepted_tokens_per_pos_total", Counter, "tokens", ["position"], Both,
        "Accepted draft tokens by their position in the draft, from 0; below 8, the longest block.";
    // ---- decisions and text ----------------------------------------------------------------------------------------
    UPLOAD_DECISIONS = "upload_decisions_total", Counter, "tokens", ["method", "decision", "reason"], Run,
        "What the gate decided (upload or skip) and why, for each committed token: number of rounds by their reason.";
    TOKENS_COMMITTED = "tokens_committed_total", Counter, "tokens", ["method", "source"], Run,
        "Committed tokens by who put them into the text: number of rounds by their source.";
    GENERATIONS = "generations_total", Counter, "generations", ["method", "finish"], Run,
        "Ended generations by why they ended: number of generations by finish.";
    GENERATIONS_PLANNED = "generations_planned", Gauge, "generations", [], Run,
        "Generations that the run will have, over all methods.";
    // ---- uploads ---------------------------------------------------------------------------------------------------
    UPLOADS = "uploads_total", Counter, "uploads", ["method", "outcome"], Run,
        "Upload attempts of ended generations by how they ended: sum of generations.verdicts, refused and cancelled.";
    UPLINK_BYTES = "uplink_bytes_total", Counter, "bytes", ["method"], Run,
        "Bytes of upload frames on the wire, resends included: sum of rounds.uplink_bytes.";
    DOWNLINK_BYTES = "downlink_bytes_total", Counter, "bytes", ["method"], Run,
        "Bytes of verdict frames on the wire: sum of rounds.downlink_bytes.";
    // ---- devices ---------------------------------------------------------------------------------------------------
    DEVICE_ENERGY = "device_energy_joules_total", Counter, "J", ["method", "part"], Run,
        "Energy charged to ended generations: the device's processor, its radio, its share of the verifiers (cloud).";
    DEVICE_SECONDS = "device_seconds_total", Counter, "s", ["method", "state"], Run,
        "Where the devices' time went in ended generations: sum of the generations' times by state.";
    DRAFT_STEPS = "draft_steps_total", Counter, "steps", ["method"], Run,
        "Draft steps of ended generations, one token each: sum of generations.draft_steps.";
    WASTED_DRAFTS = "draft_wasted_tokens_total", Counter, "tokens", ["method"], Run,
        "Drafts of ended generations thrown away, behind a rejection or drafted ahead in vain: sum of generations.wasted_drafts.";
    // ---- the pool --------------------------------------------------------------------------------------------------
    BATCH_SIZE = "verify_batch_size", Histogram(SEQUENCES), "sequences", [], Both,
        "Sequences of a verification batch that was completed.";
    BATCH_TOKENS = "verify_batch_tokens", Histogram(TOKENS), "tokens", [], Both,
        "Tokens fed in a verification batch that was completed.";
    BATCH_SECONDS = "verify_batch_seconds", Histogram(WAIT), "s", [], Both,
        "Computation time of a verification batch that was completed.";
    BATCH_WAIT = "verify_batch_wait_seconds", Histogram(WAIT), "s", [], Both,
        "Time of an answered upload between being chosen for a batch and the start of its computation.";
    BATCHES = "verify_batches_total", Counter, "batches", ["outcome"], Both,
        "Batches by whether their verifier completed them or failed: number of batches by completed.";
    VERIFY_TOKENS = "verify_tokens_total", Counter, "tokens", ["part"], Both,
        "Tokens fed to verifiers, those of failed batches included: sum of batches.catch_up, and of work − catch_up (drafts).";
    VERIFIER_ENERGY = "verifier_energy_joules_total", Counter, "J", ["part"], Both,
        "Energy of the verifiers: sum of batches' joules (batch), their unclaimed part (unclaimed), idle joules of ended phases (idle).";
    VERIFIER_BUSY = "verifier_busy_seconds_total", Counter, "s", [], Both,
        "Time in batches, summed over the verifiers: sum of batches.compute.";
    VERIFIER_RESTARTS = "verifier_restarts_total", Counter, "restarts", [], Both,
        "Verifiers that failed and were started anew: sum of verifiers.restarts.";
    VERIFIERS = "verifiers", Gauge, "verifiers", ["state"], Both,
        "Verifiers by what they do now.";
    REFUSALS = "refusals_total", Counter, "uploads", ["reason"], Both,
        "Uploads that the pool refused, by why; without lost connections the sum of generations.refused.";
    QUEUED_TOKENS = "queued_tokens", Gauge, "tokens", [], Both,
        "Tokens of work that wait in the pool's queue.";
    CONNECTIONS = "connections", Gauge, "connections", [], Both,
        "Devices that are connected.";
    SESSIONS = "sessions", Gauge, "sessions", [], Both,
        "Generations that the pool holds tokens of.";
    KV_BYTES = "kv_cache_bytes", Gauge, "bytes", [], Both,
        "Keys and values in the verifiers' caches, as of each one's last answer.";
    // ---- what this is ----------------------------------------------------------------------------------------------
    BUILD = "build_info", Gauge, "1", ["program", "version"], Both,
        "Always 1; the labels say which program of which version this is.";
    RUN = "run_info", Gauge, "1", ["run", "scenario_hash"], Run,
        "Always 1; the labels say which run this is, by its name in the ledger.";
}

/// The table of `docs/metrics.md`.
pub fn table() -> String {
    let mut text = String::from("| name | type | unit | labels | shown by | meaning |\n|---|---|---|---|---|---|\n");
    for family in ALL {
        let kind = match family.kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram(_) => "histogram",
        };
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let shown = match family.shown {
            Shown::Run => "run",
            Shown::Both => "run, pool",
        };
        let row = [&format!("`{}`", family.name), kind, family.unit, &labels.join(", "), shown, family.help];
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

/// The buckets of `docs/metrics.md`: a line per histogram.
pub fn buckets() -> String {
    let mut text = String::new();
    for family in ALL {
        if let Histogram(bounds) = family.kind {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            text += &format!("* `{}`: {}\n", family.name, bounds.join(", "));
        }
    }
    text
}
