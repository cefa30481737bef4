//! Targets that a run is held to, such as `inter_token_p95 < 250ms`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::read::nearest_of;

/// Short names of metrics, and the metrics of a summary that they stand for.
pub const METRIC_ALIASES: [(&str, &str); 6] = [
    ("inter_token", "inter_token_latency_seconds"),
    ("ttft", "time_to_first_token_seconds"),
    ("queue", "queue_seconds"),
    ("agreement", "verifier_agreement"),
    ("energy", "energy_per_token_joules_total"),
    ("goodput", "goodput_tokens_per_second"),
];

/// Units, how many of each make one in SI (or a whole), and what they measure.
const UNITS: [(&str, f64, Quantity); 7] = [
    ("ns", 1e9, Quantity::Time),
    ("us", 1e6, Quantity::Time),
    ("ms", 1e3, Quantity::Time),
    ("s", 1.0, Quantity::Time),
    ("J", 1.0, Quantity::Energy),
    ("mJ", 1e3, Quantity::Energy),
    ("%", 100.0, Quantity::Number),
];
/// Percentiles that a summary has.
const PERCENTILES: [u8; 4] = [50, 90, 95, 99];
const FORM: &str =
    "METRIC[_p50|_p90|_p95|_p99|_mean|_min|_max] <|<=|>|>= NUMBER[UNIT], such as inter_token_p95 < 250ms";

/// Which figure of a metric's distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatistic {
    /// The mean; also what a metric without a distribution has.
    Mean,
    Min,
    Max,
    /// A percentile: 50, 90, 95 or 99.
    Percentile(u8),
}

/// What the unit of a limit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// No unit, or %.
    Number,
    Time,
    Energy,
}

/// A metric held against a limit.
///
/// Reads `metric[_p50|_p90|_p95|_p99|_mean|_min|_max] <|<=|>|>= number[unit]`, with units ns, us, ms, s, J, mJ and %, with or
/// without blanks; prints the same with the metric's full name and the limit in s, J or a share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Check {
    /// The metric, by its name in the summary. Whether there is one of that name is not known here.
    pub metric: String,
    /// Which figure of it.
    pub statistic: CheckStatistic,
    /// Whether it must lie below the limit, or above.
    pub below: bool,
    /// Whether the limit itself will do.
    pub or_equal: bool,
    /// The limit: seconds, joules, or what the metric counts; a share for %. Finite.
    pub limit: f64,
    /// What the unit of the limit measures. Whether the metric is of that kind is not known here.
    pub quantity: Quantity,
}

/// A text that is no check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("{text:?} compares nothing; the form is {FORM}")]
    Form {
        /// As it was given.
        text: String,
    },
    /// No metric can have this name.
    #[error("{metric:?} is no name of a metric; the form is {FORM}")]
    Metric {
        /// As it was given.
        metric: String,
    },
    /// A percentile that summaries do not have.
    #[error("{metric:?} asks for a percentile that is not kept; did you mean {nearest}? valid: p50, p90, p95, p99")]
    Percentile {
        /// As it was given.
        metric: String,
        /// With the nearest percentile that is.
        nearest: String,
    },
    /// The limit is no finite number.
    #[error("{number:?} is no number; the form is {FORM}")]
    Number {
        /// As it was given.
        number: String,
    },
    /// The limit has an unknown unit.
    #[error("{unit:?} is no unit{}; valid: ns, us, ms, s, J, mJ, %", nearest.map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    Unit {
        /// As it was given.
        unit: String,
        /// The unit that is nearest to it, if any is near.
        nearest: Option<&'static str>,
    },
}

impl Check {
    /// Whether a value keeps to it. NaN does not.
    pub fn holds(&self, value: f64) -> bool {
        match (self.below, self.or_equal) {
            (true, false) => value < self.limit,
            (true, true) => value <= self.limit,
            (false, false) => value > self.limit,
            (false, true) => value >= self.limit,
        }
    }
}

impl FromStr for Check {
    type Err = CheckError;

