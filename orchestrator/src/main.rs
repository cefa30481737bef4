//! The `specfleet` command.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use specfleet::error::Error;
use specfleet::progress::{Progress, Ui};
use specfleet::run::{Finished, RunOptions};
use specfleet::{paired, report, run};
use specfleet_config::Scenario;

/// Fleets of devices that draft with a small model and ask a shared pool of large ones.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario live: the default one, a shipped one by name, or a file (this is also what no command does)
    Run(Box<RunArgs>),
    /// List the runs in the ledger
    Runs {
        /// Folder of all runs
        #[arg(long, default_value = LEDGER)]
        ledger: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a scenario without running it
    Check {
        /// The scenario: a file, or the name of a shipped one
        scenario: PathBuf,
    },
}

const LEDGER: &str = "specfleet-runs";

#[derive(Args)]
struct RunArgs {
    /// The scenario: a file, or the name of a shipped one (default, paper)
    scenario: Option<PathBuf>,
    /// Devices of the fleet
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    devices: Option<i64>,
    /// Verifiers of the pool
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    verifiers: Option<i64>,
    /// Upload methods, separated by commas
    #[arg(long, value_name = "a,b")]
    methods: Option<String>,
    /// Prompts under each method
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    prompts: Option<i64>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_new_tokens: Option<i64>,
    /// Sampling temperature; 0 is greedy
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Seed of all draws
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seed: Option<i64>,
    /// How both models' weights are stored: f32, q8_0 or q4_k
    #[arg(long, value_name = "P")]
    precision: Option<String>,
    /// Folder of another drafter
    #[arg(long, value_name = "DIR")]
    drafter: Option<PathBuf>,
    /// Folder of another verifier
    #[arg(long, value_name = "DIR")]
    verifier: Option<PathBuf>,
    /// Prompts as JSON lines
    #[arg(long, value_name = "FILE.jsonl")]
    workload: Option<PathBuf>,
    /// Any other key of the scenario; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
    /// Write generations.jsonl, summary.json and paired.json here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Inject a fault: kill-verifier@SECONDS; may be repeated
    #[arg(long, value_name = "FAULT")]
    fault: Vec<String>,
    /// Print the summary as JSON and nothing else
    #[arg(long)]
    json: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto")]
    ui: Ui,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no mistakes.
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(mistake) => {
            eprintln!("specfleet: {}", one_line(&mistake));
            return ExitCode::from(2);
        }
    };
    let outcome = match cli.command {
        None => run_command(&cli.run),
        Some(Command::Run(args)) => run_command(&args),
        Some(Command::Runs { ledger, json }) => runs_command(&ledger, json),
        Some(Command::Check { scenario }) => check_command(&scenario),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Our own errors name their cause in their text.
            match error.downcast_ref::<Error>() {
                Some(ours) => eprintln!("specfleet: {ours}"),
                None => eprintln!("specfleet: {error:#}"),
            }
            ExitCode::from(error.downcast_ref::<Error>().map_or(1, Error::exit_code))
        }
    }
}

/// Prints a line. Nobody listening any more (`| head`) is no mistake.
fn print(line: impl Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print"),
    }
}

/// What clap says about a mistake, without its general advice, in one line.
fn one_line(mistake: &clap::Error) -> String {
    let text = mistake.to_string();
    let advice = |line: &str| line.starts_with("Usage:") || line.starts_with("For more information");
    let said: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !advice(line)).filter(|l| !l.is_empty()).collect();
    said.join("; ").replace(":; ", ": ").trim_start_matches("error: ").to_owned()
}

fn run_command(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let scenario = args.scenario().map_err(Error::from)?;
    let settings = scenario.settings().map_err(Error::from)?;
    let progress = Progress::new(if args.json { Ui::None } else { args.ui });
    let options = RunOptions {
        settings,
        scenario: scenario.to_toml(),
        ledger: &args.ledger,
        out: args.out.as_deref(),
        progress: &progress,
    };
    let Finished { summary, comparisons, folder, notes } = actix::System::new().block_on(run::run(options))?;
    if args.json {
        print(serde_json::to_string_pretty(&summary).context("writing the summary")?)?;
    } else {
        print(report::method_table(&summary))?;
        if !comparisons.is_empty() {
            print(paired::table(&comparisons))?;
        }
        print(report::verdict_line(&summary))?;
        for note in notes {
            print(format!("note: {note}"))?;
        }
        print(format!("run {} in {}", summary.run, folder.display()))?;
        if let Some(out) = &args.out {
            print(format!("generations.jsonl, summary.json and paired.json in {}", out.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runs_command(ledger: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let runs = specfleet_ledger::list(ledger).map_err(Error::from)?;
    if json {
        print(serde_json::to_string_pretty(&runs).context("writing the list")?)?;
    } else if runs.is_empty() {
        print(format!("no runs in {}", ledger.display()))?;
    } else {
        print(report::run_table(&runs))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check_command(scenario: &Path) -> anyhow::Result<ExitCode> {
    let scenario = Scenario::load(scenario).map_err(Error::from)?;
    let settings = scenario.settings().map_err(Error::from)?;
    print(report::headline(&settings))?;
    print(format!("scenario {}", settings.scenario_hash()))?;
    Ok(ExitCode::SUCCESS)
}

impl RunArgs {
    /// The scenario with the flags on top; flags are keys like any other and obey the same ranges.
    fn scenario(&self) -> Result<Scenario, specfleet_config::ConfigError> {
        let mut scenario = match &self.scenario {
            Some(path) => Scenario::load(path)?,
            None => Scenario::shipped_default()?,
        };
        let text = |path: &PathBuf| path.display().to_string();
        let mut flags: Vec<(&str, &str, Option<toml::Value>)> = vec![
            ("--devices", "run.devices", self.devices.map(Into::into)),
            ("--verifiers", "run.verifiers", self.verifiers.map(Into::into)),
            ("--methods", "run.methods", self.methods.clone().map(Into::into)),
            ("--workload", "run.workload", self.workload.as_ref().map(|path| text(path).into())),
            ("--prompts", "run.prompts", self.prompts.map(Into::into)),
            ("--max-new-tokens", "run.max_new_tokens", self.max_new_tokens.map(Into::into)),
            ("--temperature", "run.temperature", self.temperature.map(Into::into)),
            ("--seed", "run.seed", self.seed.map(Into::into)),
            ("--precision", "model.drafter_precision", self.precision.clone().map(Into::into)),
            ("--precision", "model.verifier_precision", self.precision.clone().map(Into::into)),
            ("--drafter", "model.drafter", self.drafter.as_ref().map(|path| text(path).into())),
            ("--verifier", "model.verifier", self.verifier.as_ref().map(|path| text(path).into())),
        ];
        if !self.fault.is_empty() {
            flags.push(("--fault", "faults.inject", Some(self.fault.clone().into())));
        }
        for (flag, key, value) in flags {
            if let Some(value) = value {
                scenario.set_flag(flag, key, value)?;
            }
        }
        for assignment in &self.set {
            scenario.set(assignment)?;
        }
        Ok(scenario)
    }
}
