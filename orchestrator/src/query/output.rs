//! An answer as a table, as CSV and as JSON; and what can be asked for.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Map, Number, Value};
use specfleet_export::csv_cell;
use specfleet_logs::visible_name;

use super::{CellValue, GROUPS, QueryAnswer, metrics};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum QueryFormat {
    /// For a terminal.
    Table,
    /// With a header; sums of whole numbers have all their digits.
    Csv,
    /// A list of objects.
    Json,
}

/// The answer as text, of at most `limit` rows. A table says how many are left off; the other formats have no place for that,
/// so whoever limits them says it elsewhere.
pub fn write(answer: &QueryAnswer, format: QueryFormat, limit: usize) -> String {
    let rows = &answer.rows[..answer.rows.len().min(limit)];
    match format {
        QueryFormat::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            let heading = answer.header.iter().zip(&answer.units);
            table.set_header(
                heading.map(|(name, unit)| if unit.is_empty() { name.clone() } else { format!("{name}\n{unit}") }),
            );
            for row in rows {
                table.add_row(row.iter().map(|cell| match cell {
                    CellValue::Text(text) => Cell::new(visible_name(text)),
                    CellValue::Number(number) => right(short(*number)),
                    other => right(plain(other)),
                }));
            }
            let more = answer.rows.len() - rows.len();
            let more = if more > 0 { format!("\n… {more} more rows are left off (--limit)") } else { String::new() };
            format!("{table}{more}")
        }
        QueryFormat::Csv => {
            let cell = |cell: &CellValue| csv_cell(&plain(cell)).into_owned();
            let mut lines = vec![answer.header.iter().map(|name| csv_cell(name)).collect::<Vec<_>>().join(",")];
            lines.extend(rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",")));
            lines.join("\n")
        }
        QueryFormat::Json => {
            let objects = rows.iter().map(|row| {
                let entries = answer.header.iter().cloned().zip(row.iter().map(json));
                Value::Object(entries.collect::<Map<String, Value>>())
            });
            // Maps of strings and numbers always serialise.
            serde_json::to_string_pretty(&Value::Array(objects.collect())).unwrap_or_default()
        }
    }
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Six significant digits.
fn short(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let digits = (5 - number.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// All digits.
fn plain(cell: &CellValue) -> String {
    match cell {
        CellValue::Text(text) => text.clone(),
        CellValue::Number(number) => number.to_string(),
        CellValue::Missing => String::new(),
        CellValue::Exact(whole, decimals) => {
            let scale = 10_i128.pow(*decimals);
            let (sign, size) = (if *whole < 0 { "-" } else { "" }, whole.unsigned_abs() as i128);
            let fraction = format!("{:0width$}", size % scale, width = *decimals as usize);
            let fraction = fraction.trim_end_matches('0');
            let fraction = if *decimals == 0 || fraction.is_empty() { String::new() } else { format!(".{fraction}") };
            format!("{sign}{}{fraction}", size / scale)
        }
    }
}

fn json(cell: &CellValue) -> Value {
    match cell {
        CellValue::Text(text) => Value::String(text.clone()),
        CellValue::Missing => Value::Null,
        CellValue::Number(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        CellValue::Exact(whole, 0) => i64::try_from(*whole).map_or(Value::Null, |whole| Value::Number(whole.into())),
        // The nearest number to the exact decimal.
        exact => plain(exact).parse().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number),
    }
}

/// Metrics and groups, with tables and units.
pub fn list() -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["metric", "of", "unit"]);
    for metric in metrics() {
        table.add_row([metric.name, metric.level.name(), metric.unit]);
    }
    let mut groups = Table::new();
    groups.load_style(presets::NOTHING);
    groups.set_header(["group", "of"]);
    for group in GROUPS {
        let levels: Vec<&str> = group.levels.iter().map(|level| level.name()).collect();
        groups.add_row([group.name.to_owned(), levels.join(", ")]);
    }
    format!("{table}\n\n{groups}\n\nstatistics: mean, min, max, sum, count, p50, p90, p95, p99")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_every_digit() {
        let nano = |whole| plain(&CellValue::Exact(whole, 9));
        assert_eq!(nano(12_345_678_901_234_567_890), "12345678901.23456789");
        assert_eq!(
            (nano(0), nano(1), nano(2_000_000_000), nano(-1_500_000_000)),
            ("0".into(), "0.000000001".into(), "2".into(), "-1.5".into())
        );
        assert_eq!(plain(&CellValue::Exact(42, 0)), "42");
    }
}
