//! What a running generation leaves for its summary: counters that are updated round by round, so that no round is kept.

use specfleet_engine::record::{AuditRecord, RoundRecord, Source};
use specfleet_engine::time::{Span, Time};

use super::collector::Collector;
use super::kind::MetricId;
use super::samples::MethodSamples;
use super::stream::StreamSummary;

/// Steps of 1 in which shares are summed up.
pub(super) const SHARE_STEPS: u64 = 1_000_000_000;

/// One generation's counters, 64 bytes: a simulator keeps one per device.
///
/// Order of calls: [`StreamSummary::start`], then [`GenerationTally::round`] for each committed token and
/// [`GenerationTally::audit`] for each token that the verifier has not seen, then [`StreamSummary::generation`]. All of
/// the same summary, or of one for the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationTally {
    /// The last commit; before the first one, the scheduled start.
    pub(super) last: Time,
    pub(super) latency_target: Span,
    pub(super) uplink_bytes: u64,
    /// Σ min(1, y_d/x_d) over the audited tokens, in steps of 1 / [`SHARE_STEPS`].
    pub(super) kept: u64,
    pub(super) audited: u32,
    pub(super) tokens: u32,
    /// Answered uploads of drafts.
    pub(super) uploads: u32,
    pub(super) accepted: u32,
    pub(super) replaced: u32,
    /// Bonus tokens, and all of `llm-only`.
    pub(super) added: u32,
    /// Tokens that came within the latency target.
    pub(super) in_time: u32,
    /// Place of the generation's phase among the summary's.
    pub(super) phase: u16,
    pub(super) data_set: u16,
}

impl GenerationTally {
    pub(super) fn new(phase: u16, data_set: u16, scheduled: Time, latency_target: Span) -> GenerationTally {
        GenerationTally {
            last: scheduled,
            latency_target,
            uplink_bytes: 0,
            kept: 0,
            audited: 0,
            tokens: 0,
            uploads: 0,
            accepted: 0,
            replaced: 0,
            added: 0,
            in_time: 0,
            phase,
            data_set,
        }
    }

    /// Counts the next round; its gap and its time in the queue go into the summary at once.
    ///
    /// # Panics
    ///
    /// If the summary is one of another run, with fewer methods or data sets.
    #[inline]
    pub fn round(&mut self, round: &RoundRecord, summary: &mut StreamSummary) {
        let samples = summary.books.samples_of(self);
        let _ = self.enter(round, samples, true);
    }

    /// Counts the next round; the gap since the one before, where that is known (`adjacent`) and there is one.
    #[inline]
    pub(super) fn enter<C: Collector>(
        &mut self,
        round: &RoundRecord,
        samples: &mut MethodSamples<C>,
        adjacent: bool,
    ) -> Option<Span> {
        let gap = round.committed_at.since(self.last);
        let between = (adjacent && self.tokens > 0).then_some(gap);
        if let Some(gap) = between {
            samples.nanoseconds(MetricId::InterTokenLatency, gap, 1);
        }
        self.last = round.committed_at;
        self.tokens += 1;
        self.in_time += u32::from(adjacent && gap <= self.latency_target);
        self.uplink_bytes += u64::from(round.uplink_bytes());
        match round.source {
            Source::Accepted => self.accepted += 1,
            Source::Replaced => self.replaced += 1,
            Source::Bonus | Source::Verifier => self.added += 1,
            Source::Skipped | Source::Fallback | Source::Refused => return between,
        }
        self.uploads += u32::from(round.judged_upload().is_some());
        if let Some(cost) = round.answered_upload() {
            samples.nanoseconds(MetricId::Queue, cost.verify.queue_wait + cost.verify.batch_wait, 1);
        }
        between
    }

    /// Adds what a later part of the same generation counted; the gap between them is the caller's.
    pub(super) fn append(&mut self, later: &GenerationTally) {
        self.last = later.last;
        self.uplink_bytes += later.uplink_bytes;
        self.kept += later.kept;
        self.audited += later.audited;
        self.tokens += later.tokens;
        self.uploads += later.uploads;
        self.accepted += later.accepted;
        self.replaced += later.replaced;
        self.added += later.added;
        self.in_time += later.in_time;
    }

    /// Counts what the verifier would have accepted of one token that it has not seen: min(1, y_d/x_d). NaN is left out.
    pub fn audit(&mut self, accept_probability: f32) {
        if accept_probability.is_finite() {
            self.kept += (f64::from(accept_probability.clamp(0.0, 1.0)) * SHARE_STEPS as f64).round() as u64;
            self.audited += 1;
        }
    }

    pub(super) fn audit_all(&mut self, audit: &AuditRecord) {
        audit.accept_probabilities.iter().for_each(|probability| self.audit(*probability));
    }

    /// Tokens that the verifier has not seen.
    pub(super) fn unseen(&self) -> u32 {
        self.tokens - self.accepted - self.replaced - self.added
    }
}
