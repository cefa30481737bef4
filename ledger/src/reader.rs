//! Reading a run that has ended, whether it ended well or not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::de::DeserializeOwned;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, BatchRecord, GenerationRecord, RoundRecord, VerifierRecord};

use crate::chunk::{self, ChunkIdentity, TableRow};
use crate::damage::DamageLog;
use crate::energy::EnergyRow;
use crate::error::LedgerError;
use crate::id::RunId;
use crate::index::{Closed, PieceIndex};
use crate::lock::RunLock;
use crate::manifest::Tables;
use crate::meta::{self, META_FILE, Meta, PROGRESS_FILE, RunProgress, RunState, SUMMARY_FILE};
use crate::rows::{ClosedGeneration, Piece, to_absolute};
use crate::scores::ScoreRow;
use crate::source::{ChunkSource, SourceError};
use crate::store;
use crate::table::Table;

/// Chunks up to which a run's files are taken at their word about how many there are; beyond that the store is asked, so that
/// a wrong number takes no memory.
const MOST_SAID: u64 = 1 << 20;

/// Decoded rounds to keep, beside the chunk that is read: generations that ran at the same time share chunks, and are read
/// one by one. 25 MB.
const CACHED_ROUNDS: usize = 32 * RoundRecord::ROWS_PER_CHUNK;

/// A run's rows.
///
/// *Complete* are the rows of closed generations; [`RunReader::open_generations`] names the others. A damaged chunk costs
/// what lies in it and nothing else: iterators yield an error in its place and go on, and [`RunReader::damaged`] lists
/// what hides generations: damage of the tables that say which there are.
///
/// Opening reads no row: what says which generations there are, and where, is read when it is first asked for.
#[derive(Debug)]
pub struct RunReader {
    run_dir: PathBuf,
    /// The number that its rows bear.
    run: RunId,
    meta: Meta,
    store_dir: PathBuf,
    source: ChunkSource,
    /// What the run's files say that the store holds; `None` if they are damaged.
    tables: Option<Tables>,
    /// How far its writer said that it had come; `None` if that file is damaged.
    progress: Option<RunProgress>,
    closed: OnceLock<Closed>,
    places: OnceLock<PieceIndex>,
    damaged: OnceLock<Vec<LedgerError>>,
    cache: Mutex<Vec<(u64, Arc<Vec<RoundRecord>>)>>,
    damage_log: DamageLog,
    /// Keeps those away who would compact the run, delete it or add to it. Declared after `source`, so dropped after it.
    _lock: Option<RunLock>,
}

/// All rounds of one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRounds {
    pub id: GenerationId,
    /// The device that ran it.
    pub device: DeviceId,
    /// Its rounds, in the order of their commits.
    pub rounds: Vec<RoundRecord>,
}

/// A generation whose rounds were partly stored when its run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenGeneration {
    pub id: GenerationId,
    /// The device that ran it.
    pub device: DeviceId,
    pub rounds: u32,
}

impl RunReader {
    /// Opens a run that has ended. A run that is being written is [`LedgerError::StillRunning`]; one of a newer schema is
    /// refused before anything but its `meta.json` was read.
    ///
    /// Nothing in the run's folder is changed. A store that is as it was closed is read through sled, from a private copy;
    /// any other is read as far as its chunks are whole, and what is wrong with it stands in [`RunReader::damage_log`] at once.
    pub fn open(run_dir: &Path) -> Result<RunReader, LedgerError> {
        Meta::read(run_dir)?;
        let lock = RunLock::for_reading(run_dir)?;
        // Nobody writes now: what it says is final.
        let mut meta = Meta::read(run_dir)?;
        if meta.state == RunState::Running {
            meta.state = RunState::Interrupted;
        }
        Ok(RunReader { _lock: lock, ..RunReader::over(run_dir, meta)? })
    }

