//! `[simulate]`: what a simulation in virtual time answers with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{CostChoice, PoolSection};
use crate::ConfigError;
use crate::read::{Section, is_url};

/// How a simulation runs. A live run leaves it aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimulateSection {
    pub fidelity: Fidelity,
    /// The rows of devices 0, n, 2n, … are kept, and sketches of all; 1 keeps every row.
    pub keep_every: u32,
    /// Whether fitted answers go on to `run.max_new_tokens` instead of ending where texts end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_eos: bool,
    /// Whether the overheads of the host are added that the calibration measured on a live run with a measured pool: where
    /// the pool is emulated a live run has none.
    pub host: bool,
}

/// Who answers in a simulation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Fidelity {
    Model,
    /// Signals and verdicts as a run recorded them.
    Trace {
        run: RunPlace,
    },
    /// Draws from the calibration's distributions.
    Fitted,
}

/// Where a recorded run lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunPlace {
    /// Its name in the ledger.
    Name(String),
    Folder(#[serde(with = "super::model::path_as_text")] PathBuf),
}

impl SimulateSection {
    pub(super) fn read(section: &Section<'_>, pool: &PoolSection) -> Result<SimulateSection, ConfigError> {
        let fidelity = fidelity(section)?;
        let host = section.opt_flag("host")?;
        let ignore_eos = section.opt_flag("ignore_eos")?.unwrap_or(false);
        if ignore_eos && fidelity != Fidelity::Fitted {
            let problem = "has no use without simulate.fidelity = \"fitted\": other answers end where their texts do";
            return Err(section.conflict("ignore_eos", problem));
        }
        if host == Some(true) && matches!(pool.cost, CostChoice::Roofline { .. }) {
            let problem = "has no use with pool.cost = \"roofline\": an emulated pair does not run on this host";
            return Err(section.conflict("host", problem));
        }
        Ok(SimulateSection {
            fidelity,
            ignore_eos,
            keep_every: section.integer("keep_every", 1..=1_000_000, 1)?,
            host: host.unwrap_or(false),
        })
    }
}

