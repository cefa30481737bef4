//! A folder of tables into the ledger.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Deserialize;
use serde_json::Value;
use specfleet_engine::id::GenerationId;
use specfleet_engine::record::{AuditRecord, BatchRecord, GenerationRecord};
use specfleet_files::aside::Aside;
use specfleet_ledger::{LedgerError, Meta, RunProgress, RunState, RunWriter, ScoreRow, ScoreWriter};

use crate::error::{ExportError, clip};
use crate::folder::{RUN_FILE, table_file};
use crate::identity::{self, Digests};
use crate::limits::{self, Population};
use crate::rows::{ExportRow, ExportedRound, Names, VerifierRow, learn};
use crate::schema::{ExportColumn, ExportFormat, ExportTable, SCHEMA};
use crate::stop::Stop;
use crate::values::ValueBatch;
use crate::visit::{Misfit, TakeFields};
use crate::{jsonl, parquet_reader};

/// Of the folder that a run is imported into first.
const PREFIX: &str = ".importing-";

/// What to import, and where to.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions<'a> {
    /// The folder of the export.
    pub dir: &'a Path,
    /// The folder of all runs.
    pub ledger: &'a Path,
    /// The run's name there; `None` for the one that it had.
    pub name: Option<&'a str>,
    /// Set from outside to end the import early; nothing is left then.
    pub interrupted: &'a AtomicBool,
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The run's name in this ledger.
    pub run: String,
    pub folder: PathBuf,
    pub rounds: u64,
    pub generations: u64,
    /// Whether the export said what its files must be, as all but those of earlier versions do.
    pub checked: bool,
}

/// `run.json`, as far as an import needs it.
#[derive(Deserialize)]
struct ExportHeader {
    format: String,
    meta: Meta,
    #[serde(default)]
    summary: Option<String>,
    /// Of each file, by its name.
    #[serde(default)]
    rows: BTreeMap<String, u64>,
    #[serde(default)]
    damaged_chunks: u64,
    /// Absent in exports of earlier versions, and where somebody took them out.
    #[serde(default)]
    digests: Option<Digests>,
}

/// Imports an export in Parquet or JSON lines as a run of this ledger, under its own name or another. Every row comes back
/// as it was, with one NaN for all; a run that cannot be imported leaves nothing behind. What is not as it was exported is
/// refused, and so is the export of a damaged run: no run of this ledger would say that it is a part of one.
pub fn import(options: &ImportOptions<'_>) -> Result<Imported, ExportError> {
    let ImportOptions { dir, ledger, name, interrupted } = *options;
    let stop = Stop(interrupted);
    let (about, fields) = read_about(dir)?;
    let format = check_export(dir, &about, &fields)?;
    let Meta { run: exported, state, ended, .. } = about.meta.clone();
    let run = name.unwrap_or(&exported).to_owned();
    limits::check_run_name(&run)?;
    let folder = ledger.join(&run);
    if folder.exists() {
        return Err(LedgerError::RunExists(folder).into());
    }
    if let Some(digests) = &about.digests {
        identity::check_files(dir, &fields, digests, stop)?;
    }
    let from = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let from = format!("{} (run {exported})", from.display());
    // Where no listing looks: it becomes a run when it is whole.
    let _made = Made((!ledger.exists()).then_some(ledger));
    fs::create_dir_all(ledger).map_err(|source| ExportError::io(ledger, source))?;
    let aside = Aside::new(ledger, PREFIX).map_err(|source| ExportError::io(ledger, source))?;
    let meta = Meta { run: run.clone(), imported_from: Some(from), ..about.meta };
    let mut writer = RunWriter::create(aside.path(), meta.clone())?;
    let (names, population) = (Names::of(&meta), Population::of(&meta));
    let source = ImportedTable { dir, format, names, population, rows: &about.rows, stop };
    source.rows::<ExportedRound, _>(|row| writer.append_rounds(row.id, row.device, &[row.record]))?;
    source.rows::<GenerationRecord, _>(|record| writer.close_generation(record, &[]))?;
    source.rows::<BatchRecord, _>(|record| writer.append_batch(record))?;
    source.rows::<AuditRecord, _>(|record| writer.append_audit(record))?;
    source.rows::<VerifierRow, _>(|row| writer.append_verifier(row.record, row.provenance))?;
    if let Some(summary) = &about.summary {
        writer.put_summary(summary)?;
    }
    let progress = writer.progress();
    let state = if state == RunState::Running { RunState::Interrupted } else { state };
    writer.finish_as(state, ended)?;
    add_scores(&source, &aside.path().join(&run))?;
    stop.check()?;
    fs::rename(aside.path().join(&run), &folder).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            LedgerError::RunExists(folder.clone()).into()
        }
        _ => ExportError::io(&folder, source),
    })?;
    let RunProgress { rounds, generations, .. } = progress;
    Ok(Imported { run, folder, rounds, generations, checked: about.digests.is_some() })
}

/// Refuses what is no export of a whole run, by its description and the names of its files; the format that it has.
fn check_export(dir: &Path, about: &ExportHeader, fields: &Value) -> Result<ExportFormat, ExportError> {
    let path = dir.join(RUN_FILE);
    let format = match about.format.as_str() {
        "parquet" => ExportFormat::Parquet,
        "jsonl" => ExportFormat::Jsonl,
        other => {
            let why = format!("an export as {} cannot be imported: it takes parquet or jsonl", clip(other));
            return Err(ExportError::not_importable(&path, why));
        }
    };
    if about.digests.is_none() {
        identity::check_first_fields(&path, fields)?;
    }
    check_whole(&path, about.damaged_chunks)?;
    limits::check_description(&path, &about.meta)?;
    let lacking: Vec<String> = ExportTable::ALL
        .into_iter()
        .filter(|table| table.is_imported())
        .map(|table| table_file(table, format))
        .filter(|file| !dir.join(file).is_file())
        .collect();
    if lacking.is_empty() {
        Ok(format)
    } else {
        Err(ExportError::not_importable(dir, format!("there is no {}", lacking.join(", no "))))
    }
}

