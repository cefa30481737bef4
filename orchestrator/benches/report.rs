//! How long `report` takes on a run of ten million rounds, and how much memory.
//!
//! `cargo bench -p specfleet --bench report` (`-- 1000000` for another number of rounds). The run is made from a small
//! simulated one over the whole data set: its generations as further repetitions, later, until there are enough. So
//! texts, references, audits and batches are there as in a real run. The run is then compacted, as one that is kept is.
//! The report is made in a process of its own, whose peak memory Linux tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use specfleet::cores::cores;
use specfleet::opened::OpenedRuns;
use specfleet::progress::{Progress, Ui};
use specfleet::report_data::report;
use specfleet::simulate::{SimulateOptions, SimulationInput, simulate};
use specfleet_config::Scenario;
use specfleet_engine::record::{AuditRecord, GenerationRecord, RoundRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{RunReader, RunState, RunWriter};

const ROUNDS: u64 = 10_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--of") {
        measure(Path::new(&arguments[at + 1]));
        return;
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let place = std::env::temp_dir().join(format!("specfleet-bench-report-{}", std::process::id()));
    fs::create_dir_all(&place).expect("a temporary folder");
    let began = Instant::now();
    let folder = build(&place, rounds);
    println!("built in {:.1} s", began.elapsed().as_secs_f64());
    let this = std::env::current_exe().expect("this program");
    let status = Command::new(this).arg("--of").arg(&folder).status().expect("it runs again");
    fs::remove_dir_all(&place).expect("the bench's own folder");
    assert!(status.success());
}

/// The report, its time, and the most memory this process ever had.
fn measure(folder: &Path) {
    let began = Instant::now();
    let report = report(&OpenedRuns::default(), folder, cores()).expect("a report");
    let seconds = began.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("unknown", str::trim);
    println!(
        "{} rounds, {} generations, {} methods: {seconds:.2} s on {} threads, peak memory {peak}, {:?}, {}",
        report.run.rounds,
        report.counts.generations,
        report.methods.len(),
        cores(),
        report.validity.state,
        report.quantiles
    );
    report.validity.problems.iter().for_each(|problem| println!("{problem}"));
}

/// A run of at least so many rounds.
fn build(place: &Path, rounds: u64) -> PathBuf {
    let (small, prompts) = seed(&place.join("small"));
    let reader = RunReader::open(&small).expect("the small run");
    let rows: Vec<(GenerationRecord, Vec<RoundRecord>)> = reader
        .generations()
        .map(|record| {
            let record = record.expect("a row");
            let rounds = reader.rounds(record.id).expect("rows");
            (record, rounds)
        })
        .collect();
    let audits: Vec<AuditRecord> = reader.audits().map(|audit| audit.expect("a row")).collect();
    let batches: Vec<_> = reader.batches().map(|batch| batch.expect("a row")).collect();
    let verifiers: Vec<_> = reader.verifiers().map(|verifier| verifier.expect("a row")).collect();
    let per_copy: u64 = rows.iter().map(|(_, rounds)| rounds.len() as u64).sum();
    let copies = rounds.div_ceil(per_copy) as u32;
    let length = rows.iter().map(|(record, _)| record.ended).max().unwrap_or_default().since(Time::ZERO);

    let mut meta = reader.meta().clone();
    meta.run = "large".to_owned();
    let all = prompts.checked_mul(copies).expect("a run of a sane size");
    meta.scenario = meta.scenario.replace(&format!("prompts = {prompts}"), &format!("prompts = {all}"));
    let mut writer = RunWriter::create(&place.join("runs"), meta).expect("a new run");
    for copy in 0..copies {
        let by = Span(length.0.saturating_mul(u64::from(copy)));
        for (record, rounds) in &rows {
            let mut record = record.clone();
            record.id.repetition = copy as u16;
            for time in [&mut record.scheduled, &mut record.started, &mut record.ended] {
                *time = *time + by;
            }
            record.first_token = record.first_token.map(|time| time + by);
            let moved: Vec<RoundRecord> =
                rounds.iter().map(|round| RoundRecord { committed_at: round.committed_at + by, ..*round }).collect();
            writer.close_generation(record, &moved).expect("rows");
        }
        for audit in &audits {
            let mut audit = audit.clone();
            audit.id.repetition = copy as u16;
            writer.append_audit(audit).expect("rows");
        }
        for batch in &batches {
            let mut batch = *batch;
            batch.started = batch.started + by;
            writer.append_batch(batch).expect("rows");
        }
        writer.flush().expect("a disk");
    }
    for verifier in verifiers {
        writer.append_verifier(verifier, specfleet_engine::record::Provenance::Modelled).expect("rows");
    }
    let folder = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    specfleet_ledger::compact(&folder).expect("a compacted run");
    folder
}

/// The small run, and how many prompts it has.
fn seed(ledger: &Path) -> (PathBuf, u32) {
    let mut scenario = Scenario::shipped_default().expect("it ships");
    let prompts = scenario.settings().expect("a scenario").workload[0].data().len() as u32;
    for assignment in
        [&format!("run.prompts={prompts}"), "simulate.cost=fixed", "simulate.batch_ms=2", "simulate.host=false"]
    {
        scenario.set(assignment).expect("a key");
    }
    let mut settings = scenario.settings().expect("a scenario");
    let progress = Progress::new(Ui::None);
    let input = SimulationInput::open(&mut settings, None, ledger, &progress).expect("the embedded pair");
    let options = SimulateOptions {
        settings: &settings,
        scenario: scenario.to_toml(),
        ledger: Some(ledger),
        out: None,
        turn: 0,
        threads: cores(),
        progress: &progress,
        interrupted: specfleet_signals::flag(),
    };
    (simulate(&input, options).expect("a run").folder.expect("it is kept"), prompts)
}
