//! The one place that opens sled and knows its weaknesses.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::LedgerError;

const STORE_DIR: &str = "store";

/// sled's default cache is 1 GiB; a run's writer needs only its last pages, a reader only what it streams.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Where a run's store lies.
pub(crate) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(STORE_DIR)
}

/// sled's threads may hold a store's file for a moment after its last handle was dropped. So a store that is busy is asked
/// for again for this long before somebody else is said to have it.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens or creates a store. Flushing is the writer's business alone, so sled's own timer is off.
pub(crate) fn open(store_dir: &Path) -> Result<sled::Db, LedgerError> {
    let config = sled::Config::new().path(store_dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let began = Instant::now();
    loop {
        match config.open().map_err(|error| LedgerError::store(store_dir, error)) {
            Err(LedgerError::StoreBusy(_)) if began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            opened => return opened,
        }
    }
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
