//! Devices against a pool in miniature, over real QUIC on this machine.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod cli;
mod common;
mod identity;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use device_agent::{
    AgentError, CutConnection, DeviceCall, DeviceJournal, DraftError, Drafter, Leave, LinkError, Ready, Trust,
};
use specfleet_engine::calibration::{MethodOverrides, ThresholdChoice};
use specfleet_engine::device::{DeviceMachine, DeviceSettings, Input, OnRefused, OnUnreachable, Outages};
use specfleet_engine::id::{DeviceId, UploadId};
use specfleet_engine::method::ImportanceStatistic;
use specfleet_engine::record::{FinishReason, Source};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::Goodbye;

fn plain() -> MethodOverrides {
    MethodOverrides::default()
}

fn joint(statistic: ImportanceStatistic) -> MethodOverrides {
    MethodOverrides {
        uncertainty_threshold: Some(ThresholdChoice::Number(0.1)),
        statistic: Some(statistic),
        layer: Some(1),
        kappa: Some(0.0),
        ..plain()
    }
}

#[test]
fn greedy_methods_write_the_verifiers_text() {
    system(async {
        let expected = greedy(&prompt(1), 24);
        for method in ["llm-only", "hlm", "dssd", "block"] {
            let (record, _) = run_one(settings(method, &plain(), 0.0), Behaviour::default(), 1).await;
            assert_eq!(record.tokens, expected, "{method}");
            assert!(record.uploads.verdicts > 0 && record.energy.cloud > 0);
        }
    });
}

#[test]
fn dssd_equals_hlm() {
    system(async {
        for number in 0..3 {
            let (hlm, _) = run_one(settings("hlm", &plain(), 1.0), Behaviour::default(), number).await;
            let (dssd, rounds) = run_one(settings("dssd", &plain(), 1.0), Behaviour::default(), number).await;
            assert_eq!(hlm.tokens, dssd.tokens);
            assert!(rounds.iter().any(|round| round.source == Source::Replaced), "nothing was resampled");
        }
    });
}

#[test]
fn slm_only_needs_no_pool() {
    system(async {
        let nowhere = connector(([127, 0, 0, 1], 9).into(), Trust::Fingerprint([0; 32]), Duration::from_secs(5));
        let mut rig = Rig::start(settings("slm-only", &plain(), 1.0), &drafter(), nowhere, 0);
        rig.device.send(Ready).await.unwrap().unwrap();
        let (record, rounds) = rig.generate(0).await;
        assert_eq!(record.unwrap().uploads.sent, 0);
        assert!(!rounds.is_empty() && rounds.iter().all(|round| round.source == Source::Skipped));
    });
}

#[test]
fn ui_hlm_runs_with_both_statistics_and_in_emulated_time() {
    system(async {
        for statistic in [ImportanceStatistic::Concentration, ImportanceStatistic::Lookahead] {
            let here = settings("ui-hlm", &joint(statistic), 1.0);
            let mut slow = here.clone();
            slow.profile.cost = declared();
            slow.link = link(true);
            let (here, _) = run_one(here, Behaviour::default(), 2).await;
            let (slow, rounds) = run_one(slow, Behaviour::default(), 2).await;
            assert_eq!(here.tokens, slow.tokens);
            assert!(rounds.iter().any(|round| round.importance.is_finite()), "{statistic:?}");
            assert!(rounds.iter().any(|round| round.source == Source::Skipped), "{statistic:?}");
            assert!(slow.uploads.verdicts > 0 && slow.airtime_up > Span::ZERO, "{statistic:?}");
            assert!(rounds.iter().filter_map(|round| round.upload).all(|cost| cost.downlink > Span::ZERO));
        }
    });
}

