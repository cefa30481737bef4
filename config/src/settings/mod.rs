//! Validated settings: what a run needs to know, with every number in its range.

mod assignment;
mod calibration;
mod cost;
mod fleet;
mod load;
mod methods;
mod model;
mod pattern;
mod pool;
mod run;
mod simulate;
mod thresholds;
mod work;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use specfleet_engine::load::{Churn, Load};
use specfleet_engine::record::RunClock;
use specfleet_engine::time::Span;

use assignment::Unanswered;

pub use assignment::Assignment;
pub use calibration::{CalibrationFile, CalibrationOptions};
pub use cost::CostChoice;
pub use fleet::{DeviceOptions, FleetPart};
pub use load::RecordedLengths;
pub use methods::MethodChoice;
pub use model::{ModelChoice, ModelOptions};
pub use pool::{PoolSection, TlsFiles};
pub use run::RunSection;
pub use simulate::{Fidelity, RunPlace, SimulateSection};
pub use thresholds::Threshold;
pub use work::{Task, WorkloadPart};

use crate::ConfigError;
use crate::Fault;
use crate::read::{InputFile, Section, absolute};
use crate::workload::sha256_hex;

/// A scenario, validated. Profiles and prompts are loaded; nothing here needs a second look.
///
/// Serialised, it holds everything that a run's results may depend on, profiles by their contents and data sets by their
/// digests, never by their paths: two scenarios that mean the same have the same [`Settings::scenario_hash`], wherever
/// their files lie. Only a model of one's own and a recorded run are named by their folders, in the hash without the way
/// there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub run: RunSection,
    /// The methods to run, in this order; at least one, none twice.
    pub methods: Vec<MethodChoice>,
    /// Where the prompts come from; at least one part.
    pub workload: Vec<WorkloadPart>,
    pub model: ModelOptions,
    pub device: DeviceOptions,
    /// What makes devices start their generations.
    pub load: Load,
    /// How long recorded requests are, where their file says so; only fitted answers have a use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_lengths: Option<RecordedLengths>,
    /// When devices join and leave.
    pub churn: Churn,
    pub pool: PoolSection,
    /// What thresholds are fitted on.
    pub calibration: CalibrationOptions,
    /// Whether the verifier scores skipped tokens after each generation, outside all accounts and timings.
    pub audit: bool,
    /// Faults to inject, in order of time.
    pub faults: Vec<Fault>,
    /// What the run is held to.
    pub thresholds: Vec<Threshold>,
    /// How a simulation runs; a live run leaves it aside.
    pub simulate: SimulateSection,
    /// The files that were read; none in recorded settings.
    #[serde(skip)]
    pub files: Vec<InputFile>,
}

impl Settings {
    /// Whether computing and links of all devices are declared.
    pub fn has_emulated_fleet(&self) -> bool {
        self.device.parts.iter().all(|part| part.profile.is_declared() && part.link.emulated)
    }

    /// What the times of a live run follow whose pool is emulated or not. Faults, and devices that come, go or start when
    /// somebody wants something, are timed by the host.
    pub fn clock(&self, emulated_pool: bool) -> RunClock {
        let by_trace = self.device.parts.iter().any(|part| part.link.follows_clock());
        let closed = matches!(self.load, Load::Closed { think } if think == Span::ZERO);
        let undisturbed = closed && self.churn == Churn::NONE && self.faults.is_empty();
        if emulated_pool && undisturbed && self.has_emulated_fleet() && !by_trace {
            RunClock::Emulated
        } else {
            RunClock::Host
        }
    }

    /// Reads and checks everything.
    pub(crate) fn read(root: &Section<'_>) -> Result<Settings, ConfigError> {
        let run_section = root.section("run")?;
        let fleet = root.section("fleet")?;
        let mut faults = faults(&root.section("faults")?)?;
        faults.sort();
        let run = RunSection::read(&run_section)?;
        let methods = methods::read(root, &run_section)?;
        let (workload, data_sets) = work::read(&run_section)?;
        let device = DeviceOptions::read(&root.section("device")?, &fleet, &data_sets)?;
        check_answered(&run_section, &fleet, &run, &device, &workload)?;
        let pool = PoolSection::read(&root.section("pool")?, &root.section("simulate")?)?;
        pool.check_verifiers(&run_section, run.verifiers)?;
        let simulate = SimulateSection::read(&root.section("simulate")?, &pool)?;
        let model = ModelOptions::read(&root.section("model")?, &pool)?;
        let (load, recorded_lengths) = load::read(&root.section("load")?)?;
        Ok(Settings {
            model,
            load,
            recorded_lengths,
            churn: load::churn(&root.section("churn")?)?,
            calibration: CalibrationOptions::read(&root.section("calibration")?)?,
            audit: root.section("audit")?.opt_flag("enabled")?.unwrap_or(true),
            faults,
            thresholds: thresholds::read(&root.section("thresholds")?, &methods)?,
            simulate,
            run,
            methods,
            workload,
            device,
            pool,
            files: Vec::new(),
        })
    }

