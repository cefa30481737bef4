//! What somebody who watches a run is shown is what its ledger holds at the end: metrics, live figures, logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use specfleet_engine::record::{FinishReason, Source};
use specfleet_ledger::Live;

use crate::common::*;
use crate::rows::Rows;

/// Samples by name and labels, as they stand in the text.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.trim_start_matches("specfleet_").to_owned(), value.parse().expect("a number"))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

/// What the counters must be, from the stored rows.
fn from_rows(rows: &Rows) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    let mut add = |name: String, value: f64| *sums.entry(name).or_default() += value;
    let word = |value: &dyn erased::Word| value.word();
    for (record, rounds) in &rows.generations {
        let method = &rows.meta.methods[usize::from(record.id.method)].name;
        let m = format!("method=\"{method}\"");
        add(format!("generations_total{{finish=\"{}\",{m}}}", word(&record.finish)), 1.0);
        add(format!("prompt_tokens_total{{{m}}}"), f64::from(record.prompt_tokens));
        for (outcome, count) in [
            ("verdict", record.uploads.verdicts),
            ("refused", record.uploads.refused),
            ("cancelled", record.uploads.cancelled),
        ] {
            add(format!("uploads_total{{{m},outcome=\"{outcome}\"}}"), count as f64);
        }
        let (energy, times) = (&record.energy, &record.times);
        for (part, nanojoules) in [("device", energy.device), ("radio", energy.radio), ("cloud", energy.cloud)] {
            add(format!("device_energy_joules_total{{{m},part=\"{part}\"}}"), nanojoules as f64 * 1e-9);
        }
        for (state, span) in [
            ("draft", times.draft),
            ("uncertainty", times.uncertainty),
            ("importance", times.importance),
            ("overrun", times.overrun),
            ("waiting_overrun", times.waiting_overrun),
            ("waiting", times.waiting),
            ("idle", times.idle),
        ] {
            add(format!("device_seconds_total{{{m},state=\"{state}\"}}"), span.seconds());
        }
        add(format!("draft_steps_total{{{m}}}"), record.counts.draft_steps as f64);
        add(format!("draft_wasted_tokens_total{{{m}}}"), record.counts.wasted_drafts as f64);
        add(format!("time_to_first_token_seconds_count{{{m}}}"), f64::from(record.first_token.is_some() as u8));
        let whole = matches!(record.finish, FinishReason::Stop | FinishReason::Length);
        add(format!("e2e_request_latency_seconds_count{{{m}}}"), f64::from(whole as u8));
        add(format!("inter_token_latency_seconds_count{{{m}}}"), rounds.len().saturating_sub(1) as f64);
        let mut position = 0;
        for round in rounds {
            let decision = if round.reason.uploads() { "upload" } else { "skip" };
            let reason = word(&round.reason);
            add(format!("upload_decisions_total{{decision=\"{decision}\",{m},reason=\"{reason}\"}}"), 1.0);
            add(format!("tokens_committed_total{{{m},source=\"{}\"}}", word(&round.source)), 1.0);
            add(format!("generation_tokens_total{{{m}}}"), 1.0);
            add(format!("uplink_bytes_total{{{m}}}"), f64::from(round.uplink_bytes()));
            add(format!("downlink_bytes_total{{{m}}}"), f64::from(round.upload_cost().downlink_bytes));
            let of_draft = matches!(round.source, Source::Accepted | Source::Replaced | Source::Bonus);
            let answered = of_draft && round.attempts() > 0;
            if answered {
                position = 0;
                add("spec_decode_num_drafts_total".to_owned(), 1.0);
            }
            if answered || round.source == Source::Verifier {
                add("request_queue_time_seconds_count".to_owned(), 1.0);
                add("verify_batch_wait_seconds_count".to_owned(), 1.0);
            }
            if round.source == Source::Accepted {
                add("spec_decode_num_accepted_tokens_total".to_owned(), 1.0);
                add(format!("spec_decode_num_accepted_tokens_per_pos_total{{position=\"{position}\"}}"), 1.0);
            }
            position += 1;
        }
    }
    // Refusals are all counted by the pool, by devices those that reached them: the same where no connection is lost.
    let refused: u64 = rows.generations.iter().map(|(record, _)| record.uploads.refused).sum();
    add("refusals_total".to_owned(), refused as f64);
    for batch in &rows.batches {
        let outcome = if batch.completed { "completed" } else { "failed" };
        add(format!("verify_batches_total{{outcome=\"{outcome}\"}}"), 1.0);
        add("verify_tokens_total{part=\"catch-up\"}".to_owned(), f64::from(batch.catch_up));
        add("verify_tokens_total{part=\"drafts\"}".to_owned(), f64::from(batch.work - batch.catch_up));
        add("verifier_energy_joules_total{part=\"batch\"}".to_owned(), batch.nanojoules as f64 * 1e-9);
        add("verifier_energy_joules_total{part=\"unclaimed\"}".to_owned(), batch.unclaimed_nanojoules as f64 * 1e-9);
        add("verifier_busy_seconds_total".to_owned(), batch.compute.seconds());
        if batch.completed {
            add("spec_decode_num_draft_tokens_total".to_owned(), f64::from(batch.drafts));
            add("verify_batch_size_count".to_owned(), 1.0);
            add("verify_batch_size_sum".to_owned(), f64::from(batch.sequences));
            add("verify_batch_tokens_sum".to_owned(), f64::from(batch.work));
            add("verify_batch_seconds_sum".to_owned(), batch.compute.seconds());
        }
    }
    for verifier in &rows.verifiers {
        add("verifier_energy_joules_total{part=\"idle\"}".to_owned(), verifier.idle_nanojoules as f64 * 1e-9);
        add("verifier_restarts_total".to_owned(), f64::from(verifier.restarts));
    }
    sums
}

