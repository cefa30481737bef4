//! Uploads: sending drafts, and what the pool says to them.

use super::super::attempt::Attempt;
use super::super::gate::GateReason;
use super::super::generation::{RunningGeneration, SendingCost, UploadState};
use super::super::link::{Direction, Transfer};
use super::super::message::{NextToken, Output, Refusal, UploadPlan, Verdict};
use super::super::settings::{DeviceSettings, OnRefused, OnUnreachable};
use super::committing::Commit;
use super::connecting::ConnectionState;
use super::{DeviceMachine, NEVER};
use crate::id::UploadId;
use crate::pool::JobKind;
use crate::record::{FinishReason, Source};
use crate::time::{Span, Time};

/// Doublings of the time that a device waits for a verdict.
const MOST_DOUBLINGS: u32 = 10;

impl DeviceMachine {
    /// Starts to send the oldest `drafts` drafts (none when the verifier writes).
    pub(super) fn begin_upload(&mut self, now: Time, drafts: u8) {
        let bits = self.upload_bits(drafts);
        let Some(generation) = &mut self.generation else { return };
        if self.connection != ConnectionState::Up {
            generation.network = UploadState::Blocked { drafts };
            self.fall_silent(now);
            return;
        }
        let key = generation.channel(self.settings.seed);
        let Transfer { arrives, airtime, snr, .. } =
            self.link.transfer(&self.settings.link, key, Direction::Up, now, bits);
        generation.airtime_up += airtime;
        generation.attempt = Attempt::begin(arrives, key.position, key.attempt);
        let cost = &mut generation.cost;
        cost.attempts += 1;
        cost.bits += bits;
        cost.uplink += arrives.since(now);
        if cost.attempts == 1 {
            // A reading for people: single precision will do, and is twice as fast.
            cost.snr_db = 10.0 * (snr as f32).log10();
        }
        generation.network = UploadState::Sending { drafts, until: arrives };
    }

    /// Nominal bits of an upload of the oldest `drafts` drafts: what the pool lacks of the text, and the payloads.
    pub(super) fn upload_bits(&self, drafts: u8) -> u64 {
        let Some(generation) = &self.generation else { return 0 };
        let catch_up = u64::from(generation.committed - generation.uploaded) * self.settings.id_bits();
        let payload: u64 = generation.pending.iter().take(usize::from(drafts)).map(|p| u64::from(p.payload_bits)).sum();
        catch_up + payload
    }

    /// The last bit has left.
    pub(super) fn send(&mut self, now: Time, drafts: u8, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        self.next_upload += 1;
        let upload = UploadId(self.next_upload);
        // Patience doubles with each attempt, or a pool that is merely slow would compute every one of them in vain.
        let attempts = generation.cost.attempts.clamp(1, MOST_DOUBLINGS + 1) - 1;
        let deadline = now + Span(self.settings.verdict_timeout.0.saturating_mul(1 << attempts));
        generation.uploads.sent += 1;
        generation.network = UploadState::Awaiting { drafts, upload, deadline };
        let sent = &generation.pending[..usize::from(drafts).min(generation.pending.len())];
        let ends = sent.last().is_some_and(|last| self.settings.end_tokens.contains(&last.token));
        let room = generation.remaining() > u32::from(drafts);
        let job = if drafts == 0 {
            JobKind::Write { left: generation.remaining() }
        } else {
            JobKind::Judge { drafts, bonus: self.settings.method.bonus && room && !ends }
        };
        out.push(Output::Upload(UploadPlan {
            upload,
            session: self.session,
            generation: generation.id,
            rejections: generation.rejections,
            base: generation.uploaded,
            committed: generation.committed,
            job,
            deadline,
            wanted: wanted(generation, &self.settings, drafts),
            risk: sent.iter().map(|p| p.signals.statistic).sum(),
        }));
    }

    pub(super) fn sent(&mut self, upload: UploadId, bytes: u32) {
        if let Some(generation) = &mut self.generation
            && generation.network.awaits(upload)
        {
            generation.cost.bytes = generation.cost.bytes.saturating_add(bytes);
        }
    }

    pub(super) fn verdict(&mut self, now: Time, verdict: &Verdict, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        let awaited = match generation.network {
            UploadState::Awaiting { drafts, upload, .. } if upload == verdict.upload => drafts,
            _ => {
                generation.counts.stale += 1;
                return;
            }
        };
        self.failures = 0;
        self.silent_since = NEVER;
        if let Some(extras) = &mut self.extras {
            extras.announced(now, verdict.price);
        }
        generation.cloud += verdict.cost.nanojoules;
        generation.cloud_paper += verdict.cost.paper_nanojoules;
        if verdict.more {
            generation.network = UploadState::Awaiting {
                drafts: awaited,
                upload: verdict.upload,
                deadline: now + self.settings.verdict_timeout,
            };
        } else {
            generation.uploads.verdicts += 1;
            generation.network = UploadState::Quiet;
        }
        self.apply(now, awaited, verdict, out);
    }

