//! What an import takes: what figures may be, what names may hold, and how many there may be of each thing.
//!
//! An export may come from anywhere. A figure that no run can have spoils every sum that it is in, and a name that no
//! table can show spoils the terminal; both are refused, with the place where they stand.

use std::cell::Cell;
use std::path::Path;

use specfleet_engine::record::BETWEEN_METHODS;
use specfleet_ledger::{Meta, check_tag};

use crate::error::{ExportError, clip};
use crate::visit::{Misfit, NJ, NS, Spec};

/// Most nanoseconds of a time: a hundred years. Four of them still have a sum.
const MOST_NANOSECONDS: i64 = 3_155_760_000_000_000_000;

/// Most nanojoules of a value: four gigajoules, what a verifier of 700 W takes in two months.
const MOST_NANOJOULES: i64 = 4_000_000_000_000_000_000;

/// Most nanojoules of a table: whoever adds them up has 64 bits.
const MOST_NANOJOULES_IN_ALL: i64 = i64::MAX;

/// Most of what is counted: every program has these numbers exactly.
const MOST_COUNTED: i64 = 1 << 53;

/// Most devices of a scenario, and most verifiers of a pool that scales itself.
const MOST_DEVICES: u32 = 1_000_000;
const MOST_VERIFIERS: u32 = 4_096;

/// Most methods, data sets, scorers and tags of a run, each: summaries hold figures for every pair of some.
const MOST_NAMES: usize = 1_000;

/// Longest name of a method, data set or scorer, in bytes.
const LONGEST_NAME: usize = 256;

/// Longest wall time of a simulation: a hundred years.
const MOST_WALL_SECONDS: f64 = 3_155_760_000.0;

/// The last second of the year 9999: what comes later has no date.
const LAST_SECOND: u64 = 253_402_300_799;

/// Names that no run may have, because they mean something else in a ledger or on a command line: the folder of cached
/// calibrations, and the newest run.
pub const RESERVED_RUN_NAMES: [&str; 2] = ["calibrations", "latest"];

/// What the rows of a table may hold: how many there are of what they name by number, and what they have spent so far.
#[derive(Clone, Debug)]
pub(crate) struct Population {
    devices: i64,
    methods: i64,
    data_sets: i64,
    nanojoules: Cell<i64>,
}

impl Population {
    pub(crate) fn of(meta: &Meta) -> Population {
        let counted = |names: usize| i64::try_from(names).unwrap_or(i64::MAX);
        Population {
            // Descriptions of before say neither how many devices nor which methods there were.
            devices: i64::from(if meta.devices == 0 { MOST_DEVICES } else { meta.devices }),
            methods: if meta.methods.is_empty() { i64::from(u16::MAX) } else { counted(meta.methods.len()) },
            data_sets: counted(meta.data_sets.len()).max(1),
            nanojoules: Cell::new(0),
        }
    }

    /// Refuses an integer that no row of this run can have in this column.
    pub(crate) fn check(&self, Spec(column, unit, _): Spec, value: i64) -> Result<(), Misfit> {
        let most = match (column, unit) {
            ("device", _) => self.devices - 1,
            ("verifier", _) => i64::from(MOST_VERIFIERS) - 1,
            ("method_index", _) if value == i64::from(BETWEEN_METHODS) => return Ok(()),
            ("method_index", _) => self.methods - 1,
            ("data_set_index", _) => self.data_sets - 1,
            (_, NS) => MOST_NANOSECONDS,
            (_, NJ) => MOST_NANOJOULES,
            _ => MOST_COUNTED,
        };
        if (0..=most).contains(&value) {
            return if unit == NJ { self.spend(column, value) } else { Ok(()) };
        }
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        Err(Misfit { column, why: format!("{value} is out of range: 0 to {most}{unit}") })
    }

    /// Adds to what the table's rows have spent.
    fn spend(&self, column: &'static str, nanojoules: i64) -> Result<(), Misfit> {
        let Some(sum) = self.nanojoules.get().checked_add(nanojoules) else {
            let why = format!("the energies of the table have a sum of more than {MOST_NANOJOULES_IN_ALL} nJ here");
            return Err(Misfit { column, why });
        };
        self.nanojoules.set(sum);
        Ok(())
    }
}

/// Refuses a description with names that no table could show, with too many of them, or with dates that there are not.
pub(crate) fn check_description(path: &Path, meta: &Meta) -> Result<(), ExportError> {
    let refuse = |why: String| Err(ExportError::not_importable(path, why));
    let lists = [
        ("methods", meta.methods.len()),
        ("data sets", meta.data_sets.len()),
        ("scorers", meta.scorers.len()),
        ("tags", meta.tags.len()),
    ];
    if let Some((what, count)) = lists.into_iter().find(|(_, count)| *count > MOST_NAMES) {
        return refuse(format!("the run has {count} {what}, {MOST_NAMES} are taken at most"));
    }
    if meta.devices > MOST_DEVICES {
        return refuse(format!("the run has {} devices, {MOST_DEVICES} are taken at most", meta.devices));
    }
    if let Some(second) = [meta.started, meta.ended.unwrap_or(0)].into_iter().find(|second| *second > LAST_SECOND) {
        return refuse(format!("{second} seconds since 1970 are no date: {LAST_SECOND} are the last"));
    }
    if let Some(seconds) = meta.wall_seconds.filter(|seconds| !(0.0..=MOST_WALL_SECONDS).contains(seconds)) {
        return refuse(format!("wall_seconds = {seconds} is out of range: 0 to {MOST_WALL_SECONDS}"));
    }
    check_names(path, meta)
}

