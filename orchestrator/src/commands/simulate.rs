//! `specfleet simulate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use specfleet_config::Mode;

use super::run_args::{RunArgs, show, threads_of, verdict};
use super::{find, print};
use crate::error::Error;
use crate::progress::{Progress, Ui};
use crate::simulate::{SimulateOptions, SimulationInput, simulate};
use crate::{against, report, thresholds};

/// The flags of `specfleet simulate`.
#[derive(Args)]
pub(crate) struct SimulateArgs {
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

/// Runs it.
pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let SimulateArgs { run: args, against: live, turns, fidelity, threads } = args;
    let folders = live.iter().map(|run| find(&args.scenario.ledger, run)).collect::<Result<Vec<PathBuf>, _>>()?;
    against::check(&folders)?;
    let mut scenario = match folders.first() {
        Some(folder) if args.scenario.scenario.is_some() => {
            let file = args.scenario.scenario.as_deref().unwrap_or(folder);
            let why = format!("--against takes the scenario of the run; leave out {}", file.display());
            return Err(Error::Simulation(why).into());
        }
        Some(folder) => args.scenario.over(against::scenario_of(folder)?).map_err(Error::from)?,
        None => args.scenario.read().map_err(Error::from)?,
    };
    if let Some(fidelity) = fidelity {
        scenario.set_flag("--fidelity", "simulate.fidelity", fidelity.as_str()).map_err(Error::from)?;
    }
    scenario.refuse_in(Mode::Simulate).map_err(Error::from)?;
    let mut settings = scenario.settings().map_err(Error::from)?;
    thresholds::check_all(&settings)?;
    let progress = Progress::new(args.scenario.shown());
    let names: Vec<&str> = settings.methods.iter().map(|choice| choice.name.as_str()).collect();
    let recorded = folders.first().map(|folder| against::methods_of(folder, &names)).transpose()?.flatten();
    let input = SimulationInput::open(&mut settings, recorded.as_deref(), &args.scenario.ledger, &progress)?;
    progress.say(&report::headline(&settings));
    input.too_long.iter().for_each(|note| specfleet_logs::say!("note: {note}"));
    let kept = SimulateOptions {
        settings: &settings,
        scenario: scenario.to_toml(),
        ledger: Some(&args.scenario.ledger),
        out: args.out.as_deref(),
        turn: 0,
        threads: threads_of(*threads),
        progress: &progress,
        interrupted: specfleet_signals::flag(),
    };
    let simulated = simulate(&input, kept.clone())?;
    let mut notes = simulated.notes.clone();
    notes.push(format!(
        "{:.1} s of virtual time in {:.1} s: {:.0} simulated tokens/s, {:.0} events/s",
        simulated.virtual_seconds,
        simulated.wall_seconds,
        simulated.tokens as f64 / simulated.wall_seconds,
        simulated.events as f64 / simulated.wall_seconds,
    ));
    show(&args.scenario, &simulated.summary, &simulated.comparisons, &notes)?;
    if !args.scenario.json {
        if !folders.is_empty() {
            let summaries = against::live_summaries(&folders)?;
            let mut repeated = vec![simulated.summary.clone()];
            for turn in 1..turns.unwrap_or(summaries.len() as u16) {
                let quiet = Progress::new(Ui::None);
                let again = SimulateOptions { ledger: None, out: None, turn, progress: &quiet, ..kept.clone() };
                repeated.push(simulate(&input, again)?.summary);
            }
            let rows = against::compare(&summaries, &repeated);
            print(against::table(&rows, summaries.len(), repeated.len()))?;
        }
        if let Some(folder) = &simulated.folder {
            print(format!("run {} in {}", simulated.summary.run, folder.display()))?;
        }
    }
    verdict(&args.scenario, &settings.thresholds, &simulated.summary, simulated.aborted.as_deref())
}