#[test]
fn a_cut_connection_changes_no_token() {
    system(async {
        for method in ["hlm", "block"] {
            let (whole, _) = run_one(settings(method, &plain(), 1.0), Behaviour::default(), 3).await;
            let pool = FakePool::start(Behaviour { delay: Duration::from_millis(30), ..Behaviour::default() });
            let mut rig = Rig::start(settings(method, &plain(), 1.0), &drafter(), pool.connector(), 0);
            rig.device.send(Ready).await.unwrap().unwrap();
            let (device, state) = (rig.device.clone(), pool.state.clone());
            tokio::spawn(async move {
                // While the pool has an upload and keeps its verdict.
                for uploads in [1, 3, 5] {
                    state.has_seen(uploads).await;
                    device.send(CutConnection).await.unwrap();
                }
            });
            let record = rig.generate(3).await.0.unwrap();
            assert_eq!(record.tokens, whole.tokens, "{method}");
            assert!(record.uploads.cancelled > 0, "never in mid-round: {:?}", record.uploads);
            assert!(pool.state.connections.load(Ordering::Relaxed) > 1);
        }
    });
}

/// The link is lost again and again; the device hangs up by itself and comes back, and its text stays.
#[test]
fn outages_change_no_token() {
    system(async {
        let (whole, _) = run_one(settings("hlm", &plain(), 1.0), Behaviour::default(), 3).await;
        let pool = FakePool::start(Behaviour { delay: Duration::from_millis(5), ..Behaviour::default() });
        let mut unlucky = settings("hlm", &plain(), 1.0);
        unlucky.outages = Some(Outages { every: Span::from_millis(60), length: Span::from_millis(20) });
        let mut rig = Rig::start(unlucky, &drafter(), pool.connector(), 0);
        let record = rig.generate(3).await.0.unwrap();
        assert_eq!(record.tokens, whole.tokens);
        assert!(record.uploads.cancelled > 0, "never in mid-round: {:?}", record.uploads);
        assert!(pool.state.connections.load(Ordering::Relaxed) > 1);
    });
}

/// Whoever is told to leave ends what it does with a record, and is gone.
#[test]
fn a_device_that_leaves_ends_its_generation() {
    system(async {
        // The third verdict never comes.
        let pool = FakePool::start(Behaviour { drop_every: Some(3), ..Behaviour::default() });
        let patient = DeviceSettings { verdict_timeout: Span::from_millis(600_000), ..settings("hlm", &plain(), 1.0) };
        let mut rig = Rig::start(patient, &drafter(), pool.connector(), 0);
        rig.device.send(Ready).await.unwrap().unwrap();
        let (device, state) = (rig.device.clone(), pool.state.clone());
        actix::spawn(async move {
            state.has_seen(3).await;
            device.send(Leave).await.unwrap();
        });
        let (record, rounds) = rig.generate(3).await;
        let record = record.unwrap();
        assert_eq!((record.finish, record.tokens.len()), (FinishReason::Left, rounds.len()));
        assert_eq!((record.tokens.len(), record.uploads.cancelled), (2, 1), "{:?}", record.uploads);
        assert!(rig.events.recv().await.is_none(), "the actor has stopped");
        assert!(rig.device.send(Ready).await.is_err());
    });
}

#[test]
fn an_empty_battery_ends_a_device() {
    system(async {
        let (whole, _) = run_one(settings("hlm", &plain(), 1.0), Behaviour::default(), 3).await;
        let pool = FakePool::start(Behaviour::default());
        let mut weak = settings("hlm", &plain(), 1.0);
        weak.battery_nanojoules = (whole.energy.device + whole.energy.radio) / 4;
        let mut rig = Rig::start(weak, &drafter(), pool.connector(), 0);
        let record = rig.generate(3).await.0.unwrap();
        assert_eq!(record.finish, FinishReason::Battery);
        assert!(whole.tokens.starts_with(&record.tokens) && record.tokens.len() < whole.tokens.len());
        assert!(rig.events.recv().await.is_none(), "the actor has stopped");
    });
}

#[test]
fn a_refused_upload_can_end_locally() {
    system(async {
        let mut local = settings("hlm", &plain(), 1.0);
        local.on_refused = OnRefused::Local;
        let refusing = Behaviour { refuse_every: Some(3), ..Behaviour::default() };
        let (record, rounds) = run_one(local, refusing, 4).await;
        let refused = rounds.iter().filter(|round| round.source == Source::Refused).count();
        assert!(refused > 0 && refused as u64 == record.uploads.refused);
        assert!(rounds.iter().all(|round| round.attempts() == 1));
    });
}

