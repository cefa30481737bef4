//! Walks through the prompts: at each position the drafter drafts and looks ahead, the verifier judges, and the walk goes on
//! with what is committed.

use specfleet_engine::acceptance::{Next, verify_outcome};
use specfleet_engine::calibration::{CalibrationKey, CalibrationSample};
use specfleet_engine::device::gate::{
    AttentionRows, ImportanceReading, RunningMoments, concentration, lookahead_importance, uncertainty,
};
use specfleet_engine::device::payload::Payload;
use specfleet_engine::device::{DraftSpec, draft::GateStatistic, draft_outcome};
use specfleet_engine::method::{Estimator, PayloadForm, ProbabilityBits, Sampling};
use specfleet_engine::random::DrawKey;
use specfleet_model::{KvArena, LogitRows, SeqId, SeqStep};

use super::{Plan, TOKENS, Text};
use crate::error::Error;
use crate::pair::Pair;

/// Most rejected drafts studied for harm.
const HARM_POSITIONS: usize = 256;

/// Seed of all draws.
const SEED: u64 = 0xca11_b4a7;

/// One prompt on its way.
struct Walk {
    prompt: u32,
    reference: Option<String>,
    tokens: Vec<u32>,
    prompt_tokens: usize,
    rejections: u32,
    /// Of `concentration`, per layer.
    moments: Vec<RunningMoments>,
    drafter: SeqId,
    verifier: SeqId,
}

/// A rejected draft, to be followed both ways.
pub(super) struct Rejected {
    pub(super) prefix: Vec<u32>,
    pub(super) prompt_tokens: usize,
    pub(super) prompt: u32,
    pub(super) rejections: u32,
    pub(super) draft: u32,
    pub(super) replacement: u32,
    pub(super) reference: Option<String>,
    pub(super) sample: CalibrationSample,
}

/// Follows prompts with both models, and keeps what they say on the way.
pub(super) struct Walker<'a> {
    pub(super) pair: &'a Pair,
    pub(super) sampling: Sampling,
    pub(super) form: PayloadForm,
    pub(super) layers: usize,
    pub(super) drafter_kv: KvArena,
    pub(super) verifier_kv: KvArena,
    pub(super) walks: usize,
    pub(super) samples: Vec<CalibrationSample>,
    pub(super) rejected: Vec<Rejected>,
}

/// What a walk has seen at a position, to be put in the order of positions and prompts.
struct Seen {
    generated: usize,
    prompt: u32,
    sample: CalibrationSample,
    rejected: Option<Rejected>,
}

/// What the drafter says at a position of a walk.
struct DraftedPosition {
    key: DrawKey,
    /// The logits that the draft is drawn from.
    logits: Vec<f32>,
    /// The draft, and the one after it.
    drafts: Vec<u32>,
    /// How concentrated the attention at the position is, one reading per layer.
    concentration: Vec<ImportanceReading>,
    /// How much the draft after the draft attends to the draft, one reading per layer.
    lookahead: Vec<ImportanceReading>,
}

/// What the verifier makes of a draft.
struct JudgedPosition {
    draft: u32,
    next: Next,
    sample: CalibrationSample,
}

impl DraftedPosition {
    /// The next position of a walk, before anything is drafted.
    fn of(walk: &Walk) -> DraftedPosition {
        DraftedPosition {
            key: walk.key(),
            logits: Vec::new(),
            drafts: Vec::new(),
            concentration: Vec::new(),
            lookahead: Vec::new(),
        }
    }

    fn draft(&mut self, step: usize, row: &[f32], spec: &DraftSpec) {
        let key = self.key.at(self.key.position + step as u32);
        self.drafts.push(draft_outcome(row, None, key, spec).token);
        if step == 0 {
            self.logits = row.to_vec();
        }
    }

    /// Importance shows in the attention of the position itself, and in that of the draft after the draft.
    fn read_attention(&mut self, step: usize, rows: AttentionRows<'_>, layer: usize, walk: &mut Walk) {
        match step {
            0 => {
                let value = concentration(rows);
                self.concentration.push(walk.moments[layer].reading(value));
                walk.moments[layer].push(value);
            }
            2 => self.lookahead.push(lookahead_importance(rows, walk.tokens.len())),
            _ => {}
        }
    }
}

