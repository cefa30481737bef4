//! A run into a folder.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde_json::json;
use specfleet_engine::id::GenerationId;
use specfleet_ledger::{EnergyOwner, LedgerError, Meta, RoundColumn, RunReader};

use crate::error::ExportError;
use crate::folder::{RUN_FILE, Staging, TRACE_FILE, table_file};
use crate::identity::{self, DIGESTS, Digests};
use crate::parquet_writer::ParquetFile;
use crate::rows::{self, ExportRow, Names, VerifierRow};
use crate::schema::{ExportColumn, ExportFormat, ExportTable, SCHEMA};
use crate::stop::Stop;
use crate::values::{NO_WORD, ValueBatch};
use crate::visit::Append;
use crate::{text, trace};

/// Rows of a row group: 20 MB of rounds.
const BATCH_ROWS: usize = 65_536;

/// Numbers in lists after which a batch is full, too.
const BATCH_VALUES: usize = 2 << 20;

/// What to export, and where to.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    pub format: ExportFormat,
    /// Which tables; a trace has none.
    pub tables: &'a [ExportTable],
    /// The folder. It is made if it is not there.
    pub out: &'a Path,
    /// Whether an export in it may be replaced.
    pub force: bool,
    /// Set from outside to end the export early; nothing is left then.
    pub interrupted: &'a AtomicBool,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows of each file, by its name.
    pub rows: Vec<(String, u64)>,
    /// Damaged chunks, which are left out.
    pub damaged: usize,
}

/// Writes the tables of a run into a folder, with `run.json` beside them. Each damaged chunk is told once, with its place,
/// and left out.
pub fn export(
    reader: &RunReader,
    options: &Options<'_>,
    tell: &mut dyn FnMut(&LedgerError),
) -> Result<Exported, ExportError> {
    let stop = Stop(options.interrupted);
    let mut staging = Staging::new(options.out, options.force)?;
    let mut damage = ExportDamage { told: BTreeSet::new(), tell };
    let mut rows = Vec::new();
    if options.format == ExportFormat::Trace {
        let (path, file) = staging.create(TRACE_FILE.to_owned())?;
        let events = trace::write(reader, file, &path, stop, &mut |error| damage.tell(&error))?;
        rows.push((TRACE_FILE.to_owned(), events));
    }
    let names = Names::of(reader.meta());
    let tables = if options.format == ExportFormat::Trace { &[][..] } else { options.tables };
    for table in tables {
        let name = table_file(*table, options.format);
        let path = staging.file(name.clone());
        let (columns, batch) = match table {
            ExportTable::Rounds => rows::learn::<rows::ExportedRound>(&names),
            ExportTable::Generations => rows::learn::<specfleet_engine::record::GenerationRecord>(&names),
            ExportTable::Batches => rows::learn::<specfleet_engine::record::BatchRecord>(&names),
            ExportTable::Energy => rows::learn::<specfleet_ledger::EnergyRow>(&names),
            ExportTable::Audits => rows::learn::<specfleet_engine::record::AuditRecord>(&names),
            ExportTable::Verifiers => rows::learn::<VerifierRow>(&names),
            ExportTable::Scores => rows::learn::<specfleet_ledger::ScoreRow>(&names),
        };
        let sink = Sink::create(options.format, &path, columns)?;
        let written = stream(sink, batch, stop, |feed| match table {
            ExportTable::Rounds => feed_rounds(reader, &names, feed, &mut damage),
            ExportTable::Generations => feed_rows(reader.generations(), &names, feed, &mut damage),
            ExportTable::Batches => feed_rows(reader.batches(), &names, feed, &mut damage),
            ExportTable::Energy => feed_rows(reader.energy(), &names, feed, &mut damage),
            ExportTable::Audits => feed_rows(reader.audits(), &names, feed, &mut damage),
            ExportTable::Verifiers => {
                let rows = verifiers(reader, &mut damage);
                feed_rows(rows.into_iter().map(Ok), &names, feed, &mut damage);
            }
            ExportTable::Scores => feed_rows(reader.scores(), &names, feed, &mut damage),
        })?;
        rows.push((name, written));
    }
    let damaged = damage.told.len();
    describe(reader, options, &rows, damaged, &mut staging)?;
    stop.check()?;
    staging.put_in_place()?;
    Ok(Exported { rows, damaged })
}

