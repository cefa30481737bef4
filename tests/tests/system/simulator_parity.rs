//! The simulator against the reference driver: whatever the orders, bounds, faults, loads and hosts, the devices of a
//! simulation decide what those of the small world decide, whose delays are random. `simulate` itself checks that every
//! upload ends once on both sides, every permit returns, no session or token is left, and times and energies add up.

use proptest::prelude::*;
use specfleet_engine::calibration::HostOverheads;
use specfleet_engine::cost::{BatchCost, MeasuredCost};
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::device::{OnRefused, OnUnreachable, Outages};
use specfleet_engine::id::VerifierId;
use specfleet_engine::load::{Arrivals, Churn, Load, Stage};
use specfleet_engine::method::ImportanceStatistic;
use specfleet_engine::pool::{Autoscale, Breaker, PriceUpdate, QueueOrder};
use specfleet_engine::record::{FinishReason, GenerationRecord, RoundRecord, Source};
use specfleet_engine::time::{Span, Time};
use specfleet_simulator::{Host, PlannedKill};
use specfleet_tests::setups::{block, hlm, llm_only, price, small, zoo};
use specfleet_tests::simulated::{Extras, Outcome, simulate};
use specfleet_tests::world::{Setup, World};

/// A decision, and all that led to it: what must not depend on timing. Floats by their bits, because NaN equals nothing.
#[derive(Clone, Debug, PartialEq)]
struct Decision {
    position: u32,
    token: u32,
    draft: u32,
    rejections: u32,
    source: Source,
    reason: GateReason,
    signals: [u32; 4],
}

fn decisions(rounds: &[RoundRecord]) -> Vec<Decision> {
    let decision = |round: &RoundRecord| Decision {
        position: round.position,
        token: round.token,
        draft: round.draft,
        rejections: round.rejections,
        source: round.source,
        reason: round.reason,
        signals: [round.uncertainty, round.importance, round.importance_threshold, round.draft_probability]
            .map(f32::to_bits),
    };
    rounds.iter().map(decision).collect()
}

/// The generations of the small world, without faults, by prompt.
fn expected(setup: &Setup) -> Vec<(GenerationRecord, Vec<RoundRecord>)> {
    World::run(setup.clone()).generations.into_values().collect()
}

fn assert_same(setup: &Setup, outcome: &Outcome) {
    let expected = expected(setup);
    for phase in &outcome.phases {
        assert_eq!(phase.generations.len(), expected.len());
        for ((record, rounds), (expected, expected_rounds)) in phase.generations.values().zip(&expected) {
            assert_eq!(record.tokens, expected.tokens);
            assert_eq!(record.finish, expected.finish);
            assert_eq!(decisions(rounds), decisions(expected_rounds));
            assert_eq!(record.device, expected.device);
        }
    }
}

// ---- setups --------------------------------------------------------------------------------------------------------

fn span(most: u64) -> impl Strategy<Value = Span> {
    prop_oneof![Just(Span::ZERO), (0..most).prop_map(Span)]
}

fn order() -> impl Strategy<Value = QueueOrder> {
    prop_oneof![Just(QueueOrder::Fifo), Just(QueueOrder::Deadline), Just(QueueOrder::Fair), Just(QueueOrder::Value)]
}

/// Everything about a pool that changes when uploads are answered and nothing else.
fn pool(setup: Setup) -> impl Strategy<Value = Setup> {
    let bounds = (
        prop_oneof![1u32..8, Just(64)],
        1u32..6,
        span(5_000),
        span(5_000),
        prop_oneof![Just(1u32), Just(2), Just(64)],
        prop_oneof![Just(24u64), Just(60), Just(10_000)],
    );
    let autoscale = (1u16..3, 0u16..3, 1_000u64..200_000, span(20_000));
    let policies = (
        order(),
        proptest::option::of(autoscale),
        (0u32..3, span(50_000)),
        prop_oneof![Just(0.0f32), Just(0.5)],
        1u16..4,
    );
    (bounds, policies).prop_map(move |(bounds, policies)| {
        let mut setup = setup.clone();
        let pool = &mut setup.pool;
        (pool.batch_tokens, pool.batch_sequences, pool.max_wait, pool.batch_time) =
            (bounds.0, bounds.1, bounds.2, bounds.3);
        (pool.queue_jobs, pool.kv_tokens, pool.queue_tokens) = (bounds.4, bounds.5, 40);
        pool.order = policies.0;
        pool.autoscale = policies.1.map(|(min, more, period, cold_start)| Autoscale {
            min,
            max: min + more,
            target_busy: 0.5,
            cold_start,
            period: Span(period),
        });
        pool.breaker = Breaker { failures: policies.2.0, cooldown: policies.2.1 };
        pool.price = PriceUpdate { step: policies.3, target_load: 0.5, period: Span(7_000) };
        pool.verifiers = policies.4;
        setup
    })
}

