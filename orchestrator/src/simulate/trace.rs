//! Answers from a recorded run: the same signals and verdicts, in another fleet, pool or time.
//!
//! What a run records of a position is its draft, its signals and what the verifier made of it. Drafts that were thrown
//! away (behind a rejection in a block) are not recorded; the draft that came instead stands in for them. So the text is
//! the recorded one, whatever the timing.

use std::collections::BTreeMap;
use std::sync::Arc;

use specfleet_engine::device::payload::{downlink_bits, nominal_bits};
use specfleet_engine::device::{Lookback, NextToken, Signals, Step, StepResult, UploadPlan};
use specfleet_engine::id::{DeviceId, GenerationId, UploadId};
use specfleet_engine::method::{Gate, ImportanceStatistic, Keep, Method, PayloadForm, Sampling, Writer};
use specfleet_engine::pool::JobKind;

use specfleet_engine::record::{GenerationRecord, RoundRecord, Source};
use specfleet_simulator::answers::{Arrived, DeviceAnswers};
use specfleet_simulator::drawn::Drawn;

/// Bytes of a frame beyond the nominal bits it carries [declared].
const FRAME: u32 = 48;

/// One recorded generation.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    pub rounds: Vec<RoundRecord>,
}

/// One method's recorded generations, by prompt, repetition and pass.
pub(super) type RecordedGenerations = BTreeMap<(u32, u16, u16), Recorded>;

/// What all shards of a phase share.
pub(super) struct TracePhase {
    pub generations: RecordedGenerations,
    pub method: Method,
    /// How tokens were drawn.
    pub sampling: Sampling,
    /// Size of the vocabulary.
    pub vocab: u32,
    /// A token that ends a text.
    pub end_token: Option<u32>,
}

/// The drafter's half, for one shard.
pub(super) struct TraceDevices {
    phase: Arc<TracePhase>,
    /// By slot: the running generation and how many tokens it has.
    slots: Vec<Option<(GenerationId, u32)>>,
    payload_bits: u32,
}

impl TraceDevices {
    /// The answers of a shard with this many devices.
    pub(super) fn new(phase: Arc<TracePhase>, devices: usize) -> TraceDevices {
        let entries = match phase.method.payload {
            PayloadForm::TopK { keep: Keep::Top(k), .. } | PayloadForm::SparseExact { keep: Keep::Top(k), .. } => k,
            _ => 30,
        };
        let entries = entries.min(phase.vocab) as usize;
        let bits = nominal_bits(&phase.method.payload, phase.vocab as usize, entries, false);
        let payload_bits = u32::try_from(bits).unwrap_or(u32::MAX);
        TraceDevices { phase, slots: vec![None; devices], payload_bits }
    }

    fn recorded(&self, generation: GenerationId) -> Option<&Recorded> {
        self.phase.generations.get(&(generation.prompt, generation.repetition, generation.pass))
    }

    fn lookahead(&self) -> bool {
        let statistic = match self.phase.method.gate {
            Gate::Joint { importance, .. } => Some(importance.statistic),
            Gate::Price(rule) => Some(rule.importance.statistic),
            _ => None,
        };
        statistic == Some(ImportanceStatistic::Lookahead)
    }

    /// A token that is not `token` and ends nothing.
    fn other(&self, token: u32) -> u32 {
        (1..4).find(|&other| other != token && Some(other) != self.phase.end_token).unwrap_or(0)
    }
}

impl DeviceAnswers for TraceDevices {
    type Upload = Drawn;
    type Verdict = NextToken;

    fn start(&mut self, slot: u32, _: DeviceId, generation: GenerationId, _: u32) -> u32 {
        self.slots[slot as usize] = Some((generation, 0));
        self.recorded(generation).map_or(1, |recorded| recorded.prompt_tokens)
    }

