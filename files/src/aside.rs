//! Folders for what is not finished, or not kept: each goes with its process, or, where that was killed, when the next one comes
//! by that makes a folder of the same kind.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Held by the process that fills the folder; the system frees it however that process ends. It is the last thing that is
/// removed, so nobody takes half a folder for one that was made a moment ago.
const LOCK_FILE: &str = ".lock";

/// How often to make a folder again that another process took for one that was left, before it was locked.
const TRIES: u32 = 100;

/// How often, and after how long each time, to ask again for a folder to go away: a library's threads may still write to it for
/// a moment after its last handle was dropped.
const PATIENCE: (u32, Duration) = (25, Duration::from_millis(20));

/// A folder that nobody else may enter, and that goes with everything in it when it is dropped.
#[derive(Debug)]
pub struct Aside {
    path: PathBuf,
    /// `None` where the system cannot lock files: nobody removes the folder then, but this process.
    _lock: Option<File>,
}

impl Aside {
    /// Makes one in `parent`, which is there, and removes those of killed processes. `prefix` tells what it is for.
    pub fn new(parent: &Path, prefix: &str) -> io::Result<Aside> {
        let aside = Aside::create(parent, prefix)?;
        remove_left(parent, prefix, Some(&aside.path));
        Ok(aside)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn create(parent: &Path, prefix: &str) -> io::Result<Aside> {
        for _ in 0..TRIES {
            // Random, so that nobody who may write to `parent` too can take the name beforehand.
            let path = parent.join(format!("{prefix}{:016x}", RandomState::new().hash_one(prefix)));
            match private_folder(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            let lock = path.join(LOCK_FILE);
            let file = match OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(file) => file,
                // Somebody who cleans up took it for one that was left.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    // It is empty.
                    let _ = fs::remove_dir(&path);
                    return Err(error);
                }
            };
            match file.try_lock() {
                // Locked is no use if it was removed just before.
                Ok(()) if lock.exists() => return Ok(Aside { path, _lock: Some(file) }),
                Ok(()) | Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(_)) => return Ok(Aside { path, _lock: None }),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let (times, pause) = PATIENCE;
        for _ in 0..times {
            // What stays is removed by the next process.
            match remove(&self.path) {
                Ok(()) => return,
                Err(_) => thread::sleep(pause),
            }
        }
    }
}

/// Removes the folders of killed processes. What cannot be looked at or removed stays.
pub fn remove_dead(parent: &Path, prefix: &str) {
    remove_left(parent, prefix, None);
}

fn remove_left(parent: &Path, prefix: &str, ours: Option<&Path>) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if !is_named || ours == Some(&path) || !is_removable(&path, ours) {
            continue;
        }
        // Held until the folder is gone, so that nobody takes it up meanwhile.
        match File::open(path.join(LOCK_FILE)) {
            Ok(lock) if lock.try_lock().is_ok() => drop(remove(&path)),
            Ok(_) => {}
            // Without a lock it was made a moment ago, and is empty; or it was removed up to that.
            Err(_) => drop(fs::remove_dir(&path)),
        }
    }
}

/// Removes a folder, its lock last.
fn remove(folder: &Path) -> io::Result<()> {
    let none_is_fine = |done: io::Result<()>| match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != LOCK_FILE {
            let is_folder = entry.file_type()?.is_dir();
            none_is_fine(if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) })?;
        }
    }
    none_is_fine(fs::remove_file(folder.join(LOCK_FILE)))?;
    none_is_fine(fs::remove_dir(folder))
}

fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Whether a path is a folder, no link to one, and of the user who made `ours`: in a folder that many write to, only one's own
/// is removed.
fn is_removable(path: &Path, ours: Option<&Path>) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    #[cfg(unix)]
    let is_ours = {
        use std::os::unix::fs::MetadataExt;
        let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|ours| ours.uid());
        ours.is_none_or(|ours| owner(ours) == Some(found.uid()))
    };
    #[cfg(not(unix))]
    let is_ours = true;
    found.is_dir() && is_ours
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = ".making-";

    fn names(parent: &Path) -> Vec<String> {
        let entries = fs::read_dir(parent).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_folder_goes_with_everything_in_it() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let aside = Aside::new(parent.path(), PREFIX).expect("a folder");
        fs::create_dir_all(aside.path().join("a/b")).expect("a folder");
        fs::write(aside.path().join("a/b/c"), "c").expect("a file");
        drop(aside);
        assert!(names(parent.path()).is_empty());
        assert_eq!(Aside::new(&parent.path().join("none"), PREFIX).expect_err("no parent").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn only_what_dead_processes_left_is_removed() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let live = Aside::new(parent.path(), PREFIX).expect("a folder");
        let kept = live.path().file_name().expect("a name").to_string_lossy().into_owned();
        for (dead, file) in [(".making-1", ".lock"), (".making-2", "x"), ("other", ".lock")] {
            fs::create_dir(parent.path().join(dead)).expect("a folder");
            fs::write(parent.path().join(dead).join(file), "").expect("a file");
        }
        fs::create_dir(parent.path().join(".making-3")).expect("a folder");
        fs::write(parent.path().join(".making-4"), "no folder").expect("a file");
        remove_dead(parent.path(), PREFIX);
        // One without a lock and with something in it was not made here.
        let mut expected = vec![".making-2".to_owned(), ".making-4".to_owned(), kept, "other".to_owned()];
        expected.sort_unstable();
        assert_eq!(names(parent.path()), expected);
        drop(Aside::new(parent.path(), PREFIX).expect("beside the one that lives"));
        assert_eq!(names(parent.path()), expected);
        drop(live);
    }
}
