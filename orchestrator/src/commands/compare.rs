//! `specfleet compare RUN_A RUN_B`

use std::path::PathBuf;
use std::process::ExitCode;

use crate::compare::{self, ComparedPairs};
use crate::cores::cores;
use crate::opened::OpenedRuns;
use crate::stored::StoredRun;
use anyhow::Context;
use clap::Args;

use super::{LEDGER, find, print};

/// Two stored runs against each other, paired by prompt.
#[derive(Args)]
pub(crate) struct CompareArgs {
    /// The first run: its name in the ledger, or its folder
    run_a: PathBuf,
    /// The second
    run_b: PathBuf,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
    /// Methods of both, separated by commas [default: all common ones]
    #[arg(long, visible_alias = "method", value_name = "a,b", value_delimiter = ',')]
    methods: Vec<String>,
    /// A method of the first run, against --method-b of the second
    #[arg(long, value_name = "X", conflicts_with = "methods")]
    method_a: Option<String>,
    /// A method of the second run
    #[arg(long, value_name = "Y", conflicts_with = "methods")]
    method_b: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &CompareArgs, opened: &OpenedRuns) -> anyhow::Result<ExitCode> {
    let (first, second) = (find(&args.ledger, &args.run_a)?, find(&args.ledger, &args.run_b)?);
    if first == second {
        return Err(crate::error::Error::Question("compare needs two different runs".to_owned()).into());
    }
    let a = StoredRun::open(opened, &first, cores())?;
    let b = StoredRun::open(opened, &second, cores())?;
    let pairs = ComparedPairs {
        methods: args.methods.clone(),
        method_a: args.method_a.clone(),
        method_b: args.method_b.clone(),
    };
    let comparison = compare::compare(&a, &b, &pairs)?;
    if args.json {
        print(serde_json::to_string_pretty(&comparison).context("writing the comparison")?)?;
    } else {
        print(compare::text(&comparison))?;
    }
    Ok(ExitCode::SUCCESS)
}
