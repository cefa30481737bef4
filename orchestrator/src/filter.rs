//! Filters over a listing of runs. A value that no run can have, or that none has, is refused with those that there are.

use std::collections::BTreeSet;

use specfleet_engine::names::{did_you_mean, nearest};
use specfleet_ledger::RunListing;
use time::{Date, Month};

use crate::error::Error;

/// The states of a listing.
const STATES: [&str; 5] = ["running", "completed", "interrupted", "failed", "unreadable"];

/// The kinds of runs.
const KINDS: [&str; 2] = ["live", "simulated"];

/// Values that a message lists.
const LISTED: usize = 12;

/// Digits of a scenario's hash in a message.
const HASH_DIGITS: usize = 12;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// What was asked for, as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub state: Option<&'a str>,
    pub method: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub kind: Option<&'a str>,
    /// First day, as YYYY-MM-DD.
    pub since: Option<&'a str>,
    /// Last day, as YYYY-MM-DD.
    pub until: Option<&'a str>,
    /// The beginning of a scenario's hash.
    pub scenario: Option<&'a str>,
}

/// Which runs of a listing to keep.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    asked: Asked<'a>,
    /// First second, since 1970.
    since: Option<u64>,
    /// The second after the last.
    until: Option<u64>,
}

impl<'a> Filter<'a> {
    /// A filter over these runs. An empty ledger has no values to tell, so there everything goes that can be a value.
    pub fn new(asked: &Asked<'a>, runs: &[RunListing]) -> Result<Filter<'a>, Error> {
        check("--state", asked.state, STATES.into_iter())?;
        check("--kind", asked.kind, KINDS.into_iter())?;
        if !runs.is_empty() {
            check("--method", asked.method, runs.iter().flat_map(|run| &run.methods).map(String::as_str))?;
            check("--tag", asked.tag, runs.iter().flat_map(|run| &run.tags).map(String::as_str))?;
            let hashes = || runs.iter().map(|run| run.scenario_hash.as_str()).filter(|hash| !hash.is_empty());
            if let Some(prefix) = asked.scenario.filter(|prefix| !hashes().any(|hash| hash.starts_with(prefix))) {
                let short = hashes().map(|hash| hash.get(..HASH_DIGITS).unwrap_or(hash));
                check("--scenario", Some(prefix), short)?;
            }
        }
        let since = asked.since.map(|text| day("--since", text)).transpose()?;
        let until = asked.until.map(|text| day("--until", text)).transpose()?.map(|day| day + SECONDS_PER_DAY);
        Ok(Filter { asked: *asked, since, until })
    }

    /// Whether a run is one of those that were asked for.
    pub fn keeps(&self, run: &RunListing) -> bool {
        let Asked { state, method, tag, kind, scenario, .. } = self.asked;
        state.is_none_or(|state| run.state.name() == state)
            && kind.is_none_or(|kind| run.kind.name() == kind)
            && method.is_none_or(|method| run.methods.iter().any(|known| known == method))
            && tag.is_none_or(|tag| run.tags.iter().any(|known| known == tag))
            && scenario.is_none_or(|prefix| run.scenario_hash.starts_with(prefix))
            && self.since.is_none_or(|since| run.started >= since)
            && self.until.is_none_or(|until| run.started < until)
    }
}

/// Refuses a value that is not among the known ones.
fn check<'a>(flag: &str, value: Option<&str>, known: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let Some(value) = value else { return Ok(()) };
    let known: BTreeSet<&str> = known.collect();
    if known.contains(value) {
        return Ok(());
    }
    let near = nearest(value, known.iter().copied());
    let listed: Vec<&str> = known.iter().copied().take(LISTED).collect();
    let more = if known.len() > LISTED { ", …" } else { "" };
    let there_are = match (did_you_mean(&near), listed.is_empty()) {
        (Some(meant), _) => meant,
        (None, false) => format!("there are {}{more}", listed.join(", ")),
        (None, true) => "no run has any".to_owned(),
    };
    Err(Error::Asked(format!("{flag}: {value:?} is unknown here; {there_are}")))
}

/// The first second of a day (UTC), since 1970.
fn day(flag: &str, text: &str) -> Result<u64, Error> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| -> Option<u16> {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        part.parse().ok()
    };
    let (year, month, of_month) = (number(4), number(2), number(2));
    let date = || {
        let month = Month::try_from(u8::try_from(month?).ok()?).ok()?;
        Date::from_calendar_date(i32::from(year?), month, u8::try_from(of_month?).ok()?).ok()
    };
    date()
        .filter(|_| parts.next().is_none())
        .and_then(|date| u64::try_from(date.midnight().assume_utc().unix_timestamp()).ok())
        .ok_or_else(|| Error::Asked(format!("{flag}: {text:?} is no day since 1970; write it as YYYY-MM-DD")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_utc() {
        assert_eq!(day("--since", "1970-01-02").ok(), Some(86_400));
        assert_eq!(day("--since", "2026-02-28").ok(), Some(1_772_236_800));
        for wrong in ["2026-02-29", "2026-13-01", "26-1-1", "1969-12-31", "today", "2026-01-01-01", "+026-01-01", ""] {
            assert!(day("--since", wrong).is_err(), "{wrong}");
        }
    }
}
