//! Random operations on the bare machines: whatever a driver or a peer says, in whatever order, nothing panics, nothing
//! grows without bound, and every upload that arrived has ended or is still there.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use specfleet_engine::device::{
    self, DeviceMachine, Lookback, NextToken, OnRefused, Outages, Refusal, Signals, Start, Step, StepResult, Verdict,
};
use specfleet_engine::id::{ConnectionId, DeviceId, GenerationId, PhaseId, UploadId, VerifierId};
use specfleet_engine::method::ImportanceStatistic;
use specfleet_engine::pool::{
    self, Autoscale, Breaker, ItemOutcome, JobKind, JobRequest, PoolMachine, PoolSettings, PriceUpdate, QueueOrder,
    RefuseReason, SessionKey,
};
use specfleet_engine::record::{ACCOUNTING, VerifyCost};
use specfleet_engine::time::{Span, Time};
use specfleet_tests::setups::{price, small, zoo};

fn token() -> impl Strategy<Value = Option<u32>> {
    proptest::option::of(0u32..6)
}

fn session() -> impl Strategy<Value = SessionKey> {
    (0u64..3, 0u32..3).prop_map(|(connection, session)| SessionKey { connection: ConnectionId(connection), session })
}

fn small_or_any() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..40, 1 => any::<u32>()]
}

fn job() -> impl Strategy<Value = JobKind> {
    prop_oneof![
        (any::<u8>(), any::<bool>()).prop_map(|(drafts, bonus)| JobKind::Judge { drafts: drafts % 10, bonus }),
        small_or_any().prop_map(|left| JobKind::Write { left }),
    ]
}

fn outcome() -> impl Strategy<Value = ItemOutcome> {
    (any::<u8>(), token(), any::<bool>()).prop_map(|(accepted, next, malformed)| ItemOutcome {
        accepted,
        next,
        malformed,
    })
}

fn pool_input() -> impl Strategy<Value = pool::Input> {
    let risk = prop_oneof![any::<f32>(), 0.0f32..1.0];
    let wanted = proptest::option::of((0u64..50_000).prop_map(Time));
    let upload = (session(), 0u32..6, small_or_any(), small_or_any(), job(), risk, wanted).prop_map(
        |(session, upload, base, catch_up, kind, risk, wanted)| {
            let upload = UploadId(upload);
            pool::Input::Upload(JobRequest {
                session,
                upload,
                base,
                catch_up,
                kind,
                risk,
                deadline: Time(10_000),
                wanted,
            })
        },
    );
    let done =
        (0u16..4, 0u64..30, proptest::collection::vec(outcome(), 0..5)).prop_map(|(verifier, batch, outcomes)| {
            let verifier = VerifierId(verifier);
            pool::Input::BatchDone { verifier, batch, waited: Span(1), compute: Span(7), outcomes }
        });
    prop_oneof![
        6 => upload,
        6 => done,
        1 => (session(), 0u32..6).prop_map(|(session, upload)| pool::Input::Cancel { session, upload: UploadId(upload) }),
        1 => session().prop_map(pool::Input::Close),
        1 => (0u64..3).prop_map(|c| pool::Input::Disconnected(ConnectionId(c))),
        1 => (0u16..4).prop_map(|v| pool::Input::VerifierFailed(VerifierId(v))),
        1 => (0u16..4).prop_map(|v| pool::Input::VerifierReady(VerifierId(v))),
        2 => Just(pool::Input::Timeout),
    ]
}

fn device_input() -> impl Strategy<Value = Feed> {
    let next = prop_oneof![
        Just(NextToken::None),
        (0u32..6).prop_map(NextToken::Replacement),
        (0u32..6).prop_map(NextToken::Resampled),
        (0u32..6).prop_map(NextToken::Bonus),
    ];
    let verdict = (0u32..12, any::<u8>(), next, any::<bool>()).prop_map(|(upload, accepted, next, more)| {
        Feed::Say(device::Input::Verdict(Verdict {
            upload: UploadId(upload),
            accepted: accepted % 10,
            next,
            more,
            cost: VerifyCost {
                queue_wait: Span(1),
                batch_wait: Span(1),
                compute: Span(1),
                fed_tokens: 1,
                nanojoules: 5,
                paper_nanojoules: 2,
            },
            price: 0.0,
            bytes: 10,
            downlink: Span(1),
        }))
    });
    let refused = (0u32..12, any::<bool>()).prop_map(|(upload, last)| {
        let reason = if last { RefuseReason::TooLong } else { RefuseReason::QueueFull };
        Feed::Say(device::Input::Refused(Refusal {
            upload: UploadId(upload),
            reason,
            retry_after: Span(3),
            price: 0.0,
            downlink: Span(1),
        }))
    });
    prop_oneof![
        2 => (0u32..20, 1u32..70).prop_map(|(prompt, tokens)| Feed::Say(device::Input::Start(Start {
            generation: GenerationId { method: 0, prompt, repetition: 0, pass: 0 },
            data_set: 0,
            prompt_tokens: tokens,
            scheduled: Time(0),
        }))),
        8 => (0u32..6, any::<f32>(), any::<bool>()).prop_map(|(token, statistic, honest)| Feed::Answer { token, statistic, honest }),
        6 => verdict,
        2 => refused,
        3 => Just(Feed::Say(device::Input::Connected)),
        1 => Just(Feed::Say(device::Input::Disconnected)),
        6 => Just(Feed::Say(device::Input::Timeout)),
        1 => Just(Feed::Say(device::Input::StepFailed)),
        1 => Just(Feed::Say(device::Input::Join)),
        1 => prop_oneof![9 => Just(Feed::Say(device::Input::Timeout)), 1 => Just(Feed::Say(device::Input::Leave))],
        1 => (0u32..12, any::<u32>()).prop_map(|(upload, bytes)| Feed::Say(device::Input::Sent { upload: UploadId(upload), bytes })),
    ]
}

