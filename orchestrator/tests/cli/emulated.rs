//! A fleet and a pool that live by declared times: whatever the host does, a live run over QUIC is its simulation. One whose
//! times follow the host is not, but it leaves out for how long the whole process stood still.

use std::collections::BTreeSet;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use specfleet_engine::disturbance::Cause;
use specfleet_engine::id::PhaseId;
use specfleet_engine::record::{BETWEEN_METHODS, RunClock, UploadCost};
use specfleet_engine::time::{Span, Time};

use crate::common::*;
use crate::rows::Rows;

/// Processes that never rest, one for each core.
struct Load(Vec<Child>);

impl Load {
    fn start() -> Load {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell");
        Load((0..cores).map(busy).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Every generation, token and batch, with times that count from the beginning of its phase. What is left out is about the
/// host: how late it was, what it measured, and how many bytes a varying length took.
fn relative(rows: &Rows) -> Vec<String> {
    let start = |phase: PhaseId| {
        let of_phase = rows.generations.iter().filter(|(record, _)| record.id.phase() == phase);
        of_phase.map(|(record, _)| record.scheduled).min().expect("a generation")
    };
    let since = |phase: PhaseId, at: Time| Time::ZERO + at.since(start(phase));
    let mut lines = Vec::new();
    for (record, rounds) in &rows.generations {
        let phase = record.id.phase();
        let mut record = record.clone();
        for at in [&mut record.scheduled, &mut record.started, &mut record.ended] {
            *at = since(phase, *at);
        }
        record.first_token = record.first_token.map(|at| since(phase, at));
        record.times.waiting_overrun = Span::ZERO;
        lines.push(format!("{record:?}"));
        for round in rounds {
            let mut round = *round;
            round.committed_at = since(phase, round.committed_at);
            round.upload = round.upload.map(|cost| UploadCost { uplink_bytes: 0, downlink_bytes: 0, ..cost });
            lines.push(format!("{:?} {round:?}", record.id));
        }
    }
    for batch in rows.batches.iter().filter(|batch| batch.method != BETWEEN_METHODS) {
        let mut batch = *batch;
        let phase = PhaseId { method: batch.method, pass: batch.pass };
        batch.started = since(phase, batch.started);
        (batch.batch, batch.measured, batch.overrun, batch.measured_nanojoules) = (0, Span::ZERO, Span::ZERO, 0);
        // The time model goes on learning over the phases, and audits are in it live.
        (batch.estimate, batch.price) = (Span::ZERO, 0.0);
        lines.push(format!("{batch:?}"));
    }
    lines.sort_unstable();
    lines
}

/// For how long a run is stopped.
const STOPPED: Duration = Duration::from_secs(6);

/// What comes of a run that stands still as soon as it has stored a generation, and how long it took in all.
fn stopped_for_a_while(place: &Place, run: &mut Command) -> (Output, Duration) {
    let began = Instant::now();
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    };
    place.wait_for_running(1);
    signal("-STOP");
    std::thread::sleep(STOPPED);
    signal("-CONT");
    (child.wait_with_output().expect("it ends"), began.elapsed())
}

#[test]
fn a_live_run_is_its_simulation_whatever_the_host_does() {
    let place = Place::new();
    let arguments = ["--methods", "all", "--devices", "5", "--prompts", "10", "--max-new-tokens", "24"];
    let run = |command: &str, out: &str| {
        let output =
            place.command(&[command, "--ledger", "runs", "--out", out, "--ui", "none"]).args(arguments).output();
        let output = output.expect("the binary runs");
        assert!(output.status.success(), "{}", said(&output));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains("no figure follows what else the host does"), "{printed}");
        assert!(!printed.contains("within this run"), "{printed}");
        let rows = place.rows_of(out);
        assert_eq!((rows.meta.clock, rows.meta.accounting), (RunClock::Emulated, 3));
        let late = rows.meta.disturbance.map_or(0, |disturbance| disturbance.late_arrivals);
        assert_eq!(late, 0, "the pool waits for who is late");
        relative(&rows)
    };
    let live = run("run", "live");
    let load = Load::start();
    let loaded = run("run", "loaded");
    drop(load);
    // For longer than a silent connection is kept by default.
    let mut command = place.command(&["run", "--ledger", "runs", "--out", "stopped", "--ui", "none"]);
    let (output, _) = stopped_for_a_while(&place, command.args(arguments));
    assert!(output.status.success(), "{}", said(&output));
    let stopped = place.rows_of("stopped");
    assert_eq!(stopped.meta.standstills, [], "it is in no time of this run");
    assert!(stopped.meta.noise().iter().any(|noise| noise.cause == Cause::Stalls), "{:?}", stopped.meta.disturbance);
    let stopped = relative(&stopped);
    let simulated = run("simulate", "simulated");
    let only_in = |a: &[String], b: &[String]| -> Vec<String> {
        let other: BTreeSet<&String> = b.iter().collect();
        a.iter().filter(|line| !other.contains(line)).take(3).cloned().collect()
    };
    for (name, other) in
        [("the loaded run", &loaded), ("the run that stood still", &stopped), ("the simulation", &simulated)]
    {
        assert_eq!(only_in(&live, other), [""; 0], "not in {name}");
        assert_eq!(only_in(other, &live), [""; 0], "only in {name}");
        assert_eq!(live.len(), other.len(), "{name}");
    }
}

#[test]
fn a_run_on_the_hosts_clock_charges_nobody_for_a_standstill() {
    let place = Place::new();
    // Declared devices before a pool that charges what it measures; and a run in which nothing is declared.
    let kinds: [(&str, Vec<&str>); 2] =
        [("declared", [&QUICK[..], &["--ui", "none"]].concat()), ("host", FAST.to_vec())];
    for (out, kind) in kinds {
        let mut command = place.command(&["run", "--ledger", "runs", "--out", out, "--set", "pool.cost=measured"]);
        command.args(kind).args(["--methods", "hlm,llm-only", "--devices", "5", "--prompts", "300"]);
        let (output, took) = stopped_for_a_while(&place, command.args(["--max-new-tokens", "24"]));
        let text = said(&output);
        assert!(output.status.success(), "as other runs that are invalid: {text}");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("INVALID: the process stood still for 6."), "{text}");
        assert!(printed.contains(" s while hlm ran; that time is charged to no method"), "{text}");
        assert!(!printed.contains("while llm-only ran"), "{text}");
        let report = place.command(&["report", "--ledger", "runs", "--json", &place.name_of(out)]).output();
        let report: serde_json::Value = serde_json::from_slice(&report.expect("it runs").stdout).expect("JSON");
        for said in [&report["validity"], &Results::read(&place.path(out)).summary] {
            assert_eq!(said["state"], "INVALID", "{said}");
            let problems = said["problems"].as_array().expect("a list");
            assert!(problems.len() == 1 && printed.contains(problems[0].as_str().expect("words")), "{problems:?}");
        }

        // Nothing that is recorded has it in.
        let rows = place.rows_of(out);
        let phase = |method| PhaseId { method, pass: 0 };
        let standstills: Vec<_> = rows.meta.standstills.iter().map(|stood| (stood.phase, stood.length)).collect();
        assert!(matches!(standstills[..], [(Some(first), length)] if first == phase(0) && length >= SHORTER));
        let disturbance = rows.meta.disturbance.expect("of a live run");
        assert!(disturbance.stalled < SHORTER, "that is said already: {disturbance:?}");
        let lasted = |method| {
            let of_phase = || rows.generations.iter().map(|(record, _)| record).filter(|row| row.id.method == method);
            let from = of_phase().map(|row| row.scheduled).min().expect("a generation");
            of_phase().map(|row| row.ended).max().expect("a generation").since(from)
        };
        let took = Span::from_seconds(took.as_secs_f64());
        assert!(lasted(0) + lasted(1) + SHORTER < took, "{:?} and {:?} of {took:?}", lasted(0), lasted(1));
        for row in rows.verifiers.iter().filter(|row| row.method == 0) {
            assert!(row.busy + row.idle + row.off + SHORTER < took, "{row:?} of {took:?}");
        }
        for (record, _) in &rows.generations {
            assert!(record.ended.since(record.started) < SHORTER, "{record:?}");
            // A declared device draws 0.4 W while it waits, a verifier 35 W for its five sequences at most.
            let (device, cloud) = (record.energy.device as f64 * 1e-9, record.energy.cloud as f64 * 1e-9);
            assert!((out == "host" || device < 0.4 * 6.0) && cloud < 35.0 * 6.0 / 5.0, "{record:?}");
        }
        for batch in &rows.batches {
            assert!(batch.compute.max(batch.measured) < SHORTER, "{batch:?}");
        }
    }
}

/// Less than the run was stopped, and far more than a generation or a batch takes.
const SHORTER: Span = Span::from_millis(5_000);
