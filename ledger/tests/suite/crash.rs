//! A writer that dies: at most what came after the last flush is gone, and nothing is there half.
//!
//! The test runs itself as a child process (told apart by an environment variable) that writes until it dies.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::*;
use specfleet_engine::id::DeviceId;
use specfleet_ledger::{LedgerError, ListedState, RunReader, RunState, RunWriter, list};
use tempfile::tempdir;

const LEDGER: &str = "SPECFLEET_TEST_CRASH_LEDGER";
const DEATH: &str = "SPECFLEET_TEST_CRASH_DEATH";

/// Rounds of a generation: enough that commits fall into the middle of most.
const ROUNDS: u32 = 700;

/// The child: eight generations side by side, flushed now and then, each flush told to the parent.
fn write_until_death(ledger: &Path, death: &str) {
    let mut writer = RunWriter::create(ledger, meta("victim")).expect("a new run");
    let mut noise = Noise(9);
    for wave in 0.. {
        let ids: Vec<_> = (0..8).map(|i| id(1, wave * 8 + i)).collect();
        let rounds: Vec<_> = ids.iter().map(|_| plausible_rounds(&mut noise, ROUNDS, 40)).collect();
        for start in (0..ROUNDS as usize - 100).step_by(100) {
            for (id, rounds) in ids.iter().zip(&rounds) {
                writer.append_rounds(*id, DeviceId(1), &rounds[start..start + 100]).expect("rounds");
            }
        }
        for (id, rounds) in ids.iter().zip(&rounds) {
            let record = plausible_generation(*id, DeviceId(1), rounds);
            writer.close_generation(record, &rounds[ROUNDS as usize - 100..]).expect("a closing");
        }
        if wave % 3 == 2 {
            writer.flush().expect("a flush");
            println!("flushed {}", writer.progress().generations);
        }
        if death == "abort" && wave == 13 {
            std::process::abort();
        }
    }
}

fn die(death: &str, kill_after_flushes: usize) {
    let dir = tempdir().expect("a temporary folder");
    let mut child = Command::new(std::env::current_exe().expect("this test's binary"))
        .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
        .env(LEDGER, dir.path())
        .env(DEATH, death)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let mut flushed = 0;
    let mut flushes = 0;
    for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
        let Some(count) = line.expect("a line").trim().rsplit_once("flushed ").map(|(_, count)| count.parse::<u64>())
        else {
            continue;
        };
        flushed = count.expect("a number");
        flushes += 1;
        // One that aborts may be gone before it is asked for.
        if flushes == 1 && death != "abort" {
            // While it lives it is running, and nobody reads its rows.
            assert_eq!(list(dir.path()).expect("a listing")[0].state, ListedState::Running);
            let open = RunReader::open(&dir.path().join("victim"));
            assert!(matches!(open, Err(LedgerError::StillRunning(_))));
        }
        if flushes == kill_after_flushes {
            child.kill().expect("SIGKILL");
        }
    }
    assert!(!child.wait().expect("its end").success());
    assert!(flushed > 0);

    let listed = list(dir.path()).expect("a listing").remove(0);
    assert_eq!(listed.state, ListedState::Interrupted);
    assert!(listed.progress.generations >= flushed);

    // A new run in the same folder is not disturbed by the dead one.
    let next = RunWriter::create(dir.path(), meta("next")).expect("a new run");
    next.finish(RunState::Completed).expect("an end");

    let reader = RunReader::open(&dir.path().join("victim")).expect("the victim's rows");
    assert_eq!(reader.meta().state, RunState::Interrupted);
    assert!(reader.damaged().is_empty());
    let generations: Vec<_> = reader.generations().collect::<Result<_, _>>().expect("generations");
    assert!(generations.len() as u64 >= listed.progress.generations, "a flush said that they were stored");
    assert_eq!(reader.energy().count(), 4 * generations.len());
    let rounds: Vec<_> =
        reader.closed_rounds().collect::<Result<_, _>>().expect("every closed generation has its rounds");
    assert_eq!(rounds.len(), generations.len());
    for generation in rounds {
        let record = generations.iter().find(|record| record.id == generation.id).expect("its record");
        let tokens: Vec<u32> = generation.rounds.iter().map(|round| round.token).collect();
        assert_eq!(tokens, record.tokens);
        assert!(generation.rounds.iter().map(|round| round.position).eq(0..ROUNDS));
    }
}

#[test]
fn child() {
    if let (Some(ledger), Ok(death)) = (std::env::var_os(LEDGER), std::env::var(DEATH)) {
        write_until_death(Path::new(&ledger), &death);
    }
}

#[test]
fn kill_in_the_middle_of_writing() {
    die("kill", 5);
}

#[test]
fn abort_between_flushes() {
    die("abort", usize::MAX);
}

#[test]
fn a_dropped_writer_leaves_an_interrupted_run() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    let rounds = plausible_rounds(&mut Noise(1), 20, 40);
    writer.close_generation(plausible_generation(id(0, 0), DeviceId(0), &rounds), &rounds).expect("a closing");
    writer.append_rounds(id(0, 1), DeviceId(0), &rounds).expect("rounds");
    writer.flush().expect("a flush");
    writer.append_rounds(id(0, 2), DeviceId(0), &rounds).expect("rounds");
    drop(writer);
    let listed = list(dir.path()).expect("a listing").remove(0);
    assert_eq!((listed.state, listed.progress.generations, listed.progress.rounds), (ListedState::Interrupted, 1, 40));
    let reader = RunReader::open(&dir.path().join("r")).expect("the run");
    assert_eq!(reader.closed_generations(), 1);
    let open = reader.open_generations();
    assert_eq!((open.len(), open[0].id, open[0].rounds), (1, id(0, 1), 20));
}
