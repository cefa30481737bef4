//! `specfleet tag`: words on a run.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Error;
use clap::Args;
use specfleet_ledger::edit_tags;

use super::{LEDGER, find, name, print};

/// Flags of `tag`.
#[derive(Args)]
pub(crate) struct TagArgs {
    /// The run: its name in the ledger, or its folder
    run: PathBuf,
    /// Words to put on it
    #[arg(value_name = "TAG", required_unless_present = "remove")]
    tags: Vec<String>,
    /// A word to take off; may be repeated
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &TagArgs) -> anyhow::Result<ExitCode> {
    let folder = find(&args.ledger, &args.run)?;
    let tags = edit_tags(&folder, &args.tags, &args.remove).map_err(Error::from)?;
    let tags = if tags.is_empty() { "no tags".to_owned() } else { tags.join(", ") };
    print(format!("{}: {tags}", name(&folder)))?;
    Ok(ExitCode::SUCCESS)
}