    /// The settings of one pass over all methods.
    pub fn of_pass(&self, pass: u16) -> Settings {
        let mut settings = self.clone();
        settings.run.seed = self.run.seed_of(pass);
        settings
    }

    /// KV memory of each verifier beside weights of this size, in bytes: what the scenario gives it, as far as the memory in
    /// the pool's profile holds that; 0 if the weights leave none.
    pub fn verifier_kv_bytes(&self, weight_bytes: f64) -> u64 {
        let given = u64::from(self.model.verifier_kv_mebibytes) << 20;
        self.pool.memory.map_or(given, |memory| given.min(memory.for_kv(weight_bytes).unwrap_or(0)))
    }

    /// The settings as TOML with sorted keys and engine units (nanoseconds, nanojoules): equal settings, equal text.
    pub fn to_canonical_toml(&self) -> String {
        // A table of TOML sorts its keys; what the settings hold is strings, booleans, finite floats and integers that
        // were bounded by i64 when they were read.
        let table = toml::Table::try_from(self).expect("validated settings are representable in TOML");
        table.to_string()
    }

    /// Reads what [`Settings::to_canonical_toml`] wrote. The prompts of data sets that ship are loaded again, if they
    /// are what they were; those of other files are for [`WorkloadPart::reopen`], because their paths are not part of the text.
    /// The contents of calibration files and the PEM files are left out.
    pub fn from_canonical_toml(text: &str) -> Result<Settings, ConfigError> {
        let mut settings: Settings = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            origin: "recorded settings".to_owned(),
            line: 1,
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        for part in settings.workload.iter_mut().chain([&mut settings.calibration.workload]) {
            part.reload();
        }
        Ok(settings)
    }

    /// The canonical text with folders of models and runs as absolute paths: what a run keeps of its settings, to be read
    /// anywhere.
    pub fn to_recorded_toml(&self) -> String {
        self.with_folders(absolute).to_canonical_toml()
    }

    /// SHA-256 of the canonical text, in hex. A folder counts with its own name alone, so that the hash stays the same where
    /// the files have moved; what is in a folder of a model is told by the digests that a run stores.
    pub fn scenario_hash(&self) -> String {
        let named = self.with_folders(|folder| folder.file_name().map_or_else(|| folder.to_owned(), PathBuf::from));
        sha256_hex(named.to_canonical_toml().as_bytes())
    }

    /// These settings with each folder of a model or a run written in another way.
    fn with_folders(&self, written: fn(&Path) -> PathBuf) -> Settings {
        let mut settings = self.clone();
        for model in [&mut settings.model.drafter, &mut settings.model.verifier] {
            if let ModelChoice::Folder(folder) = model {
                *folder = written(folder);
            }
        }
        if let Fidelity::Trace { run: RunPlace::Folder(folder) } = &mut settings.simulate.fidelity {
            *folder = written(folder);
        }
        settings
    }

    /// Requests of each method that the workload asks for.
    pub fn requests(&self) -> u64 {
        self.workload.iter().map(|part| u64::from(part.requests())).sum()
    }
}

/// Refuses a data set that no device answers.
fn check_answered(
    run_section: &Section<'_>,
    fleet_section: &Section<'_>,
    run: &RunSection,
    device: &DeviceOptions,
    workload: &[WorkloadPart],
) -> Result<(), ConfigError> {
    let sets = workload.iter().map(|part| (part.data_set.as_str(), part.prompts));
    Assignment::new(device, run.devices, sets).map(drop).map_err(|Unanswered { data_set, in_pattern }| {
        if in_pattern {
            run_section.conflict("devices", format!("{} leaves no device that answers {data_set:?}", run.devices))
        } else {
            fleet_section.conflict_here(format!(
                "no device answers {data_set:?}: leave data out of one part, or give a part data = {data_set:?}"
            ))
        }
    })
}

fn faults(section: &Section<'_>) -> Result<Vec<Fault>, ConfigError> {
    section
        .opt_texts("inject")?
        .unwrap_or_default()
        .iter()
        .map(|text| text.parse().map_err(|_| section.unknown_name("inject", text, crate::fault::FORM.to_owned())))
        .collect()
}