    fn from_str(text: &str) -> Result<Check, CheckError> {
        let at = text.find(['<', '>']).ok_or_else(|| CheckError::Form { text: text.to_owned() })?;
        let (metric, comparison) = text.split_at(at);
        let below = comparison.starts_with('<');
        let right = &comparison[1..];
        let (or_equal, limit) = match right.strip_prefix('=') {
            Some(rest) => (true, rest),
            None => (false, right),
        };
        let (metric, statistic) = parse_metric(metric.trim())?;
        let (limit, quantity) = parse_limit(limit.trim())?;
        Ok(Check { metric, statistic, below, or_equal, limit, quantity })
    }
}

/// A metric's full name, and what is asked of it.
fn parse_metric(text: &str) -> Result<(String, CheckStatistic), CheckError> {
    let (name, statistic) = match text.rsplit_once('_') {
        Some((name, "mean")) => (name, CheckStatistic::Mean),
        Some((name, "min")) => (name, CheckStatistic::Min),
        Some((name, "max")) => (name, CheckStatistic::Max),
        Some((name, last)) => match percentile(last) {
            Some(wanted) => match PERCENTILES.iter().find(|&&known| f64::from(known) == wanted) {
                Some(&known) => (name, CheckStatistic::Percentile(known)),
                None => return Err(no_percentile(text, name, wanted)),
            },
            None => (text, CheckStatistic::Mean),
        },
        None => (text, CheckStatistic::Mean),
    };
    let full = METRIC_ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, full)| full);
    let may_be = full.starts_with(|c: char| c.is_ascii_lowercase())
        && full.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !may_be {
        return Err(CheckError::Metric { metric: text.to_owned() });
    }
    Ok((full.to_owned(), statistic))
}

/// The number of a word such as `p95`.
fn percentile(word: &str) -> Option<f64> {
    let digits = word.strip_prefix('p')?;
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn no_percentile(text: &str, name: &str, wanted: f64) -> CheckError {
    let distance = |known: &u8| (f64::from(*known) - wanted).abs();
    let nearest = PERCENTILES.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(50);
    CheckError::Percentile { metric: text.to_owned(), nearest: format!("{name}_p{nearest}") }
}

/// A number and its unit, in SI, and what that measures.
fn parse_limit(text: &str) -> Result<(f64, Quantity), CheckError> {
    // No unit starts like a number goes on.
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let value: f64 = match number.parse() {
        Ok(value) if f64::is_finite(value) => value,
        _ => return Err(CheckError::Number { number: text.to_owned() }),
    };
    let (scaled, quantity) = match UNITS.iter().find(|(name, ..)| *name == unit) {
        Some((_, per_one, quantity)) => (value / per_one, *quantity),
        None if unit.is_empty() => (value, Quantity::Number),
        None => {
            return Err(CheckError::Unit {
                unit: unit.to_owned(),
                nearest: nearest_of(unit, UNITS.iter().map(|(name, ..)| *name)),
            });
        }
    };
    // Adding zero turns -0.0 into 0.0, so that equal checks have equal texts.
    Ok((scaled + 0.0, quantity))
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.metric)?;
        match self.statistic {
            // Only where the name alone would be read otherwise.
            CheckStatistic::Mean if parse_metric(&self.metric) == Ok((self.metric.clone(), CheckStatistic::Mean)) => {}
            CheckStatistic::Mean => f.write_str("_mean")?,
            CheckStatistic::Min => f.write_str("_min")?,
            CheckStatistic::Max => f.write_str("_max")?,
            CheckStatistic::Percentile(percentile) => write!(f, "_p{percentile}")?,
        }
        let sign = if self.below { '<' } else { '>' };
        let equal = if self.or_equal { "=" } else { "" };
        let unit = match self.quantity {
            Quantity::Number => "",
            Quantity::Time => "s",
            Quantity::Energy => "J",
        };
        write!(f, " {sign}{equal} {}{unit}", self.limit)
    }
}

impl TryFrom<String> for Check {
    type Error = CheckError;

    fn try_from(text: String) -> Result<Check, CheckError> {
        text.parse()
    }
}

