//! The one place that opens sled and knows its weaknesses.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use crate::error::LedgerError;
use crate::meta::FIRST_STORE;

/// sled's default cache is 1 GiB; a run's writer needs only its last pages, a reader only what it streams.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Where a run's store lies, by the name in its `meta.json`: `store`, or `store-2` and so on once it was compacted.
pub(crate) fn path(run_dir: &Path, name: &str) -> Result<PathBuf, LedgerError> {
    match number(name) {
        Some(_) => Ok(run_dir.join(name)),
        // A name that leads elsewhere.
        None => Err(LedgerError::MissingStore(run_dir.join("meta.json").join(name))),
    }
}

/// The name after this one.
pub(crate) fn next_name(name: &str) -> String {
    format!("{FIRST_STORE}-{}", number(name).unwrap_or(1).saturating_add(1))
}

/// Whether a folder of this name is a store of a run, the present one or another.
pub(crate) fn is_store(name: &str) -> bool {
    number(name).is_some()
}

fn number(name: &str) -> Option<u64> {
    match name.strip_prefix(FIRST_STORE)? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse().ok().filter(|number| *number > 1),
    }
}

/// How often, and after how long each time, to ask again for a store that is open elsewhere: sled lets go of its file a
/// moment after its last handle was dropped, when its threads have finished what they were about.
const PATIENCE: (u32, Duration) = (25, Duration::from_millis(20));

/// sled writes its log in segments, and keeps in a file of its own what is larger than a quarter of one. This is its usual
/// size: whatever a run writes twice a second goes to the log.
const LIVE_SEGMENT: usize = 512 * 1024;

/// The size for a store that is filled once. The log holds little more than the names of files then. A file that was
/// replaced is deleted when the segment that says so is full, which must be soon, or the store takes three times its rows.
const BULK_SEGMENT: usize = 256;

/// The folder of large values within a store.
pub(crate) const BLOBS: &str = "blobs";

/// The names of a store's files, those of large values with their folder, in order. What sled leaves when it is killed while
/// it writes a snapshot is none of them: an unfinished snapshot keeps it from opening the store.
pub(crate) fn file_names(store_dir: &Path) -> Result<Vec<String>, LedgerError> {
    let mut names = Vec::new();
    let mut look = |dir: &Path, prefix: &str, wanted: fn(&str) -> bool| {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !prefix.is_empty() => return Ok(()),
            entries => entries.map_err(|error| LedgerError::io(dir, error))?,
        };
        for entry in entries {
            let name = entry.map_err(|error| LedgerError::io(dir, error))?.file_name();
            names.extend(name.to_str().filter(|name| wanted(name)).map(|name| format!("{prefix}{name}")));
        }
        Ok(())
    };
    look(store_dir, "", |name| {
        matches!(name, "db" | "conf") || (name.starts_with("snap.") && !name.ends_with(".generating"))
    })?;
    look(&store_dir.join(BLOBS), "blobs/", |name| name.bytes().all(|digit| digit.is_ascii_digit()))?;
    names.sort_unstable();
    Ok(names)
}

/// Waits until sled has let go of a store: its threads may go on for a moment after its last handle was dropped.
pub(crate) fn wait_until_closed(store_dir: &Path) -> Result<(), LedgerError> {
    let path = store_dir.join("db");
    let file = fs::File::open(&path).map_err(|error| LedgerError::io(&path, error))?;
    let (times, pause) = PATIENCE;
    for _ in 0..times {
        match fs2::FileExt::try_lock_exclusive(&file) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => thread::sleep(pause),
            Err(error) => return Err(LedgerError::io(&path, error)),
        }
    }
    Err(LedgerError::StoreBusy(store_dir.to_path_buf()))
}

/// Opens a private copy; errors name the original.
pub(crate) fn open_copy(copy: &Path, original: &Path) -> Result<sled::Db, LedgerError> {
    open_with(copy, segment(copy).unwrap_or(LIVE_SEGMENT)).map_err(|error| match error {
        LedgerError::Store { source, .. } => LedgerError::Store { path: original.to_path_buf(), source },
        other => other,
    })
}

/// Opens a store, or creates one for a run that is being written. Flushing is the writer's business alone, so sled's own
/// timer is off.
pub(crate) fn open(store_dir: &Path) -> Result<sled::Db, LedgerError> {
    open_with(store_dir, segment(store_dir).unwrap_or(LIVE_SEGMENT))
}

/// Creates a store that is filled once.
pub(crate) fn create_for_bulk(store_dir: &Path) -> Result<sled::Db, LedgerError> {
    open_with(store_dir, BULK_SEGMENT)
}

