//! Rows on their way into a store: buffered in memory, then moved in one atomic sled batch of chunks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, BatchRecord, RoundRecord, VerifierRecord};
use specfleet_engine::time::Time;

use crate::chunk::{self, ChunkIdentity, ChunkLimits, TableRow};
use crate::codec::MAX_LIST_ELEMENTS;
use crate::energy::EnergyRow;
use crate::error::LedgerError;
use crate::id::RunId;
use crate::manifest::{Stored, Tables};
use crate::rows::{ClosedGeneration, Piece, to_relative};
use crate::scores::ScoreRow;
use crate::store;
use crate::table::Table;

/// Fills a store with chunks.
#[derive(Debug)]
pub(crate) struct Appender {
    store_dir: PathBuf,
    store: sled::Db,
    /// Rows that no batch holds yet.
    pub(crate) pending: PendingRows,
    /// The run that the chunks are of.
    run: RunId,
    /// What was moved into the store, of each table.
    tables: Tables,
    /// How large chunks may get.
    limits: ChunkLimits,
    /// Rows that each table will have, where that is known.
    expected: BTreeMap<Table, u64>,
    /// How many chunks' worth of rounds may wait before they are moved.
    chunks: usize,
}

/// Rows that no batch holds yet.
#[derive(Debug, Default)]
pub(crate) struct PendingRows {
    /// In order of generations, so that a generation's rounds lie together in the chunk.
    rounds: BTreeMap<GenerationId, PendingRounds>,
    round_count: usize,
    pub(crate) generations: Vec<ClosedGeneration>,
    pub(crate) batches: Vec<BatchRecord>,
    pub(crate) energy: Vec<EnergyRow>,
    pub(crate) audits: Vec<AuditRecord>,
    pub(crate) verifiers: Vec<VerifierRecord>,
    pub(crate) scores: Vec<ScoreRow>,
    /// In the lists of generations and audits: a few long ones take more memory than all other rows.
    pub(crate) list_elements: usize,
}

/// Rounds of one generation that follow those stored already.
#[derive(Debug)]
struct PendingRounds {
    device: DeviceId,
    /// Index of the first of `rows` among the generation's rounds.
    first: u32,
    /// What the first row's time is stored relative to.
    base: Time,
    rows: Vec<RoundRecord>,
}

impl PendingRows {
    /// Adds rounds of one generation; `first` and `base` are those of the first of them.
    pub(crate) fn add_rounds(
        &mut self,
        id: GenerationId,
        device: DeviceId,
        first: u32,
        base: Time,
        rounds: &[RoundRecord],
    ) {
        let pending = self.rounds.entry(id).or_insert_with(|| PendingRounds { device, first, base, rows: Vec::new() });
        pending.rows.extend_from_slice(rounds);
        self.round_count += rounds.len();
    }
}

impl Appender {
    /// Fills the empty store in `store_dir`, a chunk of rounds at a time.
    pub(crate) fn new(store_dir: &Path, run: RunId) -> Result<Appender, LedgerError> {
        Ok(Appender::over(store_dir, store::open(store_dir)?, run))
    }

    fn over(store_dir: &Path, store: sled::Db, run: RunId) -> Appender {
        Appender {
            store_dir: store_dir.to_path_buf(),
            store,
            pending: PendingRows::default(),
            run,
            tables: Tables::new(),
            limits: ChunkLimits::LIVE,
            expected: BTreeMap::new(),
            chunks: 1,
        }
    }

    /// Fills a new store that is to take little room: in larger chunks, and eight of rounds at a time, so that fewer are
    /// left half full. `expected` says how many rows each table will have.
    pub(crate) fn in_bulk(
        store_dir: &Path,
        run: RunId,
        expected: BTreeMap<Table, u64>,
    ) -> Result<Appender, LedgerError> {
        let store = store::create_for_bulk(store_dir)?;
        Ok(Appender { limits: ChunkLimits::BULK, expected, chunks: 8, ..Appender::over(store_dir, store, run) })
    }

    /// Moves the pending rows if some table has a chunk's worth of them.
    pub(crate) fn commit_if_full(&mut self) -> Result<(), LedgerError> {
        let pending = &self.pending;
        let fills = |rows: usize, per_chunk: usize| rows >= self.limits.rows * per_chunk;
        let full = pending.round_count >= self.chunks * self.limits.rows * RoundRecord::ROWS_PER_CHUNK
            || pending.list_elements > MAX_LIST_ELEMENTS
            || fills(pending.generations.len(), ClosedGeneration::ROWS_PER_CHUNK)
            || fills(pending.batches.len(), BatchRecord::ROWS_PER_CHUNK)
            || fills(pending.energy.len(), EnergyRow::ROWS_PER_CHUNK)
            || fills(pending.audits.len(), AuditRecord::ROWS_PER_CHUNK)
            || fills(pending.verifiers.len(), VerifierRecord::ROWS_PER_CHUNK)
            || fills(pending.scores.len(), ScoreRow::ROWS_PER_CHUNK);
        if full { self.commit() } else { Ok(()) }
    }

