//! What a simulation is answered by: the loaded pair, a recorded run, or the distributions of a calibration; and what the
//! batches of its pool take.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use specfleet_config::{CALIBRATIONS, CostChoice, Fidelity, ModelOptions, RunPlace, Settings, WorkloadPart, short};
use specfleet_engine::calibration::{Calibration, Distributions};
use specfleet_engine::cost::BatchCost;
use specfleet_engine::method::Method;
use specfleet_engine::record::{AuditRecord, GenerationRecord};
use specfleet_ledger::{Meta, RunReader};
use specfleet_model::Tokenizer;
use specfleet_simulator::{Host, Timing};

use super::lengths::Lengths;
use super::trace::{Recorded, RecordedGenerations};
use crate::error::Error;
use crate::methods::{Calibrations, Resolved};
use crate::pair::{self, Pair};
use crate::place::find;
use crate::pool_cost;
use crate::precheck;
use crate::progress::Progress;
use crate::prompts;
use crate::sizes::Sizes;
use crate::stored::inputs::{self, StoredInputs};
use crate::work::WorkPlan;

/// What a simulation is answered by, and what it charges.
pub struct SimulationInput {
    /// Who answers, with everything that this takes.
    pub answers: SimulatedAnswers,
    /// What there is to say about prompts that are too long.
    pub too_long: Option<String>,
    /// Names of the data sets.
    pub data_sets: Vec<String>,
    /// The methods, every threshold a number.
    pub resolved: Resolved,
    /// What machines know of the pair.
    pub sizes: Sizes,
    /// What batches are charged.
    pub cost: BatchCost,
    /// What batches take on the host that is simulated, and what it adds, by method.
    pub timings: Vec<Timing>,
}

/// Who answers, by the scenario's fidelity.
pub enum SimulatedAnswers {
    /// The loaded models write the texts.
    Model {
        pair: Pair,
        /// The prompts as tokens.
        work: Arc<WorkPlan>,
    },
    /// A recorded run is read again.
    Trace {
        /// The models that it was recorded with.
        pair: Pair,
        /// The prompts as tokens.
        work: Arc<WorkPlan>,
        /// Its generations by method.
        generations: Vec<RecordedGenerations>,
        audits: Vec<AuditRecord>,
    },
    /// Answers are drawn from the distributions of a calibration, without any text.
    Fitted(Box<FittedAnswers>),
}

/// What fitted answers are drawn from.
pub struct FittedAnswers {
    /// The models; absent where the scenario declares an emulated pair.
    pub pair: Option<Pair>,
    pub distributions: Distributions,
    /// How long prompts and answers are.
    pub lengths: Lengths,
}

impl SimulationInput {
    /// Loads whatever the scenario's fidelity and cost need. `runs`: the ledger's folder.
    ///
    /// Prompts that are too long and to be skipped are taken out of the settings. `methods`: the run's own, where a recorded
    /// run is repeated, so that no threshold moves with the calibration.
    pub fn open(
        settings: &mut Settings,
        methods: Option<&[Method]>,
        runs: &Path,
        progress: &Progress,
    ) -> Result<SimulationInput, Error> {
        precheck::virtual_time(settings)?;
        if settings.pool.cost == CostChoice::Measured {
            return Err(Error::Simulation(
                "pool.cost = \"measured\": a simulation has no verifiers to measure; choose calibrated, roofline or fixed"
                    .to_owned(),
            ));
        }
        let opening = Opening { methods, runs, progress };
        match &settings.simulate.fidelity {
            Fidelity::Model => opening.open_texts(settings, None),
            Fidelity::Trace { run } => {
                let reader = open_recorded_run(settings, runs, run)?;
                opening.open_texts(settings, Some(&reader))
            }
            Fidelity::Fitted => opening.open_fitted(settings),
        }
    }

    /// The models; absent where the scenario declares an emulated pair.
    pub fn pair(&self) -> Option<&Pair> {
        match &self.answers {
            SimulatedAnswers::Model { pair, .. } | SimulatedAnswers::Trace { pair, .. } => Some(pair),
            SimulatedAnswers::Fitted(fitted) => fitted.pair.as_ref(),
        }
    }

    /// The models with the prompts as tokens; absent for fitted answers, which have no text.
    pub fn texts(&self) -> Option<(&Pair, &Arc<WorkPlan>)> {
        match &self.answers {
            SimulatedAnswers::Model { pair, work } | SimulatedAnswers::Trace { pair, work, .. } => Some((pair, work)),
            SimulatedAnswers::Fitted(_) => None,
        }
    }

