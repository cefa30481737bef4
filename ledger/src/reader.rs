//! Reading a run that has ended, whether it ended well or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, BatchRecord, GenerationRecord, RoundRecord, VerifierRecord};

use crate::chunk::{self, Row};
use crate::energy::EnergyRow;
use crate::error::LedgerError;
use crate::lock;
use crate::meta::{self, Meta, RunState, SUMMARY_FILE};
use crate::rows::{ClosedGeneration, Piece, to_absolute};
use crate::scores::ScoreRow;
use crate::store;
use crate::table::Table;

/// Decoded chunks of rounds to keep: generations that ran at the same time share chunks, and are read one by one.
const CACHED_CHUNKS: usize = 32;

/// A run's rows.
///
/// *Complete* are the rows of closed generations; [`RunReader::open_generations`] names the others. A damaged chunk costs
/// what lies in it and nothing else: iterators yield an error in its place and go on, and [`RunReader::damaged`] lists
/// what already the opening found.
#[derive(Debug)]
pub struct RunReader {
    run_dir: PathBuf,
    meta: Meta,
    store_dir: PathBuf,
    store: sled::Db,
    /// Rounds that each closed generation was closed with.
    closed: BTreeMap<GenerationId, u32>,
    /// Where each generation's rounds lie, in order.
    places: BTreeMap<GenerationId, Vec<Place>>,
    damaged: Vec<LedgerError>,
    cache: Mutex<Vec<(u64, Arc<Vec<RoundRecord>>)>>,
}

/// A piece and where it lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: u64,
    /// Index of its first row in the chunk.
    offset: usize,
    piece: Piece,
}

/// All rounds of one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRounds {
    /// Which generation.
    pub id: GenerationId,
    /// The device that ran it.
    pub device: DeviceId,
    /// Its rounds, in the order of their commits.
    pub rounds: Vec<RoundRecord>,
}

/// A generation whose rounds were partly stored when its run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenGeneration {
    /// Which generation.
    pub id: GenerationId,
    /// The device that ran it.
    pub device: DeviceId,
    /// Stored rounds.
    pub rounds: u32,
}

impl RunReader {
    /// Opens a run that has ended. A run that is being written is [`LedgerError::StillRunning`]; one of a newer schema is
    /// refused before anything but its `meta.json` was read.
    pub fn open(run_dir: &Path) -> Result<RunReader, LedgerError> {
        Meta::read(run_dir)?;
        if lock::is_held(run_dir)? {
            return Err(LedgerError::StillRunning(run_dir.to_path_buf()));
        }
        // Nobody writes any more: what it says now is final.
        let mut meta = Meta::read(run_dir)?;
        if meta.state == RunState::Running {
            meta.state = RunState::Interrupted;
        }
        let store_dir = store::path(run_dir);
        if !store_dir.is_dir() {
            // sled would create an empty one.
            return Err(LedgerError::MissingStore(store_dir));
        }
        let store = store::open(&store_dir)?;
        let mut reader = RunReader {
            run_dir: run_dir.to_path_buf(),
            meta,
            store_dir,
            store,
            closed: BTreeMap::new(),
            places: BTreeMap::new(),
            damaged: Vec::new(),
            cache: Mutex::new(Vec::new()),
        };
        reader.index();
        Ok(reader)
    }

    /// The run's description; never in state [`RunState::Running`].
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The summary that its writer put beside the rows; `None` if there is none, and the rows say everything.
    pub fn stored_summary(&self) -> Result<Option<String>, LedgerError> {
        meta::read_text(&self.run_dir, SUMMARY_FILE)
    }

    /// Damage that was found when the run was opened: chunks of the tables that say which generations there are.
    pub fn damaged(&self) -> &[LedgerError] {
        &self.damaged
    }

