//! What a scraper gets: families, their text, the document, and the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::{ConnectionId, DeviceId, GenerationId, UploadId, VerifierId};
use specfleet_engine::pool::{
    Activity, Batch, BatchItem, Input, ItemOutcome, JobKind, Output, RefuseReason, SessionKey,
};
use specfleet_engine::record::{
    BatchRecord, DeviceCounts, DeviceTimes, FinishReason, GenerationEnergy, GenerationRecord, Provenance, RoundRecord,
    Source, UploadCost, UploadCounts, VerifyCost,
};
use specfleet_engine::time::{Span, Time};
use specfleet_metrics::family::{self, MetricKind};
use specfleet_metrics::{Course, FleetMetrics, PoolMetrics, PoolObserver, PoolState, Registry, ServeError, Server};

/// A registry with everything in it.
fn everything() -> (Registry, FleetMetrics) {
    let registry = Registry::new("specfleet", "0.0.0");
    let methods = ["hlm".to_owned(), "a \"strange\\ name\n".to_owned()];
    let fleet = FleetMetrics::new(&registry, &methods, 96, "run", "hash");
    (registry, fleet)
}

/// Samples by name and labels, as they stand in the text.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

/// The value of a series.
fn value(registry: &Registry, series: &str) -> f64 {
    let samples = samples(&registry.text());
    *samples.get(&format!("specfleet_{series}")).unwrap_or_else(|| panic!("{series} is not in {samples:#?}"))
}

#[test]
fn every_family_is_exposed_as_the_format_and_promtool_want_it() {
    let (registry, _) = everything();
    let text = registry.text();
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and its help");
            assert!(!help.is_empty() && helped.insert(name), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and its type");
            assert!(helped.contains(name), "{line}: HELP comes first");
            assert!(typed.insert(name, kind).is_none(), "{line}: twice");
        } else {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(typed.contains_key(stem) || typed.contains_key(name), "{line}: TYPE comes first");
            assert!(!name.contains(':'), "{name}: colons are for recording rules");
        }
    }
    let names: BTreeSet<&str> = family::ALL.iter().map(|family| family.name).collect();
    assert_eq!(names, typed.keys().copied().collect());
    assert_eq!(names.len(), family::ALL.len(), "names are given once");
    for family in family::ALL {
        let kind = match family.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(bounds) => {
                assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{}", family.name);
                let inf = text.lines().any(|line| line.starts_with(family.name) && line.contains("le=\"+Inf\""));
                assert!(inf, "{}", family.name);
                "histogram"
            }
        };
        assert_eq!(typed[family.name], kind, "{}", family.name);
        assert_eq!(family.kind == MetricKind::Counter, family.name.ends_with("_total"), "{}", family.name);
        for (unit, word) in [("s", "seconds"), ("J", "joules"), ("bytes", "bytes")] {
            let says = family.name.contains(word);
            assert_eq!(family.unit == unit, says, "{}: the unit is a part of the name", family.name);
        }
    }
    assert!(text.contains(r#"method="a \"strange\\ name\n""#), "labels are escaped");
}

#[test]
fn the_document_lists_what_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let document = fs::read_to_string(&path).expect("docs/metrics.md is there");
    for (what, part) in [("table", family::table()), ("buckets", family::buckets())] {
        assert!(document.contains(&part), "docs/metrics.md: the {what} should read\n\n{part}");
    }
    let rows = document.lines().filter(|line| line.starts_with("| `specfleet_")).count();
    assert_eq!(rows, family::ALL.len(), "docs/metrics.md lists a family that is gone");
}

fn round(position: u32, source: Source, reason: GateReason, attempts: u32, at: u64) -> RoundRecord {
    RoundRecord {
        position,
        token: 1,
        draft: 1,
        rejections: 0,
        source,
        reason,
        uncertainty: 0.5,
        importance: f32::NAN,
        importance_threshold: f32::NAN,
        draft_probability: 0.5,
        price: f32::NAN,
        committed_at: Time(at * 1_000_000),
        waiting: Span::ZERO,
        upload: (attempts > 0).then(|| UploadCost {
            attempts,
            uplink_bits: 100,
            uplink_bytes: 100 * attempts,
            downlink_bytes: 10 * attempts,
            verify: VerifyCost {
                queue_wait: Span::from_millis(3),
                batch_wait: Span::from_millis(1),
                fed_tokens: 1,
                ..VerifyCost::ZERO
            },
            ..UploadCost::ZERO
        }),
    }
}

