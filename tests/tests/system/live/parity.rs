//! The live actors over a network in memory, and the simulator with the same models: identical decision records.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use device_agent::DeviceEvent;
use specfleet::fleet::{FleetContext, Patience, Turn};
use specfleet::progress::{Progress, Ui};
use specfleet::simulate::{SimulateOptions, SimulationInput, simulate};
use specfleet_config::Settings;
use specfleet_engine::id::{GenerationId, PhaseId};
use specfleet_engine::method::Method;
use specfleet_engine::record::{GenerationRecord, RoundRecord, Source as Origin};
use specfleet_ledger::RunReader;
use verifier_pool::PoolEvent;

use super::common::{Carrier, Live, settings, simulation_input, system};

/// By generation: its record and its rounds.
type Records = BTreeMap<GenerationId, (GenerationRecord, Vec<RoundRecord>)>;

fn compared(temperature: &str) {
    let temperature = format!("run.temperature={temperature}");
    let (settings, scenario) = settings(&[
        &temperature,
        "run.methods=\"all\"",
        "run.devices=3",
        "run.verifiers=1",
        "run.prompts=6",
        "run.max_new_tokens=14",
        "device.link=\"good\"",
        // A busy machine must not make uploads late.
        "device.verdict_timeout_ms=200000",
        "pool.idle_timeout_seconds=60",
        "simulate.cost=\"fixed\"",
        "simulate.batch_ms=2",
    ]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = simulation_input(&settings, folder.path());
    let simulated = simulated(&settings, scenario, &input, folder.path());
    let methods = input.resolved.methods.clone();
    system(async move {
        let live = live(&settings, &input).await;
        assert_eq!(live.len(), methods.len() * 6);
        assert_eq!(live.keys().collect::<Vec<_>>(), simulated.keys().collect::<Vec<_>>());
        for (id, found) in &live {
            let method = &methods[usize::from(id.method)];
            assert_eq!(decisions(method, found), decisions(method, &simulated[id]), "{}, {id:?}", method.name);
        }
        // There was something to decide.
        let sources = |origin| live.values().flat_map(|(_, rounds)| rounds).filter(|r| r.source == origin).count();
        let all = [Origin::Skipped, Origin::Accepted, Origin::Replaced, Origin::Bonus, Origin::Verifier];
        assert!(all.into_iter().all(|origin| sources(origin) > 0));
    });
}

#[test]
fn the_live_actors_and_the_simulator_decide_alike() {
    compared("1");
}

#[test]
fn the_live_actors_and_the_simulator_decide_alike_when_greedy() {
    compared("0");
}

/// Everything but times, what follows from them (energy, the radio's state), and bytes. As text: NaN equals nothing.
fn decisions(method: &Method, (record, rounds): &(GenerationRecord, Vec<RoundRecord>)) -> Vec<String> {
    let GenerationRecord { id, device, data_set, prompt_tokens, tokens, finish, counts, uploads, .. } = record;
    let mut lines = vec![format!("{id:?} {device:?} {data_set} {prompt_tokens} {tokens:?} {finish:?} {uploads:?}")];
    // How far a device gets with drafting ahead depends on how long it waits.
    if !method.draft_ahead {
        lines.push(format!("{counts:?}"));
    }
    for round in rounds {
        let RoundRecord { position, token, draft, rejections, source, reason, .. } = round;
        let signals =
            [round.uncertainty, round.importance, round.importance_threshold, round.draft_probability, round.price];
        lines.push(format!(
            "{position} {token} {draft} {rejections} {source:?} {reason:?} {:?}",
            signals.map(f32::to_bits)
        ));
        let cost = round.upload_cost();
        lines.push(format!("{} {} {}", cost.attempts, cost.uplink_bits, cost.verify.fed_tokens));
    }
    lines
}

fn simulated(settings: &Settings, scenario: String, input: &SimulationInput, folder: &Path) -> Records {
    let progress = Progress::new(Ui::None);
    let options = SimulateOptions {
        settings,
        scenario,
        ledger: Some(folder),
        out: None,
        turn: 0,
        threads: 2,
        progress: &progress,
        interrupted: &AtomicBool::new(false),
    };
    let run = simulate(input, options).expect("runs").folder.expect("it is kept");
    let reader = RunReader::open(&run).expect("a run");
    let mut records = Records::new();
    for record in reader.generations() {
        let record = record.expect("readable");
        let rounds = reader.rounds(record.id).expect("readable");
        records.insert(record.id, (record, rounds));
    }
    records
}

async fn live(settings: &Settings, input: &SimulationInput) -> Records {
    let (pair, work) = input.texts().expect("models and prompts");
    let live = Live::start(Carrier::Memory, settings, pair, |_| {}).await;
    let shared = FleetContext {
        pair: pair.clone(),
        drafter: live.drafter.clone(),
        connector: live.connector.clone(),
        timer: live.timer.clone(),
        clock: live.clock.clone(),
        admission: specfleet_engine::wire::AdmissionToken::NONE,
        patience: Patience::OF_A_RUN,
    };
    let progress = Progress::new(Ui::None);
    for (index, method) in input.resolved.methods.iter().enumerate() {
        let phase = PhaseId { method: index as u16, pass: 0 };
        let turn = Turn { settings, phase, method, work, events: live.events.clone() };
        turn.run(&shared, progress.phase(&method.name, work.jobs.len())).await.expect("it runs");
    }
    drop(shared);
    let status = live.pool.status().await.expect("the pool runs");
    assert_eq!(status.counts.sent, status.counts.verdicts, "{:?}", status.counts);
    assert_eq!((status.outstanding, status.sessions), (verifier_pool::Outstanding::default(), 0));
    let (reports, records) = live.stop().await;
    let mut rounds: BTreeMap<GenerationId, Vec<RoundRecord>> = BTreeMap::new();
    let mut all = Records::new();
    for report in reports {
        match report {
            DeviceEvent::Round { generation, record, .. } => rounds.entry(generation).or_default().push(record),
            DeviceEvent::Finished(record) => {
                let rounds = rounds.remove(&record.id).unwrap_or_default();
                all.insert(record.id, (*record, rounds));
            }
        }
    }
    let spent: u64 = records
        .iter()
        .map(|event| match event {
            PoolEvent::Batch(batch) => batch.nanojoules,
            PoolEvent::Verifier(_) => 0,
        })
        .sum();
    assert_eq!(all.values().map(|(record, _)| record.energy.cloud).sum::<u64>(), spent, "energy closes");
    all
}
