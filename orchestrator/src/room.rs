//! How much room a command needs from the system.

use specfleet_config::Settings;
use specfleet_files::room;

use crate::error::Error;

/// Threads beside those of models: the store's, timers, the recorder's, signals, a page's and those that sockets need.
const THREADS: usize = 16;

/// Files open at the same time beside those of verifiers: the store's, sockets and what an event loop keeps.
const FILES: usize = 32;

/// Files of the event loop that a verifier runs on.
const FILES_OF_VERIFIER: usize = 4;

/// Room for any command.
pub fn check() -> Result<(), Error> {
    check_for(THREADS, FILES)
}

/// Room for a live run.
pub fn check_run(settings: &Settings) -> Result<(), Error> {
    let verifiers = settings.pool.autoscale.map_or(0, |scale| scale.max).max(settings.run.verifiers);
    let (verifiers, model) = (usize::from(verifiers), &settings.model);
    let [drafter, verifier] =
        [model.drafter_threads, model.verifier_threads].map(|threads| specfleet_model::useful_threads(threads.into()));
    check_for(THREADS + drafter + verifiers * verifier, FILES + verifiers * FILES_OF_VERIFIER)
}

fn check_for(threads: usize, files: usize) -> Result<(), Error> {
    Ok(room::check(threads, files)?)
}