fn host() -> impl Strategy<Value = Host> {
    let overheads = (0u64..3_000, 0u64..3_000, 0u64..3_000, 0u64..2_000, any::<bool>());
    proptest::option::of(overheads).prop_map(|overheads| match overheads {
        None => Host::ideal(),
        Some((step, upload, wake, batch, spread)) => {
            let spread_of = |mean: u64| if spread { vec![0.0, mean as f32, 4.0 * mean as f32] } else { Vec::new() };
            Host::measured(&HostOverheads {
                step: Span(step),
                step_spread: spread_of(step),
                upload: Span(upload),
                upload_spread: spread_of(upload),
                wake: Span(wake),
                wake_spread: spread_of(wake),
                batch: Span(batch),
                batch_spread: Vec::new(),
                own_share: if spread { 0.2 } else { 0.0 },
                uplink_bytes: 0,
                downlink_bytes: 0,
                generations: 1,
            })
        }
    })
}

/// A fitted cost with a spread and with contention.
fn measured(base: f64, per_token: f64) -> BatchCost {
    BatchCost::Measured(MeasuredCost {
        base,
        per_token,
        per_sequence: 50.0,
        per_cached_token: 1.0,
        contention: vec![1.0, 1.7],
        methods: Default::default(),
        spread: vec![0.5, 1.0, 2.0],
        batches: 1,
        relative_error: 0.0,
        r2: 1.0,
    })
}

fn cost() -> impl Strategy<Value = BatchCost> {
    let measured = (100.0f64..5_000.0, 0.0f64..1_000.0).prop_map(|(base, per_token)| measured(base, per_token));
    prop_oneof![(0u64..20_000).prop_map(|span| BatchCost::Fixed { span: Span(span) }), measured]
}

/// Requests that are all answered: nothing waits in vain and nothing is dropped.
fn patient_load() -> impl Strategy<Value = Load> {
    let open = |arrivals| Load::Open { arrivals, backlog: 1_000 };
    prop_oneof![span(50_000).prop_map(|think| Load::Closed { think }), arrivals().prop_map(open),]
}

/// At rates of up to one per few microseconds, which is more than devices take.
fn arrivals() -> impl Strategy<Value = Arrivals> {
    let rate = 2e3f64..5e5;
    prop_oneof![
        rate.clone().prop_map(|rate| Arrivals::Poisson { rate }),
        (rate.clone(), 0.3f64..3.0).prop_map(|(rate, variation)| Arrivals::Gamma { rate, variation }),
        rate.clone().prop_map(|rate| Arrivals::Constant { rate }),
        rate.prop_map(|rate| Arrivals::Ramp { start: 0.0, stages: vec![Stage { span: Span(50_000), rate }] }),
        proptest::collection::vec(0u64..200_000, 20).prop_map(|mut times| {
            times.sort_unstable();
            Arrivals::Recorded { times: times.into_iter().map(Time).collect() }
        }),
    ]
}

fn kills() -> impl Strategy<Value = Vec<PlannedKill>> {
    let kill = (0u64..400_000, 0u16..3)
        .prop_map(|(at, verifier)| PlannedKill { at: Time(at), verifier: VerifierId(verifier) });
    proptest::collection::vec(kill, 0..6)
}

fn outages() -> impl Strategy<Value = Option<Outages>> {
    // A round takes some 10,000: with gaps much shorter than that nothing would ever get through.
    let (every, length) = (20_000u64..200_000, 1_000u64..100_000);
    proptest::option::of(
        (every, length).prop_map(|(every, length)| Outages { every: Span(every), length: Span(length) }),
    )
}

/// Kills of verifiers that a pool of this size has.
fn existing(setup: &Setup, mut kills: Vec<PlannedKill>) -> Vec<PlannedKill> {
    kills.retain(|kill| kill.verifier.0 < setup.pool.replicas());
    kills
}

fn extras(load: impl Strategy<Value = Load>) -> impl Strategy<Value = Extras> {
    (load, span(100_000), cost(), host(), kills(), 1usize..4, 1u16..3).prop_map(
        |(load, join_over, cost, host, kills, threads, phases)| {
            let churn = Churn { join_over, stay: None };
            Extras { load, churn, cost, host, kills, threads, phases }
        },
    )
}

