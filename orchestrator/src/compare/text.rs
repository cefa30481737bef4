//! A comparison of two runs for a terminal.

use comfy_table::{Cell, CellAlignment, Table, presets};
use specfleet_analysis::Over;

use super::{ComparedMetric, RunComparison};
use crate::report::significant;

/// How to read the intervals and p-values.
fn legend(rows: &[ComparedMetric]) -> String {
    let repeated = rows.iter().any(|row| row.over == Over::PassesAndPrompts);
    let single = rows.iter().any(|row| row.p_value.is_none());
    let mut legend =
        "* p <= 0.05, ** 0.01, *** 0.001 after Holm over the metrics; intervals by bootstrap, p by sign flips over prompts"
            .to_owned();
    if repeated {
        legend.push_str("; of what differs from pass to pass both by bootstrap over passes and prompts");
    }
    if single {
        legend.push_str(
            "\none run each: the figure follows the host or the seed, and its interval is over prompts, within these runs: \
             how far runs differ shows when both are repeated (run --repeat 5)",
        );
    }
    legend
}

/// The comparison for a terminal.
pub fn text(comparison: &RunComparison) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["method", "metric", "unit", "prompts", "A", "B", "A - B [95 %]", "d_z", "p", "p (Holm)", ""]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut named = String::new();
    for row in &comparison.rows {
        let name = if row.method_a == row.method_b {
            row.method_a.clone()
        } else {
            format!("{} : {}", row.method_a, row.method_b)
        };
        let verdict = match row.adjusted_p_value {
            None => "one run each",
            Some(p) if p <= 0.001 => "***",
            Some(p) if p <= 0.01 => "**",
            Some(p) if p <= 0.05 => "*",
            Some(_) => "",
        };
        let p_value = |p: Option<f64>| p.map_or(String::new(), |p| format!("{p:.4}"));
        table.add_row([
            Cell::new(if name == named { "" } else { &name }),
            Cell::new(&row.metric),
            Cell::new(&row.unit),
            right(row.pairs.to_string()),
            right(significant(row.mean_a)),
            right(significant(row.mean_b)),
            right(match row.low.zip(row.high) {
                Some((low, high)) => {
                    format!("{} [{}, {}]", significant(row.difference), significant(low), significant(high))
                }
                None => format!("{} [one prompt]", significant(row.difference)),
            }),
            right(row.effect.map_or(String::new(), |effect| format!("{effect:+.2}"))),
            right(p_value(row.p_value)),
            right(p_value(row.adjusted_p_value)),
            Cell::new(verdict),
        ]);
        named = name;
    }
    let mut lines = vec![format!("A = {}, B = {}, paired by prompt", comparison.run_a, comparison.run_b)];
    if comparison.differences.is_empty() {
        lines.push("their scenarios are equal".to_owned());
    }
    for (key, a, b) in &comparison.differences {
        lines.push(format!("differs: {key}: {a} | {b}"));
    }
    lines.push(String::new());
    lines.push(table.to_string());
    lines.push(String::new());
    lines.push(legend(&comparison.rows));
    lines.extend(comparison.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}