#[test]
fn refusals_and_lost_verdicts_change_no_token() {
    system(async {
        for method in ["hlm", "dssd", "block"] {
            let (whole, _) = run_one(settings(method, &plain(), 1.0), Behaviour::default(), 4).await;
            let refusing = Behaviour { refuse_every: Some(3), ..Behaviour::default() };
            let (refused, rounds) = run_one(settings(method, &plain(), 1.0), refusing, 4).await;
            assert_eq!(refused.tokens, whole.tokens, "{method}");
            assert!(refused.uploads.refused > 0 && rounds.iter().any(|round| round.attempts() > 1));
            let forgetful = Behaviour { drop_every: Some(4), ..Behaviour::default() };
            let mut impatient = settings(method, &plain(), 1.0);
            impatient.verdict_timeout = Span::from_millis(150);
            let (resent, _) = run_one(impatient, forgetful, 4).await;
            assert_eq!(resent.tokens, whole.tokens, "{method}");
            assert!(resent.uploads.cancelled > 0);
        }
    });
}

#[test]
fn without_a_pool_a_device_goes_on_alone_or_fails_as_told() {
    system(async {
        let nowhere = || connector(([127, 0, 0, 1], 9).into(), Trust::Fingerprint([0; 32]), Duration::from_millis(300));
        let with = |choice| {
            let mut settings = settings("hlm", &plain(), 1.0);
            settings.on_unreachable = choice;
            settings
        };
        let mut local = Rig::start(with(OnUnreachable::Local), &drafter(), nowhere(), 0);
        let (record, rounds) = local.generate(0).await;
        assert_ne!(record.unwrap().finish, FinishReason::Failed);
        assert!(!rounds.is_empty() && rounds.iter().all(|round| round.source == Source::Fallback));
        let mut failing = Rig::start(with(OnUnreachable::Fail), &drafter(), nowhere(), 0);
        assert_eq!(failing.generate(0).await.0.unwrap().finish, FinishReason::Failed);
    });
}

#[test]
fn what_cannot_get_better_is_a_typed_error() {
    system(async {
        let pool = FakePool::start(Behaviour { other_tokenizer: true, ..Behaviour::default() });
        let rig = Rig::start(settings("hlm", &plain(), 1.0), &drafter(), pool.connector(), 0);
        let refused = rig.device.send(Ready).await.unwrap();
        assert!(matches!(refused, Err(AgentError::Link(LinkError::Goodbye(Goodbye::Tokenizer)))), "{refused:?}");

        let stranger = connector(pool.address, Trust::Fingerprint([1; 32]), Duration::from_secs(5));
        let rig = Rig::start(settings("hlm", &plain(), 1.0), &drafter(), stranger, 0);
        let refused = rig.device.send(Ready).await.unwrap();
        assert!(matches!(refused, Err(AgentError::Link(LinkError::Handshake(_)))), "{refused:?}");

        // Room for one page of the arena, which holds the prompt's first tokens at most.
        let small = Drafter::start(pair().drafter.clone(), 64 << 10, 1).unwrap();
        let mut rig = Rig::start(settings("slm-only", &plain(), 1.0), &small, pool.connector(), 0);
        let (failed, rounds) = rig.generate(0).await;
        assert!(matches!(failed, Err(AgentError::Draft(DraftError::Model(_)))), "{failed:?}");
        assert!(rounds.is_empty());
    });
}

#[test]
fn devices_that_share_the_drafter_write_what_each_writes_alone() {
    system(async {
        let pool = FakePool::start(Behaviour::default());
        let drafter = drafter();
        let start = |number| {
            let settings = settings("ui-hlm", &joint(ImportanceStatistic::Concentration), 1.0);
            Rig::start(settings, &drafter, pool.connector(), number)
        };
        let mut alone = Vec::new();
        for number in 0..8 {
            alone.push(start(number).generate(number).await.0.unwrap().tokens);
        }
        let together: Vec<_> = (0..8)
            .map(|number| {
                let mut rig = start(number + 8);
                actix::spawn(async move { rig.generate(number).await.0.unwrap().tokens })
            })
            .collect();
        for (device, alone) in together.into_iter().zip(alone) {
            assert_eq!(device.await.unwrap(), alone);
        }
    });
}

