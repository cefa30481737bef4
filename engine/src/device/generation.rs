//! The state of one generation on a device, and how it becomes rows of the ledger. What happens to it stands in
//! `machine.rs`.

use super::attempt::Attempt;
use super::draft::Signals;
use super::energy::Charge;
use super::gate::{GateReason, RunningMoments};
use super::link::ChannelKey;
use super::machine::NEVER;
use super::message::{Lookback, Verdict};
use super::settings::{DeviceSettings, LOOKAHEAD};
use crate::id::{DeviceId, GenerationId, UploadId};
use crate::record::{
    DeviceCounts, DeviceTimes, FinishReason, GenerationEnergy, GenerationRecord, Provenance, RoundRecord, Source,
    UploadCost, UploadCounts, VerifyCost,
};
use crate::time::{Span, Time};

/// The state of the running generation.
#[derive(Debug)]
pub(super) struct RunningGeneration {
    pub(super) id: GenerationId,
    pub(super) data_set: u16,
    pub(super) prompt: u32,
    pub(super) limit: u32,
    /// Leading tokens of the sequence that are final.
    pub(super) committed: u32,
    /// Leading tokens that the pool's session holds.
    pub(super) uploaded: u32,
    /// Leading tokens that the drafter's KV cache holds.
    pub(super) kv: u32,
    pub(super) rejections: u32,
    /// Drafts at `committed..`, oldest first.
    pub(super) pending: Vec<PendingDraft>,
    pub(super) moments: RunningMoments,
    pub(super) network: UploadState,
    /// Why the drafts under way are uploaded.
    pub(super) upload_reason: GateReason,
    /// λ_link + λ_pool of the last decision; NaN without a price.
    pub(super) price: f32,
    pub(super) cost: SendingCost,
    pub(super) attempt: Attempt,
    pub(super) ending: Option<FinishReason>,
    pub(super) scheduled: Time,
    pub(super) started: Time,
    /// [`NEVER`] before there is one: an `Option` would cost eight bytes more.
    pub(super) first_token: Time,
    /// When the last token was committed; before there is one, when the generation was due.
    pub(super) last_token: Time,
    pub(super) times: DeviceTimes,
    /// How much of the waiting stands on a row already.
    pub(super) told_waiting: Span,
    pub(super) airtime_up: Span,
    pub(super) airtime_down: Span,
    pub(super) counts: DeviceCounts,
    pub(super) uploads: UploadCounts,
    pub(super) cloud: u64,
    pub(super) cloud_paper: u64,
}

/// A draft that is not decided yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingDraft {
    pub(super) token: u32,
    pub(super) payload_bits: u32,
    pub(super) signals: Signals,
    /// Its importance is known (or not asked for).
    pub(super) ready: bool,
}

/// The draft step under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Computing {
    pub(super) position: u32,
    pub(super) rejections: u32,
    pub(super) since: Time,
    /// Tokens fed beyond the one per step, and whether u(t) and I(t) are computed: what its charge follows from.
    pub(super) prefill: u32,
    pub(super) uncertainty: bool,
    pub(super) importance: bool,
    /// What it drafts follows a prefix that has been rolled back.
    pub(super) stale: bool,
    /// The result, held until the declared time is over.
    pub(super) held: Option<FinishedStep>,
}

/// What a [`StepResult`] says beyond what the step itself said.
#[derive(Clone, Copy, Debug)]
pub(super) struct FinishedStep {
    pub(super) token: u32,
    pub(super) payload_bits: u32,
    pub(super) signals: Signals,
    pub(super) lookback: Option<Lookback>,
}

/// Where the upload of the next decision stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum UploadState {
    Quiet,
    /// An upload is wanted, but there is no connection.
    Blocked {
        drafts: u8,
    },
    /// Its bits are leaving.
    Sending {
        drafts: u8,
        until: Time,
    },
    /// Its verdict is due.
    Awaiting {
        drafts: u8,
        upload: UploadId,
        deadline: Time,
    },
    /// It was refused and will be sent again.
    Backoff {
        drafts: u8,
        until: Time,
    },
}

/// What sending the upload under way has cost so far, resends included.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendingCost {
    pub(super) attempts: u32,
    pub(super) bits: u64,
    pub(super) bytes: u32,
    pub(super) snr_db: f32,
    pub(super) uplink: Span,
}

impl SendingCost {
    pub(super) const NONE: SendingCost =
        SendingCost { attempts: 0, bits: 0, bytes: 0, snr_db: f32::NAN, uplink: Span::ZERO };
}

impl Computing {
    /// The declared time of the step.
    pub(super) fn charge(&self, settings: &DeviceSettings) -> Charge {
        settings.profile.charge(self.prefill, self.uncertainty, self.importance)
    }

