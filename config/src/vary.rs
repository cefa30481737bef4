//! What a sweep varies, such as `method.uncertainty_threshold=0.02..0.6:12`.

use std::str::FromStr;

/// Most values of one key.
const MOST_VALUES: usize = 10_000;

/// A key and the values that a sweep gives it, each in turn, as `--set key=value` would.
///
/// Reads `key=a,b,c`; or `key=from..to:count`, evenly spaced with both ends in it; or `key=from..to:count:log`, each the
/// same factor above the last. Values in between are rounded to 12 digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// The dotted key. Whether there is one of that name shows when it is set.
    pub key: String,
    /// The values, at least two, none twice.
    pub values: Vec<String>,
}

/// A text that is no [`Vary`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaryError {
    #[error("{text:?}: must be key=from..to:count, key=from..to:count:log or key=a,b,c")]
    Form {
        /// As it was given.
        text: String,
    },
    /// An end of the range is no finite number.
    #[error("{key}: {number:?} is no number")]
    NotANumber {
        key: String,
        /// As it was given.
        number: String,
    },
    /// A range that lacks its number of values, or has another.
    #[error("{key}: {count:?} is no number of values; a range is from..to:count, with 2 to {MOST_VALUES} values")]
    Count {
        key: String,
        /// As it was given.
        count: String,
    },
    /// Fewer than two values.
    #[error("{key}: one value is nothing to vary; use --set {key}=VALUE")]
    OnePoint { key: String },
    /// Both ends are the same.
    #[error("{key}: the range {range} is empty")]
    Empty {
        key: String,
        /// As it was given.
        range: String,
    },
    /// The first end lies above the second.
    #[error("{key}: the range {range} is reversed; its smaller end comes first")]
    Reversed {
        key: String,
        /// As it was given.
        range: String,
    },
    /// A geometric range that starts at zero or below.
    #[error("{key}: the range {range} must start above 0 for :log")]
    LogOfNothing {
        key: String,
        /// As it was given.
        range: String,
    },
    /// A spacing beside `log`.
    #[error("{key}: {spacing:?} is no spacing; only log is one, and none is even")]
    Spacing {
        key: String,
        /// As it was given.
        spacing: String,
    },
    /// A value that is there twice, or an empty one.
    #[error("{key}: {value:?} stands there twice, or is empty")]
    Value {
        key: String,
        /// As it was given.
        value: String,
    },
}

impl FromStr for Vary {
    type Err = VaryError;

    fn from_str(text: &str) -> Result<Vary, VaryError> {
        let (key, values) = text
            .split_once('=')
            .map(|(key, values)| (key.trim(), values.trim()))
            .filter(|(key, values)| !values.is_empty() && key.split('.').all(|segment| !segment.trim().is_empty()))
            .ok_or_else(|| VaryError::Form { text: text.to_owned() })?;
        let values = match values.split_once("..") {
            // Dots in paths are no range.
            Some((from, rest)) if !values.contains(['/', '\\']) => range(key, from.trim(), rest.trim())?,
            _ => list(key, values)?,
        };
        Ok(Vary { key: key.to_owned(), values })
    }
}

fn list(key: &str, values: &str) -> Result<Vec<String>, VaryError> {
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
    let twice = |(at, value): &(usize, &String)| value.is_empty() || values[..*at].contains(value);
    if let Some((_, value)) = values.iter().enumerate().find(twice) {
        return Err(VaryError::Value { key: key.to_owned(), value: value.clone() });
    }
    if values.len() < 2 {
        return Err(VaryError::OnePoint { key: key.to_owned() });
    }
    Ok(values)
}

fn range(key: &str, from: &str, rest: &str) -> Result<Vec<String>, VaryError> {
    let own = || key.to_owned();
    let mut parts = rest.split(':').map(str::trim);
    let to = parts.next().unwrap_or_default();
    let number = |text: &str| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(VaryError::NotANumber { key: own(), number: text.to_owned() }),
    };
    let (low, high) = (number(from)?, number(to)?);
    let shown = || format!("{from}..{to}");
    if low == high {
        return Err(VaryError::Empty { key: own(), range: shown() });
    }
    if low > high {
        return Err(VaryError::Reversed { key: own(), range: shown() });
    }
    let count = parts.next().unwrap_or_default();
    let count = match count.parse::<usize>() {
        Ok(1) => return Err(VaryError::OnePoint { key: own() }),
        Ok(count @ 2..=MOST_VALUES) => count,
        _ => return Err(VaryError::Count { key: own(), count: count.to_owned() }),
    };
    let spacing = parts.collect::<Vec<_>>().join(":");
    let log = match spacing.as_str() {
        "" => false,
        "log" => true,
        _ => return Err(VaryError::Spacing { key: own(), spacing }),
    };
    if log && low <= 0.0 {
        return Err(VaryError::LogOfNothing { key: own(), range: shown() });
    }
    let value = |index: usize| {
        let share = index as f64 / (count - 1) as f64;
        match index {
            // The ends are what was asked for, to the bit.
            0 => low,
            _ if index == count - 1 => high,
            _ if log => rounded(low * (high / low).powf(share)),
            _ => rounded(low + (high - low) * share),
        }
    };
    Ok((0..count).map(|index| value(index).to_string()).collect())
}