    /// The same without sled, and of a run whose `meta.json` can be parsed but is not what was written.
    pub(crate) fn open_files(run_dir: &Path) -> Result<RunReader, LedgerError> {
        let read = || match Meta::read(run_dir) {
            Err(LedgerError::BrokenSeal(_)) => Ok((Meta::read_unchecked(run_dir)?, false)),
            read => read.map(|meta| (meta, true)),
        };
        read()?;
        let lock = RunLock::for_reading(run_dir)?;
        let (mut meta, is_sealed) = read()?;
        if meta.state == RunState::Running {
            meta.state = RunState::Interrupted;
        }
        let store_dir = store::path(run_dir, &meta.store)?;
        let run = meta.written_id(run_dir)?;
        let damage_log = DamageLog::default();
        if !is_sealed {
            damage_log.note_file(META_FILE, LedgerError::BrokenSeal(run_dir.join(META_FILE)));
        }
        if let Some(manifest) = &meta.manifest {
            manifest.differences(&store_dir).into_iter().for_each(|error| drop(damage_log.note_store(error)));
        }
        let source = ChunkSource::files(&store_dir, run, &damage_log)?;
        Ok(RunReader { _lock: lock, ..RunReader::with(run_dir, meta, run, store_dir, source, damage_log) })
    }

    /// Reads the store that `meta` names, which nobody writes: the caller holds the run's lock.
    pub(crate) fn over(run_dir: &Path, meta: Meta) -> Result<RunReader, LedgerError> {
        let store_dir = store::path(run_dir, &meta.store)?;
        if !store_dir.is_dir() {
            return Err(LedgerError::MissingStore(store_dir));
        }
        let damage_log = DamageLog::default();
        let run = meta.written_id(run_dir)?;
        let source = ChunkSource::of(&store_dir, &meta, run, &damage_log)?;
        Ok(RunReader::with(run_dir, meta, run, store_dir, source, damage_log))
    }

    fn with(
        run_dir: &Path,
        meta: Meta,
        run: RunId,
        store_dir: PathBuf,
        source: ChunkSource,
        damage_log: DamageLog,
    ) -> RunReader {
        let noted = |error| drop(damage_log.note_file(PROGRESS_FILE, error));
        let stock = meta::stock(run_dir).map_err(noted).ok();
        let progress = stock.as_ref().map(|stock| stock.progress);
        let tables = match &meta.manifest {
            Some(manifest) => Some(manifest.tables.clone()),
            None => stock.and_then(|stock| stock.tables_of(run_dir, &meta.store).map_err(noted).ok()),
        };
        RunReader {
            run_dir: run_dir.to_path_buf(),
            meta,
            run,
            store_dir,
            source,
            tables,
            progress,
            closed: OnceLock::new(),
            places: OnceLock::new(),
            damaged: OnceLock::new(),
            cache: Mutex::new(Vec::new()),
            damage_log,
            _lock: None,
        }
    }

    /// Where its rows lie.
    pub(crate) fn store_dir(&self) -> &Path {
        &self.store_dir
    }

    /// The run's description; never in state [`RunState::Running`].
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The summary that its writer put beside the rows; `None` if there is none, and the rows say everything.
    pub fn stored_summary(&self) -> Result<Option<String>, LedgerError> {
        meta::read_sealed(&self.run_dir, SUMMARY_FILE)
    }

    /// The same, parsed; one that does not parse is damage of the run.
    pub fn parsed_summary<T: DeserializeOwned>(&self) -> Result<Option<T>, LedgerError> {
        let path = self.run_dir.join(SUMMARY_FILE);
        let parse = |text: String| {
            serde_json::from_str(&text).map(Some).map_err(|source| LedgerError::DamagedFile { path, source })
        };
        let parsed = self.stored_summary().and_then(|text| text.map_or(Ok(None), parse));
        parsed.map_err(|error| self.damage_log.note_file(SUMMARY_FILE, error))
    }

    /// Damage of the tables that say which generations there are. What else is damaged shows where it is read.
    pub fn damaged(&self) -> &[LedgerError] {
        self.damaged.get_or_init(|| {
            let generations = self.chunks::<ClosedGeneration>().filter_map(Result::err);
            generations.chain(self.chunks::<Piece>().filter_map(Result::err)).collect()
        })
    }

