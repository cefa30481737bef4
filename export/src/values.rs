//! Rows by columns, on their way between a run and a file.

use crate::schema::{Column, Kind};

/// In place of the code of a word that is not there.
pub(crate) const NO_WORD: u32 = u32::MAX;

/// The values of one column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
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

impl Values {
    /// No values yet.
    pub(crate) fn new(column: &Column, known: Vec<String>) -> Values {
        match column.kind {
            Kind::Integer if column.nullable => Values::MaybeIntegers(Vec::new()),
            Kind::Integer => Values::Integers(Vec::new()),
            Kind::Float => Values::Floats(Vec::new()),
            Kind::Boolean => Values::Booleans(Vec::new()),
            Kind::Text => Values::Words { codes: Vec::new(), known },
            Kind::Integers => Values::IntegerLists(Lists::new()),
            Kind::Floats => Values::FloatLists(Lists::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Values::Integers(values) => values.len(),
            Values::MaybeIntegers(values) => values.len(),
            Values::Floats(values) => values.len(),
            Values::Booleans(values) => values.len(),
            Values::Words { codes, .. } => codes.len(),
            Values::IntegerLists(lists) => lists.ends.len(),
            Values::FloatLists(lists) => lists.ends.len(),
        }
    }

    /// Forgets the values and keeps their memory.
    pub(crate) fn clear(&mut self) {
        match self {
            Values::Integers(values) => values.clear(),
            Values::MaybeIntegers(values) => values.clear(),
            Values::Floats(values) => values.clear(),
            Values::Booleans(values) => values.clear(),
            Values::Words { codes, .. } => codes.clear(),
            Values::IntegerLists(lists) => lists.clear(),
            Values::FloatLists(lists) => lists.clear(),
        }
    }
}

/// Some rows of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch {
    /// In the order of the table's columns; `None` for a derived or an added column that a file lacks.
    pub(crate) columns: Vec<Option<Values>>,
}

impl Batch {
    pub(crate) fn rows(&self) -> usize {
        self.columns.iter().flatten().next().map_or(0, Values::len)
    }

    pub(crate) fn clear(&mut self) {
        self.columns.iter_mut().flatten().for_each(Values::clear);
    }

    /// Numbers in its lists: rows with long ones weigh more.
    pub(crate) fn list_values(&self) -> usize {
        let weight = |values: &Values| match values {
            Values::IntegerLists(lists) => lists.values.len(),
            Values::FloatLists(lists) => lists.values.len(),
            _ => 0,
        };
        self.columns.iter().flatten().map(weight).sum()
    }
}
