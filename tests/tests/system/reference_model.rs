//! Conservation, determinism and the device bound, over random interleavings of arrivals, verdicts, kills, disconnects,
//! timeouts and refusals. `World::run` itself checks that every upload ends once, every permit returns, every token is
//! committed once and in order, and that times and energies add up.

use proptest::prelude::*;
use specfleet_engine::device::{OnRefused, OnUnreachable, Outages};
use specfleet_engine::method::{ImportanceStatistic, Method};
use specfleet_engine::pool::{Autoscale, Breaker, PoolSettings, PriceUpdate, QueueOrder};
use specfleet_engine::record::{FinishReason, Source};
use specfleet_engine::time::{Span, Time};
use specfleet_tests::setups::{price, small, zoo};
use specfleet_tests::world::{Fault, Outcome, Setup, World};

/// One method of each kind, `price` included, whose decisions depend on timing.
fn all_methods() -> Vec<Method> {
    let mut methods = zoo();
    methods.extend([price(ImportanceStatistic::Concentration), price(ImportanceStatistic::Lookahead)]);
    methods
}

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

/// The pool's policies, none of which may change a token: in what order, how long batches may take, when a verifier gets a
/// rest, what the price does, how many verifiers are up.
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
        (pool.order, pool.batch_time, pool.breaker) = (order, batch_time, breaker);
        (pool.price, pool.autoscale) = (price, autoscale);
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
        (1u16..4, prop_oneof![Just(1u32), Just(2), Just(64)]),
        prop_oneof![Just(24u64), Just(60), Just(10_000)],
        prop_oneof![Just(0.0f32), Just(1.0)],
        (prop_oneof![Just(OnRefused::Retry), Just(OnRefused::Wait)], outages(), 0u64..20_000),
    )
        .prop_map(move |(policies, method, faults, delays, devices, sizes, kv_tokens, temperature, own)| {
            let mut calm = small(zoo[method].clone(), 6, 12);
            calm.device.sampling.temperature = temperature;
            let mut rough = calm.clone();
            rough.faults = faults;
            rough.delays = delays;
            rough.devices = devices;
            (rough.pool.verifiers, rough.pool.queue_jobs) = sizes;
            rough.pool.kv_tokens = kv_tokens;
            rough.pool.queue_tokens = 40;
            (rough.device.on_refused, rough.device.outages) = (own.0, own.1);
            rough.device.latency_target = Span(own.2);
            policies.apply(&mut rough.pool);
            (calm, rough)
        })
}

fn outages() -> impl Strategy<Value = Option<Outages>> {
    // A round takes some 10,000: with gaps much shorter than that nothing would ever get through.
    let (every, length) = (20_000u64..200_000, 1_000u64..100_000);
    proptest::option::of(
        (every, length).prop_map(|(every, length)| Outages { every: Span(every), length: Span(length) }),
    )
}