    /// How long fitted prompts and answers are; absent where models or a recorded run answer.
    pub fn lengths(&self) -> Option<&Lengths> {
        match &self.answers {
            SimulatedAnswers::Model { .. } | SimulatedAnswers::Trace { .. } => None,
            SimulatedAnswers::Fitted(fitted) => Some(&fitted.lengths),
        }
    }

    /// Tokens of a prompt, in the mean over the requests.
    pub fn mean_prompt_tokens(&self) -> f64 {
        match &self.answers {
            SimulatedAnswers::Model { work, .. } | SimulatedAnswers::Trace { work, .. } => {
                let tokens: usize = work.jobs.iter().map(|job| job.tokens.len()).sum();
                tokens as f64 / work.jobs.len().max(1) as f64
            }
            SimulatedAnswers::Fitted(fitted) => fitted.lengths.mean_prompt,
        }
    }
}

/// What opening an input needs beside the scenario.
struct Opening<'a> {
    methods: Option<&'a [Method]>,
    runs: &'a Path,
    progress: &'a Progress,
}

/// What a simulation takes from a calibration, whoever answers.
struct CalibratedParts {
    resolved: Resolved,
    calibration: Calibration,
    cost: BatchCost,
    timings: Vec<Timing>,
}

impl CalibratedParts {
    fn into_input(
        self,
        answers: SimulatedAnswers,
        settings: &Settings,
        sizes: Sizes,
        too_long: Option<String>,
    ) -> SimulationInput {
        let CalibratedParts { resolved, cost, timings, .. } = self;
        SimulationInput { answers, too_long, data_sets: data_sets(settings), resolved, sizes, cost, timings }
    }
}

impl Opening<'_> {
    /// The models write the texts, or the recorded run in `reader` has them.
    fn open_texts(&self, settings: &mut Settings, reader: Option<&RunReader>) -> Result<SimulationInput, Error> {
        if Sizes::emulated(settings).is_some() {
            return Err(Error::Simulation(
                "pool.cost = \"roofline\" declares an emulated pair, whose answers nobody knows: it needs \
                 simulate.fidelity = \"fitted\""
                    .to_owned(),
            ));
        }
        let pair = Pair::load(&settings.model)?;
        let too_long = prompts::settle(settings, &pair.tokenizer, pair.context())?;
        let settings = &*settings;
        let work = Arc::new(WorkPlan::new(settings, &pair)?);
        let parts = self.calibrate(settings, Some(&pair))?;
        let sizes = Sizes::of_pair(settings, &pair);
        let answers = match reader {
            None => SimulatedAnswers::Model { pair, work },
            Some(reader) => {
                let generations = read_generations(settings, reader, &parts.resolved)?;
                let audits = read_audits(reader, &parts.resolved)?;
                SimulatedAnswers::Trace { pair, work, generations, audits }
            }
        };
        Ok(parts.into_input(answers, settings, sizes, too_long))
    }

    /// Answers are drawn from what a calibration says of the loaded or of the declared pair.
    fn open_fitted(&self, settings: &mut Settings) -> Result<SimulationInput, Error> {
        let (pair, sizes) = match Sizes::emulated(settings) {
            Some(sizes) => (None, sizes),
            None => {
                let pair = Pair::load(&settings.model)?;
                let sizes = Sizes::of_pair(settings, &pair);
                (Some(pair), sizes)
            }
        };
        let too_long = settle_fitted(settings, pair.as_ref(), &sizes)?;
        let settings = &*settings;
        let mut parts = self.calibrate(settings, pair.as_ref())?;
        let distributions =
            parts.calibration.distributions.take().ok_or_else(|| missing_fit(settings, "distributions"))?;
        let lengths = Lengths::new(settings, pair.as_ref(), sizes.context, &distributions)?;
        let answers = SimulatedAnswers::Fitted(Box::new(FittedAnswers { pair, distributions, lengths }));
        Ok(parts.into_input(answers, settings, sizes, too_long))
    }

    /// Resolves the methods and takes from their calibration what batches and the host take. `pair`: absent where one is
    /// declared.
    fn calibrate(&self, settings: &Settings, pair: Option<&Pair>) -> Result<CalibratedParts, Error> {
        let announce = |text: &str| self.progress.say(text);
        let calibrations = pair.map(|pair| Calibrations::new(settings, pair, self.runs, &announce));
        let mut resolved = match &calibrations {
            Some(calibrations) => calibrations.resolve()?,
            None => resolve_emulated(settings)?,
        };
        if let Some(methods) = self.methods {
            resolved.methods.clone_from_slice(methods);
        }
        let calibration = match &calibrations {
            Some(calibrations) => calibrations.of_run(&resolved)?,
            None => emulated_calibration(settings)?,
        };
        let fitted_cost = || {
            let own = calibration.batch_cost.clone().map(BatchCost::Measured);
            own.or_else(|| pair.and_then(|pair| pool_cost::calibrated(settings, pair, &resolved)))
        };
        let cost = match settings.pool.cost.declared() {
            Some(cost) => cost,
            None => fitted_cost().ok_or_else(|| missing_fit(settings, "batch cost"))?,
        };
        let with_host = settings.simulate.host;
        let timing = |method: &Method| {
            let host = match (with_host, calibration.host_of(&method.name)) {
                (false, _) => Host::ideal(),
                (true, Some(host)) => Host::measured(host),
                (true, None) => {
                    return Err(missing_fit(settings, "host overheads (or set simulate.host = false)"));
                }
            };
            let cost = if with_host { cost.of_method(&method.name) } else { cost.ideal() };
            Ok(Timing { cost, host })
        };
        let timings = resolved.methods.iter().map(timing).collect::<Result<_, Error>>()?;
        Ok(CalibratedParts { resolved, calibration, cost, timings })
    }
}

