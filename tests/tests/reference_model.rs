//! Conservation, determinism and the device bound, over random interleavings of arrivals, verdicts, kills, disconnects,
//! timeouts and refusals. `World::run` itself checks that every upload ends once, every permit returns, every token is
//! committed once and in order, and that times and energies add up.

use proptest::prelude::*;
use specfleet_engine::device::OnUnreachable;
use specfleet_engine::pool::{Autoscale, Breaker, PoolSettings, PriceUpdate, QueueOrder};
use specfleet_engine::record::Source;
use specfleet_engine::time::{Span, Time};
use specfleet_tests::setups::{small, zoo};
use specfleet_tests::world::{Fault, Outcome, Setup, World};

/// What must not depend on timing: tokens, who wrote them, and which were uploaded.
fn decisions(outcome: &Outcome) -> Vec<(u32, Vec<u32>, Vec<Source>)> {
    outcome
        .generations
        .iter()
        .map(|(&prompt, (record, rounds))| (prompt, record.tokens.clone(), rounds.iter().map(|r| r.source).collect()))
        .collect()
}

fn fault() -> impl Strategy<Value = (Time, Fault)> {
    let kind = prop_oneof![
        (0u16..3).prop_map(Fault::KillVerifier),
        (0u32..3).prop_map(Fault::CutConnection),
        (0u32..3).prop_map(Fault::LoseVerdict),
    ];
    (0u64..300_000, kind).prop_map(|(at, fault)| (Time(at), fault))
}

/// The pool's policies, none of which may change a token.
#[derive(Clone, Copy, Debug)]
struct Policies {
    order: QueueOrder,
    batch_time: Span,
    breaker: Breaker,
    price: PriceUpdate,
    autoscale: Option<Autoscale>,
}

impl Policies {
    fn apply(self, pool: &mut PoolSettings) {
        let Policies { order, batch_time, breaker, price, autoscale } = self;
        *pool = PoolSettings { order, batch_time, breaker, price, autoscale, ..pool.clone() };
    }
}

fn policies() -> impl Strategy<Value = Policies> {
    let order = prop_oneof![
        Just(QueueOrder::Fifo),
        Just(QueueOrder::Deadline),
        Just(QueueOrder::Fair),
        Just(QueueOrder::Value)
    ];
    let scale = (1u16..3, 0u16..3, 0.1f32..1.0, 0u64..20_000, 500u64..20_000).prop_map(
        |(min, more, target_busy, cold_start, period)| Autoscale {
            min,
            max: min + more,
            target_busy,
            cold_start: Span(cold_start),
            period: Span(period),
        },
    );
    (
        order,
        prop_oneof![Just(0u64), 800u64..3_000],
        (0u32..3, 1u64..50_000),
        prop_oneof![Just(0.0f32), Just(0.5)],
        1_000u64..50_000,
        proptest::option::of(scale),
    )
        .prop_map(|(order, batch_time, (failures, cooldown), step, period, autoscale)| Policies {
            order,
            batch_time: Span(batch_time),
            breaker: Breaker { failures, cooldown: Span(cooldown) },
            price: PriceUpdate { step, target_load: 0.5, period: Span(period) },
            autoscale,
        })
}

