//! One live QUIC run with everything in it that may happen to devices and pool, and its journals replayed through their
//! machines: the same outputs, because nothing else enters them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_agent::{AgentOptions, Device, DeviceCall, Generate, Leave};
use specfleet::parts::device_settings;
use specfleet_engine::device::{self, DeviceMachine, DeviceSettings, OnRefused, Outages};
use specfleet_engine::id::{DeviceId, GenerationId, PhaseId, UploadId, VerifierId};
use specfleet_engine::pool::{self, PoolMachine};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::AdmissionToken;

use super::common::{Carrier, Live, settings, simulation_input, system};

/// A call of a device's machine. Records hold NaN, which equals nothing: outputs are compared as text.
enum ToldDevice {
    Handle(device::Input, String),
    Receive(UploadId, Span, u64, Time),
}

/// What each device's machine was told, and when.
type ToldDevices = BTreeMap<DeviceId, Vec<(Time, ToldDevice)>>;

/// A call of the pool's.
enum ToldPool {
    New,
    Handle(pool::Input),
    NextPhase(PhaseId),
}

/// What happened: the names of inputs and outputs.
type Seen = BTreeSet<String>;

fn note(seen: &mut Seen, text: &str) {
    seen.extend(text.split(['(', ' ']).next().map(str::to_owned));
}

/// What makes the devices of the run different: all but the first two may lose something.
fn own(number: u32, settings: &DeviceSettings, price: &DeviceSettings) -> DeviceSettings {
    let mut own = if number % 2 == 1 { price.clone() } else { settings.clone() };
    match number {
        2 => own.on_refused = OnRefused::Local,
        3 | 4 => own.outages = Some(Outages { every: Span::from_millis(150), length: Span::from_millis(40) }),
        5 => own.battery_nanojoules = 150_000_000,
        // Shorter than any way back: its first attempts are cancelled however fast the machine is, and patience doubles.
        6 => own.verdict_timeout = Span::from_millis(3),
        _ => {}
    }
    own
}

#[test]
fn the_journals_of_a_live_run_replay() {
    system(async {
        let (mut devices, mut pool) = (Seen::new(), Seen::new());
        for order in ["fifo", "deadline", "fair", "value"] {
            one_run(order, &mut devices, &mut pool).await;
        }
        let missing = |seen: &Seen, names: &[&str]| -> Vec<String> {
            names.iter().filter(|name| !seen.contains(**name)).map(|name| (*name).to_owned()).collect()
        };
        // Whether the pool refuses anybody depends on how fast the machine is.
        let of_devices = [
            "Join",
            "Start",
            "StepDone",
            "Sent",
            "Verdict",
            "Connected",
            "Timeout",
            "Leave",
            "Connect",
            "Ready",
            "Upload",
            "Cancel",
            "HangUp",
            "Gone",
            "Record",
            "Finished",
        ];
        assert_eq!(missing(&devices, &of_devices), [""; 0]);
        let of_pool = [
            "Upload",
            "Cancel",
            "Close",
            "Disconnected",
            "BatchDone",
            "VerifierFailed",
            "VerifierReady",
            "Closing",
            "Timeout",
            "phase",
            "Admitted",
            "Start",
            "Verdict",
            "Forget",
            "DropKv",
            "Restart",
            "Record",
            "VerifierRecord",
            "priced",
            "scaled",
        ];
        assert_eq!(missing(&pool, &of_pool), [""; 0]);
    });
}

