//! Reading typed, bounded values from a TOML tree, with errors that name origin, key and what would be right.
//!
//! serde's own errors name neither the dotted key nor the valid range, so sections are read by hand: each read names a
//! key, its type and its range in one place, and what is never asked for is an unknown key.

mod inputs;
mod nearest;
mod path_text;
mod section;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use specfleet_files::{DATA, SMALL};
use toml::{Table, Value};

pub use inputs::InputFile;
use inputs::NamedPath;
pub(crate) use inputs::absolute;
pub use nearest::nearest_of;
pub(crate) use path_text::{is_url, path_to_text, text_to_path};
pub(crate) use section::{Section, split_commas};

use crate::ConfigError;

/// A TOML tree, where it came from, and which of its keys have been asked for.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// File or preset, for messages.
    origin: String,
    /// What relative paths in it are relative to; none for what is embedded.
    folder: Option<PathBuf>,
    table: Table,
    /// Dotted keys that came from elsewhere, with the flag they came from; later ones win.
    overrides: Vec<(String, String)>,
    /// Every dotted key asked for so far, present or not: the valid keys.
    asked: RefCell<BTreeSet<String>>,
    /// The texts that were read as paths.
    paths: RefCell<Vec<NamedPath>>,
    /// Keys whose texts may be lists with commas.
    lists: RefCell<BTreeSet<String>>,
    /// The files that were read.
    files: RefCell<Vec<InputFile>>,
}

impl Document {
    pub(crate) fn parse(origin: String, folder: Option<PathBuf>, text: &str) -> Result<Document, ConfigError> {
        let table = text.parse::<Table>().map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.as_bytes().get(..offset).unwrap_or_default();
            ConfigError::Syntax {
                origin: origin.clone(),
                line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
                message: error.message().lines().collect::<Vec<_>>().join(", "),
            }
        })?;
        Ok(Document {
            origin,
            folder,
            table,
            overrides: Vec::new(),
            asked: RefCell::default(),
            paths: RefCell::default(),
            lists: RefCell::default(),
            files: RefCell::default(),
        })
    }

    /// Reads and parses a file.
    pub(crate) fn open(path: &Path) -> Result<Document, ConfigError> {
        let text = read_toml(path)?;
        Document::parse(path.display().to_string(), path.parent().map(Path::to_owned), &text)
    }

    /// Puts `value` at a dotted key, in the name of `flag`.
    pub(crate) fn put(&mut self, flag: &str, key: &str, value: Value) -> Result<(), ConfigError> {
        let mut table = &mut self.table;
        let mut segments: Vec<&str> = key.split('.').collect();
        let last = segments.pop().unwrap_or_default();
        for (depth, segment) in segments.iter().enumerate() {
            let slot = table.entry(*segment).or_insert_with(|| Value::Table(Table::new()));
            table = match slot {
                Value::Table(inner) => inner,
                other => {
                    return Err(ConfigError::WrongType {
                        origin: flag.to_owned(),
                        key: segments[..=depth].join("."),
                        expected: "a table",
                        found: section::describe(other),
                    });
                }
            };
        }
        table.insert(last.to_owned(), value);
        self.overrides.push((key.to_owned(), flag.to_owned()));
        Ok(())
    }

    /// The dotted keys at `key` that stand in the tree: itself, or everything in it if it is a table.
    pub(crate) fn given(&self, key: &str) -> Vec<String> {
        let mut segments = key.split('.');
        let first = segments.next().and_then(|name| self.table.get(name));
        let found = segments.fold(first, |value, name| value?.as_table()?.get(name));
        let mut keys = Vec::new();
        if let Some(value) = found {
            leaves(key, value, &mut keys);
        }
        keys
    }

    /// The keys at or in `key` that a flag set, the latest first.
    pub(crate) fn flagged(&self, key: &str) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for (set, _) in self.overrides.iter().rev() {
            if is_within(set, key) && !keys.contains(set) {
                keys.push(set.clone());
            }
        }
        keys
    }

    /// The whole tree as a section.
    pub(crate) fn root(&self) -> Section<'_> {
        Section::new(self, String::new(), Some(&self.table))
    }

    /// Refuses keys that nothing asked for. To be called when all reading is done.
    pub(crate) fn refuse_unknown(&self) -> Result<(), ConfigError> {
        self.refuse_unknown_in("", &self.table)
    }

    /// Every key that was asked for, present or not.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.borrow().iter().cloned().collect()
    }

    fn refuse_unknown_in(&self, prefix: &str, table: &Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = join(prefix, name);
            let inside = format!("{key}.");
            let has_inner = self.asked.borrow().range(inside.clone()..).next().is_some_and(|k| k.starts_with(&inside));
            let known = self.asked.borrow().contains(&key);
            match value {
                Value::Table(inner) if has_inner => self.refuse_unknown_in(&key, inner)?,
                Value::Array(items) if has_inner => {
                    for inner in items.iter().filter_map(Value::as_table) {
                        self.refuse_unknown_in(&key, inner)?;
                    }
                }
                _ if known => {}
                _ => {
                    let nearest = nearest::nearest(&key, self.asked.borrow().iter());
                    // A quoted key may hold anything, line breaks too.
                    let shown = key.escape_debug().to_string();
                    return Err(ConfigError::UnknownKey { origin: self.origin_of(&key), key: shown, nearest });
                }
            }
        }
        Ok(())
    }

    /// The flag that a key, or something in it, came from; or the document.
    pub(crate) fn origin_of(&self, key: &str) -> String {
        self.override_of(key).unwrap_or(&self.origin).to_owned()
    }

    fn override_of(&self, key: &str) -> Option<&str> {
        // A table that holds an overridden key may stand there only because of it.
        let concerns = |set: &str| is_within(key, set) || is_within(set, key);
        self.overrides.iter().rev().find(|(set, _)| concerns(set)).map(|(_, flag)| flag.as_str())
    }

    fn ask(&self, key: &str) {
        self.asked.borrow_mut().insert(key.to_owned());
    }
}

/// Reads a file of TOML, without the byte order mark that some editors begin one with.
fn read_toml(path: &Path) -> Result<String, ConfigError> {
    read_bounded(path, SMALL).map(|text| without_mark(&text).to_owned())
}

/// Reads a text file with all that is in it: what a digest of the file is taken over.
pub(crate) fn read_text_as_it_is(path: &Path) -> Result<String, ConfigError> {
    read_bounded(path, DATA)
}

fn read_bounded(path: &Path, most: u64) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = specfleet_files::read(path, most).map_err(failed)?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ConfigError::Utf16 { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))
}

/// `text` without a byte order mark at its start.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Whether one dotted key is the other or lies in it.
fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Adds the keys of everything in `value` that is no table.
fn leaves(key: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Table(table) => table.iter().for_each(|(name, inner)| leaves(&join(key, name), inner, keys)),
        _ => keys.push(key.to_owned()),
    }
}

/// `prefix.name`, or `name` at the root.
fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}