fn setup_under_stress() -> impl Strategy<Value = (Setup, Setup)> {
    let zoo = zoo();
    (
        policies(),
        0..zoo.len(),
        proptest::collection::vec(fault(), 0..12),
        any::<u64>(),
        1u32..6,
        1u16..4,
        prop_oneof![Just(1u32), Just(2), Just(64)],
        prop_oneof![Just(24u64), Just(60), Just(10_000)],
        prop_oneof![Just(0.0f32), Just(1.0)],
    )
        .prop_map(
            move |(policies, method, faults, delays, devices, verifiers, queue_jobs, kv_tokens, temperature)| {
                let mut calm = small(zoo[method].clone(), 6, 12);
                calm.device.sampling.temperature = temperature;
                let mut rough = calm.clone();
                rough.faults = faults;
                rough.delays = delays;
                rough.devices = devices;
                rough.pool.verifiers = verifiers;
                rough.pool.queue_jobs = queue_jobs;
                rough.pool.kv_tokens = kv_tokens;
                rough.pool.queue_tokens = 40;
                policies.apply(&mut rough.pool);
                (calm, rough)
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_the_tokens_stay((calm, rough) in setup_under_stress()) {
        let expected = World::run(calm);
        let found = World::run(rough);
        prop_assert_eq!(decisions(&expected), decisions(&found));
        for batch in &found.batches {
            prop_assert!(batch.unclaimed_nanojoules <= batch.nanojoules);
        }
    }

    /// Without cancels, what the devices were billed is what the batches cost.
    #[test]
    fn shares_add_up_to_the_batches(
        method in 0usize..11,
        delays in any::<u64>(),
        devices in 1u32..8,
        policies in policies(),
    ) {
        let mut setup = small(zoo()[method].clone(), 8, 10);
        setup.delays = delays;
        setup.devices = devices;
        policies.apply(&mut setup.pool);
        let outcome = World::run(setup);
        let billed: u64 = outcome.generations.values().map(|(g, _)| g.energy.cloud).sum();
        let spent: u64 = outcome.batches.iter().map(|b| b.nanojoules).sum();
        let unclaimed: u64 = outcome.batches.iter().map(|b| b.unclaimed_nanojoules).sum();
        prop_assert_eq!(billed + unclaimed, spent);
        prop_assert_eq!(unclaimed, 0);
        for (generation, _) in outcome.generations.values() {
            prop_assert!(generation.energy.cloud_paper <= generation.energy.cloud);
        }
    }
}

#[test]
fn drafting_ahead_changes_time_and_nothing_else() {
    let with = World::run(small(specfleet_tests::setups::block(4, true), 20, 30));
    let without = World::run(small(specfleet_tests::setups::block(4, false), 20, 30));
    assert_eq!(decisions(&with), decisions(&without));
    let steps = |o: &Outcome| o.generations.values().map(|(g, _)| g.counts.draft_steps).sum::<u64>();
    assert!(steps(&with) > steps(&without), "something was drafted ahead");
}

#[test]
fn an_unreachable_pool_costs_tokens_only_where_the_scenario_says_so() {
    let mut setup = small(specfleet_tests::setups::hlm(), 3, 8);
    setup.device.retry.first = Span(5_000_000);
    setup.device.retry.last = Span(5_000_000);
    setup.device.unreachable_after = Span(10_000);
    setup.faults = (0..3).map(|device| (Time(20_000), Fault::CutConnection(device))).collect();
    let waits = World::run(setup.clone());
    setup.device.on_unreachable = OnUnreachable::Local;
    let local = World::run(setup.clone());
    let sources =
        |o: &Outcome| o.generations.values().flat_map(|(_, r)| r).filter(|r| r.source == Source::Fallback).count();
    assert_eq!(sources(&waits), 0);
    assert!(sources(&local) > 0);
    setup.device.on_unreachable = OnUnreachable::Fail;
    let failed = World::run(setup);
    assert!(failed.generations.values().any(|(g, _)| g.finish == specfleet_engine::record::FinishReason::Failed));
}

#[test]
fn a_device_machine_stays_small() {
    for method in zoo() {
        let name = method.name.clone();
        // 512 bytes with the one draft that most methods hold; lookahead and blocks hold more of them.
        let drafts = usize::from(method.block) * if method.draft_ahead { 2 } else { 1 } + 2;
        let bound = 480 + 32 * drafts.min(specfleet_engine::method::MAX_BLOCK + 2);
        let outcome = World::run(small(method, 6, 20));
        assert!(outcome.device_bytes <= bound, "{name}: {} bytes, bound {bound}", outcome.device_bytes);
    }
}

/// A job that kills every verifier it meets does not go round for ever.
#[test]
fn a_poisonous_job_is_refused_in_the_end() {
    use specfleet_engine::id::{ConnectionId, UploadId, VerifierId};
    use specfleet_engine::pool::{Input, JobKind, JobRequest, Output, PoolMachine, RefuseReason, SessionKey};
    let mut machine = PoolMachine::new(Time(0), small(specfleet_tests::setups::hlm(), 0, 1).pool);
    let mut out = Vec::new();
    let session = SessionKey { connection: ConnectionId(1), session: 1 };
    let kind = JobKind::Judge { drafts: 1, bonus: false };
    let request = JobRequest {
        session,
        upload: UploadId(1),
        base: 0,
        catch_up: 3,
        kind,
        risk: 0.0,
        deadline: Time(0),
        wanted: None,
    };
    machine.handle(Time(0), Input::Upload(request), &mut out);
    machine.handle(Time(1_000), Input::Timeout, &mut out);
    for kill in 0..100 {
        let Some(victim) = out.drain(..).find_map(|o| if let Output::Start(b) = o { Some(b.verifier) } else { None })
        else {
            break;
        };
        let now = Time(2_000 * (kill + 1));
        machine.handle(now, Input::VerifierFailed(victim), &mut out);
        for verifier in [0, 1] {
            machine.handle(now, Input::VerifierReady(VerifierId(verifier)), &mut out);
        }
        if out.iter().any(|o| matches!(o, Output::Refused { reason: RefuseReason::Malformed, .. })) {
            assert_eq!(machine.outstanding(), (0, 0, 0));
            return;
        }
    }
    panic!("the job is neither refused nor started");
}
