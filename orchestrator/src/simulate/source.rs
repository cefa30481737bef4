//! What a simulation is answered by: the loaded pair, a recorded run, or the distributions of a calibration; and what the
//! batches of its pool take.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use specfleet_config::{CALIBRATIONS, CostChoice, Fidelity, ModelOptions, RunPlace, Settings, WorkloadPart, short};
use specfleet_engine::calibration::Calibration;
use specfleet_engine::cost::BatchCost;
use specfleet_engine::method::Method;
use specfleet_engine::record::{AuditRecord, GenerationRecord};
use specfleet_ledger::{Meta, RunReader};
use specfleet_model::Tokenizer;
use specfleet_simulator::{Host, Timing};

use super::lengths::Lengths;
use super::trace::Recorded;
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
use crate::work::Work;

/// See the module's documentation.
pub struct Source {
    /// The models; absent where the scenario declares an emulated pair.
    pub pair: Option<Pair>,
    /// The prompts as tokens; absent for fitted answers, which need no text.
    pub work: Option<Arc<Work>>,
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
    /// The calibration that distributions are taken from.
    pub calibration: Option<Calibration>,
    /// How long fitted prompts and answers are; absent where models or a recorded run answer.
    pub lengths: Option<Lengths>,
    /// A recorded run's generations by method, and its audits.
    pub trace: Option<Trace>,
}

/// A recorded run.
pub struct Trace {
    /// By method, then prompt, repetition and pass.
    pub generations: Vec<BTreeMap<(u32, u16, u16), Recorded>>,
    /// All of them.
    pub audits: Vec<AuditRecord>,
}

impl Source {
    /// Loads whatever the scenario's fidelity and cost need. `runs`: the ledger's folder.
    ///
    /// Prompts that are too long and to be skipped are taken out of the settings. `methods`: the run's own, where a recorded run is repeated, so that no threshold moves with the calibration.
    pub fn open(
        settings: &mut Settings,
        methods: Option<&[Method]>,
        runs: &Path,
        progress: &Progress,
    ) -> Result<Source, Error> {
        precheck::virtual_time(settings)?;
        if settings.pool.cost == CostChoice::Measured {
            return Err(Error::Simulation(
                "pool.cost = \"measured\": a simulation has no verifiers to measure; choose calibrated, roofline or fixed"
                    .to_owned(),
            ));
        }
        let simulate = &settings.simulate;
        let reader = match &simulate.fidelity {
            Fidelity::Trace { run } => Some(recorded(settings, runs, run)?),
            Fidelity::Model | Fidelity::Fitted => None,
        };
        let fitted = simulate.fidelity == Fidelity::Fitted;
        let emulated = Sizes::emulated(settings);
        if emulated.is_some() && !fitted {
            return Err(Error::Simulation(
                "pool.cost = \"roofline\" declares an emulated pair, whose answers nobody knows: it needs \
                 simulate.fidelity = \"fitted\""
                    .to_owned(),
            ));
        }
        let pair = if emulated.is_some() { None } else { Some(Pair::load(&settings.model)?) };
        let too_long = settle(settings, pair.as_ref(), emulated.as_ref())?;
        let settings = &*settings;
        let simulate = &settings.simulate;
        let work = match &pair {
            Some(pair) if !fitted => Some(Arc::new(Work::new(settings, pair)?)),
            _ => None,
        };
        let data_sets = data_sets(settings);
        let mut resolved = match &pair {
            Some(pair) => {
                let announce = |text: &str| progress.say(text);
                Calibrations::new(settings, pair, runs, &announce).resolve()?
            }
            None => resolve_emulated(settings)?,
        };
        if let Some(methods) = methods {
            resolved.methods.clone_from_slice(methods);
        }
        let calibration = match &pair {
            Some(pair) => Calibrations::new(settings, pair, runs, &|text| progress.say(text)).of_run(&resolved)?,
            None => emulated_calibration(settings)?,
        };
        let missing = |what: &str| {
            let advice = format!(
                "no {what}: fit one with `specfleet calibrate RUN` on a live run and name its file with calibration.file"
            );
            match &settings.calibration.file {
                Some(file) => Error::Calibration { path: file.path.clone(), why: format!("it has {advice}") },
                None => Error::Simulation(format!("the calibration has {advice}")),
            }
        };
        let fitted_cost = || {
            let own = calibration.batch_cost.clone().map(BatchCost::Measured);
            own.or_else(|| pair.as_ref().and_then(|pair| pool_cost::calibrated(settings, pair, &resolved)))
        };
        let cost = match settings.pool.cost.declared() {
            Some(cost) => cost,
            None => fitted_cost().ok_or_else(|| missing("batch cost"))?,
        };
        let timing = |method: &Method| {
            let host = match (simulate.host, calibration.host_of(&method.name)) {
                (false, _) => Host::ideal(),
                (true, Some(host)) => Host::measured(host),
                (true, None) => return Err(missing("host overheads (or set simulate.host = false)")),
            };
            let cost = if simulate.host { cost.of_method(&method.name) } else { cost.ideal() };
            Ok(Timing { cost, host })
        };
        let timings = resolved.methods.iter().map(timing).collect::<Result<_, Error>>()?;
        let trace = reader.map(|reader| open_trace(settings, &reader, &resolved)).transpose()?;
        let sizes = match (&pair, emulated) {
            (_, Some(sizes)) => sizes,
            (Some(pair), None) => Sizes::of_pair(settings, pair),
            (None, None) => unreachable!("a pair is loaded unless one is emulated"),
        };
        let lengths = match (&calibration.distributions, fitted) {
            (Some(distributions), true) => Some(Lengths::new(settings, pair.as_ref(), sizes.context, distributions)?),
            (None, true) => return Err(missing("distributions")),
            (_, false) => None,
        };
        let calibration = Some(calibration);
        Ok(Source { too_long, pair, work, data_sets, resolved, sizes, cost, timings, calibration, lengths, trace })
    }