/// Whatever changes times and not tokens.
fn under_stress() -> impl Strategy<Value = (Setup, Extras)> {
    let of_device = (
        prop_oneof![Just(OnRefused::Retry), Just(OnRefused::Wait)],
        outages(),
        0u64..20_000,
        // Short enough that verdicts are late, and cross their cancels.
        prop_oneof![Just(200_000u64), 6_000u64..40_000],
        proptest::option::of(0u32..4),
        prop_oneof![Just(0.0f32), Just(1.0)],
    );
    (0..zoo().len(), of_device, 1u32..7).prop_flat_map(|(method, of_device, devices)| {
        let mut setup = small(zoo()[method].clone(), 8, 12);
        setup.devices = devices;
        let device = &mut setup.device;
        (device.on_refused, device.outages) = (of_device.0, of_device.1);
        device.latency_target = Span(of_device.2);
        device.verdict_timeout = Span(of_device.3);
        device.end_tokens = of_device.4.into_iter().collect();
        device.sampling.temperature = of_device.5;
        setup.pool.end_tokens = device.end_tokens.clone();
        (pool(setup), extras(patient_load())).prop_map(|(setup, mut extras)| {
            extras.kills = existing(&setup, extras.kills);
            (setup, extras)
        })
    })
}

/// Everything that may end a generation early or change who writes a token.
fn with_departures() -> impl Strategy<Value = (Setup, Extras)> {
    let mut methods = zoo();
    methods.extend([price(ImportanceStatistic::Concentration), price(ImportanceStatistic::Lookahead)]);
    let refused = prop_oneof![Just(OnRefused::Retry), Just(OnRefused::Wait), Just(OnRefused::Local)];
    let unreachable = prop_oneof![Just(OnUnreachable::Wait), Just(OnUnreachable::Local), Just(OnUnreachable::Fail)];
    let of_device = (
        refused,
        unreachable,
        outages(),
        prop_oneof![Just(0u64), 1u64..2_000_000],
        6_000u64..40_000,
        proptest::option::of(5_000u64..500_000),
    );
    let load = prop_oneof![
        span(50_000).prop_map(|think| Load::Closed { think }),
        (arrivals(), 0u32..3).prop_map(|(arrivals, backlog)| Load::Open { arrivals, backlog }),
    ];
    (0..methods.len(), of_device, 1u32..7, extras(load)).prop_flat_map(
        move |(method, of_device, devices, mut extras)| {
            let mut setup = small(methods[method].clone(), 10, 12);
            setup.devices = devices;
            let device = &mut setup.device;
            (device.on_refused, device.on_unreachable, device.outages) = (of_device.0, of_device.1, of_device.2);
            device.battery_nanojoules = of_device.3;
            device.verdict_timeout = Span(of_device.4);
            device.unreachable_after = Span(50_000);
            extras.churn.stay = of_device.5.map(Span);
            pool(setup).prop_map(move |setup| {
                let kills = existing(&setup, extras.kills.clone());
                (setup, Extras { kills, ..extras.clone() })
            })
        },
    )
}

