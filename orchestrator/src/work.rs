//! The workload of a run: prompts as tokens, and which device answers which.

use std::collections::BTreeMap;
use std::sync::Arc;

use specfleet_config::{Settings, Task};
use specfleet_engine::load::{Arrivals, Load};

use crate::error::Error;
use crate::pair::Pair;
use crate::prompts::Fitting;

/// One prompt to answer under every method.
#[derive(Clone, Debug)]
pub struct PromptJob {
    /// Place in the workload, from 0, blank lines left out.
    pub prompt_id: u32,
    /// Repetition of the same prompt.
    pub repetition: u16,
    pub data_set: u16,
    /// The text shown to the models.
    pub prompt: String,
    /// What a right answer looks like, if the workload says.
    pub reference: Option<String>,
    pub tokens: Arc<[u32]>,
}

/// All jobs, in order: job i belongs to device i mod N, under every method, so that methods are compared on the same
/// devices and links.
#[derive(Clone, Debug)]
pub struct WorkPlan {
    pub jobs: Vec<PromptJob>,
    /// Names of the data sets.
    pub data_sets: Vec<String>,
    /// Whether somebody asks for every job in the end; not if devices may be gone before, or arrivals may end.
    pub all_asked: bool,
    /// Where each prompt and repetition stands among the jobs.
    places: BTreeMap<(u32, u16), usize>,
}

impl WorkPlan {
    /// Reads and tokenises the scenario's workload, without the prompts that [`crate::prompts`] has taken out of it.
    pub fn new(settings: &Settings, pair: &Pair) -> Result<WorkPlan, Error> {
        let mut work = WorkPlan {
            jobs: Vec::new(),
            data_sets: Vec::new(),
            all_asked: all_asked(settings),
            places: BTreeMap::new(),
        };
        let fitting = Fitting::of(settings, &pair.tokenizer, pair.context());
        for part in &settings.workload {
            let data_set = work.data_set(&part.data_set);
            for task in part.tasks() {
                let job = PromptJob::new(&task, data_set, &fitting)?;
                work.places.insert((job.prompt_id, job.repetition), work.jobs.len());
                work.jobs.push(job);
            }
        }
        Ok(work)
    }

    /// The tokens of a prompt.
    pub fn tokens(&self, prompt_id: u32, repetition: u16) -> Option<&[u32]> {
        let job = self.places.get(&(prompt_id, repetition))?;
        Some(&self.jobs[*job].tokens)
    }

    fn data_set(&mut self, name: &str) -> u16 {
        let index = self.data_sets.iter().position(|known| known == name).unwrap_or_else(|| {
            self.data_sets.push(name.to_owned());
            self.data_sets.len() - 1
        });
        // A scenario with 65,536 data sets does not exist: each is written out in it.
        index as u16
    }
}

pub(crate) fn all_asked(settings: &Settings) -> bool {
    match &settings.load {
        // Requests to a device that is gone are dropped, and recorded so.
        Load::Open { arrivals, .. } => !matches!(arrivals, Arrivals::Ramp { .. } | Arrivals::Recorded { .. }),
        Load::Closed { .. } => {
            let stays = settings.churn.stay.is_none();
            stays && settings.device.parts.iter().all(|part| part.battery_nanojoules == 0)
        }
    }
}

impl PromptJob {
    fn new(task: &Task<'_>, data_set: u16, fitting: &Fitting<'_>) -> Result<PromptJob, Error> {
        Ok(PromptJob {
            prompt_id: task.prompt_id,
            repetition: task.repetition,
            data_set,
            prompt: task.prompt.text.clone(),
            reference: task.prompt.reference.clone(),
            // Prompts to be skipped are no tasks once they are settled.
            tokens: fitting.tokens(task)?.unwrap_or_default().into(),
        })
    }
}
