//! Scores that are added to a run after it has ended: one row per generation and scorer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use specfleet_engine::id::GenerationId;

use crate::chunk::{self, Limits, Row};
use crate::error::LedgerError;
use crate::lock::RunLock;
use crate::meta::{self, META_FILE, Meta, RunState};
use crate::store;
use crate::table::Table;

/// What computed a figure, and how. Rows name it by its place in [`Meta::scorers`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scorer {
    /// The metric, such as `bertscore_f1`.
    pub name: String,
    /// Its unit, such as `ratio`.
    pub unit: String,
    /// What people call it, such as `bert-base-uncased, layer 9 of 12, idf`.
    #[serde(default)]
    pub label: String,
    /// Everything that decides the figure beside the texts: digest of the encoder, layer, weights. Two scorers of one
    /// metric are the same if these are equal.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// One figure of one generation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRow {
    /// Which generation.
    pub id: GenerationId,
    /// Index into [`Meta::scorers`].
    pub scorer: u16,
    /// The figure; NaN where the scorer looked and there is none (a text without tokens has no perplexity).
    pub value: f32,
}

/// Adds scores to a run that has ended, under the run's lock.
///
/// What is there stays: [`ScoreWriter::scorer`] finds a scorer that the run knows, [`ScoreWriter::append`] refuses a second
/// figure of one scorer for one generation. A scorer is written to `meta.json` before its first row, so that a row never
/// names one that the run does not know; a crash takes the rows since the last [`ScoreWriter::flush`], and the next call
/// finds which generations they are missing for.
#[derive(Debug)]
pub struct ScoreWriter {
    run_dir: PathBuf,
    store_dir: PathBuf,
    store: sled::Db,
    meta: Meta,
    /// Declared after `store`, so dropped after it: nobody may open the store before sled has let go of it.
    _lock: RunLock,
    /// The generations that each scorer has scored.
    scored: Vec<BTreeSet<GenerationId>>,
    /// Number of the next chunk.
    next: u64,
    pending: Vec<ScoreRow>,
}

impl ScoreWriter {
    /// Opens a run that has ended; one that is being written is [`LedgerError::StillRunning`], one of a newer schema is
    /// refused by its `meta.json` alone. A run whose writer died becomes [`RunState::Interrupted`] in its file too.
    pub fn open(run_dir: &Path) -> Result<ScoreWriter, LedgerError> {
        Meta::read(run_dir)?;
        let lock = RunLock::for_writing(run_dir)?;
        let mut meta = Meta::read(run_dir)?;
        let store_dir = store::path(run_dir, &meta.store)?;
        if !store_dir.is_dir() {
            return Err(LedgerError::MissingStore(store_dir));
        }
        store::check_space(&store_dir)?;
        let store = store::open(&store_dir)?;
        if meta.state == RunState::Running {
            meta.state = RunState::Interrupted;
            meta::edit(run_dir, |fields| fields.insert("state".to_owned(), "interrupted".into()))?;
        }
        let mut writer = ScoreWriter {
            run_dir: run_dir.to_path_buf(),
            store_dir,
            store,
            scored: vec![BTreeSet::new(); meta.scorers.len()],
            meta,
            _lock: lock,
            next: 0,
            pending: Vec::new(),
        };
        writer.index()?;
        Ok(writer)
    }

    /// The run's description.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The place of this scorer among the run's; it is added if the run does not know it.
    pub fn scorer(&mut self, scorer: &Scorer) -> Result<u16, LedgerError> {
        let same = |known: &&Scorer| known.name == scorer.name && known.settings == scorer.settings;
        let known = self.meta.scorers.iter().position(|known| same(&known));
        let index = known.unwrap_or(self.meta.scorers.len());
        let place = u16::try_from(index).map_err(|_| LedgerError::TooManyScorers(self.run_dir.clone()))?;
        if known.is_none() {
            let mut scorers = self.meta.scorers.clone();
            scorers.push(scorer.clone());
            let path = self.run_dir.join(META_FILE);
            let list = serde_json::to_value(&scorers).map_err(|source| LedgerError::DamagedFile { path, source })?;
            meta::edit(&self.run_dir, |fields| fields.insert("scorers".to_owned(), list))?;
            self.meta.scorers = scorers;
            self.scored.push(BTreeSet::new());
        }
        Ok(place)
    }

    /// Whether this scorer has a figure for this generation.
    pub fn has(&self, scorer: u16, id: GenerationId) -> bool {
        self.scored.get(usize::from(scorer)).is_some_and(|scored| scored.contains(&id))
    }

    /// Adds a figure. Whether it was added: one that is there stays as it is, and so does a run that does not know the
    /// scorer.
    pub fn append(&mut self, row: ScoreRow) -> Result<bool, LedgerError> {
        let Some(scored) = self.scored.get_mut(usize::from(row.scorer)) else { return Ok(false) };
        if !scored.insert(row.id) {
            return Ok(false);
        }
        self.pending.push(row);
        if self.pending.len() >= ScoreRow::ROWS_PER_CHUNK {
            self.commit()?;
        }
        Ok(true)
    }

    /// Puts everything appended so far on the disk.
    pub fn flush(&mut self) -> Result<(), LedgerError> {
        self.commit()?;
        self.store.flush().map_err(|error| LedgerError::store(&self.store_dir, error))?;
        // Its time tells whoever keeps something that was made of the rows.
        meta::edit(&self.run_dir, |_| ())
    }

    /// Moves the pending rows into the store in one atomic batch; when the disk is nearly full they stay pending.
    fn commit(&mut self) -> Result<(), LedgerError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        store::check_space(&self.store_dir)?;
        let mut batch = sled::Batch::default();
        let mut next = self.next;
        chunk::write(&self.pending, Limits::LIVE, &mut |_, bytes| {
            batch.insert(&Table::Scores.key(next), bytes);
            next += 1;
            Ok(())
        })?;
        self.store.apply_batch(batch).map_err(|error| LedgerError::store(&self.store_dir, error))?;
        self.next = next;
        self.pending.clear();
        Ok(())
    }

    /// What is there already. A damaged chunk holds nothing that can be read, so its generations are scored anew.
    fn index(&mut self) -> Result<(), LedgerError> {
        for entry in self.store.scan_prefix([Table::Scores.tag()]) {
            let (key, value) = entry.map_err(|error| LedgerError::store(&self.store_dir, error))?;
            let Some(sequence) = Table::Scores.sequence(&key) else { continue };
            self.next = self.next.max(sequence + 1);
            for row in chunk::read::<ScoreRow>(&value, self.meta.schema).unwrap_or_default() {
                if let Some(scored) = self.scored.get_mut(usize::from(row.scorer)) {
                    scored.insert(row.id);
                }
            }
        }
        Ok(())
    }
}
