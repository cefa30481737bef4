//! What can go wrong with a ledger, always with the file or the key it concerns.

use std::io;
use std::path::{Path, PathBuf};

use specfleet_engine::id::GenerationId;
use thiserror::Error;

use crate::id::RunId;
use crate::table::Table;

/// An error of the ledger.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A name that cannot be a folder's name on every system.
    #[error(
        "run name {0:?} cannot be a folder: use letters, digits, '-', '_' and '.', and start with a letter or digit"
    )]
    BadRunName(String),
    /// A run of this name is stored already.
    #[error("{0} exists already: choose another run name or another ledger folder")]
    RunExists(PathBuf),
    #[error("{0} holds no run (no meta.json)")]
    NotFound(PathBuf),
    /// The run's plain files are there, its store is not.
    #[error("{0} is missing: the run's rows are gone")]
    MissingStore(PathBuf),
    /// The run is being written by a living process.
    #[error("{0} is still running: its rows can be read when it has ended")]
    StillRunning(PathBuf),
    /// Another process reads this run's store.
    #[error("{0} is open in another process: sled lets one process at a time open a store")]
    StoreBusy(PathBuf),
    /// The run was written by a newer version of the program. Nothing of it was touched.
    #[error("{path} has schema {found}, this program reads up to {supported}: use a newer version of the program")]
    NewerSchema {
        path: PathBuf,
        found: u32,
        /// The newest schema that this program knows.
        supported: u32,
    },
    /// The run was written by an older version of the program. Nothing of it was touched.
    #[error(
        "{path} has schema {found}, this program reads {supported} alone: export it with the version that wrote it, and \
         import that"
    )]
    OlderSchema {
        path: PathBuf,
        found: u32,
        /// The only schema that this program reads.
        supported: u32,
    },
    /// A plain file of the run does not parse.
    #[error("{path} is damaged: {source}")]
    DamagedFile {
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A chunk does not decode; the other chunks are still readable.
    #[error("{path}: chunk {sequence} of table {table} (key {}) is damaged: {reason}", table.key_text(*.sequence))]
    DamagedChunk {
        path: PathBuf,
        table: Table,
        /// The chunk's number in its table.
        sequence: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The index and the closing row of a generation disagree about how many rounds it has.
    #[error("{path}: generation {id:?} was closed with {expected} rounds, {found} are stored")]
    MissingRounds {
        path: PathBuf,
        id: GenerationId,
        /// Rounds it was closed with.
        expected: u32,
        /// Rounds the store holds.
        found: u32,
    },
    /// The plain files say that more generations are stored than there are.
    #[error("{path}: {expected} closed generations are said to be stored, {found} are there")]
    MissingGenerations {
        path: PathBuf,
        /// Generations that `progress.json` tells of.
        expected: u64,
        /// Generations that the store holds.
        found: u64,
    },
    /// The rounds of the closed generations are fewer, or more, than these were closed with.
    #[error("{path}: closed generations have {expected} rounds, {found} are stored")]
    MissingRows {
        path: PathBuf,
        /// Rounds that the generations were closed with.
        expected: u64,
        /// Rounds of theirs that the store holds.
        found: u64,
    },
    /// A table without damaged chunks has another number of rows than the run's files say.
    #[error("{path}: table {table} has {found} rows, {expected} are said to be stored")]
    OtherCount {
        path: PathBuf,
        table: Table,
        /// Rows that the run's files tell of.
        expected: u64,
        /// Rows that the store holds.
        found: u64,
    },
    /// A run with damage was to be written to.
    #[error("{path} is damaged and stays as it is: {reason}")]
    NotWhole {
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A plain file of the run is not what was written.
    #[error("{0}: its checksum does not fit: it is damaged, or another program changed it")]
    BrokenSeal(PathBuf),
    /// `progress.json` is about another store than the run's.
    #[error("{path}: it does not say what {store} holds")]
    OtherStore {
        path: PathBuf,
        /// The store that `meta.json` names.
        store: String,
    },
    /// A store holds rows of another run than its `meta.json` is of.
    #[error("{path}: it holds rows of another run than {run}, whose meta.json lies beside it")]
    OtherRun {
        path: PathBuf,
        /// The id in `meta.json`.
        run: RunId,
    },
    /// A `meta.json` does not say which rows are the run's.
    #[error("{0} has no id of the run")]
    NoId(PathBuf),
    /// A file that each run has is not there.
    #[error("{0}: it is missing")]
    MissingFile(PathBuf),
    /// A file of a closed store has another size than when it was closed.
    #[error("{path}: it has {found} bytes, and had {expected} when the run was closed")]
    OtherSize { path: PathBuf, expected: u64, found: u64 },
    /// A file of a closed store has other contents than when it was closed.
    #[error("{path}: its contents are not those with which the run was closed")]
    OtherDigest { path: PathBuf },
    /// A reader finds no room for its private copy of a store.
    #[error(
        "{path}: reading this run takes a copy of {needed} bytes there, and {free} are free: free some, or let \
             SPECFLEET_SCRATCH name another folder"
    )]
    NoScratch {
        /// The folder for copies.
        path: PathBuf,
        /// Bytes that the copy takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The system gave no random number for a run's id.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(getrandom::Error),
    /// A tag that could not be told apart in a list.
    #[error("tag {0:?} is none: use 1 to 64 letters, digits and - _ . : / + = # % @, and start with a letter or digit")]
    BadTag(String),
    /// A compaction whose result is not what it started from. The run is as it was.
    #[error("{path}: the rewritten table {table} is not the same as before; the run is as it was")]
    NotTheSame { path: PathBuf, table: Table },
    /// The caller appended to a generation that it had closed before.
    #[error("generation {0:?} is closed: nothing can be added to it")]
    GenerationClosed(GenerationId),
    /// One row alone is larger than a chunk may be.
    #[error("a row of table {table} takes {bytes} bytes, a chunk holds {limit}")]
    RowTooLarge { table: Table, bytes: usize, limit: usize },
    /// One row's list alone has more elements than a chunk's lists may have.
    #[error("a row of table {table} has a list of {elements} values, a chunk holds {limit}")]
    ListTooLong {
        table: Table,
        /// Length of the list.
        elements: usize,
        limit: usize,
    },
    /// More kinds of scores than rows can name.
    #[error("{0} holds scores of 65536 scorers: it can take no more")]
    TooManyScorers(PathBuf),
    /// The disk is full, or so nearly that the writer stops before sled gets into trouble. What was flushed before is
    /// intact.
    #[error("too little space left on the disk of {path}: free some; what was flushed before is intact")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        source: io::Error,
    },
    /// sled found its files damaged, or failed otherwise.
    #[error("{path}: {}", sled_words(.source))]
    Store { path: PathBuf, source: sled::Error },
}

