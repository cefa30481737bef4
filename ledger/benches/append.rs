//! How fast one writer appends rounds, how fast they are read, how many bytes a round takes, and how long a listing of
//! 10,000 runs takes.
//!
//! `cargo bench -p specfleet-ledger`. Sixteen devices write generations of 96 rounds side by side in pieces of 8; a flush
//! follows each second, as in a run. Rows of three kinds: nothing uploaded, 40 of 100 tokens, all.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use specfleet_engine::id::DeviceId;
use specfleet_engine::record::RoundRecord;
use specfleet_ledger::{RunReader, RunState, RunWriter, Table, list};

const ROUNDS_PER_GENERATION: u32 = 96;
const PIECE: usize = 8;
const DEVICES: u32 = 16;
const TOTAL: u64 = 2_000_000;

fn main() {
    println!("{:>9} {:>12} {:>12} {:>12} {:>12}", "uploaded", "append/s", "read/s", "chunk B", "disk B");
    for uploaded in [0, 40, 100] {
        let ledger = std::env::temp_dir().join(format!("specfleet-bench-{}-{uploaded}", std::process::id()));
        measure(&ledger, uploaded);
        fs::remove_dir_all(&ledger).expect("the bench's own folder");
    }
    listing();
}

/// Ten thousand finished runs, from their plain files.
fn listing() {
    let ledger = std::env::temp_dir().join(format!("specfleet-bench-{}-list", std::process::id()));
    let mut meta = meta("0");
    meta.state = RunState::Completed;
    meta.scenario = "key = \"a scenario's text\"\n".repeat(80);
    for run in 0..10_000 {
        meta.run = run.to_string();
        let run_dir = ledger.join(&meta.run);
        fs::create_dir_all(&run_dir).expect("a folder");
        fs::write(run_dir.join("meta.json"), serde_json::to_vec_pretty(&meta).expect("JSON")).expect("a file");
        fs::write(run_dir.join("progress.json"), "{\"generations\": 5}").expect("a file");
    }
    let start = Instant::now();
    let listed = list(&ledger).expect("a listing").len();
    println!("{listed} runs listed in {:.2} s", start.elapsed().as_secs_f64());
    fs::remove_dir_all(&ledger).expect("the bench's own folder");
}

fn measure(ledger: &Path, uploaded: u64) {
    let mut noise = Noise(uploaded);
    let templates: Vec<Vec<RoundRecord>> =
        (0..256).map(|_| plausible_rounds(&mut noise, ROUNDS_PER_GENERATION, uploaded)).collect();
    let mut writer = RunWriter::create(ledger, meta("bench")).expect("a new run");
    let run_dir = writer.run_dir().to_path_buf();

    let start = Instant::now();
    let mut flushed = start;
    let mut prompt = 0;
    while writer.progress().rounds < TOTAL {
        let generations: Vec<_> = (0..DEVICES)
            .map(|device| (id(0, prompt + device), DeviceId(device), &templates[((prompt + device) % 256) as usize]))
            .collect();
        prompt += DEVICES;
        for at in (0..ROUNDS_PER_GENERATION as usize).step_by(PIECE) {
            for (id, device, rounds) in &generations {
                writer.append_rounds(*id, *device, &rounds[at..at + PIECE]).expect("rounds");
            }
        }
        for (id, device, rounds) in generations {
            writer.close_generation(plausible_generation(id, device, rounds), &[]).expect("a closing");
        }
        if flushed.elapsed() > Duration::from_secs(1) {
            writer.flush().expect("a flush");
            flushed = Instant::now();
        }
    }
    let rounds = writer.progress().rounds as f64;
    writer.finish(RunState::Completed).expect("an end");
    let append = rounds / start.elapsed().as_secs_f64();
    let disk = size(&run_dir.join("store")) as f64 / rounds;

    let start = Instant::now();
    let reader = RunReader::open(&run_dir).expect("the run");
    let read: usize = reader.closed_rounds().map(|generation| generation.expect("rounds").rounds.len()).sum();
    assert_eq!(read as f64, rounds);
    let reading = rounds / start.elapsed().as_secs_f64();
    let tables = [Table::Rounds, Table::Pieces].map(|table| reader.chunk_bytes(table).expect("sizes"));
    let chunk = tables.iter().sum::<u64>() as f64 / rounds;
    println!("{uploaded:>7} % {append:>12.0} {reading:>12.0} {chunk:>12.1} {disk:>12.1}");
}

/// Bytes of all files below `path`.
fn size(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let meta = entry.metadata().expect("its size");
            if meta.is_dir() { size(&entry.path()) } else { meta.len() }
        })
        .sum()
}
