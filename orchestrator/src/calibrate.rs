//! Calibration (method.md §2 and §3): the drafter and the verifier walk through prompts of their own, and what they say on
//! the way becomes samples for the engine's fits.
//!
//! A walk is an `hlm` generation: at each position the draft is judged and the text goes on with what was committed, so
//! the samples lie where the methods will be. The seed is fixed: a calibration belongs to a pair, not to a run.

use std::fmt;

use specfleet_config::{Settings, Task};
use specfleet_engine::acceptance::{Next, verifier_draw, verify_outcome};
use specfleet_engine::calibration::{Calibration, CalibrationKey, CalibrationSample, HarmMeasure, HarmSample};
use specfleet_engine::device::gate::{
    AttentionRows, ImportanceReading, RunningMoments, concentration, lookahead_importance, uncertainty,
};
use specfleet_engine::device::payload::Payload;
use specfleet_engine::device::{DraftSpec, draft::GateStatistic, draft_outcome};
use specfleet_engine::method::{Estimator, PayloadForm, Sampling};
use specfleet_engine::random::DrawKey;
use specfleet_model::{KvArena, LogitRows, Model, ModelError, SeqId, SeqStep};

use crate::error::Error;
use crate::pair::Pair;
use crate::prompts::Fitting;

/// Most tokens drafted on each prompt.
const TOKENS: usize = 96;
/// Walks at a time.
const BATCH: usize = 32;
/// Most rejected drafts studied for harm.
const HARM_POSITIONS: usize = 256;
/// Tokens compared where there is no final answer.
const AGREEMENT_TOKENS: usize = 32;
/// Seed of all draws.
const SEED: u64 = 0xca11_b4a7;

/// What the calibration of this scenario's pair belongs to.
pub fn key(settings: &Settings, pair: &Pair, estimator: Estimator, form: PayloadForm) -> CalibrationKey {
    let workload = &settings.calibration.workload;
    CalibrationKey {
        drafter: pair.drafter_digest.clone(),
        verifier: pair.verifier_digest.clone(),
        drafter_precision: pair.drafter.precision().to_string(),
        verifier_precision: pair.verifier.precision().to_string(),
        prompts: format!(
            "{} x {} x {TOKENS}{}{}",
            workload.sha256,
            workload.prompts,
            pair.tokenizer_of_its_own(),
            Fitting::of_calibration(settings, pair, TOKENS).describe_too_long(workload)
        ),
        estimator,
        sampling: settings.run.sampling,
        samples_from: CalibrationKey::samples_from(form),
    }
}

/// Computes the calibration of `key` on the scenario's calibration prompts. `say` is told beforehand what it takes.
pub fn calibrate(
    settings: &Settings,
    pair: &Pair,
    key: CalibrationKey,
    say: &dyn Fn(&str),
) -> Result<Calibration, Error> {
    let prompts = prompts(settings, pair)?;
    let plan = Plan::new(settings, pair, &prompts)?;
    say(&plan.to_string());
    let mut walker = Walker::new(pair, &key, &plan);
    let mut done = 0;
    for group in prompts.chunks(BATCH) {
        walker.group(group)?;
        done += group.len();
        say(&format!("calibration: {done} of {} prompts", prompts.len()));
    }
    let (harm, measure) = walker.harm()?;
    Ok(Calibration::fit(key, &walker.samples, &harm, measure))
}

/// A calibration prompt as tokens.
struct Text<'a> {
    number: u32,
    reference: Option<&'a str>,
    tokens: Vec<u32>,
}

/// The calibration prompts in order.
fn prompts<'a>(settings: &'a Settings, pair: &Pair) -> Result<Vec<Text<'a>>, Error> {
    let fitting = Fitting::of_calibration(settings, pair, TOKENS);
    let tasks = settings.calibration.workload.tasks().zip(0..);
    let text = |(task, number): (Task<'a>, u32)| {
        let tokens = fitting.tokens(&task).transpose()?;
        Some(tokens.map(|tokens| Text { number, reference: task.prompt.reference.as_deref(), tokens }))
    };
    let texts = tasks.filter_map(text).collect::<Result<Vec<_>, Error>>()?;
    if texts.is_empty() { Err(Error::NoPromptFits { context: pair.context() }) } else { Ok(texts) }
}

