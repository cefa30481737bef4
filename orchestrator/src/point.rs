//! One simulation among many: the figures of a scenario with a few keys changed, and no run kept.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use specfleet_analysis::Summary;
use specfleet_config::{Mode, Scenario, Settings};

use crate::error::Error;
use crate::progress::{Progress, Ui};
use crate::simulate::{SimulateOptions, Simulated, Source, simulate};
use crate::thresholds;

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
        thresholds::check_names(&settings)?;
        // Figures are of whole runs: no threshold may end one early.
        settings.thresholds.clear();
        Ok(settings)
    }

    /// The figures of `scenario`.
    pub fn figures(&self, scenario: &Scenario) -> Result<Summary, Error> {
        let settings = Self::settings(scenario)?;
        let quiet = Progress::new(Ui::None);
        let source = Source::open(&settings, None, self.runs, &quiet)?;
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
        let Simulated { summary, .. } = simulate(&source, options)?;
        Ok(summary)
    }
}
