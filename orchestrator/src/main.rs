//! The `specfleet` command.

mod commands;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use commands::{LEDGER, find, print};
use specfleet::cores::cores;
use specfleet::error::Error;
use specfleet::opened::OpenedRuns;
use specfleet::paired::Comparison;
use specfleet::point::Bench;
use specfleet::progress::{Progress, Ui};
use specfleet::run::{Finished, RunOptions};
use specfleet::simulate::{SimulateOptions, Source, simulate};
use specfleet::{against, budget, capacity, paired, refit, report, room, run, sweep, thresholds, wall_clock};
use specfleet_analysis::Summary;
use specfleet_config::{Check, ConfigError, Mode, Scenario, Threshold, Vary};
use specfleet_logs::{LogArgs, visible_name};

/// Fleets of devices that draft with a small model and ask a shared pool of large ones.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: LiveArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario live: the default one, a shipped one by name, or a file (this is also what no command does)
    Run(Box<LiveArgs>),
    /// Run a scenario in virtual time: the same methods, records and figures, deterministic, without waiting
    Simulate(Box<SimulateArgs>),
    /// Fit batch costs, host overheads, risk line and distributions on a live run, into one calibration file
    Calibrate {
        /// The run: its name in the ledger, or its folder
        run: PathBuf,
        /// The file to write
        #[arg(long, value_name = "FILE", default_value = "calibration.json")]
        out: PathBuf,
        /// Folder of all runs
        #[arg(long, value_name = "DIR", default_value = LEDGER)]
        ledger: PathBuf,
    },
    /// Score the texts of a stored run: BERTScore with an encoder from a folder, agreement with llm-only, perplexity
    Score(Box<commands::score::ScoreArgs>),
    /// Find the largest fleet that holds latency and accuracy targets, by simulation
    Capacity(Box<CapacityArgs>),
    /// Simulate every combination of a few varied keys: a table, a CSV and the Pareto front
    Sweep(Box<SweepArgs>),
    /// List the runs in the ledger, all or those of a state, a method, a tag, a kind, a time or a scenario
    Runs(commands::runs::RunsArgs),
    /// Delete runs that have ended
    Rm(commands::rm::RmArgs),
    /// Put words on a run to find it again, or take them off
    Tag(commands::tag::TagArgs),
    /// Rewrite runs into fresh stores: the same rows in fewer bytes
    Compact(commands::compact::CompactArgs),
    /// Check every chunk of runs, and whether their books close
    Verify(commands::verify::VerifyArgs),
    /// Save what is whole of a damaged run into a new one
    Rescue(commands::rescue::RescueArgs),
    /// Write a run for other tools: Parquet, CSV, JSON lines, or a Chrome trace
    Export(commands::export::ExportArgs),
    /// Take a run into the ledger that was exported elsewhere
    Import(commands::import::ImportArgs),
    /// Show the runs of a ledger in a browser: what is running now, reports, comparisons
    Dashboard(commands::dashboard::DashboardArgs),
    /// What stored runs say: tables, energy by part, the filter's damage
    Report(commands::report::ReportArgs),
    /// Two stored runs against each other, paired by prompt: differences, effects, significance
    Compare(commands::compare::CompareArgs),
    /// Ask stored runs for figures, grouped and filtered
    Query(commands::query::QueryArgs),
    /// Decide the thresholds of a stored run again, without running anything
    Frontier(commands::frontier::FrontierArgs),
    /// Check a scenario without running it
    Check {
        /// The scenario: a file, or the name of a shipped one
        scenario: PathBuf,
    },
}

/// What a live run can be told beyond what every run can.
#[derive(Args)]
struct LiveArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Passes over all methods with the same seed: figures get intervals over passes and prompts
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    repeat: Option<i64>,
    /// Passes before them that no figure counts
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    warmup: Option<i64>,
    #[command(flatten)]
    page: commands::dashboard::PageArgs,
    #[command(flatten)]
    metrics: commands::metrics::MetricsArgs,
}

