//! What a generation leaves behind: its tokens, times, counts and energy.

use serde::{Deserialize, Serialize};

use super::Provenance;
use crate::device::DeviceSettings;
use crate::id::{DeviceId, GenerationId};
use crate::time::{Span, Time};

/// Where a device's time went, in integer nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTimes {
    /// Draft steps, prefill included.
    pub draft: Span,
    pub uncertainty: Span,
    pub importance: Span,
    /// Computing longer than the profile declares, because the emulating machine was late.
    pub overrun: Span,
    /// Nothing to compute, an upload under way or the pool out of reach. On an emulated device an upload is charged what
    /// its emulated link and the pool say, whatever it took.
    pub waiting: Span,
    /// By how much the machine that emulates the device became late meanwhile. It costs nothing, and since accounting 3 it is
    /// no part of the generation's span, because the device lives by its own clock.
    pub waiting_overrun: Span,
    /// Nothing to do at all.
    pub idle: Span,
}

impl DeviceTimes {
    /// The sum of all states that are part of the generation's span, by the accounting of its run.
    pub fn total(&self, accounting: u32) -> Span {
        let late = if accounting < 3 { self.waiting_overrun } else { Span::ZERO };
        self.draft + self.uncertainty + self.importance + self.overrun + self.waiting + late + self.idle
    }
}

/// Counts that the energy model turns into joules, and that show waste.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// Draft steps (one new token each).
    pub draft_steps: u64,
    /// Tokens fed beyond the one per step: the prompt, and what a rollback or a rebuild made the device feed again.
    pub prefill_tokens: u64,
    pub uncertainty: u64,
    pub importance: u64,
    /// Drafts thrown away (behind a rejection, or drafted ahead in vain).
    pub wasted_drafts: u64,
    /// Step results and verdicts that came too late to matter.
    pub stale: u64,
}

/// Where each upload attempt ended. `sent = verdicts + refused + cancelled` once a generation is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadCounts {
    /// Attempts that left the device.
    pub sent: u64,
    /// Ended by a verdict.
    pub verdicts: u64,
    /// Ended by a typed refusal.
    pub refused: u64,
    /// Ended by a timeout, a lost connection or the end of the generation.
    pub cancelled: u64,
}

/// Energy of one generation by part, in nanojoules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationEnergy {
    /// The device's processor: drafting, signals, waiting.
    pub device: u64,
    /// The device's radio, both ways.
    pub radio: u64,
    /// The verifier's share, catch-up included.
    pub cloud: u64,
    /// The verifier's share as the papers count it: judged drafts only.
    pub cloud_paper: u64,
}

impl GenerationEnergy {
    /// Device, radio and cloud: what the system spent. `cloud_paper` is another view of `cloud`, not a part.
    pub fn total(&self) -> u64 {
        self.device + self.radio + self.cloud
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinishReason {
    /// An end-of-text token was committed.
    Stop,
    /// `max_new_tokens` were committed, or the model's context is full.
    Length,
    /// The pool was out of reach and the scenario says `fail`, or it refused for good.
    Failed,
    /// The device's battery was empty.
    Battery,
    /// The device left the fleet.
    Left,
    /// Never started: too many requests waited for its device, or the device had gone.
    Dropped,
}

impl FinishReason {
    /// Whether the device is gone for good with it.
    pub fn is_last(self) -> bool {
        matches!(self, FinishReason::Battery | FinishReason::Left)
    }
}

/// One finished generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationRecord {
    pub id: GenerationId,
    pub device: DeviceId,
    /// Index into the run's list of data sets.
    pub data_set: u16,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// The generated tokens, the end-of-text token included.
    pub tokens: Vec<u32>,
    pub finish: FinishReason,
    /// When it was due to start; its latencies count from here, so that a busy device hides no waiting.
    pub scheduled: Time,
    /// The latency per token that its user wants; zero for none.
    pub latency_target: Span,
    pub started: Time,
    /// When its first token was committed.
    pub first_token: Option<Time>,
    pub ended: Time,
    /// Where the device's time went.
    pub times: DeviceTimes,
    /// Airtime up and down.
    pub airtime_up: Span,
    pub airtime_down: Span,
    pub counts: DeviceCounts,
    pub uploads: UploadCounts,
    pub energy: GenerationEnergy,
    /// Where the device's joules come from.
    pub device_provenance: Provenance,
    /// Where the radio's joules come from.
    pub radio_provenance: Provenance,
    /// Where the cloud's joules come from.
    pub cloud_provenance: Provenance,
}

impl GenerationRecord {
    /// The record of a request that no device took: nothing happened, at the time at which it was due.
    pub fn dropped(
        id: GenerationId,
        device: DeviceId,
        data_set: u16,
        prompt_tokens: u32,
        scheduled: Time,
        settings: &DeviceSettings,
    ) -> GenerationRecord {
        GenerationRecord {
            id,
            device,
            data_set,
            prompt_tokens,
            tokens: Vec::new(),
            finish: FinishReason::Dropped,
            scheduled,
            latency_target: settings.latency_target,
            started: scheduled,
            first_token: None,
            ended: scheduled,
            times: DeviceTimes::default(),
            airtime_up: Span::ZERO,
            airtime_down: Span::ZERO,
            counts: DeviceCounts::default(),
            uploads: UploadCounts::default(),
            energy: GenerationEnergy::default(),
            device_provenance: settings.profile.provenance(),
            radio_provenance: Provenance::Modelled,
            cloud_provenance: Provenance::Modelled,
        }
    }
}