/// What to tell a device machine.
#[derive(Clone, Debug)]
enum Feed {
    Say(device::Input),
    /// Answer the last step, as it was asked or off by one.
    Answer {
        token: u32,
        statistic: f32,
        honest: bool,
    },
}

fn pool_settings() -> impl Strategy<Value = PoolSettings> {
    let order = prop_oneof![
        Just(QueueOrder::Fifo),
        Just(QueueOrder::Deadline),
        Just(QueueOrder::Fair),
        Just(QueueOrder::Value)
    ];
    let autoscale = (1u16..3, 1u16..5, 0.1f32..1.0, 0u64..3_000, 0u64..3_000).prop_map(
        |(min, max, target_busy, cold_start, period)| Autoscale {
            min,
            max,
            target_busy,
            cold_start: Span(cold_start),
            period: Span(period),
        },
    );
    let kv_tokens = prop_oneof![Just(64u64), Just(200)];
    (order, 0u64..3_000, 0u32..3, proptest::option::of(autoscale), kv_tokens, 0u64..3).prop_map(
        |(order, batch_time, failures, autoscale, kv_tokens, max_wait)| PoolSettings {
            order,
            batch_time: Span(batch_time),
            breaker: Breaker { failures, cooldown: Span(2_000) },
            price: PriceUpdate { step: 0.5, target_load: 0.5, period: Span(3_000) },
            autoscale,
            kv_tokens,
            max_wait: Span(max_wait * 500),
            ..small(zoo()[0].clone(), 0, 1).pool
        },
    )
}

/// What the verifiers hold if they do as they are told: tokens by verifier and session.
#[derive(Default)]
struct Caches(BTreeMap<(VerifierId, SessionKey), u32>);

