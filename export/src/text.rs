//! Tables as CSV and as JSON lines.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::csv_cell::csv_cell;
use crate::schema::ExportColumn;
use crate::values::{ColumnValues, ValueBatch};

/// The header of a CSV file.
pub(crate) fn csv_header(columns: &[ExportColumn], to: &mut impl Write) -> io::Result<()> {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    writeln!(to, "{}", names.join(","))
}

/// Rows as CSV: NULL is nothing, a list is its values with spaces between them (a missing one is `NULL`).
pub(crate) fn csv(batch: &ValueBatch, line: &mut String, to: &mut impl Write) -> io::Result<()> {
    let words = words(batch, |word, to| {
        // NULL is nothing, so an empty text has its quotes.
        to.write_str(if word.is_empty() { Cow::Borrowed("\"\"") } else { csv_cell(word) }.as_ref())
    });
    for row in 0..batch.rows() {
        line.clear();
        for (place, (values, words)) in batch.columns.iter().flatten().zip(&words).enumerate() {
            if place > 0 {
                line.push(',');
            }
            match values {
                ColumnValues::Integers(values) => integer(values[row], line),
                ColumnValues::MaybeIntegers(values) => values[row].iter().for_each(|value| integer(*value, line)),
                ColumnValues::Floats(values) => float(values[row], &CSV, line),
                ColumnValues::Booleans(values) => line.push_str(if values[row] { "true" } else { "false" }),
                ColumnValues::Words { codes, .. } => {
                    line.push_str(words.get(codes[row] as usize).map_or("", String::as_str))
                }
                ColumnValues::IntegerLists(lists) => list(lists.get(row), ' ', line, integer),
                ColumnValues::FloatLists(lists) => list(lists.get(row), ' ', line, |value, line| {
                    if value.is_nan() { line.push_str("NULL") } else { float(value, &CSV, line) }
                }),
            }
        }
        line.push('\n');
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Rows as JSON lines: NULL is `null`, infinities are the words `"Infinity"` and `"-Infinity"`.
pub(crate) fn jsonl(
    columns: &[ExportColumn],
    batch: &ValueBatch,
    line: &mut String,
    to: &mut impl Write,
) -> io::Result<()> {
    let words = words(batch, json_text);
    let key = |(place, column): (usize, &ExportColumn)| {
        let before = if place == 0 { '{' } else { ',' };
        format!("{before}\"{}\":", column.name)
    };
    let keys: Vec<String> = columns.iter().enumerate().map(key).collect();
    for row in 0..batch.rows() {
        line.clear();
        for ((key, values), words) in keys.iter().zip(batch.columns.iter().flatten()).zip(&words) {
            line.push_str(key);
            match values {
                ColumnValues::Integers(values) => integer(values[row], line),
                ColumnValues::MaybeIntegers(values) => match values[row] {
                    Some(value) => integer(value, line),
                    None => line.push_str("null"),
                },
                ColumnValues::Floats(values) => json_float(values[row], line),
                ColumnValues::Booleans(values) => line.push_str(if values[row] { "true" } else { "false" }),
                ColumnValues::Words { codes, .. } => {
                    line.push_str(words.get(codes[row] as usize).map_or("null", String::as_str));
                }
                ColumnValues::IntegerLists(lists) => {
                    line.push('[');
                    list(lists.get(row), ',', line, integer);
                    line.push(']');
                }
                ColumnValues::FloatLists(lists) => {
                    line.push('[');
                    list(lists.get(row), ',', line, json_float);
                    line.push(']');
                }
            }
        }
        line.push_str("}\n");
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// The words of each column as `form` writes them: once per batch, not once per row. What a batch has no word for
/// ([`NO_WORD`](crate::values::NO_WORD)) is in no list.
fn words(batch: &ValueBatch, form: impl Fn(&str, &mut String) -> std::fmt::Result) -> Vec<Vec<String>> {
    let formed = |word: &String| {
        let mut formed = String::new();
        // Writing into a string does not fail.
        let _ = form(word, &mut formed);
        formed
    };
    let of = |values: &ColumnValues| match values {
        ColumnValues::Words { known, .. } => known.iter().map(formed).collect(),
        _ => Vec::new(),
    };
    batch.columns.iter().flatten().map(of).collect()
}

fn integer(value: i64, line: &mut String) {
    line.push_str(itoa::Buffer::new().format(value));
}

/// What stands for floats that are no numbers.
struct Unusual {
    nan: &'static str,
    infinity: &'static str,
    minus_infinity: &'static str,
}

const CSV: Unusual = Unusual { nan: "", infinity: "inf", minus_infinity: "-inf" };
const JSON: Unusual = Unusual { nan: "null", infinity: "\"Infinity\"", minus_infinity: "\"-Infinity\"" };

fn float(value: f32, unusual: &Unusual, line: &mut String) {
    match value {
        value if value.is_nan() => line.push_str(unusual.nan),
        f32::INFINITY => line.push_str(unusual.infinity),
        f32::NEG_INFINITY => line.push_str(unusual.minus_infinity),
        value => line.push_str(zmij::Buffer::new().format_finite(value)),
    }
}

/// A float as JSON.
pub(crate) fn json_float(value: f32, line: &mut String) {
    float(value, &JSON, line);
}

fn list<T: Copy>(values: &[T], between: char, line: &mut String, one: impl Fn(T, &mut String)) {
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            line.push(between);
        }
        one(*value, line);
    }
}

/// A text as JSON.
pub(crate) fn json_text(text: &str, line: &mut String) -> std::fmt::Result {
    line.write_str(&serde_json::Value::from(text).to_string())
}
