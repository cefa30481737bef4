//! What a run leaves behind: the record types that both drivers write and that the ledger stores as they are.
//!
//! Energies are integer **nanojoules** and times integer **nanoseconds**, so that sums over stored rows equal the totals
//! exactly, in any order. Missing statistics are `NaN`.

mod generation;
mod pool;

use serde::{Deserialize, Serialize};

pub use self::generation::{DeviceCounts, DeviceTimes, FinishReason, GenerationEnergy, GenerationRecord, UploadCounts};
pub use self::pool::{AuditRecord, BETWEEN_METHODS, BatchRecord, VerifierRecord};
use crate::device::gate::GateReason;
use crate::time::{Span, Time};

/// How joules and waiting are accounted; figures of different accountings are not compared. 1: a batch costs its measured
/// time times the watts, and a device pays idle watts for whatever its host made it wait. 2: an emulated pool charges
/// declared or fitted times, an emulated device pays for what it is charged, and the channel belongs to uploads instead of
/// the clock. 3: emulated devices and pools live by declared times altogether, so that their latencies and batches are no
/// longer those of the host ([`RunClock::Emulated`]); overrun of waiting is beside a generation's time and not part of it.
pub const ACCOUNTING: u32 = 3;

/// What the times of a run's devices and pool follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunClock {
    /// The clock of the host: what else it does shows in the figures.
    #[default]
    Host,
    /// Declared or fitted times alone: the same seed gives the same figures on every host, live and simulated.
    Emulated,
}

/// Where a joule or a second comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// Read from a hardware meter or a clock.
    Measured,
    /// Computed from measured times and declared powers.
    Modelled,
    /// Declared per token in a profile.
    Constant,
}

/// Who put a committed token into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The drafter, without asking.
    Skipped,
    /// The drafter, accepted by the verifier.
    Accepted,
    /// The verifier, instead of a rejected draft.
    Replaced,
    /// The verifier, after a fully accepted block.
    Bonus,
    /// The verifier alone (`llm-only`).
    Verifier,
    /// The drafter, because the pool was out of reach and the scenario says `local`.
    Fallback,
    /// The drafter, because the pool refused the upload and the scenario says `local`.
    Refused,
}

impl Source {
    /// Whether the verifier accepted the draft; `None` where it judged no draft.
    #[inline]
    pub fn accepted(self) -> Option<bool> {
        match self {
            Source::Accepted => Some(true),
            Source::Replaced => Some(false),
            Source::Skipped | Source::Bonus | Source::Verifier | Source::Fallback | Source::Refused => None,
        }
    }

    /// Whether the verifier judged a draft at this token.
    #[inline]
    pub fn is_judged_draft(self) -> bool {
        self.accepted().is_some()
    }

    /// Whether the drafter proposed a token here, about which the gate decided.
    #[inline]
    pub fn is_draft(self) -> bool {
        !matches!(self, Source::Bonus | Source::Verifier)
    }

    /// Whether the verifier has not seen this token.
    #[inline]
    pub fn is_unseen(self) -> bool {
        matches!(self, Source::Skipped | Source::Fallback | Source::Refused)
    }

    /// Whether the device committed its draft because the pool was out of reach or would not take it. When that happens
    /// depends on chance.
    #[inline]
    pub fn is_without_pool(self) -> bool {
        matches!(self, Source::Fallback | Source::Refused)
    }
}

