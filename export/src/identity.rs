//! By what an import knows the files of an export again: their names, their digests and how many rows they have.
//!
//! `run.json` says them. Whoever changes a file on purpose takes `digests` and `rows` out of `run.json`; whatever else
//! changes one, a broken copy or a bad disk, is found before a row of it is stored.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use specfleet_files::hex;

use crate::error::{ExportError, clip};
use crate::folder::RUN_FILE;
use crate::stop::Stop;

/// The field of `run.json` that holds the digests.
pub(crate) const DIGESTS: &str = "digests";

/// The fields of `run.json` in exports of before, which have no digests. A further field beside them is one of which a
/// letter has changed.
const FIRST_FIELDS: [&str; 7] = ["damaged_chunks", "export_schema", "format", "meta", "program", "rows", "summary"];

/// Bytes that are read at a time.
const STEP: usize = 1 << 18;

/// SHA-256 by the name of the file; under [`RUN_FILE`] that of the other fields of `run.json` itself.
pub(crate) type Digests = BTreeMap<String, String>;

/// The digest of a file, in hex.
pub(crate) fn of_file(path: &Path, stop: Stop<'_>) -> Result<String, ExportError> {
    let failed = |source| ExportError::io(path, source);
    let mut file = specfleet_files::open(path, u64::MAX).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut step = vec![0; STEP];
    loop {
        stop.check()?;
        let read = file.read(&mut step).map_err(failed)?;
        if read == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&step[..read]);
    }
}

/// The digest of the description: of all its fields but the digests, whatever spaces are between them.
pub(crate) fn of_description(about: &Value) -> String {
    let fields: BTreeMap<&String, &Value> =
        about.as_object().into_iter().flatten().filter(|(name, _)| *name != DIGESTS).collect();
    let mut digest = Sha256::new();
    for (name, value) in fields {
        digest.update(format!("{name}:{value}\n"));
    }
    hex(&digest.finalize())
}

/// Refuses a folder whose files are not those that its description names.
pub(crate) fn check_files(dir: &Path, about: &Value, digests: &Digests, stop: Stop<'_>) -> Result<(), ExportError> {
    let changed = |file: &str| {
        let why = format!(
            "its SHA-256 is not the one in {RUN_FILE}: it was damaged or changed since it was exported (who changed it on \
             purpose takes {DIGESTS} and rows out of {RUN_FILE})"
        );
        Err(ExportError::not_importable(&dir.join(file), why))
    };
    if digests.get(RUN_FILE).is_none_or(|known| *known != of_description(about)) {
        return changed(RUN_FILE);
    }
    // A name of this folder, and no way out of it.
    let is_there = |file: &String| !file.contains(['/', '\\']) && dir.join(file).exists();
    if let Some(file) = digests.keys().find(|file| !is_there(file)) {
        return Err(ExportError::not_importable(dir, format!("there is no {}, which {RUN_FILE} names", clip(file))));
    }
    let failed = |source| ExportError::io(dir, source);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let known = name.to_str().is_some_and(|name| name.starts_with('.') || digests.contains_key(name));
        if !known {
            let why = format!("it is no part of the export: {RUN_FILE} does not name it; take it away");
            return Err(ExportError::not_importable(&dir.join(name), why));
        }
    }
    for (file, known) in digests.iter().filter(|(file, _)| *file != RUN_FILE) {
        if of_file(&dir.join(file), stop)? != *known {
            return changed(file);
        }
    }
    Ok(())
}

/// Refuses a description without digests that an earlier version did not write.
pub(crate) fn check_first_fields(path: &Path, about: &Value) -> Result<(), ExportError> {
    let mut names = about.as_object().into_iter().flatten().map(|(name, _)| name);
    match names.find(|name| !FIRST_FIELDS.contains(&name.as_str())) {
        Some(name) => {
            let why = format!("field {:?} is unknown where there are no {DIGESTS}", clip(name));
            Err(ExportError::not_importable(path, why))
        }
        None => Ok(()),
    }
}

/// Refuses a table of another length than the description says. `None` says nothing.
pub(crate) fn check_rows(path: &Path, known: Option<u64>, found: u64) -> Result<(), ExportError> {
    match known {
        Some(known) if known != found => {
            let why = format!("it has {found} rows, and {RUN_FILE} says {known}: it is not whole");
            Err(ExportError::not_importable(path, why))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_description_has_one_digest_however_it_is_laid_out() {
        let digest = |text: &str| of_description(&serde_json::from_str(text).expect("JSON"));
        let known = digest(r#"{"a": [1, 0.1], "b": {"c": "d"}}"#);
        assert_eq!(digest("{\"b\":{\"c\":\"d\"},\n\"digests\":{\"x\":\"0\"},\"a\":[1,0.1]}"), known);
        for other in
            [r#"{"a": [1, 0.2], "b": {"c": "d"}}"#, r#"{"b": [1, 0.1], "a": {"c": "d"}}"#, r#"{"a": [1, 0.1]}"#]
        {
            assert_ne!(digest(other), known, "{other}");
        }
    }

    #[test]
    fn a_file_has_the_digest_that_other_programs_tell() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("abc");
        fs::write(&path, "abc").expect("written");
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_file(&path, Stop(&AtomicBool::new(false))).expect("a digest"), known);
        let stopped = of_file(&path, Stop(&AtomicBool::new(true)));
        assert!(matches!(stopped, Err(ExportError::Interrupted)));
    }
}
