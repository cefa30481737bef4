//! Recorded arrivals: CSV to points in time.

use std::path::Path;

use specfleet_engine::time::{Span, Time};

use crate::ConfigError;
use crate::read::{Section, without_mark};
use crate::settings::RecordedLengths;

/// Most arrivals of a file.
const MOST_ARRIVALS: usize = 10_000_000;
/// Bad lines that a message names, beside the first.
const NAMED: usize = 8;
/// Most tokens of a prompt or an answer.
const MOST_TOKENS: u32 = 1_000_000;

/// Names of the columns with the tokens of a prompt and of its answer: ours, and those of the published Azure traces.
const PROMPT_TOKENS: [&str; 2] = ["prompt_tokens", "ContextTokens"];
const ANSWER_TOKENS: [&str; 2] = ["answer_tokens", "GeneratedTokens"];

/// Reads the arrivals that `name` names: the first column of a CSV file is seconds since the start of a phase, in any order. The first line may be
/// a header; columns that it calls `prompt_tokens` and `answer_tokens` say how long the requests are. Blank lines and
/// further columns are left aside.
pub(crate) fn open(
    section: &Section<'_>,
    name: &str,
    path: &Path,
) -> Result<(Vec<Time>, RecordedLengths), ConfigError> {
    parse(without_mark(&section.read_file(name, path)?)).map_err(|(line, problem)| ConfigError::Line {
        origin: path.display().to_string(),
        line,
        problem,
    })
}

/// The arrivals, ascending; or the first bad line and what is wrong, with the numbers of the other bad ones.
fn parse(text: &str) -> Result<(Vec<Time>, RecordedLengths), (usize, String)> {
    let text = text.trim_start_matches('\u{feff}');
    let header: Vec<&str> = text.lines().next().unwrap_or_default().split(',').map(bare).collect();
    let column = |names: [&str; 2]| header.iter().position(|name| names.contains(name));
    let columns = [column(PROMPT_TOKENS), column(ANSWER_TOKENS)];
    let mut rows: Vec<(Time, [u32; 2])> = Vec::new();
    let mut bad: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(bare).collect();
        let field = fields.first().copied().unwrap_or_default();
        match field.parse::<f64>() {
            Ok(seconds) if (0.0..=1e9).contains(&seconds) => {
                let mut tokens = [0; 2];
                for (tokens, column) in tokens.iter_mut().zip(columns) {
                    let Some(column) = column else { continue };
                    match fields.get(column).and_then(|field| field.parse().ok()) {
                        Some(count @ 1..=MOST_TOKENS) => *tokens = count,
                        _ => bad.push((
                            index + 1,
                            format!("{} is no number of tokens, 1 to {MOST_TOKENS}", header[column]),
                        )),
                    }
                }
                rows.push((Time::ZERO + Span::from_seconds(seconds), tokens));
            }
            Ok(_) => bad.push((index + 1, format!("{field} is out of range: seconds must lie in 0 to 1e9"))),
            // A header.
            Err(_) if index == 0 => {}
            Err(_) => bad.push((index + 1, format!("{field:?} is no number of seconds"))),
        }
    }
    if let Some((line, problem)) = bad.first() {
        return Err((*line, format!("{problem}{}", others(&bad[1..]))));
    }
    if rows.is_empty() {
        return Err((1, "needs at least one arrival: seconds since the start, one per line".into()));
    }
    if rows.len() > MOST_ARRIVALS {
        return Err((1, format!("has {} arrivals; at most {MOST_ARRIVALS}", rows.len())));
    }
    rows.sort_by_key(|(time, _)| *time);
    let tokens = |which: usize| columns[which].map(|_| rows.iter().map(|(_, tokens)| tokens[which]).collect());
    let lengths = RecordedLengths { prompt_tokens: tokens(0), answer_tokens: tokens(1) };
    Ok((rows.into_iter().map(|(time, _)| time).collect(), lengths))
}

/// A field without blanks and quotes around it.
fn bare(field: &str) -> &str {
    field.trim().trim_matches('"')
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
        let parse = |text: &str| parse(text).expect("valid");
        let plain = (times, RecordedLengths::default());
        assert_eq!(parse("1\n0.25\n0\n1"), plain);
        assert_eq!(parse("\u{feff}seconds,user\r\n0,a\r\n\"0.25\",b\r\n1,\r\n\r\n1.0,c\r\n"), plain);
        let lengths = RecordedLengths { prompt_tokens: Some(vec![40, 12, 7]), answer_tokens: Some(vec![9, 5, 1]) };
        let text = "at,ContextTokens,answer_tokens\n0.25,12,5\n0,\"40\",9\n1,7,1\n";
        assert_eq!(parse(text), (vec![Time::ZERO, Time(250_000_000), Time(1_000_000_000)], lengths));
    }

    #[test]
    fn bad_lines_are_named() {
        refused("", expect!["1: needs at least one arrival: seconds since the start, one per line"]);
        refused("seconds\n", expect!["1: needs at least one arrival: seconds since the start, one per line"]);
        refused("at\n1\nx\n2\n,7", expect![[r#"3: "x" is no number of seconds; bad too: 5"#]]);
        refused("-1", expect!["1: -1 is out of range: seconds must lie in 0 to 1e9"]);
        refused("1\nNaN", expect!["2: NaN is out of range: seconds must lie in 0 to 1e9"]);
        refused(
            "at,prompt_tokens\n0,5\n1\n2,0",
            expect!["3: prompt_tokens is no number of tokens, 1 to 1000000; bad too: 4"],
        );
        let many = format!("0\n{}", "x\n".repeat(12));
        refused(&many, expect![[r#"2: "x" is no number of seconds; bad too: 3, 4, 5, 6, 7, 8, 9, 10 and 3 more"#]]);
    }
}
