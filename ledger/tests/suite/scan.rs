//! Scans by columns give what reading row by row gives, whatever was asked for, on however many threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::*;
use proptest::prelude::*;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::RoundRecord;
use specfleet_ledger::{LedgerError, RoundChunk, RoundColumn, RoundRows, RunReader, RunState, RunWriter, Table};
use tempfile::tempdir;

/// Writes generations side by side, each in pieces of `piece` rounds; those after `closed` stay open.
fn written(ledger: &Path, generations: &[Vec<RoundRecord>], piece: usize, closed: usize) -> PathBuf {
    let mut writer = RunWriter::create(ledger, meta("r")).expect("a new run");
    let longest = generations.iter().map(Vec::len).max().unwrap_or(0);
    for start in (0..longest).step_by(piece) {
        for (number, rounds) in generations.iter().enumerate() {
            let rounds = rounds.get(start..(start + piece).min(rounds.len())).unwrap_or_default();
            writer.append_rounds(id(1, number as u32), DeviceId(number as u32), rounds).expect("rounds");
        }
        if start / piece % 3 == 2 {
            writer.flush().expect("a flush");
        }
    }
    for (number, rounds) in generations.iter().enumerate().take(closed) {
        let record = plausible_generation(id(1, number as u32), DeviceId(number as u32), &[]);
        assert!(record.tokens.len() <= rounds.len());
        writer.close_generation(record, &[]).expect("a closing");
    }
    let run_dir = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    run_dir
}

/// The rounds of each generation, put together from the pieces of a scan of all columns.
fn assembled(chunks: &[RoundChunk]) -> BTreeMap<GenerationId, Vec<RoundRecord>> {
    let mut found: BTreeMap<GenerationId, Vec<RoundRecord>> = BTreeMap::new();
    for chunk in chunks {
        let mut row = 0;
        for piece in &chunk.pieces {
            let rounds = found.entry(piece.id).or_default();
            assert_eq!((piece.first as usize, piece.range.start), (rounds.len(), row), "pieces follow each other");
            rounds.extend(piece.range.clone().map(|row| chunk.rows.record(row)));
            row = piece.range.end;
        }
        assert_eq!(chunk.len(), row);
    }
    found
}

/// `rows` with the columns that were not asked for emptied.
fn projected(rows: &RoundRows, columns: &[RoundColumn]) -> RoundRows {
    let mut kept = RoundRows::default();
    macro_rules! keep {
        ($($column:ident $field:ident),* $(,)?) => {
            $(if columns.contains(&RoundColumn::$column) {
                kept.$field.clone_from(&rows.$field);
            })*
        };
    }
    keep!(Position position, Token token, Draft draft, Rejections rejections, Source source, Reason reason);
    keep!(Uncertainty uncertainty, Importance importance, ImportanceThreshold importance_threshold);
    keep!(DraftProbability draft_probability, Price price, CommittedAt committed_at, Attempts attempts);
    keep!(UplinkBits uplink_bits, UplinkBytes uplink_bytes, DownlinkBytes downlink_bytes, SnrDb snr_db);
    keep!(Uplink uplink, Downlink downlink, Waiting waiting, Queue queue, Batch batch, Compute compute, Work work);
    keep!(CloudNanojoules cloud_nanojoules, CloudPaperNanojoules cloud_paper_nanojoules);
    // Which rows pay is said with the first cost that is asked for.
    if columns.iter().any(|column| *column >= RoundColumn::Attempts) {
        kept.pays.clone_from(&rows.pays);
    }
    kept
}

/// By their bits, because NaN equals nothing.
fn text(rows: &RoundRows) -> String {
    let floats = [
        &rows.uncertainty,
        &rows.importance,
        &rows.importance_threshold,
        &rows.draft_probability,
        &rows.price,
        &rows.snr_db,
    ];
    format!("{rows:?} {:?}", floats.map(|column| column.iter().map(|value| value.to_bits()).collect::<Vec<_>>()))
}

