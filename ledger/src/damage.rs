//! What readers of a run came across and could not read, kept until somebody asks.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::LedgerError;
use crate::table::Table;

/// Something of a run that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreadable {
    /// The table whose rows are missing because of it.
    pub table: Table,
    /// The error's words.
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
        let met = Unreadable { table, why: error.to_string() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(met);
        error
    }

    /// What was met so far, by table.
    pub fn met(&self) -> Vec<Unreadable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