    /// The closed generations, in the order in which they were closed.
    pub fn generations(&self) -> impl Iterator<Item = Result<GenerationRecord, LedgerError>> + '_ {
        self.rows::<ClosedGeneration>().map(|row| row.map(|row| row.record))
    }

    /// Number of closed generations.
    pub fn closed_generations(&self) -> usize {
        self.closed.len()
    }

    /// Generations that have rounds but were never closed: what was under way when the run was interrupted.
    pub fn open_generations(&self) -> Vec<OpenGeneration> {
        let open = self.places.iter().filter(|(id, _)| !self.closed.contains_key(id));
        open.map(|(id, places)| OpenGeneration {
            id: *id,
            device: places.first().map_or_else(DeviceId::default, |place| place.piece.device),
            rounds: places.iter().map(|place| place.piece.rounds).sum(),
        })
        .collect()
    }

    /// The rounds of one generation, in the order of their commits; empty if the run has no such generation.
    pub fn rounds(&self, id: GenerationId) -> Result<Vec<RoundRecord>, LedgerError> {
        let mut rounds = Vec::new();
        for place in self.places.get(&id).map_or(&[][..], Vec::as_slice) {
            let chunk = self.chunk(place.chunk)?;
            let range = place.offset..place.offset + place.piece.rounds as usize;
            let stored = chunk.get(range).ok_or_else(|| {
                self.damage(Table::Rounds, place.chunk, "it has fewer rows than its pieces say".to_owned())
            })?;
            let start = rounds.len();
            rounds.extend_from_slice(stored);
            to_absolute(&mut rounds[start..], place.piece.first, place.piece.base);
        }
        match self.closed.get(&id) {
            Some(&expected) if expected as usize != rounds.len() => Err(LedgerError::MissingRounds {
                path: self.store_dir.clone(),
                id,
                expected,
                found: rounds.len() as u32,
            }),
            _ => Ok(rounds),
        }
    }

    /// The rounds of every closed generation, in the order in which they lie in the store.
    pub fn closed_rounds(&self) -> impl Iterator<Item = Result<GenerationRounds, LedgerError>> + '_ {
        let first = |id: &GenerationId| self.places.get(id).and_then(|places| places.first());
        let mut ids: Vec<GenerationId> = self.closed.keys().copied().collect();
        ids.sort_by_key(|id| first(id).map(|place| (place.chunk, place.offset)));
        ids.into_iter().map(move |id| {
            let device = first(&id).map_or_else(DeviceId::default, |place| place.piece.device);
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
        let values = self.store.scan_prefix([table.tag()]).values();
        values
            .map(|value| value.map(|value| value.len() as u64))
            .sum::<Result<u64, sled::Error>>()
            .map_err(|error| LedgerError::store(&self.store_dir, error))
    }

    /// Reads the tables that say what there is.
    fn index(&mut self) {
        let mut damaged = Vec::new();
        let mut closed = BTreeMap::new();
        for row in self.rows::<ClosedGeneration>() {
            match row {
                Ok(row) => {
                    closed.insert(row.record.id, row.rounds);
                }
                Err(error) => damaged.push(error),
            }
        }
        let mut places: BTreeMap<GenerationId, Vec<Place>> = BTreeMap::new();
        for chunk in self.chunks::<Piece>() {
            match chunk {
                Ok((chunk, pieces)) => {
                    let mut offset = 0;
                    for piece in pieces {
                        places.entry(piece.id).or_default().push(Place { chunk, offset, piece });
                        offset += piece.rounds as usize;
                    }
                }
                Err(error) => damaged.push(error),
            }
        }
        (self.closed, self.places, self.damaged) = (closed, places, damaged);
    }

    /// The rows of a table; an error stands for a chunk.
    fn rows<R: Row>(&self) -> impl Iterator<Item = Result<R, LedgerError>> + '_ {
        self.chunks().flat_map(|chunk| {
            let (rows, error) = match chunk {
                Ok((_, rows)) => (rows, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            rows.into_iter().map(Ok).chain(error)
        })
    }

    /// The chunks of a table with their numbers, in the order of writing.
    fn chunks<R: Row>(&self) -> impl Iterator<Item = Result<(u64, Vec<R>), LedgerError>> + '_ {
        self.store.scan_prefix([R::TABLE.tag()]).map(|entry| {
            let (key, value) = entry.map_err(|error| LedgerError::store(&self.store_dir, error))?;
            let sequence = R::TABLE.sequence(&key).ok_or_else(|| {
                self.damage(R::TABLE, u64::MAX, format!("its key {:02x?} is none of this table's", &key[..]))
            })?;
            let rows = chunk::read(&value, self.meta.schema)
                .map_err(|error| self.damage(R::TABLE, sequence, error.0.to_owned()))?;
            Ok((sequence, rows))
        })
    }

    /// One chunk of rounds, positions and times still relative.
    fn chunk(&self, sequence: u64) -> Result<Arc<Vec<RoundRecord>>, LedgerError> {
        // The cache holds nothing but whole entries, so a poisoned lock guards a good one.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = cache.iter().position(|(cached, _)| *cached == sequence) {
            let hit = cache.remove(at);
            cache.push(hit);
        } else {
            let value = self.store.get(Table::Rounds.key(sequence));
            let value = value.map_err(|error| LedgerError::store(&self.store_dir, error))?;
            let value = value.ok_or_else(|| self.damage(Table::Rounds, sequence, "it is missing".to_owned()))?;
            let rows = chunk::read(&value, self.meta.schema)
                .map_err(|error| self.damage(Table::Rounds, sequence, error.0.to_owned()))?;
            if cache.len() == CACHED_CHUNKS {
                cache.remove(0);
            }
            cache.push((sequence, Arc::new(rows)));
        }
        let (_, rows) = cache.last().expect("invariant: the entry was just put there");
        Ok(Arc::clone(rows))
    }

    fn damage(&self, table: Table, sequence: u64, reason: String) -> LedgerError {
        LedgerError::DamagedChunk { path: self.store_dir.clone(), table, sequence, reason }
    }
}