/// A value as the ledger spells it.
mod erased {
    pub(super) trait Word {
        fn word(&self) -> String;
    }

    impl<T: serde::Serialize> Word for T {
        fn word(&self) -> String {
            serde_json::to_value(self).expect("it serialises").as_str().expect("a word").to_owned()
        }
    }
}

/// Every counter against the rows, and no counter without one.
fn assert_equal(text: &str, rows: &Rows) {
    let mut shown = samples(text);
    let refused: f64 =
        shown.iter().filter(|(name, _)| name.starts_with("refusals_total")).map(|(_, value)| value).sum();
    shown.retain(|name, _| !name.starts_with("refusals_total"));
    shown.insert("refusals_total".to_owned(), refused);
    let wanted = from_rows(rows);
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    for (name, value) in &wanted {
        let found = shown.get(name).unwrap_or_else(|| panic!("{name} is not shown, the rows say {value}"));
        assert!(close(*found, *value), "{name}: {found} shown, the rows say {value}");
    }
    let counters = shown.iter().filter(|(name, _)| name.split('{').next().is_some_and(|name| name.ends_with("_total")));
    for (name, value) in counters {
        assert!(wanted.contains_key(name) || *value == 0.0, "{name} is {value}, and no row says so");
    }
}

/// A free port, most likely.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("its address").port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn counters_equal_the_ledger_at_the_end_of_a_run() {
    let place = Place::new();
    let port = free_port().to_string();
    // Refusals, a killed verifier, blocks, resends.
    let arguments = [
        "--devices",
        "6",
        "--prompts",
        "12",
        "--max-new-tokens",
        "16",
        "--methods",
        "ui-hlm,block,llm-only",
        "--set",
        "pool.queue_jobs=2",
        "--set",
        "pool.retry_after_ms=2",
        "--fault",
        "kill-verifier@0.2",
        "--metrics",
        &port,
        "--metrics-linger",
        "120",
    ];
    let mut command = place.command(&["run", "--ledger", "runs", "--out", "out"]);
    let child = command.args(FAST).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let running = Running::of(child.expect("the binary runs"));
    let began = Instant::now();
    let port: u16 = port.parse().expect("a port");
    // The last file of a run; after it the server lingers.
    while !place.path("out/metrics.prom").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "the run does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    let scraped = get(port, "/metrics").expect("the server lingers");
    assert_eq!(get(port, "/healthz").as_deref(), Some("ok\n"));
    running.interrupt(Duration::from_secs(20));
    assert!(get(port, "/metrics").is_none(), "it has ended with the program");
    let rows = place.rows_of("out");
    assert_equal(&scraped, &rows);
    let written = fs::read_to_string(place.path("out/metrics.prom")).expect("metrics.prom");
    assert_equal(&written, &rows);
    let shown = samples(&scraped);
    assert_eq!((shown["generations_planned"], shown["verifier_restarts_total"]), (36.0, 1.0));
    assert!(shown["refusals_total{reason=\"queue-full\"}"] > 0.0, "the queue was never full");
    assert!(shown["spec_decode_num_accepted_tokens_per_pos_total{position=\"1\"}"] > 0.0, "no block");
}

