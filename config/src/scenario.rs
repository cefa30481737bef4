//! A scenario: a tree of TOML with overrides on top, not yet checked.

use std::path::Path;

use toml::Value;

use crate::presets::ShippedFile;
use crate::read::{Document, path_to_text};
use crate::{ConfigError, Settings};

/// A scenario file with the command line's overrides on top.
#[derive(Clone, Debug)]
pub struct Scenario {
    document: Document,
}

impl Scenario {
    /// The scenario that runs when none is named.
    pub fn default_text() -> &'static str {
        ShippedFile::SCENARIOS[0].text
    }

    /// The scenario that runs when none is named, parsed.
    pub fn shipped_default() -> Result<Scenario, ConfigError> {
        Scenario::parse("the default scenario", Scenario::default_text(), None)
    }

    /// Reads a file; a name that ships (`default`, `paper`, `reference`) needs none. A file of that name goes first.
    pub fn load(path: &Path) -> Result<Scenario, ConfigError> {
        let shipped = path
            .to_str()
            .and_then(|name| ShippedFile::find(ShippedFile::SCENARIOS, name.strip_suffix(".toml").unwrap_or(name)));
        match shipped {
            Some(preset) if !path.is_file() => {
                Scenario::parse(&format!("scenarios/{}.toml", preset.name), preset.text, None)
            }
            None if !path.exists() => Err(ConfigError::UnknownScenario {
                name: path.display().to_string(),
                valid: ShippedFile::names(ShippedFile::SCENARIOS),
            }),
            _ => Ok(Scenario { document: Document::open(path)? }),
        }
    }

    /// Parses a text. `origin` names it in messages; relative paths in it are relative to `folder`, or to the working
    /// folder.
    pub fn parse(origin: &str, text: &str, folder: Option<&Path>) -> Result<Scenario, ConfigError> {
        let document = Document::parse(origin.to_owned(), folder.map(Path::to_owned), text)?;
        Ok(Scenario { document })
    }

    /// Applies `--set key=value`: a dotted key, and a value in TOML's own syntax or a bare text. Relative paths in it
    /// are relative to the working folder. Later overrides win; a table that would drop keys of the one in its place is refused.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        self.assign("--set", assignment)
    }

    /// The same for an assignment from another flag, such as `--vary`, in whose name mistakes are reported.
    pub fn assign(&mut self, flag: &str, assignment: &str) -> Result<(), ConfigError> {
        let (key, value) = assignment
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, _)| !key.is_empty() && key.split('.').all(|segment| !segment.trim().is_empty()))
            .ok_or_else(|| ConfigError::Assignment { assignment: assignment.to_owned() })?;
        let value = parse_value(value);
        self.refuse_dropping(flag, key, &value)?;
        self.document.put(flag, key, value)
    }

    /// Refuses a whole table where a table stands with keys that the new one does not name: they would be gone without a word,
    /// those that a flag set among them. Merging the two would mix what belongs together, such as two device profiles.
    fn refuse_dropping(&self, flag: &str, key: &str, value: &Value) -> Result<(), ConfigError> {
        let Value::Table(table) = value else { return Ok(()) };
        let names = |dropped: &str| {
            let path = dropped.strip_prefix(key).and_then(|rest| rest.strip_prefix('.'));
            path.is_none_or(|path| sets(table, path))
        };
        let dropped: Vec<String> = self.document.given(key).into_iter().filter(|given| !names(given)).collect();
        let Some(first) = dropped.first() else { return Ok(()) };
        let listed = dropped.iter().take(MOST_LISTED).map(|key| format!("{key} ({})", self.document.origin_of(key)));
        let listed = listed.collect::<Vec<_>>().join(", ");
        let more = dropped.len().saturating_sub(MOST_LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let example = table.keys().next().map_or_else(|| first.clone(), |name| format!("{key}.{name}"));
        Err(ConfigError::Conflict {
            origin: flag.to_owned(),
            key: key.to_owned(),
            problem: format!("this table would drop {listed}{more}; set its keys one by one, such as {example}=…"),
        })
    }

    /// Applies another flag, such as `--devices`, in whose name mistakes are reported.
    pub fn set_flag(&mut self, flag: &str, key: &str, value: impl Into<Value>) -> Result<(), ConfigError> {
        self.document.put(flag, key, value.into())
    }

    /// Applies a flag that names a file or a folder, whatever bytes its path has.
    pub fn set_path_flag(&mut self, flag: &str, key: &str, path: &Path) -> Result<(), ConfigError> {
        self.set_flag(flag, key, path_to_text(path).as_ref())
    }

    /// The tree with its overrides, as TOML, to be read again anywhere: the paths in it that [`Scenario::settings`] has read
    /// are absolute.
    pub fn to_toml(&self) -> String {
        self.document.with_absolute_paths().to_string()
    }

    /// Checks everything, and reads the profiles and data sets that the scenario names.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        // What an earlier call has read.
        drop(self.document.take_files());
        let settings = Settings::read(&self.document.root())?;
        self.document.refuse_unknown()?;
        Ok(Settings { files: self.document.take_files(), ..settings })
    }

    /// The tree and where its keys came from.
    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    /// Every key that a scenario may have.
    #[cfg(test)]
    fn keys(&self) -> Vec<String> {
        self.document.asked()
    }
}

/// Dropped keys that a message lists; the others are counted.
const MOST_LISTED: usize = 4;

/// Whether a table has a value at a dotted path, or at a part of it that is no table.
fn sets(table: &toml::Table, path: &str) -> bool {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    match (table.get(name), rest) {
        (None, _) => false,
        (Some(Value::Table(inner)), Some(rest)) => sets(inner, rest),
        (Some(_), _) => true,
    }
}

/// A value in TOML's syntax, or else the text itself.
fn parse_value(text: &str) -> Value {
    // A line break could smuggle in a second key; such a text is no value.
    let parsed = if text.contains('\n') { None } else { format!("value = {text}").parse::<toml::Table>().ok() };
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
