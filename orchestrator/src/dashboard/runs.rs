//! The list of runs, and what their plain files say about one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use specfleet_engine::disturbance;
use specfleet_engine::names::{did_you_mean, nearest};
use specfleet_ledger::{ListedState, Live, Machine, Meta, RunListing, list};

use super::name::RunName;
use super::refusal::PageRefusal;

/// How long a listing counts as fresh.
const FRESH: Duration = Duration::from_secs(1);

/// A listing that took long counts as fresh for this many times as long: looking may take a twentieth of the time.
const FRESH_FACTOR: u32 = 20;

/// Most runs of one answer.
const MOST: usize = 500;

/// Most bytes of the text that is looked for, and most words in it: each is compared with every name of every run.
const LONGEST_TEXT: usize = 1_024;
const MOST_WORDS: usize = 32;

/// The runs of a ledger folder, as they were a moment ago.
pub(super) struct Runs {
    ledger: PathBuf,
    cached: Mutex<Option<CachedListing>>,
}

struct CachedListing {
    at: Instant,
    took: Duration,
    runs: Arc<Vec<RunListing>>,
    revision: u64,
}

/// Which runs are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Filter {
    /// Part of a name, state, kind, method or tag; several words must all be found.
    text: String,
    /// A state; empty for any.
    state: String,
    /// Matching runs to leave out, newest first.
    offset: usize,
    /// Most runs to answer with.
    limit: Option<usize>,
}

/// Runs that match, newest first.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    ledger: String,
    /// Runs in the ledger.
    total: usize,
    /// Of them, those that match.
    matched: usize,
    offset: usize,
    runs: Vec<ListedRun>,
}

/// A run of the list.
#[derive(Debug, Serialize)]
struct ListedRun {
    run: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    kind: &'static str,
    started: u64,
    ended: Option<u64>,
    scenario_hash: String,
    seed: u64,
    devices: u32,
    verifiers: u32,
    generations: u64,
    rounds: u64,
    batches: u64,
    methods: Vec<String>,
    tags: Vec<String>,
    /// `NOISY` with every cause in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<String>,
}

impl From<&RunListing> for ListedRun {
    fn from(run: &RunListing) -> ListedRun {
        let reason = match &run.state {
            ListedState::Failed { reason } | ListedState::Unreadable { reason } => Some(reason.clone()),
            _ => None,
        };
        ListedRun {
            run: run.run.clone(),
            state: run.state.name(),
            reason,
            kind: run.kind.name(),
            started: run.started,
            ended: run.ended,
            scenario_hash: run.scenario_hash.clone(),
            seed: run.seed,
            devices: run.devices,
            verifiers: run.verifiers,
            generations: run.progress.generations,
            rounds: run.progress.rounds,
            batches: run.progress.batches,
            methods: run.methods.clone(),
            tags: run.tags.clone(),
            noise: disturbance::short_verdict(&run.noise),
        }
    }
}

/// What the plain files of one run say.
#[derive(Debug, Serialize)]
pub(super) struct RunDescription {
    #[serde(flatten)]
    row: ListedRun,
    scenario: String,
    machine: Machine,
    /// What it is doing, while it runs and has said so.
    live: Option<Live>,
}

impl Runs {
    pub(super) fn new(ledger: PathBuf) -> Runs {
        Runs { ledger, cached: Mutex::new(None) }
    }

    /// The runs, oldest first, and a number that grows when they change. Blocks on files; a second caller waits for the
    /// first and takes what it found.
    pub(super) fn listing(&self) -> Result<(Arc<Vec<RunListing>>, u64), PageRefusal> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) =
            cached.as_ref().filter(|cached| cached.at.elapsed() < FRESH.max(cached.took * FRESH_FACTOR))
        {
            return Ok((fresh.runs.clone(), fresh.revision));
        }
        let began = Instant::now();
        let runs = list(&self.ledger)?;
        let took = began.elapsed();
        let (runs, revision) = match cached.take() {
            Some(before) if *before.runs == runs => (before.runs, before.revision),
            before => (Arc::new(runs), before.map_or(1, |before| before.revision + 1)),
        };
        *cached = Some(CachedListing { at: Instant::now(), took, runs: runs.clone(), revision });
        Ok((runs, revision))
    }

    /// The runs that match. Blocks on files.
    pub(super) fn filtered(&self, filter: &Filter) -> Result<Listed, PageRefusal> {
        let limit = filter.limit.unwrap_or(100);
        if !(1..=MOST).contains(&limit) {
            return Err(PageRefusal::bad_request(format!("limit={limit}: from 1 to {MOST}")));
        }
        const STATES: [&str; 5] = ["running", "completed", "interrupted", "failed", "unreadable"];
        if !filter.state.is_empty() && !STATES.contains(&filter.state.as_str()) {
            return Err(PageRefusal::bad_request(format!("state={:?}: one of {}", filter.state, STATES.join(", "))));
        }
        if filter.text.len() > LONGEST_TEXT || filter.text.split_whitespace().nth(MOST_WORDS).is_some() {
            let problem = format!("text: at most {MOST_WORDS} words of {LONGEST_TEXT} bytes in all");
            return Err(PageRefusal::bad_request(problem));
        }
        let words: Vec<String> = filter.text.split_whitespace().map(str::to_lowercase).collect();
        let (runs, _) = self.listing()?;
        let matching: Vec<&RunListing> = runs.iter().rev().filter(|run| matches(run, &filter.state, &words)).collect();
        Ok(Listed {
            ledger: self.ledger.display().to_string(),
            total: runs.len(),
            matched: matching.len(),
            offset: filter.offset,
            runs: matching.into_iter().skip(filter.offset).take(limit).map(ListedRun::from).collect(),
        })
    }

    /// One run. Blocks on files.
    pub(super) fn about(&self, name: &RunName) -> Result<RunDescription, PageRefusal> {
        let folder = name.folder(&self.ledger);
        let meta = Meta::read(&folder).map_err(|error| self.explain(name, error.into()))?;
        let (runs, _) = self.listing()?;
        // It may have been made since the listing.
        let Some(run) = runs.iter().find(|run| run.dir == folder) else {
            return Err(PageRefusal::not_found(format!("run {} has only just been made: ask again", name.as_str())));
        };
        let live = if run.state == ListedState::Running { Live::read(&folder)? } else { None };
        Ok(RunDescription { row: ListedRun::from(run), scenario: meta.scenario, machine: meta.machine, live })
    }

    /// A refusal about a run that is not there, with the nearest name that is.
    pub(super) fn explain(&self, name: &RunName, refusal: PageRefusal) -> PageRefusal {
        if !refusal.is_not_found() {
            return refusal;
        }
        let meant = self.listing().map_or(String::new(), |(runs, _)| {
            let near = nearest(name.as_str(), runs.iter().map(|run| run.run.as_str()));
            did_you_mean(&near).map_or(String::new(), |meant| format!("; {meant}"))
        });
        PageRefusal::not_found(format!("no run {} in {}{meant}", name.as_str(), self.ledger.display()))
    }
}

fn matches(run: &RunListing, state: &str, words: &[String]) -> bool {
    let found = |word: &String| {
        let has = |text: &str| text.to_lowercase().contains(word);
        let plain = has(&run.run) || has(run.state.name()) || has(run.kind.name());
        plain || run.methods.iter().chain(&run.tags).any(|name| has(name))
    };
    (state.is_empty() || run.state.name() == state) && words.iter().all(found)
}
