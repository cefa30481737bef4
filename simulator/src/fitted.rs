//! Answers drawn from distributions that were fitted on a run \[ours\]: no model, no text, the same machines.
//!
//! A draft's rank in uncertainty is drawn evenly; u(t), entropy and 1 − max x are the fitted quantiles at that rank, and
//! the draft is accepted with the fitted acceptance of its rank. Importance is drawn on its own. Ranks of successive
//! drafts are independent, which real text is not: bursts of uncertain tokens are missing here. Every draw is keyed like
//! all others, so that methods are compared on common random numbers.

use std::sync::Arc;

use specfleet_engine::calibration::Distributions;
use specfleet_engine::cost::quantile;
use specfleet_engine::device::draft::GateStatistic;
use specfleet_engine::device::payload::{downlink_bits, nominal_bits};
use specfleet_engine::device::{Lookback, NextToken, Signals, Step, StepResult, UploadPlan};
use specfleet_engine::id::{DeviceId, GenerationId, UploadId};
use specfleet_engine::method::{Gate, ImportanceStatistic, Keep, Method, PayloadForm, Sampling};
use specfleet_engine::pool::JobKind;

use specfleet_engine::random::{DrawKey, Draws, Purpose};
use specfleet_engine::record::GenerationRecord;

use crate::answers::{Arrived, DeviceAnswers};
use crate::drawn::Drawn;

/// Bytes of a frame beyond the nominal bits it carries [declared]: lengths, keys, times.
const FRAME: u32 = 48;

/// Entries that a payload cut by its tail mass is taken to keep [declared].
const TAIL_ENTRIES: u32 = 30;

/// What all shards and the pool share.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// What to draw from.
    pub distributions: Distributions,
    pub method: Method,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the run.
    pub seed: u64,
    /// Size of the vocabulary.
    pub vocab: u32,
    /// A token that ends a text; `None` where texts end at their limit only.
    pub end_token: Option<u32>,
    /// Longest prompt that leaves room for an answer.
    pub longest_prompt: u32,
    /// How long the prompts are.
    pub prompts: PromptLengths,
    /// How long the answers are.
    pub answers: AnswerLengths,
}

/// Where the tokens of a prompt are known from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PromptLengths {
    /// Drawn from the fitted distribution.
    #[default]
    Fitted,
    /// By the prompt's number in the run.
    ByPrompt(Arc<[u32]>),
    /// By the request's number among those of a phase.
    ByJob(Arc<[u32]>),
}

/// Where the tokens of an answer are known from. The scenario's limit holds in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AnswerLengths {
    /// Drawn from the fitted distribution.
    #[default]
    Fitted,
    /// By the request's number among those of a phase.
    ByJob(Arc<[u32]>),
    /// No answer ends by itself.
    Endless,
}

/// A token that is no end token: the draft, and what the verifier says instead of it.
#[derive(Clone, Copy)]
enum Word {
    Draft,
    Other,
}

impl Fitted {
    /// min(1, y_d/x_d) as fitted, at what the gate saw of a draft ([`RoundRecord::uncertainty`]); the mean where it did not
    /// look.
    ///
    /// [`RoundRecord::uncertainty`]: specfleet_engine::record::RoundRecord::uncertainty
    pub fn acceptance_at(&self, statistic: f32) -> f64 {
        let tables = &self.distributions;
        let table = match GateStatistic::from(&self.method.gate) {
            GateStatistic::None => &[][..],
            GateStatistic::Uncertainty(_) => &tables.uncertainty,
            GateStatistic::Entropy => &tables.entropy,
            GateStatistic::MaxProbability => &tables.doubt,
        };
        if table.is_empty() || statistic.is_nan() {
            let all = &tables.acceptance;
            return all.iter().map(|&share| f64::from(share)).sum::<f64>() / all.len().max(1) as f64;
        }
        let uncertainty = statistic;
        let below = table.partition_point(|&value| value < uncertainty);
        let upto = table.partition_point(|&value| value <= uncertainty);
        // In the middle of the ranks that have this value.
        let rank = (below + upto.max(below + 1) - 1) as f64 / 2.0 / table.len().saturating_sub(1).max(1) as f64;
        self.acceptance(rank)
    }

