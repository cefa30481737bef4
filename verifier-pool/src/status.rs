//! What the pool says of itself.

use specfleet_engine::pool::Activity;
use specfleet_engine::record::UploadCounts;

/// What the pool is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Where the uploads that arrived have ended.
    pub counts: UploadCounts,
    /// Frames that came when what they should have come before was done: on an emulated pool, whose devices are on its clock.
    pub late: u64,
    /// Uploads that have not.
    pub outstanding: Outstanding,
    pub sessions: usize,
    /// Connections that have said hello.
    pub connections: usize,
    /// KV caches of each verifier, as of its last answer.
    pub kv: Vec<KvHeld>,
    /// What each verifier does, by number.
    pub verifiers: Vec<VerifierStatus>,
}

/// One verifier right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierStatus {
    pub activity: Activity,
    /// Times that it was started anew since the pool began.
    pub restarts: u32,
}

/// Uploads on their way through the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    pub queued_jobs: u32,
    /// Tokens of work that wait.
    pub queued_tokens: u64,
    pub running: usize,
}

/// What a verifier's KV arena holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvHeld {
    /// Sequences with a cache.
    pub sequences: usize,
    /// Bytes of keys and values, in whole pages.
    pub bytes: usize,
}