/// Refuses names that no table could show.
fn check_names(path: &Path, meta: &Meta) -> Result<(), ExportError> {
    let refuse = |why: String| Err(ExportError::not_importable(path, why));
    let methods = meta.methods.iter().map(|method| ("method", &method.name));
    let data_sets = meta.data_sets.iter().map(|name| ("data set", name));
    let scorers = meta.scorers.iter().map(|scorer| ("scorer", &scorer.name));
    let units = meta.scorers.iter().map(|scorer| ("scorer's unit", &scorer.unit));
    let words = || methods.clone().chain(scorers.clone());
    let names = || words().chain(units.clone()).chain(data_sets.clone());
    if let Some((what, name)) = names().find(|(_, name)| name.len() > LONGEST_NAME) {
        let (bytes, name) = (name.len(), clip(name));
        return refuse(format!("the name of a {what} has {bytes} bytes, {LONGEST_NAME} are allowed: {name:?}"));
    }
    if let Some((what, name)) = names().find(|(_, name)| name.contains(is_hidden)) {
        return refuse(format!("the name of a {what} holds characters that no line shows: {:?}", clip(name)));
    }
    // Data sets are named by their paths, which may hold anything that can be seen.
    if let Some((what, name)) = words().find(|(_, name)| !is_word(name)) {
        let allowed = "it starts with a letter or digit and holds these, spaces and punctuation";
        return refuse(format!("{:?} is no name of a {what}: {allowed}", clip(name)));
    }
    if let Some(error) = meta.tags.iter().find_map(|tag| check_tag(tag).err()) {
        return refuse(error.to_string());
    }
    let texts = [("scenario_hash", &meta.scenario_hash), ("pool_cost", &meta.pool_cost), ("cpu", &meta.machine.cpu)];
    let system = [("os", &meta.machine.os), ("arch", &meta.machine.arch)];
    let versions = meta.versions.iter().flat_map(|(name, version)| [("version", name), ("version", version)]);
    let mut texts = texts.into_iter().chain(system).chain(versions);
    match texts.find(|(_, text)| text.len() > LONGEST_NAME || text.contains(is_hidden)) {
        Some((what, text)) => {
            refuse(format!("{what}: {:?} is too long, or holds characters that no line shows", clip(text)))
        }
        None => Ok(()),
    }
}

/// Control characters and what changes the order of others on a line.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The rule of names in scenarios.
fn is_word(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation();
    name.starts_with(char::is_alphanumeric) && name.chars().all(plain)
}

/// Refuses a name that means something else.
pub(crate) fn check_run_name(name: &str) -> Result<(), ExportError> {
    // Some file systems do not tell large letters from small ones.
    if RESERVED_RUN_NAMES.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(ExportError::ReservedName { name: clip(name).into_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_their_ranges() {
        let population = Population { devices: 16, methods: 2, data_sets: 1, nanojoules: Cell::new(0) };
        let fits = |column, unit, value| population.clone().check(Spec(column, unit, ""), value).is_ok();
        assert!(fits("device", "", 15) && !fits("device", "", 16) && !fits("device", "", -1));
        assert!(fits("method_index", "", 1) && fits("method_index", "", 65_535) && !fits("method_index", "", 2));
        assert!(fits("data_set_index", "", 0) && !fits("data_set_index", "", 1));
        assert!(fits("verifier", "", 4_095) && !fits("verifier", "", 4_096));
        assert!(fits("idle_ns", NS, MOST_NANOSECONDS) && !fits("idle_ns", NS, MOST_NANOSECONDS + 1));
        assert!(fits("nanojoules", NJ, MOST_NANOJOULES) && !fits("nanojoules", NJ, i64::MAX) && !fits("x", NJ, -1));
        assert!(fits("cached", "token", 1 << 53) && !fits("cached", "token", (1 << 53) + 1));
    }

    #[test]
    fn energies_have_a_sum() {
        let population = Population { devices: 1, methods: 1, data_sets: 1, nanojoules: Cell::new(0) };
        let most = || population.check(Spec("device_nanojoules", NJ, ""), MOST_NANOJOULES);
        assert!(most().is_ok() && most().is_ok() && most().is_err());
    }

    #[test]
    fn names_are_words() {
        for good in ["hlm", "u-hlm", "bertscore_f1", "1/token", "Ünlü 2"] {
            assert!(is_word(good) && !good.contains(is_hidden), "{good}");
        }
        for bad in ["", "=1+1", " hlm", "-", "a\u{301}b"] {
            assert!(!is_word(bad), "{bad:?}");
        }
        assert!("a\u{1b}[2J".contains(is_hidden) && "a\u{202e}b".contains(is_hidden));
    }

    #[test]
    fn some_names_are_taken() {
        assert!(check_run_name("calibrations").is_err() && check_run_name("Latest").is_err());
        assert!(check_run_name("20261124-024931-d8fd").is_ok());
    }
}
