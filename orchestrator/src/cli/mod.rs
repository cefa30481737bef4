//! The command line: what can be asked, and who answers.

mod mistakes;

use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, Subcommand};
use specfleet_logs::{LogArgs, visible_name};

use crate::commands::{
    calibrate, capacity, check, compact, compare, completions, dashboard, export, frontier, import, man, query, report,
    rescue, rm, run, runs, score, simulate, sweep, tag, verify,
};
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::{room, wall_clock};

/// Fleets of devices that draft with a small model and ask a shared pool of large ones.
#[derive(Parser)]
#[command(
    name = "specfleet",
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  specfleet\n  specfleet simulate paper --devices 8\n  specfleet report latest\n\n\
                  A flag that is left out leaves the value of the scenario; config/README.md lists the keys with their defaults."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::LiveArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario live: the default one, a shipped one by name, or a file (this is also what no command does)
    #[command(
        after_help = "Examples:\n  specfleet run\n  specfleet run paper --methods hlm,ui-hlm --prompts 20\n  specfleet run --devices 4 --set device.link=poor --out results"
    )]
    Run(Box<run::LiveArgs>),
    /// Run a scenario in virtual time: the same methods, records and figures, deterministic, without waiting
    #[command(
        after_help = "Examples:\n  specfleet simulate --devices 8 --prompts 16\n  specfleet simulate --against latest"
    )]
    Simulate(Box<simulate::SimulateArgs>),
    /// Fit batch costs, host overheads, risk line and distributions on a live run, into one calibration file
    #[command(after_help = "Example:\n  specfleet calibrate latest --out calibration.json")]
    Calibrate(calibrate::CalibrateArgs),
    /// Score the texts of a stored run: BERTScore with an encoder from a folder, agreement with llm-only, perplexity
    #[command(after_help = "Example:\n  specfleet score latest --perplexity")]
    Score(Box<score::ScoreArgs>),
    /// Find the largest fleet that holds latency and accuracy targets, by simulation
    #[command(
        after_help = "Example:\n  specfleet capacity street --slo 'inter_token_p95<250ms' --methods ui-hlm --budget 60s"
    )]
    Capacity(Box<capacity::CapacityArgs>),
    /// Simulate every combination of a few varied keys: a table, a CSV and the Pareto front
    #[command(after_help = "Example:\n  specfleet sweep --vary run.devices=4,8,16 --methods ui-hlm --csv sweep.csv")]
    Sweep(Box<sweep::SweepArgs>),
    /// List the runs in the ledger, all or those of a state, a method, a tag, a kind, a time or a scenario
    #[command(after_help = "Examples:\n  specfleet runs\n  specfleet runs --state completed --method ui-hlm")]
    Runs(runs::RunsArgs),
    /// Delete runs that have ended
    #[command(after_help = "Example:\n  specfleet rm latest")]
    Rm(rm::RmArgs),
    /// Put words on a run to find it again, or take them off
    #[command(after_help = "Example:\n  specfleet tag latest baseline")]
    Tag(tag::TagArgs),
    /// Rewrite runs into fresh stores: the same rows in fewer bytes
    #[command(after_help = "Example:\n  specfleet compact latest")]
    Compact(compact::CompactArgs),
    /// Check every chunk of runs, and whether their books close
    #[command(after_help = "Example:\n  specfleet verify latest")]
    Verify(verify::VerifyArgs),
    /// Save what is whole of a damaged run into a new one
    #[command(after_help = "Example:\n  specfleet rescue latest --to rescued")]
    Rescue(rescue::RescueArgs),
    /// Write a run for other tools: Parquet, CSV, JSON lines, or a Chrome trace
    #[command(after_help = "Example:\n  specfleet export latest --out exported")]
    Export(export::ExportArgs),
    /// Take a run into the ledger that was exported elsewhere
    #[command(after_help = "Example:\n  specfleet import exported")]
    Import(import::ImportArgs),
    /// Show the runs of a ledger in a browser: what is running now, reports, comparisons
    #[command(after_help = "Example:\n  specfleet dashboard --listen 127.0.0.1:8080")]
    Dashboard(dashboard::DashboardArgs),
    /// What stored runs say: tables, energy by part, the filter's damage
    #[command(after_help = "Example:\n  specfleet report latest")]
    Report(report::ReportArgs),
    /// Two stored runs against each other, paired by prompt: differences, effects, significance
    #[command(after_help = "Example:\n  specfleet compare run-a run-b")]
    Compare(compare::CompareArgs),
    /// Ask stored runs for figures, grouped and filtered
    #[command(after_help = "Example:\n  specfleet query latest --group-by method --metric ttft,energy_per_token")]
    Query(query::QueryArgs),
    /// Decide the thresholds of a stored run again, without running anything
    #[command(after_help = "Example:\n  specfleet frontier latest --method ui-hlm")]
    Frontier(frontier::FrontierArgs),
    /// Check a scenario without running it
    #[command(after_help = "Example:\n  specfleet check paper")]
    Check(check::CheckArgs),
    /// Print completions for a shell, to be put where it looks for them
    #[command(after_help = "Example:\n  specfleet completions bash")]
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write one page per command into a folder
    #[command(after_help = "Examples:\n  specfleet man\n  specfleet man pages")]
    Man(man::ManArgs),
}

/// The whole program.
pub fn program() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no mistakes.
        Err(asked) if !asked.use_stderr() => return specfleet_logs::print_help("specfleet", &asked),
        Err(mistake) => {
            specfleet_logs::say!("specfleet: {}", mistakes::one_line(&mistake));
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
    let outcome = carry_out(&cli, &opened);
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

fn carry_out(cli: &Cli, opened: &OpenedRuns) -> anyhow::Result<ExitCode> {
    match &cli.command {
        None => {
            if let Some(word) = cli.run.scenario().filter(|word| mistakes::is_nothing(word)) {
                return Err(mistakes::unknown_word(word).into());
            }
            run::run(&cli.run)
        }
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Simulate(args)) => simulate::run(args),
        Some(Command::Calibrate(args)) => calibrate::run(args),
        Some(Command::Score(args)) => score::run(args, opened),
        Some(Command::Capacity(args)) => capacity::run(args),
        Some(Command::Sweep(args)) => sweep::run(args),
        Some(Command::Runs(args)) => runs::run(args),
        Some(Command::Rm(args)) => rm::run(args),
        Some(Command::Tag(args)) => tag::run(args),
        Some(Command::Compact(args)) => compact::run(args),
        Some(Command::Verify(args)) => verify::run(args),
        Some(Command::Rescue(args)) => rescue::run(args),
        Some(Command::Export(args)) => export::run(args, opened),
        Some(Command::Import(args)) => import::run(args),
        Some(Command::Dashboard(args)) => dashboard::run(args),
        Some(Command::Report(args)) => report::run(args, opened),
        Some(Command::Compare(args)) => compare::run(args, opened),
        Some(Command::Query(args)) => query::run(args, opened),
        Some(Command::Frontier(args)) => frontier::run(args, opened),
        Some(Command::Check(args)) => check::run(args),
        Some(Command::Completions(args)) => completions::run(args),
        Some(Command::Man(args)) => man::run(args),
    }
}
