//! The flags that run, simulate, capacity and sweep share: each is a key of the scenario, with a name of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use specfleet_analysis::Summary;
use specfleet_config::{ConfigError, Scenario, Threshold};

use super::{LEDGER, print};
use crate::cores::cores;
use crate::error::Error;
use crate::paired::Comparison;
use crate::progress::Ui;
use crate::{paired, report, thresholds};

/// The headings under which help shows the flags.
pub(super) mod heading {
    pub(crate) const FLEET: &str = "Fleet";
    pub(crate) const MODELS: &str = "Models";
    pub(crate) const PROMPTS: &str = "Prompts and sampling";
    pub(crate) const SEARCH: &str = "Search";
    pub(crate) const OUTPUT: &str = "Output";
}
use heading::{FLEET, MODELS, OUTPUT, PROMPTS};

/// The scenario, and what overrides it. A flag that is left out leaves the scenario's value.
#[derive(Args, Clone)]
pub(crate) struct ScenarioArgs {
    /// The scenario: a file, or the name of one that ships (default, paper, street, crowd, rush, h200, million or reference);
    /// without one: default
    pub(crate) scenario: Option<PathBuf>,
    /// Devices of the fleet; for capacity the largest fleet that is tried (1,000,000 unless told otherwise)
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = FLEET)]
    pub(crate) devices: Option<i64>,
    /// Verifiers of the pool
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = FLEET)]
    pub(crate) verifiers: Option<i64>,
    /// Upload methods, separated by commas; all: every one that ships
    #[arg(long, value_name = "a,b", help_heading = FLEET)]
    methods: Option<String>,
    /// Inject a fault: kill-verifier@SECONDS; may be repeated
    #[arg(long, value_name = "FAULT", help_heading = FLEET)]
    fault: Vec<String>,
    /// How both models' weights are stored: f32, q8_0 or q4_k
    #[arg(long, value_name = "P", help_heading = MODELS)]
    precision: Option<String>,
    /// Folder of another drafter
    #[arg(long, value_name = "DIR", help_heading = MODELS)]
    drafter: Option<PathBuf>,
    /// Folder of another verifier
    #[arg(long, value_name = "DIR", help_heading = MODELS)]
    verifier: Option<PathBuf>,
    /// Prompts under each method
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = PROMPTS)]
    prompts: Option<i64>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = PROMPTS)]
    max_new_tokens: Option<i64>,
    /// Sampling temperature; 0 is greedy
    #[arg(long, value_name = "T", allow_negative_numbers = true, help_heading = PROMPTS)]
    temperature: Option<f64>,
    /// Seed of all draws
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = PROMPTS)]
    seed: Option<i64>,
    /// Passes over all methods with this many seeds, from --seed on
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = PROMPTS)]
    seeds: Option<i64>,
    /// Prompts as JSON lines
    #[arg(long, value_name = "FILE.jsonl", help_heading = PROMPTS)]
    workload: Option<PathBuf>,
    /// Any other key of the scenario, by its whole name; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER, help_heading = OUTPUT)]
    pub(crate) ledger: PathBuf,
    /// Print the result as JSON and nothing else
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) json: bool,
    /// How to show progress on standard error
    #[arg(long, value_enum, default_value = "auto", help_heading = OUTPUT)]
    ui: Ui,
}

/// The flags of a run that is kept.
#[derive(Args, Clone)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) scenario: ScenarioArgs,
    /// Write generations.jsonl, summary.json and paired.json here
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub(crate) out: Option<PathBuf>,
}

impl ScenarioArgs {
    /// How progress is shown: not at all beside JSON.
    pub(crate) fn shown(&self) -> Ui {
        if self.json { Ui::None } else { self.ui }
    }

    /// The same without a number of devices.
    pub(crate) fn without_devices(&self) -> ScenarioArgs {
        ScenarioArgs { devices: None, ..self.clone() }
    }

    /// The scenario with the flags on top; without a scenario the default one.
    pub(crate) fn read(&self) -> Result<Scenario, ConfigError> {
        self.over(match &self.scenario {
            Some(path) => Scenario::load(path)?,
            None => Scenario::shipped_default()?,
        })
    }

