//! Private copies of stores. sled changes the files of whatever store it opens, and cuts off what it cannot read; so who only
//! reads opens a copy.
//!
//! A copy lies in a folder of its own that nobody else may enter, below the folder that the variable `SPECFLEET_SCRATCH` names,
//! or else in the system's folder for temporary files. What sled may change is copied; the files of large values, which it
//! only reads, are linked. The folder goes with its reader; what a killed reader leaves is removed by the next one.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use specfleet_files::aside::Aside;

use crate::error::LedgerError;
use crate::manifest::{FileDigest, Manifest};
use crate::store;

/// What the names of the folders begin with.
const PREFIX: &str = "specfleet-read-";

/// The store within the folder.
const STORE: &str = "store";

/// Bytes that a copy leaves free on the disk.
const SPARE: u64 = 1 << 20;

/// A copy of a store; dropping it removes it.
#[derive(Debug)]
pub(crate) struct PrivateCopy(Aside);

/// What became of the wish for a copy.
#[derive(Debug)]
pub(crate) enum Copied {
    /// It is the store that its manifest describes.
    Whole(PrivateCopy),
    /// It is not, for these reasons.
    Differs(Vec<LedgerError>),
}

impl PrivateCopy {
    /// Copies a store and compares the copy with its manifest.
    pub(crate) fn checked(store_dir: &Path, manifest: &Manifest) -> Result<Copied, LedgerError> {
        let names = || manifest.files.keys().map(String::as_str);
        let mut differs = Vec::new();
        for (name, expected) in &manifest.files {
            let path = store_dir.join(name);
            match fs::metadata(&path) {
                Ok(found) if found.len() == expected.bytes => {}
                Ok(found) => {
                    differs.push(LedgerError::OtherSize { path, expected: expected.bytes, found: found.len() })
                }
                Err(error) => differs.push(LedgerError::io(&path, error)),
            }
        }
        if !differs.is_empty() {
            return Ok(Copied::Differs(differs));
        }
        let copy = PrivateCopy::room_for(store_dir, names())?;
        for (name, expected) in &manifest.files {
            let path = store_dir.join(name);
            // The copy is read, because that is what sled will see.
            let digest = copy
                .take(store_dir, name)
                .and_then(|copied| FileDigest::of(&copied).map_err(|error| LedgerError::io(&copied, error)));
            match digest {
                Ok(digest) if digest == *expected => {}
                Ok(_) => differs.push(LedgerError::OtherDigest { path }),
                Err(error) => differs.push(error),
            }
        }
        Ok(if differs.is_empty() { Copied::Whole(copy) } else { Copied::Differs(differs) })
    }

    /// Where the store lies.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.0.path().join(STORE)
    }

    /// An empty folder on a disk with room for these files.
    fn room_for<'a>(store_dir: &Path, names: impl Iterator<Item = &'a str>) -> Result<PrivateCopy, LedgerError> {
        let scratch = env::var_os("SPECFLEET_SCRATCH").map_or_else(env::temp_dir, PathBuf::from);
        let mut needed = SPARE;
        for name in names.filter(|name| !is_linked(name)) {
            let path = store_dir.join(name);
            needed += fs::metadata(&path).map_err(|error| LedgerError::io(&path, error))?.len();
        }
        let free = fs2::available_space(&scratch).map_err(|error| LedgerError::io(&scratch, error))?;
        if free < needed {
            return Err(LedgerError::NoScratch { path: scratch, needed, free });
        }
        let copy = PrivateCopy(Aside::new(&scratch, PREFIX).map_err(|error| LedgerError::io(&scratch, error))?);
        let blobs = copy.store_dir().join(store::BLOBS);
        fs::create_dir_all(&blobs).map_err(|error| LedgerError::io(&blobs, error))?;
        Ok(copy)
    }

    /// Puts one file of the store into the copy; its place there.
    fn take(&self, store_dir: &Path, name: &str) -> Result<PathBuf, LedgerError> {
        let (from, to) = (store_dir.join(name), self.store_dir().join(name));
        let take = || {
            // A pipe in its place would be waited for.
            specfleet_files::open(&from, u64::MAX)?;
            if is_linked(name) { link(&from, &to) } else { fs::copy(&from, &to).map(drop) }
        };
        take().map_err(|error| LedgerError::io(&from, error))?;
        Ok(to)
    }
}

/// Whether a file of a store is only read.
fn is_linked(name: &str) -> bool {
    name.starts_with(store::BLOBS)
}

/// A name in the copy for a file of the store. A link by name needs no right to the file but that of reading it, and may lead
/// to another disk.
#[cfg(unix)]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(from.canonicalize()?, to)
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}
