//! `specfleet export`: a run for other tools.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Error;
use crate::opened::OpenedRuns;
use clap::Args;
use specfleet_export::{ExportFormat, ExportTable, Exported, Options, export};

use super::{LEDGER, find, name, print};

/// Flags of `export`.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The run: its name in the ledger, or its folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// parquet, csv or jsonl: one file per table; trace: a Chrome trace of rounds and batches
    #[arg(long, value_name = "FORMAT", default_value = "parquet")]
    format: String,
    /// Folder to write into; it must be empty or not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tables to export, of rounds, generations, batches, energy, audits, verifiers, scores [default: all]
    #[arg(long, value_name = "TABLES", value_delimiter = ',')]
    tables: Vec<String>,
    /// Replace an export that is in the folder
    #[arg(long)]
    force: bool,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &ExportArgs, opened: &OpenedRuns) -> anyhow::Result<ExitCode> {
    let format = ExportFormat::parse(&args.format).map_err(Error::from)?;
    let mut tables =
        args.tables.iter().map(|name| ExportTable::parse(name)).collect::<Result<Vec<_>, _>>().map_err(Error::from)?;
    if format == ExportFormat::Trace && !tables.is_empty() {
        return Err(Error::Asked("--tables: a trace is of rounds and batches, and has no tables".to_owned()).into());
    }
    tables.sort_unstable();
    tables.dedup();
    if tables.is_empty() {
        tables = ExportTable::ALL.to_vec();
    }
    let folder = find(&args.ledger, &args.run)?;
    let reader = opened.open(&folder)?;
    let interrupted = specfleet_signals::flag();
    let options = Options { format, tables: &tables, out: &args.out, force: args.force, interrupted };
    let exported = export(&reader, &options, &mut |damage| specfleet_logs::say!("specfleet: {damage}; left out"));
    let Exported { rows, .. } = exported.map_err(Error::from)?;
    for (file, rows) in rows {
        let what = if format == ExportFormat::Trace { "events" } else { "rows" };
        print(format!("{file}: {rows} {what}"))?;
    }
    print(format!("run {} in {}", name(&folder), args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}
