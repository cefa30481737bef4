//! A fleet and a pool that live by declared times: whatever the host does, a live run over QUIC is its simulation.

use std::collections::BTreeSet;
use std::process::{Child, Command};

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
    let stopped =
        place.command(&["run", "--ledger", "runs", "--out", "stopped", "--ui", "none"]).args(arguments).spawn();
    let mut stopped = stopped.expect("the binary runs");
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &stopped.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    };
    place.wait_for_running(1);
    signal("-STOP");
    std::thread::sleep(std::time::Duration::from_secs(6));
    signal("-CONT");
    assert!(stopped.wait().expect("it ends").success());
    let stopped = place.rows_of("stopped");
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
