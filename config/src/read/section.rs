//! One table of a document, read key by key.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use specfleet_engine::time::Span;
use toml::{Table, Value};

use super::{Document, InputFile, join, nearest, read_text_as_it_is};
use crate::ConfigError;
use crate::workload::sha256_hex;

type Read<T> = Result<T, ConfigError>;

/// A table of a document; a table that is absent reads as an empty one.
#[derive(Clone, Debug)]
pub(crate) struct Section<'a> {
    document: &'a Document,
    path: String,
    table: Option<&'a Table>,
}

impl<'a> Section<'a> {
    pub(super) fn new(document: &'a Document, path: String, table: Option<&'a Table>) -> Section<'a> {
        Section { document, path, table }
    }

    /// The table `name` in this one.
    pub(crate) fn section(&self, name: &str) -> Read<Section<'a>> {
        match self.value(name) {
            None => Ok(Section::new(self.document, join(&self.path, name), None)),
            Some(value) => self.inline(name, value),
        }
    }

    /// A value of `name` (or an element of it) that must be a table.
    pub(crate) fn inline(&self, name: &str, value: &'a Value) -> Read<Section<'a>> {
        let table = value.as_table().ok_or_else(|| self.wrong_type(name, "a table", value))?;
        Ok(Section::new(self.document, join(&self.path, name), Some(table)))
    }

    /// Names of the keys that are present.
    pub(crate) fn present(&self) -> Vec<&'a str> {
        self.table.map(|table| table.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.document.ask(&join(&self.path, name));
        self.table.and_then(|table| table.get(name))
    }

    /// A whole number in a range, if present.
    pub(crate) fn opt_integer<T: TryFrom<u64>>(&self, name: &str, range: RangeInclusive<u64>) -> Read<Option<T>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_integer().ok_or_else(|| self.wrong_type(name, "a whole number", value))?;
        u64::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| self.out_of_range(name, &number, between(&range)))
    }

    /// A whole number in a range.
    pub(crate) fn integer<T: TryFrom<u64>>(&self, name: &str, range: RangeInclusive<u64>, default: T) -> Read<T> {
        Ok(self.opt_integer(name, range)?.unwrap_or(default))
    }

    /// A whole number in a range that must be there.
    pub(crate) fn required_integer<T: TryFrom<u64>>(&self, name: &str, range: RangeInclusive<u64>) -> Read<T> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.opt_integer(name, range)?.ok_or_else(|| self.missing(name, expected))
    }

    /// A number in a range, if present.
    pub(crate) fn opt_number(&self, name: &str, range: RangeInclusive<f64>) -> Read<Option<f64>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = match value {
            Value::Float(number) => *number,
            Value::Integer(number) => *number as f64,
            other => return Err(self.wrong_type(name, "a number", other)),
        };
        if !range.contains(&number) {
            return Err(self.out_of_range(name, &number, between(&range)));
        }
        // Adding zero turns -0.0 into 0.0, so that equal settings have equal canonical texts.
        Ok(Some(number + 0.0))
    }

    /// A number in a range.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<f64>, default: f64) -> Read<f64> {
        Ok(self.opt_number(name, range)?.unwrap_or(default))
    }

    /// A number in a range that must be there.
    pub(crate) fn required_number(&self, name: &str, range: RangeInclusive<f64>) -> Read<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.opt_number(name, range)?.ok_or_else(|| self.missing(name, expected))
    }

    /// A number of milliseconds in a range, if present.
    pub(crate) fn opt_millis(&self, name: &str, range: RangeInclusive<f64>) -> Read<Option<Span>> {
        Ok(self.opt_number(name, range)?.map(|millis| Span::from_seconds(millis * 1e-3)))
    }

    /// A number of milliseconds in a range.
    pub(crate) fn millis(&self, name: &str, range: RangeInclusive<f64>, default: f64) -> Read<Span> {
        Ok(Span::from_seconds(self.number(name, range, default)? * 1e-3))
    }

    /// A number of seconds in a range, if present.
    pub(crate) fn opt_seconds(&self, name: &str, range: RangeInclusive<f64>) -> Read<Option<Span>> {
        Ok(self.opt_number(name, range)?.map(Span::from_seconds))
    }

    /// A number of seconds in a range.
    pub(crate) fn seconds(&self, name: &str, range: RangeInclusive<f64>, default: f64) -> Read<Span> {
        Ok(Span::from_seconds(self.number(name, range, default)?))
    }

    /// Refuses whichever of `names` is present: what was chosen with `because`, such as `pattern = "closed"`, has no use
    /// for it.
    pub(crate) fn refuse_unused(&self, names: &[&str], because: &str) -> Read<()> {
        // All are asked for, so that each is a known key.
        let present: Vec<&str> = names.iter().copied().filter(|name| self.value(name).is_some()).collect();
        match present.first() {
            Some(name) => Err(self.conflict(name, format!("has no use with {because}"))),
            None => Ok(()),
        }
    }

    /// True or false, if present.
    pub(crate) fn opt_flag(&self, name: &str) -> Read<Option<bool>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong_type(name, "true or false", value))
    }

    /// A text that is not empty, if present.
    pub(crate) fn opt_text(&self, name: &str) -> Read<Option<&'a str>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.as_str() {
            Some(text) if !text.trim().is_empty() => Ok(Some(text)),
            Some(_) => Err(self.conflict(name, "must not be empty")),
            None => Err(self.wrong_type(name, "a text", value)),
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(&self, name: &str) -> Read<&'a str> {
        self.opt_text(name)?.ok_or_else(|| self.missing(name, "a text".to_owned()))
    }

    /// One of several names, if present.
    pub(crate) fn opt_choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Read<Option<T>> {
        let Some(text) = self.opt_text(name)? else { return Ok(None) };
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let valid: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
                Err(self.unknown_name(name, text, valid.join(", ")))
            }
        }
    }

    /// One of several names that must be there.
    pub(crate) fn required_choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Read<T> {
        let valid: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        self.opt_choice(name, choices)?.ok_or_else(|| self.missing(name, format!("one of {}", valid.join(", "))))
    }

    /// A list of texts: an array of them, or one text with commas.
    pub(crate) fn opt_texts(&self, name: &str) -> Read<Option<Vec<String>>> {
        const EXPECTED: &str = "a list of texts, or one text with commas";
        let Some(value) = self.value(name) else { return Ok(None) };
        match value {
            Value::String(text) => Ok(Some(split_commas(text))),
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| self.wrong_type(name, EXPECTED, item)))
                .collect::<Read<Vec<_>>>()
                .map(Some),
            other => Err(self.wrong_type(name, EXPECTED, other)),
        }
    }

    /// A path, if present: relative to the document's folder, or to the working folder if a flag gave it.
    pub(crate) fn opt_path(&self, name: &str) -> Read<Option<PathBuf>> {
        Ok(self.opt_text(name)?.map(|text| self.resolve(name, text)))
    }

    /// What a path at `name` is relative to, applied.
    pub(crate) fn resolve(&self, name: &str, path: &str) -> PathBuf {
        self.document.resolve(&join(&self.path, name), path)
    }

    /// Remembers that a text at `name` may be a list with commas.
    pub(crate) fn mark_list(&self, name: &str) {
        self.document.mark_list(&join(&self.path, name));
    }

    /// Reads the text file that `name` names, with all that is in it, and remembers its digest.
    pub(crate) fn read_file(&self, name: &str, path: &Path) -> Read<String> {
        let text = read_text_as_it_is(path)?;
        self.document.note_file(join(&self.path, name), path, sha256_hex(text.as_bytes()));
        Ok(text)
    }

    /// Remembers the files that a file at `name` named in its turn.
    pub(crate) fn adopt_files(&self, name: &str, of: &Document) {
        for InputFile { key, path, sha256 } in of.take_files() {
            self.document.note_file(join(&join(&self.path, name), &key), &path, sha256);
        }
    }

    pub(crate) fn wrong_type(&self, name: &str, expected: &'static str, found: &Value) -> ConfigError {
        let (origin, key) = self.place(name);
        ConfigError::WrongType { origin, key, expected, found: describe(found) }
    }

    pub(crate) fn unknown_name(&self, name: &str, value: &str, valid: String) -> ConfigError {
        let (origin, key) = self.place(name);
        ConfigError::UnknownName { origin, key, value: value.to_owned(), valid }
    }

    pub(crate) fn conflict(&self, name: &str, problem: impl Into<String>) -> ConfigError {
        let (origin, key) = self.place(name);
        ConfigError::Conflict { origin, key, problem: problem.into() }
    }

    /// As `conflict`, about this table itself.
    pub(crate) fn conflict_here(&self, problem: impl Into<String>) -> ConfigError {
        let (origin, key) = (self.document.origin_of(&self.path), self.path.clone());
        ConfigError::Conflict { origin, key, problem: problem.into() }
    }

    /// A key that must be there is not; if one very like it is, that one is the mistake.
    pub(crate) fn missing(&self, name: &str, expected: String) -> ConfigError {
        let (origin, key) = self.place(name);
        let known = |other: &str| self.document.asked.borrow().contains(&join(&self.path, other));
        match self.present().into_iter().find(|other| !known(other) && nearest::is_near(other, name)) {
            Some(typed) => {
                let (origin, typed) = self.place(typed);
                ConfigError::UnknownKey { origin, key: typed, nearest: Some(key) }
            }
            None => ConfigError::Missing { origin, key, expected },
        }
    }

    pub(crate) fn out_of_range(
        &self,
        name: &str,
        value: &impl std::fmt::Display,
        range: impl Into<String>,
    ) -> ConfigError {
        let (origin, key) = self.place(name);
        ConfigError::OutOfRange { origin, key, value: value.to_string(), range: range.into() }
    }

    fn place(&self, name: &str) -> (String, String) {
        let key = join(&self.path, name);
        (self.document.origin_of(&key), key)
    }
}

/// A range in words.
fn between<T: std::fmt::Display>(range: &RangeInclusive<T>) -> String {
    format!("must lie in {} to {}", range.start(), range.end())
}

/// The parts of a text between commas, trimmed, without empty ones.
pub(crate) fn split_commas(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Type and, where it is short, value.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() <= 60 => format!("the text {text:?}"),
        Value::String(_) => "a text".to_owned(),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(date) => format!("the date {date}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}
