//! Changing runs that have ended from outside: their tags, and whether they are there at all.

use std::fs;
use std::path::Path;

use crate::aside;
use crate::error::LedgerError;
use crate::lock::{self, RunLock};
use crate::meta::{self, Meta};
use crate::store;

/// Longest tag, in bytes.
const LONGEST_TAG: usize = 64;

/// Adds tags to a run that has ended and removes others; the tags that it has then. Adding one that is there and removing
/// one that is not change nothing. A running run is refused: its writer owns the file. A tag of before, when there was no
/// alphabet, can be removed whatever is in it.
pub fn edit_tags(run_dir: &Path, add: &[String], remove: &[String]) -> Result<Vec<String>, LedgerError> {
    for tag in add {
        check_tag(tag)?;
    }
    Meta::read(run_dir)?;
    let _lock = RunLock::for_writing(run_dir)?;
    let mut tags = Meta::read(run_dir)?.tags;
    for tag in add {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    tags.retain(|tag| !remove.contains(tag));
    meta::edit(run_dir, |fields| fields.insert("tags".to_owned(), tags.clone().into()))?;
    Ok(tags)
}

/// A tag is a word: it must be told apart in a list, on a command line and in a filter, and mean nothing to a terminal or a
/// spreadsheet.
pub fn check_tag(tag: &str) -> Result<(), LedgerError> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '+' | '=' | '#' | '%' | '@');
    if tag.len() <= LONGEST_TAG && tag.starts_with(char::is_alphanumeric) && tag.chars().all(plain) {
        Ok(())
    } else {
        Err(LedgerError::BadTag(tag.to_owned()))
    }
}

/// Whether a living process writes the run, or changes it.
pub fn is_busy(run_dir: &Path) -> Result<bool, LedgerError> {
    lock::is_held(run_dir)
}

/// What the folder of a run takes on the disk, in bytes.
pub fn run_bytes(run_dir: &Path) -> Result<u64, LedgerError> {
    store::bytes(run_dir)
}

/// Deletes a run that has ended, with everything in its folder. A running run is refused, and so is one of a newer schema:
/// whoever wrote it may keep things in it that this program does not know. One whose `meta.json` is damaged is deleted.
pub fn remove(run_dir: &Path) -> Result<(), LedgerError> {
    match Meta::read(run_dir) {
        Ok(_) | Err(LedgerError::DamagedFile { .. } | LedgerError::BrokenSeal(_)) => {}
        Err(error) => return Err(error),
    }
    let failed = |error| LedgerError::io(run_dir, error);
    let lock = RunLock::for_writing(run_dir)?;
    let run_dir = run_dir.canonicalize().map_err(failed)?;
    let (Some(ledger_dir), Some(name)) = (run_dir.parent(), run_dir.file_name()) else {
        return Err(LedgerError::NotFound(run_dir));
    };
    aside::remove_leftovers(ledger_dir);
    // At once, so that half a deleted run is listed by nobody.
    let removed = aside::removed(ledger_dir, &name.to_string_lossy())?;
    fs::rename(&run_dir, &removed).map_err(failed)?;
    // Some systems delete no file that is open.
    drop(lock);
    aside::remove(&removed).map_err(failed)
}