/// Largest log of a store that is written anew when it is closed: two segments.
const SMALL_LOG: u64 = 2 * LIVE_SEGMENT as u64;

/// The segment of a store that was written anew because it is small.
const SMALL_SEGMENT: usize = 4 * 1024;

/// What the keys of second copies begin with: no table has this tag.
const COPY: u8 = 0;

/// Writes the chunks of a store into a fresh one of smaller segments, if its log is small; whether it did. Where there is room in
/// what one segment took before, each chunk is there twice: a small table lies in one chunk, and would be lost with it.
pub(crate) fn shrink(store: &sled::Db, store_dir: &Path, fresh_dir: &Path) -> Result<bool, LedgerError> {
    let db = store_dir.join("db");
    let log = fs::metadata(&db).map_err(|error| LedgerError::io(&db, error))?.len();
    if log > SMALL_LOG {
        return Ok(false);
    }
    let failed = |error| LedgerError::store(store_dir, error);
    let bytes = store.iter().values().map(|chunk| Ok(chunk?.len())).sum::<Result<usize, _>>().map_err(failed)?;
    let twice = 2 * bytes <= LIVE_SEGMENT;
    let fresh = open_with(fresh_dir, SMALL_SEGMENT)?;
    for entry in store.iter() {
        let (key, chunk) = entry.map_err(failed)?;
        let copy = [&[COPY][..], &key].concat();
        for key in [&key[..], &copy].into_iter().take(if twice { 2 } else { 1 }) {
            fresh.insert(key, &chunk).map_err(|error| LedgerError::store(fresh_dir, error))?;
        }
    }
    fresh.flush().map_err(|error| LedgerError::store(fresh_dir, error))?;
    Ok(true)
}

/// The size that a store was created with, which sled wants to be told again; `None` if there is none.
fn segment(store_dir: &Path) -> Option<usize> {
    let conf = specfleet_files::read(&store_dir.join("conf"), specfleet_files::SMALL).ok()?;
    // A checksum follows the text.
    let text = String::from_utf8_lossy(&conf);
    let size: usize = text.lines().find_map(|line| line.strip_prefix("segment_size: "))?.parse().ok()?;
    size.is_power_of_two().then_some(size)
}

fn open_with(store_dir: &Path, segment: usize) -> Result<sled::Db, LedgerError> {
    let open = || {
        sled::Config::new()
            .path(store_dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .segment_size(segment)
            .open()
            .map_err(|error| LedgerError::store(store_dir, error))
    };
    let (times, pause) = PATIENCE;
    for _ in 0..times {
        match open() {
            Err(LedgerError::StoreBusy(_)) => thread::sleep(pause),
            opened => return opened,
        }
    }
    open()
}

/// sled 0.34 waits forever when the disk fills while it writes. So a writer stops, with an error, while this much is left:
/// room for what sled has buffered, and for it to rewrite the nodes that the last rows went to.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// Refuses to go on when the disk that holds `store_dir` is nearly full.
pub(crate) fn check_space(store_dir: &Path) -> Result<(), LedgerError> {
    let free = fs2::available_space(store_dir).map_err(|error| LedgerError::io(store_dir, error))?;
    if free < RESERVE_BYTES {
        return Err(LedgerError::io(store_dir, io::ErrorKind::StorageFull.into()));
    }
    Ok(())
}

/// Bytes of all files of a store.
pub(crate) fn bytes(store_dir: &Path) -> Result<u64, LedgerError> {
    let mut sum = 0;
    each_file(store_dir, &mut |path| {
        sum += fs::metadata(path)?.len();
        Ok(())
    })?;
    Ok(sum)
}

/// Waits until a store's files are on the disk.
pub(crate) fn sync(store_dir: &Path) -> Result<(), LedgerError> {
    each_file(store_dir, &mut |path| fs::File::open(path)?.sync_all())?;
    sync_names(store_dir)
}

/// Waits until the names in a folder are on the disk, where the system can do that.
pub(crate) fn sync_names(dir: &Path) -> Result<(), LedgerError> {
    if cfg!(unix) {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| LedgerError::io(dir, error))?;
    }
    Ok(())
}

/// Calls `what` on the files below `dir`.
fn each_file(dir: &Path, what: &mut dyn FnMut(&Path) -> io::Result<()>) -> Result<(), LedgerError> {
    let entries = fs::read_dir(dir).map_err(|error| LedgerError::io(dir, error))?;
    for entry in entries {
        let path = entry.map_err(|error| LedgerError::io(dir, error))?.path();
        if path.is_dir() {
            each_file(&path, what)?;
        } else {
            what(&path).map_err(|error| LedgerError::io(&path, error))?;
        }
    }
    Ok(())
}