/// The calibration lacks what the scenario asks it for.
fn missing_fit(settings: &Settings, what: &str) -> Error {
    let advice = format!(
        "no {what}: fit one with `specfleet calibrate RUN` on a live run and name its file with calibration.file"
    );
    match &settings.calibration.file {
        Some(file) => Error::Calibration { path: file.path.clone(), why: format!("it has {advice}") },
        None => Error::Simulation(format!("the calibration has {advice}")),
    }
}

/// Deals with prompts that are too long for the pair, or for the declared one, whose tokens nobody can count but the embedded
/// tokenizer.
fn settle_fitted(settings: &mut Settings, pair: Option<&Pair>, sizes: &Sizes) -> Result<Option<String>, Error> {
    // Fitted answers to requests of recorded lengths take no text from the workload.
    if settings.recorded_lengths.as_ref().is_some_and(|lengths| lengths.prompt_tokens.is_some()) {
        return Ok(None);
    }
    match pair {
        Some(pair) => prompts::settle(settings, &pair.tokenizer, pair.context()),
        None => prompts::settle(settings, &Tokenizer::embedded()?, sizes.context as usize),
    }
}

fn data_sets(settings: &Settings) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in &settings.workload {
        if !names.contains(&part.data_set) {
            names.push(part.data_set.clone());
        }
    }
    names
}

/// The methods of an emulated pair: it behaves as the calibration says, whichever pair that was made on.
fn resolve_emulated(settings: &Settings) -> Result<Resolved, Error> {
    let calibration = emulated_calibration(settings)?;
    let methods = settings
        .methods
        .iter()
        .map(|choice| calibration.resolve(&choice.name, &choice.overrides))
        .collect::<Result<Vec<Method>, _>>()?;
    let warnings = vec![format!(
        "modelled: uncertainty and acceptance are those of the calibration's pair ({} samples), times those of the declared \
         profiles",
        calibration.samples
    )];
    Ok(Resolved { methods, calibrations: vec![calibration], warnings })
}

/// The scenario's file, or what ships for its temperature.
fn emulated_calibration(settings: &Settings) -> Result<Calibration, Error> {
    if let Some(file) = &settings.calibration.file {
        let wrong = |why: String| Error::Calibration { path: file.path.clone(), why };
        return serde_json::from_str(&file.text).map_err(|error| wrong(error.to_string()));
    }
    let greedy = settings.run.sampling.is_greedy();
    let shipped = CALIBRATIONS.iter().filter_map(|text| serde_json::from_str::<Calibration>(text).ok());
    shipped.into_iter().find(|calibration| calibration.key.sampling.is_greedy() == greedy).ok_or_else(|| {
        Error::Simulation("no calibration ships for this temperature: name a calibration.file".to_owned())
    })
}

/// The folder of a run that is named or placed.
pub fn run_folder(runs: &Path, place: &RunPlace) -> Result<PathBuf, Error> {
    match place {
        RunPlace::Name(name) => find(runs, Path::new(name)),
        RunPlace::Folder(folder) => Ok(folder.clone()),
    }
}

