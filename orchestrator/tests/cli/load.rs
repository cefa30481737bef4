//! Requests that arrive by themselves, devices that come and go, links that are lost, batteries that run out: live and
//! simulated alike.

use std::collections::{BTreeMap, BTreeSet};

use specfleet_analysis::check_energy_closes;
use specfleet_engine::record::ACCOUNTING;
use specfleet_engine::record::{FinishReason, GenerationRecord};

use crate::common::*;
use crate::rows::Rows;

const SMALL: [&str; 8] = ["--devices", "4", "--prompts", "16", "--max-new-tokens", "12", "--methods", "hlm,ui-hlm"];

/// Runs a scenario both ways.
fn both(place: &Place, arguments: &[&str]) -> [(&'static str, Results, Rows); 2] {
    ["run", "simulate"].map(|command| {
        let fixed = if command == "run" { &[][..] } else { &FIXED };
        place.quick(command, command, &[&SMALL[..], fixed, arguments].concat());
        let results = Results::read(&place.path(command));
        let rows = place.rows_of(command);
        results.assert_sound();
        for (record, rounds) in &rows.generations {
            check_energy_closes(record, rounds, ACCOUNTING)
                .unwrap_or_else(|error| panic!("{command}: {:?}: {error}", record.id));
            let uploads = record.uploads;
            assert_eq!(uploads.sent, uploads.verdicts + uploads.refused + uploads.cancelled, "{command}: {record:?}");
        }
        (command, results, rows)
    })
}

/// The records of one method.
fn records(rows: &Rows, method: u16) -> Vec<&GenerationRecord> {
    rows.generations.iter().map(|(record, _)| record).filter(|record| record.id.method == method).collect()
}

/// When a method's requests were due, since its first, by prompt.
fn due(rows: &Rows, method: u16) -> BTreeMap<u32, u64> {
    let records = records(rows, method);
    let first = records.iter().map(|record| record.scheduled).min().expect("at least one");
    records.iter().map(|record| (record.id.prompt, record.scheduled.since(first).0)).collect()
}

fn count(rows: &Rows, finish: FinishReason) -> usize {
    rows.generations.iter().filter(|(record, _)| record.finish == finish).count()
}

/// Latencies count from when a request was due, so that a busy device hides no waiting.
fn assert_latencies_count_from_the_schedule(results: &Results, rows: &Rows) {
    let mut waited = 0;
    for (index, method) in ["hlm", "ui-hlm"].into_iter().enumerate() {
        let stated = |metric: &str, figure: &str| results.summary["methods"][method][metric][figure].as_f64();
        let all = records(rows, index as u16);
        let spans = |of: fn(&GenerationRecord) -> f64| -> (f64, f64) {
            let spans: Vec<f64> =
                all.iter().filter(|record| record.first_token.is_some()).map(|record| of(record)).collect();
            (spans.iter().sum::<f64>() / spans.len() as f64, spans.iter().copied().fold(0.0, f64::max))
        };
        let first =
            |record: &GenerationRecord| record.first_token.unwrap_or_default().since(record.scheduled).seconds();
        let whole = |record: &GenerationRecord| record.ended.since(record.scheduled).seconds();
        for (metric, (mean, max)) in
            [("time_to_first_token_seconds", spans(first)), ("request_latency_seconds", spans(whole))]
        {
            for (figure, own) in [("mean", mean), ("max", max)] {
                let stated = stated(metric, figure).expect("a figure");
                assert!((stated - own).abs() <= 1e-9 * own, "{method}: {metric} {figure}: {stated} is not {own}");
            }
        }
        assert!(all.iter().all(|record| record.started >= record.scheduled));
        waited += all.iter().filter(|record| record.started > record.scheduled).count();
    }
    assert!(waited > 4, "without requests that wait this shows little");
}

#[test]
fn requests_that_arrive_at_random() {
    let place = Place::new();
    let poisson = ["--set", "load.pattern=poisson", "--set", "load.rate=150"];
    let [(_, _, live), (_, _, simulated)] = both(&place, &poisson).map(|(command, results, rows)| {
        assert_latencies_count_from_the_schedule(&results, &rows);
        assert_eq!((rows.generations.len(), count(&rows, FinishReason::Dropped)), (32, 0), "{command}");
        (command, results, rows)
    });
    // The seed says when; live and simulated, and for each method.
    assert_eq!(due(&live, 0), due(&simulated, 0));
    assert_eq!(due(&live, 0), due(&live, 1));
    simulated.assert_decided_as(&live);
}

#[test]
fn requests_that_arrive_evenly_and_too_fast() {
    let place = Place::new();
    let constant = ["--set", "load.pattern=constant", "--set", "load.rate=2000", "--set", "load.backlog=1"];
    for (command, results, rows) in both(&place, &constant) {
        let evenly: BTreeMap<u32, u64> = (0..16).map(|prompt| (prompt, u64::from(prompt) * 500_000)).collect();
        assert_eq!((due(&rows, 0), due(&rows, 1)), (evenly.clone(), evenly), "{command}");
        // Each device answers one and one waits: the others are told at once that they are too many.
        let dropped = |record: &&GenerationRecord| record.finish == FinishReason::Dropped;
        for method in [0, 1] {
            let dropped = records(&rows, method).into_iter().filter(dropped).map(|record| record.id.prompt);
            let dropped: BTreeSet<u32> = dropped.collect();
            match command {
                "simulate" => assert_eq!(dropped, (8..16).collect()),
                // A live device may have been free a moment too late, or early enough for one more.
                _ => assert!((4..=12).contains(&dropped.len()), "{dropped:?}"),
            }
        }
        for (record, rounds) in rows.generations.iter().filter(|(record, _)| dropped(&record)) {
            assert!(rounds.is_empty() && record.tokens.is_empty() && record.energy.total() == 0, "{record:?}");
            assert_eq!((record.started, record.ended), (record.scheduled, record.scheduled));
        }
        let dropped = count(&rows, FinishReason::Dropped);
        assert_eq!((&results.summary["dropped"], &results.summary["generations"]), (&dropped.into(), &32.into()));
        let by_method = |method: &str, metric: &str| results.summary["methods"][method][metric]["mean"].as_f64();
        let counted: Option<f64> = ["hlm", "ui-hlm"].iter().map(|method| by_method(method, "dropped")).sum();
        assert_eq!(counted, Some(dropped as f64), "{command}");
        let share = by_method("hlm", "dropped").map(|count| count / 16.0);
        assert_eq!(by_method("hlm", "dropped_share"), share, "{command}");
        assert_latencies_count_from_the_schedule(&results, &rows);
    }
}

#[test]
fn requests_that_were_recorded() {
    let place = Place::new();
    // One second column, as logs have them; the last two prompts are never asked for.
    let times = [0u64, 7, 7, 20, 45, 45, 45, 46, 60, 90, 91, 100, 140, 150];
    let lines: Vec<String> = times.iter().map(|ms| format!("{}.{:03},user", ms / 1000, ms % 1000)).collect();
    let file = place.file("arrivals.csv", format!("at,who\n{}\n", lines.join("\n")));
    let csv = ["--set", "load.pattern=csv", "--set", &format!("load.file={file}")];
    for (command, _, rows) in both(&place, &csv) {
        let expected: BTreeMap<u32, u64> = (0..).zip(times.map(|ms| ms * 1_000_000)).collect();
        assert_eq!((due(&rows, 0), due(&rows, 1)), (expected.clone(), expected), "{command}");
    }
}

#[test]
fn devices_that_come_and_go() {
    let place = Place::new();
    let churn = ["--set", "churn.join_over_seconds=0.1", "--set", "churn.stay_seconds=0.1", "--set", "run.prompts=64"];
    let outages = ["--set", "device.outage_every_seconds=0.05", "--set", "device.outage_seconds=0.02"];
    for (command, results, rows) in both(&place, &[&churn[..], &outages].concat()) {
        let left = count(&rows, FinishReason::Left);
        assert!(left > 0 && results.summary["left"] == left, "{command}: {left}");
        assert!(
            results.summary["uploads"]["cancelled"].as_u64() > Some(0),
            "{command}: {}",
            results.summary["uploads"]
        );
        for method in [0, 1] {
            let records = records(&rows, method);
            assert!(records.len() < 64, "{command}: those who have left ask no more");
            let start = records.iter().map(|record| record.scheduled).min().expect("at least one");
            for device in 0..4 {
                let mut own: Vec<_> = records.iter().filter(|record| record.device.0 == device).collect();
                own.sort_by_key(|record| record.started);
                // It joins in its turn, and after it has left it answers nothing.
                let joins = u64::from(device) * 25_000_000;
                assert!(own.iter().all(|record| record.scheduled.since(start).0 + 25_000_000 >= joins), "{command}");
                let last = own.iter().position(|record| record.finish == FinishReason::Left);
                assert!(last.is_none_or(|last| last == own.len() - 1), "{command}: device {device}");
            }
        }
    }
}

#[test]
fn batteries_that_run_out() {
    let place = Place::new();
    for (command, results, rows) in both(&place, &["--set", "device.battery_joules=0.05"]) {
        // Too little for four answers each, under both methods.
        let empty: Vec<&GenerationRecord> =
            rows.generations.iter().map(|(record, _)| record).filter(|r| r.finish == FinishReason::Battery).collect();
        assert_eq!((empty.len(), &results.summary["battery"]), (8, &8.into()), "{command}");
        for last in empty {
            let own = |record: &&GenerationRecord| (record.device, record.id.method) == (last.device, last.id.method);
            let own: Vec<_> = rows.generations.iter().map(|(record, _)| record).filter(own).collect();
            assert!(own.iter().all(|record| record.started <= last.started), "{command}: nothing after that");
            // What stands in the rows, and what it drew while it waited for its turn, comes to its battery or a step more.
            let drawn: u64 = own.iter().map(|record| record.energy.device + record.energy.radio).sum();
            assert!(drawn < 60_000_000, "{command}: {drawn} nJ of 50 mJ");
        }
    }
}
