//! `specfleet simulate --against RUN…`: a live run repeated in virtual time, figure by figure.

use std::path::{Path, PathBuf};

use comfy_table::{Cell, CellAlignment, Table, presets};
use specfleet_analysis::{AgainstRow, Summary, compare_summaries};
use specfleet_config::{Scenario, Settings};
use specfleet_engine::method::Method;
use specfleet_engine::record::ACCOUNTING;
use specfleet_ledger::{RunKind, RunReader};

use crate::error::Error;
use crate::pair::Pair;
use crate::prompts;
use crate::report::significant;
use crate::results::results;
use crate::stored::inputs;
use crate::work::WorkPlan;

/// The scenario that a run was made with.
pub fn scenario_of(folder: &Path) -> Result<Scenario, Error> {
    let reader = RunReader::open(folder)?;
    let meta = reader.meta();
    if meta.kind != RunKind::Live {
        return Err(Error::Simulation(format!("--against: run {} was simulated itself; name a live run", meta.run)));
    }
    Ok(inputs::scenario_of(meta)?)
}

/// The methods that a run was made with, every threshold a number, in the order of `names`; `None` if it lacks one.
pub fn methods_of(folder: &Path, names: &[&str]) -> Result<Option<Vec<Method>>, Error> {
    let reader = RunReader::open(folder)?;
    let method = |name: &&str| reader.meta().methods.iter().find(|method| method.name == *name).cloned();
    Ok(names.iter().map(method).collect())
}

/// Refuses runs that are not all live and of one scenario.
pub fn check(folders: &[PathBuf]) -> Result<(), Error> {
    let mut hash: Option<String> = None;
    for folder in folders {
        settings_of(folder)?;
        let meta = RunReader::open(folder)?.meta().clone();
        if meta.accounting != ACCOUNTING {
            return Err(Error::Simulation(format!(
                "--against: run {} accounts energy and waiting as accounting {}, a simulation as {ACCOUNTING}: repeat the run \
                 with this version",
                meta.run, meta.accounting
            )));
        }
        if hash.get_or_insert_with(|| meta.scenario_hash.clone()) != &meta.scenario_hash {
            return Err(Error::Simulation(format!(
                "--against: run {} is of another scenario than the first",
                meta.run
            )));
        }
    }
    Ok(())
}

/// The settings that a run was made with. One whose files or models have changed since cannot be repeated.
fn settings_of(folder: &Path) -> Result<Settings, Error> {
    scenario_of(folder)?;
    let reader = RunReader::open(folder)?;
    let meta = reader.meta();
    let refuse = |why: String| Error::Simulation(format!("--against: run {}: {why}", meta.run));
    let settings = inputs::unchanged(meta).map_err(refuse)?;
    match inputs::changed_pair(meta, &settings)? {
        Some(change) => Err(refuse(change)),
        None => Ok(settings),
    }
}

/// The figures of live runs, from their stored rows.
pub fn live_summaries(folders: &[PathBuf]) -> Result<Vec<Summary>, Error> {
    let mut summaries = Vec::new();
    for folder in folders {
        let mut settings = settings_of(folder)?;
        let pair = Pair::load(&settings.model)?;
        prompts::settle(&mut settings, &pair.tokenizer, pair.context())?;
        let work = WorkPlan::new(&settings, &pair)?;
        summaries.push(results(folder, &work, &pair.tokenizer, &[], None)?.0);
    }
    Ok(summaries)
}

/// Live, simulated and error, figure by figure.
pub fn compare(live: &[Summary], simulated: &[Summary]) -> Vec<AgainstRow> {
    compare_summaries(live, simulated)
}

/// The rows as a table, of so many live runs and so many simulations.
pub fn table(rows: &[AgainstRow], runs: usize, turns: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let median = |of: &str, count| if count > 1 { format!("{of}, median of {count}") } else { of.to_owned() };
    let (live, simulated) = (median("live", runs), median("simulated", turns));
    table.set_header(["method", "figure", "unit", &live, "range", &simulated, "range", "error %"]);
    let range = |range: Option<(f64, f64)>, count| {
        let several = range.filter(|_| count > 1);
        several.map_or(String::new(), |(low, high)| format!("{} to {}", significant(low), significant(high)))
    };
    let cell = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut method = "";
    for row in rows {
        // Each method is named once.
        let name = if row.method == method { "" } else { &row.method };
        method = &row.method;
        let figure = if row.statistic == specfleet_analysis::Statistic::Mean {
            row.metric.clone()
        } else {
            format!("{} {}", row.metric, row.statistic)
        };
        table.add_row([
            Cell::new(name),
            Cell::new(figure),
            Cell::new(&row.unit),
            cell(row.live.map_or(String::new(), significant)),
            cell(range(row.live_range, runs)),
            cell(row.simulated.map_or(String::new(), significant)),
            cell(range(row.simulated_range, turns)),
            cell(row.relative_error.map_or(String::new(), |error| format!("{:+.1}", error * 100.0))),
        ]);
    }
    table.to_string()
}
