//! Folders on their way to be runs, and on their way to be none. Their names begin with a dot, so no listing takes them for
//! runs; what a killed process leaves of them is removed by the next one that makes or deletes a run.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::LedgerError;
use crate::id::RunId;
use crate::lock::LOCK_FILE;

/// What the names of a run that is being made begin with.
const NEW: &str = ".new-";

/// What the names of a run that is being deleted begin with.
const REMOVED: &str = ".removed-";

/// A name for a run that is being made.
pub(crate) fn new(ledger_dir: &Path, run: &str) -> Result<PathBuf, LedgerError> {
    Ok(ledger_dir.join(format!("{NEW}{run}-{}", RunId::random()?)))
}

/// A name for a run that is being deleted.
pub(crate) fn removed(ledger_dir: &Path, run: &str) -> Result<PathBuf, LedgerError> {
    Ok(ledger_dir.join(format!("{REMOVED}{run}-{}", RunId::random()?)))
}

/// The folders that killed processes have left in a ledger.
pub fn leftovers(ledger_dir: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let entries = match fs::read_dir(ledger_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LedgerError::io(ledger_dir, error)),
    };
    let mut left = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| LedgerError::io(ledger_dir, error))?;
        let is_aside = |name: &str| name.starts_with(NEW) || name.starts_with(REMOVED);
        if entry.file_name().to_str().is_some_and(is_aside) && is_dead(&entry.path()) {
            left.push(entry.path());
        }
    }
    left.sort_unstable();
    Ok(left)
}

/// Removes them. What cannot be removed stays for the next process.
pub(crate) fn remove_leftovers(ledger_dir: &Path) {
    for folder in leftovers(ledger_dir).unwrap_or_default() {
        let _ = remove(&folder);
    }
}

/// Removes a folder that somebody else may be removing too.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether nobody holds the lock of a folder. One without a lock file is either empty, because it was made a moment ago, or
/// half deleted.
fn is_dead(folder: &Path) -> bool {
    match File::open(folder.join(LOCK_FILE)) {
        Ok(lock) => lock.try_lock_shared().is_ok(),
        Err(_) => fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()),
    }
}