    fn acceptance(&self, rank: f64) -> f64 {
        let table = &self.distributions.acceptance;
        let index = (rank * table.len() as f64) as usize;
        table.get(index.min(table.len().saturating_sub(1))).map_or(1.0, |&share| f64::from(share))
    }

    fn draws(&self, generation: GenerationId, position: u32, rejections: u32) -> Draws {
        let GenerationId { prompt, repetition, .. } = generation;
        DrawKey { seed: self.seed, prompt, repetition, position, rejections }.draws(Purpose::Simulation)
    }

    fn token(&self, word: Word, last: bool) -> u32 {
        match (last, self.end_token) {
            (true, Some(end)) => end,
            // Two numbers that are no end token.
            (_, end) => {
                let first = match word {
                    Word::Draft => 1,
                    Word::Other => 4,
                };
                if end == Some(first) { first + 1 } else { first }
            }
        }
    }

    /// What the drafter's rank and the other draws of a position say.
    fn signals(&self, rank: f64, draws: &mut Draws) -> Signals {
        let tables = &self.distributions;
        let at = |table: &[f32], rank: f64| quantile(table, rank).map_or(f32::NAN, |value| value as f32);
        let statistic = match GateStatistic::from(&self.method.gate) {
            GateStatistic::None => f32::NAN,
            GateStatistic::Uncertainty(_) => at(&tables.uncertainty, rank),
            GateStatistic::Entropy => at(&tables.entropy, rank),
            GateStatistic::MaxProbability => at(&tables.doubt, rank),
        };
        let concentration = self.statistic() == Some(ImportanceStatistic::Concentration);
        let importance = if concentration { at(&tables.importance, draws.uniform()) } else { f32::NAN };
        let gate_draw = match self.method.gate {
            Gate::Random { .. } => draws.uniform_f32(),
            _ => 0.0,
        };
        Signals {
            statistic,
            importance,
            importance_threshold: f32::NAN,
            draft_probability: at(&tables.draft_probability, 1.0 - rank),
            gate_draw,
        }
    }

    fn statistic(&self) -> Option<ImportanceStatistic> {
        match self.method.gate {
            Gate::Joint { importance, .. } => Some(importance.statistic),
            Gate::Price(rule) => Some(rule.importance.statistic),
            _ => None,
        }
    }

    fn payload_bits(&self) -> u32 {
        let keep = match self.method.payload {
            PayloadForm::TopK { keep, .. } | PayloadForm::SparseExact { keep, .. } => keep,
            PayloadForm::Full { .. } | PayloadForm::TokenOnly { .. } => Keep::Top(0),
        };
        let entries = match keep {
            Keep::Top(k) => k.min(self.vocab),
            Keep::TailMass(_) => TAIL_ENTRIES.min(self.vocab),
        };
        let bits = nominal_bits(&self.method.payload, self.vocab as usize, entries as usize, false);
        u32::try_from(bits).unwrap_or(u32::MAX)
    }
}

/// The drafter's half of [`Fitted`].
#[derive(Clone, Debug)]
pub struct FittedDevices {
    fitted: Arc<Fitted>,
    payload_bits: u32,
    /// By slot: index of the running generation's last token in its sequence.
    last: Vec<u32>,
}

impl FittedDevices {
    /// The answers of a shard with this many devices.
    pub fn new(fitted: Arc<Fitted>, devices: usize) -> FittedDevices {
        FittedDevices { payload_bits: fitted.payload_bits(), fitted, last: vec![0; devices] }
    }
}

impl DeviceAnswers for FittedDevices {
    type Upload = Drawn;
    type Verdict = NextToken;

