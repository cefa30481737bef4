//! The CSV of a sweep, written while it goes on: a sweep takes hours, and what was measured must outlive its end.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use specfleet_analysis::Statistic;
use specfleet_export::csv_cell;

use super::{COLUMNS, SweepRow};
use crate::error::Error;

/// The file. Which rows nobody beats is known at the end only, and until then the column is empty.
pub(super) struct SweepFile {
    path: PathBuf,
    file: File,
    header: String,
    /// Whether it is no regular file, such as a pipe or a terminal: what went there cannot be written again, so the rows go
    /// there at the end.
    is_stream: bool,
}

impl SweepFile {
    /// Makes the file, or empties it, and writes its header.
    pub(super) fn create(path: &Path, keys: &[String]) -> Result<SweepFile, Error> {
        let failed = |source| Error::Output { path: path.to_path_buf(), source };
        let file = File::create(path).map_err(failed)?;
        let is_stream = !file.metadata().map_err(failed)?.is_file();
        let mut sweep_file = SweepFile { path: path.to_path_buf(), file, header: header(keys), is_stream };
        if !is_stream {
            sweep_file.write(&sweep_file.header.clone())?;
        }
        Ok(sweep_file)
    }

    /// Adds the rows of a point.
    pub(super) fn append(&mut self, rows: &[SweepRow]) -> Result<(), Error> {
        if self.is_stream {
            return Ok(());
        }
        self.write(&rows.iter().map(|row| line(row, "")).collect::<String>())
    }

    /// Writes all rows again, now that it is known which ones nobody beats.
    pub(super) fn finish(mut self, rows: &[SweepRow]) -> Result<(), Error> {
        let lines = rows.iter().map(|row| line(row, if row.pareto { "true" } else { "false" }));
        let text: String = std::iter::once(self.header.clone()).chain(lines).collect();
        if !self.is_stream {
            // Rows grow by their last cell alone, so nothing of what was there is left behind the end.
            self.file.seek(SeekFrom::Start(0)).map_err(|source| self.failed(source))?;
        }
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<(), Error> {
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Output { path: self.path.clone(), source }
    }
}

fn header(keys: &[String]) -> String {
    let mut cells: Vec<String> = keys.iter().map(|key| csv_cell(key).into_owned()).collect();
    cells.push("method".to_owned());
    cells.extend(COLUMNS.iter().map(|column| match column.2 {
        Statistic::Mean => column.1.to_owned(),
        statistic => format!("{}_{statistic}", column.1),
    }));
    cells.push("pareto".to_owned());
    cells.join(",") + "\n"
}

/// Figures are in SI units.
fn line(row: &SweepRow, pareto: &str) -> String {
    let mut cells: Vec<String> = row.values.iter().map(|value| csv_cell(value).into_owned()).collect();
    cells.push(csv_cell(&row.method).into_owned());
    cells.extend(row.figures.iter().map(|figure| figure.map_or(String::new(), |figure| figure.to_string())));
    cells.push(pareto.to_owned());
    cells.join(",") + "\n"
}