async fn one_run(order: &str, devices_saw: &mut Seen, pool_saw: &mut Seen) {
    let order = format!("pool.order=\"{order}\"");
    let (settings, _) = settings(&[
        &order,
        "run.methods=[\"block\", \"price\"]",
        "run.devices=8",
        "run.verifiers=1",
        "run.prompts=16",
        "run.max_new_tokens=24",
        "device.link=\"good\"",
        "device.latency_target_ms=40",
        // One at a time: with eight devices somebody is refused on any machine.
        "pool.queue_jobs=1",
        "pool.max_wait_ms=4",
        "pool.batch_sequences=2",
        "pool.batch_time_ms=20",
        "pool.retry_after_ms=5",
        "pool.breaker_failures=1",
        "pool.breaker_cooldown_ms=30",
        "pool.price_step=5",
        "pool.price_target_load=0.01",
        "pool.price_period_ms=10",
        "pool.autoscale.min=1",
        "pool.autoscale.max=3",
        "pool.autoscale.target_busy=0.3",
        "pool.autoscale.cold_start_ms=20",
        "pool.autoscale.period_ms=40",
        "simulate.cost=\"fixed\"",
        "simulate.batch_ms=8",
    ]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = simulation_input(&settings, folder.path());
    let (pair, work) = input.texts().expect("models and prompts");
    let of_method = |index: usize| device_settings(&settings, &input.sizes, &input.resolved.methods[index]).remove(0);
    let all_settings: Vec<Arc<DeviceSettings>> =
        (0..8).map(|number| Arc::new(own(number, &of_method(0), &of_method(1)))).collect();

    // The run.
    let told_pool = Arc::new(Mutex::new(Vec::new()));
    let writing = told_pool.clone();
    let mut pool_settings = None;
    let live = Live::start(Carrier::Udp, &settings, pair, |options| {
        pool_settings = Some(options.settings.clone());
        options.journal = Some(Box::new(move |now, call, outputs| {
            let told = match call {
                verifier_pool::PoolCall::New => ToldPool::New,
                verifier_pool::PoolCall::Handle(input) => ToldPool::Handle(input.clone()),
                verifier_pool::PoolCall::NextPhase(phase) => ToldPool::NextPhase(phase),
            };
            writing.lock().expect("no panic").push((now, told, outputs.to_vec()));
        }));
    })
    .await;
    let told_devices: Arc<Mutex<ToldDevices>> = Arc::default();
    let mut actors = Vec::new();
    for (number, settings) in (0..).zip(&all_settings) {
        let writing = told_devices.clone();
        let options = AgentOptions {
            device: DeviceId(number),
            settings: settings.clone(),
            drafter: live.drafter.clone(),
            connector: live.connector.clone(),
            timer: live.timer.clone(),
            tokenizer_digest: pair.tokenizer.digest(),
            events: live.events.clone(),
            clock: live.clock.clone(),
            admission: AdmissionToken::NONE,
            shares_clock: false,
            in_a_row: 0,
            journal: Some(Arc::new(move |device, now, call: DeviceCall<'_>| {
                let told = match call {
                    DeviceCall::Handle { input, outputs } => ToldDevice::Handle(input.clone(), format!("{outputs:?}")),
                    DeviceCall::Receive { upload, pool, bits, arrives } => {
                        ToldDevice::Receive(upload, pool, bits, arrives)
                    }
                };
                writing.lock().expect("no panic").entry(device).or_default().push((now, told));
            })),
        };
        actors.push(Device::start(options).expect("valid settings"));
    }
    let running: Vec<_> = (0..)
        .zip(actors.clone())
        .map(|(number, device)| {
            let work = work.clone();
            actix::spawn(async move {
                for job in work.jobs.iter().filter(|job| job.prompt_id % 8 == number) {
                    let generation = GenerationId { method: 0, prompt: job.prompt_id, repetition: 0, pass: 0 };
                    let message = Generate { generation, data_set: 0, prompt: job.tokens.clone(), scheduled: None };
                    // Who has left runs nothing any more.
                    if !matches!(device.send(message).await, Ok(Ok(_))) {
                        break;
                    }
                }
            })
        })
        .collect();
    for (after, verifier) in [(150, 0), (100, 1), (50, 0)] {
        tokio::time::sleep(Duration::from_millis(after)).await;
        live.pool.kill_verifier(VerifierId(verifier)).await.expect("it is there");
    }
    actors[7].send(Leave).await.expect("it lives");
    live.pool.next_phase(PhaseId { method: 1, pass: 0 }).await.expect("the pool runs");
    for generations in running {
        generations.await.expect("no panic");
    }
    for device in &actors {
        // It may have left by itself.
        let _ = device.send(Leave).await;
    }
    drop(actors);
    live.stop().await;

    // The replay.
    for (device, told) in std::mem::take(&mut *told_devices.lock().expect("no panic")) {
        let mut machine = DeviceMachine::new(device, all_settings[device.0 as usize].clone()).expect("valid settings");
        for (index, (now, call)) in told.into_iter().enumerate() {
            match call {
                ToldDevice::Receive(upload, pool, bits, expected) => {
                    let left = machine.left_pool(now, upload, pool);
                    assert_eq!(machine.receive(left, bits).0, expected, "{device:?}, call {index}");
                }
                ToldDevice::Handle(input, expected) => {
                    note(devices_saw, &format!("{input:?}"));
                    let priced = match &input {
                        device::Input::Refused(refusal) => refusal.price > 0.0,
                        _ => false,
                    };
                    devices_saw.extend(priced.then(|| "priced".to_owned()));
                    let mut outputs = Vec::new();
                    machine.handle(now, input, &mut outputs);
                    assert_eq!(format!("{outputs:?}"), expected, "{device:?}, call {index}");
                    outputs.iter().for_each(|output| note(devices_saw, &format!("{output:?}")));
                }
            }
        }
    }
    let told = told_pool.lock().expect("no panic");
    let mut machine = PoolMachine::new(told[0].0, pool_settings.expect("set above"));
    for (index, (now, call, expected)) in told.iter().enumerate() {
        let mut outputs = Vec::new();
        match call {
            ToldPool::New => assert_eq!(index, 0, "it begins once"),
            ToldPool::Handle(input) => {
                note(pool_saw, &format!("{input:?}"));
                machine.handle(*now, input.clone(), &mut outputs);
            }
            ToldPool::NextPhase(phase) => {
                note(pool_saw, "phase");
                machine.next_phase(*now, *phase, &mut outputs);
            }
        }
        assert_eq!(&outputs, expected, "call {index} of the pool");
        for output in &outputs {
            note(pool_saw, &format!("{output:?}"));
            match output {
                pool::Output::Refused { price, .. } if *price > 0.0 => note(pool_saw, "priced"),
                pool::Output::Start(batch) if batch.verifier != VerifierId(0) => note(pool_saw, "scaled"),
                _ => {}
            }
        }
    }
}
