//! The paths and files that a scenario names: where each lies, whatever folder somebody reads the scenario in later, and what
//! was in it.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Document, join, path_to_text, split_commas, text_to_path};

/// A file that a scenario names, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// The dotted key that names it.
    pub key: String,
    /// Where it lies, from the root of the file system.
    pub path: PathBuf,
    /// SHA-256 of its contents, in hex.
    pub sha256: String,
}

impl InputFile {
    /// The path as text, whatever bytes it has; [`InputFile::path_of`] reads it.
    pub fn path_text(&self) -> String {
        path_to_text(&self.path).into_owned()
    }

    /// The path that such a text stands for.
    pub fn path_of(text: &str) -> PathBuf {
        text_to_path(text)
    }
}

/// A text that was read as a path.
#[derive(Clone, Debug)]
pub(super) struct NamedPath {
    key: String,
    text: String,
    /// From the root of the file system.
    path: PathBuf,
}

/// `path` from the root of the file system. It stays as it is where the working folder is gone.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Document {
    /// A path at `key`: relative to the document's folder, or to the working folder if it came from a flag.
    pub(super) fn resolve(&self, key: &str, text: &str) -> PathBuf {
        let path = text_to_path(text);
        let path = match (&self.folder, self.override_of(key)) {
            (Some(folder), None) => folder.join(path),
            _ => path,
        };
        let mut paths = self.paths.borrow_mut();
        // A flag may have put the same text there since.
        paths.retain(|named| named.key != key || named.text != text);
        paths.push(NamedPath { key: key.to_owned(), text: text.to_owned(), path: absolute(&path) });
        path
    }

    /// Remembers that a text at `key` may be a list with commas.
    pub(super) fn mark_list(&self, key: &str) {
        self.lists.borrow_mut().insert(key.to_owned());
    }

    /// Remembers a file that was read.
    pub(super) fn note_file(&self, key: String, path: &Path, sha256: String) {
        self.files.borrow_mut().push(InputFile { key, path: absolute(path), sha256 });
    }

    /// The files that were read since the last call.
    pub(crate) fn take_files(&self) -> Vec<InputFile> {
        self.files.take()
    }

    /// The tree with every path that was read from it written from the root of the file system.
    pub(crate) fn with_absolute_paths(&self) -> Table {
        self.absolute_table("", &self.table)
    }

    fn absolute_table(&self, prefix: &str, table: &Table) -> Table {
        let entry = |(name, value): (&String, &Value)| {
            let key = join(prefix, name);
            let value = match value {
                Value::String(text) => self.absolute_text(&key, text),
                other => self.absolute_value(&key, other),
            };
            (name.clone(), value)
        };
        table.iter().map(entry).collect()
    }

    fn absolute_value(&self, key: &str, value: &Value) -> Value {
        match value {
            Value::Table(table) => Value::Table(self.absolute_table(key, table)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.absolute_value(key, item)).collect()),
            Value::String(text) => Value::String(self.absolute_path(key, text).unwrap_or_else(|| text.clone())),
            other => other.clone(),
        }
    }

    /// A text that stands by itself, not in a list: it may be a list with commas, and then becomes one of texts, because an
    /// absolute path may have commas of its own.
    fn absolute_text(&self, key: &str, text: &str) -> Value {
        let single = || Value::String(self.absolute_path(key, text).unwrap_or_else(|| text.to_owned()));
        if !self.lists.borrow().contains(key) {
            return single();
        }
        let parts = split_commas(text);
        if parts.iter().all(|part| self.absolute_path(key, part).is_none()) {
            return single();
        }
        let part = |part: &String| Value::String(self.absolute_path(key, part).unwrap_or_else(|| part.clone()));
        Value::Array(parts.iter().map(part).collect())
    }

    /// What `text` at `key` was resolved to, if it was read as a path.
    fn absolute_path(&self, key: &str, text: &str) -> Option<String> {
        let paths = self.paths.borrow();
        let named = paths.iter().find(|named| named.key == key && named.text == text)?;
        Some(path_to_text(&named.path).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::Scenario;
    use crate::workload::sha256_hex;

    /// A scenario that names files from its folder means the same when its text is read in another folder.
    #[test]
    fn a_scenario_as_text_can_be_read_anywhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("with, comma");
        fs::create_dir(&own).expect("a folder");
        let link = "name = \"l\"\nsource = \"s\"\nemulated = true\nkind = \"trace\"\ntrace = \"l.csv\"\n\
            round_trip_ms = 1\ntransmit_watts = 1\nreceive_watts = 1\n";
        let files = [
            ("a.jsonl", "{\"prompt\": \"a\"}"),
            ("l.csv", "seconds,uplink_bps,downlink_bps\n0,1e6,1e6\n1,1e6,1e6\n"),
            ("at.csv", "1\n2\n"),
            ("p.toml", include_str!("../../devices/phone.toml")),
            ("l.toml", link),
        ];
        for (name, text) in files {
            fs::write(own.join(name), text).expect("written");
        }
        let text = "[run]\nworkload = [{ data = \"a.jsonl\", prompts = 1 }, { data = \"gsm8k\", prompts = 1 }]\n\
            [device]\nprofile = \"p.toml, phone\"\nlink = [\"l.toml\", \"fair\"]\n[model]\ndrafter = \"d\"\n\
            [load]\npattern = \"csv\"\nfile = \"at.csv\"\n[calibration]\nworkload = \"a.jsonl\"\n\
            [simulate]\nfidelity = \"trace\"\ntrace = \"runs/x\"\n[pool.tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
        let mut scenario = Scenario::parse("my.toml", text, Some(&own)).expect("TOML");
        scenario.set("model.verifier=v").expect("a key");
        let settings = scenario.settings().unwrap_or_else(|error| panic!("{error}"));
        let written = scenario.to_toml();
        let again = Scenario::parse("stored", &written, None).expect("TOML");
        let again = again.settings().unwrap_or_else(|error| panic!("{error}: {written}"));
        assert_eq!(again.scenario_hash(), settings.scenario_hash(), "{written}");
        assert_eq!(again.files, settings.files);
        let drafter = own.join("d");
        assert!(written.contains(drafter.to_str().expect("Unicode")), "{written}");
        let verifier = std::env::current_dir().expect("a folder").join("v");
        assert!(
            written.contains(verifier.to_str().expect("Unicode")),
            "flags are relative to the working folder: {written}"
        );
        let keys: Vec<&str> = settings.files.iter().map(|file| file.key.as_str()).collect();
        let expected = [
            "run.workload.data",
            "device.profile",
            "device.link",
            "device.link.trace",
            "load.file",
            "calibration.workload",
        ];
        assert_eq!(keys, expected);
        assert_eq!(settings.files[0].sha256, sha256_hex(files[0].1.as_bytes()));
    }
}