/// One committed token: the decision that led to it, and what its upload cost if it paid for one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// Position among the generated tokens, from 0.
    pub position: u32,
    pub token: u32,
    /// What the drafter proposed; equals `token` unless replaced. `u32::MAX` where nothing was drafted.
    pub draft: u32,
    /// Rejections so far in this generation when the draft was drawn.
    pub rejections: u32,
    pub source: Source,
    /// Why the gate decided as it did.
    pub reason: GateReason,
    /// The gate's statistic: u(t), the entropy in nats, or 1 − max x. NaN if the method needs none.
    pub uncertainty: f32,
    /// I(t); NaN if the method needs none.
    pub importance: f32,
    /// What I(t) had to reach; NaN if the method needs none.
    pub importance_threshold: f32,
    /// x_d, the drafter's probability of its draft; NaN where nothing was drafted.
    pub draft_probability: f32,
    /// λ_link + λ_pool that the gate weighed this draft against; NaN without a price.
    pub price: f32,
    /// When the token was committed.
    pub committed_at: Time,
    /// Time charged as waiting since the token before.
    pub waiting: Span,
    /// What getting it from the pool cost. An upload and its verdict are paid for by the first token that they led to; the
    /// other tokens of the block, and those that needed no upload, have no cost. A verifier that writes alone answers one
    /// upload with many verdicts: the first token pays for the upload too, the others for their verdicts only.
    pub upload: Option<UploadCost>,
}

impl RoundRecord {
    /// A round about which nothing is known: zeros, NaN for the statistics, and no upload.
    pub const UNKNOWN: RoundRecord = RoundRecord {
        position: 0,
        token: 0,
        draft: 0,
        rejections: 0,
        source: Source::Skipped,
        reason: GateReason::Never,
        uncertainty: f32::NAN,
        importance: f32::NAN,
        importance_threshold: f32::NAN,
        draft_probability: f32::NAN,
        price: f32::NAN,
        committed_at: Time::ZERO,
        waiting: Span::ZERO,
        upload: None,
    };

    /// What it paid for its upload; [`UploadCost::ZERO`] if it paid for none. For tables that have figures in every row.
    #[inline]
    pub fn upload_cost(&self) -> UploadCost {
        self.upload.unwrap_or(UploadCost::ZERO)
    }

    /// The cost of an upload whose first token it is. Unlike `upload`, it leaves out the tokens that a verifier goes on to
    /// write by itself, which pay for their verdicts but made no attempt.
    #[inline]
    pub fn started_upload(&self) -> Option<&UploadCost> {
        self.upload.as_ref().filter(|cost| cost.attempts > 0)
    }

    /// Whether the verifier judged a draft at this token.
    #[inline]
    pub fn is_judged_draft(&self) -> bool {
        self.source.is_judged_draft()
    }

    /// The cost of an upload that the pool answered with a verdict, if this is its first token. A text that the verifier
    /// writes alone has one such token.
    #[inline]
    pub fn answered_upload(&self) -> Option<&UploadCost> {
        self.started_upload().filter(|_| !self.source.is_unseen())
    }

    /// What the pool charged for a request that it answered: an upload, or the next token of a text that the verifier writes
    /// alone, for which it waited in the queue anew.
    #[inline]
    pub fn answered_request(&self) -> Option<&VerifyCost> {
        let asked_again = self.source == Source::Verifier;
        self.upload
            .as_ref()
            .filter(|cost| asked_again || cost.attempts > 0 && !self.source.is_unseen())
            .map(|cost| &cost.verify)
    }

    /// The cost of an upload whose drafts the verifier judged, if this is its first token.
    #[inline]
    pub fn judged_upload(&self) -> Option<&UploadCost> {
        self.answered_upload().filter(|_| self.source != Source::Verifier)
    }

    /// Upload attempts that it paid for, resends included; 0 if it paid for none.
    #[inline]
    pub fn attempts(&self) -> u32 {
        self.upload.map_or(0, |cost| cost.attempts)
    }

    /// Bytes of the upload frames that it paid for; 0 if it paid for no upload.
    #[inline]
    pub fn uplink_bytes(&self) -> u32 {
        self.upload.map_or(0, |cost| cost.uplink_bytes)
    }

    /// What the pool charged for its verdict; zeros if it paid for no upload.
    #[inline]
    pub fn verify_cost(&self) -> VerifyCost {
        self.upload.map_or(VerifyCost::ZERO, |cost| cost.verify)
    }