/// How many texts are followed at a time, and the KV memory that this takes.
struct Plan {
    /// Walks at a time; harm is measured on as many texts.
    walks: usize,
    drafter_bytes: usize,
    verifier_bytes: usize,
}

impl Plan {
    /// As many walks at a time as the memory in `calibration.kv_mebibytes` holds, by the longest prompt. An error if it
    /// does not hold one.
    fn new(settings: &Settings, pair: &Pair, prompts: &[Text<'_>]) -> Result<Plan, Error> {
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        let upto = |tokens: usize| tokens.min(pair.context());
        // Behind the last position of a walk stand a draft and the one after it.
        let drafter = KvArena::bytes_of(&pair.drafter, upto(longest + TOKENS + 2));
        // A walk is followed by what the verifier writes on from a position of it.
        let verifier = KvArena::bytes_of(&pair.verifier, upto(longest + 2 * TOKENS + 1));
        let most = (settings.calibration.kv_mebibytes as usize) << 20;
        let walks = (most / (drafter + verifier).max(1)).min(BATCH);
        if walks < 2 {
            return Err(Error::CalibrationMemory {
                mebibytes: settings.calibration.kv_mebibytes,
                // A rejected draft and its replacement are followed side by side.
                needed: (2 * (drafter + verifier)).div_ceil(1 << 20),
                tokens: longest,
            });
        }
        Ok(Plan { walks, drafter_bytes: walks * drafter, verifier_bytes: walks * verifier })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = (self.drafter_bytes + self.verifier_bytes).div_ceil(1 << 20);
        write!(
            f,
            "calibration follows {} texts at a time, for which it takes up to {mebibytes} MiB of KV memory",
            self.walks
        )
    }
}

/// One prompt on its way.
struct Walk {
    prompt: u32,
    reference: Option<String>,
    tokens: Vec<u32>,
    prompt_tokens: usize,
    epoch: u32,
    /// Of `concentration`, per layer.
    moments: Vec<RunningMoments>,
    drafter: SeqId,
    verifier: SeqId,
}

/// A rejected draft, to be followed both ways.
struct Rejected {
    prefix: Vec<u32>,
    prompt_tokens: usize,
    prompt: u32,
    epoch: u32,
    draft: u32,
    replacement: u32,
    reference: Option<String>,
    sample: CalibrationSample,
}

struct Walker<'a> {
    pair: &'a Pair,
    sampling: Sampling,
    form: PayloadForm,
    layers: usize,
    drafter_kv: KvArena,
    verifier_kv: KvArena,
    walks: usize,
    samples: Vec<CalibrationSample>,
    rejected: Vec<Rejected>,
}

/// What a walk has seen at a position, to be put in the order of positions and prompts.
struct Seen {
    generated: usize,
    prompt: u32,
    sample: CalibrationSample,
    rejected: Option<Rejected>,
}

