//! `[load]` and `[churn]`: when requests arrive, and when devices come and go.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use specfleet_engine::load::{Arrivals, Churn, Load, Stage};
use specfleet_engine::time::Span;
use toml::Value;

use crate::ConfigError;
use crate::arrivals;
use crate::read::Section;

/// Requests per second over the fleet, where there must be some.
const RATE: RangeInclusive<f64> = 1e-6..=1e9;
/// The same where there may be none for a while.
const STAGE_RATE: RangeInclusive<f64> = 0.0..=1e9;

#[derive(Clone, Copy)]
enum Pattern {
    Closed,
    Poisson,
    Constant,
    Gamma,
    Ramp,
    Csv,
}

impl Pattern {
    const NAMES: [(&'static str, Pattern); 6] = [
        ("closed", Pattern::Closed),
        ("poisson", Pattern::Poisson),
        ("constant", Pattern::Constant),
        ("gamma", Pattern::Gamma),
        ("ramp", Pattern::Ramp),
        ("csv", Pattern::Csv),
    ];

    /// The keys of `[load]` beside `pattern`, and whether this pattern uses them.
    fn keys(self) -> [(&'static str, bool); 7] {
        use Pattern::{Closed, Constant, Csv, Gamma, Poisson, Ramp};
        [
            ("think_ms", matches!(self, Closed)),
            ("rate", matches!(self, Poisson | Constant | Gamma)),
            ("variation", matches!(self, Gamma)),
            ("start_rate", matches!(self, Ramp)),
            ("stages", matches!(self, Ramp)),
            ("file", matches!(self, Csv)),
            ("backlog", !matches!(self, Closed)),
        ]
    }
}

/// Tokens of recorded requests, where the file of their arrivals says so: in the order of the arrivals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLengths {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_tokens: Option<Vec<u32>>,
}

pub(super) fn read(section: &Section<'_>) -> Result<(Load, Option<RecordedLengths>), ConfigError> {
    let pattern = section.opt_choice("pattern", &Pattern::NAMES)?.unwrap_or(Pattern::Closed);
    let unused: Vec<&str> = pattern.keys().iter().filter(|(_, used)| !used).map(|(key, _)| *key).collect();
    let name = section.opt_text("pattern")?.unwrap_or("closed");
    section.refuse_unused(&unused, &format!("load.pattern = {name:?}"))?;

    let mut lengths = None;
    let arrivals = match pattern {
        Pattern::Closed => {
            return Ok((Load::Closed { think: section.millis("think_ms", 0.0..=86_400_000.0, 0.0)? }, None));
        }
        Pattern::Poisson => Arrivals::Poisson { rate: section.required_number("rate", RATE)? },
        Pattern::Constant => Arrivals::Constant { rate: section.required_number("rate", RATE)? },
        Pattern::Gamma => Arrivals::Gamma {
            rate: section.required_number("rate", RATE)?,
            variation: section.required_number("variation", 0.01..=100.0)?,
        },
        Pattern::Ramp => ramp(section)?,
        Pattern::Csv => {
            let path = section
                .opt_path("file")?
                .ok_or_else(|| section.missing("file", "a CSV file whose first column is seconds".into()))?;
            let (times, recorded) = arrivals::open(section, "file", &path)?;
            lengths = (recorded != RecordedLengths::default()).then_some(recorded);
            Arrivals::Recorded { times }
        }
    };
    Ok((Load::Open { arrivals, backlog: section.integer("backlog", 1..=1_000_000, 16)? }, lengths))
}

fn ramp(section: &Section<'_>) -> Result<Arrivals, ConfigError> {
    const EXPECTED: &str = "a list of tables { seconds, rate }";
    let start = section.required_number("start_rate", STAGE_RATE)?;
    let value = section.value("stages").ok_or_else(|| section.missing("stages", EXPECTED.into()))?;
    let Value::Array(items) = value else { return Err(section.wrong_type("stages", EXPECTED, value)) };
    let stages = items
        .iter()
        .map(|item| {
            let stage = section.inline("stages", item)?;
            let seconds = stage.required_number("seconds", 0.001..=1e6)?;
            Ok(Stage { span: Span::from_seconds(seconds), rate: stage.required_number("rate", STAGE_RATE)? })
        })
        .collect::<Result<Vec<_>, ConfigError>>()?;
    if stages.is_empty() {
        return Err(section.conflict("stages", "must have at least one stage"));
    }
    if start == 0.0 && stages.iter().all(|stage| stage.rate == 0.0) {
        return Err(section.conflict("stages", "nothing ever arrives: every rate is 0, start_rate too"));
    }
    Ok(Arrivals::Ramp { start, stages })
}

pub(super) fn churn(section: &Section<'_>) -> Result<Churn, ConfigError> {
    Ok(Churn {
        join_over: section.seconds("join_over_seconds", 0.0..=1e6, 0.0)?,
        stay: section.opt_seconds("stay_seconds", 0.001..=1e9)?,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use specfleet_engine::time::Time;

    use super::*;
    use crate::Scenario;
    use crate::scenario::tests::{refused, refused_override, valid};

    fn load(text: &str) -> Load {
        valid(&format!("[load]\n{text}")).load
    }

    fn open(arrivals: Arrivals, backlog: u32) -> Load {
        Load::Open { arrivals, backlog }
    }

    #[test]
    fn every_pattern_is_read() {
        assert_eq!(valid("").load, Load::Closed { think: Span::ZERO });
        assert_eq!(load("think_ms = 250"), Load::Closed { think: Span::from_millis(250) });
        assert_eq!(load("pattern = \"poisson\"\nrate = 5"), open(Arrivals::Poisson { rate: 5.0 }, 16));
        let constant = open(Arrivals::Constant { rate: 0.5 }, 3);
        assert_eq!(load("pattern = \"constant\"\nrate = 0.5\nbacklog = 3"), constant);
        let gamma = open(Arrivals::Gamma { rate: 5.0, variation: 2.5 }, 16);
        assert_eq!(load("pattern = \"gamma\"\nrate = 5.0\nvariation = 2.5"), gamma);
        let stage = |seconds: f64, rate| Stage { span: Span::from_seconds(seconds), rate };
        let ramp = Arrivals::Ramp { start: 1.0, stages: vec![stage(30.0, 5.0), stage(0.5, 0.0)] };
        let text =
            "pattern = \"ramp\"\nstart_rate = 1\nstages = [{ seconds = 30, rate = 5.0 }, { seconds = 0.5, rate = 0 }]";
        assert_eq!(load(text), open(ramp, 16));
        let churn = valid("[churn]\njoin_over_seconds = 2\nstay_seconds = 0.5").churn;
        assert_eq!(churn, Churn { join_over: Span::from_millis(2_000), stay: Some(Span::from_millis(500)) });
        assert_eq!(valid("").churn, Churn { join_over: Span::ZERO, stay: None });
    }

    #[test]
    fn recorded_arrivals_come_from_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.csv"), "at,who\n2,x\n0.5,y\n").expect("written");
        let text = "[load]\npattern = \"csv\"\nfile = \"a.csv\"";
        let scenario = Scenario::parse("my.toml", text, Some(folder.path())).expect("valid");
        let times = vec![Time(500_000_000), Time(2_000_000_000)];
        assert_eq!(scenario.settings().expect("valid").load, open(Arrivals::Recorded { times }, 16));
    }

    /// For each pattern, each key that it does not use.
    #[test]
    fn keys_that_a_pattern_does_not_use_are_refused() {
        let own = |name: &str| match name {
            "poisson" | "constant" => "rate = 1",
            "gamma" => "rate = 1\nvariation = 1",
            "ramp" => "start_rate = 1\nstages = [{ seconds = 1, rate = 1 }]",
            _ => "",
        };
        let value = |key: &str| match key {
            "stages" => "[{ seconds = 1, rate = 1 }]",
            "file" => "\"a.csv\"",
            _ => "1",
        };
        for (name, pattern) in Pattern::NAMES {
            for (key, _) in pattern.keys().into_iter().filter(|(_, used)| !used) {
                let text = format!("[load]\npattern = \"{name}\"\n{}\n{key} = {}", own(name), value(key));
                let scenario = Scenario::parse("my.toml", &text, None).expect("TOML");
                let message = scenario.settings().expect_err(&text).to_string();
                assert_eq!(message, format!("my.toml: load.{key}: has no use with load.pattern = {name:?}"));
            }
        }
        refused("[load]\nrate = 5", expect![[r#"my.toml: load.rate: has no use with load.pattern = "closed""#]]);
        refused_override("load.rate=5", expect![[r#"--set: load.rate: has no use with load.pattern = "closed""#]]);
    }

    #[test]
    fn mistakes_are_named() {
        refused(
            "[load]\npattern = \"bursty\"",
            expect![[
                r#"my.toml: load.pattern = "bursty" is not known; valid: closed, poisson, constant, gamma, ramp, csv"#
            ]],
        );
        refused(
            "[load]\npattern = \"poisson\"",
            expect!["my.toml: load.rate is missing: a number from 0.000001 to 1000000000"],
        );
        refused(
            "[load]\npattern = \"poisson\"\nrate = 0",
            expect!["my.toml: load.rate = 0 is out of range: must lie in 0.000001 to 1000000000"],
        );
        refused(
            "[load]\npattern = \"gamma\"\nrate = 1",
            expect!["my.toml: load.variation is missing: a number from 0.01 to 100"],
        );
        refused(
            "[load]\npattern = \"poisson\"\nrate = 1\nbacklog = 0",
            expect!["my.toml: load.backlog = 0 is out of range: must lie in 1 to 1000000"],
        );
        refused(
            "[load]\npattern = \"ramp\"",
            expect!["my.toml: load.start_rate is missing: a number from 0 to 1000000000"],
        );
        refused(
            "[load]\npattern = \"ramp\"\nstart_rate = 1",
            expect!["my.toml: load.stages is missing: a list of tables { seconds, rate }"],
        );
        refused(
            "[load]\npattern = \"ramp\"\nstart_rate = 1\nstages = 3",
            expect!["my.toml: load.stages must be a list of tables { seconds, rate }, not the number 3"],
        );
        refused(
            "[load]\npattern = \"ramp\"\nstart_rate = 1\nstages = [3]",
            expect!["my.toml: load.stages must be a table, not the number 3"],
        );
        refused(
            "[load]\npattern = \"ramp\"\nstart_rate = 1\nstages = []",
            expect!["my.toml: load.stages: must have at least one stage"],
        );
        refused(
            "[load]\npattern = \"ramp\"\nstart_rate = 1\nstages = [{ seconds = 0, rate = 1 }]",
            expect!["my.toml: load.stages.seconds = 0 is out of range: must lie in 0.001 to 1000000"],
        );
        refused(
            "[load]\npattern = \"ramp\"\nstart_rate = 1\nstages = [{ seconds = 1, rat = 1 }]",
            expect!["my.toml: unknown key load.stages.rat; did you mean load.stages.rate?"],
        );
        refused(
            "[load]\npattern = \"ramp\"\nstart_rate = 0\nstages = [{ seconds = 1, rate = 0 }]",
            expect!["my.toml: load.stages: nothing ever arrives: every rate is 0, start_rate too"],
        );
        refused(
            "[load]\npattern = \"csv\"",
            expect!["my.toml: load.file is missing: a CSV file whose first column is seconds"],
        );
        refused("[load]\npatern = \"csv\"", expect!["my.toml: unknown key load.patern; did you mean load.pattern?"]);
        refused(
            "[churn]\nstay_seconds = 0",
            expect!["my.toml: churn.stay_seconds = 0 is out of range: must lie in 0.001 to 1000000000"],
        );
        refused(
            "[churn]\njoin_over_seconds = -1",
            expect!["my.toml: churn.join_over_seconds = -1 is out of range: must lie in 0 to 1000000"],
        );
    }
}
