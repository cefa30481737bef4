//! What a device machine is told and what it asks for.

use serde::{Deserialize, Serialize};

use super::draft::Signals;
use crate::id::{GenerationId, UploadId};
use crate::pool::{JobKind, RefuseReason};
use crate::record::{GenerationRecord, RoundRecord, VerifyCost};
use crate::time::{Span, Time};

/// A generation to run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub generation: GenerationId,
    /// Index into the run's list of data sets.
    pub data_set: u16,
    /// Tokens of its prompt, at least 1; they are in the driver's session store.
    pub prompt_tokens: u32,
    /// When it was due; not later than the time at which it starts.
    pub scheduled: Time,
}

/// Everything that can happen to a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Be ready: connect, if the method ever uploads.
    Join,
    /// Run this generation. Only when the last one has finished.
    Start(Start),
    /// A draft step is done.
    StepDone(StepResult),
    /// The drafter cannot go on (its KV arena is full, say); the generation fails.
    StepFailed,
    /// An upload has left, in this many bytes.
    Sent {
        upload: UploadId,
        /// Bytes of its frame.
        bytes: u32,
    },
    /// A verdict has arrived, emulated downlink included (see [`super::DeviceMachine::receive`]).
    Verdict(Verdict),
    /// The pool would not take an upload.
    Refused(Refusal),
    Connected,
    /// The connection is lost, or an attempt to connect failed.
    Disconnected,
    /// The time of [`super::DeviceMachine::poll_timeout`] has come.
    Timeout,
    /// The device leaves the fleet: a generation under way ends as `left`.
    Leave,
}

/// Everything a device can ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection; answer with `Connected` or `Disconnected`.
    Connect,
    /// The device can start a generation.
    Ready,
    /// Compute one draft; answer with `StepDone`.
    Step(Step),
    /// The token at this position of the session store is now `token`, and nothing follows it.
    Set {
        /// Index in the sequence, the prompt included.
        position: u32,
        token: u32,
    },
    /// Send this upload; answer with `Sent`.
    Upload(UploadPlan),
    /// Tell the pool that nobody waits for this upload any more.
    Cancel(UploadId),
    /// The link is lost: close the connection at once. The machine knows already; do not answer with `Disconnected`.
    HangUp,
    /// The device is done for good (its battery is empty, or it left); it starts nothing any more.
    Gone,
    /// A token is committed.
    Record(RoundRecord),
    /// The generation is over; tell the pool to forget its session. `tokens` is left for the driver to fill from its
    /// session store.
    Finished(Box<GenerationRecord>),
}

/// A draft step: truncate the drafter's KV cache to `keep`, feed the tokens `keep..position` of the session store and
/// draw the draft at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub generation: GenerationId,
    /// Index of the drafted token in the sequence, the prompt included.
    pub position: u32,
    pub rejections: u32,
    /// Leading tokens of the drafter's KV cache that still hold; less than `position`.
    pub keep: u32,
}

/// The answer to a [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// As in the step.
    pub generation: GenerationId,
    /// As in the step.
    pub position: u32,
    /// As in the step.
    pub rejections: u32,
    pub token: u32,
    /// What the gate looks at.
    pub signals: Signals,
    /// Nominal bits of the draft's payload.
    pub payload_bits: u32,
    /// With `lookahead`: the importance of the draft two positions earlier.
    pub lookback: Option<Lookback>,
}

/// I(t) by the `lookahead` statistic, known two steps later.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookback {
    pub importance: f32,
    /// mean + κ·std of the attention row it was read from.
    pub threshold: f32,
}

/// An upload to compose from the session store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UploadPlan {
    pub upload: UploadId,
    /// The pool's session of this generation.
    pub session: u32,
    pub generation: GenerationId,
    pub rejections: u32,
    /// Tokens of the sequence that the pool's session holds already.
    pub base: u32,
    /// Committed tokens; `base..committed` go along as catch-up, the drafts follow.
    pub committed: u32,
    /// What to do with them: judge the drafts `committed..committed + drafts` of the session store, or write tokens
    /// (`llm-only`), one verdict each.
    pub job: JobKind,
    /// When the device will cancel it.
    pub deadline: Time,
    /// When its user wants the verdict's token; `None` without a target.
    pub wanted: Option<Time>,
    /// Sum over the drafts of the gate's statistic, as the expected risk for schedulers; NaN without one.
    pub risk: f32,
}

/// A verdict as the machine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The attempt it answers.
    pub upload: UploadId,
    pub accepted: u8,
    pub next: NextToken,
    /// More verdicts follow for the same upload (`llm-only`).
    pub more: bool,
    /// What it waited for in the pool, and its share of the batch's energy.
    pub cost: VerifyCost,
    /// λ_pool, the pool's congestion price.
    pub price: f32,
    /// Bytes of its frame.
    pub bytes: u32,
    /// How long the (emulated) downlink took.
    pub downlink: Span,
}

/// The token behind the accepted drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextToken {
    /// None: all drafts were accepted and no bonus was asked for.
    None,
    /// The verifier's, for a rejected draft.
    Replacement(u32),
    /// Drawn on the device from the verifier's distribution (`token-only`); the pool has yet to learn it.
    Resampled(u32),
    /// The verifier's, after all drafts (or without any).
    Bonus(u32),
}

/// A refusal as the machine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The attempt it answers.
    pub upload: UploadId,
    pub reason: RefuseReason,
    /// How long to wait before trying again.
    pub retry_after: Span,
    /// λ_pool, the pool's congestion price.
    pub price: f32,
    /// How long the (emulated) downlink took.
    pub downlink: Span,
}

/// Why a device machine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WakeReason {
    /// The declared time of a draft step is over.
    StepTime,
    /// The last bit of an upload has arrived.
    Uplink,
    /// No verdict in time.
    VerdictTimeout,
    /// A refused upload may be sent again.
    Retry,
    /// Try to connect again.
    Reconnect,
    /// The pool counts as out of reach.
    Unreachable,
    /// The link is lost, or comes back.
    Outage,
}
