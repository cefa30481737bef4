//! Scores that are added to a run after it has ended: one row per generation and scorer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use specfleet_engine::id::GenerationId;

use crate::chunk::{self, ChunkIdentity, ChunkLimits, TableRow};
use crate::compact;
use crate::error::LedgerError;
use crate::lock::RunLock;
use crate::manifest::{Manifest, Stored};
use crate::meta::{self, META_FILE, Meta, Stock};
use crate::reader::RunReader;
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
    pub id: GenerationId,
    pub scorer: u16,
    /// The figure; NaN where the scorer looked and there is none (a text without tokens has no perplexity).
    pub value: f32,
}

/// Adds scores to a run that has ended, under the run's lock.
///
/// What is there stays: [`ScoreWriter::scorer`] finds a scorer that the run knows, [`ScoreWriter::append`] refuses a second
/// figure of one scorer for one generation. A scorer is written to `meta.json` before its first row, so that a row never
/// names one that the run does not know; a crash takes the rows since the last [`ScoreWriter::flush`], and the next call
/// finds which generations they are missing for. [`ScoreWriter::finish`] closes the store again.
#[derive(Debug)]
pub struct ScoreWriter {
    run_dir: PathBuf,
    store_dir: PathBuf,
    meta: Meta,
    /// The store, once there was something to write.
    store: Option<sled::Db>,
    /// What the store holds.
    stock: Stock,
    /// Declared after `store`, so dropped after it: nobody may open the store before sled has let go of it.
    _lock: RunLock,
    /// The generations that each scorer has scored.
    scored: Vec<BTreeSet<GenerationId>>,
    pending: Vec<ScoreRow>,
}

impl ScoreWriter {
    /// Opens a run that has ended; one that is being written is [`LedgerError::StillRunning`], one of another schema is
    /// refused by its `meta.json` alone. A run whose writer died becomes [`crate::RunState::Interrupted`] in its file too.
    ///
    /// A store that nobody closed is rewritten first, as [`crate::compact()`] does; a damaged one is
    /// refused, because whatever opens it to write would damage it further.
    pub fn open(run_dir: &Path) -> Result<ScoreWriter, LedgerError> {
        Meta::read(run_dir)?;
        let lock = RunLock::for_writing(run_dir)?;
        if Meta::read(run_dir)?.manifest.is_none() {
            compact::rewrite(run_dir, &mut |_| ())?;
        }
        let meta = Meta::read(run_dir)?;
        let store_dir = store::path(run_dir, &meta.store)?;
        store::check_space(&store_dir)?;
        let stock = Stock {
            store: meta.store.clone(),
            tables: meta.manifest.clone().unwrap_or_default().tables,
            ..Stock::read(run_dir)?.unwrap_or_default()
        };
        let mut scored = vec![BTreeSet::new(); meta.scorers.len()];
        let reader = RunReader::over(run_dir, meta.clone())?;
        if let Some(damage) = reader.damage_log().met().into_iter().next() {
            return Err(LedgerError::NotWhole { path: store_dir, reason: damage.why });
        }
        for row in reader.scores() {
            let row = row?;
            if let Some(scored) = scored.get_mut(usize::from(row.scorer)) {
                scored.insert(row.id);
            }
        }
        drop(reader);
        let run_dir = run_dir.to_path_buf();
        Ok(ScoreWriter { run_dir, store_dir, meta, store: None, stock, _lock: lock, scored, pending: Vec::new() })
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
        if let Some(store) = &self.store {
            store.flush().map_err(|error| LedgerError::store(&self.store_dir, error))?;
            self.stock.write(&self.run_dir)?;
        }
        // Its time tells whoever keeps something that was made of the rows.
        meta::edit(&self.run_dir, |_| ())
    }

    /// Flushes and closes the store; the run's description then.
    pub fn finish(mut self) -> Result<Meta, LedgerError> {
        self.flush()?;
        if let Some(store) = self.store.take() {
            drop(store);
            let manifest = Manifest::seal(&self.store_dir, self.stock.tables.clone())?;
            let value = meta::to_value(&self.run_dir, &manifest)?;
            meta::edit(&self.run_dir, |fields| fields.insert("manifest".to_owned(), value))?;
            self.meta.manifest = Some(manifest);
        }
        Ok(self.meta)
    }

    /// Moves the pending rows into the store in one atomic batch; when the disk is nearly full they stay pending.
    fn commit(&mut self) -> Result<(), LedgerError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        store::check_space(&self.store_dir)?;
        let mut batch = sled::Batch::default();
        let mut stored = self.stock.tables.get(&Table::Scores).copied().unwrap_or_default();
        let mut next = ChunkIdentity { run: self.meta.written_id(&self.run_dir)?, number: stored.chunks };
        chunk::write(&self.pending, ChunkLimits::LIVE, &mut next, &mut |rows, bytes| {
            batch.insert(&Table::Scores.key(stored.chunks), bytes);
            stored = Stored { chunks: stored.chunks + 1, rows: stored.rows + rows as u64 };
            Ok(())
        })?;
        let store = match &self.store {
            Some(store) => store,
            None => self.store.insert(unseal(&self.run_dir, &self.store_dir, &self.stock)?),
        };
        store.apply_batch(batch).map_err(|error| LedgerError::store(&self.store_dir, error))?;
        self.stock.tables.insert(Table::Scores, stored);
        self.pending.clear();
        Ok(())
    }
}

/// Opens a closed store to write into it. What it holds is said in `progress.json` before `meta.json` loses the manifest, so
/// that it is known whatever happens meanwhile.
fn unseal(run_dir: &Path, store_dir: &Path, stock: &Stock) -> Result<sled::Db, LedgerError> {
    stock.write(run_dir)?;
    meta::edit(run_dir, |fields| fields.remove("manifest"))?;
    store::open(store_dir)
}