#[test]
fn rounds_and_generations_count_where_they_belong() {
    let (registry, fleet) = everything();
    let mut course = Course::default();
    // A block of three, of which two are accepted, then one that the gate skips, then a block of one.
    let rounds = [
        round(0, Source::Accepted, GateReason::Important, 2, 10),
        round(1, Source::Accepted, GateReason::Important, 0, 10),
        round(2, Source::Replaced, GateReason::Important, 0, 10),
        round(3, Source::Skipped, GateReason::Certain, 0, 14),
        round(4, Source::Accepted, GateReason::Uncertain, 1, 44),
    ];
    rounds.iter().for_each(|record| fleet.round(0, &mut course, record));
    let id = GenerationId { method: 0, prompt: 0, repetition: 0, pass: 0 };
    fleet.generation(&GenerationRecord {
        id,
        device: DeviceId(3),
        data_set: 0,
        prompt_tokens: 7,
        tokens: vec![1; 5],
        finish: FinishReason::Stop,
        scheduled: Time(2_000_000),
        latency_target: Span::ZERO,
        started: Time(2_000_000),
        first_token: Some(Time(10_000_000)),
        ended: Time(44_000_000),
        times: DeviceTimes { draft: Span::from_millis(40), waiting: Span::from_millis(2), ..DeviceTimes::default() },
        airtime_up: Span::ZERO,
        airtime_down: Span::ZERO,
        counts: DeviceCounts { draft_steps: 6, wasted_drafts: 1, ..DeviceCounts::default() },
        uploads: UploadCounts { sent: 3, verdicts: 2, refused: 1, cancelled: 0 },
        energy: GenerationEnergy { device: 3_000_000_000, radio: 500_000_000, cloud: 250_000_000, cloud_paper: 1 },
        device_provenance: Provenance::Constant,
        radio_provenance: Provenance::Modelled,
        cloud_provenance: Provenance::Modelled,
    });
    // A method that the run does not have is not counted, and nothing breaks.
    fleet.round(9, &mut Course::default(), &rounds[0]);
    for (series, wanted) in [
        ("generation_tokens_total{method=\"hlm\"}", 5.0),
        ("prompt_tokens_total{method=\"hlm\"}", 7.0),
        ("upload_decisions_total{decision=\"upload\",method=\"hlm\",reason=\"important\"}", 3.0),
        ("upload_decisions_total{decision=\"skip\",method=\"hlm\",reason=\"certain\"}", 1.0),
        ("tokens_committed_total{method=\"hlm\",source=\"accepted\"}", 3.0),
        ("uplink_bytes_total{method=\"hlm\"}", 300.0),
        ("downlink_bytes_total{method=\"hlm\"}", 30.0),
        ("spec_decode_num_drafts_total", 2.0),
        ("spec_decode_num_accepted_tokens_total", 3.0),
        ("spec_decode_num_accepted_tokens_per_pos_total{position=\"0\"}", 2.0),
        ("spec_decode_num_accepted_tokens_per_pos_total{position=\"1\"}", 1.0),
        ("spec_decode_num_accepted_tokens_per_pos_total{position=\"2\"}", 0.0),
        ("request_queue_time_seconds_count", 2.0),
        ("request_queue_time_seconds_bucket{le=\"0.0025\"}", 0.0),
        ("request_queue_time_seconds_bucket{le=\"0.005\"}", 2.0),
        ("inter_token_latency_seconds_count{method=\"hlm\"}", 4.0),
        ("inter_token_latency_seconds_bucket{method=\"hlm\",le=\"0.005\"}", 3.0),
        ("time_to_first_token_seconds_bucket{method=\"hlm\",le=\"0.005\"}", 0.0),
        ("time_to_first_token_seconds_bucket{method=\"hlm\",le=\"0.01\"}", 1.0),
        ("generations_total{finish=\"stop\",method=\"hlm\"}", 1.0),
        ("uploads_total{method=\"hlm\",outcome=\"verdict\"}", 2.0),
        ("uploads_total{method=\"hlm\",outcome=\"refused\"}", 1.0),
        ("device_energy_joules_total{method=\"hlm\",part=\"device\"}", 3.0),
        ("device_energy_joules_total{method=\"hlm\",part=\"radio\"}", 0.5),
        ("device_energy_joules_total{method=\"hlm\",part=\"cloud\"}", 0.25),
        ("draft_wasted_tokens_total{method=\"hlm\"}", 1.0),
        ("draft_steps_total{method=\"hlm\"}", 6.0),
    ] {
        assert_eq!(value(&registry, series), wanted, "{series}");
    }
}

fn batch_record(batch: u64, completed: bool) -> BatchRecord {
    BatchRecord {
        method: 0,
        pass: 0,
        batch,
        verifier: VerifierId(0),
        started: Time::ZERO,
        compute: Span::from_millis(20),
        measured: Span::from_millis(20),
        overrun: Span::ZERO,
        estimate: Span::ZERO,
        price: 0.0,
        sequences: 2,
        work: 9,
        catch_up: 4,
        drafts: 5,
        cached: 0,
        nanojoules: 500_000_000,
        measured_nanojoules: 500_000_000,
        unclaimed_nanojoules: 0,
        completed,
    }
}