    /// Its share of the batch energy, in nanojoules; 0 if it paid for no upload.
    #[inline]
    pub fn cloud_nanojoules(&self) -> u64 {
        self.upload.map_or(0, |cost| cost.verify.nanojoules)
    }

    /// The same in the papers' accounting: the judged drafts only, no catch-up.
    #[inline]
    pub fn cloud_paper_nanojoules(&self) -> u64 {
        self.upload.map_or(0, |cost| cost.verify.paper_nanojoules)
    }
}

/// What an upload and its verdict cost, resends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadCost {
    /// Upload attempts, resends included; 0 if the verifier wrote on by itself, for which nothing was sent.
    pub attempts: u32,
    /// Nominal uplink bits that drove the channel.
    pub uplink_bits: u64,
    /// Bytes of the upload frames on the wire.
    pub uplink_bytes: u32,
    /// Bytes of the verdict frame on the wire; 0 if no verdict came.
    pub downlink_bytes: u32,
    /// Signal-to-noise ratio during the first coherence block of the upload, in dB; NaN if nothing was sent.
    pub snr_db: f32,
    /// Time from the start of sending until the last bit had left, propagation included.
    pub uplink: Span,
    /// Time from the arrival of the verdict's first bit until it was usable, propagation included.
    pub downlink: Span,
    /// What the pool charged; zeros if no verdict came.
    pub verify: VerifyCost,
}

impl UploadCost {
    /// No cost: zeros, and NaN for the signal-to-noise ratio.
    pub const ZERO: UploadCost = UploadCost {
        attempts: 0,
        uplink_bits: 0,
        uplink_bytes: 0,
        downlink_bytes: 0,
        snr_db: f32::NAN,
        uplink: Span::ZERO,
        downlink: Span::ZERO,
        verify: VerifyCost::ZERO,
    };

    /// Whether it is [`UploadCost::ZERO`]. That is how flat tables without an option say that no upload was paid for.
    pub fn is_zero(&self) -> bool {
        // The ratio is compared by its bits, because NaN equals nothing.
        let without_ratio = |cost: &UploadCost| UploadCost { snr_db: 0.0, ..*cost };
        self.snr_db.to_bits() == f32::NAN.to_bits() && without_ratio(self) == without_ratio(&UploadCost::ZERO)
    }
}

/// What the pool charged for one verdict: what its upload waited for, and its share of the batch's energy. Pool, wire,
/// device and simulator hand it on as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VerifyCost {
    /// Time in the pool's queue.
    pub queue_wait: Span,
    /// Time between being chosen for a batch and the start of its computation.
    pub batch_wait: Span,
    /// Computation time of that batch.
    pub compute: Span,
    /// Tokens that the verifier fed for it.
    pub fed_tokens: u32,
    /// This upload's share of the batch energy, in nanojoules.
    pub nanojoules: u64,
    /// The same in the papers' accounting: the judged drafts only, no catch-up.
    pub paper_nanojoules: u64,
}

impl VerifyCost {
    /// No cost.
    pub const ZERO: VerifyCost = VerifyCost {
        queue_wait: Span::ZERO,
        batch_wait: Span::ZERO,
        compute: Span::ZERO,
        fed_tokens: 0,
        nanojoules: 0,
        paper_nanojoules: 0,
    };

    /// Figures of a usual size, for the length of a frame whose own figures are not known.
    pub const USUAL: VerifyCost = VerifyCost {
        queue_wait: Span(2_000_000),
        batch_wait: Span(20_000),
        compute: Span(2_000_000),
        fed_tokens: 4,
        nanojoules: 50_000_000,
        paper_nanojoules: 50_000_000,
    };

    /// How long the upload was in the pool.
    pub fn pool_time(&self) -> Span {
        self.queue_wait + self.batch_wait + self.compute
    }
}
