//! Which tables and columns there are.

use crate::error::ExportError;
use crate::rows;

/// The version of the exported tables. It grows when a column changes its meaning or disappears; a new column does not
/// change it.
pub const SCHEMA: u32 = 1;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One Parquet file per table.
    Parquet,
    /// One CSV file per table, with a header.
    Csv,
    /// One file of JSON lines per table.
    Jsonl,
    /// One Chrome trace of rounds and batches.
    Trace,
}

impl ExportFormat {
    /// All of them.
    pub const ALL: [ExportFormat; 4] =
        [ExportFormat::Parquet, ExportFormat::Csv, ExportFormat::Jsonl, ExportFormat::Trace];

    /// As on the command line, and the ending of the files.
    pub fn name(self) -> &'static str {
        match self {
            ExportFormat::Parquet => "parquet",
            ExportFormat::Csv => "csv",
            ExportFormat::Jsonl => "jsonl",
            ExportFormat::Trace => "trace",
        }
    }

    /// The format of a name; the nearest ones if there is none.
    pub fn parse(name: &str) -> Result<ExportFormat, ExportError> {
        let found = ExportFormat::ALL.into_iter().find(|format| format.name() == name);
        found
            .ok_or_else(|| ExportError::unknown("--format", name, ExportFormat::ALL.iter().map(|format| format.name())))
    }
}

/// A table of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExportTable {
    /// One row per committed token.
    Rounds,
    /// One row per closed generation.
    Generations,
    /// One row per verification batch.
    Batches,
    /// One row per owner and part of the energy.
    Energy,
    /// One row per audited generation.
    Audits,
    /// One row per verifier and method.
    Verifiers,
    /// One row per generation and scorer.
    Scores,
}

impl ExportTable {
    /// All of them.
    pub const ALL: [ExportTable; 7] = [
        ExportTable::Rounds,
        ExportTable::Generations,
        ExportTable::Batches,
        ExportTable::Energy,
        ExportTable::Audits,
        ExportTable::Verifiers,
        ExportTable::Scores,
    ];

    /// As on the command line, and the stem of its file.
    pub fn name(self) -> &'static str {
        match self {
            ExportTable::Rounds => "rounds",
            ExportTable::Generations => "generations",
            ExportTable::Batches => "batches",
            ExportTable::Energy => "energy",
            ExportTable::Audits => "audits",
            ExportTable::Verifiers => "verifiers",
            ExportTable::Scores => "scores",
        }
    }

    /// The table of a name; the nearest ones if there is none.
    pub fn parse(name: &str) -> Result<ExportTable, ExportError> {
        let found = ExportTable::ALL.into_iter().find(|table| table.name() == name);
        found.ok_or_else(|| ExportError::unknown("--tables", name, ExportTable::ALL.iter().map(|table| table.name())))
    }

    /// Its columns, in order.
    pub fn columns(self) -> Vec<ExportColumn> {
        rows::columns(self)
    }

    /// Whether an import needs it; energy follows from generations and verifiers.
    pub(crate) fn is_imported(self) -> bool {
        self != ExportTable::Energy
    }
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Integer,
    /// 32 bits; NaN is NULL.
    Float,
    Boolean,
    /// One of a few words, or a name.
    Text,
    /// A list of integers.
    Integers,
    /// A list of floats.
    Floats,
}

impl ColumnKind {
    pub(crate) fn is_list(self) -> bool {
        matches!(self, ColumnKind::Integers | ColumnKind::Floats)
    }

    /// The name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::Integer => "int64",
            ColumnKind::Float => "float32",
            ColumnKind::Boolean => "boolean",
            ColumnKind::Text => "text",
            ColumnKind::Integers => "list of int64",
            ColumnKind::Floats => "list of float32",
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportColumn {
    pub name: &'static str,
    /// What its values are.
    pub kind: ColumnKind,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// Whether it repeats what other columns say, for readers' sake; an import does not need it.
    pub derived: bool,
    /// Whether exports of earlier versions lack it, which an import takes too.
    pub added: bool,
    /// Unit of its values; empty for none.
    pub unit: &'static str,
    pub meaning: &'static str,
}
