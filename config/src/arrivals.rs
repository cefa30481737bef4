//! Recorded arrivals: CSV to points in time.

use std::path::Path;

use specfleet_engine::time::{Span, Time};

use crate::ConfigError;
use crate::read::read_text;

/// Most arrivals of a file.
const MOST_ARRIVALS: usize = 10_000_000;
/// Bad lines that a message names, beside the first.
const NAMED: usize = 8;

/// Reads arrivals: the first column of a CSV file is seconds since the start of a phase, in any order. The first line may be
/// a header; blank lines and further columns are left aside.
pub(crate) fn open(path: &Path) -> Result<Vec<Time>, ConfigError> {
    parse(&read_text(path)?).map_err(|(line, problem)| ConfigError::Line {
        origin: path.display().to_string(),
        line,
        problem,
    })
}

/// The arrivals, ascending; or the first bad line and what is wrong, with the numbers of the other bad ones.
fn parse(text: &str) -> Result<Vec<Time>, (usize, String)> {
    let text = text.trim_start_matches('\u{feff}');
    let mut times = Vec::new();
    let mut bad: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let field = line.split(',').next().unwrap_or_default().trim().trim_matches('"');
        match field.parse::<f64>() {
            Ok(seconds) if (0.0..=1e9).contains(&seconds) => times.push(Time::ZERO + Span::from_seconds(seconds)),
            Ok(_) => bad.push((index + 1, format!("{field} is out of range: seconds must lie in 0 to 1e9"))),
            // A header.
            Err(_) if index == 0 => {}
            Err(_) => bad.push((index + 1, format!("{field:?} is no number of seconds"))),
        }
    }
    if let Some((line, problem)) = bad.first() {
        return Err((*line, format!("{problem}{}", others(&bad[1..]))));
    }
    if times.is_empty() {
        return Err((1, "needs at least one arrival: seconds since the start, one per line".into()));
    }
    if times.len() > MOST_ARRIVALS {
        return Err((1, format!("has {} arrivals; at most {MOST_ARRIVALS}", times.len())));
    }
    times.sort_unstable();
    Ok(times)
}

fn others(bad: &[(usize, String)]) -> String {
    if bad.is_empty() {
        return String::new();
    }
    let named: Vec<String> = bad.iter().take(NAMED).map(|(line, _)| line.to_string()).collect();
    let more = if bad.len() > NAMED { format!(" and {} more", bad.len() - NAMED) } else { String::new() };
    format!("; bad too: {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn refused(text: &str, message: Expect) {
        let (line, problem) = parse(text).expect_err("refused");
        message.assert_eq(&format!("{line}: {problem}"));
    }

    #[test]
    fn arrivals_are_read_and_sorted() {
        let times = vec![Time::ZERO, Time(250_000_000), Time(1_000_000_000), Time(1_000_000_000)];
        assert_eq!(parse("1\n0.25\n0\n1").expect("valid"), times);
        assert_eq!(parse("\u{feff}seconds,user\r\n0,a\r\n\"0.25\",b\r\n1,\r\n\r\n1.0,c\r\n").expect("valid"), times);
    }

    #[test]
    fn bad_lines_are_named() {
        refused("", expect!["1: needs at least one arrival: seconds since the start, one per line"]);
        refused("seconds\n", expect!["1: needs at least one arrival: seconds since the start, one per line"]);
        refused("at\n1\nx\n2\n,7", expect![[r#"3: "x" is no number of seconds; bad too: 5"#]]);
        refused("-1", expect!["1: -1 is out of range: seconds must lie in 0 to 1e9"]);
        refused("1\nNaN", expect!["2: NaN is out of range: seconds must lie in 0 to 1e9"]);
        let many = format!("0\n{}", "x\n".repeat(12));
        refused(&many, expect![[r#"2: "x" is no number of seconds; bad too: 3, 4, 5, 6, 7, 8, 9, 10 and 3 more"#]]);
    }
}
