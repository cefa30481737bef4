//! Rewriting a run that has ended into a fresh store: the same rows in fewer bytes.
//!
//! A run's store grows in small pieces: what half a second brought, and sled's log of how it came. Here each generation's
//! rounds come together in full chunks, in a store that holds nothing else.
//!
//! # Crashes
//!
//! The fresh store is filled, put on the disk, opened again and compared row by row. Then `meta.json` is replaced, which
//! names the folder of the store: before that the old store is the run's, after it the new one. What is
//! left beside it by a crash, on either side of that moment, is a folder that nobody names; the next compaction removes it.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, BatchRecord, RoundRecord, UploadCost, VerifierRecord};
use specfleet_engine::time::Time;

use crate::appender::Appender;
use crate::chunk::{self, TableRow};
use crate::columns::{RoundChunk, RoundColumn};
use crate::energy::EnergyRow;
use crate::error::LedgerError;
use crate::id::RunId;
use crate::lock::RunLock;
use crate::manifest::{Manifest, Tables};
use crate::meta::{self, Meta, RunState};
use crate::reader::RunReader;
use crate::rows::{ClosedGeneration, Piece};
use crate::scores::ScoreRow;
use crate::store;
use crate::table::Table;

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the store's files before.
    pub bytes_before: u64,
    /// Bytes of the store's files after.
    pub bytes_after: u64,
    pub rounds: u64,
}

/// Rounds of unfinished generations to hold in memory; beyond, they are written as they are.
const MOST_WAITING: usize = 1 << 20;

/// Rewrites a run that has ended into a fresh store, checks that every row is there, and puts it in the
/// place of the old one. Every row keeps its value; those of the tables other than `rounds` keep their order.
///
/// A damaged chunk is an error, and nothing is changed: what it held would be lost for good.
pub fn compact(run_dir: &Path) -> Result<Compacted, LedgerError> {
    compact_watched(run_dir, &mut |_| ())
}

/// Points on the way of a compaction. A crash at any of them costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactStep {
    /// The fresh store has the rounds and nothing else.
    Filling,
    /// It has everything, and is about to be compared.
    Filled,
    /// It is complete and on the disk.
    Checked,
    /// It is the run's; the old one is still there.
    Swapped,
}

/// The same; `seen` is told of each step when it is done.
pub fn compact_watched(run_dir: &Path, seen: &mut dyn FnMut(CompactStep)) -> Result<Compacted, LedgerError> {
    Meta::read(run_dir)?;
    let _lock = RunLock::for_writing(run_dir)?;
    rewrite(run_dir, seen)
}

/// The same for who holds the run's lock.
pub(crate) fn rewrite(run_dir: &Path, seen: &mut dyn FnMut(CompactStep)) -> Result<Compacted, LedgerError> {
    // Nobody writes now: what it says is final.
    let meta = Meta::read(run_dir)?;
    let old_dir = store::path(run_dir, &meta.store)?;
    remove_leftovers(run_dir, &meta.store)?;
    let id = meta.written_id(run_dir)?;
    let mut fresh = Meta {
        state: if meta.state == RunState::Running { RunState::Interrupted } else { meta.state.clone() },
        store: store::next_name(&meta.store),
        ..meta.clone()
    };
    let fresh_dir = store::path(run_dir, &fresh.store)?;
    let old = RunReader::over(run_dir, meta)?;
    if let Some(damage) = old.damage_log().met().into_iter().next() {
        return Err(LedgerError::NotWhole { path: old_dir, reason: damage.why });
    }
    let bytes_before = store::bytes(&old_dir)?;
    let filled = fill(&old, &fresh_dir, id, seen).and_then(|(rounds, tables)| {
        seen(CompactStep::Filled);
        fresh.manifest = Some(Manifest::seal(&fresh_dir, tables)?);
        compare(&old, &RunReader::over(run_dir, fresh.clone())?)?;
        Ok(rounds)
    });
    drop(old);
    let rounds = match filled {
        Ok(rounds) => rounds,
        Err(error) => {
            // Half a store is of no use; the error says more than a failure to remove it.
            let _ = fs::remove_dir_all(&fresh_dir);
            return Err(error);
        }
    };
    store::sync_names(run_dir)?;
    seen(CompactStep::Checked);
    let manifest = meta::to_value(run_dir, &fresh.manifest)?;
    meta::edit(run_dir, |fields| {
        fields.insert("store".to_owned(), fresh.store.clone().into());
        fields.insert("manifest".to_owned(), manifest);
        if fresh.state == RunState::Interrupted {
            // Its writer died, and could not say so.
            fields.insert("state".to_owned(), "interrupted".into());
        }
    })?;
    store::sync_names(run_dir)?;
    seen(CompactStep::Swapped);
    remove_leftovers(run_dir, &fresh.store)?;
    Ok(Compacted { bytes_before, bytes_after: store::bytes(&fresh_dir)?, rounds })
}

