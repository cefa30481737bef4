//! A run's own door: whom it lets in, how long it waits for its devices, and whether all that its pool did was paid for. What
//! strangers can do at the door of a pool alone is in `verifier-pool/tests/pool/doors.rs`.

use std::net::UdpSocket;
use std::time::Duration;

use device_agent::{Connector, ConnectorOptions, Drafter, HostClock, Timer, Trust};
use specfleet::error::Error;
use specfleet::fleet::{FleetContext, Patience, Turn};
use specfleet::methods::Calibrations;
use specfleet::pair::Pair;
use specfleet::work::WorkPlan;
use specfleet_config::Scenario;
use specfleet_engine::id::PhaseId;
use specfleet_engine::record::{BatchRecord, Provenance};
use specfleet_engine::wire::{AdmissionToken, FrameLimits};
use specfleet_ledger::{Meta, RunState, RunWriter};
use tokio::sync::mpsc;

use crate::common::*;

const SMALL: [&str; 8] = ["--prompts", "2", "--devices", "2", "--max-new-tokens", "8", "--methods", "hlm"];

#[test]
fn a_run_whose_devices_have_no_certificate_is_refused_beforehand() {
    let place = Place::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let files = [("certificate", certificate.clone()), ("key", key), ("client_authority", certificate)];
    let keys = files.map(|(name, text)| format!("pool.tls.{name}={}", place.file(&format!("{name}.pem"), text)));
    let set = keys.each_ref().map(|key| ["--set", key]);
    let output = place.try_run(&[&SMALL[..], &set.concat()].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.lines().count() == 1 && told.contains("pool.tls.client_authority: the devices of a run"), "{told}");
    assert!(output.stdout.is_empty() && place.runs().is_empty(), "{}", said(&output));
    // Without it they trust the pool's certificate, and the pool its own devices.
    place.run("out", &[&SMALL[..], &set[..2].concat()].concat()).assert_sound();
}

#[test]
fn a_pool_that_other_machines_reach_is_said() {
    let place = Place::new();
    let warned = |listen: &str| {
        let output = place.try_run(&[&SMALL[..], &["--set", &format!("pool.listen={listen}")]].concat());
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stderr).contains("warning: the pool listens at 0.0.0.0:")
    };
    assert!(warned("0.0.0.0:0"));
    assert!(!warned("127.0.0.1:0"));
}

/// Devices whose pool does not answer: a socket that nobody reads.
#[test]
fn a_fleet_that_does_not_reach_its_pool_ends_its_run() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut scenario = Scenario::shipped_default().expect("ships");
    for key in ["run.methods=\"hlm\"", "run.devices=2", "run.prompts=2"] {
        scenario.set(key).expect("valid");
    }
    let settings = scenario.settings().expect("valid");
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Pair::load(&settings.model).expect("ships");
    let work = WorkPlan::new(&settings, &pair).expect("ships");
    let resolved = Calibrations::new(&settings, &pair, folder.path(), &|_| {}).resolve().expect("it needs none");
    let outcome = actix::System::new().block_on(async {
        let connector = Connector::new(ConnectorOptions {
            server: silent.local_addr().expect("bound"),
            server_name: "localhost".to_owned(),
            trust: Trust::Pinned(vec![0].into()),
            identity: None,
            endpoints: 1,
            idle_timeout: Duration::from_secs(5),
            limits: FrameLimits::for_pair(pair.verifier.shape().vocab, pair.context()),
        });
        let shared = FleetContext {
            drafter: Drafter::start(pair.drafter.clone(), 16 << 20, 1).expect("a thread"),
            connector: connector.expect("a socket"),
            timer: Timer::start().expect("a thread"),
            clock: HostClock::start().expect("threads can be started"),
            admission: AdmissionToken::NONE,
            patience: Patience { say_after: Duration::from_millis(100), end_after: Duration::from_millis(500) },
            pair: pair.clone(),
        };
        let (events, _reports) = mpsc::channel(16);
        let (phase, method) = (PhaseId { method: 0, pass: 0 }, &resolved.methods[0]);
        let turn = Turn { settings: &settings, phase, method, work: &work, events };
        let assembled = tokio::time::timeout(Duration::from_secs(60), turn.assemble(&shared)).await;
        assembled.expect("it gives up by itself").map(drop)
    });
    let error = outcome.expect_err("nobody answers");
    assert!(matches!(error, Error::Unreachable { device: 0, .. }), "{error}");
    assert_eq!((error.exit_code(), error.to_string().lines().count()), (1, 1));
    assert!(error.to_string().starts_with("device 0 has not reached the pool in 0.5 s: "), "{error}");
}

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
