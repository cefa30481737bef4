//! Writing a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, BatchRecord, GenerationRecord, Provenance, RoundRecord, VerifierRecord};
use specfleet_engine::time::Time;

use crate::appender::Appender;
use crate::aside;
use crate::chunk::{self, SHORT_LIST, TableRow};
use crate::compact;
use crate::energy::EnergyRow;
use crate::error::LedgerError;
use crate::id::RunId;
use crate::live::{self, Live};
use crate::lock::RunLock;
use crate::manifest::Manifest;
use crate::meta::{self, FIRST_STORE, META_FILE, Meta, RunProgress, RunState, SCHEMA, SUMMARY_FILE, Stock};
use crate::rows::ClosedGeneration;
use crate::store;

/// The only writer of a run.
///
/// Order of calls: [`RunWriter::create`]; then any of the `append_*` and [`RunWriter::close_generation`]; at least once
/// per second [`RunWriter::flush`]; at the end [`RunWriter::finish`]. What a crash can take is what came after the last
/// flush, and nothing of it half: rows go to the store in atomic batches, and a generation's closing row lies in the
/// same batch as whatever of its rounds was not stored before.
///
/// Dropping a writer without `finish` leaves the run as a crash would: listed as interrupted.
#[derive(Debug)]
pub struct RunWriter {
    run_dir: PathBuf,
    rows: Appender,
    meta: Meta,
    /// When it was made, by a clock that nobody sets.
    created: Instant,
    /// Declared after `rows`, so dropped after it: nobody may open the store before sled has let go of it.
    _lock: RunLock,
    /// Generations that have rounds and are not closed.
    open: BTreeMap<GenerationId, OpenGeneration>,
    /// To refuse rows that come after a closing.
    closed: BTreeSet<GenerationId>,
    /// What was appended so far; on disk after the next flush.
    progress: RunProgress,
}

#[derive(Clone, Copy, Debug)]
struct OpenGeneration {
    /// Rounds appended so far.
    rounds: u32,
    /// When the last of them was committed.
    last: Time,
}

impl RunWriter {
    /// Creates the folder `ledger_dir/<meta.run>` and its store. The folder gets its name when its plain files are there: a
    /// listing sees a run only when it can be written.
    ///
    /// `meta.schema`, `meta.id`, `meta.state`, `meta.pid`, `meta.ended`, `meta.store` and `meta.manifest` are set here,
    /// whatever the caller put there.
    pub fn create(ledger_dir: &Path, meta: Meta) -> Result<RunWriter, LedgerError> {
        check_run_name(&meta.run)?;
        fs::create_dir_all(ledger_dir).map_err(|error| LedgerError::io(ledger_dir, error))?;
        store::check_space(ledger_dir)?;
        let run_dir = ledger_dir.join(&meta.run);
        if run_dir.exists() {
            return Err(LedgerError::RunExists(run_dir));
        }
        aside::remove_leftovers(ledger_dir);
        let id = RunId::random()?;
        let meta = Meta {
            schema: SCHEMA,
            id: Some(id),
            manifest: None,
            state: RunState::Running,
            pid: std::process::id(),
            ended: None,
            store: FIRST_STORE.to_owned(),
            ..meta
        };
        let lock = make_folder(ledger_dir, &run_dir, &meta)?;
        let rows = Appender::new(&store::path(&run_dir, &meta.store)?, id)?;
        Ok(RunWriter {
            run_dir,
            rows,
            meta,
            created: Instant::now(),
            _lock: lock,
            open: BTreeMap::new(),
            closed: BTreeSet::new(),
            progress: RunProgress::default(),
        })
    }

    /// The run's folder.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// The run's description as it stands in `meta.json`.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What was appended so far, whether flushed or not.
    pub fn progress(&self) -> RunProgress {
        self.progress
    }

    /// Changes the description (a calibration that was computed, a fault that was injected) and rewrites `meta.json`.
    pub fn update_meta(&mut self, change: impl FnOnce(&mut Meta)) -> Result<(), LedgerError> {
        change(&mut self.meta);
        meta::replace_json(&self.run_dir, META_FILE, &self.meta, true)
    }