    pub(super) fn apply(&mut self, now: Time, drafts: u8, verdict: &Verdict, out: &mut Vec<Output>) {
        let accepted = verdict.accepted.min(drafts);
        let reason = self.generation.as_ref().map_or(GateReason::Always, |g| g.upload_reason);
        let mut bill = Some(verdict);
        for _ in 0..accepted {
            self.commit(now, Commit::Draft(Source::Accepted), reason, bill.take(), out);
        }
        match verdict.next {
            NextToken::Replacement(token) | NextToken::Resampled(token) if accepted < drafts => {
                self.commit(now, Commit::Replace(token), reason, bill.take(), out);
            }
            NextToken::Bonus(token) if accepted == drafts => {
                self.commit(now, Commit::Add(token), reason, bill.take(), out);
            }
            // No token, or one that does not fit what was asked: nothing to commit.
            _ => {}
        }
        if let Some(generation) = &mut self.generation {
            let unknown = u32::from(matches!(verdict.next, NextToken::Resampled(_)));
            generation.uploaded = generation.committed - unknown.min(generation.committed);
        }
    }

    pub(super) fn refused(&mut self, now: Time, refusal: Refusal, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        let UploadState::Awaiting { drafts, upload, .. } = generation.network else { return };
        if upload != refusal.upload {
            return;
        }
        generation.uploads.refused += 1;
        // The pool may have forgotten the session since: start over from the prompt.
        generation.uploaded = 0;
        self.silent_since = NEVER;
        if let Some(extras) = &mut self.extras {
            extras.announced(now, refusal.price);
        }
        if refusal.reason.is_final() {
            generation.network = UploadState::Quiet;
            generation.ending = Some(FinishReason::Failed);
            return;
        }
        let wait = match self.settings.on_refused {
            OnRefused::Local if drafts > 0 => return self.commit_refused(now, drafts, out),
            OnRefused::Wait => refusal.retry_after,
            // A text that the verifier writes cannot go on without it.
            OnRefused::Retry | OnRefused::Local => {
                self.failures += 1;
                refusal.retry_after.max(self.settings.retry.delay(self.failures))
            }
        };
        generation.network = UploadState::Backoff { drafts, until: now + wait };
    }

    /// The pool has no room and the scenario does not wait for it: the drafts stand, and the first one's record bears what
    /// the upload has cost.
    fn commit_refused(&mut self, now: Time, drafts: u8, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        generation.network = UploadState::Quiet;
        let reason = generation.upload_reason;
        for _ in 0..drafts {
            self.commit_draft(now, Source::Refused, reason, out);
        }
    }

    /// Ends the awaited upload without a verdict.
    pub(super) fn cancel(&mut self, now: Time, upload: UploadId, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        generation.uploads.cancelled += 1;
        self.fall_silent(now);
        out.push(Output::Cancel(upload));
    }

    /// The pool is out of reach and the scenario does not want to wait any longer.
    pub(super) fn give_up_on_pool(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        let drafts = generation.network.drafts();
        if let UploadState::Awaiting { upload, .. } = generation.network {
            generation.uploads.cancelled += 1;
            out.push(Output::Cancel(upload));
        }
        generation.network = UploadState::Quiet;
        if self.settings.on_unreachable == OnUnreachable::Local && drafts > 0 {
            let reason = generation.upload_reason;
            generation.cost = SendingCost::NONE;
            for _ in 0..drafts {
                self.commit_draft(now, Source::Fallback, reason, out);
            }
        } else {
            generation.ending = Some(FinishReason::Failed);
        }
    }

    pub(super) fn unreachable_at(&self, generation: &RunningGeneration) -> Option<Time> {
        let wanted = !matches!(generation.network, UploadState::Quiet);
        let gives_up = matches!(self.settings.on_unreachable, OnUnreachable::Local | OnUnreachable::Fail);
        (gives_up && wanted && self.silent_since != NEVER).then(|| self.silent_since + self.settings.unreachable_after)
    }
}

/// When the user wants the verdict of an upload of `drafts` drafts to leave the pool \[ours\]: one latency target per token
/// after the last token (or after the generation was due), less the way back. `None` without a target.
fn wanted(generation: &RunningGeneration, settings: &DeviceSettings, drafts: u8) -> Option<Time> {
    if settings.latency_target == Span::ZERO {
        return None;
    }
    // One verdict at a time where the verifier writes.
    let allowed = settings.latency_target.0.saturating_mul(u64::from(drafts.max(1)));
    let way_back = if settings.link.emulated { settings.link.propagation().0 } else { 0 };
    Some(Time((generation.last_token + Span(allowed)).0.saturating_sub(way_back)))
}