/// Writes `run.json`: what the run is, and by what the files beside it are known again.
fn describe(
    reader: &RunReader,
    options: &Options<'_>,
    rows: &[(String, u64)],
    damaged: usize,
    staging: &mut Staging,
) -> Result<(), ExportError> {
    let counts: BTreeMap<&str, u64> = rows.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    let mut digests = Digests::new();
    for (name, _) in rows {
        digests.insert(name.clone(), identity::of_file(&staging.path_of(name), Stop(options.interrupted))?);
    }
    let mut about = json!({
        "export_schema": SCHEMA,
        "format": options.format.name(),
        "program": format!("specfleet {}", env!("CARGO_PKG_VERSION")),
        "rows": counts,
        "damaged_chunks": damaged,
        // The new run has an id and a store of its own.
        "meta": Meta { id: None, manifest: None, ..reader.meta().clone() },
        "summary": reader.stored_summary()?,
    });
    digests.insert(RUN_FILE.to_owned(), identity::of_description(&about));
    about[DIGESTS] = json!(digests);
    let (path, mut file) = staging.create(RUN_FILE.to_owned())?;
    file.write_all(format!("{about:#}\n").as_bytes()).map_err(|source| ExportError::io(&path, source))
}

/// Tells of each damaged chunk once: several tables may come across it.
struct ExportDamage<'a> {
    told: BTreeSet<String>,
    tell: &'a mut dyn FnMut(&LedgerError),
}

impl ExportDamage<'_> {
    fn tell(&mut self, error: &LedgerError) {
        if self.told.insert(error.to_string()) {
            (self.tell)(error);
        }
    }
}

fn feed_rounds(reader: &RunReader, names: &Names, feed: &mut Feed<'_>, damage: &mut ExportDamage<'_>) {
    let mut data_sets: Vec<(GenerationId, u16)> = Vec::with_capacity(reader.closed_generations());
    for generation in reader.generations() {
        if feed.stop.is_asked() {
            return;
        }
        match generation {
            Ok(generation) => data_sets.push((generation.id, generation.data_set)),
            Err(error) => damage.tell(&error),
        }
    }
    data_sets.sort_unstable();
    let data_set = |id: GenerationId| {
        let at = data_sets.binary_search_by_key(&id, |(id, _)| *id);
        at.map_or(NO_WORD, |at| data_sets[at].1.into())
    };
    for chunk in reader.scan_rounds(RoundColumn::ALL) {
        match chunk {
            Ok(chunk) => rows::append_rounds(&chunk, names, data_set, &mut feed.batch),
            Err(error) => damage.tell(&error),
        }
        if !feed.pass_if_full() {
            return;
        }
    }
}

fn feed_rows<R: ExportRow>(
    rows: impl Iterator<Item = Result<R, LedgerError>>,
    names: &Names,
    feed: &mut Feed<'_>,
    damage: &mut ExportDamage<'_>,
) {
    for row in rows {
        match row {
            // Appending fits everything.
            Ok(mut row) => drop(row.visit(names, &mut Append::to(&mut feed.batch))),
            Err(error) => damage.tell(&error),
        }
        if !feed.pass_if_full() {
            return;
        }
    }
}

/// The verifiers' rows with how their idle energy is known, which their energy rows say in the same order.
fn verifiers(reader: &RunReader, damage: &mut ExportDamage<'_>) -> Vec<VerifierRow> {
    let mut known: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
    for row in reader.energy() {
        match row {
            Ok(row) => {
                if let EnergyOwner::Verifier { method, pass, verifier } = row.owner {
                    known.entry((method, pass, verifier)).or_default().push_back(row.provenance);
                }
            }
            Err(error) => damage.tell(&error),
        }
    }
    let mut rows = Vec::new();
    for record in reader.verifiers() {
        match record {
            Ok(record) => {
                let provenance =
                    known.get_mut(&(record.method, record.pass, record.verifier)).and_then(VecDeque::pop_front);
                let provenance = provenance.unwrap_or(VerifierRow::blank().provenance);
                rows.push(VerifierRow { record, provenance });
            }
            Err(error) => damage.tell(&error),
        }
    }
    rows
}

