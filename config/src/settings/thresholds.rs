//! `[thresholds]`: what a run is held to.

use serde::{Deserialize, Serialize};
use specfleet_engine::method::METHOD_NAMES;
use specfleet_engine::time::Span;
use toml::Value;

use super::MethodChoice;
use crate::read::{Section, split_commas};
use crate::{Check, ConfigError};

/// A check that decides whether a run passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// What is held against which limit.
    pub check: Check,
    /// The method that it is for, one of the run's; none is for each of them.
    pub method: Option<String>,
    /// Whether a run ends as soon as it fails.
    pub abort_on_fail: bool,
    /// How long, from the start of a method on, it cannot end a run; zero without `abort_on_fail`.
    pub delay: Span,
}

/// Reads `[thresholds]`. `methods`: those that run.
pub(super) fn read(section: &Section<'_>, methods: &[MethodChoice]) -> Result<Vec<Threshold>, ConfigError> {
    const EXPECTED: &str = "a list of texts and tables { check, method, abort_on_fail, delay_seconds }";
    let plain = |text: &str| {
        Ok(Threshold { check: parse(section, "checks", text)?, method: None, abort_on_fail: false, delay: Span::ZERO })
    };
    match section.value("checks") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => split_commas(text).iter().map(|text| plain(text)).collect(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => plain(text),
                Value::Table(_) => table(&section.inline("checks", item)?, methods),
                other => Err(section.wrong_type("checks", EXPECTED, other)),
            })
            .collect(),
        Some(other) => Err(section.wrong_type("checks", EXPECTED, other)),
    }
}

fn table(entry: &Section<'_>, methods: &[MethodChoice]) -> Result<Threshold, ConfigError> {
    let abort_on_fail = entry.opt_flag("abort_on_fail")?.unwrap_or(false);
    if !abort_on_fail {
        entry.refuse_unused(&["delay_seconds"], "abort_on_fail = false")?;
    }
    let method = entry.opt_text("method")?;
    if let Some(method) = method {
        if !METHOD_NAMES.contains(&method) {
            return Err(entry.unknown_name("method", method, METHOD_NAMES.join(", ")));
        }
        if methods.iter().all(|choice| choice.name != method) {
            return Err(entry.conflict("method", format!("{method:?} is not among run.methods")));
        }
    }
    Ok(Threshold {
        check: parse(entry, "check", entry.required_text("check")?)?,
        method: method.map(str::to_owned),
        abort_on_fail,
        delay: entry.seconds("delay_seconds", 0.0..=1e6, 0.0)?,
    })
}

fn parse(section: &Section<'_>, name: &str, text: &str) -> Result<Check, ConfigError> {
    text.parse().map_err(|error: crate::CheckError| section.conflict(name, error.to_string()))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::scenario::tests::{refused, refused_override, valid};

    #[test]
    fn thresholds_are_texts_or_tables() {
        let settings = valid(
            "[thresholds]\nchecks = [\"inter_token_p95 < 250ms\", { check = \"upload_rate < 0.5\", method = \"ui-hlm\", \
             abort_on_fail = true, delay_seconds = 10 }]",
        );
        let [plain, full] = &settings.thresholds[..] else { panic!("two thresholds") };
        assert_eq!(plain.check, "inter_token_p95 < 250ms".parse().expect("valid"));
        assert_eq!((&plain.method, plain.abort_on_fail, plain.delay), (&None, false, Span::ZERO));
        assert_eq!(full.check, "upload_rate<50%".parse().expect("valid"));
        assert_eq!((full.method.as_deref(), full.abort_on_fail), (Some("ui-hlm"), true));
        assert_eq!(full.delay, Span::from_millis(10_000));
        let commas = valid("[thresholds]\nchecks = \"inter_token_p95 < 250ms, agreement > 0.9\"").thresholds;
        assert_eq!(commas.len(), 2);
        assert_eq!(valid("").thresholds, []);
    }

    #[test]
    fn mistakes_are_named() {
        refused(
            "[thresholds]\nchecks = [\"ttft < 3 sec\"]",
            expect![[r#"my.toml: thresholds.checks: "sec" is no unit; valid: ns, us, ms, s, J, mJ, %"#]],
        );
        refused(
            "[thresholds]\nchecks = [{ check = \"ttft\" }]",
            expect![[
                r#"my.toml: thresholds.checks.check: "ttft" compares nothing; the form is METRIC[_p50|_p90|_p95|_p99|_mean|_min|_max] <|<=|>|>= NUMBER[UNIT], such as inter_token_p95 < 250ms"#
            ]],
        );
        refused(
            "[thresholds]\nchecks = [{ method = \"hlm\" }]",
            expect!["my.toml: thresholds.checks.check is missing: a text"],
        );
        refused(
            "[thresholds]\nchecks = [3]",
            expect![
                "my.toml: thresholds.checks must be a list of texts and tables { check, method, abort_on_fail, delay_seconds }, not the number 3"
            ],
        );
        refused_override(
            "thresholds.checks=3",
            expect![
                "--set: thresholds.checks must be a list of texts and tables { check, method, abort_on_fail, delay_seconds }, not the number 3"
            ],
        );
        refused(
            "[thresholds]\nchecks = [{ check = \"ttft < 1s\", delay_seconds = 3 }]",
            expect!["my.toml: thresholds.checks.delay_seconds: has no use with abort_on_fail = false"],
        );
        refused(
            "[thresholds]\nchecks = [{ check = \"ttft < 1s\", method = \"price\" }]",
            expect![[r#"my.toml: thresholds.checks.method: "price" is not among run.methods"#]],
        );
        refused(
            "[thresholds]\nchecks = [{ check = \"ttft < 1s\", method = \"ui\" }]",
            expect![[
                r#"my.toml: thresholds.checks.method = "ui" is not known; valid: slm-only, llm-only, hlm, rand-hlm, u-hlm, ui-hlm, cu-hlm, dssd, block, entropy, max-prob, price"#
            ]],
        );
        refused(
            "[thresholds]\nchecks = [{ check = \"ttft < 1s\", abort = true }]",
            expect!["my.toml: unknown key thresholds.checks.abort; did you mean thresholds.checks.check?"],
        );
        refused(
            "[thresholds]\ncheck = \"ttft < 1s\"",
            expect!["my.toml: unknown key thresholds.check; did you mean thresholds.checks?"],
        );
    }
}