/// Removes the stores that are not the run's.
pub(crate) fn remove_leftovers(run_dir: &Path, store: &str) -> Result<(), LedgerError> {
    let failed = |error| LedgerError::io(run_dir, error);
    for entry in fs::read_dir(run_dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name != store && store::is_store(name)) {
            fs::remove_dir_all(entry.path()).map_err(|error| LedgerError::io(&entry.path(), error))?;
        }
    }
    Ok(())
}

/// Writes all rows of `old` into a fresh store; the number of rounds, and what it holds then.
fn fill(
    old: &RunReader,
    fresh_dir: &Path,
    run: RunId,
    seen: &mut dyn FnMut(CompactStep),
) -> Result<(u64, Tables), LedgerError> {
    let mut rows = Appender::in_bulk(fresh_dir, run, count_rows(old)?)?;
    let rounds = fill_rounds(old, &mut rows)?;
    rows.flush()?;
    seen(CompactStep::Filling);
    for table in Table::ALL {
        match table {
            // Above, and with it.
            Table::Rounds | Table::Pieces => {}
            Table::Generations => fill_table(old, &mut rows, |pending| &mut pending.generations)?,
            Table::Batches => fill_table(old, &mut rows, |pending| &mut pending.batches)?,
            Table::Energy => fill_table(old, &mut rows, |pending| &mut pending.energy)?,
            Table::Audits => fill_table(old, &mut rows, |pending| &mut pending.audits)?,
            Table::Verifiers => fill_table(old, &mut rows, |pending| &mut pending.verifiers)?,
            Table::Scores => fill_table(old, &mut rows, |pending| &mut pending.scores)?,
        }
    }
    rows.flush()?;
    Ok((rounds, rows.close()))
}

/// Rows of each table.
fn count_rows(old: &RunReader) -> Result<BTreeMap<Table, u64>, LedgerError> {
    let count = |table: Table| match table {
        Table::Rounds => old.count::<RoundRecord>(),
        Table::Pieces => old.count::<Piece>(),
        Table::Generations => old.count::<ClosedGeneration>(),
        Table::Batches => old.count::<BatchRecord>(),
        Table::Energy => old.count::<EnergyRow>(),
        Table::Audits => old.count::<AuditRecord>(),
        Table::Verifiers => old.count::<VerifierRecord>(),
        Table::Scores => old.count::<ScoreRow>(),
    };
    Table::ALL.into_iter().map(|table| Ok((table, count(table)?))).collect()
}

fn fill_table<R: TableRow>(
    old: &RunReader,
    rows: &mut Appender,
    place: impl Fn(&mut crate::appender::PendingRows) -> &mut Vec<R>,
) -> Result<(), LedgerError> {
    for row in old.rows::<R>() {
        place(&mut rows.pending).push(row?);
        rows.commit_if_full()?;
    }
    Ok(())
}

/// Rounds of a generation of which more are to come.
struct WaitingRounds {
    device: DeviceId,
    first: u32,
    rows: Vec<RoundRecord>,
}

/// Rounds, generation by generation where they fit the memory.
fn fill_rounds(old: &RunReader, rows: &mut Appender) -> Result<u64, LedgerError> {
    let mut waiting: BTreeMap<GenerationId, WaitingRounds> = BTreeMap::new();
    // Of generations of which some rounds were written: when the last of these was committed.
    let mut last: BTreeMap<GenerationId, Time> = BTreeMap::new();
    let (mut count, mut total) = (0, 0);
    for chunk in old.scan_rounds(RoundColumn::ALL) {
        let RoundChunk { pieces, rows: columns } = chunk?;
        for piece in pieces {
            let generation = waiting.entry(piece.id).or_insert_with(|| WaitingRounds {
                device: piece.device,
                first: piece.first,
                rows: Vec::new(),
            });
            let end = piece.first.wrapping_add(piece.range.len() as u32);
            count += piece.range.len();
            total += piece.range.len() as u64;
            generation.rows.extend(piece.range.map(|row| columns.record(row)));
            let whole = old.closed().rounds(piece.id).is_some_and(|rounds| rounds == end);
            if whole && let Some(generation) = waiting.remove(&piece.id) {
                count -= generation.rows.len();
                write(piece.id, &generation, &mut last, rows);
                rows.commit_if_full()?;
            }
        }
        if count > MOST_WAITING {
            count = 0;
            write_all(&mut waiting, &mut last, rows)?;
        }
    }
    write_all(&mut waiting, &mut last, rows)?;
    Ok(total)
}

