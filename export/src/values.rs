//! Rows by columns, on their way between a run and a file.

use crate::schema::{ColumnKind, ExportColumn};

/// In place of the code of a word that is not there.
pub(crate) const NO_WORD: u32 = u32::MAX;

/// The values of one column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ColumnValues {
    Integers(Vec<i64>),
    MaybeIntegers(Vec<Option<i64>>),
    /// NaN is written as NULL.
    Floats(Vec<f32>),
    Booleans(Vec<bool>),
    /// Codes are places in `known`.
    Words {
        codes: Vec<u32>,
        known: Vec<String>,
    },
    IntegerLists(Lists<i64>),
    FloatLists(Lists<f32>),
}

/// Lists one behind the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lists<T> {
    /// Where each list ends.
    pub(crate) ends: Vec<usize>,
    pub(crate) values: Vec<T>,
}

impl<T: Copy> Lists<T> {
    pub(crate) fn new() -> Lists<T> {
        Lists { ends: Vec::new(), values: Vec::new() }
    }

    pub(crate) fn push(&mut self, list: impl Iterator<Item = T>) {
        self.values.extend(list);
        self.ends.push(self.values.len());
    }

    pub(crate) fn get(&self, row: usize) -> &[T] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.values[start..self.ends[row]]
    }

    fn clear(&mut self) {
        self.ends.clear();
        self.values.clear();
    }
}

impl ColumnValues {
    pub(crate) fn new(column: &ExportColumn, known: Vec<String>) -> ColumnValues {
        match column.kind {
            ColumnKind::Integer if column.nullable => ColumnValues::MaybeIntegers(Vec::new()),
            ColumnKind::Integer => ColumnValues::Integers(Vec::new()),
            ColumnKind::Float => ColumnValues::Floats(Vec::new()),
            ColumnKind::Boolean => ColumnValues::Booleans(Vec::new()),
            ColumnKind::Text => ColumnValues::Words { codes: Vec::new(), known },
            ColumnKind::Integers => ColumnValues::IntegerLists(Lists::new()),
            ColumnKind::Floats => ColumnValues::FloatLists(Lists::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            ColumnValues::Integers(values) => values.len(),
            ColumnValues::MaybeIntegers(values) => values.len(),
            ColumnValues::Floats(values) => values.len(),
            ColumnValues::Booleans(values) => values.len(),
            ColumnValues::Words { codes, .. } => codes.len(),
            ColumnValues::IntegerLists(lists) => lists.ends.len(),
            ColumnValues::FloatLists(lists) => lists.ends.len(),
        }
    }

    /// Forgets the values and keeps their memory.
    pub(crate) fn clear(&mut self) {
        match self {
            ColumnValues::Integers(values) => values.clear(),
            ColumnValues::MaybeIntegers(values) => values.clear(),
            ColumnValues::Floats(values) => values.clear(),
            ColumnValues::Booleans(values) => values.clear(),
            ColumnValues::Words { codes, .. } => codes.clear(),
            ColumnValues::IntegerLists(lists) => lists.clear(),
            ColumnValues::FloatLists(lists) => lists.clear(),
        }
    }
}

/// Some rows of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValueBatch {
    /// In the order of the table's columns; `None` for a derived or an added column that a file lacks.
    pub(crate) columns: Vec<Option<ColumnValues>>,
}

impl ValueBatch {
    pub(crate) fn rows(&self) -> usize {
        self.columns.iter().flatten().next().map_or(0, ColumnValues::len)
    }

    pub(crate) fn clear(&mut self) {
        self.columns.iter_mut().flatten().for_each(ColumnValues::clear);
    }

    /// Numbers in its lists: rows with long ones weigh more.
    pub(crate) fn list_values(&self) -> usize {
        let weight = |values: &ColumnValues| match values {
            ColumnValues::IntegerLists(lists) => lists.values.len(),
            ColumnValues::FloatLists(lists) => lists.values.len(),
            _ => 0,
        };
        self.columns.iter().flatten().map(weight).sum()
    }
}