    /// Moves all pending rows into the store in one atomic batch.
    ///
    /// A chunk's worth of rows of each table is at most a few hundred KiB, and a few MiB in bulk, far below what
    /// [`store::check_space`] keeps free. When it refuses, the rows stay pending.
    pub(crate) fn commit(&mut self) -> Result<(), LedgerError> {
        store::check_space(&self.store_dir)?;
        let pending = std::mem::take(&mut self.pending);
        let mut batch = sled::Batch::default();
        self.put_rounds(pending.rounds, &mut batch)?;
        self.put(&pending.generations, &mut batch)?;
        self.put(&pending.batches, &mut batch)?;
        self.put(&pending.energy, &mut batch)?;
        self.put(&pending.audits, &mut batch)?;
        self.put(&pending.verifiers, &mut batch)?;
        self.put(&pending.scores, &mut batch)?;
        self.store.apply_batch(batch).map_err(|error| LedgerError::store(&self.store_dir, error))
    }

    /// Moves all pending rows and puts everything on the disk.
    pub(crate) fn flush(&mut self) -> Result<(), LedgerError> {
        self.commit()?;
        self.store.flush().map_err(|error| LedgerError::store(&self.store_dir, error))?;
        Ok(())
    }

    /// What the store holds of each table.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Writes everything into a fresh store that takes less room, if the present one is hardly used; whether it did.
    pub(crate) fn shrink(&self, fresh_dir: &Path) -> Result<bool, LedgerError> {
        store::shrink(&self.store, &self.store_dir, fresh_dir)
    }

    /// Lets go of the store.
    pub(crate) fn close(self) -> Tables {
        self.tables
    }

    /// How large the chunks of a table may get.
    fn limits_of(&self, table: Table) -> ChunkLimits {
        self.limits.of_table(self.expected.get(&table).copied().unwrap_or(0))
    }

    fn put<R: TableRow>(&mut self, rows: &[R], batch: &mut sled::Batch) -> Result<(), LedgerError> {
        if rows.is_empty() {
            return Ok(());
        }
        let limits = self.limits_of(R::TABLE);
        let stored = self.tables.entry(R::TABLE).or_default();
        let mut next = ChunkIdentity { run: self.run, number: stored.chunks };
        chunk::write(rows, limits, &mut next, &mut |count, bytes| {
            batch.insert(&R::TABLE.key(stored.chunks), bytes);
            stored.chunks += 1;
            stored.rows += count as u64;
            Ok(())
        })
    }

    /// Rounds go into shared chunks, generation after generation; beside each chunk its pieces.
    fn put_rounds(
        &mut self,
        pending: BTreeMap<GenerationId, PendingRounds>,
        batch: &mut sled::Batch,
    ) -> Result<(), LedgerError> {
        let mut pieces = Vec::with_capacity(pending.len());
        // The time before each row: what a piece that starts there is relative to.
        let mut bases = Vec::new();
        let mut rows = Vec::new();
        for (id, PendingRounds { device, first, base, rows: mut rounds }) in pending {
            pieces.push(Piece { id, device, first, rounds: rounds.len() as u32, base });
            bases.push(base);
            bases.extend(rounds.iter().map(|round| round.committed_at));
            // One entry per row: the last row's time is nobody's base.
            bases.pop();
            to_relative(&mut rounds, first, base);
            rows.append(&mut rounds);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let run = self.run;
        let mut of_rounds = self.tables.get(&Table::Rounds).copied().unwrap_or_default();
        let mut of_pieces = self.tables.get(&Table::Pieces).copied().unwrap_or_default();
        let mut next = ChunkIdentity { run, number: of_rounds.chunks };
        let mut pieces = pieces.into_iter();
        let mut carried: Option<Piece> = None;
        let mut row = 0;
        let written = chunk::write(&rows, self.limits_of(Table::Rounds), &mut next, &mut |count, bytes| {
            let end = row + count;
            let mut here = Vec::new();
            while row < end {
                let piece = carried.take().or_else(|| pieces.next()).expect("invariant: pieces cover all rows");
                let taken = piece.rounds.min((end - row) as u32);
                row += taken as usize;
                here.push(Piece { rounds: taken, ..piece });
                if taken < piece.rounds {
                    let (first, rounds) = (piece.first + taken, piece.rounds - taken);
                    carried = Some(Piece { first, rounds, base: bases[row], ..piece });
                }
            }
            let number = of_rounds.chunks;
            batch.insert(&Table::Rounds.key(number), bytes);
            batch.insert(&Table::Pieces.key(number), chunk::whole(&here, ChunkIdentity { run, number }));
            of_rounds = Stored { chunks: number + 1, rows: of_rounds.rows + count as u64 };
            of_pieces = Stored { chunks: number + 1, rows: of_pieces.rows + here.len() as u64 };
            Ok(())
        });
        self.tables.insert(Table::Rounds, of_rounds);
        self.tables.insert(Table::Pieces, of_pieces);
        written
    }
}