impl<'a> Walker<'a> {
    pub(super) fn new(pair: &'a Pair, key: &CalibrationKey, plan: &Plan) -> Self {
        let full = PayloadForm::Full { bits: ProbabilityBits::B32 };
        Walker {
            pair,
            sampling: key.sampling,
            form: key.samples_from.unwrap_or(full),
            layers: pair.drafter.shape().layers,
            drafter_kv: KvArena::new(&pair.drafter, plan.drafter_bytes),
            verifier_kv: KvArena::new(&pair.verifier, plan.verifier_bytes),
            walks: plan.walks,
            samples: Vec::new(),
            rejected: Vec::new(),
        }
    }

    /// Walks a group of prompts to their ends, as many at a time as there is memory for. What they saw is kept as if all
    /// had walked side by side, so that no fit depends on the memory.
    pub(super) fn group(&mut self, prompts: &[Text<'_>]) -> Result<(), Error> {
        let mut seen = Vec::new();
        for batch in prompts.chunks(self.walks) {
            self.walk(batch, &mut seen)?;
        }
        seen.sort_by_key(|seen| (seen.generated, seen.prompt));
        for Seen { sample, rejected, .. } in seen {
            self.samples.push(sample);
            self.rejected.extend(rejected.filter(|_| self.rejected.len() < HARM_POSITIONS));
        }
        Ok(())
    }

    /// Walks a batch of prompts to their ends.
    fn walk(&mut self, prompts: &[Text<'_>], seen: &mut Vec<Seen>) -> Result<(), Error> {
        let mut walks = Vec::new();
        for prompt in prompts {
            walks.push(Walk {
                prompt: prompt.number,
                reference: prompt.reference.map(str::to_owned),
                prompt_tokens: prompt.tokens.len(),
                tokens: prompt.tokens.clone(),
                rejections: 0,
                moments: vec![RunningMoments::default(); self.layers],
                drafter: self.drafter_kv.open(),
                verifier: self.verifier_kv.open(),
            });
        }
        while !walks.is_empty() {
            // Two lookahead steps must fit after the next position.
            let (going, done): (Vec<Walk>, Vec<Walk>) = walks.into_iter().partition(|walk| self.goes_on(walk));
            for walk in done {
                self.drafter_kv.close(walk.drafter);
                self.verifier_kv.close(walk.verifier);
            }
            walks = going;
            if !walks.is_empty() {
                self.advance(&mut walks, seen)?;
            }
        }
        Ok(())
    }

    fn goes_on(&self, walk: &Walk) -> bool {
        let generated = walk.tokens.len() - walk.prompt_tokens;
        let ended = walk.tokens.is_empty()
            || generated > 0 && walk.tokens.last().is_some_and(|t| self.pair.verifier.shape().eos.contains(t));
        !ended && generated < TOKENS && walk.tokens.len() + 3 <= self.pair.context()
    }

    /// One position of every walk: the drafter drafts and looks ahead, the verifier judges, and the walk goes on with what
    /// is committed.
    fn advance(&mut self, walks: &mut [Walk], seen: &mut Vec<Seen>) -> Result<(), Error> {
        self.fill(walks)?;
        let mut drafted: Vec<DraftedPosition> = walks.iter().map(DraftedPosition::of).collect();
        for layer in 0..self.layers {
            // Three steps per layer: the position itself, then the draft, then the draft after it.
            for step in 0..3 {
                self.draft_and_look_ahead(layer, step, walks, &mut drafted)?;
            }
            // A pass tells the attention of one layer: the next one sees the same tokens again.
            for walk in walks.iter() {
                self.drafter_kv.truncate(walk.drafter, walk.tokens.len() - 1);
            }
        }
        let judged = self.judge(walks, drafted)?;
        seen.extend(walks.iter_mut().zip(judged).map(|(walk, judged)| walk.commit(judged)));
        Ok(())
    }

    /// One pass of the drafter, which tells the attention of `layer`. The drafts are made in the passes of the first layer.
    fn draft_and_look_ahead(
        &mut self,
        layer: usize,
        step: usize,
        walks: &mut [Walk],
        drafted: &mut [DraftedPosition],
    ) -> Result<(), Error> {
        let heads = self.pair.drafter.shape().heads;
        let drafts = layer == 0 && step < 2;
        let steps: Vec<SeqStep<'_>> = walks
            .iter()
            .zip(drafted.iter())
            .map(|(walk, drafted)| SeqStep {
                seq: walk.drafter,
                tokens: match step {
                    0 => &walk.tokens[walk.tokens.len() - 1..],
                    _ => &drafted.drafts[step - 1..step],
                },
                logits: if drafts { LogitRows::Last(1) } else { LogitRows::None },
                attention: (step != 1).then_some(layer),
            })
            .collect();
        let output = self.pair.drafter.forward(&mut self.drafter_kv, &steps)?;
        for (index, (walk, drafted)) in walks.iter_mut().zip(drafted).enumerate() {
            if drafts {
                drafted.draft(step, output.logits(index), &self.spec(GateStatistic::None));
            }
            let weights = output.attention(index);
            if let Some(rows) = AttentionRows::new(heads, weights.len() / heads.max(1), weights) {
                drafted.read_attention(step, rows, layer, walk);
            }
        }
        Ok(())
    }

    /// The verifier's verdict on the draft of each walk, with the sample that it makes.
    fn judge(&mut self, walks: &[Walk], drafted: Vec<DraftedPosition>) -> Result<Vec<JudgedPosition>, Error> {
        let vocab = self.pair.drafter.shape().vocab;
        let steps: Vec<SeqStep<'_>> = walks
            .iter()
            .map(|walk| SeqStep {
                seq: walk.verifier,
                tokens: &walk.tokens[self.verifier_kv.len(walk.verifier)..],
                logits: LogitRows::Last(1),
                attention: None,
            })
            .collect();
        let output = self.pair.verifier.forward(&mut self.verifier_kv, &steps)?;
        let judge = |(index, position): (usize, DraftedPosition)| {
            let DraftedPosition { key, logits, concentration, lookahead, .. } = position;
            let of = |statistic| draft_outcome(&logits, None, key, &self.spec(statistic));
            let drafted = of(GateStatistic::MaxProbability);
            let draft = drafted.token;
            let payload = Payload::encode(&self.form, &drafted.distribution, draft);
            let (row, payloads) = (output.logits(index), std::slice::from_ref(&payload));
            let Ok(outcome) = verify_outcome(row, vocab, &self.sampling, key, &[draft], payloads, false) else {
                // Our own payload of our own draft is valid.
                return Err(Error::Stopped("the calibration"));
            };
            let sample = CalibrationSample {
                u_expected: uncertainty(Estimator::Expected, &logits, draft, key),
                u_sampled: uncertainty(Estimator::Sampled, &logits, draft, key),
                entropy: of(GateStatistic::Entropy).signals.statistic,
                max_probability: 1.0 - drafted.signals.statistic,
                rejection: 1.0 - outcome.accept_probabilities.first().copied().unwrap_or(1.0),
                concentration,
                lookahead,
            };
            Ok(JudgedPosition { draft, next: outcome.next, sample })
        };
        drafted.into_iter().enumerate().map(judge).collect()
    }

    /// The drafter reads all but the last token of each walk.
    fn fill(&mut self, walks: &[Walk]) -> Result<(), Error> {
        let missing = walks.iter().map(|walk| (walk, self.drafter_kv.len(walk.drafter)..walk.tokens.len() - 1));
        let steps: Vec<SeqStep<'_>> = missing
            .filter(|(_, range)| !range.is_empty())
            .map(|(walk, range)| SeqStep {
                seq: walk.drafter,
                tokens: &walk.tokens[range],
                logits: LogitRows::None,
                attention: None,
            })
            .collect();
        if !steps.is_empty() {
            self.pair.drafter.forward(&mut self.drafter_kv, &steps)?;
        }
        Ok(())
    }

    fn spec(&self, statistic: GateStatistic) -> DraftSpec {
        DraftSpec { sampling: self.sampling, payload: self.form, statistic, importance: None }
    }
}

impl Walk {
    fn key(&self) -> DrawKey {
        draw_key(self.prompt, self.tokens.len(), self.rejections)
    }

    /// The walk goes on with the draft, or with what the verifier put in its place.
    fn commit(&mut self, judged: JudgedPosition) -> Seen {
        let JudgedPosition { draft, next, sample } = judged;
        let generated = self.tokens.len() - self.prompt_tokens;
        let mut rejected = None;
        let next = match next {
            Next::Replacement(replacement) => {
                rejected = Some(Rejected {
                    prefix: self.tokens.clone(),
                    prompt_tokens: self.prompt_tokens,
                    prompt: self.prompt,
                    rejections: self.rejections + 1,
                    draft,
                    replacement,
                    reference: self.reference.clone(),
                    sample: sample.clone(),
                });
                self.rejections += 1;
                replacement
            }
            Next::None | Next::Bonus(_) | Next::Resample(_) => draft,
        };
        self.tokens.push(next);
        Seen { generated, prompt: self.prompt, sample, rejected }
    }
}

pub(super) fn draw_key(prompt: u32, position: usize, rejections: u32) -> DrawKey {
    // A position is below the context of a model, far below `u32::MAX`.
    DrawKey { seed: SEED, prompt, repetition: 0, position: position as u32, rejections }
}
