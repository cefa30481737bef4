//! Rate traces: CSV to rates per step.

use std::path::Path;

use specfleet_engine::device::link::LinkRate;
use specfleet_engine::time::Span;

use crate::ConfigError;
use crate::read::{Section, without_mark};

/// The first line of a trace.
const HEADER: &str = "seconds,uplink_bps,downlink_bps";

/// Reads the trace that `name` names: one line per step, equally spaced, from any start.
pub(super) fn open(section: &Section<'_>, name: &str, path: &Path) -> Result<LinkRate, ConfigError> {
    parse(without_mark(&section.read_file(name, path)?)).map_err(|(line, problem)| ConfigError::Line {
        origin: path.display().to_string(),
        line,
        problem,
    })
}

fn parse(text: &str) -> Result<LinkRate, (usize, String)> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    if lines.next().is_none_or(|(_, header)| header != HEADER) {
        return Err((1, format!("a rate trace must start with the line {HEADER}")));
    }
    let (mut times, mut uplink, mut downlink) = (Vec::new(), Vec::new(), Vec::new());
    for (line, text) in lines {
        let numbers: Vec<f64> = text
            .split(',')
            .map(|field| field.trim().parse::<f64>().map_err(|_| (line, format!("{field:?} is no number"))))
            .collect::<Result<_, _>>()?;
        let [seconds, up, down] = numbers[..] else {
            return Err((line, format!("needs three numbers: {HEADER}")));
        };
        // Zero is an outage and welcome.
        if ![up, down].iter().all(|rate| (0.0..=1e15).contains(rate)) {
            return Err((line, "rates must lie in 0 to 1e15 bits per second".into()));
        }
        if !(0.0..=1e9).contains(&seconds) {
            return Err((line, "seconds must lie in 0 to 1e9".into()));
        }
        times.push((line, Span::from_seconds(seconds)));
        uplink.push(up);
        downlink.push(down);
    }
    let [(_, first), (second_line, second), ..] = times[..] else {
        return Err((1, "a rate trace needs at least two steps".into()));
    };
    let step = second - first;
    if step == Span::ZERO {
        return Err((second_line, "seconds must grow from line to line".into()));
    }
    for pair in times.windows(2) {
        let (line, at) = pair[1];
        // A microsecond of tolerance: traces are written with few decimals.
        if at.0.abs_diff(pair[0].1.0.saturating_add(step.0)) > 1_000 {
            return Err((line, format!("steps must be equally long; the first takes {} s", step.seconds())));
        }
    }
    for (name, rates) in [("uplink", &uplink), ("downlink", &downlink)] {
        if rates.iter().all(|&rate| rate < 1.0) {
            return Err((1, format!("the {name} never carries a bit: at least one rate must be 1 bit/s or more")));
        }
    }
    Ok(LinkRate::Trace { step, uplink, downlink })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn refused(lines: &[&str], message: Expect) {
        let (line, problem) = parse(&lines.join("\n")).expect_err("refused");
        message.assert_eq(&format!("{line}: {problem}"));
    }

    #[test]
    fn a_trace_is_read() {
        let rate = parse("seconds,uplink_bps,downlink_bps\n5,1e6,2e6\n5.1,0,3e6\n5.2,1,1\n").expect("valid");
        let LinkRate::Trace { step, uplink, downlink } = rate else { panic!("a trace") };
        assert_eq!(step, Span::from_millis(100));
        assert_eq!(uplink, [1e6, 0.0, 1.0]);
        assert_eq!(downlink, [2e6, 3e6, 1.0]);
    }

    #[test]
    fn mistakes_name_their_line() {
        refused(&["time,up,down"], expect!["1: a rate trace must start with the line seconds,uplink_bps,downlink_bps"]);
        refused(&[HEADER, "0,1,1"], expect!["1: a rate trace needs at least two steps"]);
        refused(&[HEADER, "0,1,1", "1,x,1"], expect![[r#"3: "x" is no number"#]]);
        refused(&[HEADER, "0,1,1", "1,1"], expect!["3: needs three numbers: seconds,uplink_bps,downlink_bps"]);
        refused(&[HEADER, "0,1,1", "1,-1,1"], expect!["3: rates must lie in 0 to 1e15 bits per second"]);
        refused(&[HEADER, "0,1,1", "1,1,1", "3,1,1"], expect!["4: steps must be equally long; the first takes 1 s"]);
        refused(
            &[HEADER, "0,0,1", "1,0,1"],
            expect!["1: the uplink never carries a bit: at least one rate must be 1 bit/s or more"],
        );
        refused(&[HEADER, "1,1,1", "0,1,1"], expect!["3: seconds must grow from line to line"]);
    }
}
