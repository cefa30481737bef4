//! What is known of a run before it begins: the first version of its `meta.json`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use specfleet_config::Settings;
use specfleet_engine::record::{ACCOUNTING, RunClock};
use specfleet_ledger::{Machine, Meta, RunKind, RunState, SCHEMA};

use crate::inputs::inputs;
use crate::methods::Resolved;
use crate::pool_cost;

/// The meta data of a live run, unless the caller says otherwise.
pub(crate) fn meta_of_run(settings: &Settings, scenario: String, resolved: &Resolved, data_sets: &[String]) -> Meta {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Meta {
        schema: SCHEMA,
        run: run_name(now),
        id: None,
        state: RunState::Running,
        kind: RunKind::Live,
        pid: std::process::id(),
        started: now.as_secs(),
        ended: None,
        scenario,
        scenario_hash: settings.scenario_hash(),
        seed: settings.run.seed,
        repeat: settings.run.repeat,
        seeds: settings.run.seeds,
        versions: [("specfleet", env!("CARGO_PKG_VERSION"))].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        machine: Machine::detect(),
        methods: resolved.methods.clone(),
        data_sets: data_sets.to_vec(),
        accounting: ACCOUNTING,
        pool_cost: pool_cost::name(None).to_owned(),
        clock: RunClock::Host,
        devices: settings.run.devices,
        verifiers: u32::from(settings.run.verifiers),
        calibration: serde_json::to_value(&resolved.calibrations).ok().filter(|_| !resolved.calibrations.is_empty()),
        faults_injected: 0,
        disturbance: None,
        noise: None,
        standstills: Vec::new(),
        wall_seconds: None,
        store: String::new(),
        tags: Vec::new(),
        imported_from: None,
        scorers: Vec::new(),
        inputs: inputs(settings),
        manifest: None,
    }
}

/// A name that sorts by time and that two runs started in the same second do not share: `20261124-014210-1f3a`.
fn run_name(now: Duration) -> String {
    let salt = (now.subsec_nanos() ^ std::process::id().rotate_left(8)) & 0xffff;
    match time::OffsetDateTime::from_unix_timestamp(now.as_secs() as i64) {
        Ok(t) => format!(
            "{:04}{:02}{:02}-{:02}{:02}{:02}-{salt:04x}",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
        Err(_) => format!("{}-{salt:04x}", now.as_secs()),
    }
}