impl<'a> Walker<'a> {
    fn new(pair: &'a Pair, key: &CalibrationKey, plan: &Plan) -> Self {
        let full = PayloadForm::Full { bits: specfleet_engine::method::ProbabilityBits::B32 };
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
    fn group(&mut self, prompts: &[Text<'_>]) -> Result<(), Error> {
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
                epoch: 0,
                moments: vec![RunningMoments::default(); self.layers],
                drafter: self.drafter_kv.open(),
                verifier: self.verifier_kv.open(),
            });
        }
        while !walks.is_empty() {
            // Two lookahead steps must fit behind the next position.
            let (going, done): (Vec<Walk>, Vec<Walk>) = walks.into_iter().partition(|walk| self.goes_on(walk));
            for walk in done {
                self.drafter_kv.close(walk.drafter);
                self.verifier_kv.close(walk.verifier);
            }
            walks = going;
            if !walks.is_empty() {
                self.position(&mut walks, seen)?;
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

    /// One position of every walk: draft, look ahead, judge, commit.
    fn position(&mut self, walks: &mut [Walk], seen: &mut Vec<Seen>) -> Result<(), Error> {
        let vocab = self.pair.drafter.shape().vocab;
        let heads = self.pair.drafter.shape().heads;
        let keys: Vec<DrawKey> = walks.iter().map(Walk::key).collect();
        let mut drafts = vec![Vec::new(); walks.len()];
        let mut logits = vec![Vec::new(); walks.len()];
        let mut readings: Vec<(Vec<ImportanceReading>, Vec<ImportanceReading>)> = vec![Default::default(); walks.len()];
        self.fill(walks)?;
        for layer in 0..self.layers {
            // Three steps per layer: the position itself, then the draft, then the draft behind it.
            for step in 0..3 {
                let fed: Vec<&[u32]> = walks
                    .iter()
                    .zip(&drafts)
                    .map(|(walk, drafts): (&Walk, &Vec<u32>)| match step {
                        0 => &walk.tokens[walk.tokens.len() - 1..],
                        _ => &drafts[step - 1..step],
                    })
                    .collect();
                let steps: Vec<SeqStep<'_>> = walks
                    .iter()
                    .zip(&fed)
                    .map(|(walk, tokens)| SeqStep {
                        seq: walk.drafter,
                        tokens,
                        logits: if layer == 0 && step < 2 { LogitRows::Last(1) } else { LogitRows::None },
                        attention: (step != 1).then_some(layer),
                    })
                    .collect();
                let output = self.pair.drafter.forward(&mut self.drafter_kv, &steps)?;
                for (index, walk) in walks.iter_mut().enumerate() {
                    if layer == 0 && step < 2 {
                        let row = output.logits(index);
                        let key = keys[index].at(keys[index].position + step as u32);
                        drafts[index].push(draft_outcome(row, None, key, &self.spec(GateStatistic::None)).token);
                        if step == 0 {
                            logits[index] = row.to_vec();
                        }
                    }
                    let weights = output.attention(index);
                    let Some(rows) = AttentionRows::new(heads, weights.len() / heads.max(1), weights) else { continue };
                    match step {
                        0 => {
                            let value = concentration(rows);
                            readings[index].0.push(walk.moments[layer].reading(value));
                            walk.moments[layer].push(value);
                        }
                        2 => readings[index].1.push(lookahead_importance(rows, walk.tokens.len())),
                        _ => {}
                    }
                }
            }
            // A pass tells the attention of one layer: the next one sees the same tokens again.
            for walk in walks.iter() {
                self.drafter_kv.truncate(walk.drafter, walk.tokens.len() - 1);
            }
        }
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
        for (index, walk) in walks.iter_mut().enumerate() {
            let key = keys[index];
            let of = |statistic| draft_outcome(&logits[index], None, key, &self.spec(statistic));
            let drafted = of(GateStatistic::MaxProbability);
            let payload = Payload::encode(&self.form, &drafted.distribution, drafted.token);
            let row = output.logits(index);
            let Ok(outcome) = verify_outcome(
                row,
                vocab,
                &self.sampling,
                key,
                &[drafted.token],
                std::slice::from_ref(&payload),
                false,
            ) else {
                // Our own payload of our own draft is valid.
                return Err(Error::Stopped("the calibration"));
            };
            let (concentration, lookahead) = std::mem::take(&mut readings[index]);
            let sample = CalibrationSample {
                u_expected: uncertainty(Estimator::Expected, &logits[index], drafted.token, key),
                u_sampled: uncertainty(Estimator::Sampled, &logits[index], drafted.token, key),
                entropy: of(GateStatistic::Entropy).signals.statistic,
                max_probability: 1.0 - drafted.signals.statistic,
                rejection: 1.0 - outcome.accept_probabilities.first().copied().unwrap_or(1.0),
                concentration,
                lookahead,
            };
            let generated = walk.tokens.len() - walk.prompt_tokens;
            let mut rejected = None;
            let next = match outcome.next {
                Next::Replacement(replacement) => {
                    rejected = Some(Rejected {
                        prefix: walk.tokens.clone(),
                        prompt_tokens: walk.prompt_tokens,
                        prompt: walk.prompt,
                        epoch: walk.epoch + 1,
                        draft: drafted.token,
                        replacement,
                        reference: walk.reference.clone(),
                        sample: sample.clone(),
                    });
                    walk.epoch += 1;
                    replacement
                }
                Next::None | Next::Bonus(_) | Next::Resample(_) => drafted.token,
            };
            walk.tokens.push(next);
            seen.push(Seen { generated, prompt: walk.prompt, sample, rejected });
        }
        Ok(())
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

    /// Follows each rejected draft and its replacement to the end of the text, both written on by the verifier with the
    /// same draws, and measures what the draft costs.
    fn harm(&mut self) -> Result<(Vec<HarmSample>, HarmMeasure), Error> {
        let has_answer = |r: &Rejected| r.reference.as_deref().and_then(specfleet_analysis::final_answer).is_some();
        let answers = self.rejected.iter().all(has_answer);
        let measure = if answers { HarmMeasure::ExactMatch } else { HarmMeasure::TokenAgreement };
        let mut harm = Vec::new();
        let rejected = std::mem::take(&mut self.rejected);
        for batch in rejected.chunks(self.walks / 2) {
            let texts: Vec<(Vec<u32>, u32, u32)> = batch
                .iter()
                .flat_map(|r| {
                    [r.draft, r.replacement].map(|token| ([&r.prefix[..], &[token]].concat(), r.prompt, r.epoch))
                })
                .collect();
            let texts = self.write_on(texts)?;
            for (rejected, both) in batch.iter().zip(texts.chunks_exact(2)) {
                let loss = match measure {
                    HarmMeasure::ExactMatch => {
                        let right = |tokens: &[u32]| -> Result<f32, ModelError> {
                            let text = self.pair.tokenizer.decode(&tokens[rejected.prompt_tokens..])?;
                            let reference = rejected.reference.as_deref();
                            let matches = reference.and_then(|it| specfleet_analysis::exact_match(&text, it));
                            Ok(f32::from(u8::from(matches == Some(true))))
                        };
                        right(&both[1])? - right(&both[0])?
                    }
                    HarmMeasure::TokenAgreement => {
                        let from = rejected.prefix.len() + 1;
                        let window = |tokens: &[u32]| tokens[from..].iter().copied().take(AGREEMENT_TOKENS).collect();
                        let (draft, replacement): (Vec<u32>, Vec<u32>) = (window(&both[0]), window(&both[1]));
                        1.0 - specfleet_analysis::token_agreement(&draft, &replacement) as f32
                    }
                };
                let CalibrationSample { concentration, lookahead, .. } = rejected.sample.clone();
                harm.push(HarmSample { harm: loss, concentration, lookahead });
            }
        }
        Ok((harm, measure))
    }

    /// The verifier alone writes each text on to its end.
    fn write_on(&mut self, texts: Vec<(Vec<u32>, u32, u32)>) -> Result<Vec<Vec<u32>>, ModelError> {
        let verifier: &Model = &self.pair.verifier;
        let eos = &verifier.shape().eos;
        let mut texts: Vec<(Vec<u32>, u32, u32, SeqId, usize)> = texts
            .into_iter()
            .map(|(tokens, prompt, epoch)| {
                let most = (tokens.len() + TOKENS).min(self.pair.context());
                (tokens, prompt, epoch, self.verifier_kv.open(), most)
            })
            .collect();
        loop {
            let open: Vec<usize> = (0..texts.len())
                .filter(|&at| {
                    let (tokens, .., most) = &texts[at];
                    tokens.len() < *most && !tokens.last().is_some_and(|t| eos.contains(t))
                })
                .collect();
            if open.is_empty() {
                break;
            }
            let steps: Vec<SeqStep<'_>> = open
                .iter()
                .map(|&at| SeqStep {
                    seq: texts[at].3,
                    tokens: &texts[at].0[self.verifier_kv.len(texts[at].3)..],
                    logits: LogitRows::Last(1),
                    attention: None,
                })
                .collect();
            let output = verifier.forward(&mut self.verifier_kv, &steps)?;
            for (index, &at) in open.iter().enumerate() {
                let (tokens, prompt, epoch, ..) = &mut texts[at];
                let key = draw_key(*prompt, tokens.len(), *epoch);
                tokens.push(verifier_draw(output.logits(index), &self.sampling, key));
            }
        }
        Ok(texts
            .into_iter()
            .map(|(tokens, _, _, seq, _)| {
                self.verifier_kv.close(seq);
                tokens
            })
            .collect())
    }
}

impl Walk {
    fn key(&self) -> DrawKey {
        draw_key(self.prompt, self.tokens.len(), self.epoch)
    }
}

fn draw_key(prompt: u32, position: usize, epoch: u32) -> DrawKey {
    // A position is below the context of a model, far below `u32::MAX`.
    DrawKey { seed: SEED, prompt, repetition: 0, position: position as u32, epoch }
}
