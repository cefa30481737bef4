//! The commands that have files of their own, and what they share.

pub(crate) mod score;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Folder of all runs, unless a flag says otherwise.
pub(crate) const LEDGER: &str = "specfleet-runs";

/// Prints a line. Nobody listening any more (`| head`) is no mistake.
pub(crate) fn print(line: impl Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print"),
    }
}

/// A run by its name in the ledger, or by its folder.
pub(crate) fn place(ledger: &Path, run: &Path) -> PathBuf {
    let named = ledger.join(run);
    if !run.is_dir() || named.is_dir() { named } else { run.to_path_buf() }
}
