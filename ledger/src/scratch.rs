//! Private copies of stores. sled changes the files of whatever store it opens, and cuts off what it cannot read; so who only
//! reads opens a copy.
//!
//! A copy lies in a folder of its own that nobody else may enter, below the folder that the variable `SPECFLEET_SCRATCH` names,
//! or else in the system's folder for temporary files. What sled may change is copied; the files of large values, which it
//! only reads, are linked. The folder goes with its reader; what a killed reader leaves is removed by the next one.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::LedgerError;
use crate::id::RunId;
use crate::manifest::{FileDigest, Manifest};
use crate::store;

/// What the names of the folders begin with.
const PREFIX: &str = "specfleet-read-";

/// Held by the reader while it lives. The last that is removed from a folder.
const LOCK_FILE: &str = "lock";

/// The store within the folder.
const STORE: &str = "store";

/// Bytes that a copy leaves free on the disk.
const SPARE: u64 = 1 << 20;

/// How often, and after how long each time, to ask again for a folder to go away: sled's threads may still write to it for a
/// moment after its last handle was dropped.
const PATIENCE: (u32, Duration) = (25, Duration::from_millis(20));

/// A copy of a store; dropping it removes it.
#[derive(Debug)]
pub(crate) struct PrivateCopy {
    dir: PathBuf,
    /// The system frees it when the process dies.
    _lock: File,
}

/// What became of the wish for a copy.
#[derive(Debug)]
pub(crate) enum Copied {
    /// It is the store that its manifest describes.
    Whole(PrivateCopy),
    /// It is not, for these reasons.
    Differs(Vec<LedgerError>),
}

impl PrivateCopy {
    /// Copies a store of a run without manifests.
    pub(crate) fn of(store_dir: &Path) -> Result<PrivateCopy, LedgerError> {
        let names = store::file_names(store_dir)?;
        let copy = PrivateCopy::room_for(store_dir, names.iter().map(String::as_str))?;
        for name in &names {
            copy.take(store_dir, name)?;
        }
        Ok(copy)
    }

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
        self.dir.join(STORE)
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
        let copy = PrivateCopy::create(&scratch).map_err(|error| LedgerError::io(&scratch, error))?;
        remove_leftovers(&scratch, &copy.dir);
        let blobs = copy.store_dir().join(store::BLOBS);
        fs::create_dir_all(&blobs).map_err(|error| LedgerError::io(&blobs, error))?;
        Ok(copy)
    }

    /// A fresh folder, and the lock on it. Until the lock is held, somebody who cleans up may take the folder for one that was
    /// left; then another one is made.
    fn create(scratch: &Path) -> io::Result<PrivateCopy> {
        loop {
            let name = RunId::random().map_err(io::Error::other)?;
            let dir = scratch.join(format!("{PREFIX}{name}"));
            let mut builder = DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(&dir)?;
            let lock = match OpenOptions::new().write(true).create_new(true).open(dir.join(LOCK_FILE)) {
                Ok(lock) => lock,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if lock.try_lock().is_ok() && dir.join(LOCK_FILE).exists() {
                return Ok(PrivateCopy { dir, _lock: lock });
            }
        }
    }

    /// Puts one file of the store into the copy; its place there.
    fn take(&self, store_dir: &Path, name: &str) -> Result<PathBuf, LedgerError> {
        let (from, to) = (store_dir.join(name), self.store_dir().join(name));
        let taken = if is_linked(name) { link(&from, &to) } else { fs::copy(&from, &to).map(drop) };
        taken.map_err(|error| LedgerError::io(&from, error))?;
        Ok(to)
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        let (times, pause) = PATIENCE;
        for _ in 0..times {
            // What stays is removed by the next reader.
            match remove(&self.dir) {
                Ok(()) => return,
                Err(_) => thread::sleep(pause),
            }
        }
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

/// Removes what readers left that were killed. Nothing here fails: whose folder cannot be looked at or removed keeps it.
fn remove_leftovers(scratch: &Path, ours: &Path) {
    let Ok(entries) = fs::read_dir(scratch) else { return };
    for entry in entries.flatten() {
        let dir = entry.path();
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if named && dir != ours && is_ours(&dir, ours) {
            match File::open(dir.join(LOCK_FILE)).map(|lock| (lock.try_lock(), lock)) {
                Ok((Ok(()), _lock)) => drop(remove(&dir)),
                Ok((Err(TryLockError::WouldBlock | TryLockError::Error(_)), _)) => {}
                // A folder without a lock is removed if there is nothing in it.
                Err(_) => drop(fs::remove_dir(&dir)),
            }
        }
    }
}

/// Whether a folder belongs to the user whom this process runs for, and is no link to one.
#[cfg(unix)]
fn is_ours(dir: &Path, ours: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(theirs), Ok(ours)) = (fs::symlink_metadata(dir), fs::symlink_metadata(ours)) else { return false };
    theirs.is_dir() && theirs.uid() == ours.uid()
}

#[cfg(not(unix))]
fn is_ours(dir: &Path, _: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir())
}

/// Removes a folder, its lock last: so nobody takes half a folder for a fresh one.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(STORE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::remove_file(dir.join(LOCK_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_dir(dir)
}