fn all<T>(items: impl Iterator<Item = Result<T, LedgerError>>) -> Vec<T> {
    items.collect::<Result<_, _>>().expect("no chunk is damaged")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn scans_equal_rows(
        generations in prop::collection::vec(prop::collection::vec(any_round(), 1..80), 1..20),
        piece in 1usize..40,
        open in 0usize..3,
        asked in prop::sample::subsequence(RoundColumn::ALL.to_vec(), 0..12),
        threads in 1usize..4,
    ) {
        let dir = tempdir().expect("a temporary folder");
        let closed = generations.len().saturating_sub(open);
        let run_dir = written(dir.path(), &generations, piece, closed);
        let reader = RunReader::open(&run_dir).expect("the run");
        let chunks = all(reader.scan_rounds(RoundColumn::ALL));
        let found = assembled(&chunks);
        prop_assert_eq!(found.len(), generations.len());
        for (id, rounds) in &found {
            prop_assert_eq!(bits(rounds), bits(&generations[id.prompt as usize]));
            prop_assert_eq!(bits(rounds), bits(&reader.rounds(*id).expect("its rounds")));
        }
        for piece in chunks.iter().flat_map(|chunk| &chunk.pieces) {
            prop_assert_eq!(piece.closed, (piece.id.prompt as usize) < closed);
            prop_assert_eq!(piece.device, DeviceId(piece.id.prompt));
        }

        // Fewer columns: the same values, and nothing else.
        let some = all(reader.scan_rounds(&asked));
        prop_assert_eq!(some.len(), chunks.len());
        for (some, whole) in some.iter().zip(&chunks) {
            prop_assert_eq!(&some.pieces, &whole.pieces);
            prop_assert_eq!(text(&some.rows), text(&projected(&whole.rows, &asked)));
        }

        // Folded: each chunk once, in order over the parts.
        let fold = |threads| {
            reader.fold_rounds(&asked, threads, Vec::new, |seen: &mut Vec<String>, chunk| {
                seen.push(format!("{:?} {}", chunk.pieces, text(&chunk.rows)));
            })
        };
        let (parts, damage) = fold(threads);
        prop_assert!(damage.is_empty());
        let expected: Vec<String> = some.iter().map(|chunk| format!("{:?} {}", chunk.pieces, text(&chunk.rows))).collect();
        prop_assert_eq!(parts.concat(), expected);
        prop_assert_eq!(parts, fold(1).0, "parts do not depend on threads");
    }
}

/// A run of many chunks.
fn large(ledger: &Path) -> PathBuf {
    let mut noise = Noise(5);
    let generations: Vec<_> = (0..60).map(|_| plausible_rounds(&mut noise, 1500, 40)).collect();
    written(ledger, &generations, 300, 59)
}

#[test]
fn many_chunks_divide_into_the_same_parts_for_any_number_of_threads() {
    let dir = tempdir().expect("a temporary folder");
    let reader = RunReader::open(&large(dir.path())).expect("the run");
    let columns = [RoundColumn::Uncertainty, RoundColumn::CommittedAt];
    let fold = |threads| {
        let start = || (0u32, 0.0f64);
        let (parts, damage) = reader.fold_rounds(&columns, threads, start, |(rows, sum), chunk| {
            *rows += chunk.len() as u32;
            *sum += chunk.rows.uncertainty.iter().map(|value| f64::from(*value)).sum::<f64>();
        });
        assert!(damage.is_empty());
        parts
    };
    let one = fold(1);
    assert!((8..=32).contains(&one.len()), "{}", one.len());
    assert_eq!(one.iter().map(|(rows, _)| rows).sum::<u32>(), 90_000);
    for threads in [2, 3, 64] {
        assert_eq!(fold(threads), one);
    }
}

#[test]
fn damage_stands_in_its_place_and_the_rest_is_scanned() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = large(dir.path());
    let whole: Vec<RoundChunk> = all(RunReader::open(&run_dir).expect("the run").scan_rounds(&[RoundColumn::Token]));
    assert!(whole.len() > 12);
    damage(&run_dir, b'r', 2, flip);
    damage(&run_dir, b'p', 5, flip);
    damage(&run_dir, b'r', 7, |chunk| chunk.fill(0));
    damage(&run_dir, b'p', 9, |chunk| chunk.fill(0));
    let reader = RunReader::open(&run_dir).expect("the rest is readable");
    let expected = [(2, Table::Rounds), (5, Table::Pieces), (7, Table::Rounds), (9, Table::Pieces)];
    let place = |error: &LedgerError| match error {
        LedgerError::DamagedChunk { table, sequence, .. } => (*sequence, *table),
        other => panic!("{other}"),
    };
    let scanned: Vec<_> = reader.scan_rounds(&[RoundColumn::Token]).collect();
    assert_eq!(scanned.len(), whole.len());
    for (number, (scanned, whole)) in scanned.iter().zip(&whole).enumerate() {
        match expected.iter().find(|(damaged, _)| *damaged == number as u64) {
            None => assert_eq!(scanned.as_ref().expect("not damaged"), whole),
            Some(expected) => assert_eq!(place(scanned.as_ref().expect_err("damaged")), *expected),
        }
    }
    let rows = |threads| {
        let (parts, errors) = reader.fold_rounds(&[], threads, || 0, |rows: &mut usize, chunk| *rows += chunk.len());
        assert_eq!(errors.iter().map(place).collect::<Vec<_>>(), expected);
        parts.iter().sum::<usize>()
    };
    let left: usize = scanned.iter().flatten().map(RoundChunk::len).sum();
    assert!(left < 90_000 && left > 60_000, "{left}");
    assert_eq!((rows(1), rows(3)), (left, left));
}

