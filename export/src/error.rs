//! What can go wrong between a ledger and a folder of tables.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use specfleet_engine::names::{did_you_mean, nearest};
use specfleet_ledger::LedgerError;
use thiserror::Error;

/// An error of an export or an import, in one line.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file or folder that cannot be read or written.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// The disk is full. Nothing was put in place.
    #[error("too little space left on the disk of {0}: free some, or export elsewhere; nothing was exported")]
    DiskFull(PathBuf),
    /// The operating system gave no thread. Nothing was put in place.
    #[error("cannot start a thread: {0}; see ulimit -u, ulimit -v and the limits of a container")]
    Thread(io::Error),
    /// The folder has something in it already.
    #[error("{0} is not empty: choose another folder, or say --force to replace an export in it")]
    NotEmpty(PathBuf),
    /// A name that does not exist.
    #[error("{what} {name:?} is unknown; {instead}")]
    Unknown {
        /// What kind of name, with the place where it stood.
        what: String,
        name: String,
        /// The nearest valid ones, or all.
        instead: String,
    },
    /// Somebody asked for the end. Nothing was put in place.
    #[error("interrupted")]
    Interrupted,
    /// A name of a run that stands for something else.
    #[error(
        "run name {name:?} means something else in every ledger and on every command line; --name gives it another"
    )]
    ReservedName { name: String },
    /// A folder or a file that cannot be imported.
    #[error("{path}: {why}")]
    NotImportable { path: PathBuf, why: String },
    #[error("{path}: {source}")]
    Parquet { path: PathBuf, source: ParquetError },
}

impl ExportError {
    /// Whether the user can mend it before anything is tried again: exit code 2.
    pub fn is_mistake(&self) -> bool {
        match self {
            ExportError::NotEmpty(_)
            | ExportError::Unknown { .. }
            | ExportError::ReservedName { .. }
            | ExportError::NotImportable { .. } => true,
            ExportError::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::NotFound
                    // What is no regular file, or one that is too large.
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::FileTooLarge
                    | io::ErrorKind::InvalidFilename
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
            ExportError::Ledger(error) => error.is_mistake(),
            ExportError::Interrupted
            | ExportError::DiskFull(_)
            | ExportError::Thread(_)
            | ExportError::Parquet { .. } => false,
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> ExportError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExportError::DiskFull(path.to_path_buf()),
            _ => ExportError::Io { path: path.to_path_buf(), source },
        }
    }

    /// The library hides the system's errors in its own.
    pub(crate) fn parquet(path: &Path, source: ParquetError) -> ExportError {
        match source {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(source) => ExportError::io(path, *source),
                Err(inner) => ExportError::Parquet { path: path.to_path_buf(), source: ParquetError::External(inner) },
            },
            source => ExportError::Parquet { path: path.to_path_buf(), source },
        }
    }

    pub(crate) fn not_importable(path: &Path, why: impl Into<String>) -> ExportError {
        let mut why = why.into();
        // Other libraries' words may repeat what they read.
        if let Some((end, _)) = why.char_indices().nth(LONGEST_REASON) {
            why.truncate(end);
            why.push('…');
        }
        ExportError::NotImportable { path: path.to_path_buf(), why }
    }

    pub(crate) fn unknown<'a>(
        what: impl Into<String>,
        name: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> ExportError {
        ExportError::Unknown { what: what.into(), name: clip(name).into_owned(), instead: instead(name, known) }
    }
}

/// Most characters of a reason; the names of all columns take half of them.
const LONGEST_REASON: usize = 1_000;

/// Most characters of a name that are compared and told.
const LONGEST_NAME: usize = 64;

/// A name as messages tell it: a file may have one of any length.
pub(crate) fn clip(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]).into(),
        None => name.into(),
    }
}

/// What to say after a name that does not exist.
pub(crate) fn instead<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = nearest(&clip(name), known.clone());
    did_you_mean(&near).unwrap_or_else(|| format!("there are {}", known.collect::<Vec<_>>().join(", ")))
}
