//! What readers of a run came across and could not read, kept until somebody asks.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::LedgerError;
use crate::table::Table;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunPart {
    /// A table of its store.
    Table(Table),
    /// The files of its store.
    Store,
    /// A plain file beside it.
    File(&'static str),
}

impl fmt::Display for RunPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunPart::Table(table) => write!(f, "table {table}"),
            RunPart::Store => f.write_str("store"),
            RunPart::File(name) => write!(f, "file {name}"),
        }
    }
}

/// Something of a run that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreadable {
    /// What it belongs to.
    pub part: RunPart,
    pub why: String,
}

/// The damage that a [`crate::RunReader`] has met so far.
///
/// Every error of reading rows is noted here when it is made, so that what a caller skips over, or an index leaves out, is
/// known all the same. Copies share one log, which outlives the reader.
#[derive(Clone, Debug, Default)]
pub struct DamageLog(Arc<Mutex<BTreeSet<Unreadable>>>);

impl DamageLog {
    /// Notes an error and hands it back. The same error counts once, however often it is met.
    pub(crate) fn note(&self, table: Table, error: LedgerError) -> LedgerError {
        self.insert(RunPart::Table(table), error.to_string());
        error
    }

    /// The same for a plain file.
    pub(crate) fn note_file(&self, name: &'static str, error: LedgerError) -> LedgerError {
        self.insert(RunPart::File(name), error.to_string());
        error
    }

    /// The same for a file of the store.
    pub(crate) fn note_store(&self, error: LedgerError) -> LedgerError {
        self.insert(RunPart::Store, error.to_string());
        error
    }

    fn insert(&self, part: RunPart, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(Unreadable { part, why });
    }

    /// What was met so far, by part.
    pub fn met(&self) -> Vec<Unreadable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
