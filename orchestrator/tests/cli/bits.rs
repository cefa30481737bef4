//! Single flipped bits in the files of stored runs: no command prints another figure than of the whole run without saying so,
//! no command changes a byte of what it reads, and what is whole can be rescued.
//!
//! `SPECFLEET_FLIPS` sets the flips per ledger: 10 unless it says otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;

/// Flips per ledger.
fn flips() -> usize {
    std::env::var("SPECFLEET_FLIPS").map_or(10, |flips| flips.parse().expect("SPECFLEET_FLIPS is a number"))
}

/// Numbers that are the same in each run of a test (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// Every file below a folder, with its contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

/// Flips a bit of one of the files, all bits alike; which one it was.
fn flip_one(files: &BTreeMap<PathBuf, Vec<u8>>, numbers: &mut Numbers) -> (PathBuf, usize) {
    let total: usize = files.values().map(Vec::len).sum();
    let mut at = numbers.below(total);
    for (path, contents) in files {
        if at < contents.len() {
            let mut flipped = contents.clone();
            flipped[at] ^= 1 << numbers.below(8);
            fs::write(path, flipped).expect("a file");
            return (path.clone(), at);
        }
        at -= contents.len();
    }
    unreachable!("a byte of some file was chosen");
}

/// Whether a byte lies in a chunk of rows: between its first byte and its length, which its header says.
fn is_in_chunk(contents: &[u8], at: usize) -> bool {
    let before = at.saturating_sub(1 << 20);
    contents[before..=at].windows(4).rposition(|start| start == b"SFC\x04").is_some_and(|start| {
        let start = before + start;
        let len = contents
            .get(start + 21..start + 25)
            .map_or(0, |len| u32::from_le_bytes(len.try_into().expect("four bytes")));
        at < start + len as usize
    })
}

const SMALL: [&str; 6] = ["--devices", "4", "--max-new-tokens", "12", "--methods", "hlm,ui-hlm"];
const LARGE: [&str; 8] = ["--devices", "8", "--prompts", "160", "--max-new-tokens", "32", "--methods", "u-hlm,ui-hlm"];

/// Five runs with a store, each in a place of its own.
fn ledgers() -> Vec<(&'static str, Place, String)> {
    let simulated = |arguments: &[&str]| {
        let place = Place::new();
        place.quick("simulate", "a", &[&FIXED[..], arguments].concat());
        let run = place.name_of("a");
        (place, run)
    };
    let small = [&SMALL[..], &["--prompts", "6"]].concat();
    let (small_place, small_run) = simulated(&small);
    let (large_place, large_run) = simulated(&LARGE);
    let (compacted_place, compacted_run) = simulated(&LARGE);
    printed(&compacted_place, &["compact", &compacted_run]);
    let (imported_place, exported) = simulated(&small);
    printed(&imported_place, &["export", &exported, "--out", "exported", "--format", "parquet"]);
    printed(&imported_place, &["import", "exported", "--name", "imported"]);
    let interrupted_place = Place::new();
    let long = ["--devices", "8", "--prompts", "400", "--max-new-tokens", "32", "--methods", "hlm,ui-hlm"];
    let started = interrupted_place.start("run", &long);
    interrupted_place.wait_for_generations(24);
    started.kill();
    let interrupted_run = interrupted_place.runs()[0]["run"].as_str().expect("a name").to_owned();
    vec![
        ("small", small_place, small_run),
        ("large", large_place, large_run),
        ("compacted", compacted_place, compacted_run),
        ("imported", imported_place, "imported".to_owned()),
        ("interrupted", interrupted_place, interrupted_run),
    ]
}

