//! The pool's machine is told everything that matters: the journal of a live run, replayed, leads to the same outputs.

use std::sync::{Arc, Mutex};

use specfleet_engine::id::{PhaseId, UploadId, VerifierId};
use specfleet_engine::pool::{Autoscale, Breaker, Input, Output, PoolMachine, PriceUpdate, QueueOrder};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::ClientFrame;
use verifier_pool::PoolCall;

use crate::common::client::Client;
use crate::common::direct::{judge, key};
use crate::common::model::{Random, VOCAB, tiny};
use crate::common::world::{World, run};

enum Told {
    New,
    Handle(Input),
    NextPhase(PhaseId),
}

type Entries = Vec<(Time, Told, Vec<Output>)>;

#[test]
fn the_journal_replays_to_the_same_outputs() {
    run(async {
        let mut seen = Vec::new();
        for order in [QueueOrder::Fifo, QueueOrder::Deadline, QueueOrder::Fair, QueueOrder::Value] {
            seen.extend(replay(order).await);
        }
        let has = |what: &str| seen.iter().any(|name| name == what);
        for what in [
            "Upload",
            "Cancel",
            "Close",
            "Disconnected",
            "BatchDone",
            "VerifierFailed",
            "VerifierReady",
            "Closing",
            "Timeout",
            "a phase",
            "a refusal at a price",
            "a verdict at a price",
        ] {
            assert!(has(what), "no run saw {what}");
        }
    });
}

/// A live run under everything that the pool can do, and its replay; returns what happened.
async fn replay(order: QueueOrder) -> Vec<String> {
    let journal = Arc::new(Mutex::new(Entries::new()));
    let keep = journal.clone();
    let mut settings = None;
    let world = World::start(tiny(), |options| {
        let pool = &mut options.settings;
        (pool.order, pool.verifiers, pool.queue_jobs) = (order, 1, 2);
        (pool.max_wait, pool.batch_time) = (Span::from_millis(3), Span::from_millis(20));
        pool.breaker = Breaker { failures: 1, cooldown: Span::from_millis(8) };
        pool.price = PriceUpdate { step: 50.0, target_load: 0.001, period: Span::from_millis(2) };
        let (cold_start, period) = (Span::from_millis(2), Span::from_millis(5));
        pool.autoscale = Some(Autoscale { min: 1, max: 2, target_busy: 0.2, cold_start, period });
        settings = Some(options.settings.clone());
        options.journal = Some(Box::new(move |now, call, outputs| {
            let told = match call {
                PoolCall::New => Told::New,
                PoolCall::Handle(input) => Told::Handle(input.clone()),
                PoolCall::NextPhase(phase) => Told::NextPhase(phase),
            };
            keep.lock().expect("no panic").push((now, told, outputs.to_vec()));
        }));
    })
    .await;
    live(&world).await;
    world.stop().await;

    let journal = journal.lock().expect("no panic");
    let settings = settings.expect("set above");
    let mut machine = PoolMachine::new(journal[0].0, settings);
    let mut seen = Vec::new();
    for (index, (now, told, expected)) in journal.iter().enumerate() {
        let mut outputs = Vec::new();
        match told {
            Told::New => assert_eq!(index, 0),
            Told::Handle(input) => machine.handle(*now, input.clone(), &mut outputs),
            Told::NextPhase(phase) => machine.next_phase(*now, *phase, &mut outputs),
        }
        assert_eq!(&outputs, expected, "call {index} under {order:?}");
        seen.extend(match told {
            Told::New => None,
            Told::Handle(input) => format!("{input:?}").split(['(', ' ']).next().map(str::to_owned),
            Told::NextPhase(_) => Some("a phase".to_owned()),
        });
        seen.extend(outputs.iter().filter_map(|output| match output {
            Output::Refused { price, .. } if *price > 0.0 => Some("a refusal at a price".to_owned()),
            Output::Verdict { price, .. } if *price > 0.0 => Some("a verdict at a price".to_owned()),
            _ => None,
        }));
    }
    seen
}

/// Four devices at a time on a queue of two, with a cancel, two kills, a change of method and a lost connection.
async fn live(world: &World) {
    let mut random = Random(3);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(world).await);
    }
    for round in 0..8 {
        for (number, client) in clients.iter_mut().enumerate() {
            let mut upload =
                judge(&mut random, VOCAB, (round, round), (0, &[1, 2, 3 + number as u32]), key(number as u32, 3));
            (upload.risk, upload.wanted) = (number as f32, Some(Span::from_millis(5 * number as u64)));
            client.upload(&upload).await;
        }
        if round == 2 {
            clients[0].say(&ClientFrame::Cancel { session: round, upload: UploadId(round), at: None }).await;
        }
        if round == 3 || round == 5 {
            world.pool.kill_verifier(VerifierId(0)).await.expect("it is there");
        }
        if round == 4 {
            world.pool.next_phase(PhaseId { method: 1, pass: 0 }).await.expect("the pool runs");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            // A cancelled upload has no answer, or one that comes instead of a later one's.
            if round != 2 || number != 0 {
                client.hear().await.expect("an answer");
            }
            client.say(&ClientFrame::Close { session: round, at: None }).await;
        }
        if round == 6 {
            clients.pop();
        }
    }
}
