//! Mistakes in what was typed, in one line that names what is near.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};
use specfleet_config::{ShippedFile, nearest_of};

use super::Cli;
use crate::error::Error;

/// What clap says about a mistake, without its general advice, in one line.
pub(super) fn one_line(mistake: &clap::Error) -> String {
    let text = mistake.to_string();
    let advice = |line: &str| line.starts_with("Usage:") || line.starts_with("For more information");
    let said: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !advice(line)).filter(|l| !l.is_empty()).collect();
    let line = said.join("; ").replace(":; ", ": ").trim_start_matches("error: ").to_owned();
    match owners(mistake) {
        Some((flag, commands)) => format!("unexpected argument '{flag}' found; it is a flag of {commands}"),
        None => line,
    }
}

/// The commands that know an unknown flag, if any do: a better tip than a flag that merely looks like it.
fn owners(mistake: &clap::Error) -> Option<(String, String)> {
    if mistake.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = mistake.get(ContextKind::InvalidArg) else { return None };
    let long = flag.strip_prefix("--")?.split('=').next()?.to_owned();
    let root = Cli::command();
    let knows = |command: &&Command| command.get_arguments().any(|arg| arg.get_long() == Some(&long));
    let names: Vec<&str> = root.get_subcommands().filter(knows).map(Command::get_name).collect();
    (!names.is_empty()).then(|| (flag.clone(), names.join(", ")))
}

/// Whether a word that stands where a scenario may is no file and no scenario that ships.
pub(super) fn is_nothing(word: &Path) -> bool {
    let is_word = word.to_str().is_some_and(|word| !word.contains(['.', '/', '\\']));
    is_word && !word.exists() && !ShippedFile::SCENARIOS.iter().any(|preset| Path::new(preset.name) == word)
}

/// The error for such a word: it was meant as a command, a scenario or a file.
pub(super) fn unknown_word(word: &Path) -> Error {
    let word = word.to_string_lossy();
    let root = Cli::command();
    let scenarios: Vec<&str> = ShippedFile::SCENARIOS.iter().map(|preset| preset.name).collect();
    let commands = root.get_subcommands().map(Command::get_name);
    let near = nearest_of(&word, commands.chain(scenarios.iter().copied()));
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Error::Simulation(format!(
        "{word}: no command, no file, and no scenario of that name ships; those that do: {}{near}",
        scenarios.join(", ")
    ))
}