#[test]
fn a_pool_alone_counts_what_its_verifiers_did() {
    let registry = Registry::new("verifier-pool", "0.0.0");
    let metrics = PoolMetrics::new(&registry);
    let mut observer = PoolObserver::alone(metrics.clone());
    let session = SessionKey { connection: ConnectionId(0), session: 0 };
    let item = |kind| BatchItem { session, upload: UploadId(1), keep: 0, committed: 2, kind };
    let items = vec![item(JobKind::Judge { drafts: 4, bonus: false }), item(JobKind::Write { left: 3 })];
    let start = |batch| {
        Output::Start(Batch {
            verifier: VerifierId(0),
            batch,
            evict: Vec::new(),
            items: items.clone(),
            release: Time::ZERO,
        })
    };
    let outcome = |accepted| ItemOutcome { accepted, next: None, malformed: false };
    let verdict = Output::Verdict {
        session,
        upload: UploadId(1),
        item: 0,
        more: false,
        cost: VerifyCost {
            queue_wait: Span::from_millis(2),
            batch_wait: Span::from_millis(1),
            compute: Span::from_millis(20),
            fed_tokens: 4,
            nanojoules: 1,
            paper_nanojoules: 1,
        },
        price: 0.0,
    };
    observer.handled(&Input::Timeout, &[start(0)]);
    let done = Input::BatchDone {
        verifier: VerifierId(0),
        batch: 0,
        waited: Span::ZERO,
        compute: Span::from_millis(20),
        outcomes: vec![outcome(2), outcome(0)],
    };
    let refused = Output::Refused {
        session,
        upload: UploadId(2),
        reason: RefuseReason::QueueFull,
        retry_after: Span::ZERO,
        price: 0.0,
    };
    observer.handled(&done, &[verdict, refused, start(1)]);
    // The second batch is lost with its verifier; a late answer to it counts nothing.
    let lost = Output::Record(batch_record(1, false));
    observer.handled(&Input::VerifierFailed(VerifierId(0)), &[lost, Output::Restart(VerifierId(0))]);
    let Input::BatchDone { verifier, waited, compute, outcomes, .. } = done else { unreachable!() };
    observer.handled(&Input::BatchDone { verifier, batch: 1, waited, compute, outcomes }, &[]);
    metrics.batch(&batch_record(0, true));
    metrics.batch(&batch_record(1, false));
    let verifiers = [Activity::Busy, Activity::Down, Activity::Busy];
    metrics.state(&PoolState { running: 2, waiting: 3, verifiers: &verifiers, ..PoolState::default() });
    for (series, wanted) in [
        ("spec_decode_num_drafts_total", 1.0),
        ("spec_decode_num_draft_tokens_total", 5.0),
        ("spec_decode_num_accepted_tokens_total", 2.0),
        ("request_queue_time_seconds_count", 1.0),
        ("refusals_total{reason=\"queue-full\"}", 1.0),
        ("refusals_total{reason=\"malformed\"}", 0.0),
        ("verifier_restarts_total", 1.0),
        ("verify_batch_size_count", 1.0),
        ("verify_batch_size_sum", 2.0),
        ("verify_batches_total{outcome=\"failed\"}", 1.0),
        ("verify_tokens_total{part=\"catch-up\"}", 8.0),
        ("verify_tokens_total{part=\"drafts\"}", 10.0),
        ("verifier_energy_joules_total{part=\"batch\"}", 1.0),
        ("num_requests_running", 2.0),
        ("num_requests_waiting", 3.0),
        ("verifiers{state=\"busy\"}", 2.0),
        ("verifiers{state=\"down\"}", 1.0),
        ("verifiers{state=\"idle\"}", 0.0),
    ] {
        assert_eq!(value(&registry, series), wanted, "{series}");
    }
}

/// What a server answers to these bytes, until it closes.
fn ask(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.local_addr()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn get(server: &Server, path: &str) -> String {
    ask(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

#[test]
fn the_server_answers_what_it_has_and_nothing_else() {
    let (registry, _) = everything();
    let server = Server::start(([127, 0, 0, 1], 0).into(), registry.clone()).expect("a free port");
    assert!(server.local_addr().ip().is_loopback());
    let answer = get(&server, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, registry.text());
    assert!(get(&server, "/healthz").ends_with("ok\n"));
    assert!(get(&server, "/").starts_with("HTTP/1.1 404"));
    let post = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert!(ask(&server, post).starts_with("HTTP/1.1 405"));
    assert!(ask(&server, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    // A connection that says nothing holds nobody up, not even the end.
    let _silent = TcpStream::connect(server.local_addr()).expect("it listens");
    let address = server.local_addr();
    let taken = Server::start(address, registry).expect_err("it is taken");
    assert!(matches!(taken, ServeError::InUse { .. }));
    assert!(taken.to_string().starts_with(&format!("--metrics {address}: the port is in use")), "{taken}");
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "it has closed with its handle");
}
