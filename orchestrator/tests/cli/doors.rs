//! A run's own door: whether all that its pool did was paid for.

use specfleet_engine::record::{BatchRecord, Provenance};
use specfleet_ledger::{Meta, RunState, RunWriter};

use crate::common::*;

const SMALL: [&str; 8] = ["--prompts", "2", "--devices", "2", "--max-new-tokens", "8", "--methods", "hlm"];

#[test]
fn work_of_the_pool_that_nobody_paid_for_makes_a_run_invalid() {
    let place = Place::new();
    place.run("out", &SMALL).assert_sound();
    let rows = place.rows_of("out");
    assert!(rows.batches.iter().any(|batch| batch.nanojoules > 0));
    let copy = |name: &str, change: fn(&mut BatchRecord)| {
        let meta = Meta { run: name.to_owned(), store: String::new(), state: RunState::Running, ..rows.meta.clone() };
        let mut writer = RunWriter::create(&place.path("runs"), meta).expect("a new run");
        for (record, rounds) in &rows.generations {
            writer.close_generation(record.clone(), rounds).expect("stored");
        }
        let mut batches = rows.batches.clone();
        change(&mut batches[0]);
        batches.into_iter().for_each(|batch| writer.append_batch(batch).expect("stored"));
        for verifier in &rows.verifiers {
            writer.append_verifier(*verifier, Provenance::Modelled).expect("stored");
        }
        writer.finish(RunState::Completed).expect("stored");
        let (report, verified) = (call(&place, &["report", name]), call(&place, &["verify", name]));
        (said(&report), verified.status.code(), said(&verified))
    };
    let (report, code, verified) = copy("as-it-was", |_| {});
    assert!(report.contains("VALID") && !report.contains("INVALID"), "{report}");
    assert_eq!(code, Some(0), "{verified}");
    for (name, change) in [
        ("strangers", (|batch| batch.nanojoules += 1) as fn(&mut BatchRecord)),
        ("generous", |batch| batch.unclaimed_nanojoules += 1),
    ] {
        let (report, code, verified) = copy(name, change);
        assert!(report.contains("INVALID: hlm: the pool's batches were charged "), "{name}: {report}");
        assert_eq!(code, Some(1), "{name}: {verified}");
        assert!(verified.contains("hlm: the pool's batches were charged "), "{name}: {verified}");
    }
}