#[derive(Args, Clone)]
struct RunArgs {
    /// The scenario: a file, or the name of a shipped one (default, paper)
    scenario: Option<PathBuf>,
    /// Devices of the fleet; for capacity the largest fleet that is tried
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
    /// Passes over all methods with this many seeds, from --seed on
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seeds: Option<i64>,
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

#[derive(Args)]
struct SimulateArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Repeat this live run and print how far the simulation is from it; several runs of one scenario count by their
    /// median
    #[arg(long, value_name = "RUN")]
    against: Vec<PathBuf>,
    /// With --against: how many simulations count by their median, each with lateness and batch times of its own; as many
    /// as live runs unless told otherwise
    #[arg(long, value_name = "N", requires = "against", value_parser = clap::value_parser!(u16).range(1..=1000))]
    turns: Option<u16>,
    /// Who answers: model, trace or fitted
    #[arg(long, value_name = "F")]
    fidelity: Option<String>,
    /// Threads; no result depends on them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Args)]
struct CapacityArgs {
    #[command(flatten)]
    run: RunArgs,
    /// A target, such as inter_token_p95<250ms; may be repeated
    #[arg(long, value_name = "TARGET", required = true)]
    slo: Vec<String>,
    /// Wall time after which the search ends with what it knows by then, such as 60s or 5min
    #[arg(long, value_name = "TIME", value_parser = budget::parse)]
    budget: Option<Duration>,
    /// Threads; no result depends on them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Args)]
struct SweepArgs {
    #[command(flatten)]
    run: RunArgs,
    /// A key and its values: key=from..to:count or key=a,b,c; may be repeated
    #[arg(long, value_name = "KEY=VALUES", required = true)]
    vary: Vec<String>,
    /// Write the rows here
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Threads; no result depends on them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

fn main() -> ExitCode {
    specfleet_files::room::on_own_stack(program).unwrap_or_else(|full| {
        specfleet_logs::say!("specfleet: {full}");
        ExitCode::FAILURE
    })
}

fn program() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no mistakes.
        Err(asked) if !asked.use_stderr() => return specfleet_logs::print_help("specfleet", &asked),
        Err(mistake) => {
            specfleet_logs::say!("specfleet: {}", one_line(&mistake));
            return ExitCode::from(2);
        }
    };
    if let Err(unfit) = room::check().and_then(|()| wall_clock::check(SystemTime::now())) {
        specfleet_logs::say!("specfleet: {unfit}");
        return ExitCode::from(unfit.exit_code());
    }
    specfleet_signals::listen();
    if let Err(mistake) = cli.log.start() {
        specfleet_logs::say!("specfleet: {mistake}");
        return ExitCode::from(2);
    }
    let opened = OpenedRuns::default();
    let outcome = match cli.command {
        None => run_command(&cli.run),
        Some(Command::Run(args)) => run_command(&args),
        Some(Command::Simulate(args)) => simulate_command(&args),
        Some(Command::Calibrate { run, out, ledger }) => calibrate_command(&run, &out, &ledger),
        Some(Command::Score(args)) => commands::score::run(&args, &opened),
        Some(Command::Capacity(args)) => capacity_command(&args),
        Some(Command::Sweep(args)) => sweep_command(&args),
        Some(Command::Runs(args)) => commands::runs::run(&args),
        Some(Command::Rm(args)) => commands::rm::run(&args),
        Some(Command::Tag(args)) => commands::tag::run(&args),
        Some(Command::Compact(args)) => commands::compact::run(&args),
        Some(Command::Verify(args)) => commands::verify::run(&args),
        Some(Command::Rescue(args)) => commands::rescue::run(&args),
        Some(Command::Export(args)) => commands::export::run(&args, &opened),
        Some(Command::Import(args)) => commands::import::run(&args),
        Some(Command::Dashboard(args)) => commands::dashboard::run(&args),
        Some(Command::Report(args)) => commands::report::run(&args, &opened),
        Some(Command::Compare(args)) => commands::compare::run(&args, &opened),
        Some(Command::Query(args)) => commands::query::run(&args, &opened),
        Some(Command::Frontier(args)) => commands::frontier::run(&args, &opened),
        Some(Command::Check { scenario }) => check_command(&scenario),
    };
    let damage = opened.damage_notes();
    damage.iter().for_each(|note| specfleet_logs::say!("specfleet: {note}"));
    match outcome {
        Ok(ExitCode::SUCCESS) if !damage.is_empty() => ExitCode::FAILURE,
        Ok(code) => code,
        Err(error) => {
            // Our own errors name their cause in their text.
            match error.downcast_ref::<Error>() {
                Some(ours) => specfleet_logs::say!("specfleet: {}", visible_name(&ours.to_string())),
                None => specfleet_logs::say!("specfleet: {}", visible_name(&format!("{error:#}"))),
            }
            let code = error.downcast_ref::<Error>().map_or(1, Error::exit_code);
            // What a damaged run lacks may be why it was refused.
            ExitCode::from(if code == 2 && !damage.is_empty() { 1 } else { code })
        }
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

fn run_command(LiveArgs { run: args, repeat, warmup, page, metrics }: &LiveArgs) -> anyhow::Result<ExitCode> {
    let mut scenario = args.scenario(Scenario::shipped_default).map_err(Error::from)?;
    for (flag, key, value) in [("--repeat", "run.repeat", repeat), ("--warmup", "run.warmup", warmup)] {
        if let Some(value) = value {
            scenario.set_flag(flag, key, *value).map_err(Error::from)?;
        }
    }
    scenario.refuse_in(Mode::Live).map_err(Error::from)?;
    let settings = scenario.settings().map_err(Error::from)?;
    thresholds::check_all(&settings)?;
    room::check_run(&settings)?;
    let checks = settings.thresholds.clone();
    let progress = Progress::new(if args.json { Ui::None } else { args.ui });
    let served = metrics.start(page.allowed_hosts())?;
    let options = RunOptions {
        settings,
        scenario: scenario.to_toml(),
        ledger: &args.ledger,
        out: args.out.as_deref(),
        progress: &progress,
        metrics: served.as_ref().map(|served| &served.registry),
    };
    let page = page.start(&args.ledger)?;
    let finished = actix::System::new().block_on(run::run(options));
    if let Some(page) = page {
        page.stop();
    }
    let printed = finish(args, &checks, &finished?);
    if let Some(served) = served {
        served.linger();
    }
    printed
}

/// Prints what a live run found and where it is stored.
fn finish(args: &RunArgs, checks: &[Threshold], finished: &Finished) -> anyhow::Result<ExitCode> {
    let Finished { summary, comparisons, folder, notes, aborted } = finished;
    show(args, summary, comparisons, notes)?;
    if !args.json {
        print(format!("run {} in {}", summary.run, folder.display()))?;
        if let Some(out) = &args.out {
            print(format!("generations.jsonl, summary.json, paired.json and run.json in {}", out.display()))?;
        }
    }
    verdict(args, checks, summary, aborted.as_deref())
}

/// The figures of a run.
fn show(args: &RunArgs, summary: &Summary, comparisons: &[Comparison], notes: &[String]) -> anyhow::Result<()> {
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
fn verdict(args: &RunArgs, checks: &[Threshold], summary: &Summary, aborted: Option<&str>) -> anyhow::Result<ExitCode> {
    let held = thresholds::evaluate(checks, summary);
    if !args.json {
        thresholds::lines(&held).into_iter().try_for_each(print)?;
        aborted.map_or(Ok(()), |check| print(format!("ended early: {check}")))?;
    }
    let missed = aborted.is_some() || held.iter().any(|held| !held.holds);
    Ok(if missed { ExitCode::from(MISSED) } else { ExitCode::SUCCESS })
}

fn simulate_command(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let SimulateArgs { run: args, against: live, turns, fidelity, threads } = args;
    let folders = live.iter().map(|run| find(&args.ledger, run)).collect::<Result<Vec<PathBuf>, _>>()?;
    against::check(&folders)?;
    let mut scenario = match folders.first() {
        Some(folder) if args.scenario.is_some() => {
            let file = args.scenario.as_deref().unwrap_or(folder);
            let why = format!("--against takes the scenario of the run; leave out {}", file.display());
            return Err(Error::Simulation(why).into());
        }
        Some(folder) => args.over(against::scenario_of(folder)?).map_err(Error::from)?,
        None => args.scenario(Scenario::shipped_default).map_err(Error::from)?,
    };
    if let Some(fidelity) = fidelity {
        scenario.set_flag("--fidelity", "simulate.fidelity", fidelity.as_str()).map_err(Error::from)?;
    }
    scenario.refuse_in(Mode::Simulate).map_err(Error::from)?;
    let mut settings = scenario.settings().map_err(Error::from)?;
    thresholds::check_all(&settings)?;
    let progress = Progress::new(if args.json { Ui::None } else { args.ui });
    let names: Vec<&str> = settings.methods.iter().map(|choice| choice.name.as_str()).collect();
    let recorded = folders.first().map(|folder| against::methods_of(folder, &names)).transpose()?.flatten();
    let source = Source::open(&mut settings, recorded.as_deref(), &args.ledger, &progress)?;
    progress.say(&report::headline(&settings));
    source.too_long.iter().for_each(|note| specfleet_logs::say!("note: {note}"));
    let kept = SimulateOptions {
        settings: &settings,
        scenario: scenario.to_toml(),
        ledger: Some(&args.ledger),
        out: args.out.as_deref(),
        turn: 0,
        threads: threads_of(*threads),
        progress: &progress,
        interrupted: specfleet_signals::flag(),
    };
    let simulated = simulate(&source, kept.clone())?;
    let mut notes = simulated.notes.clone();
    notes.push(format!(
        "{:.1} s of virtual time in {:.1} s: {:.0} simulated tokens/s, {:.0} events/s",
        simulated.virtual_seconds,
        simulated.wall_seconds,
        simulated.tokens as f64 / simulated.wall_seconds,
        simulated.events as f64 / simulated.wall_seconds,
    ));
    show(args, &simulated.summary, &simulated.comparisons, &notes)?;
    if !args.json {
        if !folders.is_empty() {
            let summaries = against::live_summaries(&folders)?;
            let mut repeated = vec![simulated.summary.clone()];
            for turn in 1..turns.unwrap_or(summaries.len() as u16) {
                let quiet = Progress::new(Ui::None);
                let again = SimulateOptions { ledger: None, out: None, turn, progress: &quiet, ..kept.clone() };
                repeated.push(simulate(&source, again)?.summary);
            }
            let rows = against::compare(&summaries, &repeated);
            print(against::table(&rows, summaries.len(), repeated.len()))?;
        }
        if let Some(folder) = &simulated.folder {
            print(format!("run {} in {}", simulated.summary.run, folder.display()))?;
        }
    }
    verdict(args, &settings.thresholds, &simulated.summary, simulated.aborted.as_deref())
}

fn calibrate_command(run: &Path, out: &Path, ledger: &Path) -> anyhow::Result<ExitCode> {
    let refit = refit::refit(&find(ledger, run)?, ledger, &|line| specfleet_logs::say!("{line}"))?;
    refit.lines.iter().try_for_each(print)?;
    let text = serde_json::to_string_pretty(&refit.calibration).context("writing the calibration")?;
    std::fs::write(out, text + "\n").map_err(|source| Error::Output { path: out.to_path_buf(), source })?;
    print(format!("calibration in {}; a scenario names it with calibration.file", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses what a command that keeps no run and ends none early has no use for.
fn figures_only(command: &str, args: &RunArgs) -> Result<(), Error> {
    let thresholds = |assignment: &&String| assignment.trim_start().starts_with("thresholds.");
    let unused = match (&args.out, args.set.iter().find(thresholds)) {
        (Some(_), _) => "--out".to_owned(),
        (None, Some(assignment)) => format!("--set {assignment}"),
        (None, None) => return Ok(()),
    };
    Err(Error::Simulation(format!(
        "{unused}: {command} has no use for it: it keeps no run and holds none to thresholds"
    )))
}

fn capacity_command(args: &CapacityArgs) -> anyhow::Result<ExitCode> {
    figures_only("capacity", &args.run)?;
    // --devices bounds the search; the load per device is that of the scenario.
    let scenario =
        RunArgs { devices: None, ..args.run.clone() }.scenario(Scenario::shipped_default).map_err(Error::from)?;
    let targets = args
        .slo
        .iter()
        .map(|text| text.parse::<Check>().map_err(|error| Error::Simulation(format!("--slo: {error}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let most = match args.run.devices {
        None => capacity::MOST_DEVICES,
        Some(most) => {
            u32::try_from(most).ok().filter(|most| (1..=capacity::MOST_DEVICES).contains(most)).ok_or_else(|| {
                let range = format!("must lie in 1 to {}, the largest fleet that is tried", capacity::MOST_DEVICES);
                Error::Simulation(format!("--devices = {most} is out of range: {range}"))
            })?
        }
    };
    let progress = Progress::new(if args.run.json { Ui::None } else { args.run.ui });
    let interrupted = specfleet_signals::flag();
    let stop = budget::flag(args.budget, interrupted);
    let bench = Bench { runs: &args.run.ledger, threads: threads_of(args.threads), interrupted: stop };
    let answers = capacity::capacity(&scenario, &targets, most, &bench, |line| progress.say(line))?;
    if args.run.json {
        print(serde_json::to_string_pretty(&answers.capacities).context("writing the answers")?)?;
    } else {
        answers.lines().into_iter().try_for_each(print)?;
    }
    if interrupted.load(Ordering::Relaxed) {
        return Err(Error::Interrupted(PathBuf::new()).into());
    }
    Ok(if answers.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sweep_command(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    figures_only("sweep", &args.run)?;
    let scenario = args.run.scenario(Scenario::shipped_default).map_err(Error::from)?;
    let varied = args
        .vary
        .iter()
        .map(|text| text.parse::<Vary>().map_err(|error| Error::Simulation(format!("--vary: {error}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let progress = Progress::new(if args.run.json { Ui::None } else { args.run.ui });
    let bench =
        Bench { runs: &args.run.ledger, threads: threads_of(args.threads), interrupted: specfleet_signals::flag() };
    let (swept, outcome) = sweep::sweep(&scenario, &varied, &bench, args.csv.as_deref(), |line| progress.say(line))?;
    if args.run.json {
        print(serde_json::to_string_pretty(&swept).context("writing the rows")?)?;
    } else if !swept.rows.is_empty() {
        print(sweep::table(&swept))?;
        swept.notes.iter().try_for_each(|note| print(format!("note: {note}")))?;
    }
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn threads_of(asked: Option<u16>) -> usize {
    asked.map_or_else(cores, usize::from)
}

fn check_command(scenario: &Path) -> anyhow::Result<ExitCode> {
    let scenario = Scenario::load(scenario).map_err(Error::from)?;
    let settings = scenario.settings().map_err(Error::from)?;
    thresholds::check_all(&settings)?;
    print(report::headline(&settings))?;
    print(format!("scenario {}", settings.scenario_hash()))?;
    Ok(ExitCode::SUCCESS)
}

impl RunArgs {
    /// The scenario with the flags on top; without a scenario the default one.
    fn scenario(&self, default: fn() -> Result<Scenario, ConfigError>) -> Result<Scenario, ConfigError> {
        self.over(match &self.scenario {
            Some(path) => Scenario::load(path)?,
            None => default()?,
        })
    }

    /// A scenario with the flags on top; flags are keys like any other and obey the same ranges.
    fn over(&self, mut scenario: Scenario) -> Result<Scenario, ConfigError> {
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