/// What sled says, in one line: it ends its words with an empty backtrace, and does not say what may heal.
fn sled_words(source: &sled::Error) -> String {
    match source {
        sled::Error::Corruption { .. } => {
            "sled finds its files damaged (if it is only conf or snap.*, a copy of the folder without them opens)"
                .to_owned()
        }
        other => other.to_string().replace('\n', " "),
    }
}

impl LedgerError {
    /// Whether the user can mend it before anything is tried again: exit code 2.
    pub fn is_mistake(&self) -> bool {
        match self {
            LedgerError::BadRunName(_)
            | LedgerError::RunExists(_)
            | LedgerError::NotFound(_)
            | LedgerError::NewerSchema { .. }
            | LedgerError::StillRunning(_)
            | LedgerError::BadTag(_) => true,
            // Something that is no folder, or not ours.
            LedgerError::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidFilename
                )
            }
            _ => false,
        }
    }

    /// An I/O error on `path`, with a full disk told apart.
    pub(crate) fn io(path: &Path, source: io::Error) -> LedgerError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LedgerError::DiskFull { path, source },
            _ => LedgerError::Io { path, source },
        }
    }

    /// A sled error on the store at `path`; its I/O errors become [`LedgerError::Io`] or [`LedgerError::DiskFull`].
    pub(crate) fn store(path: &Path, source: sled::Error) -> LedgerError {
        match source {
            // sled wraps a failed file lock in an error of kind `Other`; only its text tells.
            sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
                LedgerError::StoreBusy(path.to_path_buf())
            }
            sled::Error::Io(source) => LedgerError::io(path, source),
            source => LedgerError::Store { path: path.to_path_buf(), source },
        }
    }
}