impl From<Check> for String {
    fn from(check: Check) -> String {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn reads(text: &str, prints: &str) {
        let check: Check = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(check.to_string(), prints, "{text}");
    }

    fn refused(text: &str, message: Expect) {
        message.assert_eq(&text.parse::<Check>().expect_err(text).to_string());
    }

    #[test]
    fn checks_are_read() {
        reads("inter_token_p95 < 250ms", "inter_token_latency_seconds_p95 < 0.25s");
        reads("inter_token_p95<250ms", "inter_token_latency_seconds_p95 < 0.25s");
        reads("inter_token_p95<250", "inter_token_latency_seconds_p95 < 250");
        reads("  agreement>=90 % ", "verifier_agreement >= 0.9");
        reads("upload_rate_mean < .5", "upload_rate < 0.5");
        reads("ttft_max <= 1.5e3 us", "time_to_first_token_seconds_max <= 0.0015s");
        reads("queue_p99 < 10ns", "queue_seconds_p99 < 0.00000001s");
        reads("energy < 40mJ", "energy_per_token_joules_total < 0.04J");
        reads("goodput_min > 2s", "goodput_tokens_per_second_min > 2s");
        reads("energy_p50 > -0 J", "energy_per_token_joules_total_p50 > 0J");
        reads("a_p95_mean > 1", "a_p95_mean > 1");
        reads("ttft_mean_mean > 1", "ttft_mean_mean > 1");
    }

    #[test]
    fn limits_hold() {
        let holds = |text: &str, value| text.parse::<Check>().expect("valid").holds(value);
        assert!(holds("x < 1", 0.9) && !holds("x < 1", 1.0) && holds("x <= 1", 1.0));
        assert!(holds("x > 1", 1.1) && !holds("x > 1", 1.0) && holds("x >= 1", 1.0));
        assert!(!holds("x < 1", f64::NAN) && !holds("x >= 1", f64::NAN));
    }

    #[test]
    fn what_is_no_check_is_refused() {
        refused(
            "inter_token_p95",
            expect![[
                r#""inter_token_p95" compares nothing; the form is METRIC[_p50|_p90|_p95|_p99|_mean|_min|_max] <|<=|>|>= NUMBER[UNIT], such as inter_token_p95 < 250ms"#
            ]],
        );
        refused(
            "inter_token_p94 < 1",
            expect![[
                r#""inter_token_p94" asks for a percentile that is not kept; did you mean inter_token_p95? valid: p50, p90, p95, p99"#
            ]],
        );
        refused("x < 250sec", expect![[r#""sec" is no unit; valid: ns, us, ms, s, J, mJ, %"#]]);
        refused("x < 250mS", expect![[r#""mS" is no unit; did you mean ms?; valid: ns, us, ms, s, J, mJ, %"#]]);
        refused(
            "x < ",
            expect![[
                r#""" is no number; the form is METRIC[_p50|_p90|_p95|_p99|_mean|_min|_max] <|<=|>|>= NUMBER[UNIT], such as inter_token_p95 < 250ms"#
            ]],
        );
        for text in ["x < inf", "x < nan", "x < 1e999", "x == 1", "x < y", "x << 1", "x < 1 < 2", "x =< 1"] {
            assert!(text.parse::<Check>().is_err(), "{text}");
        }
        for text in ["< 1", "_p95 < 1", "X < 1", "a b < 1", "9x < 1", "ä < 1"] {
            assert!(matches!(text.parse::<Check>(), Err(CheckError::Metric { .. })), "{text}");
        }
    }

    proptest! {
        /// What prints reads back as the same.
        #[test]
        fn a_check_reads_as_it_prints(
            metric in "[a-z][a-z0-9_]{0,9}(_p95|_max|_mean)?",
            statistic in proptest::sample::select(vec![
                CheckStatistic::Mean, CheckStatistic::Min, CheckStatistic::Max, CheckStatistic::Percentile(50), CheckStatistic::Percentile(99),
            ]),
            below: bool,
            or_equal: bool,
            limit in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
            quantity in proptest::sample::select(vec![Quantity::Number, Quantity::Time, Quantity::Energy]),
        ) {
            prop_assume!(METRIC_ALIASES.iter().all(|(alias, _)| *alias != metric));
            let check = Check { metric, statistic, below, or_equal, limit: limit + 0.0, quantity };
            prop_assert_eq!(check.to_string().parse(), Ok(check));
        }

        /// Any text is a check or an error, never a panic.
        #[test]
        fn any_text(text in "[a-zA-Z0-9_<>=.%µ ]{0,20}") {
            let _ = text.parse::<Check>();
        }
    }
}
