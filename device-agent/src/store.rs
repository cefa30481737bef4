//! What a device remembers of its generation: the tokens, and of each draft that is not decided yet the draft that it was
//! drawn from.

use std::collections::VecDeque;

use specfleet_engine::acceptance::resample_on_device;
use specfleet_engine::device::payload::Payload;
use specfleet_engine::device::{DraftSpec, Step, StepResult, UploadPlan};
use specfleet_engine::distribution::Distribution;
use specfleet_engine::id::GenerationId;
use specfleet_engine::pool::JobKind;

use specfleet_engine::random::DrawKey;
use specfleet_engine::time::Span;
use specfleet_engine::wire::{ClockReading, Upload, UploadJob};

use crate::drafting::{Draft, DraftJob};

/// The session store of one generation. Positions count from the start of the prompt.
pub struct Store<H> {
    pub generation: GenerationId,
    seed: u64,
    spec: DraftSpec,
    /// Prompt, committed tokens and undecided drafts.
    tokens: Vec<u32>,
    prompt: usize,
    /// Leading tokens that are final.
    committed: usize,
    /// What undecided drafts were drawn from, and how that travels; ascending positions.
    drafts: VecDeque<DraftDistribution>,
    /// The draft of the step that was computed last; it becomes one of `drafts` if its draft is taken.
    fresh: Option<DraftDistribution>,
    /// Where its cache is.
    sequence: H,
}

struct DraftDistribution {
    position: u32,
    token: u32,
    distribution: Distribution,
    payload: Payload,
}

impl<H: Clone> Store<H> {
    /// An empty generation behind `prompt`.
    pub fn new(generation: GenerationId, seed: u64, spec: DraftSpec, prompt: &[u32], sequence: H) -> Store<H> {
        Store {
            generation,
            seed,
            spec,
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            committed: prompt.len(),
            drafts: VecDeque::new(),
            fresh: None,
            sequence,
        }
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        // Positions of any model fit `u32`.
        u32::try_from(self.prompt).unwrap_or(u32::MAX)
    }

    /// What the drafter needs for a step.
    pub fn job(&self, step: &Step) -> DraftJob<H> {
        let fed = step.keep as usize..step.position as usize;
        DraftJob {
            sequence: self.sequence.clone(),
            keep: fed.start,
            // The machine never asks for a step beyond what it had us store.
            tokens: self.tokens.get(fed).unwrap_or_default().to_vec(),
            spec: self.spec,
            key: self.key(step.position, step.rejections),
        }
    }

    /// Takes in what the drafter made of a step; the machine decides whether it becomes part of the text.
    pub fn drafted(&mut self, step: &Step, draft: Draft) -> StepResult {
        let Draft { drafted, payload, payload_bits, lookback } = draft;
        let Step { generation, position, rejections, .. } = *step;
        let (token, signals) = (drafted.token, drafted.signals);
        self.fresh = Some(DraftDistribution { position, token, distribution: drafted.distribution, payload });
        StepResult { generation, position, rejections, token, signals, payload_bits, lookback }
    }

    /// The token at `position` is now `token`, and nothing follows it.
    pub fn set(&mut self, position: u32, token: u32) {
        self.tokens.truncate(position as usize);
        self.tokens.push(token);
        while self.drafts.back().is_some_and(|draft| draft.position >= position) {
            self.drafts.pop_back();
        }
        if let Some(draft) = self.fresh.take_if(|draft| draft.position == position && draft.token == token) {
            self.drafts.push_back(draft);
        }
    }

    /// The token number `generated` of the generation is final.
    pub fn commit(&mut self, generated: u32) {
        let position = self.prompt as u32 + generated;
        self.committed = position as usize + 1;
        while self.drafts.front().is_some_and(|draft| draft.position <= position) {
            self.drafts.pop_front();
        }
    }

    /// The generated tokens that are final.
    pub fn generated(&self) -> Vec<u32> {
        self.tokens[self.prompt..self.committed].to_vec()
    }

    /// The frame of an upload; `None` if a draft of it is not at hand, which the machine's order of calls rules out.
    pub fn upload(
        &self,
        plan: &UploadPlan,
        patience: Span,
        wanted: Option<Span>,
        arrives: Option<ClockReading>,
    ) -> Option<Upload> {
        let (base, committed) = (plan.base as usize, plan.committed as usize);
        let job = match plan.job {
            JobKind::Judge { drafts, bonus } => {
                let positions = plan.committed..plan.committed + u32::from(drafts);
                let payloads =
                    positions.clone().map(|at| Some(self.draft(at)?.payload.clone())).collect::<Option<Vec<_>>>()?;
                let drafts = self.tokens.get(positions.start as usize..positions.end as usize)?.to_vec();
                UploadJob::Judge { drafts, payloads, bonus }
            }
            JobKind::Write { left } => UploadJob::Write { limit: left },
        };
        Some(Upload {
            session: plan.session,
            upload: plan.upload,
            base: plan.base,
            tokens: self.tokens.get(base..committed)?.to_vec(),
            key: self.key(plan.committed, plan.rejections),
            sampling: self.spec.sampling,
            job,
            patience,
            wanted,
            risk: plan.risk,
            arrives,
        })
    }

    /// The replacement for the rejected draft at `position`, drawn from the verifier's draft `y`; `None` if there is no such
    /// draft, or `y` is over another vocabulary.
    pub fn resample(&self, position: u32, rejections: u32, y: &Distribution) -> Option<u32> {
        let x = &self.draft(position)?.distribution;
        (x.len() == y.len()).then(|| resample_on_device(x, y, self.key(position, rejections)))
    }

    /// Where its cache is.
    pub fn sequence(&self) -> H {
        self.sequence.clone()
    }

    fn draft(&self, position: u32) -> Option<&DraftDistribution> {
        self.drafts.iter().find(|draft| draft.position == position)
    }

    fn key(&self, position: u32, rejections: u32) -> DrawKey {
        let GenerationId { prompt, repetition, .. } = self.generation;
        DrawKey { seed: self.seed, prompt, repetition, position, rejections }
    }
}