impl Caches {
    fn follow(&mut self, output: &pool::Output) -> Result<(), TestCaseError> {
        match output {
            pool::Output::DropKv { verifier, session } => {
                prop_assert!(self.0.remove(&(*verifier, *session)).is_some(), "what is dropped was there");
            }
            pool::Output::Start(batch) => {
                for &session in &batch.evict {
                    prop_assert!(self.0.remove(&(batch.verifier, session)).is_some(), "what is evicted was there");
                }
                for item in &batch.items {
                    let drafts = match item.kind {
                        JobKind::Judge { drafts, bonus } => u32::from(drafts) - u32::from(!bonus),
                        JobKind::Write { .. } => 0,
                    };
                    let held = self.0.insert((batch.verifier, item.session), item.committed + drafts);
                    prop_assert!(item.keep <= held.unwrap_or(0), "{item:?} keeps what is not there: {held:?}");
                    prop_assert!(item.keep < item.committed);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_takes_anything(
        setup in pool_settings(),
        inputs in proptest::collection::vec((pool_input(), 0u64..2_000), 0..120),
    ) {
        let (most_jobs, most_sessions) = (setup.queue_jobs, 3 * setup.sessions_per_connection as usize);
        let (replicas, capacity) = (setup.replicas(), setup.kv_tokens);
        let mut machine = PoolMachine::new(Time(0), setup);
        let mut caches = Caches::default();
        // Items of the batches under way, by verifier and batch.
        let mut running = BTreeMap::new();
        let mut now = Time(0);
        for (mut input, elapsed) in inputs {
            now = now + Span(elapsed);
            let mut out = Vec::new();
            // Most answers are to a batch that there is.
            if let pool::Input::BatchDone { verifier, batch, outcomes, .. } = &mut input
                && *batch % 8 > 0
                && let Some((&(to, number), &items)) = running.iter().nth(*batch as usize % running.len().max(1))
            {
                (*verifier, *batch) = (to, number);
                outcomes.resize(items, ItemOutcome { accepted: 1, next: Some(1), malformed: false });
                running.remove(&(to, number));
            }
            // What fails loses what it holds.
            if let pool::Input::VerifierFailed(verifier) = input {
                caches.0.retain(|&(holder, _), _| holder != verifier);
                running.retain(|&(holder, _), _| holder != verifier);
            }
            machine.handle(now, input, &mut out);
            for output in &out {
                caches.follow(output)?;
                if let pool::Output::Start(batch) = output {
                    running.insert((batch.verifier, batch.batch), batch.items.len());
                }
            }
            for verifier in (0..replicas).map(VerifierId) {
                let held = caches.0.iter().filter(|((holder, _), _)| *holder == verifier).map(|(_, &tokens)| tokens);
                prop_assert!(held.map(u64::from).sum::<u64>() <= capacity, "the arena overflows");
            }
            let (jobs, tokens, running) = machine.outstanding();
            prop_assert!(jobs <= most_jobs && machine.sessions() <= most_sessions);
            prop_assert!(jobs > 0 || tokens == 0, "permits are back");
            let counts = machine.counts();
            let ended = counts.verdicts + counts.refused + counts.cancelled;
            prop_assert!(ended <= counts.sent && counts.sent <= ended + u64::from(jobs) + running as u64);
        }
        let mut out = Vec::new();
        machine.next_phase(now, PhaseId { method: 1, pass: 0 }, &mut out);
        for output in &out {
            if let pool::Output::VerifierRecord(account) = output {
                // A batch may be said to have computed for longer than the time that has passed.
                let (span, used) = (now.since(Time(0)), account.busy + account.off);
                prop_assert!(account.off <= span);
                prop_assert_eq!(account.idle, span - used);
            }
        }
    }

    #[test]
    fn a_device_takes_anything(
        method in 0usize..12,
        refused in prop_oneof![Just(OnRefused::Retry), Just(OnRefused::Wait), Just(OnRefused::Local)],
        battery in prop_oneof![Just(0u64), 1u64..200_000],
        outages in proptest::option::of((1u64..50_000, 1u64..50_000)),
        inputs in proptest::collection::vec((device_input(), 0u64..5_000), 0..150),
    ) {
        let method = zoo().into_iter().nth(method).unwrap_or_else(|| price(ImportanceStatistic::Lookahead));
        let mut settings = small(method, 0, 20).device;
        (settings.on_refused, settings.battery_nanojoules) = (refused, battery);
        settings.outages = outages.map(|(every, length)| Outages { every: Span(every), length: Span(length) });
        settings.latency_target = Span(battery);
        settings.end_tokens = vec![5];
        settings.vocab = 6;
        let mut machine = DeviceMachine::new(DeviceId(0), Arc::new(settings)).expect("valid");
        let (mut now, mut asked): (Time, Option<Step>) = (Time(0), None);
        let mut gone = false;
        for (feed, elapsed) in inputs {
            now = now + Span(elapsed);
            let input = match feed {
                Feed::Say(input) => input,
                Feed::Answer { token, statistic, honest } => {
                    let Some(step) = asked else { continue };
                    device::Input::StepDone(StepResult {
                        generation: step.generation,
                        position: step.position + u32::from(!honest),
                        rejections: step.rejections,
                        token,
                        signals: Signals {
                            statistic,
                            importance: statistic,
                            importance_threshold: 0.0,
                            draft_probability: 0.5,
                            gate_draw: 0.3,
                        },
                        payload_bits: 64,
                        lookback: Some(Lookback { importance: statistic, threshold: 0.0 }),
                    })
                }
            };
            let mut out = Vec::new();
            machine.handle(now, input, &mut out);
            prop_assert!(out.len() < 64, "a bounded answer to one input");
            prop_assert!(!gone || out.is_empty() && machine.poll_timeout().is_none(), "what is gone is silent");
            prop_assert!(machine.bytes() <= 1024);
            for output in out {
                match output {
                    device::Output::Step(step) => {
                        prop_assert!(step.keep < step.position);
                        asked = Some(step);
                    }
                    device::Output::Gone => gone = true,
                    device::Output::Finished(record) => {
                        let uploads = record.uploads;
                        prop_assert_eq!(uploads.sent, uploads.verdicts + uploads.refused + uploads.cancelled);
                        prop_assert_eq!(record.times.total(ACCOUNTING), record.ended.since(record.started));
                    }
                    _ => {}
                }
            }
        }
    }
}