/// A machine that is told the same at the same times asks for the same: nothing else enters it.
#[test]
fn a_journal_of_a_live_run_replays() {
    system(async {
        let mut block = settings("block", &plain(), 1.0);
        block.profile.cost = declared();
        block.link = link(true);
        block.verdict_timeout = Span::from_millis(150);
        let refusing = || Behaviour { refuse_every: Some(5), drop_every: Some(4), price: 0.5, ..Behaviour::default() };
        let seen = replay(block.clone(), refusing(), None).await;
        assert!(["Refused", "Verdict", "Timeout", "Sent"].iter().all(|name| seen.contains(*name)), "{seen:?}");
        let mut local = block.clone();
        (local.on_refused, local.latency_target) = (OnRefused::Local, Span::from_millis(30));
        replay(local, refusing(), None).await;
        let mut unlucky = settings("hlm", &plain(), 1.0);
        unlucky.outages = Some(Outages { every: Span::from_millis(60), length: Span::from_millis(20) });
        let slow = || Behaviour { delay: Duration::from_millis(5), ..Behaviour::default() };
        let seen = replay(unlucky, slow(), None).await;
        assert!(seen.contains("HangUp") && seen.contains("Connected"), "{seen:?}");
        let seen = replay(settings("hlm", &plain(), 1.0), slow(), Some(Duration::from_millis(60))).await;
        assert!(seen.contains("Leave") && seen.contains("Gone") && seen.contains("Finished"), "{seen:?}");
        let mut weak = block;
        weak.battery_nanojoules = 20_000_000;
        let seen = replay(weak, refusing(), None).await;
        assert!(seen.contains("Gone") && !seen.contains("Leave"), "{seen:?}");
    });
}

/// Runs a generation, after some time of which the device may be told to leave, and replays its journal; returns the names
/// of all inputs and outputs.
async fn replay(settings: DeviceSettings, behaviour: Behaviour, leaves: Option<Duration>) -> BTreeSet<String> {
    enum Told {
        Handle(Input, String),
        Receive(UploadId, Span, u64, Time),
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let writing = Arc::clone(&told);
    let journal: DeviceJournal = Arc::new(move |_, now, call| {
        let call = match call {
            // Records hold NaN, which equals nothing: compared as text.
            DeviceCall::Handle { input, outputs } => Told::Handle(input.clone(), format!("{outputs:?}")),
            DeviceCall::Receive { upload, pool, bits, arrives } => Told::Receive(upload, pool, bits, arrives),
        };
        writing.lock().unwrap().push((now, call));
    });
    let pool = FakePool::start(behaviour);
    let mut rig = Rig::start_with(settings.clone(), &drafter(), pool.connector(), 0, Some(journal));
    if let Some(after) = leaves {
        rig.device.send(Ready).await.unwrap().unwrap();
        let device = rig.device.clone();
        actix::spawn(async move {
            tokio::time::sleep(after).await;
            device.send(Leave).await.unwrap();
        });
    }
    rig.generate(5).await.0.unwrap();

    let mut machine = DeviceMachine::new(DeviceId(0), Arc::new(settings)).unwrap();
    let mut seen = BTreeSet::new();
    let mut note = |text: String| seen.extend(text.split(['(', ' ']).next().map(str::to_owned));
    for (now, call) in told.lock().unwrap().drain(..) {
        match call {
            Told::Handle(input, expected) => {
                let mut outputs = Vec::new();
                note(format!("{input:?}"));
                machine.handle(now, input, &mut outputs);
                assert_eq!(format!("{outputs:?}"), expected);
                outputs.iter().for_each(|output| note(format!("{output:?}")));
            }
            Told::Receive(upload, pool, bits, expected) => {
                let left = machine.left_pool(now, upload, pool);
                assert_eq!(machine.receive(left, bits).0, expected);
            }
        }
    }
    seen
}

#[test]
fn a_device_runs_one_generation_after_another() {
    system(async {
        let pool = FakePool::start(Behaviour::default());
        let mut rig = Rig::start(settings("block", &plain(), 0.0), &drafter(), pool.connector(), 0);
        for number in 0..3 {
            assert_eq!(rig.generate(number).await.0.unwrap().tokens, greedy(&prompt(number), 24));
        }
        assert_eq!(pool.state.connections.load(Ordering::Relaxed), 1);
    });
}