#[test]
fn columns_have_the_names_of_the_fields() {
    let names: Vec<&str> = RoundColumn::ALL.iter().map(|column| column.name()).collect();
    let rows = format!("{:?}", RoundRows::default());
    let fields = rows.trim_start_matches("RoundRows {").trim_end_matches('}').split(',').map(|field| {
        let (name, values) = field.split_once(':').expect("a field");
        assert_eq!(values.trim(), "[]");
        name.trim()
    });
    assert_eq!(names, fields.filter(|name| *name != "pays").collect::<Vec<_>>());
}

/// A page that sled cannot read costs what is in it: every reader says so once, goes on behind it and comes to an end.
#[test]
fn a_damaged_page_ends_no_reader_and_hangs_none() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = large(dir.path());
    specfleet_ledger::compact(&run_dir).expect("a compacted run");
    let whole: usize =
        all(RunReader::open(&run_dir).expect("the run").scan_rounds(&[])).iter().map(RoundChunk::len).sum();
    let blobs: Vec<std::ffi::OsString> = std::fs::read_dir(store_of(&run_dir).join("blobs"))
        .expect("a compacted store")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    let (mut struck, mut went_on) = (0, 0);
    for blob in &blobs {
        let copy = dir.path().join("copy");
        copy_folder(&run_dir, &copy);
        let path = store_of(&copy).join("blobs").join(blob);
        let mut bytes = std::fs::read(&path).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("a file");
        let (told, answer) = std::sync::mpsc::channel();
        let folder = copy.clone();
        std::thread::spawn(move || {
            let found = RunReader::open(&folder).map(|reader| {
                let sound = reader.verify().is_ok_and(|verified| verified.is_sound());
                let errors = reader.scan_rounds(&[]).filter(Result::is_err).count();
                let rounds: usize = reader.scan_rounds(&[]).flatten().map(|chunk| chunk.len()).sum();
                let others = reader.batches().flatten().count() + reader.generations().flatten().count();
                let _ = reader.damaged();
                (sound, errors, rounds, others)
            });
            // Nobody may be left who waits.
            let _ = told.send(found);
        });
        let found = answer.recv_timeout(std::time::Duration::from_secs(60)).expect("it hangs");
        // What sled does not use any more is damage all the same.
        if let Ok((false, errors, rounds, others)) = found {
            struck += 1;
            assert!(errors > 0 || rounds == whole, "{rounds} of {whole} without a word");
            went_on += usize::from(rounds + others > 0);
        }
        std::fs::remove_dir_all(&copy).expect("a folder");
    }
    assert!(struck > 0 && went_on > 0, "{struck}, {went_on} of {}", blobs.len());
}

/// Whoever reads a run keeps those away who would change it, and the other way round.
#[test]
fn a_run_that_is_read_is_not_changed() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = large(dir.path());
    let reader = RunReader::open(&run_dir).expect("the run");
    let busy = |error: LedgerError| assert!(matches!(error, LedgerError::StoreBusy(_)), "{error}");
    busy(specfleet_ledger::compact(&run_dir).expect_err("it is read"));
    busy(specfleet_ledger::remove(&run_dir).expect_err("it is read"));
    busy(specfleet_ledger::ScoreWriter::open(&run_dir).expect_err("it is read"));
    let rows: usize = all(reader.scan_rounds(&[])).iter().map(RoundChunk::len).sum();
    assert!(rows > 0);
    drop(reader);
    let scores = specfleet_ledger::ScoreWriter::open(&run_dir).expect("nobody reads it");
    busy(RunReader::open(&run_dir).expect_err("it is written"));
    drop(scores);
    specfleet_ledger::compact(&run_dir).expect("nobody is there");
    specfleet_ledger::remove(&run_dir).expect("nobody is there");
    assert!(!run_dir.exists());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("a file");
        }
    }
}