/// To 12 digits: what arithmetic leaves behind them is no one's wish.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenario;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<String> {
        text.parse::<Vary>().unwrap_or_else(|error| panic!("{error}")).values
    }

    fn refused(text: &str, message: Expect) {
        message.assert_eq(&text.parse::<Vary>().expect_err(text).to_string());
    }

    #[test]
    fn ranges_and_lists_are_read() {
        assert_eq!(values("a.b=0..1:5"), ["0", "0.25", "0.5", "0.75", "1"]);
        assert_eq!(values("a.b = -1 .. 0.2 : 4"), ["-1", "-0.6", "-0.2", "0.2"]);
        assert_eq!(values("run.devices=1..1000:4:log"), ["1", "10", "100", "1000"]);
        assert_eq!(values("a=0.02..0.6:12").len(), 12);
        assert_eq!(values("pool.order=fifo, fair,value"), ["fifo", "fair", "value"]);
        assert_eq!(values("run.workload=../a.jsonl,../b.jsonl"), ["../a.jsonl", "../b.jsonl"]);
        assert_eq!("a.b=1,2".parse::<Vary>().expect("valid").key, "a.b");
    }

    #[test]
    fn mistakes_are_named() {
        let form = expect![[r#""a": must be key=from..to:count, key=from..to:count:log or key=a,b,c"#]];
        refused("a", form);
        for text in ["=1,2", "a.=1,2", "a=", ""] {
            assert!(matches!(text.parse::<Vary>(), Err(VaryError::Form { .. })), "{text}");
        }
        refused("a=1..x:3", expect![[r#"a: "x" is no number"#]]);
        refused("a=..3:3", expect![[r#"a: "" is no number"#]]);
        refused("a=1..inf:3", expect![[r#"a: "inf" is no number"#]]);
        refused(
            "a=1..3",
            expect![[r#"a: "" is no number of values; a range is from..to:count, with 2 to 10000 values"#]],
        );
        refused(
            "a=1..3:2.5",
            expect![[r#"a: "2.5" is no number of values; a range is from..to:count, with 2 to 10000 values"#]],
        );
        refused(
            "a=1..3:0",
            expect![[r#"a: "0" is no number of values; a range is from..to:count, with 2 to 10000 values"#]],
        );
        refused("a=1..3:1", expect!["a: one value is nothing to vary; use --set a=VALUE"]);
        refused("a=1", expect!["a: one value is nothing to vary; use --set a=VALUE"]);
        refused("a=1..1:3", expect!["a: the range 1..1 is empty"]);
        refused("a=2..1:3", expect!["a: the range 2..1 is reversed; its smaller end comes first"]);
        refused("a=0..1:3:log", expect!["a: the range 0..1 must start above 0 for :log"]);
        refused("a=0..1:3:lin", expect![[r#"a: "lin" is no spacing; only log is one, and none is even"#]]);
        refused("a=b,c,b", expect![[r#"a: "b" stands there twice, or is empty"#]]);
        refused("a=b,,c", expect![[r#"a: "" stands there twice, or is empty"#]]);
    }

    #[test]
    fn a_scenario_takes_each_value_in_turn() {
        let plain = Scenario::shipped_default().expect("valid");
        let vary: Vary = "run.devices=10..40:4".parse().expect("valid");
        let devices = vary.values.iter().map(|value| {
            let mut scenario = plain.clone();
            scenario.set(&format!("{}={value}", vary.key)).expect("valid");
            scenario.settings().expect("valid").run.devices
        });
        assert_eq!(devices.collect::<Vec<_>>(), [10, 20, 30, 40]);
    }

    proptest! {
        /// The ends are in it, the values grow, and by equal steps or factors.
        #[test]
        fn ranges_are_spaced(low in 0.001f64..10.0, width in 0.01f64..100.0, count in 2usize..40, log: bool) {
            let high = low + width;
            let text = format!("k={low}..{high}:{count}{}", if log { ":log" } else { "" });
            let values: Vec<f64> = values(&text).iter().map(|value| value.parse().expect("a number")).collect();
            prop_assert_eq!((values.len(), values[0], values[count - 1]), (count, low, high));
            for pair in values.windows(2) {
                prop_assert!(pair[0] < pair[1]);
                let (step, whole) = if log {
                    ((pair[1] / pair[0]).ln(), (high / low).ln())
                } else {
                    (pair[1] - pair[0], high - low)
                };
                prop_assert!((step * (count - 1) as f64 - whole).abs() < 1e-6 * whole, "{values:?}");
            }
        }
    }
}
