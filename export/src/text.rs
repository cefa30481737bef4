//! Tables as CSV and as JSON lines.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::schema::Column;
use crate::values::{Batch, NO_WORD, Values};

/// The header of a CSV file.
pub(crate) fn csv_header(columns: &[Column], to: &mut impl Write) -> io::Result<()> {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    writeln!(to, "{}", names.join(","))
}

/// Rows as CSV: NULL is nothing, a list is its values with spaces between them (a missing one is `NULL`).
pub(crate) fn csv(batch: &Batch, line: &mut String, to: &mut impl Write) -> io::Result<()> {
    for row in 0..batch.rows() {
        line.clear();
        for (place, values) in batch.columns.iter().flatten().enumerate() {
            if place > 0 {
                line.push(',');
            }
            csv_value(values, row, line);
        }
        line.push('\n');
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn csv_value(values: &Values, row: usize, line: &mut String) {
    // Writing into a string does not fail.
    let _ = match values {
        Values::Integers(values) => write!(line, "{}", values[row]),
        Values::MaybeIntegers(values) => values[row].map_or(Ok(()), |value| write!(line, "{value}")),
        Values::Floats(values) if values[row].is_nan() => Ok(()),
        Values::Floats(values) => write!(line, "{}", values[row]),
        Values::Booleans(values) => write!(line, "{}", values[row]),
        Values::Words { codes, .. } if codes[row] == NO_WORD => Ok(()),
        Values::Words { codes, known } => {
            let word = &known[codes[row] as usize];
            if word.is_empty() || word.contains(['"', ',', '\n', '\r']) {
                write!(line, "\"{}\"", word.replace('"', "\"\""))
            } else {
                line.write_str(word)
            }
        }
        Values::IntegerLists(lists) => {
            let words: Vec<String> = lists.get(row).iter().map(i64::to_string).collect();
            line.write_str(&words.join(" "))
        }
        Values::FloatLists(lists) => {
            let word = |value: &f32| if value.is_nan() { "NULL".to_owned() } else { value.to_string() };
            let words: Vec<String> = lists.get(row).iter().map(word).collect();
            line.write_str(&words.join(" "))
        }
    };
}

/// Rows as JSON lines: NULL is `null`, infinities are the words `"Infinity"` and `"-Infinity"`.
pub(crate) fn jsonl(columns: &[Column], batch: &Batch, line: &mut String, to: &mut impl Write) -> io::Result<()> {
    for row in 0..batch.rows() {
        line.clear();
        line.push('{');
        for (place, (column, values)) in columns.iter().zip(batch.columns.iter().flatten()).enumerate() {
            if place > 0 {
                line.push(',');
            }
            line.push('"');
            line.push_str(column.name);
            line.push_str("\":");
            json_value(values, row, line);
        }
        line.push_str("}\n");
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn json_value(values: &Values, row: usize, line: &mut String) {
    let _ = match values {
        Values::Integers(values) => write!(line, "{}", values[row]),
        Values::MaybeIntegers(values) => match values[row] {
            Some(value) => write!(line, "{value}"),
            None => line.write_str("null"),
        },
        Values::Floats(values) => json_float(values[row], line),
        Values::Booleans(values) => write!(line, "{}", values[row]),
        Values::Words { codes, .. } if codes[row] == NO_WORD => line.write_str("null"),
        Values::Words { codes, known } => json_text(&known[codes[row] as usize], line),
        Values::IntegerLists(lists) => {
            let words: Vec<String> = lists.get(row).iter().map(i64::to_string).collect();
            write!(line, "[{}]", words.join(","))
        }
        Values::FloatLists(lists) => {
            line.push('[');
            for (place, value) in lists.get(row).iter().enumerate() {
                if place > 0 {
                    line.push(',');
                }
                let _ = json_float(*value, line);
            }
            line.write_str("]")
        }
    };
}

fn json_float(value: f32, line: &mut String) -> std::fmt::Result {
    match value {
        value if value.is_nan() => line.write_str("null"),
        f32::INFINITY => line.write_str("\"Infinity\""),
        f32::NEG_INFINITY => line.write_str("\"-Infinity\""),
        // The exponent form keeps large and small numbers short; JSON wants no `+`, and Rust writes none.
        value if value != 0.0 && !(1e-5..1e15).contains(&value.abs()) => write!(line, "{value:e}"),
        // The sign of a zero must come back too.
        value if value == 0.0 && value.is_sign_negative() => line.write_str("-0.0"),
        value => write!(line, "{value}"),
    }
}

/// A text as JSON.
pub(crate) fn json_text(text: &str, line: &mut String) -> std::fmt::Result {
    line.write_str(&serde_json::Value::from(text).to_string())
}