/// Everything that may end a generation early or change who writes a token.
fn setup_with_departures() -> impl Strategy<Value = Setup> {
    let methods = all_methods();
    let leaving = proptest::collection::vec((0u64..300_000, 0u32..5), 0..5);
    let refused = prop_oneof![Just(OnRefused::Retry), Just(OnRefused::Wait), Just(OnRefused::Local)];
    let unreachable = prop_oneof![Just(OnUnreachable::Wait), Just(OnUnreachable::Local), Just(OnUnreachable::Fail)];
    (
        0..methods.len(),
        proptest::collection::vec(fault(), 0..8),
        leaving,
        any::<u64>(),
        1u32..6,
        prop_oneof![Just(1u32), Just(2), Just(64)],
        (refused, unreachable, outages()),
        prop_oneof![Just(0u64), 1u64..2_000_000],
    )
        .prop_map(move |(method, faults, leaving, delays, devices, queue_jobs, on, battery)| {
            let mut setup = small(methods[method].clone(), 10, 12);
            setup.faults = faults;
            setup.faults.extend(leaving.into_iter().map(|(at, device)| (Time(at), Fault::Leave(device))));
            (setup.delays, setup.devices, setup.pool.queue_jobs) = (delays, devices, queue_jobs);
            (setup.device.on_refused, setup.device.on_unreachable, setup.device.outages) = on;
            setup.device.unreachable_after = Span(50_000);
            setup.device.battery_nanojoules = battery;
            setup
        })
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

    /// Whoever leaves, runs dry or is out of reach: the world's own checks hold, and the records say why they end.
    #[test]
    fn whoever_leaves_the_books_close(setup in setup_with_departures()) {
        let outcome = World::run(setup.clone());
        let lives = |device: u32| {
            outcome.generations.values().filter(move |(g, _)| g.device.0 == device).map(|(g, _)| g)
        };
        for device in 0..setup.devices {
            let mut by_time: Vec<_> = lives(device).collect();
            by_time.sort_by_key(|g| g.ended);
            let ended_early = by_time.iter().position(|g| g.finish.is_last());
            prop_assert!(ended_early.is_none_or(|at| at + 1 == by_time.len()), "nothing follows a last generation");
            if setup.device.battery_nanojoules == 0 {
                prop_assert!(by_time.iter().all(|g| g.finish != FinishReason::Battery));
                continue;
            }
            // Rest between generations is not in the records, so this is less than the battery has given.
            let drawn: u64 = by_time.iter().rev().skip(1).map(|g| g.energy.device + g.energy.radio).sum();
            let empty = drawn > setup.device.battery_nanojoules;
            prop_assert!(!empty || by_time.last().is_some_and(|g| g.finish.is_last()), "it ran on an empty battery");
        }
        let refused = outcome.generations.values().flat_map(|(_, r)| r).filter(|r| r.source == Source::Refused);
        for round in refused {
            prop_assert_eq!(setup.device.on_refused, OnRefused::Local);
            prop_assert!(round.reason.uploads() && round.upload_cost().downlink_bytes == 0);
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
    for method in all_methods() {
        let name = method.name.clone();
        // 592 bytes with the one draft that most methods hold; blocks and lookahead hold more of them. What only some
        // settings need (here the last price) is 64 bytes more.
        let extras = if name == "price" { 64 } else { 0 };
        let looks_ahead = specfleet_engine::device::DraftSpec::of(&method, small(method.clone(), 0, 1).device.sampling)
            .importance
            .is_some_and(|rule| rule.statistic == ImportanceStatistic::Lookahead);
        let drafts = match method.block {
            1 => 1 + if looks_ahead { 2 } else { 0 },
            block => usize::from(block) * if method.draft_ahead { 2 } else { 1 } + usize::from(method.bonus),
        };
        let bound = 560 + 32 * drafts.min(specfleet_engine::method::MAX_BLOCK + 2) + extras;
        let outcome = World::run(small(method, 6, 20));
        assert!(outcome.device_bytes <= bound, "{name}: {} bytes, bound {bound}", outcome.device_bytes);
    }
}

/// A pool that refuses: the drafts stand, once each, and the refused uploads are paid for where they were made.
#[test]
fn refused_uploads_can_end_locally() {
    let mut setup = small(specfleet_tests::setups::hlm(), 12, 10);
    (setup.devices, setup.pool.queue_jobs, setup.pool.verifiers) = (6, 1, 1);
    let waits = World::run(setup.clone());
    setup.device.on_refused = OnRefused::Local;
    let local = World::run(setup);
    let by = |o: &Outcome, source| o.generations.values().flat_map(|(_, r)| r).filter(|r| r.source == source).count();
    assert_eq!(by(&waits, Source::Refused), 0);
    assert!(by(&local, Source::Refused) > 0 && by(&local, Source::Accepted) > 0);
    for (generation, rounds) in local.generations.values() {
        assert_eq!(generation.finish, FinishReason::Length);
        let attempts: u64 = rounds.iter().map(|r| u64::from(r.attempts())).sum();
        assert_eq!(attempts, generation.uploads.sent, "every attempt stands on a record");
        assert_eq!(generation.uploads.refused, rounds.iter().filter(|r| r.source == Source::Refused).count() as u64);
    }
}

/// The price decides: free uploads all go, dear ones none, and what was weighed stands in the record.
#[test]
fn a_price_skips_what_is_not_worth_it() {
    let rate = |factor: f32| {
        let mut method = price(ImportanceStatistic::Concentration);
        let specfleet_engine::method::Gate::Price(rule) = &mut method.gate else { panic!() };
        rule.risk_per_joule *= factor;
        rule.risk_per_second *= factor;
        let outcome = World::run(small(method, 12, 20));
        let rounds: Vec<_> = outcome.generations.values().flat_map(|(_, r)| r).collect();
        assert!(rounds.iter().all(|r| r.price.is_finite() && r.importance_threshold.is_nan()));
        assert!(rounds.iter().all(|r| r.reason.uploads() == (r.source != Source::Skipped)));
        rounds.iter().filter(|r| r.reason.uploads()).count() as f64 / rounds.len() as f64
    };
    let (free, some, dear) = (rate(0.0), rate(1.0), rate(1e6));
    assert_eq!(free, 1.0);
    assert!(dear < some && some < free, "{dear} {some} {free}");
}

/// The link is out at the same times whatever the device does, and every connection waits for its end.
#[test]
fn outages_cost_time_and_no_token() {
    let mut setup = small(specfleet_tests::setups::hlm(), 6, 12);
    let calm = World::run(setup.clone());
    setup.device.outages = Some(Outages { every: Span(60_000), length: Span(30_000) });
    let rough = World::run(setup);
    assert_eq!(decisions(&calm), decisions(&rough));
    let cancelled = |o: &Outcome| o.generations.values().map(|(g, _)| g.uploads.cancelled).sum::<u64>();
    assert_eq!(cancelled(&calm), 0);
    assert!(cancelled(&rough) > 0, "no outage struck an upload");
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