    /// When its declared time is over.
    pub(super) fn due(&self, settings: &DeviceSettings) -> Time {
        self.since + self.charge(settings).total()
    }
}

impl UploadState {
    /// Whether the answer to this upload is due.
    pub(super) fn awaits(self, upload: UploadId) -> bool {
        matches!(self, UploadState::Awaiting { upload: awaited, .. } if awaited == upload)
    }

    /// Drafts of the upload under way.
    pub(super) fn drafts(self) -> u32 {
        match self {
            UploadState::Quiet => 0,
            UploadState::Blocked { drafts }
            | UploadState::Sending { drafts, .. }
            | UploadState::Awaiting { drafts, .. }
            | UploadState::Backoff { drafts, .. } => u32::from(drafts),
        }
    }
}

impl RunningGeneration {
    /// The draft whose importance the step at `position` tells, if it waits for it.
    pub(super) fn looked_at(&mut self, position: u32) -> Option<&mut PendingDraft> {
        let index = (position - self.committed).checked_sub(LOOKAHEAD)?;
        self.pending.get_mut(index as usize).filter(|draft| !draft.ready)
    }

    /// What the channel of its next upload is drawn from.
    pub(super) fn channel(&self, seed: u64) -> ChannelKey {
        ChannelKey {
            seed,
            prompt: self.id.prompt,
            repetition: self.id.repetition,
            position: self.committed,
            attempt: self.cost.attempts,
        }
    }

    /// Tokens that may still be committed.
    pub(super) fn remaining(&self) -> u32 {
        (self.prompt + self.limit).saturating_sub(self.committed)
    }

    /// The row of a token that is committed now, in the place of the oldest draft if there is one.
    #[expect(clippy::too_many_arguments, reason = "one row of the ledger, put together in one place")]
    pub(super) fn record(
        &mut self,
        now: Time,
        position: u32,
        token: u32,
        rejections: u32,
        source: Source,
        reason: GateReason,
        bill: Option<&Verdict>,
    ) -> RoundRecord {
        // The first token that an upload led to pays for it. What a verifier writes after that pays for its verdict only.
        let sent = std::mem::replace(&mut self.cost, SendingCost::NONE);
        let upload = (sent.attempts > 0 || bill.is_some()).then(|| UploadCost {
            attempts: sent.attempts,
            uplink_bits: sent.bits,
            uplink_bytes: sent.bytes,
            downlink_bytes: bill.map_or(0, |bill| bill.bytes),
            snr_db: sent.snr_db,
            uplink: sent.uplink,
            downlink: bill.map_or(Span::ZERO, |bill| bill.downlink),
            verify: bill.map_or(VerifyCost::ZERO, |bill| bill.cost),
        });
        let waiting = self.times.waiting - std::mem::replace(&mut self.told_waiting, self.times.waiting);
        let drafted = self.pending.first();
        let signals = drafted.map(|d| &d.signals);
        RoundRecord {
            position: position - self.prompt,
            token,
            draft: drafted.map_or(u32::MAX, |d| d.token),
            rejections,
            source,
            reason,
            uncertainty: signals.map_or(f32::NAN, |s| s.statistic),
            importance: signals.map_or(f32::NAN, |s| s.importance),
            importance_threshold: signals.map_or(f32::NAN, |s| s.importance_threshold),
            draft_probability: signals.map_or(f32::NAN, |s| s.draft_probability),
            price: drafted.map_or(f32::NAN, |_| self.price),
            committed_at: now,
            waiting,
            upload,
        }
    }

    /// What it has taken so far, without the step under way's idle time.
    pub(super) fn energy(&self, settings: &DeviceSettings) -> GenerationEnergy {
        GenerationEnergy {
            device: settings.profile.energy(&self.counts, &self.times),
            radio: settings.link.energy(self.airtime_up, self.airtime_down),
            cloud: self.cloud,
            cloud_paper: self.cloud_paper,
        }
    }

    pub(super) fn close(self, now: Time, device: DeviceId, settings: &DeviceSettings) -> GenerationRecord {
        let energy = self.energy(settings);
        GenerationRecord {
            id: self.id,
            device,
            data_set: self.data_set,
            prompt_tokens: self.prompt,
            tokens: Vec::new(),
            finish: self.ending.unwrap_or(FinishReason::Failed),
            scheduled: self.scheduled,
            latency_target: settings.latency_target,
            started: self.started,
            first_token: Some(self.first_token).filter(|&at| at != NEVER),
            ended: now,
            times: self.times,
            airtime_up: self.airtime_up,
            airtime_down: self.airtime_down,
            counts: self.counts,
            uploads: self.uploads,
            energy,
            device_provenance: settings.profile.provenance(),
            radio_provenance: Provenance::Modelled,
            cloud_provenance: Provenance::Modelled,
        }
    }
}
