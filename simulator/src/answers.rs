//! What a simulation asks in place of live models.
//!
//! Answers come in three fidelities: the real models (`model`), a recorded run (`trace`), or distributions fitted on one
//! (`fitted`, [`crate::fitted`]). The first two need models and ledgers, which this crate does not know: whoever runs it
//! brings them.

use specfleet_engine::device::{NextToken, Step, StepResult, UploadPlan};
use specfleet_engine::id::{DeviceId, GenerationId, UploadId};
use specfleet_engine::pool::{Batch, ItemOutcome, SessionKey};
use specfleet_engine::record::GenerationRecord;

/// The drafter's half, for the devices of one shard. `slot`: the device's place in its shard.
pub trait DeviceAnswers: Send {
    /// What an upload carries to the pool's half.
    type Upload: Send;
    /// What a verdict carries back, beyond what the pool's machine says.
    type Verdict: Send;

    /// A generation starts on a device; `job` is its index in the phase's work. Returns the tokens of its prompt.
    fn start(&mut self, slot: u32, device: DeviceId, generation: GenerationId, job: u32) -> u32;

    /// Computes a draft step; `None` if it cannot be computed, which ends the generation.
    fn step(&mut self, slot: u32, step: &Step) -> Option<StepResult>;

    /// The token at `position` is now `token`, and nothing follows it.
    fn set(&mut self, slot: u32, position: u32, token: u32);

    /// The token number `generated` of the generation is final.
    fn commit(&mut self, slot: u32, generated: u32);

    /// What this upload carries, and the bytes of its frame.
    fn upload(&mut self, slot: u32, plan: &UploadPlan) -> (Self::Upload, u32);

    /// A verdict's first bit has arrived: what follows the accepted drafts, the nominal bits of its frame and its bytes.
    fn verdict(&mut self, slot: u32, upload: UploadId, accepted: u8, verdict: Self::Verdict) -> Arrived;

    /// The generation is over: fills in its tokens, if they are known, and forgets it.
    fn finish(&mut self, slot: u32, record: &mut GenerationRecord);
}

/// A verdict as it arrives at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// What follows the accepted drafts.
    pub next: NextToken,
    /// Nominal bits that drive the downlink.
    pub bits: u64,
    /// Bytes of the frame.
    pub bytes: u32,
}

/// The verifier's half. `device`: whose session it is.
pub trait PoolAnswers: Send {
    /// What an upload carries from the device's half.
    type Upload: Send;
    /// What a verdict carries back.
    type Verdict: Send;

    /// An upload is admitted: its session now holds what it brought.
    fn admitted(&mut self, device: DeviceId, session: SessionKey, upload: Self::Upload);

    /// Computes a batch: appends one outcome and one verdict per item, in order. `device` tells whose a session is. False if
    /// it cannot be computed: the verifier dies with all it holds, as a live one does.
    fn compute(
        &mut self,
        batch: &Batch,
        device: &dyn Fn(SessionKey) -> DeviceId,
        outcomes: &mut Vec<ItemOutcome>,
        verdicts: &mut Vec<Self::Verdict>,
    ) -> bool;

    /// A verdict goes out: the session keeps the accepted drafts and the next token. With `more` it goes on writing.
    fn delivered(&mut self, device: DeviceId, session: SessionKey, outcome: &ItemOutcome, more: bool);

    /// Forget the tokens of this session.
    fn forget(&mut self, device: DeviceId, session: SessionKey);

    /// Free what this verifier holds for this session.
    fn drop_cache(&mut self, verifier: u16, session: SessionKey);

    /// This verifier has lost all it held.
    fn lose_caches(&mut self, verifier: u16);
}