    fn step(&mut self, _: u32, step: &Step) -> Option<StepResult> {
        let recorded = self.recorded(step.generation)?;
        let at = step.position - recorded.prompt_tokens;
        let round = recorded.rounds.get(at as usize);
        let lookback = at.checked_sub(2).and_then(|at| recorded.rounds.get(at as usize)).filter(|_| self.lookahead());
        // Behind the text's end drafts were made ahead in vain; and before a bonus token none was made at all.
        let token =
            round.map_or(0, |round| if round.draft == u32::MAX { self.other(round.token) } else { round.draft });
        let figure = |of: fn(&RoundRecord) -> f32| round.map_or(f32::NAN, of);
        let by_round = !self.lookahead();
        Some(StepResult {
            generation: step.generation,
            position: step.position,
            rejections: step.rejections,
            token,
            signals: Signals {
                statistic: figure(|round| round.uncertainty),
                importance: if by_round { figure(|round| round.importance) } else { f32::NAN },
                importance_threshold: f32::NAN,
                draft_probability: figure(|round| round.draft_probability),
                // Recorded is the decision, not the coin.
                gate_draw: if round.is_some_and(|round| round.reason.uploads()) { 0.0 } else { 1.0 },
            },
            payload_bits: self.payload_bits,
            lookback: lookback
                .map(|round| Lookback { importance: round.importance, threshold: round.importance_threshold }),
        })
    }

    fn set(&mut self, _: u32, _: u32, _: u32) {}

    fn commit(&mut self, slot: u32, generated: u32) {
        if let Some((_, tokens)) = &mut self.slots[slot as usize] {
            *tokens = generated + 1;
        }
    }

    fn upload(&mut self, _: u32, plan: &UploadPlan) -> (Drawn, u32) {
        let Some(recorded) = self.recorded(plan.generation) else { return (Drawn::default(), FRAME) };
        let end = self.phase.end_token.unwrap_or(0);
        let last = recorded.prompt_tokens + (recorded.rounds.len() as u32).saturating_sub(1);
        let ends = recorded.rounds.last().is_some_and(|round| Some(round.token) == self.phase.end_token);
        let mut drawn =
            Drawn { last: if ends { last } else { u32::MAX }, plain: self.other(end), end, ..Drawn::default() };
        let catch_up = (plan.committed - plan.base) * 2;
        let JobKind::Judge { drafts, bonus } = plan.job else { return (drawn, FRAME + catch_up) };
        let bytes = FRAME + catch_up + u32::from(drafts) * self.payload_bits.div_ceil(8);
        let from = (plan.committed - recorded.prompt_tokens) as usize;
        for at in from..from + usize::from(drafts) {
            match recorded.rounds.get(at) {
                Some(round) if round.source == Source::Replaced => {
                    drawn.next = Some(round.token);
                    let token_only = matches!(self.phase.method.payload, PayloadForm::TokenOnly { .. });
                    drawn.resample = token_only && !self.phase.sampling.is_greedy();
                    return (drawn, bytes);
                }
                _ => drawn.accepted += 1,
            }
        }
        if bonus {
            drawn.next = recorded.rounds.get(from + usize::from(drafts)).map(|round| round.token);
        }
        (drawn, bytes)
    }

    fn verdict(&mut self, slot: u32, _: UploadId, _: u8, verdict: NextToken) -> Arrived {
        let resample = matches!(verdict, NextToken::Resampled(_));
        let bits = downlink_bits(&self.phase.method.payload, self.phase.vocab as usize, resample);
        let bytes = FRAME + if resample { u32::try_from(bits / 8).unwrap_or(u32::MAX) } else { 0 };
        let mut next = verdict;
        // The pool knows only where the verifier's own writing ends.
        if self.phase.method.writer == Writer::Verifier
            && let Some((generation, tokens)) = self.slots[slot as usize]
            && let Some(round) = self.recorded(generation).and_then(|recorded| recorded.rounds.get(tokens as usize))
        {
            next = NextToken::Bonus(round.token);
        }
        Arrived { next, bits, bytes }
    }

    fn finish(&mut self, slot: u32, record: &mut GenerationRecord) {
        let tokens = self.slots[slot as usize].take().map_or(0, |(_, tokens)| tokens as usize);
        if let Some(recorded) = self.recorded(record.id) {
            record.tokens = recorded.rounds.iter().take(tokens).map(|round| round.token).collect();
        }
    }
}