#[test]
fn a_port_in_use_or_no_address_is_said_in_one_line_before_anything_runs() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("its address").to_string();
    for (given, wrong) in [
        (address.as_str(), format!("--metrics {address}: the port is in use")),
        ("nonsense", "invalid value 'nonsense' for '--metrics <HOST:PORT>': \"nonsense\" is no address".to_owned()),
    ] {
        let output = place.try_run(&["--metrics", given]);
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("specfleet: {wrong}")), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    assert!(!place.path("runs").exists(), "nothing has run");
    for arguments in [&["--log", "loud"][..], &["run", "--log", "verifier_pool=loud"]] {
        let output = place.command(arguments).output().expect("the binary runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), said.trim_end().lines().count()), (Some(2), 1), "{said}");
        assert!(said.starts_with("specfleet: --log "), "{said}");
    }
}

#[test]
fn a_running_run_says_what_it_does() {
    let place = Place::new();
    let common = ["--devices", "4", "--prompts", "400", "--methods", "hlm,block"];
    let running = place.start("run", &common);
    let run = place.wait_for_generations(3);
    let folder = place.path("runs").join(run["run"].as_str().expect("a name"));
    // It is written after the rows, with each flush.
    let live = wait_for(|| Live::read(&folder).expect("a whole file").filter(|live| live.generations >= 3));
    assert_eq!((live.method.as_str(), live.methods, live.generations_total), ("hlm", 2, 800));
    assert!(live.tokens > 0 && live.uploads > 0 && live.judged >= live.rejected, "{live:?}");
    assert!(live.tokens_per_second > 0.0 && live.seconds > 0.0 && live.joules.device > 0.0, "{live:?}");
    assert!(live.batches > 0 && live.batch_sequences_mean >= 1.0, "{live:?}");
    assert_eq!(live.verifiers.len(), 2);
    running.interrupt(Duration::from_secs(20));
    assert_eq!(Live::read(&folder).expect("no file, no error"), None, "an ended run has its rows");
}

#[test]
fn logs_have_a_span_for_each_round_and_batch() {
    let place = Place::new();
    let arguments = [
        "--devices",
        "3",
        "--prompts",
        "6",
        "--max-new-tokens",
        "12",
        "--methods",
        "ui-hlm,block,llm-only",
        "--log",
        "device_agent=debug,verifier_pool=debug",
        "--log-format",
        "json",
    ];
    let output = place.try_run(&[&["--out", "out"], &arguments[..]].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("VALID"), "results go to standard output");
    let lines: Vec<Value> = String::from_utf8(output.stderr)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let said = |what: &str| -> Vec<&Value> {
        let what = what.to_owned();
        lines.iter().filter(move |line| line["fields"]["message"] == what.as_str()).collect()
    };
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"));
    let round = |line: &Value| {
        let span = &line["span"];
        assert_eq!(span["name"], "round", "{line}");
        ["method_index", "prompt", "repetition", "position", "rejections"].map(|name| number(span, name))
    };
    let rows = place.rows_of("out");
    let (mut uploads, mut tokens) = (BTreeSet::new(), 0);
    for (record, rounds) in &rows.generations {
        tokens += rounds.len();
        for row in rounds.iter().filter(|row| row.attempts() > 0) {
            let id = record.id;
            let numbers = [u64::from(id.method), id.prompt.into(), id.repetition.into(), row.position.into()];
            uploads.insert((numbers, u64::from(row.rejections)));
        }
    }
    let told: BTreeSet<_> = said("upload")
        .into_iter()
        .map(|line| {
            let [method, prompt, repetition, position, rejections] = round(line);
            ([method, prompt, repetition, position], rejections)
        })
        .collect();
    // An answer that nobody needs any more (the end was within the block) leaves no row.
    assert!(told.is_superset(&uploads), "{:?}", uploads.difference(&told).collect::<Vec<_>>());
    let sent: u64 = rows.generations.iter().map(|(record, _)| record.uploads.sent).sum();
    assert_eq!(said("upload").len() as u64, sent);
    said("verdict").into_iter().for_each(|line| {
        round(line);
    });
    assert_eq!(said("commit").len(), tokens, "each token is committed in a round");
    let batches: BTreeSet<(u64, u64, u64, u64)> = rows
        .batches
        .iter()
        .map(|row| (row.batch, u64::from(row.verifier.0), u64::from(row.sequences), u64::from(row.work)))
        .collect();
    for what in ["formed", "completed"] {
        let told: BTreeSet<_> = said(what)
            .into_iter()
            .map(|line| {
                let span = &line["span"];
                assert_eq!(span["name"], "batch", "{line}");
                let number = |name| number(span, name);
                (number("batch"), number("verifier"), number("sequences"), number("tokens"))
            })
            .collect();
        assert_eq!(told, batches, "{what}");
    }
    assert!(said("connected").len() >= 2 * 3, "both sides tell of each connection");
}
