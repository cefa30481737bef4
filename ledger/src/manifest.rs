//! What a store holds: how many chunks and rows of each table, and, once it is closed, the size and digest of each file.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::error::LedgerError;
use crate::store;
use crate::table::Table;

/// What of a table is safely stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Chunks; they are numbered from 0 without gaps.
    pub chunks: u64,
    pub rows: u64,
}

/// The same of each table that has rows.
pub type Tables = BTreeMap<Table, Stored>;

/// A store that was closed: nobody has written it since, or it is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub tables: Tables,
    /// Its files by their names in the store's folder, with `/` between folder and file.
    pub files: BTreeMap<String, FileDigest>,
}

/// Size and digest of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    pub bytes: u64,
    /// XXH3 of its contents, 64 bits in hexadecimal digits.
    pub xxh3: String,
}

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

impl FileDigest {
    pub(crate) fn of(path: &Path) -> io::Result<FileDigest> {
        let mut file = File::open(path)?;
        let mut hasher = XxHash3_64::new();
        let mut piece = vec![0; PIECE];
        let mut bytes = 0;
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => {
                    hasher.write(&piece[..read]);
                    bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(FileDigest { bytes, xxh3: format!("{:016x}", hasher.finish()) })
    }
}

impl Manifest {
    /// That of a store with these rows which nobody has open. What sled has to put in order when it opens a store is put in
    /// order first, so that no reader has to do it again; and everything is on the disk afterwards.
    pub(crate) fn seal(store_dir: &Path, tables: Tables) -> Result<Manifest, LedgerError> {
        store::wait_until_closed(store_dir)?;
        drop(store::open(store_dir)?);
        store::wait_until_closed(store_dir)?;
        store::sync(store_dir)?;
        let mut files = BTreeMap::new();
        for name in store::file_names(store_dir)? {
            let path = store_dir.join(&name);
            files.insert(name, FileDigest::of(&path).map_err(|error| LedgerError::io(&path, error))?);
        }
        Ok(Manifest { tables, files })
    }

    /// Which files of a store are not those that were closed.
    pub(crate) fn differences(&self, store_dir: &Path) -> Vec<LedgerError> {
        let differs = |(name, expected): (&String, &FileDigest)| {
            let path = store_dir.join(name);
            match FileDigest::of(&path) {
                Ok(found) if found == *expected => None,
                Ok(found) if found.bytes == expected.bytes => Some(LedgerError::OtherDigest { path }),
                Ok(found) => Some(LedgerError::OtherSize { path, expected: expected.bytes, found: found.bytes }),
                Err(error) => Some(LedgerError::io(&path, error)),
            }
        };
        self.files.iter().filter_map(differs).collect()
    }
}
