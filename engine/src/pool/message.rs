//! What the pool machine is told and what it asks for.

use serde::{Deserialize, Serialize};

use crate::id::{ConnectionId, UploadId, VerifierId};
use crate::record::{BatchRecord, VerifierRecord, VerifyCost};
use crate::time::{Span, Time};

/// A session: one generation of one connection, numbered by the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    /// The connection it came over; gone with it.
    pub connection: ConnectionId,
    /// The device's number for it.
    pub session: u32,
}

/// What a job asks of the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobKind {
    /// Judge this many drafts.
    Judge {
        drafts: u8,
        /// Add a token if all are accepted.
        bonus: bool,
    },
    /// Write tokens, one per batch, until an end token or the limit.
    Write { left: u32 },
}

/// An upload as the machine sees it; the tokens wait in the driver until it is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Its session; created on the first upload (base 0).
    pub session: SessionKey,
    pub upload: UploadId,
    /// Tokens of the session that the device builds on.
    pub base: u32,
    /// Committed tokens that follow `base`.
    pub catch_up: u32,
    pub kind: JobKind,
    /// Expected risk, for schedulers.
    pub risk: f32,
    /// When the device stops waiting, in the pool's time.
    pub deadline: Time,
    /// When the device wants its verdict, in the pool's time; `None` without a target.
    pub wanted: Option<Time>,
}

/// Everything that can happen to the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// An upload has arrived.
    Upload(JobRequest),
    /// Nobody waits for this upload any more.
    Cancel { session: SessionKey, upload: UploadId },
    /// The generation is over; forget its session.
    Close(SessionKey),
    /// The connection is gone, and all its sessions with it.
    Disconnected(ConnectionId),
    /// A verifier has computed its batch.
    BatchDone {
        verifier: VerifierId,
        batch: u64,
        /// From the order until the start of the computation.
        waited: Span,
        /// How long it computed.
        compute: Span,
        /// One per item, in the batch's order.
        outcomes: Vec<ItemOutcome>,
    },
    /// A verifier died, with its KV caches and whatever it computed.
    VerifierFailed(VerifierId),
    /// A verifier is there (again), with empty caches.
    VerifierReady(VerifierId),
    /// Refuse new uploads from now on; what is queued is still computed.
    Closing,
    /// The time of [`super::PoolMachine::poll_timeout`] has come.
    Timeout,
}

/// What came out of one item of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemOutcome {
    pub accepted: u8,
    /// The token behind them, if the verifier drew one.
    pub next: Option<u32>,
    /// The upload's payload could not be read; it is refused for good.
    pub malformed: bool,
}

/// Everything the pool can ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Keep the tokens of this upload: its session now holds `base` tokens and what the upload brought.
    Admitted { session: SessionKey, upload: UploadId },
    /// Answer with a refusal and drop the upload's tokens.
    Refused {
        session: SessionKey,
        upload: UploadId,
        reason: RefuseReason,
        /// What the device should wait.
        retry_after: Span,
        price: f32,
    },
    /// Compute this batch; answer with `BatchDone` (or `VerifierFailed`).
    Start(Batch),
    /// Answer with the verdict of the item: the session keeps the accepted drafts and the next token.
    Verdict {
        session: SessionKey,
        upload: UploadId,
        /// Position of the item in its batch.
        item: u32,
        /// More verdicts follow for the same upload.
        more: bool,
        /// What it waited for, and its share of the batch's energy.
        cost: VerifyCost,
        price: f32,
    },
    /// Forget the tokens of this session.
    Forget(SessionKey),
    /// Free the KV cache that this verifier holds for this session.
    DropKv { verifier: VerifierId, session: SessionKey },
    /// Start this verifier anew; answer with `VerifierReady`.
    Restart(VerifierId),
    /// A batch is over.
    Record(BatchRecord),
    /// What a verifier did in this phase; answers [`super::PoolMachine::next_phase`].
    VerifierRecord(VerifierRecord),
}

/// A batch to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub verifier: VerifierId,
    pub batch: u64,
    /// KV caches to free first.
    pub evict: Vec<SessionKey>,
    pub items: Vec<BatchItem>,
    /// On an emulated pool, when it is over: answer no sooner, however fast it was computed. Else the start of time.
    pub release: Time,
}

/// One sequence of a batch: truncate its KV cache to `keep`, feed the session's tokens `keep..committed` and the
/// drafts (the last one only with a bonus), and judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchItem {
    pub session: SessionKey,
    pub upload: UploadId,
    /// Leading tokens of the KV cache that still hold; less than `committed`.
    pub keep: u32,
    /// Tokens of the session.
    pub committed: u32,
    pub kind: JobKind,
}

impl BatchItem {
    /// Tokens that the verifier feeds for it.
    pub fn work(&self) -> u32 {
        self.committed - self.keep + self.kind.fed_drafts()
    }
}

/// Why the pool would not take an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum RefuseReason {
    /// Too many jobs wait.
    #[error("the queue is full")]
    QueueFull,
    /// Too many tokens of work wait.
    #[error("the queue holds too many tokens")]
    TokensFull,
    /// The pool is shutting down.
    #[error("the pool is closing")]
    Closing,
    /// The session has an upload under way already.
    #[error("the session has an upload under way")]
    Busy,
    /// The session does not hold the tokens that the upload builds on.
    #[error("the session is not known to this length")]
    UnknownBase,
    /// The connection has too many sessions.
    #[error("too many sessions on this connection")]
    TooManySessions,
    /// The sequence would not fit into the verifier's context or KV cache.
    #[error("the sequence is longer than the verifier takes")]
    TooLong,
    /// The upload asks for nothing, or its payload cannot be read.
    #[error("the upload is malformed")]
    Malformed,
}

impl RefuseReason {
    /// Whether trying again is pointless.
    pub fn is_final(self) -> bool {
        matches!(self, RefuseReason::TooLong | RefuseReason::Malformed)
    }
}
