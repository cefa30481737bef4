//! What the pool machine is told once.

use serde::{Deserialize, Serialize};

use crate::cost::BatchCost;
use crate::device::energy::VerifierProfile;
use crate::id::PhaseId;
use crate::time::Span;

/// In which order jobs leave a verifier's queue. None of them changes a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueOrder {
    Fifo,
    /// Whose verdict is wanted first; what can no longer be in time, by the time estimate, goes behind what can.
    Deadline,
    /// The device with the least service so far, in tokens of work (virtual counters with idle lift).
    Fair,
    /// The highest expected risk per token of work.
    Value,
}

/// When a verifier is not given new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Failures in a row that open it; 0 never opens it.
    pub failures: u32,
    /// How long it stays open the first time; doubled with each further failure, up to 64 times.
    pub cooldown: Span,
}

/// How the congestion price moves (method.md §4 [ours]): once per period, λ ← max(0, λ + η(ρ − ρ*)), with ρ the work
/// offered in the period over what the verifiers that are up could have done in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceUpdate {
    /// η; 0 keeps the price at 0.
    pub step: f32,
    pub target_load: f32,
    /// Length of a period.
    pub period: Span,
}

/// How many verifiers are up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Autoscale {
    /// Fewest, at least 1.
    pub min: u16,
    pub max: u16,
    /// The busy share of the verifiers that are up which it steers to, in (0, 1].
    pub target_busy: f32,
    /// From the decision to a verifier that takes work.
    pub cold_start: Span,
    /// How often it decides. It adds at once what is missing and takes away one at a time.
    pub period: Span,
}

/// Bounds and prices of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSettings {
    /// Whose turn it is; goes into the records of batches.
    pub phase: PhaseId,
    /// Verifier replicas, at least 1. With `autoscale` those that are up at the start; the driver has `max` of them.
    pub verifiers: u16,
    /// Most tokens fed in one batch; a single job beyond it runs alone.
    pub batch_tokens: u32,
    /// Most sequences in one batch, at least 1.
    pub batch_sequences: u32,
    /// How long an idle verifier waits for more jobs after the first; 0 starts at once.
    pub max_wait: Span,
    /// A batch is cut where the pool thinks that it would take longer than this; zero never cuts.
    pub batch_time: Span,
    /// In which order jobs leave the queue.
    pub order: QueueOrder,
    /// When a failing verifier gets no more work.
    pub breaker: Breaker,
    /// How the congestion price moves.
    pub price: PriceUpdate,
    /// How many verifiers are up; `None` keeps all up.
    pub autoscale: Option<Autoscale>,
    /// Most jobs in the queue.
    pub queue_jobs: u32,
    /// Most tokens of work in the queue.
    pub queue_tokens: u64,
    /// Most sessions that one connection may have open.
    pub sessions_per_connection: u32,
    /// Tokens that one verifier's KV arena holds.
    pub kv_tokens: u64,
    /// Longest sequence the verifier takes.
    pub context: u32,
    /// Tokens that end a text.
    pub end_tokens: Vec<u32>,
    /// What a refused device is told to wait.
    pub retry_after: Span,
    pub profile: VerifierProfile,
    /// What a batch is charged. With one the pool is *emulated*: batches take, and cost, what this says, and not what the
    /// machine at hand measures. `None`: as measured.
    pub cost: Option<BatchCost>,
}

impl PoolSettings {
    /// Verifier replicas that the driver has, at least 1.
    pub fn replicas(&self) -> u16 {
        self.autoscale.map_or(self.verifiers, |scale| scale.max.max(scale.min)).max(1)
    }
}
