//! Where a reader's chunks come from: sled, over a private copy of a store that is as it was closed; or the bytes of the files.

use std::path::Path;

use crate::damage::DamageLog;
use crate::error::LedgerError;
use crate::found::Found;
use crate::id::RunId;
use crate::meta::Meta;
use crate::scratch::{Copied, PrivateCopy};
use crate::store;
use crate::table::Table;

/// The chunks of a store.
#[derive(Debug)]
pub(crate) enum ChunkSource {
    /// As sled hands them out.
    Sled {
        /// Dropped before the copy that it has open.
        store: sled::Db,
        /// Removed with the reader.
        _copy: PrivateCopy,
    },
    /// As they lie in the files.
    Files(Found),
}

/// Why a chunk, or what is behind a place, could not be read.
#[derive(Debug)]
pub(crate) enum SourceError {
    Sled(sled::Error),
    /// A file cannot be read.
    File(LedgerError),
}

impl ChunkSource {
    /// Those of a run. What is wrong with a closed store is noted.
    pub(crate) fn of(
        store_dir: &Path,
        meta: &Meta,
        run: RunId,
        damage_log: &DamageLog,
    ) -> Result<ChunkSource, LedgerError> {
        if let Some(manifest) = &meta.manifest {
            match PrivateCopy::checked(store_dir, manifest)? {
                Copied::Whole(copy) => {
                    return Ok(ChunkSource::Sled {
                        store: store::open_copy(&copy.store_dir(), store_dir)?,
                        _copy: copy,
                    });
                }
                Copied::Differs(errors) => errors.into_iter().for_each(|error| drop(damage_log.note_store(error))),
            }
        }
        ChunkSource::files(store_dir, run, damage_log)
    }

    /// The whole chunks of a run in the files of its store.
    pub(crate) fn files(store_dir: &Path, run: RunId, damage_log: &DamageLog) -> Result<ChunkSource, LedgerError> {
        let mut found = Found::scan(store_dir, run)?;
        if found.has_foreign {
            damage_log.note_store(LedgerError::OtherRun { path: store_dir.to_path_buf(), run });
        }
        found.unread.drain(..).for_each(|error| drop(damage_log.note_store(error)));
        Ok(ChunkSource::Files(found))
    }

    /// The chunk of this number.
    pub(crate) fn get(&self, table: Table, number: u64) -> Result<Option<sled::IVec>, SourceError> {
        match self {
            ChunkSource::Sled { store, .. } => store.get(table.key(number)).map_err(SourceError::Sled),
            ChunkSource::Files(found) => {
                found.get(table, number).map(|chunk| chunk.map(Into::into)).map_err(SourceError::File)
            }
        }
    }

    /// The numbers of a table's chunks from `first` to `last`, and sled's words if there are more behind a page that it
    /// cannot read.
    pub(crate) fn numbers(&self, table: Table, first: u64, last: u64) -> (Vec<u64>, Option<SourceError>) {
        let store = match self {
            ChunkSource::Sled { store, .. } => store,
            ChunkSource::Files(found) => return (found.numbers(table, first, last).collect(), None),
        };
        let mut numbers = Vec::new();
        for key in store.range(table.key(first)..=table.key(last)).keys() {
            match key {
                Ok(key) => numbers.extend(table.sequence(&key)),
                Err(error) => {
                    let next = numbers.last().map_or(first, |number: &u64| number.saturating_add(1));
                    numbers.append(&mut numbers_from_behind(store, table, next, last));
                    return (numbers, Some(SourceError::Sled(error)));
                }
            }
        }
        (numbers, None)
    }
}

/// The numbers that lie behind a page that sled cannot read. Its iterators do not get past such a page: they give the same
/// error again and again. So nobody asks one twice, and what is behind is looked for from the other end.
fn numbers_from_behind(store: &sled::Db, table: Table, first: u64, last: u64) -> Vec<u64> {
    let keys = store.range(table.key(first)..=table.key(last)).keys().rev();
    let mut numbers: Vec<u64> = keys.map_while(Result::ok).filter_map(|key| table.sequence(&key)).collect();
    numbers.reverse();
    numbers
}