    /// A scenario with the flags on top; flags are keys like any other and obey the same ranges.
    pub(crate) fn over(&self, mut scenario: Scenario) -> Result<Scenario, ConfigError> {
        let mut flags: Vec<(&str, &str, Option<toml::Value>)> = vec![
            ("--devices", "run.devices", self.devices.map(Into::into)),
            ("--verifiers", "run.verifiers", self.verifiers.map(Into::into)),
            ("--methods", "run.methods", self.methods.clone().map(Into::into)),
            ("--prompts", "run.prompts", self.prompts.map(Into::into)),
            ("--max-new-tokens", "run.max_new_tokens", self.max_new_tokens.map(Into::into)),
            ("--temperature", "run.temperature", self.temperature.map(Into::into)),
            ("--seed", "run.seed", self.seed.map(Into::into)),
            ("--seeds", "run.seeds", self.seeds.map(Into::into)),
            ("--precision", "model.drafter_precision", self.precision.clone().map(Into::into)),
            ("--precision", "model.verifier_precision", self.precision.clone().map(Into::into)),
        ];
        let paths = [
            ("--workload", "run.workload", &self.workload),
            ("--drafter", "model.drafter", &self.drafter),
            ("--verifier", "model.verifier", &self.verifier),
        ];
        if !self.fault.is_empty() {
            flags.push(("--fault", "faults.inject", Some(self.fault.clone().into())));
        }
        for (flag, key, value) in flags {
            if let Some(value) = value {
                scenario.set_flag(flag, key, value)?;
            }
        }
        for (flag, key, path) in paths {
            if let Some(path) = path {
                scenario.set_path_flag(flag, key, path)?;
            }
        }
        for assignment in &self.set {
            scenario.set(assignment)?;
        }
        Ok(scenario)
    }
}

/// The figures of a run.
pub(crate) fn show(
    args: &ScenarioArgs,
    summary: &Summary,
    comparisons: &[Comparison],
    notes: &[String],
) -> anyhow::Result<()> {
    if args.json {
        return print(serde_json::to_string_pretty(summary).context("writing the summary")?);
    }
    print(report::method_table(summary))?;
    print(report::pool_table(summary))?;
    report::interval_table(summary).map_or(Ok(()), print)?;
    if !comparisons.is_empty() {
        print(paired::table(comparisons))?;
    }
    print(report::verdict_line(summary))?;
    notes.iter().try_for_each(|note| print(format!("note: {note}")))
}

/// Exit code of a run that was held to thresholds and missed one.
const MISSED: u8 = 99;

/// Whether the run kept to its thresholds: one line each, and the exit code.
pub(crate) fn verdict(
    args: &ScenarioArgs,
    checks: &[Threshold],
    summary: &Summary,
    aborted: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let held = thresholds::evaluate(checks, summary);
    if !args.json {
        thresholds::lines(&held).into_iter().try_for_each(print)?;
        aborted.map_or(Ok(()), |check| print(format!("ended early: {check}")))?;
    }
    let missed = aborted.is_some() || held.iter().any(|held| !held.holds);
    Ok(if missed { ExitCode::from(MISSED) } else { ExitCode::SUCCESS })
}

/// Threads of a simulation: as many as the machine has cores unless a flag says otherwise.
pub(crate) fn threads_of(asked: Option<u16>) -> usize {
    asked.map_or_else(cores, usize::from)
}

/// Refuses thresholds for a command that keeps no run and ends none early.
pub(crate) fn refuse_thresholds(command: &str, args: &ScenarioArgs) -> Result<(), Error> {
    let thresholds = |assignment: &&String| assignment.trim_start().starts_with("thresholds.");
    match args.set.iter().find(thresholds) {
        Some(assignment) => Err(Error::Simulation(format!(
            "--set {assignment}: {command} has no use for it: it keeps no run and holds none to thresholds"
        ))),
        None => Ok(()),
    }
}
