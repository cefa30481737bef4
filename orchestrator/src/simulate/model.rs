//! Answers from the real models: what live devices and verifiers would compute, in virtual time.

use device_agent::{Drafting, Store};
use specfleet_engine::acceptance::Next;
use specfleet_engine::device::payload::downlink_bits;
use specfleet_engine::device::{DraftSpec, NextToken, Step, StepResult, UploadPlan};
use specfleet_engine::id::{DeviceId, GenerationId, UploadId};
use specfleet_engine::method::{Method, Sampling};
use specfleet_engine::pool::{Batch, ItemOutcome, SessionKey};
use specfleet_engine::record::{GenerationRecord, VerifyCost};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::{ClientFrame, FrameLimits, ServerFrame, Upload, VerdictFrame, encode};
use specfleet_model::{Model, SeqId};
use specfleet_simulator::answers::{Arrived, DeviceAnswers, PoolAnswers};
use verifier_pool::{Judge, SessionStore};

use crate::work::WorkPlan;
use std::sync::Arc;

/// What all shards of a phase share.
pub(super) struct ModelPhase {
    pub drafter: Model,
    pub work: Arc<WorkPlan>,
    pub method: Method,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the run.
    pub seed: u64,
    /// Bounds of a frame.
    pub limits: FrameLimits,
    /// KV memory of a shard's drafter, in bytes.
    pub kv_bytes: usize,
}

/// The drafter's half, for one shard.
pub(super) struct ModelDevices {
    phase: Arc<ModelPhase>,
    spec: DraftSpec,
    drafting: Drafting,
    /// The running generation of each slot, and its last upload.
    slots: Vec<Option<(Store<SeqId>, Option<UploadPlan>)>>,
    scratch: Vec<u8>,
}

impl ModelDevices {
    /// The answers of a shard with this many devices.
    pub(super) fn new(phase: Arc<ModelPhase>, devices: usize) -> ModelDevices {
        let drafting = Drafting::new(phase.drafter.clone(), phase.kv_bytes, 1);
        let spec = DraftSpec::of(&phase.method, phase.sampling);
        ModelDevices { phase, spec, drafting, slots: (0..devices).map(|_| None).collect(), scratch: Vec::new() }
    }

    fn store(&mut self, slot: u32) -> Option<&mut Store<SeqId>> {
        self.slots.get_mut(slot as usize)?.as_mut().map(|(store, _)| store)
    }
}

impl DeviceAnswers for ModelDevices {
    type Upload = Box<Upload>;
    type Verdict = Next;

    fn start(&mut self, slot: u32, _: DeviceId, generation: GenerationId, job: u32) -> u32 {
        // Jobs are numbered by the same list.
        let tokens = &self.phase.work.jobs[job as usize].tokens;
        let sequence = self.drafting.open();
        let store = Store::new(generation, self.phase.seed, self.spec, tokens, sequence);
        self.slots[slot as usize] = Some((store, None));
        // A prompt fits into the context, whose positions are `u32`.
        tokens.len() as u32
    }

    fn step(&mut self, slot: u32, step: &Step) -> Option<StepResult> {
        let (store, _) = self.slots.get_mut(slot as usize)?.as_mut()?;
        let job = store.job(step);
        let sequence = store.sequence();
        self.drafting.roll_back(sequence, step.keep as usize).ok()?;
        let draft = self.drafting.compute(&[(sequence, &job)]).ok()?.pop()?;
        Some(store.drafted(step, draft))
    }

    fn set(&mut self, slot: u32, position: u32, token: u32) {
        if let Some(store) = self.store(slot) {
            store.set(position, token);
        }
    }

    fn commit(&mut self, slot: u32, generated: u32) {
        if let Some(store) = self.store(slot) {
            store.commit(generated);
        }
    }

    fn upload(&mut self, slot: u32, plan: &UploadPlan) -> (Box<Upload>, u32) {
        let held = self.slots[slot as usize].as_mut().and_then(|(store, last)| {
            *last = Some(*plan);
            store.upload(plan, Span::ZERO, plan.wanted.map(|_| Span::ZERO), Some(Time::ZERO.into()))
        });
        let Some(upload) = held else { unreachable!("the machine uploads drafts that it was given") };
        self.scratch.clear();
        let frame = ClientFrame::Upload(Box::new(upload));
        // An upload of a pair fits the limits that are made for the pair.
        let bytes = encode(&frame, self.phase.limits, &mut self.scratch).map_or(0, |bytes| bytes as u32);
        let ClientFrame::Upload(upload) = frame else { unreachable!("it was made one line above") };
        (upload, bytes)
    }

