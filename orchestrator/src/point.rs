//! One simulation among many: the figures of a scenario with a few keys changed, and no run kept.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use specfleet_analysis::Summary;
use specfleet_config::{Mode, Scenario, Settings};
use specfleet_engine::cost::BatchCost;
use specfleet_engine::sizing::Resource;

use crate::error::Error;
use crate::progress::{Progress, Ui};
use crate::simulate::{SimulateOptions, Simulated, SimulationInput, simulate};
use crate::thresholds;

/// How much more of a resource is given to see whether it binds.
pub const MORE: f64 = 1.25;

/// What a simulation found out.
pub struct MeasuredPoint {
    pub summary: Summary,
    pub settings: Settings,
    /// Tokens of a prompt, in the mean.
    pub mean_prompt: f64,
    /// Tokens of an answer, in the mean.
    pub mean_answer: f64,
    /// Where lengths are known from, where no text was written.
    pub lengths: Option<String>,
    /// What there is to say about prompts that are too long.
    pub too_long: Option<String>,
    /// Tokens that a verifier's KV memory holds.
    pub kv_tokens: u64,
    /// What batches of the first method take.
    pub cost: Option<BatchCost>,
}

/// What all simulations of a search or sweep share.
pub struct Bench<'a> {
    /// Where recorded runs and calibrations are found.
    pub runs: &'a Path,
    /// Threads of each simulation.
    pub threads: usize,
    /// Set from outside to end early.
    pub interrupted: &'a AtomicBool,
}

impl Bench<'_> {
    /// What `scenario` says for a simulation whose figures alone count.
    pub fn settings(scenario: &Scenario) -> Result<Settings, Error> {
        scenario.refuse_in(Mode::Simulate)?;
        let mut settings = scenario.settings()?;
        thresholds::check_all(&settings)?;
        // Figures are of whole runs: no threshold may end one early.
        settings.thresholds.clear();
        Ok(settings)
    }

    /// The figures of `scenario`, with [`MORE`] times as much of one resource, and what is known beside them.
    pub fn measured(&self, scenario: &Scenario, more_of: Option<Resource>) -> Result<MeasuredPoint, Error> {
        let mut settings = Self::settings(scenario)?;
        match more_of {
            // By the key's own unit, where that is fine enough; what the profile holds was checked before.
            Some(Resource::KvMemory) => {
                let more = f64::from(settings.model.verifier_kv_mebibytes) * MORE;
                settings.model.verifier_kv_mebibytes = more.ceil() as u32;
                settings.pool.memory = None;
            }
            Some(Resource::Link) => {
                settings.device.parts.iter_mut().for_each(|part| part.link = part.link.faster(MORE));
            }
            Some(Resource::VerifierTime) | None => {}
        }
        let quiet = Progress::new(Ui::None);
        let mut input = SimulationInput::open(&mut settings, None, self.runs, &quiet)?;
        if more_of == Some(Resource::VerifierTime) {
            input.cost = input.cost.faster(MORE);
            input.timings.iter_mut().for_each(|timing| timing.cost = timing.cost.faster(MORE));
        }
        let options = SimulateOptions {
            settings: &settings,
            scenario: scenario.to_toml(),
            ledger: None,
            out: None,
            turn: 0,
            threads: self.threads,
            progress: &quiet,
            interrupted: self.interrupted,
        };
        let Simulated { summary, tokens, .. } = simulate(&input, options)?;
        let answered = summary.generations.saturating_sub(summary.dropped).max(1);
        Ok(MeasuredPoint {
            mean_answer: tokens as f64 / answered as f64,
            mean_prompt: input.mean_prompt_tokens(),
            lengths: input.lengths().map(ToString::to_string),
            too_long: input.too_long.clone(),
            kv_tokens: input.sizes.kv_tokens,
            cost: input.timings.first().map(|timing| timing.cost.clone()),
            summary,
            settings,
        })
    }
}
