//! How fast one writer appends rounds, how fast they are scanned, how many bytes a round takes before and after compacting,
//! and how long a listing of 10,000 runs takes.
//!
//! `cargo bench -p specfleet-ledger`; `SPECFLEET_BENCH_ROUNDS` sets the size of a run (2,000,000). Sixteen devices write
//! generations of 96 rounds side by side in pieces of 8; a flush follows each second, as in a run. Rows of three kinds:
//! nothing uploaded, 40 of 100 tokens (what `ui-hlm` does by default), all. Bytes are those of the store's files, with all
//! tables in them: a generation, its four rows of energy, and a batch for every second upload.

#[path = "../tests/suite/common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use specfleet_engine::id::DeviceId;
use specfleet_engine::record::{BatchRecord, RoundRecord};
use specfleet_ledger::{RoundColumn, RunReader, RunState, RunWriter, Table, compact, list};

const ROUNDS_PER_GENERATION: u32 = 96;
const PIECE: usize = 8;
const DEVICES: u32 = 16;
const TOTAL: u64 = 2_000_000;

/// What a report asks for.
const COLUMNS: [RoundColumn; 8] = [
    RoundColumn::Position,
    RoundColumn::Source,
    RoundColumn::Uncertainty,
    RoundColumn::CommittedAt,
    RoundColumn::Queue,
    RoundColumn::UplinkBytes,
    RoundColumn::Work,
    RoundColumn::CloudNanojoules,
];

fn main() {
    let total = std::env::var("SPECFLEET_BENCH_ROUNDS").map_or(TOTAL, |rounds| rounds.parse().expect("a number"));
    println!("{total} rounds; {} columns scanned", COLUMNS.len());
    println!(
        "{:>9} {:>12} {:>12} {:>12} {:>12} {:>9} {:>12} {:>12} {:>12}",
        "uploaded", "append/s", "scan/s 1", "scan/s 2", "rows/s", "B before", "compact/s", "B after", "rounds only"
    );
    for uploaded in [0, 40, 100] {
        let ledger = std::env::temp_dir().join(format!("specfleet-bench-{}-{uploaded}", std::process::id()));
        measure(&ledger, uploaded, total);
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

fn measure(ledger: &Path, uploaded: u64, total: u64) {
    let mut noise = Noise(uploaded);
    let templates: Vec<Vec<RoundRecord>> =
        (0..1024).map(|_| usual_rounds(&mut noise, ROUNDS_PER_GENERATION, uploaded)).collect();
    let batches: Vec<_> = (0..4096).map(|number| usual_batch(&mut noise, number)).collect();
    let mut writer = RunWriter::create(ledger, meta("bench")).expect("a new run");
    let run_dir = writer.run_dir().to_path_buf();

    let start = Instant::now();
    let mut flushed = start;
    let mut prompt = 0;
    while writer.progress().rounds < total {
        let generations: Vec<_> = (0..DEVICES)
            .map(|device| (id(0, prompt + device), DeviceId(device), &templates[((prompt + device) % 1024) as usize]))
            .collect();
        prompt += DEVICES;
        for at in (0..ROUNDS_PER_GENERATION as usize).step_by(PIECE) {
            for (id, device, rounds) in &generations {
                writer.append_rounds(*id, *device, &rounds[at..at + PIECE]).expect("rounds");
            }
        }
        for (id, device, rounds) in generations {
            let uploads = rounds.iter().filter(|round| round.upload.is_some()).count() as u64;
            writer.close_generation(plausible_generation(id, device, rounds), &[]).expect("a closing");
            for _ in 0..uploads / 2 {
                let number = writer.progress().batches;
                let batch = batches[(number % 4096) as usize];
                writer.append_batch(BatchRecord { batch: number, ..batch }).expect("a batch");
            }
        }
        if flushed.elapsed() > Duration::from_secs(1) {
            writer.flush().expect("a flush");
            flushed = Instant::now();
        }
    }
    let rounds = writer.progress().rounds as f64;
    writer.finish(RunState::Completed).expect("an end");
    let append = rounds / start.elapsed().as_secs_f64();
    let before = size(&run_dir.join("store")) as f64 / rounds;

    let start = Instant::now();
    compact(&run_dir).expect("a compaction");
    let compacted = rounds / start.elapsed().as_secs_f64();
    let after = size(&run_dir.join("store-2")) as f64 / rounds;

    let scan = |threads| {
        // Opened anew: what a report does.
        let start = Instant::now();
        let reader = RunReader::open(&run_dir).expect("the run");
        let (parts, damage) = reader.fold_rounds(
            &COLUMNS,
            threads,
            || (0, 0),
            |(rows, sum): &mut (u64, u64), chunk| {
                *rows += chunk.len() as u64;
                *sum += chunk.rows.cloud_nanojoules.iter().sum::<u64>();
            },
        );
        assert!(damage.is_empty());
        assert_eq!(parts.iter().map(|(rows, _)| rows).sum::<u64>() as f64, rounds);
        rounds / start.elapsed().as_secs_f64()
    };
    let (one, two) = (scan(1), scan(2));

    let start = Instant::now();
    let reader = RunReader::open(&run_dir).expect("the run");
    let read: usize = reader.closed_rounds().map(|generation| generation.expect("rounds").rounds.len()).sum();
    assert_eq!(read as f64, rounds);
    let reading = rounds / start.elapsed().as_secs_f64();
    let tables = [Table::Rounds, Table::Pieces].map(|table| reader.chunk_bytes(table).expect("sizes"));
    let only = tables.iter().sum::<u64>() as f64 / rounds;
    println!(
        "{uploaded:>7} % {append:>12.0} {one:>12.0} {two:>12.0} {reading:>12.0} {before:>9.1} {compacted:>12.0} \
         {after:>12.1} {only:>12.1}"
    );
    for table in Table::ALL {
        println!("{:>12} {:>6.2} B", table.name(), reader.chunk_bytes(table).expect("sizes") as f64 / rounds);
    }
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