/// Refuses what is a part of a run.
fn check_whole(path: &Path, damaged_chunks: u64) -> Result<(), ExportError> {
    if damaged_chunks == 0 {
        return Ok(());
    }
    let chunks = if damaged_chunks == 1 { "chunk was" } else { "chunks were" };
    let why = format!(
        "{damaged_chunks} {chunks} damaged when the run was exported, so its files are a part of it: other tools can read \
         them, an import would take them for the whole"
    );
    Err(ExportError::not_importable(path, why))
}

/// Scores come to a run that has ended, here as everywhere.
fn add_scores(source: &ImportedTable<'_>, run_dir: &Path) -> Result<(), ExportError> {
    let mut scores = ScoreWriter::open(run_dir)?;
    let known = scores.meta().scorers.len();
    source.rows::<ScoreRow, _>(|row| {
        if scores.append(row)? {
            return Ok(());
        }
        let ScoreRow { id, scorer, .. } = row;
        let why = if usize::from(scorer) < known {
            let GenerationId { method, prompt, repetition, pass } = id;
            format!("scorer {scorer} has two values for method {method}, prompt {prompt}, repetition {repetition}, pass {pass}")
        } else {
            format!("there is no scorer {scorer}: {RUN_FILE} names {known}")
        };
        Err(ExportError::not_importable(&source.path::<ScoreRow>(), why))
    })?;
    scores.finish()?;
    Ok(())
}

/// Reads `run.json` after checking the version that it says; beside it all its fields, those that nobody needs too.
fn read_about(dir: &Path) -> Result<(ExportHeader, Value), ExportError> {
    /// The one field that keeps its name and meaning in every version to come.
    #[derive(Deserialize)]
    struct VersionedExport {
        export_schema: u32,
    }
    let path = dir.join(RUN_FILE);
    let text = specfleet_files::read(&path, specfleet_files::SMALL).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            ExportError::not_importable(dir, format!("it holds no export (no {RUN_FILE})"))
        }
        _ => ExportError::io(&path, source),
    })?;
    let damaged = |error: serde_json::Error| ExportError::not_importable(&path, error.to_string());
    let VersionedExport { export_schema } = serde_json::from_slice(&text).map_err(damaged)?;
    if export_schema > SCHEMA {
        let why =
            format!("its export schema is {export_schema}, this program reads up to {SCHEMA}: use a newer version");
        return Err(ExportError::not_importable(&path, why));
    }
    let about = serde_json::from_slice(&text).map_err(damaged)?;
    Ok((about, serde_json::from_slice(&text).map_err(damaged)?))
}

/// The ledger, which goes again if it was made for a run that did not come.
struct Made<'a>(Option<&'a Path>);

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(ledger) = self.0 {
            // A ledger with something in it stays.
            let _ = fs::remove_dir(ledger);
        }
    }
}

struct ImportedTable<'a> {
    dir: &'a Path,
    format: ExportFormat,
    names: Names,
    population: Population,
    /// That each file must have, by its name.
    rows: &'a BTreeMap<String, u64>,
    stop: Stop<'a>,
}

impl ImportedTable<'_> {
    /// The file of a table.
    fn path<R: ExportRow>(&self) -> PathBuf {
        self.dir.join(table_file(R::TABLE, self.format))
    }

    /// Reads a table row by row, all of it or not at all.
    fn rows<R: ExportRow, E: Into<ExportError>>(
        &self,
        mut each: impl FnMut(R) -> Result<(), E>,
    ) -> Result<(), ExportError> {
        let path = self.path::<R>();
        let (mut read, population) = (0, self.population.clone());
        let (columns, empty) = learn::<R>(&self.names);
        let take = |batch: &ValueBatch, first: u64| -> Result<(), ExportError> {
            for index in 0..batch.rows() {
                self.stop.check()?;
                let mut row = R::blank();
                row.visit(&self.names, &mut TakeFields::from(batch, index, &population)).map_err(
                    |Misfit { column, why }| {
                        let row = first + index as u64 + 1;
                        ExportError::not_importable(&path, format!("row {row}, column {column}: {why}"))
                    },
                )?;
                each(row).map_err(|error| match error.into() {
                    // A row that this ledger does not take: say which.
                    ExportError::Ledger(
                        error @ (LedgerError::RowTooLarge { .. }
                        | LedgerError::ListTooLong { .. }
                        | LedgerError::GenerationClosed(_)),
                    ) => ExportError::not_importable(&path, format!("row {}: {error}", first + index as u64 + 1)),
                    error => error,
                })?;
            }
            read += batch.rows() as u64;
            Ok(())
        };
        match self.format {
            ExportFormat::Parquet => parquet_reader::read(&path, &columns, take)?,
            _ => jsonl::read(&path, &columns, &empty, take)?,
        }
        let known = self.rows.get(&table_file(R::TABLE, self.format));
        identity::check_rows(&path, known.copied(), read)
    }
}

/// Columns that a file lacks.
pub(crate) fn missing(path: &Path, columns: &[&str]) -> ExportError {
    let plural = if columns.len() == 1 { "" } else { "s" };
    ExportError::not_importable(path, format!("column{plural} missing: {}", columns.join(", ")))
}

/// A column of another type than it must have.
pub(crate) fn wrong_type(path: &Path, column: &ExportColumn, found: &str) -> ExportError {
    let why = format!("column {} must be {}, it is {found}", column.name, column.kind.name());
    ExportError::not_importable(path, why)
}
