//! Where a run lies: the one place that turns a run's name into a folder.

use std::path::{Path, PathBuf};

use specfleet_engine::names::nearest;
use specfleet_ledger::{ListedState, list};

use crate::error::Error;

/// Stands for the newest run that has ended, wherever a run is named.
const LATEST: &str = "latest";

/// The folder of a run: by its name in the ledger, by its folder, or as `latest`. One that does not exist is refused with
/// the names of the ledger's runs that are most like it.
pub fn find(ledger: &Path, run: &Path) -> Result<PathBuf, Error> {
    let named = ledger.join(run);
    if run.as_os_str() == LATEST && !named.exists() {
        return latest(ledger);
    }
    let folder = if !run.is_dir() || named.is_dir() { named } else { run.to_path_buf() };
    let meta = folder.join("meta.json");
    if meta.exists() {
        // Whoever reads a pipe waits for its writer.
        if let Err(error) = specfleet_files::open(&meta, specfleet_files::SMALL) {
            return Err(Error::Asked(format!("cannot read {}: {error}", meta.display())));
        }
        // One run has one folder, by whatever way it was named: whoever deletes or compares runs relies on it. What lies in
        // the ledger under its own name keeps the short way.
        let plain = run.components().count() == 1 && !folder.is_symlink();
        return Ok(if plain { folder } else { folder.canonicalize().unwrap_or(folder) });
    }
    let known = names(ledger);
    let near = nearest(&run.to_string_lossy(), known.iter().map(String::as_str));
    Err(Error::UnknownRun { folder, near: near.into_iter().map(str::to_owned).collect() })
}

/// The run that started last among those that have ended, however they did.
fn latest(ledger: &Path) -> Result<PathBuf, Error> {
    let ended = |state: &ListedState| match state {
        ListedState::Completed | ListedState::Interrupted | ListedState::Failed { .. } => true,
        ListedState::Running | ListedState::Unreadable { .. } => false,
    };
    let runs = list(ledger)?.into_iter().filter(|run| ended(&run.state));
    let newest = runs.max_by(|one, other| (one.started, &one.run).cmp(&(other.started, &other.run)));
    newest.map(|run| run.dir).ok_or_else(|| Error::NoRuns(ledger.to_path_buf()))
}

/// The names of a ledger's runs; none where it cannot be read, which is said elsewhere.
fn names(ledger: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(ledger).into_iter().flatten().flatten();
    let runs = entries.filter(|entry| entry.path().join("meta.json").exists());
    runs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use specfleet_export::RESERVED_RUN_NAMES;

    use super::*;

    #[test]
    fn no_run_is_imported_under_a_name_with_another_meaning() {
        for name in [LATEST, crate::methods::CACHE] {
            assert!(RESERVED_RUN_NAMES.contains(&name), "{name}");
        }
    }
}