// ---- properties ----------------------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_devices_decide_as_in_the_small_world((setup, extras) in under_stress()) {
        let outcome = simulate(&setup, &extras);
        let mut calm = setup.clone();
        calm.device.outages = None;
        calm.pool = small(hlm(), 0, 1).pool;
        calm.pool.end_tokens = setup.pool.end_tokens.clone();
        assert_same(&calm, &outcome);
    }

    /// Whoever leaves, runs dry, is refused or out of reach: the books close, records say why, and up to there every
    /// decision is that of the small world.
    #[test]
    fn whoever_leaves_the_books_close((setup, extras) in with_departures()) {
        let outcome = simulate(&setup, &extras);
        let mut calm = small(setup.device.method.clone(), 10, 12);
        calm.devices = setup.devices;
        let priced = setup.device.method.name == "price";
        let expected = expected(&calm);
        for phase in &outcome.phases {
            for (&prompt, (record, rounds)) in &phase.generations {
                let own = |round: &&RoundRecord| !matches!(round.source, Source::Fallback | Source::Refused);
                let sure = rounds.iter().take_while(own).count();
                let (found, theirs) = (decisions(&rounds[..sure]), decisions(&expected[prompt as usize].1));
                // Prices depend on timing.
                prop_assert!(priced || theirs.starts_with(&found));
                prop_assert!(sure == rounds.len() || setup.device.on_refused == OnRefused::Local
                    || setup.device.on_unreachable == OnUnreachable::Local);
                match record.finish {
                    FinishReason::Battery => prop_assert!(setup.device.battery_nanojoules > 0),
                    FinishReason::Left => prop_assert!(extras.churn.stay.is_some()),
                    FinishReason::Dropped => {
                        let open = matches!(extras.load, Load::Open { .. });
                        prop_assert!(open && rounds.is_empty());
                    }
                    FinishReason::Length => prop_assert_eq!(rounds.len(), 12),
                    FinishReason::Failed => prop_assert!(setup.device.on_unreachable != OnUnreachable::Wait),
                    FinishReason::Stop => prop_assert!(false, "there is no end token"),
                }
            }
            if let Load::Open { arrivals, .. } = &extras.load {
                let arrived = arrivals.times(setup.device.seed).take(setup.prompts.len()).count();
                prop_assert_eq!(phase.generations.len(), arrived, "a request that has arrived is answered or dropped");
            }
        }
    }

    /// Streams of records, not only their sets.
    #[test]
    fn threads_change_nothing((setup, extras) in with_departures()) {
        let one = simulate(&setup, &Extras { threads: 1, ..extras.clone() });
        let many = simulate(&setup, &Extras { threads: 3, ..extras });
        for (one, many) in one.phases.iter().zip(&many.phases) {
            prop_assert_eq!(&one.streams, &many.streams);
            prop_assert_eq!(one.totals, many.totals);
        }
        prop_assert_eq!(format!("{:?}", one.batches), format!("{:?}", many.batches));
        prop_assert_eq!(one.verifiers, many.verifiers);
        prop_assert_eq!(one.killed, many.killed);
    }
}

/// The properties above would hold of a simulator in which nothing ever went wrong.
#[test]
fn setups_are_rough_enough() {
    let mut setup = small(hlm(), 24, 12);
    (setup.devices, setup.pool.verifiers, setup.pool.queue_jobs) = (8, 2, 2);
    setup.device.outages = Some(Outages { every: Span(60_000), length: Span(30_000) });
    setup.device.verdict_timeout = Span(12_000);
    let kill = |at, verifier| PlannedKill { at: Time(at), verifier: VerifierId(verifier) };
    let extras = Extras {
        kills: vec![kill(30_000, 0), kill(31_000, 1), kill(2_500_000, 0)],
        cost: BatchCost::Fixed { span: Span(6_000) },
        ..Extras::default()
    };
    let outcome = simulate(&setup, &extras);
    let uploads = |of: fn(&GenerationRecord) -> u64| outcome.generations().map(|(g, _)| of(g)).sum::<u64>();
    assert!(uploads(|g| g.uploads.refused) > 0 && uploads(|g| g.uploads.cancelled) > 0);
    assert!(uploads(|g| g.counts.stale) > 0, "no verdict crossed its cancel");
    assert!(outcome.killed >= 2 && outcome.batches.iter().any(|batch| !batch.completed));
    assert!(outcome.batches.iter().any(|batch| batch.unclaimed_nanojoules > 0 && batch.completed));
    setup.device.outages = None;
    assert_same(&setup, &outcome);
}

/// One method of each kind, in a fleet that covers several devices of a shard.
#[test]
fn every_method_decides_alike_in_a_larger_fleet() {
    for method in zoo().into_iter().chain([block(2, true), llm_only()]) {
        let mut setup = small(method, 400, 10);
        setup.devices = 200;
        let outcome = simulate(&setup, &Extras { threads: 2, ..Extras::default() });
        assert_same(&setup, &outcome);
    }
}

/// A verifier dies while its device waits for nothing but its own timeout: another one computes the upload again at once, and
/// the verdict comes before the timeout. Windows in which nothing is due are skipped, but not the one with the fault.
#[test]
fn a_fault_is_due_like_anything_else() {
    let mut setup = small(llm_only(), 10, 12);
    setup.devices = 1;
    setup.device.verdict_timeout = Span(9_213);
    let pool = &mut setup.pool;
    (pool.batch_tokens, pool.batch_sequences, pool.max_wait) = (1, 1, Span::ZERO);
    let cost = measured(4280.996153483017, 540.3625208252535);
    let kills = vec![PlannedKill { at: Time(5_296), verifier: VerifierId(0) }];
    let outcome = simulate(&setup, &Extras { cost, kills, ..Extras::default() });
    assert_eq!(outcome.killed, 1);
    let mut calm = small(llm_only(), 10, 12);
    calm.devices = 1;
    assert_same(&calm, &outcome);
}