    /// Puts a summary beside the rows, as `summary.json`: for a run whose rows are a part of what happened, and cannot say
    /// what the whole was. Replaces an earlier one.
    pub fn put_summary(&mut self, json: &str) -> Result<(), LedgerError> {
        meta::replace_object(&self.run_dir, SUMMARY_FILE, json.as_bytes(), true)
    }

    /// Puts what the run is doing beside the rows, as `live.json`, in place of what was there. [`RunWriter::finish`] takes it
    /// away.
    pub fn put_live(&mut self, live: &Live) -> Result<(), LedgerError> {
        live.write(&self.run_dir)
    }

    /// Adds the next rounds of an open generation, in the order of their commits.
    pub fn append_rounds(
        &mut self,
        id: GenerationId,
        device: DeviceId,
        rounds: &[RoundRecord],
    ) -> Result<(), LedgerError> {
        self.buffer_rounds(id, device, rounds)?;
        self.rows.commit_if_full()
    }

    /// Closes a generation: its record, its remaining rounds and its energy rows become visible together or not at all.
    pub fn close_generation(&mut self, record: GenerationRecord, remaining: &[RoundRecord]) -> Result<(), LedgerError> {
        if self.closed.contains(&record.id) {
            return Err(LedgerError::GenerationClosed(record.id));
        }
        let stored = self.open.get(&record.id).map_or(0, |open| open.rounds);
        let energy = EnergyRow::of_generation(&record);
        let row = ClosedGeneration { rounds: stored + remaining.len() as u32, record };
        // Refused before anything is buffered, so that one row too long costs no other.
        if row.longest_list() > SHORT_LIST {
            chunk::check_row(&row)?;
        }
        let id = row.record.id;
        self.buffer_rounds(id, row.record.device, remaining)?;
        self.open.remove(&id);
        self.closed.insert(id);
        self.rows.pending.energy.extend(energy);
        self.rows.pending.list_elements += row.longest_list();
        self.rows.pending.generations.push(row);
        self.progress.generations += 1;
        self.rows.commit_if_full()
    }

    /// Adds a verification batch.
    pub fn append_batch(&mut self, batch: BatchRecord) -> Result<(), LedgerError> {
        self.rows.pending.batches.push(batch);
        self.progress.batches += 1;
        self.rows.commit_if_full()
    }

    /// Adds the audit of a generation.
    pub fn append_audit(&mut self, audit: AuditRecord) -> Result<(), LedgerError> {
        if audit.longest_list() > SHORT_LIST {
            chunk::check_row(&audit)?;
        }
        self.rows.pending.list_elements += audit.longest_list();
        self.rows.pending.audits.push(audit);
        self.rows.commit_if_full()
    }

    /// Adds what a verifier did in one method's phase, and its idle energy with this provenance.
    pub fn append_verifier(&mut self, verifier: VerifierRecord, provenance: Provenance) -> Result<(), LedgerError> {
        self.rows.pending.energy.push(EnergyRow::of_verifier(&verifier, provenance));
        self.rows.pending.verifiers.push(verifier);
        self.rows.commit_if_full()
    }

    /// Puts everything appended so far on the disk and says so in `progress.json`. Call it at least each second: what
    /// came after the last call is what a crash takes.
    pub fn flush(&mut self) -> Result<(), LedgerError> {
        self.rows.flush()?;
        let (store, tables) = (self.meta.store.clone(), self.rows.tables().clone());
        Stock { progress: self.progress, store, tables }.write(&self.run_dir)
    }

    /// Flushes, closes the store and ends the run in `state`; returns its final description. If that fails, the run ends as
    /// [`RunState::Failed`] for that reason, and the error is returned.
    pub fn finish(self, state: RunState) -> Result<Meta, LedgerError> {
        // The wall clock may have been set since the run started.
        let ended = self.meta.started.saturating_add(self.created.elapsed().as_secs());
        self.finish_as(state, Some(ended))
    }

