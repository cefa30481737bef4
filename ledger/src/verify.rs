//! Checking a run: every chunk of every table is read, and what the tables say about each other is compared.

use std::collections::BTreeMap;
use std::path::Path;

use specfleet_engine::id::GenerationId;
use specfleet_engine::record::{AuditRecord, BatchRecord, RoundRecord, VerifierRecord};

use crate::chunk::{self, ChunkIdentity, TableRow};
use crate::columns::{Projection, RoundChunk, RoundColumn};
use crate::damage::{RunPart, Unreadable};
use crate::energy::EnergyRow;
use crate::error::LedgerError;
use crate::meta::RunState;
use crate::reader::RunReader;
use crate::rows::{ClosedGeneration, Piece};
use crate::scores::ScoreRow;
use crate::table::Table;

/// What a check of a run found.
#[derive(Debug)]
pub struct Verified {
    pub tables: Vec<TableCheck>,
    /// Files that are not what was written.
    pub files: Vec<String>,
    /// What contradicts what, beyond single chunks: generations without all their rounds, rows that are said to be stored
    /// and are not.
    pub contradictions: Vec<LedgerError>,
}

impl Verified {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.files.is_empty()
            && self.contradictions.is_empty()
            && self.tables.iter().all(|table| table.damaged.is_empty())
    }
}

/// What a check of one table found.
#[derive(Debug)]
pub struct TableCheck {
    pub table: Table,
    /// Chunks that are there.
    pub chunks: u64,
    /// Rows of those that can be read.
    pub rows: u64,
    /// Bytes of the chunks.
    pub bytes: u64,
    /// The damaged and the missing ones, in order.
    pub damaged: Vec<LedgerError>,
}

impl RunReader {
    /// Reads every chunk of every table and compares the tables with each other. What is found is in the answer; an error
    /// is something that kept the check from being made.
    pub fn verify(&self) -> Result<Verified, LedgerError> {
        let tables = Table::ALL.map(|table| match table {
            Table::Generations => self.verify_table(table, rows::<ClosedGeneration>),
            Table::Rounds => self.verify_rounds(),
            Table::Pieces => self.verify_table(table, rows::<Piece>),
            Table::Batches => self.verify_table(table, rows::<BatchRecord>),
            Table::Energy => self.verify_table(table, rows::<EnergyRow>),
            Table::Audits => self.verify_table(table, rows::<AuditRecord>),
            Table::Verifiers => self.verify_table(table, rows::<VerifierRecord>),
            Table::Scores => self.verify_table(table, rows::<ScoreRow>),
        });
        let tables = tables.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut contradictions = self.generations_without_all_rounds();
        let stored = self.closed().len() as u64;
        let ended_well = self.meta().state == RunState::Completed;
        if let Some(said) = self.progress_said()
            && (said.generations > stored || (ended_well && said.generations != stored))
        {
            contradictions.push(LedgerError::MissingGenerations {
                path: self.store_dir().to_path_buf(),
                expected: said.generations,
                found: stored,
            });
        }
        contradictions.extend(tables.iter().filter_map(|table| self.other_count(table)));
        let of_files = |met: &Unreadable| !matches!(met.part, RunPart::Table(_));
        let files = self.damage_log().met().into_iter().filter(of_files).map(|met| met.why).collect();
        Ok(Verified { tables, files, contradictions })
    }

    /// The error of a table without damaged chunks which has another number of rows than the run's files say.
    fn other_count(&self, check: &TableCheck) -> Option<LedgerError> {
        let expected = self.rows_said(check.table).filter(|rows| *rows != check.rows && check.damaged.is_empty())?;
        let (path, table, found) = (self.store_dir().to_path_buf(), check.table, check.rows);
        Some(LedgerError::OtherCount { path, table, expected, found })
    }

    /// Reads the chunks of a table; `count` gives the rows of one. Chunks are numbered without gaps.
    fn verify_table(
        &self,
        table: Table,
        count: impl Fn(&[u8], ChunkIdentity) -> Result<usize, crate::codec::Malformed>,
    ) -> Result<TableCheck, LedgerError> {
        let mut check = TableCheck { table, chunks: 0, rows: 0, bytes: 0, damaged: Vec::new() };
        for entry in self.entries(table) {
            let (number, value) = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    check.damaged.push(error);
                    continue;
                }
            };
            check.chunks += 1;
            check.bytes += value.len() as u64;
            match count(&value, self.expected(number)) {
                Ok(rows) => check.rows += rows as u64,
                Err(error) => check.damaged.push(self.damage(table, number, error.0.to_owned())),
            }
        }
        Ok(check)
    }

    /// The same for rounds, which must be as many as their pieces say.
    fn verify_rounds(&self) -> Result<TableCheck, LedgerError> {
        let mut chunk = RoundChunk::default();
        let mut check = self
            .verify_table(Table::Rounds, |value, expected| Ok(chunk::open::<RoundRecord>(value, expected)?.rows()))?;
        check.rows = 0;
        let damaged = std::mem::take(&mut check.damaged);
        // Checksums first, then everything that decoding finds; each chunk once.
        let mut found: BTreeMap<u64, LedgerError> = BTreeMap::new();
        for error in damaged {
            match error {
                LedgerError::DamagedChunk { sequence, .. } => drop(found.insert(sequence, error)),
                other => check.damaged.push(other),
            }
        }
        let (numbers, errors) = self.round_chunks();
        // The table of pieces, or this one again.
        let known = |damaged: &[LedgerError], error: &LedgerError| {
            damaged.iter().any(|other| other.to_string() == error.to_string())
        };
        for error in errors {
            match error {
                LedgerError::DamagedChunk { sequence, .. } => drop(found.insert(sequence, error)),
                other if known(&check.damaged, &other) => {}
                other => check.damaged.push(other),
            }
        }
        for number in numbers {
            match self.read_rounds(number, Projection::ALL, &mut chunk) {
                Ok(()) => check.rows += chunk.len() as u64,
                // Reported with that table.
                Err(LedgerError::DamagedChunk { table: Table::Pieces, .. }) => {}
                Err(error) => drop(found.insert(number, error)),
            }
        }
        check.damaged.extend(found.into_values());
        Ok(check)
    }

    /// Closed generations that have not all their rounds.
    fn generations_without_all_rounds(&self) -> Vec<LedgerError> {
        let mut found: BTreeMap<GenerationId, u32> = BTreeMap::new();
        for chunk in self.scan_rounds(&[RoundColumn::Position]).flatten() {
            for piece in chunk.pieces.iter().filter(|piece| piece.closed) {
                *found.entry(piece.id).or_default() += piece.range.len() as u32;
            }
        }
        let missing = |id: GenerationId| {
            let (expected, found) = (self.closed().rounds(id).unwrap_or(0), found.get(&id).copied().unwrap_or(0));
            (expected != found).then(|| LedgerError::MissingRounds {
                path: self.store_dir().to_path_buf(),
                id,
                expected,
                found,
            })
        };
        self.closed().ids().filter_map(missing).collect()
    }
}

fn rows<R: TableRow>(chunk: &[u8], expected: ChunkIdentity) -> Result<usize, crate::codec::Malformed> {
    Ok(chunk::read::<R>(chunk, expected)?.len())
}

/// Opens a run that has ended and checks it: [`RunReader::verify`].
pub fn verify(run_dir: &Path) -> Result<Verified, LedgerError> {
    RunReader::open(run_dir)?.verify()
}
