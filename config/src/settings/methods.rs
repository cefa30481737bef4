//! `run.methods`, `[method]` and `[methods.NAME]`: which methods run, and what the scenario changes about them.

use serde::{Deserialize, Serialize};
use specfleet_engine::calibration::MethodOverrides;
use specfleet_engine::method::METHOD_NAMES;

use crate::ConfigError;
use crate::overrides::MethodTable;
use crate::read::Section;

/// Stands for every method but [`PRICE`].
const ALL: &str = "all";
/// The one method whose tokens depend on timing. It runs only where it is named, so that the others stay a comparison that
/// repeats bit for bit.
const PRICE: &str = "price";

/// A method to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodChoice {
    /// The preset's name, one of [`METHOD_NAMES`].
    pub name: String,
    /// What the scenario changes about it, its own table before the general one.
    pub overrides: MethodOverrides,
}

pub(super) fn read(root: &Section<'_>, run: &Section<'_>) -> Result<Vec<MethodChoice>, ConfigError> {
    let general = MethodTable::read(&root.section("method")?)?;
    let own = root.section("methods")?;
    if let Some(name) = own.present().into_iter().find(|name| !METHOD_NAMES.contains(name)) {
        let problem = format!("{name:?} is no method; valid: {}", METHOD_NAMES.join(", "));
        return Err(root.conflict("methods", problem));
    }
    // All are read, also those that do not run, so that a mistake in them is found today.
    let all = METHOD_NAMES
        .iter()
        .map(|&name| {
            let overrides = MethodTable::read(&own.section(name)?)?.over(&general);
            Ok(MethodChoice { name: name.to_owned(), overrides })
        })
        .collect::<Result<Vec<_>, ConfigError>>()?;
    let names = run.opt_texts("methods")?.unwrap_or_else(|| vec![ALL.to_owned()]);
    if names == [ALL] {
        return Ok(all.into_iter().filter(|choice| choice.name != PRICE).collect());
    }
    let mut chosen: Vec<MethodChoice> = Vec::new();
    for name in &names {
        let choice = all.iter().find(|choice| choice.name == *name);
        let choice =
            choice.ok_or_else(|| run.unknown_name("methods", name, format!("{}, or all", METHOD_NAMES.join(", "))))?;
        if chosen.contains(choice) {
            return Err(run.conflict("methods", format!("names {name} twice")));
        }
        chosen.push(choice.clone());
    }
    if chosen.is_empty() {
        return Err(run.conflict("methods", "must name at least one method"));
    }
    Ok(chosen)
}
