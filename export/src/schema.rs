//! Which tables and columns there are.

use crate::error::ExportError;
use crate::rows;

/// The version of the exported tables. It grows when a column changes its meaning or disappears; a new column does not
/// change it.
pub const SCHEMA: u32 = 1;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One Parquet file per table.
    Parquet,
    /// One CSV file per table, with a header.
    Csv,
    /// One file of JSON lines per table.
    Jsonl,
    /// One Chrome trace of rounds and batches.
    Trace,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Parquet, Format::Csv, Format::Jsonl, Format::Trace];

    /// As on the command line, and the ending of the files.
    pub fn name(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Trace => "trace",
        }
    }

    /// The format of a name; the nearest ones if there is none.
    pub fn parse(name: &str) -> Result<Format, ExportError> {
        let found = Format::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| ExportError::unknown("--format", name, Format::ALL.iter().map(|format| format.name())))
    }
}

/// A table of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
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

impl Table {
    /// All of them.
    pub const ALL: [Table; 7] = [
        Table::Rounds,
        Table::Generations,
        Table::Batches,
        Table::Energy,
        Table::Audits,
        Table::Verifiers,
        Table::Scores,
    ];

    /// As on the command line, and the stem of its file.
    pub fn name(self) -> &'static str {
        match self {
            Table::Rounds => "rounds",
            Table::Generations => "generations",
            Table::Batches => "batches",
            Table::Energy => "energy",
            Table::Audits => "audits",
            Table::Verifiers => "verifiers",
            Table::Scores => "scores",
        }
    }

    /// The table of a name; the nearest ones if there is none.
    pub fn parse(name: &str) -> Result<Table, ExportError> {
        let found = Table::ALL.into_iter().find(|table| table.name() == name);
        found.ok_or_else(|| ExportError::unknown("--tables", name, Table::ALL.iter().map(|table| table.name())))
    }

    /// Its columns, in order.
    pub fn columns(self) -> Vec<Column> {
        rows::columns(self)
    }

    /// Whether an import needs it; energy follows from generations and verifiers.
    pub(crate) fn is_imported(self) -> bool {
        self != Table::Energy
    }
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64 bits, signed.
    Integer,
    /// 32 bits; NaN is NULL.
    Float,
    /// True or false.
    Boolean,
    /// One of a few words, or a name.
    Text,
    /// A list of integers.
    Integers,
    /// A list of floats.
    Floats,
}

impl Kind {
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Kind::Integers | Kind::Floats)
    }

    /// The name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Integer => "int64",
            Kind::Float => "float32",
            Kind::Boolean => "boolean",
            Kind::Text => "text",
            Kind::Integers => "list of int64",
            Kind::Floats => "list of float32",
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// Whether it repeats what other columns say, for readers' sake; an import does not need it.
    pub derived: bool,
    /// Whether exports of earlier versions lack it, which an import takes too.
    pub added: bool,
    /// Unit of its values; empty for none.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
}