    fn start(&mut self, slot: u32, _: DeviceId, generation: GenerationId, job: u32) -> u32 {
        let fitted = &self.fitted;
        let mut draws = fitted.draws(generation, u32::MAX, 0);
        let tokens =
            |table: &[f32], draw: f64| quantile(table, draw).map_or(1, |tokens| tokens.round().max(1.0) as u32);
        let drawn = tokens(&fitted.distributions.prompt, draws.uniform());
        let known = |lengths: &[u32], place: u32| lengths.get(place as usize).copied().filter(|tokens| *tokens > 0);
        let prompt = match &fitted.prompts {
            PromptLengths::Fitted => None,
            PromptLengths::ByPrompt(lengths) => known(lengths, generation.prompt),
            PromptLengths::ByJob(lengths) => known(lengths, job),
        };
        let prompt = prompt.unwrap_or(drawn).min(fitted.longest_prompt);
        let drawn = tokens(&fitted.distributions.length, draws.uniform());
        let length = match &fitted.answers {
            AnswerLengths::Fitted => Some(drawn),
            AnswerLengths::ByJob(lengths) => Some(known(lengths, job).unwrap_or(drawn)),
            AnswerLengths::Endless => None,
        };
        self.last[slot as usize] = length.map_or(u32::MAX, |length| prompt + length - 1);
        prompt
    }

    fn step(&mut self, slot: u32, step: &Step) -> Option<StepResult> {
        let fitted = &self.fitted;
        let last = self.last[slot as usize];
        let mut draws = fitted.draws(step.generation, step.position, step.rejections);
        let rank = draws.uniform();
        let signals = fitted.signals(rank, &mut draws);
        let lookback = (fitted.statistic() == Some(ImportanceStatistic::Lookahead)).then(|| {
            let table = &fitted.distributions.importance;
            let important = fitted.distributions.important.unwrap_or(1.0);
            Lookback {
                importance: quantile(table, draws.uniform()).map_or(f32::NAN, |value| value as f32),
                threshold: quantile(table, 1.0 - important).map_or(f32::NAN, |value| value as f32),
            }
        });
        Some(StepResult {
            generation: step.generation,
            position: step.position,
            rejections: step.rejections,
            token: fitted.token(Word::Draft, step.position == last),
            signals,
            payload_bits: self.payload_bits,
            lookback,
        })
    }

    fn set(&mut self, _: u32, _: u32, _: u32) {}

    fn commit(&mut self, _: u32, _: u32) {}

    fn upload(&mut self, slot: u32, plan: &UploadPlan) -> (Drawn, u32) {
        let fitted = &self.fitted;
        let last = self.last[slot as usize];
        let catch_up = (plan.committed - plan.base) * 2;
        let mut drawn = Drawn {
            last,
            plain: fitted.token(Word::Draft, false),
            end: fitted.token(Word::Draft, true),
            ..Drawn::default()
        };
        let JobKind::Judge { drafts, bonus } = plan.job else {
            return (drawn, FRAME + catch_up);
        };
        let bytes = FRAME + catch_up + u32::from(drafts) * self.payload_bits.div_ceil(8);
        for ahead in 0..=u32::from(drafts) {
            let position = plan.committed + ahead;
            let judged = ahead < u32::from(drafts);
            if !judged && !bonus {
                break;
            }
            let rank = fitted.draws(plan.generation, position, plan.rejections).uniform();
            let GenerationId { prompt, repetition, .. } = plan.generation;
            let key = DrawKey { seed: fitted.seed, prompt, repetition, position, rejections: plan.rejections };
            let agrees = key.draws(Purpose::SimulatedAccept).uniform() < fitted.acceptance(rank);
            let token = |word| fitted.token(word, position == last);
            match (judged, agrees) {
                (true, true) => drawn.accepted += 1,
                (true, false) => {
                    drawn.next = Some(token(Word::Other));
                    let token_only = matches!(fitted.method.payload, PayloadForm::TokenOnly { .. });
                    drawn.resample = token_only && !fitted.sampling.is_greedy();
                    break;
                }
                // Whether the bonus token is what the device drafted ahead.
                (false, agrees) => drawn.next = Some(token(if agrees { Word::Draft } else { Word::Other })),
            }
        }
        (drawn, bytes)
    }

    fn verdict(&mut self, _: u32, _: UploadId, _: u8, verdict: NextToken) -> Arrived {
        let resample = matches!(verdict, NextToken::Resampled(_));
        let bits = downlink_bits(&self.fitted.method.payload, self.fitted.vocab as usize, resample);
        let bytes = FRAME + if resample { u32::try_from(bits / 8).unwrap_or(u32::MAX) } else { 0 };
        Arrived { next: verdict, bits, bytes }
    }

    fn finish(&mut self, _: u32, _: &mut GenerationRecord) {}
}
