//! Stored runs for other tools, and back: Parquet, CSV and JSON lines by tables, and a Chrome trace of what happened when.
//!
//! Each table's columns are named once, in a function that visits a row (`rows/`): the schema, writing and reading all
//! come from there, and `docs/export.md` is checked against it. Everything is streamed: what is in memory is a row group,
//! and sixteen bytes per generation.

mod csv_cell;
mod error;
mod export;
mod folder;
mod identity;
mod import;
mod jsonl;
mod limits;
mod pages;
mod parquet_reader;
mod parquet_writer;
mod rows;
mod schema;
mod stop;
mod text;
mod trace;
mod values;
mod visit;

pub use csv_cell::csv_cell;
pub use error::ExportError;
pub use export::{Exported, Options, export};
pub use import::{ImportOptions, Imported, import};
pub use limits::RESERVED_RUN_NAMES;
pub use schema::{ColumnKind, ExportColumn, ExportFormat, ExportTable, SCHEMA};