fn write_all(
    waiting: &mut BTreeMap<GenerationId, WaitingRounds>,
    last: &mut BTreeMap<GenerationId, Time>,
    rows: &mut Appender,
) -> Result<(), LedgerError> {
    for (id, generation) in std::mem::take(waiting) {
        write(id, &generation, last, rows);
        rows.commit_if_full()?;
    }
    rows.commit()
}

fn write(id: GenerationId, generation: &WaitingRounds, last: &mut BTreeMap<GenerationId, Time>, rows: &mut Appender) {
    let (Some(first), Some(end)) = (generation.rows.first(), generation.rows.last()) else { return };
    let base = last.insert(id, end.committed_at).unwrap_or(first.committed_at);
    rows.pending.add_rounds(id, generation.device, generation.first, base, &generation.rows);
}

/// Whether both hold the same rows.
fn compare(old: &RunReader, new: &RunReader) -> Result<(), LedgerError> {
    for table in Table::ALL {
        let same = match table {
            Table::Rounds => same_rounds(old, new)?,
            // What they say is compared with the rounds.
            Table::Pieces => true,
            Table::Generations => same_rows::<ClosedGeneration>(old, new)?,
            Table::Batches => same_rows::<BatchRecord>(old, new)?,
            Table::Energy => same_rows::<EnergyRow>(old, new)?,
            Table::Audits => same_rows::<AuditRecord>(old, new)?,
            Table::Verifiers => same_rows::<VerifierRecord>(old, new)?,
            Table::Scores => same_rows::<ScoreRow>(old, new)?,
        };
        if !same {
            return Err(LedgerError::NotTheSame { path: new.store_dir().to_path_buf(), table });
        }
    }
    Ok(())
}

/// Compares as the rows are written, because a NaN equals nothing.
fn same_rows<R: TableRow>(old: &RunReader, new: &RunReader) -> Result<bool, LedgerError> {
    let (mut old, mut new) = (old.rows::<R>(), new.rows::<R>());
    loop {
        let part = |rows: &mut dyn Iterator<Item = Result<R, LedgerError>>| {
            rows.take(R::ROWS_PER_CHUNK).collect::<Result<Vec<R>, LedgerError>>()
        };
        let (old, new) = (part(&mut old)?, part(&mut new)?);
        if old.len() != new.len() || chunk::columns(&old) != chunk::columns(&new) {
            return Ok(false);
        }
        if old.is_empty() {
            return Ok(true);
        }
    }
}

/// Compares the rounds of every generation: number, order, device and bits.
fn same_rounds(old: &RunReader, new: &RunReader) -> Result<bool, LedgerError> {
    // A hash over the rows in their order, so that no generation must be in memory.
    let hashes = |reader: &RunReader| {
        let mut seen: BTreeMap<GenerationId, (DeviceId, u32, DefaultHasher)> = BTreeMap::new();
        for chunk in reader.scan_rounds(RoundColumn::ALL) {
            let chunk = chunk?;
            for piece in &chunk.pieces {
                let (_, next, hash) = seen.entry(piece.id).or_insert_with(|| (piece.device, 0, DefaultHasher::new()));
                if piece.first != *next {
                    // A gap shows as another hash.
                    hash.write_u32(piece.first);
                }
                *next = piece.first.wrapping_add(piece.range.len() as u32);
                piece.range.clone().for_each(|row| hash_round(&chunk.rows.record(row), hash));
            }
        }
        let hashes = seen.into_iter().map(|(id, (device, rounds, hash))| (id, device, rounds, hash.finish()));
        Ok::<Vec<_>, LedgerError>(hashes.collect())
    };
    Ok(hashes(old)? == hashes(new)?)
}

/// Every field, bit for bit.
fn hash_round(round: &RoundRecord, hash: &mut DefaultHasher) {
    let RoundRecord { position, token, draft, rejections, source, reason, committed_at, waiting, upload, .. } = *round;
    (position, token, draft, rejections, source, reason, committed_at, waiting).hash(hash);
    let RoundRecord { uncertainty, importance, importance_threshold, draft_probability, price, .. } = *round;
    [uncertainty, importance, importance_threshold, draft_probability, price].map(f32::to_bits).hash(hash);
    let Some(cost) = upload else { return hash.write_u8(0) };
    hash.write_u8(1);
    let UploadCost { attempts, uplink_bits, uplink_bytes, downlink_bytes, snr_db, uplink, downlink, verify } = cost;
    (attempts, uplink_bits, uplink_bytes, downlink_bytes, snr_db.to_bits(), uplink, downlink, verify).hash(hash);
}
