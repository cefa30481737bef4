//! Checking a stored run: the ledger reads every chunk, and the books of every generation are added up.

use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table, presets};
use specfleet_analysis::{PoolAccount, check_energy_closes};
use specfleet_ledger::{LedgerError, RunReader, RunState, Verified};

use crate::error::Error;
use crate::results::unpaid;

/// Contradictions and books that a message lists; the others are counted.
const LISTED: usize = 20;

/// What a check of a run found.
#[derive(Debug)]
pub struct Checked {
    stored: Verified,
    /// Generations that can be read and whose rows contradict them.
    books: Vec<String>,
    /// Generations whose books were added up.
    generations: usize,
}

impl Checked {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.stored.is_sound() && self.books.is_empty()
    }

    /// What was found, one line each: every damaged chunk, then what it cost, then books that do not close.
    pub fn problems(&self) -> Vec<String> {
        let damaged = self.stored.tables.iter().flat_map(|table| &table.damaged).map(LedgerError::to_string);
        let mut lines: Vec<String> = self.stored.files.iter().cloned().chain(damaged).collect();
        lines.extend(some(self.stored.contradictions.iter().map(LedgerError::to_string).collect()));
        lines.extend(some(self.books.clone()));
        lines
    }
}

/// The first few, and how many more there are.
fn some(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(LISTED);
    lines.truncate(LISTED);
    if more > 0 {
        lines.push(format!("and {more} more like these"));
    }
    lines
}

/// Checks a run that has ended.
pub fn check(run_dir: &Path) -> Result<Checked, Error> {
    let reader = RunReader::open(run_dir)?;
    let stored = reader.verify()?;
    let (mut books, mut generations) = (Vec::new(), 0);
    let mut account = PoolAccount::default();
    // What cannot be read was found above.
    for record in reader.generations().flatten() {
        let Ok(rounds) = reader.rounds(record.id) else { continue };
        generations += 1;
        account.generation(&record);
        if let Err(imbalance) = check_energy_closes(&record, &rounds, reader.meta().accounting) {
            let id = record.id;
            let method = reader.meta().methods.get(usize::from(id.method)).map_or("?", |method| &method.name);
            let pass = if reader.meta().passes() > 1 { format!(", pass {}", id.pass) } else { String::new() };
            books.push(format!("{method}, prompt {}, repetition {}{pass}: {imbalance}", id.prompt, id.repetition));
        }
    }
    reader.batches().flatten().for_each(|batch| account.batch(&batch));
    let meta = reader.meta();
    let whole = stored.is_sound() && meta.state == RunState::Completed && reader.open_generations().is_empty();
    if whole {
        books.extend(unpaid(meta, &account));
    }
    Ok(Checked { stored, books, generations })
}

/// One line per table.
pub fn table(checked: &Checked) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["table", "chunks", "rows", "bytes", "damaged"]);
    for check in &checked.stored.tables {
        let numbers = [check.chunks, check.rows, check.bytes, check.damaged.len() as u64];
        let numbers = numbers.map(|number| Cell::new(number).set_alignment(CellAlignment::Right));
        table.add_row(std::iter::once(Cell::new(check.table.name())).chain(numbers));
    }
    format!("{table}\n{} generations added up, {} do not close", checked.generations, checked.books.len())
}
