//! Keys that only a live run, or only a simulation, has a use for.

use crate::{ConfigError, Scenario};

/// How a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In real time, over real connections.
    Live,
    Simulate,
}

/// Keys, and tables, that belong to real connections, threads and clocks: a simulation has none of them.
const LIVE_ONLY: [&str; 9] = [
    "model.drafter_threads",
    "model.verifier_threads",
    "pool.endpoints",
    "pool.idle_timeout_seconds",
    "pool.listen",
    "pool.shutdown_timeout_seconds",
    "pool.tls",
    "run.repeat",
    "run.warmup",
];

/// The table that a live run leaves aside.
const SIMULATE: &str = "simulate";

impl Scenario {
    /// Refuses a scenario that sets what this mode has no use for, naming every such key.
    ///
    /// For a simulation that is each live-only key, from the file or a flag. A live run takes a file with a table
    /// `[simulate]`, so that one file serves both; a flag that sets something in it can only be a mistake.
    pub fn refuse_in(&self, mode: Mode) -> Result<(), ConfigError> {
        let (keys, run) = match mode {
            Mode::Live => (self.document().flagged(SIMULATE), "a live run"),
            Mode::Simulate => (self.live_only(), "a simulation"),
        };
        let Some((first, others)) = keys.split_first() else { return Ok(()) };
        let also = if others.is_empty() { String::new() } else { format!("; nor for {}", others.join(", ")) };
        Err(ConfigError::Conflict {
            origin: self.document().origin_of(first),
            key: first.clone(),
            problem: format!("{run} has no use for it{also}"),
        })
    }

    /// The keys that the scenario gives and that a simulation has no use for.
    pub fn live_only(&self) -> Vec<String> {
        LIVE_ONLY.iter().flat_map(|key| self.document().given(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const FILE: &str = "[simulate]\nfidelity = \"fitted\"\n[pool]\nmax_wait_ms = 2\n";

    fn refused(scenario: &Scenario, mode: Mode, message: expect_test::Expect) {
        message.assert_eq(&scenario.refuse_in(mode).expect_err("refused").to_string());
    }

    #[test]
    fn one_file_serves_both() {
        let mut scenario = Scenario::parse("my.toml", FILE, None).expect("valid");
        scenario.set("run.seed=3").expect("valid");
        for mode in [Mode::Live, Mode::Simulate] {
            scenario.refuse_in(mode).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn a_simulation_refuses_what_is_live_only() {
        let text = format!("{FILE}listen = \"127.0.0.1:1\"\n[pool.tls]\nkey = \"k\"\ncertificate = \"c\"");
        let mut scenario = Scenario::parse("my.toml", &text, None).expect("valid");
        refused(
            &scenario,
            Mode::Simulate,
            expect!["my.toml: pool.listen: a simulation has no use for it; nor for pool.tls.certificate, pool.tls.key"],
        );
        scenario.set("model.drafter_threads=2").expect("valid");
        assert_eq!(
            scenario.live_only(),
            ["model.drafter_threads", "pool.listen", "pool.tls.certificate", "pool.tls.key"]
        );
        refused(
            &scenario,
            Mode::Simulate,
            expect![
                "--set: model.drafter_threads: a simulation has no use for it; nor for pool.listen, pool.tls.certificate, pool.tls.key"
            ],
        );
        scenario.refuse_in(Mode::Live).expect("a live run uses them all");
    }

    #[test]
    fn each_live_only_key_is_a_key() {
        let reference = Scenario::load(std::path::Path::new("reference")).expect("ships");
        reference.settings().expect("valid");
        let keys = reference.document().asked();
        assert!(LIVE_ONLY.iter().all(|key| keys.iter().any(|known| known == key)));
    }

    #[test]
    fn a_live_run_refuses_flags_for_the_simulation() {
        let mut scenario = Scenario::parse("my.toml", FILE, None).expect("valid");
        scenario.set("simulate.keep_every=3").expect("valid");
        scenario.set("simulate.keep_every=4").expect("valid");
        scenario.refuse_in(Mode::Simulate).expect("a simulation uses it");
        refused(&scenario, Mode::Live, expect!["--set: simulate.keep_every: a live run has no use for it"]);
        scenario.set_flag("--fidelity", "simulate.fidelity", "model").expect("a key");
        refused(
            &scenario,
            Mode::Live,
            expect!["--fidelity: simulate.fidelity: a live run has no use for it; nor for simulate.keep_every"],
        );
    }
}
