//! An upload while the pool works on it.

use super::message::{JobKind, JobRequest};
use crate::id::{UploadId, VerifierId};
use crate::time::{Span, Time};

/// A job that this many verifiers have died with is taken for the cause, and refused for good.
pub(super) const MOST_FAILURES: u8 = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedJob {
    pub(super) upload: UploadId,
    pub(super) kind: JobKind,
    pub(super) committed: u32,
    /// Its place in the order of arrival; kept when its verifier dies.
    pub(super) number: u64,
    pub(super) arrived: Time,
    /// When its verdict is wanted, or else when its device stops waiting.
    pub(super) wanted: Time,
    /// As the device says; NaN if it does not.
    pub(super) risk: f32,
    /// Verifiers that died with it.
    pub(super) failures: u8,
}

/// A job in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    pub(super) job: QueuedJob,
    pub(super) verifier: Option<VerifierId>,
    /// Tokens it would feed if it were computed there now.
    pub(super) tokens: u32,
}

/// A job in a batch that is being computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunningItem {
    /// Stays this session's until the batch is over, even if it closes.
    pub(super) session: u32,
    pub(super) job: QueuedJob,
    pub(super) keep: u32,
    pub(super) work: u32,
}

/// A batch that is being computed.
#[derive(Debug)]
pub(super) struct RunningBatch {
    pub(super) batch: u64,
    pub(super) started: Time,
    /// On an emulated pool, the time that it is charged.
    pub(super) charge: Option<Span>,
    pub(super) items: Vec<RunningItem>,
    pub(super) tokens: u64,
    /// How long the pool thought it would take.
    pub(super) estimate: Span,
    /// λ_pool when it was started.
    pub(super) price: f32,
}

impl RunningBatch {
    /// On an emulated pool, when it is over and its verdicts leave; else the start of time.
    pub(super) fn release(&self) -> Time {
        self.charge.map_or(Time::ZERO, |charge| self.started + charge)
    }
}

impl JobKind {
    pub(super) fn drafts(self) -> u32 {
        match self {
            JobKind::Judge { drafts, .. } => u32::from(drafts),
            JobKind::Write { .. } => 0,
        }
    }

    /// Drafts that go through the model: the last one only matters to the token behind it.
    pub(super) fn fed_drafts(self) -> u32 {
        match self {
            JobKind::Judge { drafts, bonus } => u32::from(drafts) - u32::from(!bonus && drafts > 0),
            JobKind::Write { .. } => 0,
        }
    }
}

impl QueuedJob {
    /// `committed`: tokens of the session that it builds on, at least 1.
    pub(super) fn new(now: Time, number: u64, committed: u32, request: &JobRequest) -> QueuedJob {
        QueuedJob {
            upload: request.upload,
            kind: request.kind,
            committed,
            number,
            arrived: now,
            wanted: request.wanted.unwrap_or(request.deadline),
            risk: request.risk,
            failures: 0,
        }
    }

    /// The next token of a text that the pool writes; it has as long as the one before had.
    pub(super) fn next_token(&self, now: Time, number: u64, committed: u32, left: u32) -> QueuedJob {
        let wanted = now + self.wanted.since(self.arrived);
        QueuedJob { kind: JobKind::Write { left }, committed, number, arrived: now, wanted, ..*self }
    }

    /// Tokens of KV cache that it needs.
    pub(super) fn held(&self) -> u32 {
        self.committed + self.kind.fed_drafts()
    }

    /// Leading tokens that need not be fed if the cache holds `kv` of them: the last committed one is fed always.
    pub(super) fn keep(&self, kv: u32) -> u32 {
        kv.min(self.committed - 1)
    }

    /// Tokens to feed if the cache holds `kv` leading ones.
    pub(super) fn work(&self, kv: u32) -> u32 {
        self.held() - self.keep(kv)
    }
}