/// Where the rows of a table go.
enum Sink {
    Parquet(Box<ParquetFile>),
    Text { path: PathBuf, file: BufWriter<std::fs::File>, columns: Vec<ExportColumn>, csv: bool, line: String },
}

impl Sink {
    fn create(format: ExportFormat, path: &Path, columns: Vec<ExportColumn>) -> Result<Sink, ExportError> {
        if format == ExportFormat::Parquet {
            return Ok(Sink::Parquet(Box::new(ParquetFile::create(path, &columns)?)));
        }
        let failed = |source| ExportError::io(path, source);
        let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path).map_err(failed)?);
        let csv = format == ExportFormat::Csv;
        if csv {
            text::csv_header(&columns, &mut file).map_err(failed)?;
        }
        Ok(Sink::Text { path: path.to_path_buf(), file, columns, csv, line: String::new() })
    }

    fn write(&mut self, batch: &ValueBatch) -> Result<(), ExportError> {
        match self {
            Sink::Parquet(file) => file.write(batch),
            Sink::Text { path, file, columns, csv, line } => {
                let written = if *csv { text::csv(batch, line, file) } else { text::jsonl(columns, batch, line, file) };
                written.map_err(|source| ExportError::io(path, source))
            }
        }
    }

    fn finish(self) -> Result<(), ExportError> {
        match self {
            Sink::Parquet(file) => file.finish(),
            Sink::Text { path, file, .. } => {
                let file = file.into_inner().map_err(|error| ExportError::io(&path, error.into_error()))?;
                file.sync_all().map_err(|source| ExportError::io(&path, source))
            }
        }
    }
}

/// Collects rows and passes them on, a batch at a time, to the thread that writes.
struct Feed<'a> {
    batch: ValueBatch,
    rows: u64,
    stop: Stop<'a>,
    to: SyncSender<ValueBatch>,
    empty: Receiver<ValueBatch>,
}

impl Feed<'_> {
    /// False when nobody takes rows any more: the writer failed, or somebody asked for the end.
    fn pass_if_full(&mut self) -> bool {
        if self.stop.is_asked() {
            return false;
        }
        if self.batch.rows() < BATCH_ROWS && self.batch.list_values() < BATCH_VALUES { true } else { self.pass() }
    }

    fn pass(&mut self) -> bool {
        self.rows += self.batch.rows() as u64;
        let Ok(fresh) = self.empty.recv() else { return false };
        self.to.send(std::mem::replace(&mut self.batch, fresh)).is_ok()
    }
}

/// Batches under way beside the one that is filled: one is written, one waits.
const UNDER_WAY: usize = 2;

/// Runs `produce` on this thread and the sink on another; the rows that were written.
fn stream(
    mut sink: Sink,
    batch: ValueBatch,
    stop: Stop<'_>,
    produce: impl FnOnce(&mut Feed<'_>),
) -> Result<u64, ExportError> {
    let (to, full) = sync_channel::<ValueBatch>(UNDER_WAY);
    let (back, empty) = sync_channel(UNDER_WAY);
    for _ in 0..UNDER_WAY {
        // There is room for as many.
        let _ = back.send(batch.clone());
    }
    thread::scope(|scope| {
        let write = move || {
            for mut batch in full {
                sink.write(&batch)?;
                batch.clear();
                // The feeder may have ended.
                let _ = back.send(batch);
            }
            sink.finish()
        };
        let writer = thread::Builder::new().spawn_scoped(scope, write).map_err(ExportError::Thread)?;
        let mut feed = Feed { batch, rows: 0, stop, to, empty };
        produce(&mut feed);
        feed.pass();
        let rows = feed.rows;
        drop(feed);
        match writer.join() {
            Ok(written) => written.and(stop.check()).map(|()| rows),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
