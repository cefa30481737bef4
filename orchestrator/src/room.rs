//! Whether the system has room for what a command will start. A library that cannot start a thread, or open a file, panics
//! or waits for ever; a refusal beforehand is one line.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use specfleet_config::Settings;

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
    open_at_once(files).map_err(|source| Error::NoRoom { what: "files", wanted: files, limit: "-n", source })?;
    start_at_once(threads).map_err(|source| Error::NoRoom { what: "threads", wanted: threads, limit: "-u", source })
}

/// Opens so many files, and closes them again.
fn open_at_once(files: usize) -> io::Result<()> {
    // A device that is on every system of the kind whose limits are low.
    if cfg!(not(unix)) {
        return Ok(());
    }
    (0..files).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<File>>>().map(drop)
}

/// Starts so many threads, all of them there at the same time, and ends them again.
fn start_at_once(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        for _ in 0..threads {
            Builder::new().spawn_scoped(scope, || drop(gate.lock().unwrap_or_else(PoisonError::into_inner)))?;
        }
        drop(closed);
        Ok(())
    })
}
