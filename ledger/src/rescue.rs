//! Saving what is whole of a damaged run into a new one.
//!
//! The store is not opened by sled, whose recovery stops at what it cannot read, or panics: its chunks are found in the bytes of
//! its files ([`crate::found`]). A generation of which any round is lost is left open in the new run, so that no figure is of a
//! part of it; and the new run says in its state that something is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use specfleet_engine::id::GenerationId;
use specfleet_engine::record::Provenance;

use crate::energy::{EnergyOwner, EnergyRow};
use crate::error::LedgerError;
use crate::meta::{Meta, RunState};
use crate::reader::RunReader;
use crate::scores::ScoreWriter;
use crate::table::Table;
use crate::writer::RunWriter;

/// How energy is known of which nothing says it any more.
const WEAKEST: Provenance = Provenance::Constant;

/// What was saved.
#[derive(Debug)]
pub struct Rescued {
    /// The folder of the new run.
    pub folder: PathBuf,
    /// Rows of each table: those of the new run, and those that the damaged one is said to have had.
    pub rows: BTreeMap<Table, (u64, Option<u64>)>,
    /// Chunks that are lost, a line each.
    pub lost: Vec<String>,
    /// Generations that were closed, and are open in the new run because rounds of theirs are lost.
    pub opened: Vec<GenerationId>,
}

impl Rescued {
    /// Whether everything is there.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.opened.is_empty()
    }
}

/// Writes what is whole of the run in `run_dir` into a new run `name` of the folder `ledger_dir`. The damaged run stays as it
/// is.
pub fn rescue(run_dir: &Path, ledger_dir: &Path, name: &str) -> Result<Rescued, LedgerError> {
    let damaged = RunReader::open_files(run_dir)?;
    let lost = lost(&damaged)?;
    let meta = damaged.meta();
    let fresh =
        Meta { run: name.to_owned(), imported_from: Some(format!("rescued from run {}", meta.run)), ..meta.clone() };
    let mut writer = RunWriter::create(ledger_dir, fresh)?;
    let opened = copy_generations(&damaged, &mut writer)?;
    for batch in damaged.batches().flatten() {
        writer.append_batch(batch)?;
    }
    for audit in damaged.audits().flatten() {
        writer.append_audit(audit)?;
    }
    copy_verifiers(&damaged, &mut writer)?;
    // A damaged summary is among what was lost.
    if let Ok(Some(summary)) = damaged.stored_summary() {
        writer.put_summary(&summary)?;
    }
    let folder = writer.run_dir().to_path_buf();
    let state = state(meta, &lost, &opened);
    writer.finish_as(state, meta.ended)?;
    copy_scores(&damaged, &folder)?;
    let saved = Meta::read(&folder)?.manifest.unwrap_or_default().tables;
    let rows = Table::ALL.into_iter().map(|table| {
        let saved = saved.get(&table).map_or(0, |stored| stored.rows);
        (table, (saved, damaged.rows_said(table)))
    });
    Ok(Rescued { folder, rows: rows.collect(), lost, opened })
}

/// What a run ended as of which this is missing.
fn state(meta: &Meta, lost: &[String], opened: &[GenerationId]) -> RunState {
    if lost.is_empty() && opened.is_empty() {
        return meta.state.clone();
    }
    let reason = format!(
        "rescued from run {}: {} parts of its tables and files are lost, and {} generations with them",
        meta.run,
        lost.len(),
        opened.len()
    );
    RunState::Failed { reason }
}

/// Everything that cannot be read.
fn lost(damaged: &RunReader) -> Result<Vec<String>, LedgerError> {
    let checked = damaged.verify()?;
    let chunks = checked.tables.iter().flat_map(|table| &table.damaged).map(LedgerError::to_string);
    Ok(checked.files.into_iter().chain(chunks).collect())
}

/// Closed generations with all their rounds, and the rounds of the others; which of the closed ones lack some.
fn copy_generations(damaged: &RunReader, writer: &mut RunWriter) -> Result<Vec<GenerationId>, LedgerError> {
    let mut opened = Vec::new();
    for record in damaged.generations().flatten() {
        match damaged.rounds(record.id) {
            Ok(rounds) => writer.close_generation(record, &rounds)?,
            Err(_) => {
                opened.push(record.id);
                writer.append_rounds(record.id, record.device, &damaged.rounds_found(record.id))?;
            }
        }
    }
    for open in damaged.open_generations() {
        writer.append_rounds(open.id, open.device, &damaged.rounds_found(open.id))?;
    }
    Ok(opened)
}

/// The verifiers, with the provenance of their idle energy, which stands in the table of energy.
fn copy_verifiers(damaged: &RunReader, writer: &mut RunWriter) -> Result<(), LedgerError> {
    let provenances: BTreeMap<EnergyOwner, Provenance> = damaged
        .energy()
        .flatten()
        .filter(|row| matches!(row.owner, EnergyOwner::Verifier { .. }))
        .map(|row| (row.owner, row.provenance))
        .collect();
    for verifier in damaged.verifiers().flatten() {
        let owner = EnergyRow::of_verifier(&verifier, WEAKEST).owner;
        writer.append_verifier(verifier, provenances.get(&owner).copied().unwrap_or(WEAKEST))?;
    }
    Ok(())
}

/// The scores of scorers that the run knows.
fn copy_scores(damaged: &RunReader, folder: &Path) -> Result<(), LedgerError> {
    if damaged.meta().scorers.is_empty() {
        return Ok(());
    }
    let mut scores = ScoreWriter::open(folder)?;
    for row in damaged.scores().flatten() {
        scores.append(row)?;
    }
    scores.finish().map(drop)
}
