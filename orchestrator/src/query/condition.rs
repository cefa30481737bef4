//! Conditions on the rows of a query.

use super::columns::{GROUPS, GroupColumn, Key, MetricColumn, QueryRow};
use super::{metric, metric_names};
use crate::error::Error;
use crate::frontier::unknown;
use crate::stored::StoredRun;

/// Values of the group `reason`: [`specfleet_engine::device::gate::GateReason`] as it is written.
const REASONS: [&str; 10] =
    ["never", "always", "not-drawn", "drawn", "certain", "uncertain", "unimportant", "important", "too-dear", "worth"];

/// A condition on a row.
pub(super) struct Condition {
    pub(super) column: ConditionColumn,
    operator: &'static str,
    value: String,
    number: Option<f64>,
}

/// What it looks at.
#[derive(Clone, Copy)]
pub(super) enum ConditionColumn {
    Group(&'static GroupColumn),
    Metric(&'static MetricColumn),
}

impl Condition {
    /// Reads one, as on the command line.
    pub(super) fn parse(text: &str) -> Result<Condition, Error> {
        const OPERATORS: [&str; 6] = ["!=", ">=", "<=", "=", ">", "<"];
        let found = OPERATORS
            .iter()
            .filter_map(|operator| Some((text.find(operator)?, *operator)))
            .min_by_key(|(at, operator)| (*at, std::cmp::Reverse(operator.len())));
        let (at, operator) = found.ok_or_else(|| {
            Error::Question(format!("--where {text}: it must be COLUMN=VALUE, or with !=, <, <=, > or >="))
        })?;
        let (name, value) = (text[..at].trim(), text[at + operator.len()..].trim().to_owned());
        let group = GROUPS.iter().find(|group| group.name == name).map(ConditionColumn::Group);
        let column = group.or_else(|| metric(name).map(ConditionColumn::Metric)).ok_or_else(|| {
            let known: Vec<&str> = GROUPS.iter().map(|group| group.name).chain(metric_names()).collect();
            unknown(&format!("--where {text}: there is no column {name:?}"), name, &known)
        })?;
        let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
        let wrong = |why: String| Err(Error::Question(format!("--where {text}: {why}")));
        let ordered = !matches!(operator, "=" | "!=");
        match column {
            ConditionColumn::Group(group) if !group.is_number && ordered => {
                return wrong(format!("{name} is a name, which is compared by = and != alone"));
            }
            ConditionColumn::Group(group) if !group.is_number => {}
            _ if number.is_none() => return wrong(format!("{value:?} is not a number")),
            ConditionColumn::Group(_) if !ordered && number.is_some_and(|number| number.fract() != 0.0) => {
                return wrong(format!("{value:?} is not a whole number, as every {name} is"));
            }
            _ => {}
        }
        Ok(Condition { column, operator, value, number })
    }

    /// A value that no row can have is a slip, not a question. `runs`: the names of all runs that are asked.
    pub(super) fn check_value(&self, run: &StoredRun, runs: &[&str]) -> Result<(), Error> {
        let ConditionColumn::Group(group) = self.column else { return Ok(()) };
        let known: Vec<&str> = match group.name {
            "method" => run.meta().methods.iter().map(|method| method.name.as_str()).collect(),
            "data_set" => run.meta().data_sets.iter().map(String::as_str).collect(),
            "source" => vec!["skipped", "accepted", "replaced", "bonus", "verifier", "fallback", "refused"],
            "finish" => vec!["stop", "length", "failed", "battery", "left", "dropped", "open"],
            "reason" => REASONS.to_vec(),
            "run" => runs.to_vec(),
            // Nothing tells the profiles of a run whose scenario cannot be read.
            "device_profile" => match &run.settings {
                Some(settings) => settings.device.parts.iter().map(|part| part.name.as_str()).collect(),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        if !known.contains(&self.value.as_str()) {
            let what = format!("--where {}: run {} has no {:?}", group.name, run.meta().run, self.value);
            return Err(unknown(&what, &self.value, &known));
        }
        Ok(())
    }

    /// Whether a row meets it.
    pub(super) fn holds(&self, row: &QueryRow<'_>) -> bool {
        let value = match self.column {
            ConditionColumn::Group(group) => match (group.of)(row) {
                Key::Name(name) => {
                    let equal = name == self.value;
                    return if self.operator == "!=" { !equal } else { self.operator == "=" && equal };
                }
                Key::Number(number) => Some(number as f64),
            },
            ConditionColumn::Metric(metric) => (metric.of)(row).map(|figure| figure.value(metric.step)),
        };
        // A row without the figure meets no condition on it.
        let (Some(value), Some(number)) = (value, self.number) else { return false };
        match self.operator {
            "=" => value == number,
            "!=" => value != number,
            ">" => value > number,
            ">=" => value >= number,
            "<" => value < number,
            _ => value <= number,
        }
    }
}

#[cfg(test)]
mod tests {
    use specfleet_engine::device::gate::GateReason;

    use super::*;

    #[test]
    fn reasons_are_the_gates() {
        for (number, name) in REASONS.iter().enumerate() {
            let reason: GateReason = serde_json::from_value((*name).into()).expect(name);
            assert_eq!(reason as usize, number, "{name}");
        }
        assert_eq!(GateReason::Worth as usize + 1, REASONS.len());
    }
}