    /// Tokens of a prompt, in the mean over the requests.
    pub fn mean_prompt_tokens(&self) -> f64 {
        let mean = |tokens: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = tokens.fold((0.0, 0.0), |(sum, count), tokens| (sum + tokens, count + 1.0));
            if count > 0.0 { sum / count } else { 0.0 }
        };
        match (&self.lengths, &self.work, &self.trace) {
            (Some(lengths), ..) => lengths.mean_prompt,
            (_, Some(work), _) => mean(&mut work.jobs.iter().map(|job| job.tokens.len() as f64)),
            (.., Some(trace)) => {
                let recorded = trace.generations.iter().flat_map(BTreeMap::values);
                mean(&mut recorded.map(|recorded| f64::from(recorded.prompt_tokens)))
            }
            _ => 0.0,
        }
    }
}

/// Deals with prompts that are too long for the pair, or for the declared one, whose tokens nobody can count but the embedded
/// tokenizer.
fn settle(settings: &mut Settings, pair: Option<&Pair>, emulated: Option<&Sizes>) -> Result<Option<String>, Error> {
    // Fitted answers to requests of recorded lengths take no text from the workload.
    let lengths = settings.recorded_lengths.as_ref().and_then(|lengths| lengths.prompt_tokens.as_ref());
    if lengths.is_some() && settings.simulate.fidelity == Fidelity::Fitted {
        return Ok(None);
    }
    match (pair, emulated) {
        (Some(pair), _) => prompts::settle(settings, &pair.tokenizer, pair.context()),
        (None, Some(sizes)) => prompts::settle(settings, &Tokenizer::embedded()?, sizes.context as usize),
        (None, None) => Ok(None),
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
fn recorded(settings: &Settings, runs: &Path, place: &RunPlace) -> Result<RunReader, Error> {
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

/// Reads a recorded run, which must have made the same generations under the same methods.
fn open_trace(settings: &Settings, reader: &RunReader, resolved: &Resolved) -> Result<Trace, Error> {
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
        let mut by_prompt = BTreeMap::new();
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
    let names: Vec<&String> = meta.methods.iter().map(|method| &method.name).collect();
    let mut audits = Vec::new();
    for audit in reader.audits() {
        let mut audit = audit?;
        let name = names.get(usize::from(audit.id.method));
        // Numbered by this run's list.
        if let Some(index) = resolved.methods.iter().position(|method| name == Some(&&method.name)) {
            audit.id.method = index as u16;
            audits.push(audit);
        }
    }
    Ok(Trace { generations, audits })
}