    /// What was met so far that could not be read, skipped errors included.
    pub fn damage_log(&self) -> &DamageLog {
        &self.damage_log
    }

    /// The closed generations, in the order in which they were closed.
    pub fn generations(&self) -> impl Iterator<Item = Result<GenerationRecord, LedgerError>> + '_ {
        self.rows::<ClosedGeneration>().map(|row| row.map(|row| row.record))
    }

    /// Number of closed generations.
    pub fn closed_generations(&self) -> usize {
        self.closed().len()
    }

    /// Generations that have rounds but were never closed: what was under way when the run was interrupted.
    pub fn open_generations(&self) -> Vec<OpenGeneration> {
        let open = self.places().by_generation().filter(|places| self.closed().rounds(places[0].piece.id).is_none());
        open.map(|places| OpenGeneration {
            id: places[0].piece.id,
            device: places[0].piece.device,
            rounds: places.iter().fold(0, |sum, place| sum.saturating_add(place.piece.rounds)),
        })
        .collect()
    }

    /// The rounds of one generation, in the order of their commits; empty if the run has no such generation.
    pub fn rounds(&self, id: GenerationId) -> Result<Vec<RoundRecord>, LedgerError> {
        let mut rounds = Vec::new();
        for place in self.places().of(id) {
            let chunk = self.chunk(place.chunk)?;
            let start = place.offset as usize;
            let range = start..start + place.piece.rounds as usize;
            let stored = chunk.get(range).ok_or_else(|| {
                self.damage(Table::Rounds, place.chunk, "it has fewer rows than its pieces say".to_owned())
            })?;
            let start = rounds.len();
            rounds.extend_from_slice(stored);
            to_absolute(&mut rounds[start..], place.piece.first, place.piece.base);
        }
        match self.closed().rounds(id) {
            Some(expected) if expected as usize != rounds.len() => {
                let (path, found) = (self.store_dir.clone(), rounds.len() as u32);
                Err(self.damage_log.note(Table::Rounds, LedgerError::MissingRounds { path, id, expected, found }))
            }
            _ => Ok(rounds),
        }
    }

    /// Those rounds of a generation that can be read.
    pub(crate) fn rounds_found(&self, id: GenerationId) -> Vec<RoundRecord> {
        let mut rounds = Vec::new();
        for place in self.places().of(id) {
            let Ok(chunk) = self.chunk(place.chunk) else { continue };
            let start = place.offset as usize;
            let Some(stored) = chunk.get(start..start + place.piece.rounds as usize) else { continue };
            let start = rounds.len();
            rounds.extend_from_slice(stored);
            to_absolute(&mut rounds[start..], place.piece.first, place.piece.base);
        }
        rounds
    }

    /// The rounds of every closed generation, in the order in which they lie in the store.
    pub fn closed_rounds(&self) -> impl Iterator<Item = Result<GenerationRounds, LedgerError>> + '_ {
        let first = |id: GenerationId| self.places().of(id).first();
        let mut ids: Vec<_> =
            self.closed().ids().map(|id| (first(id).map(|place| (place.chunk, place.offset)), id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(move |(_, id)| {
            let device = first(id).map_or_else(DeviceId::default, |place| place.piece.device);
            Ok(GenerationRounds { id, device, rounds: self.rounds(id)? })
        })
    }

    /// The verification batches, in the order in which they were appended.
    pub fn batches(&self) -> impl Iterator<Item = Result<BatchRecord, LedgerError>> + '_ {
        self.rows()
    }

    /// The audits.
    pub fn audits(&self) -> impl Iterator<Item = Result<AuditRecord, LedgerError>> + '_ {
        self.rows()
    }

    /// The verifiers, per method.
    pub fn verifiers(&self) -> impl Iterator<Item = Result<VerifierRecord, LedgerError>> + '_ {
        self.rows()
    }

    /// The scores that were added since the run ended, by scorer ([`Meta::scorers`]).
    pub fn scores(&self) -> impl Iterator<Item = Result<ScoreRow, LedgerError>> + '_ {
        self.rows()
    }

    /// The energy rows: four per closed generation, one per method and verifier.
    pub fn energy(&self) -> impl Iterator<Item = Result<EnergyRow, LedgerError>> + '_ {
        self.rows()
    }

    /// Bytes of all chunks of a table: the rows' own size, without sled's overhead.
    pub fn chunk_bytes(&self, table: Table) -> Result<u64, LedgerError> {
        self.entries(table).map(|entry| entry.map(|(_, value)| value.len() as u64)).sum()
    }

    pub(crate) fn closed(&self) -> &Closed {
        self.closed.get_or_init(|| {
            let chunks = self.entries(Table::Generations).filter_map(Result::ok);
            Closed::new(chunks.map(|(number, chunk)| (self.expected(number), chunk)))
        })
    }

    /// Where the rounds of each generation lie.
    fn places(&self) -> &PieceIndex {
        self.places.get_or_init(|| PieceIndex::new(self.chunks().filter_map(Result::ok)))
    }

    /// How far its writer said that it had come, as far as that is said.
    pub(crate) fn progress_said(&self) -> Option<RunProgress> {
        self.progress
    }

    /// How many chunks a table has, as far as that is said.
    pub(crate) fn chunks_said(&self, table: Table) -> Option<u64> {
        let tables = self.tables.as_ref()?;
        Some(tables.get(&table).map_or(0, |stored| stored.chunks))
    }

    /// How many rows a table has, as far as that is said.
    pub(crate) fn rows_said(&self, table: Table) -> Option<u64> {
        let tables = self.tables.as_ref()?;
        Some(tables.get(&table).map_or(0, |stored| stored.rows))
    }

    /// The numbers of a table's chunks from `first` to `last`, and why these are not all. Chunks beyond those that the run's
    /// files tell of are none of its: they were written and never acknowledged.
    pub(crate) fn numbers(&self, table: Table, first: u64, last: u64) -> (Vec<u64>, Option<LedgerError>) {
        let said = self.chunks_said(table);
        let last = match said {
            Some(0) => return (Vec::new(), None),
            Some(chunks) => last.min(chunks - 1),
            None => last,
        };
        if first > last {
            return (Vec::new(), None);
        }
        if matches!(self.source, ChunkSource::Sled { .. }) && said.is_some() && last - first < MOST_SAID {
            // The store is as it was closed.
            return ((first..=last).collect(), None);
        }
        let (numbers, error) = self.source.numbers(table, first, last);
        (numbers, error.map(|error| self.unreadable(table, error)))
    }

    /// One chunk as it lies in the store.
    pub(crate) fn value(&self, table: Table, sequence: u64) -> Result<sled::IVec, LedgerError> {
        let value = self.source.get(table, sequence).map_err(|error| self.unreadable(table, error))?;
        value.ok_or_else(|| self.damage(table, sequence, self.lacking().to_owned()))
    }

    /// What the chunk of this number must say of itself.
    pub(crate) fn expected(&self, number: u64) -> ChunkIdentity {
        ChunkIdentity { run: self.run, number }
    }

    /// The rows of a table; an error stands for a chunk.
    pub(crate) fn rows<R: TableRow>(&self) -> impl Iterator<Item = Result<R, LedgerError>> + '_ {
        self.chunks().flat_map(|chunk| {
            let (rows, error) = match chunk {
                Ok((_, rows)) => (rows, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            rows.into_iter().map(Ok).chain(error)
        })
    }

    /// The chunks of a table with their numbers, in the order of writing.
    pub(crate) fn chunks<R: TableRow>(&self) -> impl Iterator<Item = Result<(u64, Vec<R>), LedgerError>> + '_ {
        self.entries(R::TABLE).map(|entry| {
            let (sequence, value) = entry?;
            let rows = chunk::read(&value, self.expected(sequence))
                .map_err(|error| self.damage(R::TABLE, sequence, error.0.to_owned()))?;
            Ok((sequence, rows))
        })
    }

    /// The number of rows of a table.
    pub(crate) fn count<R: TableRow>(&self) -> Result<u64, LedgerError> {
        if let Some(rows) = self.rows_said(R::TABLE) {
            return Ok(rows);
        }
        let rows = self.entries(R::TABLE).map(|entry| {
            let (number, value) = entry?;
            let columns = chunk::open::<R>(&value, self.expected(number));
            columns
                .map(|columns| columns.rows() as u64)
                .map_err(|error| self.damage(R::TABLE, number, error.0.to_owned()))
        });
        rows.sum()
    }

    /// The same, as they lie in the store. A page that sled cannot read gives one error, for all the chunks in it, and so do
    /// chunks that are missing side by side.
    pub(crate) fn entries(&self, table: Table) -> impl Iterator<Item = Result<(u64, sled::IVec), LedgerError>> + '_ {
        let (numbers, error) = self.numbers(table, 0, u64::MAX);
        let end = numbers.last().map_or(0, |last| last.saturating_add(1));
        let mut next = 0;
        let stored = numbers.into_iter().flat_map(move |number| {
            let gap = self.gap(table, next, number).map(Err);
            next = number.saturating_add(1);
            gap.into_iter().chain([self.value(table, number).map(|value| (number, value))])
        });
        let behind = std::iter::once_with(move || self.end_gap(table, end).map(Err)).flatten();
        error.map(Err).into_iter().chain(stored).chain(behind)
    }

    /// One chunk of rounds, positions and times still relative.
    fn chunk(&self, sequence: u64) -> Result<Arc<Vec<RoundRecord>>, LedgerError> {
        // The cache holds nothing but whole entries, so a poisoned lock guards a good one.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = cache.iter().position(|(cached, _)| *cached == sequence) {
            let hit = cache.remove(at);
            cache.push(hit);
        } else {
            let value = self.value(Table::Rounds, sequence)?;
            let rows = chunk::read(&value, self.expected(sequence))
                .map_err(|error| self.damage(Table::Rounds, sequence, error.0.to_owned()))?;
            while cache.iter().map(|(_, rows)| rows.len()).sum::<usize>() > CACHED_ROUNDS {
                cache.remove(0);
            }
            cache.push((sequence, Arc::new(rows)));
        }
        let (_, rows) = cache.last().expect("invariant: the entry was just put there");
        Ok(Arc::clone(rows))
    }

    /// The error of a damaged chunk, noted.
    pub(crate) fn damage(&self, table: Table, sequence: u64, reason: String) -> LedgerError {
        let error = LedgerError::DamagedChunk { path: self.store_dir.clone(), table, sequence, reason };
        self.damage_log.note(table, error)
    }

    /// The error of chunks that were to come next and are not there, where chunk `number` is; chunks are numbered without
    /// gaps, and a gap is one finding, however wide it is.
    pub(crate) fn gap(&self, table: Table, next: u64, number: u64) -> Option<LedgerError> {
        match number.saturating_sub(next) {
            0 => None,
            1 => Some(self.damage(table, next, self.lacking().to_owned())),
            _ => Some(self.damage(table, next, format!("{}, as are all before chunk {number}", self.lacking()))),
        }
    }

    /// The error of chunks that are missing behind the last one, which ends before chunk `next`.
    pub(crate) fn end_gap(&self, table: Table, next: u64) -> Option<LedgerError> {
        let said = self.chunks_said(table)?;
        let last = said.checked_sub(1).filter(|last| *last >= next)?;
        match last - next {
            0 => Some(self.damage(table, next, self.lacking().to_owned())),
            _ => Some(self.damage(table, next, format!("{}, as are all up to chunk {last}", self.lacking()))),
        }
    }

    /// What is wrong with a chunk that is not there.
    fn lacking(&self) -> &'static str {
        match self.source {
            ChunkSource::Sled { .. } => "it is missing",
            ChunkSource::Files(_) => "it is missing, or not whole",
        }
    }

    /// Why a chunk could not be read, noted.
    fn unreadable(&self, table: Table, error: SourceError) -> LedgerError {
        let error = match error {
            SourceError::Sled(error) => LedgerError::store(&self.store_dir, error),
            SourceError::File(error) => error,
        };
        self.damage_log.note(table, error)
    }
}
