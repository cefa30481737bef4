//! Who is alive: whoever writes a run holds an exclusive lock on a file, whoever reads one a shared lock. The system frees
//! both however their processes end.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::LedgerError;
use crate::meta::{Meta, RunState};
use crate::store;

pub(crate) const LOCK_FILE: &str = "lock";

/// How often, and after how long each time, to ask again for a lock that somebody else has. A listing looks for a moment
/// only; a writer says in `meta.json` that it has ended before it lets go; and a process that starts another one shares its
/// open files with it until that one's program is loaded, locks and all.
const PATIENCE: (u32, Duration) = (10, Duration::from_millis(20));

/// A held lock; dropping it frees it.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the writer's lock. Of a run that is being written it is [`LedgerError::StillRunning`], of one that is read,
    /// compacted or added to [`LedgerError::StoreBusy`].
    pub(crate) fn for_writing(run_dir: &Path) -> Result<RunLock, LedgerError> {
        let path = run_dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| LedgerError::io(&path, error))?;
        match patiently(|| file.try_lock()) {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) if is_held(run_dir)? => Err(held(run_dir)),
            Err(TryLockError::WouldBlock) => Err(busy(run_dir)),
            Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, error)),
        }
    }

    /// Takes a reader's lock; a folder without a lock file (copied, imported) needs none.
    pub(crate) fn for_reading(run_dir: &Path) -> Result<Option<RunLock>, LedgerError> {
        let path = run_dir.join(LOCK_FILE);
        let Some(file) = open(&path)? else { return Ok(None) };
        match patiently(|| file.try_lock_shared()) {
            Ok(()) => Ok(Some(RunLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(held(run_dir)),
            Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, error)),
        }
    }
}

/// Asks until the lock is free, for a while.
fn patiently(ask: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    let (times, pause) = PATIENCE;
    for _ in 0..times {
        match ask() {
            Err(TryLockError::WouldBlock) => thread::sleep(pause),
            answer => return answer,
        }
    }
    ask()
}

/// What a writer does with a run that somebody else must leave alone.
fn held(run_dir: &Path) -> LedgerError {
    match Meta::read(run_dir) {
        Ok(meta) if meta.state != RunState::Running => busy(run_dir),
        // A fresh one has no description yet.
        _ => LedgerError::StillRunning(run_dir.to_path_buf()),
    }
}

fn busy(run_dir: &Path) -> LedgerError {
    let store = Meta::read(run_dir).and_then(|meta| store::path(run_dir, &meta.store));
    LedgerError::StoreBusy(store.unwrap_or_else(|_| run_dir.to_path_buf()))
}

/// The lock file, if there is one.
fn open(path: &Path) -> Result<Option<File>, LedgerError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::io(path, error)),
    }
}

/// Whether a living writer holds the run. Asks with a *shared* lock, so that two askers never mistake each other for the
/// writer. A folder without a lock file has none.
pub(crate) fn is_held(run_dir: &Path) -> Result<bool, LedgerError> {
    let path = run_dir.join(LOCK_FILE);
    let Some(file) = open(&path)? else { return Ok(false) };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_let_go_of_soon_is_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let soon = |lock: RunLock| {
            thread::spawn(move || {
                thread::sleep(2 * PATIENCE.1);
                drop(lock);
            })
        };
        let writer = soon(RunLock::for_writing(dir.path()).expect("nobody has it"));
        let reading = RunLock::for_reading(dir.path()).expect("the writer ends").expect("there is a lock file");
        writer.join().expect("no panic");
        let reader = soon(reading);
        let writing = RunLock::for_writing(dir.path()).expect("the reader ends");
        reader.join().expect("no panic");
        let refused = RunLock::for_reading(dir.path()).expect_err("the writer goes on");
        assert!(matches!(refused, LedgerError::StillRunning(_)), "{refused}");
        drop(writing);
    }
}
