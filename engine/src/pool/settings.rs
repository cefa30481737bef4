//! What the pool machine is told once.

use serde::{Deserialize, Serialize};

use crate::device::energy::VerifierProfile;
use crate::time::Span;

/// Bounds and prices of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSettings {
    /// Index of the running method in the run's list; goes into the batch records.
    pub method: u16,
    /// Verifier replicas, at least 1.
    pub verifiers: u16,
    /// Most tokens fed in one batch; a single job beyond it runs alone.
    pub batch_tokens: u32,
    /// Most sequences in one batch, at least 1.
    pub batch_sequences: u32,
    /// How long an idle verifier waits for more jobs after the first; 0 starts at once.
    pub max_wait: Span,
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
    /// What batches cost.
    pub profile: VerifierProfile,
}
