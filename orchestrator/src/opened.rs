//! The runs that a command reads, and what of them could not be read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use specfleet_ledger::{DamageLog, RunPart, RunReader};
use specfleet_logs::visible_name;

use crate::error::Error;

/// The runs that a command has opened.
///
/// A command that prints figures opens its runs here, and `main` asks for [`OpenedRuns::damage_notes`] when it is done. So
/// figures of a damaged run never pass for those of a whole one, whatever command computed them and in whatever format.
/// Commands that take the first damaged row for a failure may open a run on their own.
#[derive(Debug, Default)]
pub struct OpenedRuns {
    /// Name and damage of each, in the order of opening.
    logs: Mutex<Vec<(String, DamageLog)>>,
}

impl OpenedRuns {
    /// Opens the run in `folder`.
    pub fn open(&self, folder: &Path) -> Result<RunReader, Error> {
        let reader = RunReader::open(folder)?;
        if reader.damage_log().met().iter().any(|met| met.part == RunPart::Store) {
            let run = visible_name(&reader.meta().run).into_owned();
            specfleet_logs::say!(
                "specfleet: run {run} is damaged: its store is not as it was closed (specfleet verify {run} says where, \
                 specfleet rescue {run} --to NEW saves what is whole)"
            );
        }
        if folder.file_name().is_some_and(|name| name != reader.meta().run.as_str()) {
            let (name, run) = (folder.display().to_string(), visible_name(&reader.meta().run).into_owned());
            specfleet_logs::say!("note: the folder {} holds run {run}", visible_name(&name));
        }
        let log = (visible_name(&reader.meta().run).into_owned(), reader.damage_log().clone());
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log);
        Ok(reader)
    }

    /// One line for each run of which something that was asked for could not be read, with the tables and files.
    pub fn damage_notes(&self) -> Vec<String> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notes: Vec<String> = Vec::new();
        for (run, log) in logs.iter() {
            let mut places: BTreeMap<RunPart, usize> = BTreeMap::new();
            for met in log.met() {
                *places.entry(met.part).or_default() += 1;
            }
            if places.is_empty() {
                continue;
            }
            let parts = places
                .iter()
                .map(|(part, count)| format!("{part} in {count} {}", if *count == 1 { "place" } else { "places" }));
            let parts = parts.collect::<Vec<_>>().join(", ");
            let note = format!(
                "run {run} is damaged: {parts}; what was read is without it (specfleet verify {run} names each)"
            );
            // A command may open a run twice.
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }
}
