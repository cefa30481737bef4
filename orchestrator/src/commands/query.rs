//! `specfleet query RUN…`

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cores::cores;
use crate::opened::OpenedRuns;
use crate::query::{self, Query, QueryFormat};
use crate::stored::StoredRun;
use clap::Args;

use super::{LEDGER, find_all, print};

/// Ask stored runs for figures, grouped and filtered.
#[derive(Args)]
pub(crate) struct QueryArgs {
    /// The runs: names in the ledger, or folders
    #[arg(required_unless_present = "list")]
    runs: Vec<PathBuf>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
    /// Columns to group by, separated by commas
    #[arg(long, value_name = "a,b", value_delimiter = ',')]
    group_by: Vec<String>,
    /// Figures, separated by commas: METRIC:STATISTIC
    #[arg(long, value_name = "METRIC:STATISTIC,…", value_delimiter = ',', required_unless_present = "list")]
    metric: Vec<String>,
    /// A condition on the rows: COLUMN=VALUE, or with !=, <, <=, >, >=; may be repeated
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// How to print the answer
    #[arg(long, value_enum, default_value = "table")]
    format: QueryFormat,
    /// Rows to print at most [default: 10000 in a table, else all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print all metrics and groups with their units
    #[arg(long)]
    list: bool,
}

/// Rows of a table that a person may still look at.
const TABLE_ROWS: usize = 10_000;

pub(crate) fn run(args: &QueryArgs, opened: &OpenedRuns) -> anyhow::Result<ExitCode> {
    if args.list {
        print(query::list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let query = Query::parse(&args.group_by, &args.metric, &args.conditions)?;
    let folders = find_all(&args.ledger, &args.runs)?;
    let runs: Vec<StoredRun> =
        folders.iter().map(|folder| StoredRun::open(opened, folder, cores())).collect::<Result<_, _>>()?;
    let answer = query.ask(&runs)?;
    let is_table = args.format == QueryFormat::Table;
    let limit = args.limit.unwrap_or(if is_table { TABLE_ROWS } else { usize::MAX });
    print(query::write(&answer, args.format, limit))?;
    if is_table {
        answer.notes.iter().try_for_each(|note| print(format!("note: {note}")))?;
    } else {
        // What another program reads has no place for them.
        answer.notes.iter().for_each(|note| specfleet_logs::say!("note: {note}"));
        let left_off = answer.rows.len().saturating_sub(limit);
        if left_off > 0 {
            specfleet_logs::say!("note: {left_off} more rows are left off (--limit)");
        }
    }
    Ok(ExitCode::SUCCESS)
}
