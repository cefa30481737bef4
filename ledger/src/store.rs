//! The one place that opens sled.

use std::path::{Path, PathBuf};

use crate::error::LedgerError;

const STORE_DIR: &str = "store";

/// sled's default cache is 1 GiB; a run's writer needs only its last pages, a reader only what it streams.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Where a run's store lies.
pub(crate) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(STORE_DIR)
}

/// Opens or creates a store. Flushing is the writer's business alone, so sled's own timer is off.
pub(crate) fn open(store_dir: &Path) -> Result<sled::Db, LedgerError> {
    sled::Config::new()
        .path(store_dir)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .open()
        .map_err(|error| LedgerError::store(store_dir, error))
}