/// A recorded run is of another scenario.
fn another(meta: &Meta, what: &str) -> Error {
    Error::Simulation(format!(
        "simulate.trace: run {} has another {what} than this scenario, so its answers are not those that it asks for",
        meta.run
    ))
}

/// Opens a recorded run, which must be of the same seed, sampling, workload and models.
fn open_recorded_run(settings: &Settings, runs: &Path, place: &RunPlace) -> Result<RunReader, Error> {
    let reader = RunReader::open(&run_folder(runs, place)?)?;
    let meta = reader.meta();
    let recorded = StoredInputs::of(meta).settings?;
    let wrong = |what: &str| another(meta, what);
    if recorded.run.seed != settings.run.seed {
        return Err(wrong("seed"));
    }
    if recorded.run.seeds != settings.run.seeds {
        return Err(wrong("number of seeds"));
    }
    if recorded.run.sampling != settings.run.sampling || recorded.run.max_new_tokens != settings.run.max_new_tokens {
        return Err(wrong("sampling or max_new_tokens"));
    }
    let prompts = |part: &WorkloadPart| (part.data_set.clone(), part.sha256.clone(), part.prompts, part.first_id);
    let prompts = |settings: &Settings| settings.workload.iter().map(prompts).collect::<Vec<_>>();
    if prompts(&recorded) != prompts(settings) {
        return Err(wrong("workload"));
    }
    let precisions = |model: &ModelOptions| (model.drafter_precision, model.verifier_precision);
    if precisions(&recorded.model) != precisions(&settings.model) {
        return Err(wrong("precision of its models"));
    }
    let now = pair::digests(&settings.model)?;
    if let Some((then, now)) = inputs::differing_models(&meta.inputs.digests, &now) {
        return Err(wrong(&format!("{} (SHA-256 {}, here {})", then.of, short(&then.sha256), short(&now.sha256))));
    }
    let names = |model: &ModelOptions| (model.drafter.clone(), model.verifier.clone());
    if meta.inputs.digests.is_empty() && names(&recorded.model) != names(&settings.model) {
        return Err(wrong("pair"));
    }
    Ok(reader)
}

/// The recorded generations of each method, which must be those that are asked for, under the same methods.
fn read_generations(
    settings: &Settings,
    reader: &RunReader,
    resolved: &Resolved,
) -> Result<Vec<RecordedGenerations>, Error> {
    let meta = reader.meta();
    let wrong = |what: &str| another(meta, what);
    // The recorded numbers are the ones that were decided with.
    let mut generations = Vec::new();
    for method in &resolved.methods {
        let place = meta.methods.iter().position(|known| known.name == method.name);
        let place = place.ok_or_else(|| wrong(&format!("list of methods ({} is missing)", method.name)))?;
        if meta.methods[place] != *method {
            return Err(wrong(&format!("setting of {}", method.name)));
        }
        let place = place as u16;
        let mut by_prompt = RecordedGenerations::new();
        for record in reader.generations() {
            let record: GenerationRecord = record?;
            // Passes beyond these repeat them.
            let asked = record.id.method == place && record.id.pass < settings.run.passes();
            if asked && !record.tokens.is_empty() {
                let rounds = reader.rounds(record.id)?;
                by_prompt.insert(
                    (record.id.prompt, record.id.repetition, record.id.pass),
                    Recorded { prompt_tokens: record.prompt_tokens, rounds },
                );
            }
        }
        let passes = 0..settings.run.passes();
        for (task, pass) in settings.tasks().flat_map(|task| passes.clone().map(move |pass| (task, pass))) {
            if !by_prompt.contains_key(&(task.prompt_id, task.repetition, pass)) {
                return Err(wrong(&format!(
                    "set of finished generations ({} of prompt {})",
                    method.name, task.prompt_id
                )));
            }
        }
        generations.push(by_prompt);
    }
    Ok(generations)
}

/// The recorded audits of the methods that are simulated, numbered by this run's list.
fn read_audits(reader: &RunReader, resolved: &Resolved) -> Result<Vec<AuditRecord>, Error> {
    let names: Vec<&String> = reader.meta().methods.iter().map(|method| &method.name).collect();
    let mut audits = Vec::new();
    for audit in reader.audits() {
        let mut audit = audit?;
        let name = names.get(usize::from(audit.id.method));
        if let Some(index) = resolved.methods.iter().position(|method| name == Some(&&method.name)) {
            audit.id.method = index as u16;
            audits.push(audit);
        }
    }
    Ok(audits)
}
