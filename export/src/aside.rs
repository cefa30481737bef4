//! Folders for what is not finished, beside what is: they go with their process, or when the next one comes by.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::ExportError;

/// Held by the process that fills the folder; the system frees it however that process ends. No run can have this name.
const LOCK_FILE: &str = ".lock";

/// How often to try again after another process took the folder for a dead one's, before it was locked.
const TRIES: u32 = 100;

/// A folder that goes with everything in it when it is dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    pub(crate) path: PathBuf,
    /// `None` where the system cannot lock files: nobody removes the folder then, but this process.
    lock: Option<File>,
}

impl Aside {
    /// Makes one in `parent`, which is there. `prefix` tells whose it is.
    pub(crate) fn new(parent: &Path, prefix: &str) -> Result<Aside, ExportError> {
        let own = format!("{prefix}{}", std::process::id());
        for number in 0..TRIES {
            let path = parent.join(if number == 0 { own.clone() } else { format!("{own}-{number}") });
            match fs::create_dir(&path) {
                Ok(()) => {}
                // Another thread's, or another machine's.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(ExportError::io(parent, source)),
            }
            let mut aside = Aside { path, lock: None };
            let lock = aside.path.join(LOCK_FILE);
            let file = match File::create(&lock) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(ExportError::io(&aside.path, source)),
            };
            match file.try_lock() {
                // Locked is no use if it was removed just before.
                Ok(()) if lock.exists() => aside.lock = Some(file),
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(_)) => {}
            }
            return Ok(aside);
        }
        Err(ExportError::io(parent, io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What goes wrong here has nobody left to tell.
        let _ = fs::remove_dir_all(&self.path);
        self.lock = None;
    }
}

/// Removes the folders of processes that ended before they could. What cannot be looked at or removed stays.
pub(crate) fn remove_dead(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix))
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
        {
            let path = entry.path();
            // Held until the folder is gone, so that nobody takes it up meanwhile.
            let lock = match File::open(path.join(LOCK_FILE)) {
                Ok(file) => file.try_lock().is_ok().then_some(Some(file)),
                Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(None),
            };
            if lock.is_some() {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}
