//! What a device logs: one span per round, and in it what became of its upload; connections come and go outside.
//!
//! A round is a draft that the gate keeps, or an upload with all that follows from it: resends, verdicts, commits. Its span
//! has the numbers that the ledger's row has (method, prompt, repetition, pass, position, rejections). Everything here is at level
//! `debug`; while that is not asked for nothing is formatted, allocated or compared but the level.

use specfleet_engine::device::UploadPlan;
use specfleet_engine::id::{DeviceId, GenerationId, UploadId};
use specfleet_engine::pool::{JobKind, RefuseReason};
use specfleet_engine::record::{RoundRecord, Source};
use specfleet_engine::time::Span as Period;
use specfleet_engine::wire::VerdictFrame;
use tracing::{Span, debug, debug_span, info};

use crate::error::LinkError;

/// The round of an upload under way.
pub(crate) struct RoundSpan {
    span: Span,
    /// What tells a resend from the next round.
    plan: Option<UploadPlan>,
}

impl Default for RoundSpan {
    fn default() -> RoundSpan {
        RoundSpan { span: Span::none(), plan: None }
    }
}

impl RoundSpan {
    /// An upload has left.
    pub(crate) fn uploaded(&mut self, device: DeviceId, method: &str, prompt: u32, plan: &UploadPlan, bytes: u32) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let UploadPlan { generation, committed, rejections, .. } = *plan;
        let same = |last: &UploadPlan| {
            (last.generation, last.committed, last.rejections, last.job)
                == (generation, committed, rejections, plan.job)
        };
        if !self.plan.as_ref().is_some_and(same) {
            self.span = round(device, method, generation, committed.saturating_sub(prompt), rejections);
        }
        self.plan = Some(*plan);
        let (drafts, writes) = match plan.job {
            JobKind::Judge { drafts, .. } => (u32::from(drafts), 0),
            JobKind::Write { left } => (0, left),
        };
        let catch_up = committed - plan.base;
        debug!(parent: &self.span, upload = plan.upload.0, session = plan.session, drafts, writes, catch_up, bytes, "upload");
    }

    /// A verdict's first bit has arrived.
    pub(crate) fn verdict(&self, frame: &VerdictFrame, bytes: usize) {
        debug!(
            parent: &self.span,
            upload = frame.upload.0,
            accepted = frame.accepted,
            queue_ns = frame.cost.queue_wait.0,
            batch_ns = frame.cost.batch_wait.0,
            compute_ns = frame.cost.compute.0,
            work = frame.cost.fed_tokens,
            bytes,
            "verdict"
        );
    }

    /// The pool would not take it.
    pub(crate) fn refused(&self, upload: UploadId, reason: RefuseReason, retry_after: Period) {
        debug!(parent: &self.span, upload = upload.0, reason = %reason, retry_after_ns = retry_after.0, "refused");
    }

    /// Nobody waits for it any more.
    pub(crate) fn cancelled(&self, upload: UploadId) {
        debug!(parent: &self.span, upload = upload.0, "cancelled");
    }

    /// A token is committed: of the upload under way, or of a round of its own.
    pub(crate) fn committed(&self, device: DeviceId, method: &str, generation: GenerationId, record: &RoundRecord) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let RoundRecord { position, rejections, token, source, reason, .. } = *record;
        let own = match source {
            Source::Skipped => Some(round(device, method, generation, position, rejections)),
            _ => None,
        };
        let span = own.as_ref().unwrap_or(&self.span);
        debug!(parent: span, at = position, token, source = ?source, gate = ?reason, attempts = record.attempts(), "commit");
    }
}

fn round(device: DeviceId, method: &str, generation: GenerationId, position: u32, rejections: u32) -> Span {
    let GenerationId { method: index, prompt, repetition, pass } = generation;
    let device = device.0;
    debug_span!("round", device, method, method_index = index, prompt, repetition, pass, position, rejections)
}

/// The pool has welcomed the device.
pub(crate) fn connected(device: DeviceId, attempt: u32) {
    info!(device = device.0, attempt, "connected");
}

/// A connection, or an attempt to make one, has ended.
pub(crate) fn lost(device: DeviceId, attempt: u32, error: &LinkError) {
    info!(device = device.0, attempt, for_good = error.is_final(), error = %error, "connection lost");
}
