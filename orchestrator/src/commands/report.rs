//! `specfleet report RUN…`

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cores::cores;
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::page;
use crate::report_data::{self, ReportData};
use anyhow::Context;
use clap::Args;

use super::{LEDGER, find_all, for_each_run, print};

/// What a stored run says: tables, energy by part, the filter's damage.
#[derive(Args)]
pub(crate) struct ReportArgs {
    /// The runs: names in the ledger, or folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
    /// Print the report as JSON: one object, or a list of several
    #[arg(long)]
    json: bool,
    /// Write one self-contained page here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs it. A run that cannot be read keeps no other from being reported.
pub(crate) fn run(args: &ReportArgs, opened: &OpenedRuns) -> anyhow::Result<ExitCode> {
    let folders = find_all(&args.ledger, &args.runs)?;
    let mut reports: Vec<ReportData> = Vec::new();
    let outcome = for_each_run(&folders, |folder| {
        reports.push(report_data::report(opened, folder, cores())?);
        Ok(ExitCode::SUCCESS)
    })?;
    if reports.is_empty() {
        return Ok(outcome);
    }
    if let Some(file) = &args.html {
        std::fs::write(file, page::render(&reports)).map_err(|source| Error::Output { path: file.clone(), source })?;
        if !args.json {
            print(format!("report in {}", file.display()))?;
            return Ok(outcome);
        }
    }
    if args.json {
        let text = match &reports[..] {
            [report] if folders.len() == 1 => serde_json::to_string_pretty(report),
            reports => serde_json::to_string_pretty(reports),
        };
        print(text.context("writing the report")?)?;
    } else {
        let texts: Vec<String> = reports.iter().map(report_data::text).collect();
        print(texts.join("\n\n"))?;
    }
    Ok(outcome)
}