    /// The same for a run that ended before, in seconds since 1970, if that is known.
    pub fn finish_as(mut self, state: RunState, ended: Option<u64>) -> Result<Meta, LedgerError> {
        let flushed = self.flush();
        let RunWriter { run_dir, rows, mut meta, _lock: lock, .. } = self;
        let closed = flushed.and_then(|()| close(&run_dir, &meta, rows));
        meta.ended = ended;
        let closed = match closed {
            Ok((store, manifest)) => {
                (meta.state, meta.store, meta.manifest) = (state, store, Some(manifest));
                Ok(())
            }
            Err(error) => {
                meta.state = RunState::Failed { reason: error.to_string() };
                Err(error)
            }
        };
        let written = match meta::replace_json(&run_dir, META_FILE, &meta, true) {
            Err(LedgerError::DiskFull { .. }) => {
                remove_spare(&run_dir)?;
                meta::replace_json(&run_dir, META_FILE, &meta, true)
            }
            written => written,
        };
        let spare = remove_spare(&run_dir);
        // After the state: who finds no live figures any more finds the run ended.
        let removed = live::remove(&run_dir);
        let cleaned = compact::remove_leftovers(&run_dir, &meta.store);
        drop(lock);
        closed.and(written).and(removed).and(cleaned).and(spare)?;
        Ok(meta)
    }

    fn buffer_rounds(&mut self, id: GenerationId, device: DeviceId, rounds: &[RoundRecord]) -> Result<(), LedgerError> {
        if self.closed.contains(&id) {
            return Err(LedgerError::GenerationClosed(id));
        }
        let (Some(first), Some(last)) = (rounds.first(), rounds.last()) else { return Ok(()) };
        let open = self.open.entry(id).or_insert(OpenGeneration { rounds: 0, last: first.committed_at });
        self.rows.pending.add_rounds(id, device, open.rounds, open.last, rounds);
        open.rounds += rounds.len() as u32;
        open.last = last.committed_at;
        self.progress.rounds += rounds.len() as u64;
        Ok(())
    }
}

/// Makes a run's folder aside, with its plain files and an empty folder for its rows, and gives it its name; the lock on it.
fn make_folder(ledger_dir: &Path, run_dir: &Path, meta: &Meta) -> Result<RunLock, LedgerError> {
    let aside = aside::new(ledger_dir, &meta.run)?;
    let make = || {
        fs::create_dir(&aside).map_err(|error| LedgerError::io(&aside, error))?;
        let lock = RunLock::for_writing(&aside)?;
        let store_dir = store::path(&aside, &meta.store)?;
        fs::create_dir(&store_dir).map_err(|error| LedgerError::io(&store_dir, error))?;
        let spare = aside.join(SPARE_FILE);
        fs::write(&spare, vec![0; SPARE_BYTES]).map_err(|error| LedgerError::io(&spare, error))?;
        Stock { store: meta.store.clone(), ..Stock::default() }.write(&aside)?;
        meta::replace_json(&aside, META_FILE, meta, true)?;
        // Fails if somebody has made a run of this name meanwhile.
        fs::rename(&aside, run_dir).map_err(|error| LedgerError::io(run_dir, error))?;
        store::sync_names(ledger_dir)?;
        Ok(lock)
    };
    make().inspect_err(|_| drop(aside::remove(&aside)))
}

/// Room on the disk for the last words of a run on a full one.
const SPARE_FILE: &str = "spare";
const SPARE_BYTES: usize = 256 * 1024;

fn remove_spare(run_dir: &Path) -> Result<(), LedgerError> {
    let path = run_dir.join(SPARE_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LedgerError::io(&path, error)),
        _ => Ok(()),
    }
}

/// Closes the store of a run: the name of the store that is to be the run's, and what it holds. One that is hardly used is
/// written anew, because sled takes half a megabyte for the first row.
fn close(run_dir: &Path, meta: &Meta, rows: Appender) -> Result<(String, Manifest), LedgerError> {
    let store_dir = store::path(run_dir, &meta.store)?;
    let name = store::next_name(&meta.store);
    let small_dir = store::path(run_dir, &name)?;
    let shrunk = rows.shrink(&small_dir)?;
    let tables = rows.close();
    if shrunk {
        Ok((name, Manifest::seal(&small_dir, tables)?))
    } else {
        Ok((meta.store.clone(), Manifest::seal(&store_dir, tables)?))
    }
}

/// A run's name becomes a folder: no separators, nothing that a shell or a system treats specially.
fn check_run_name(name: &str) -> Result<(), LedgerError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() <= 128 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
        Ok(())
    } else {
        Err(LedgerError::BadRunName(name.to_owned()))
    }
}
