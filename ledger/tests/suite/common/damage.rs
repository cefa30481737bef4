//! Damage on the disk: bytes of a store's files are changed behind the ledger's back, and behind sled's.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

use specfleet_ledger::Meta;

/// Where a run's rows lie.
pub(crate) fn store_of(run_dir: &Path) -> PathBuf {
    run_dir.join(Meta::read(run_dir).expect("meta.json").store)
}

/// Changes a chunk on the disk, behind the ledger's back: wherever it lies, because sled writes most chunks more than once.
pub(crate) fn damage(run_dir: &Path, table: u8, number: u64, change: impl Fn(&mut [u8])) {
    let store = store_of(run_dir);
    let blobs = fs::read_dir(store.join("blobs")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut places = 0;
    for path in blobs.chain([store.join("db")]) {
        let mut bytes = fs::read(&path).expect("a file");
        let starts: Vec<usize> =
            (0..bytes.len().saturating_sub(33)).filter(|at| bytes[*at..].starts_with(b"SFC\x04")).collect();
        let before = places;
        for at in starts {
            let len = u32::from_le_bytes(bytes[at + 21..at + 25].try_into().expect("four bytes")) as usize;
            if bytes[at + 12] == table && bytes[at + 13..at + 21] == number.to_le_bytes() && at + len <= bytes.len() {
                change(&mut bytes[at..at + len]);
                places += 1;
            }
        }
        if places > before {
            fs::write(&path, bytes).expect("a file");
        }
    }
    assert!(places > 0, "the chunk is nowhere");
}

/// A bit in the middle of a chunk.
pub(crate) fn flip(chunk: &mut [u8]) {
    let middle = chunk.len() / 2;
    chunk[middle] ^= 1;
}
