//! A run in virtual time: the same scenario, methods, records, ledger and summary as a live run.

mod input;
mod lengths;
mod model;
mod observer;
mod phase;
mod sinks;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use specfleet_analysis::{StreamSummary, Summary};
use specfleet_config::{Fidelity, Settings};
use specfleet_engine::record::RunClock;
use specfleet_ledger::{Meta, RunKind, RunState, RunWriter};

pub use self::input::{FittedAnswers, SimulatedAnswers, SimulationInput, run_folder};
use self::phase::Phases;
use crate::error::Error;
use crate::pair::Pair;
use crate::paired::Comparison;
use crate::pool_cost;
use crate::precheck;
use crate::progress::Progress;
use crate::results;
use crate::run_meta::meta_of_run;

/// What a simulation needs beyond its scenario.
#[derive(Clone)]
pub struct SimulateOptions<'a> {
    /// The scenario, validated, and fit for a simulation.
    pub settings: &'a Settings,
    /// Its text, for repeating the run.
    pub scenario: String,
    /// Folder of all runs; `None` keeps no run, only its figures.
    pub ledger: Option<&'a Path>,
    /// Where result files go, if anywhere.
    pub out: Option<&'a Path>,
    /// Which of several simulations of the same: what the host adds and how much longer batches take than fitted is drawn
    /// anew in each, everything else is equal.
    pub turn: u16,
    /// Threads; results do not depend on them.
    pub threads: usize,
    /// What the user sees meanwhile.
    pub progress: &'a Progress,
    /// Set from outside to end the simulation early.
    pub interrupted: &'a AtomicBool,
}

/// What a simulation left.
#[derive(Debug)]
pub struct Simulated {
    pub summary: Summary,
    /// `ui-hlm` against the others, where texts were at hand.
    pub comparisons: Vec<Comparison>,
    /// The run's folder in the ledger, if it was kept.
    pub folder: Option<PathBuf>,
    /// Lines a reader of the figures should see.
    pub notes: Vec<String>,
    /// The failed threshold that ended it early, if one did.
    pub aborted: Option<String>,
    pub virtual_seconds: f64,
    /// Seconds that it took.
    pub wall_seconds: f64,
    pub tokens: u64,
    pub events: u64,
}

/// Runs the scenario in virtual time, answered by `input`, which was opened for it.
pub fn simulate(input: &SimulationInput, options: SimulateOptions<'_>) -> Result<Simulated, Error> {
    let began = Instant::now();
    let SimulateOptions { settings, ledger, out, .. } = options;
    if let Some(ledger) = ledger {
        precheck::folders(ledger, out)?;
    }
    let meta = meta(input, &options);
    let empty = StreamSummary::new(results::header(&meta), &meta.methods, &meta.data_sets);
    let writer = ledger.map(|ledger| RunWriter::create(ledger, meta.clone())).transpose()?;
    let mut phases = Phases::new(input, &options, empty, writer);
    let outcome = phases.run_all();
    let wall_seconds = began.elapsed().as_secs_f64();
    let ended = phases.close(outcome, wall_seconds)?;

    // Texts, and with them exact figures, are at hand where every row was kept.
    let exact = ended.folder.as_deref().zip(input.texts()).filter(|_| settings.simulate.keep_every == 1);
    let mut notes: Vec<String> = input.too_long.iter().chain(&input.resolved.warnings).cloned().collect();
    notes.extend(input.lengths().map(ToString::to_string));
    let (mut summary, comparisons) = match exact {
        Some((folder, (pair, work))) => results::results(folder, work, &pair.tokenizer, &ended.problems, out)?,
        None => {
            let mut stream = ended.stream;
            ended.problems.iter().for_each(|problem| stream.problem(problem.clone()));
            let mut summary = stream.finish();
            summary.faults_injected = ended.faults;
            if let Some(out) = out {
                results::streamed(out, &summary, &meta, wall_seconds)?;
            }
            let kept = settings.simulate.keep_every;
            if kept > 1 && ended.folder.is_some() {
                notes.push(format!(
                    "the ledger holds every {kept}th device whole; the figures are of all devices, percentiles from \
                     sketches with a relative error of 1 %"
                ));
            }
            (summary, Vec::new())
        }
    };
    notes.extend(not_asked(settings, &summary));
    summary.run.clone_from(&meta.run);
    Ok(Simulated {
        summary,
        comparisons,
        folder: ended.folder,
        notes,
        aborted: ended.aborted,
        virtual_seconds: ended.end.0 as f64 * 1e-9,
        wall_seconds,
        tokens: ended.tokens,
        events: ended.events,
    })
}

/// What is known of the run before it begins.
fn meta(input: &SimulationInput, options: &SimulateOptions<'_>) -> Meta {
    let settings = options.settings;
    let mut meta = meta_of_run(settings, options.scenario.clone(), &input.resolved, &input.data_sets);
    meta.versions.extend(input.pair().into_iter().flat_map(Pair::versions));
    meta.inputs.digests.extend(input.pair().into_iter().flat_map(|pair| pair.digests.iter().cloned()));
    meta.kind = RunKind::Simulated {
        fidelity: fidelity(settings).to_owned(),
        cost: pool_cost::name(Some(&input.cost)).to_owned(),
        keep_every: settings.simulate.keep_every,
    };
    meta.pool_cost = pool_cost::name(Some(&input.cost)).to_owned();
    meta.clock = RunClock::Emulated;
    meta
}

/// A note where the run is over before every prompt was asked for: its figures are of fewer requests than the scenario
/// names.
pub fn not_asked(settings: &Settings, summary: &Summary) -> Option<String> {
    let planned = (settings.methods.len() * settings.tasks().count()) as u64;
    let asked = summary.generations;
    (asked < planned).then(|| {
        format!("{asked} of {planned} requests were made: arrivals ended, or devices left, before the others came up")
    })
}

/// As scenarios write it.
pub fn fidelity(settings: &Settings) -> &'static str {
    match settings.simulate.fidelity {
        Fidelity::Model => "model",
        Fidelity::Trace { .. } => "trace",
        Fidelity::Fitted => "fitted",
    }
}

/// A run that was broken off is kept, and says so.
fn state(outcome: &Result<(), Error>, why: Option<String>) -> RunState {
    match outcome {
        Ok(()) => why.map_or(RunState::Completed, |reason| RunState::Failed { reason }),
        Err(Error::Interrupted(_)) => RunState::Interrupted,
        Err(error) => RunState::Failed { reason: error.to_string() },
    }
}
