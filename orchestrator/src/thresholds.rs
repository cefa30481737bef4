//! What a run is held to: checks on its figures, during the run and at its end.

use specfleet_analysis::{Statistic, Summary, full_metric_name, metric_names, nearest_metrics};
use specfleet_config::{self as config, Check, Quantity, Settings, Threshold};
use specfleet_engine::names::did_you_mean;
use specfleet_engine::time::{Span, Time};

use crate::error::Error;

/// Virtual or real time between two evaluations of the checks that can end a run.
const EVERY: Span = Span::from_millis(1_000);

/// Refuses thresholds on metrics that no summary has, and limits that are no figures of their metrics.
pub fn check_all(settings: &Settings) -> Result<(), Error> {
    settings.thresholds.iter().try_for_each(|threshold| known("thresholds.checks", &threshold.check).map(drop))
}

/// The full name and the unit of a check's metric. Refuses one that no summary has, and a limit in another unit: a bare
/// number of seconds is usually a forgotten "ms". `place`: where the check stands.
pub fn known(place: &str, check: &Check) -> Result<(&'static str, &'static str), Error> {
    let name = metric(place, &check.metric)?;
    let unit = metric_names().find(|(known, _)| *known == name).map_or("", |(_, unit)| unit);
    let (quantity, what, small, large) = match unit {
        "s" => (Quantity::Time, "a time", "ms", "s"),
        "J/token" => (Quantity::Energy, "an energy", "mJ", "J"),
        _ => (Quantity::Number, "", "", ""),
    };
    let limit = check.limit;
    let why = match (quantity, check.quantity) {
        (wanted, given) if wanted == given => return Ok((name, unit)),
        (Quantity::Number, _) if unit == "ratio" => format!("{name} is a share; write a number from 0 to 1, or %"),
        (Quantity::Number, _) => format!("{name} is in {unit}; write the number alone"),
        (_, Quantity::Number) => {
            format!("the limit has no unit, and {name} is {what}; write {limit}{small} or {limit}{large}")
        }
        _ => format!("{name} is {what}; write the limit in {small} or {large}"),
    };
    Err(Error::Simulation(format!("{place}: {check}: {why}")))
}

/// The full name of a metric, or an error with the names that are like it.
pub fn metric(place: &str, name: &str) -> Result<&'static str, Error> {
    full_metric_name(name).ok_or_else(|| {
        let near = nearest_metrics(name);
        let valid = || format!("valid: {}", metric_names().map(|(name, _)| name).collect::<Vec<_>>().join(", "));
        let advice = did_you_mean(&near).unwrap_or_else(valid);
        Error::Simulation(format!("{place}: there is no metric {name:?}; {advice}"))
    })
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    /// The method whose figure it is.
    pub method: String,
    pub check: String,
    /// The figure; absent if the method has none, which fails the check.
    pub value: Option<f64>,
    pub holds: bool,
    /// How many samples it is the largest of, where it is a percentile that needs more.
    pub too_few: Option<u64>,
}

/// Holds a check against a method's figures.
pub fn hold(check: &Check, method: &str, summary: &Summary) -> CheckResult {
    let statistic = statistic(check.statistic);
    let metric = summary.methods.get(method).and_then(|metrics| metrics.get(full_metric_name(&check.metric)?));
    let value = metric.map(|metric| statistic.of(metric));
    let holds = value.is_some_and(|value| check.holds(value));
    let too_few = metric.filter(|metric| !statistic.is_supported(metric)).map(|metric| metric.count);
    CheckResult { method: method.to_owned(), check: check.to_string(), value, holds, too_few }
}

/// Holds every threshold of a scenario against the figures of a run, method by method.
pub fn evaluate(thresholds: &[Threshold], summary: &Summary) -> Vec<CheckResult> {
    let methods: Vec<&str> = summary.methods.iter().map(|(name, _)| name).collect();
    thresholds
        .iter()
        .flat_map(|threshold| {
            let of = threshold.method.as_deref();
            let methods = methods.iter().filter(move |name| of.is_none_or(|of| of == **name));
            methods.map(|name| hold(&threshold.check, name, summary))
        })
        .collect()
}

/// One line per check, for a person.
pub fn lines(held: &[CheckResult]) -> Vec<String> {
    held.iter()
        .map(|held| {
            let mark = if held.holds { "met" } else { "MISSED" };
            let value = held.value.map_or("no figure".to_owned(), |value| format!("{value:.6}"));
            let few = held.too_few.map_or(String::new(), |count| format!(", the largest of {count} samples"));
            format!("threshold {mark:<6} {}: {} ({value}{few})", held.method, held.check)
        })
        .collect()
}

/// The statistic of a check as analyses name it.
pub fn statistic(statistic: config::CheckStatistic) -> Statistic {
    match statistic {
        config::CheckStatistic::Mean => Statistic::Mean,
        config::CheckStatistic::Min => Statistic::Min,
        config::CheckStatistic::Max => Statistic::Max,
        config::CheckStatistic::Percentile(50) => Statistic::P50,
        config::CheckStatistic::Percentile(90) => Statistic::P90,
        config::CheckStatistic::Percentile(95) => Statistic::P95,
        // A check has one of four percentiles.
        config::CheckStatistic::Percentile(_) => Statistic::P99,
    }
}

/// Watches one method's phase for the checks that end a run when they fail.
pub struct Watch<'a> {
    thresholds: Vec<&'a Threshold>,
    method: String,
    started: Time,
    next: Time,
}

impl<'a> Watch<'a> {
    /// For a phase of `method` that starts at `started`.
    pub fn new(thresholds: &'a [Threshold], method: &str, started: Time) -> Watch<'a> {
        let mine = |threshold: &&Threshold| {
            threshold.abort_on_fail && threshold.method.as_deref().is_none_or(|name| name == method)
        };
        let thresholds: Vec<&Threshold> = thresholds.iter().filter(mine).collect();
        let first = thresholds.iter().map(|threshold| threshold.delay).min().unwrap_or(Span::ZERO);
        Watch { thresholds, method: method.to_owned(), started, next: started + first + EVERY }
    }

    /// Whether there is anything to evaluate now.
    pub fn is_due(&self, now: Time) -> bool {
        !self.thresholds.is_empty() && now >= self.next
    }

    /// The first check that fails on what the phase has so far, as a line. A figure that is not there yet does not fail.
    pub fn failed(&mut self, now: Time, summary: &Summary) -> Option<String> {
        self.next = now + EVERY;
        self.thresholds.iter().filter(|threshold| now >= self.started + threshold.delay).find_map(|threshold| {
            let held = hold(&threshold.check, &self.method, summary);
            let value = held.value?;
            (!held.holds).then(|| format!("{}: {} failed with {value:.6}", held.method, held.check))
        })
    }
}
