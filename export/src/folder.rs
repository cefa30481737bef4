//! The folder of an export: everything is written aside and put in place at the end, or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use specfleet_files::aside::{self, Aside};

use crate::error::ExportError;
use crate::schema::{ExportFormat, ExportTable};

/// Description of the run beside the tables.
pub(crate) const RUN_FILE: &str = "run.json";

pub(crate) const TRACE_FILE: &str = "trace.json";

/// Of the folder that files wait in.
const PREFIX: &str = ".exporting-";

/// Name of a table's file.
pub(crate) fn table_file(table: ExportTable, format: ExportFormat) -> String {
    format!("{}.{}", table.name(), format.name())
}

/// Files aside, until they are put in place. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Staging {
    out: PathBuf,
    aside: Aside,
    /// Folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    files: Vec<String>,
    done: bool,
}

impl Staging {
    /// Makes the folder. One that has something in it is refused, unless `force` says that an export in it may go.
    pub(crate) fn new(out: &Path, force: bool) -> Result<Staging, ExportError> {
        let failed = |source| ExportError::io(out, source);
        aside::remove_dead(out, PREFIX);
        let missing = out.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists());
        let made: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        match fs::read_dir(out) {
            Ok(mut entries) => {
                if !force && entries.next().is_some() {
                    return Err(ExportError::NotEmpty(out.to_path_buf()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(out).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        }
        match Aside::new(out, PREFIX) {
            Ok(aside) => Ok(Staging { out: out.to_path_buf(), aside, made, files: Vec::new(), done: false }),
            Err(error) => {
                remove_empty(&made);
                Err(failed(error))
            }
        }
    }

    /// Where to write a file.
    pub(crate) fn file(&mut self, name: String) -> PathBuf {
        let path = self.aside.path().join(&name);
        self.files.push(name);
        path
    }

    /// Where a file that was written lies until it is put in place.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.aside.path().join(name)
    }

    /// The same as [`Staging::file`], opened.
    pub(crate) fn create(&mut self, name: String) -> Result<(PathBuf, File), ExportError> {
        let path = self.file(name);
        let file = File::create(&path).map_err(|source| ExportError::io(&path, source))?;
        Ok((path, file))
    }

    /// Puts the files in place, each over what an earlier export left under its name, and takes away what else that one
    /// left. Its description goes first and the new one, the last file, comes last: a folder with a description is whole.
    pub(crate) fn put_in_place(mut self) -> Result<(), ExportError> {
        self.remove(RUN_FILE)?;
        let tables = ExportTable::ALL.into_iter();
        let earlier = tables.flat_map(|table| ExportFormat::ALL.map(|format| table_file(table, format)));
        for name in [TRACE_FILE.to_owned()].into_iter().chain(earlier).filter(|name| !self.files.contains(name)) {
            self.remove(&name)?;
        }
        for name in &self.files {
            let to = self.out.join(name);
            fs::rename(self.aside.path().join(name), &to).map_err(|source| ExportError::io(&to, source))?;
        }
        self.done = true;
        Ok(())
    }

    /// Removes a file of an earlier export, if it is there.
    fn remove(&self, name: &str) -> Result<(), ExportError> {
        let path = self.out.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ExportError::io(&path, error)),
            _ => Ok(()),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // The folders are empty without it.
            let _ = fs::remove_dir_all(self.aside.path());
            remove_empty(&self.made);
        }
    }
}

/// Removes folders, the innermost first. Whatever goes wrong here, there is nobody left to tell.
fn remove_empty(folders: &[PathBuf]) {
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}