/// What commands say of a run.
fn answers(place: &Place, run: &str) -> Vec<(String, Option<i32>, Vec<u8>, String)> {
    let commands: [&[&str]; 7] = [
        &["report", run, "--json"],
        &["query", run, "--metric", "rounds:sum", "--group-by", "method", "--format", "csv"],
        &["query", run, "--metric", "batch_energy:sum", "--format", "json"],
        &["frontier", run, "--json"],
        &["verify", run],
        &["runs", "--json"],
        &["compare", run, run, "--json"],
    ];
    let answer = |command: &&[&str]| {
        let output = call(place, command);
        (command.join(" "), output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    commands.iter().map(answer).collect()
}

#[test]
fn no_flipped_bit_changes_a_figure_in_silence_and_no_reader_changes_a_byte() {
    let mut numbers = Numbers(1);
    for (name, place, run) in ledgers() {
        let folder = place.path("runs").join(&run);
        let whole = files(&folder);
        let expected = answers(&place, &run);
        assert_eq!(files(&folder), whole, "{name}: reading changed a file");
        let mut said = 0;
        for _ in 0..flips() {
            let (flipped, at) = flip_one(&whole, &mut numbers);
            let before = files(&folder);
            for (found, expected) in answers(&place, &run).iter().zip(&expected) {
                let (command, code, stdout, stderr) = found;
                let place = format!("{name}, {command}, byte {at} of {}: {stderr}", flipped.display());
                assert!(!stderr.contains("panicked"), "{place}");
                // A listing reads no store, and what it says of a damaged file stands in its answer.
                let is_said = match command.starts_with("runs") {
                    true => String::from_utf8_lossy(stdout).contains("unreadable"),
                    false => *code != Some(0) && (!stderr.is_empty() || command.starts_with("verify")),
                };
                said += usize::from(is_said);
                let is_same = *code == expected.1 && *stdout == expected.2;
                assert!(is_said || is_same, "{place}");
            }
            assert_eq!(files(&folder), before, "{name}: reading changed a file");
            fs::write(&flipped, &whole[&flipped]).expect("a file");
        }
        assert!(said > 0, "{name}: nothing was ever said");
    }
}

#[test]
fn most_of_a_damaged_run_is_rescued() {
    let mut numbers = Numbers(2);
    for (name, place, run) in ledgers() {
        let folder = place.path("runs").join(&run);
        let whole = files(&folder);
        let store: BTreeMap<PathBuf, Vec<u8>> = whole
            .iter()
            .filter(|(path, _)| {
                path.ancestors()
                    .any(|folder| folder.file_name().is_some_and(|n| n.to_string_lossy().starts_with("store")))
            })
            .map(|(path, contents)| (path.clone(), contents.clone()))
            .collect();
        let mut shares = Vec::new();
        // Bits between the chunks are sled's.
        while shares.len() < flips() {
            let (flipped, at) = flip_one(&store, &mut numbers);
            if !is_in_chunk(&store[&flipped], at) {
                fs::write(&flipped, &store[&flipped]).expect("a file");
                continue;
            }
            let output = call(&place, &["rescue", &run, "--to", "saved"]);
            let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "{name}, byte {at} of {}: {}",
                flipped.display(),
                crate::common::said(&output)
            );
            let rows =
                stdout.lines().filter_map(|line| line.split_once(": ")?.1.strip_suffix(" rows")?.split_once(" of "));
            let sums = rows.fold((0.0, 0.0), |sums, (saved, said)| {
                let number = |text: &str| text.parse::<f64>().expect("a number");
                (sums.0 + number(saved), sums.1 + number(said))
            });
            shares.push(sums.0 / sums.1);
            let sound = call(&place, &["verify", "saved"]);
            assert!(sound.status.success(), "{name}: {}", crate::common::said(&sound));
            assert_eq!(files(&folder)[&flipped].len(), whole[&flipped].len());
            fs::write(&flipped, &whole[&flipped]).expect("a file");
            fs::remove_dir_all(place.path("runs").join("saved")).expect("the rescued run");
        }
        shares.sort_by(f64::total_cmp);
        let median = shares[shares.len() / 2];
        let costly = shares.iter().filter(|share| **share < 1.0).count();
        println!(
            "{name}: {} flips in chunks, {costly} cost rows; saved {median:.3} in the median, {:.3} at least",
            shares.len(),
            shares[0]
        );
        assert!(median >= 0.8, "{name}: {shares:?}");
    }
}

#[test]
fn a_flipped_bit_of_an_export_is_refused_by_the_name_of_its_file() {
    let mut numbers = Numbers(3);
    let place = Place::new();
    place.quick("simulate", "a", &[&FIXED[..], &LARGE].concat());
    let out = place.path("exported");
    printed(&place, &["export", &place.name_of("a"), "--out", "exported", "--format", "parquet"]);
    let whole = files(&out);
    for _ in 0..flips() {
        let (flipped, at) = flip_one(&whole, &mut numbers);
        let output = call(&place, &["import", "exported", "--name", "back"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = flipped.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{name}, byte {at}: {error}");
        assert!(error.contains(&name) && !place.path("runs/back").exists(), "{name}, byte {at}: {error}");
        fs::write(&flipped, &whole[&flipped]).expect("a file");
    }
    printed(&place, &["import", "exported", "--name", "back"]);
}

/// A store in the place of another run's, and a description of another run, are told from the right ones.
#[test]
fn swapped_stores_and_descriptions_are_seen() {
    let (first, second) = (["--prompts", "4"], ["--prompts", "5"]);
    let place = Place::new();
    for (out, prompts) in [("a", first), ("b", second)] {
        place.quick("simulate", out, &[&FIXED[..], &SMALL, &prompts].concat());
    }
    let [a, b] = ["a", "b"].map(|out| place.path("runs").join(place.name_of(out)));
    let swap = |left: &Path, right: &Path| {
        let aside = place.path("aside");
        fs::rename(left, &aside).expect("a name");
        fs::rename(right, left).expect("a name");
        fs::rename(&aside, right).expect("a name");
    };
    let damaged = |run: &Path| {
        let output = call(&place, &["report", &text(run), "--json"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(errors.lines().next().is_some_and(|line| line.contains("is damaged")), "{errors}");
        let verified = call(&place, &["verify", &text(run)]);
        assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    };
    let stores = [&a, &b].map(|run| crate::damage::store_of(run));
    swap(&stores[0], &stores[1]);
    damaged(&a);
    damaged(&b);
    swap(&stores[0], &stores[1]);
    let description = fs::read(b.join("meta.json")).expect("meta.json");
    let ours = fs::read(a.join("meta.json")).expect("meta.json");
    fs::write(a.join("meta.json"), description).expect("a file");
    damaged(&a);
    fs::write(a.join("meta.json"), ours).expect("a file");
    // Another name is no damage, and is said.
    let renamed = place.path("runs/renamed");
    fs::rename(&a, &renamed).expect("a name");
    let output = call(&place, &["report", "renamed", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let note = format!("note: the folder runs/renamed holds run {}", text(Path::new(a.file_name().expect("a name"))));
    assert!(String::from_utf8_lossy(&output.stderr).lines().any(|line| line == note), "{}", said(&output));
}