    fn verdict(&mut self, slot: u32, upload: UploadId, accepted: u8, next: Next) -> Arrived {
        let resample = matches!(next, Next::Resample(_));
        let vocab = self.phase.drafter.shape().vocab;
        let bits = downlink_bits(&self.phase.method.payload, vocab, resample);
        let token = match &next {
            Next::None => NextToken::None,
            Next::Replacement(token) => NextToken::Replacement(*token),
            Next::Bonus(token) => NextToken::Bonus(*token),
            Next::Resample(y) => self.slots[slot as usize]
                .as_ref()
                .and_then(|(store, plan)| {
                    let plan = plan.filter(|plan| plan.upload == upload)?;
                    store.resample(plan.committed + u32::from(accepted), plan.rejections, y)
                })
                .map_or(NextToken::None, NextToken::Resampled),
        };
        Arrived { next: token, bits, bytes: self.verdict_bytes(accepted, next) }
    }

    fn finish(&mut self, slot: u32, record: &mut GenerationRecord) {
        if let Some((store, _)) = self.slots[slot as usize].take() {
            record.tokens = store.generated();
            self.drafting.close(store.sequence());
        }
    }
}

impl ModelDevices {
    /// Bytes of a verdict's frame, with numbers of a usual size in it.
    fn verdict_bytes(&mut self, accepted: u8, next: Next) -> u32 {
        self.scratch.clear();
        let frame = ServerFrame::Verdict(Box::new(VerdictFrame {
            session: 1,
            upload: UploadId(20),
            accepted,
            next,
            more: false,
            cost: VerifyCost::USUAL,
            price: 0.0,
        }));
        encode(&frame, self.phase.limits, &mut self.scratch).map_or(0, |bytes| bytes as u32)
    }
}

/// The verifier's half: the pool's session store, and one judge per replica.
pub(super) struct ModelPool {
    store: SessionStore,
    judges: Vec<Judge>,
    verifier: Model,
    kv_bytes: usize,
    threads: usize,
}

impl ModelPool {
    /// `replicas` verifiers with arenas of `kv_bytes`; a pass runs on up to `threads` threads, which changes no bit.
    pub(super) fn new(verifier: Model, replicas: usize, kv_bytes: usize, threads: usize) -> ModelPool {
        let judges = (0..replicas).map(|_| Judge::new(verifier.clone(), kv_bytes, threads)).collect();
        ModelPool { store: SessionStore::default(), judges, verifier, kv_bytes, threads }
    }
}

impl PoolAnswers for ModelPool {
    type Upload = Box<Upload>;
    type Verdict = Next;

    fn admitted(&mut self, _: DeviceId, session: SessionKey, upload: Box<Upload>) {
        self.store.admit(session, upload);
    }

    fn compute(
        &mut self,
        batch: &Batch,
        _: &dyn Fn(SessionKey) -> DeviceId,
        outcomes: &mut Vec<ItemOutcome>,
        verdicts: &mut Vec<Next>,
    ) -> bool {
        let tasks: Vec<_> = batch.items.iter().map(|item| self.store.task(item)).collect();
        let Some(judge) = self.judges.get_mut(usize::from(batch.verifier.0)) else { return false };
        let Ok(answers) = judge.compute(&tasks) else { return false };
        for answer in answers {
            outcomes.push(answer.outcome);
            verdicts.push(answer.next);
        }
        true
    }

    fn delivered(&mut self, _: DeviceId, session: SessionKey, outcome: &ItemOutcome, more: bool) {
        self.store.commit(session, outcome.accepted, outcome.next, more);
    }

    fn forget(&mut self, _: DeviceId, session: SessionKey) {
        self.store.forget(session);
    }

    fn drop_cache(&mut self, verifier: u16, session: SessionKey) {
        if let Some(judge) = self.judges.get_mut(usize::from(verifier)) {
            judge.free(session);
        }
    }

    fn lose_caches(&mut self, verifier: u16) {
        if let Some(judge) = self.judges.get_mut(usize::from(verifier)) {
            *judge = Judge::new(self.verifier.clone(), self.kv_bytes, self.threads);
        }
    }
}