fn fidelity(section: &Section<'_>) -> Result<Fidelity, ConfigError> {
    #[derive(Clone, Copy)]
    enum Name {
        Model,
        Trace,
        Fitted,
    }
    let names = [("model", Name::Model), ("trace", Name::Trace), ("fitted", Name::Fitted)];
    match section.opt_choice("fidelity", &names)?.unwrap_or(Name::Model) {
        Name::Model => {
            section.refuse_unused(&["trace"], "simulate.fidelity = \"model\"")?;
            Ok(Fidelity::Model)
        }
        Name::Trace => {
            let expected = "the name of a recorded run, or the path of its folder";
            let text = section.opt_text("trace")?.ok_or_else(|| section.missing("trace", expected.into()))?;
            let is_path = is_url(text) || text.contains(['/', '\\']);
            let run =
                if is_path { RunPlace::Folder(section.resolve("trace", text)) } else { RunPlace::Name(text.into()) };
            Ok(Fidelity::Trace { run })
        }
        Name::Fitted => {
            section.refuse_unused(&["trace"], "simulate.fidelity = \"fitted\"")?;
            Ok(Fidelity::Fitted)
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use specfleet_engine::cost::Roofline;

    use super::*;
    use crate::Scenario;
    use crate::scenario::tests::{refused, refused_override, valid};

    fn simulate(text: &str) -> SimulateSection {
        valid(&format!("[simulate]\n{text}")).simulate
    }

    #[test]
    fn fidelities_and_costs_are_read() {
        let plain = valid("").simulate;
        let defaults = SimulateSection { fidelity: Fidelity::Model, keep_every: 1, ignore_eos: false, host: false };
        assert_eq!(plain, defaults);

        let trace = simulate("fidelity = \"trace\"\ntrace = \"20260101-000000-abcd\"\nkeep_every = 100");
        let run = RunPlace::Name("20260101-000000-abcd".into());
        assert_eq!(trace, SimulateSection { fidelity: Fidelity::Trace { run }, keep_every: 100, ..defaults.clone() });

        assert!(simulate("fidelity = \"fitted\"\nhost = true").host);
        assert!(simulate("host = true").host);
    }

    #[test]
    fn a_trace_may_be_a_path() {
        let text = "[simulate]\nfidelity = \"trace\"\ntrace = \"./runs/x\"";
        let scenario = Scenario::parse("my.toml", text, Some(std::path::Path::new("/scenarios"))).expect("valid");
        let run = RunPlace::Folder("/scenarios/./runs/x".into());
        assert_eq!(scenario.settings().expect("valid").simulate.fidelity, Fidelity::Trace { run });
    }

    #[test]
    fn an_emulated_pair_joins_model_and_machine() {
        let text = "[simulate]\ncost = \"roofline\"\nverifier_model = \"llama-2-7b\"\n[pool]\nprofile = \"h200\"";
        let settings = valid(text);
        let CostChoice::Roofline { source, roofline } = &settings.pool.cost else { panic!("a roofline") };
        assert!(source.contains("published") && !settings.simulate.host);
        assert_eq!((roofline.flops_per_second, roofline.bytes_per_second), (0.6 * 989e12, 0.8 * 4.8e12));
        let model = &roofline.model;
        assert_eq!((model.name.as_str(), model.layers, model.width), ("llama-2-7b", 32, 4096));
        assert_eq!(model.kv_bytes_per_token, 2 * 32 * 4096 * 2);
        let tiny = valid(&text.replace("llama-2-7b", "tinyllama-1.1b")).pool.cost;
        let CostChoice::Roofline { roofline: Roofline { model, .. }, .. } = tiny else { panic!("a roofline") };
        assert_eq!((model.kv_bytes_per_token, model.vocab, model.context), (2 * 22 * 4 * 64 * 2, 32_000, 2048));
    }

    #[test]
    fn keys_without_use_are_refused() {
        refused(
            "[simulate]\ntrace = \"x\"",
            expect![[r#"my.toml: simulate.trace: has no use with simulate.fidelity = "model""#]],
        );
        refused(
            "[simulate]\nfidelity = \"fitted\"\ntrace = \"x\"",
            expect![[r#"my.toml: simulate.trace: has no use with simulate.fidelity = "fitted""#]],
        );
        refused(
            "[simulate]\nbatch_ms = 3",
            expect![[r#"my.toml: simulate.batch_ms: has no use with simulate.cost = "measured""#]],
        );
        refused(
            "[simulate]\nverifier_model = \"llama-2-7b\"",
            expect![[r#"my.toml: simulate.verifier_model: has no use with simulate.cost = "measured""#]],
        );
        refused(
            "[simulate]\ncost = \"roofline\"\nbatch_ms = 3",
            expect![[r#"my.toml: simulate.batch_ms: has no use with simulate.cost = "roofline""#]],
        );
        refused(
            "[simulate]\ncost = \"fixed\"\nverifier_model = \"llama-2-7b\"\nbatch_ms = 3",
            expect![[r#"my.toml: simulate.verifier_model: has no use with simulate.cost = "fixed""#]],
        );
        refused(
            "[simulate]\ncost = \"roofline\"\nverifier_model = \"llama-2-7b\"\nhost = true",
            expect![[
                r#"my.toml: simulate.host: has no use with pool.cost = "roofline": an emulated pair does not run on this host"#
            ]],
        );
    }

    #[test]
    fn mistakes_are_named() {
        refused(
            "[simulate]\nfidelity = \"trace\"",
            expect!["my.toml: simulate.trace is missing: the name of a recorded run, or the path of its folder"],
        );
        refused(
            "[simulate]\nfidelity = \"exact\"",
            expect![[r#"my.toml: simulate.fidelity = "exact" is not known; valid: model, trace, fitted"#]],
        );
        refused_override(
            "simulate.cost=fixed",
            expect!["the default scenario: simulate.batch_ms is missing: the time of a batch, 0.001 to 600000"],
        );
        refused(
            "[simulate]\ncost = \"roofline\"",
            expect![
                "my.toml: simulate.verifier_model is missing: llama-2-7b, tinyllama-1.1b, a path to a .toml file or a table"
            ],
        );
        refused(
            "[simulate]\ncost = \"roofline\"\nverifier_model = \"gpt\"",
            expect![[
                r#"my.toml: simulate.verifier_model = "gpt" is not known; valid: llama-2-7b, tinyllama-1.1b, or a path to a .toml file"#
            ]],
        );
        refused(
            "[simulate]\ncost = \"roofline\"\nverifier_model = { name = \"x\", source = \"y\", parameters = 0 }",
            expect![
                "my.toml: simulate.verifier_model.parameters = 0 is out of range: must lie in 1 to 1000000000000000"
            ],
        );
        let slow = "[pool.profile]\nname = \"x\"\nsource = \"y\"\nbatch_watts = 1\nidle_watts = 1\n";
        refused(
            &format!("{slow}[simulate]\ncost = \"roofline\"\nverifier_model = \"llama-2-7b\""),
            expect![[
                r#"my.toml: simulate.cost: "roofline" needs flops_per_second and bytes_per_second in pool.profile, and "x" has none"#
            ]],
        );
        refused(
            &format!("{slow}flops_per_second = 1e12"),
            expect!["my.toml: pool.profile.bytes_per_second is missing: a number from 1000 to 1000000000000000000000"],
        );
        refused(
            "[simulate]\nkeep_every = 0",
            expect!["my.toml: simulate.keep_every = 0 is out of range: must lie in 1 to 1000000"],
        );
    }
}
