//! Texts in the cells of CSV files.

use std::borrow::Cow;

/// A text as a cell: quoted where it must be. A spreadsheet takes what begins like a formula for one and computes it, so such
/// a text gets an apostrophe in front, by which spreadsheets know a text; a number stays as it is.
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    let must_quote = is_formula || text.contains(['"', ',', '\n', '\r']);
    if !must_quote {
        return Cow::Borrowed(text);
    }
    let mark = if is_formula { "'" } else { "" };
    Cow::Owned(format!("\"{mark}{}\"", text.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_texts() {
        for (text, cell) in [
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""),
            ("@SUM(1)", "\"'@SUM(1)\""),
            ("+a", "\"'+a\""),
            ("-", "\"'-\""),
            ("-0.5", "-0.5"),
            ("+1e9", "+1e9"),
            ("a=b", "a=b"),
            ("a, \"b\"", "\"a, \"\"b\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("", ""),
        ] {
            assert_eq!(csv_cell(text), cell, "{text:?}");
        }
    }
}
