//! `specfleet man`: manual pages, made from the same descriptions as the help.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::print;
use crate::cli::Cli;
use crate::error::Error;

/// The flags of `specfleet man`.
#[derive(Args)]
pub(crate) struct ManArgs {
    /// Write the page of each command into this folder instead
    folder: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut root = Cli::command();
    // Flags that every command has are passed on to the commands.
    root.build();
    match &args.folder {
        None => print(String::from_utf8_lossy(&page(&root)?).trim_end())?,
        Some(folder) => {
            let failed = |source| Error::Output { path: folder.clone(), source };
            fs::create_dir_all(folder).map_err(failed)?;
            write(&root, "specfleet", folder)?;
            for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
                write(command, &format!("specfleet-{}", command.get_name()), folder)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: &Command) -> Result<Vec<u8>, Error> {
    let mut page = Vec::new();
    let failed = |source| Error::Output { path: command.get_name().into(), source };
    let version = concat!("specfleet ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(version).render(&mut page).map_err(failed)?;
    Ok(page)
}

fn write(command: &Command, name: &str, folder: &Path) -> Result<(), Error> {
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, page(command)?).map_err(|source| Error::Output { path, source })
}
