//! Calibration (method.md §2 and §3): the drafter and the verifier walk through prompts of their own, and what they say on
//! the way becomes samples for the engine's fits.
//!
//! A walk is an `hlm` generation: at each position the draft is judged and the text goes on with what was committed, so
//! the samples lie where the methods will be. The seed is fixed: a calibration belongs to a pair, not to a run.

mod harm;
mod walk;

use std::fmt;

use specfleet_config::{Settings, Task};
use specfleet_engine::calibration::{Calibration, CalibrationKey};
use specfleet_engine::method::{Estimator, PayloadForm};
use specfleet_model::KvArena;

use self::walk::Walker;
use crate::error::Error;
use crate::pair::Pair;
use crate::prompts::Fitting;

/// Most tokens drafted on each prompt.
const TOKENS: usize = 96;

/// Walks at a time.
const BATCH: usize = 32;

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
        // After the last position of a walk stand a draft and the one after it.
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
