//! Whatever a user gives, the answer is settings or one line.

use proptest::prelude::*;

use super::*;

/// A value of any type, near the edges.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}").replace("NaN", "nan")),
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("[{}]".to_owned()),
        Just("[\"\", 1, {}]".to_owned()),
        Just("1979-05-27".to_owned()),
        "[a-z@,./-]{0,12}",
        "[^=]{0,12}",
    ]
}

/// Every key, and some that do not exist.
fn any_key() -> impl Strategy<Value = String> {
    let scenario = Scenario::shipped_default().expect("valid");
    scenario.settings().expect("valid");
    prop_oneof![9 => proptest::sample::select(scenario.keys()), 1 => "[a-z.]{1,12}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a user sets, the answer is settings or one line.
    #[test]
    fn any_override_gives_settings_or_one_line(
        changes in proptest::collection::vec((any_key(), any_value()), 1..3),
    ) {
        let mut scenario = Scenario::shipped_default().expect("valid");
        for (key, value) in &changes {
            let _ = scenario.set(&format!("{key}={value}"));
        }
        match scenario.settings() {
            Ok(settings) => {
                let again = Settings::from_canonical_toml(&settings.to_canonical_toml()).expect("reads back");
                prop_assert_eq!(again.scenario_hash(), settings.scenario_hash());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// Whatever bytes a file has, the answer is settings or one line.
    #[test]
    fn any_mutation_of_the_reference_gives_settings_or_one_line(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<char>(), any::<bool>()), 1..6),
    ) {
        let mut text: Vec<char> = ShippedFile::SCENARIOS[2].text.chars().collect();
        for (at, with, insert) in edits {
            let at = at.index(text.len());
            if insert { text.insert(at, with) } else { text[at] = with }
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = Scenario::parse("my.toml", &text, None).and_then(|scenario| scenario.settings()) {
            prop_assert_eq!(error.to_string().lines().count(), 1, "{}", error);
        }
    }
}
