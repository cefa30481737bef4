//! Who is alive: a running run holds an exclusive lock on a file, which the system frees however its process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::LedgerError;

const LOCK_FILE: &str = "lock";

/// A held lock; dropping it frees it.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the writer's lock of a fresh run folder.
    pub(crate) fn for_writing(run_dir: &Path) -> Result<RunLock, LedgerError> {
        let path = run_dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| LedgerError::io(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LedgerError::StillRunning(run_dir.to_path_buf())),
            Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, error)),
        }
    }
}

/// Whether a living writer holds the run. Asks with a *shared* lock, so that two askers never mistake each other for the
/// writer. A folder without a lock file (copied, imported) has no writer.
pub(crate) fn is_held(run_dir: &Path) -> Result<bool, LedgerError> {
    let path = run_dir.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(LedgerError::io(&path, error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, error)),
    }
}
