//! Virtual time: exact to the nanosecond where it can be computed by hand, and independent of threads, windows and
//! whoever else is there.

mod common;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Fails, Outcome, PAYLOAD, PROMPT, Setup, VERDICT, exact, link, run, run_until};
use proptest::prelude::*;
use specfleet_engine::calibration::HostOverheads;
use specfleet_engine::cost::{BatchCost, MeasuredCost};
use specfleet_engine::device::link::{Fading, LinkRate};
use specfleet_engine::device::{OnRefused, OnUnreachable, Outages};
use specfleet_engine::id::VerifierId;
use specfleet_engine::load::{Arrivals, Churn, Load};
use specfleet_engine::method::{Gate, Writer};
use specfleet_engine::pool::Autoscale;
use specfleet_engine::record::{ACCOUNTING, FinishReason};
use specfleet_engine::time::{Span, Time};
use specfleet_simulator::{Host, PlannedKill};

/// Half a round trip of [`exact`].
const WAY: u64 = 10_000;
/// A draft, and the prompt before the first one but for the token that the draft itself feeds.
const DRAFT: u64 = 1_000;
const PREFILL: u64 = 100 * (PROMPT as u64 - 1);
/// Bits of a token's number among 16.
const TOKEN: u64 = 4;
const BATCH: u64 = 5_000;

// ---- by hand -------------------------------------------------------------------------------------------------------

/// When three tokens are committed, if each round takes `more` than declared.
fn by_hand(more: u64) -> Vec<u64> {
    let round = DRAFT + u64::from(PAYLOAD) + WAY + BATCH + VERDICT + WAY + more;
    // The first upload brings the prompt, and its draft step feeds it.
    let first = PREFILL + u64::from(PROMPT) * TOKEN + round;
    vec![first, first + round, first + 2 * round]
}

#[test]
fn times_are_those_computed_by_hand() {
    let outcome = run(&exact());
    assert_eq!(by_hand(0), [26_456, 52_596, 78_736], "the arithmetic above");
    assert_eq!(outcome.commits[&0], by_hand(0));
    let generation = &outcome.generations[0];
    assert_eq!((generation.started, generation.ended), (Time(0), Time(78_736)));
    assert_eq!(generation.times.draft, Span(3 * DRAFT + PREFILL));
    assert_eq!(generation.times.waiting, Span(78_736 - 3 * DRAFT - PREFILL));
    assert_eq!(generation.airtime_up, Span(3 * u64::from(PAYLOAD) + u64::from(PROMPT) * TOKEN));
    assert_eq!(generation.airtime_down, Span(3 * VERDICT));
    assert_eq!(
        outcome.batches.iter().map(|batch| batch.started).collect::<Vec<_>>(),
        [11_416, 37_556, 63_696].map(Time)
    );
    assert_eq!(outcome.totals.last_end, Time(78_736));
}

#[test]
fn a_batch_waits_as_long_as_it_may() {
    let mut setup = exact();
    setup.pool.max_wait = Span(700);
    assert_eq!(run(&setup).commits[&0], by_hand(700));
}

/// Two uploads at the same time: at once they are two batches; one nanosecond later they are one.
#[test]
fn devices_share_a_batch_or_wait_for_it() {
    let mut setup = exact();
    (setup.devices, setup.active, setup.device.max_new_tokens) = (2, 2, 1);
    let outcome = run(&setup);
    assert_eq!(outcome.commits[&0], [26_456]);
    assert_eq!(outcome.commits[&1], [26_456 + BATCH]);
    setup.pool.max_wait = Span(1);
    let outcome = run(&setup);
    assert_eq!(outcome.commits[&0], [26_457]);
    assert_eq!(outcome.commits[&1], [26_457]);
    assert_eq!(outcome.batches.len(), 1);
}

#[test]
fn local_tokens_take_their_steps_and_nothing_else() {
    let mut setup = exact();
    setup.device.method.gate = Gate::Never;
    let first = PREFILL + DRAFT;
    assert_eq!(run(&setup).commits[&0], [first, first + DRAFT, first + 2 * DRAFT]);
    assert_eq!(run(&setup).batches.len(), 0);
}

/// The verifier writes: one upload, one verdict per token, one batch behind the other.
#[test]
fn the_verifier_writes_in_its_own_time() {
    let mut setup = exact();
    setup.device.method.writer = Writer::Verifier;
    let first = u64::from(PROMPT) * TOKEN + WAY + BATCH + VERDICT + WAY;
    assert_eq!(run(&setup).commits[&0], [first, first + BATCH, first + 2 * BATCH]);
}

#[test]
fn users_think_and_requests_wait_for_their_device() {
    let mut setup = exact();
    (setup.prompts, setup.device.max_new_tokens) = (2, 1);
    // Both are due at the start; latencies count from there.
    setup.load = Load::Open { arrivals: Arrivals::Recorded { times: vec![Time(5_000), Time(6_000)] }, backlog: 1 };
    let outcome = run(&setup);
    assert_eq!(outcome.commits[&0], [5_000 + 26_456, 5_000 + 2 * 26_456]);
    let second = &outcome.generations[1];
    assert_eq!((second.scheduled, second.started), (Time(6_000), Time(31_456)));
    setup.load = Load::Open { arrivals: Arrivals::Recorded { times: vec![Time(5_000), Time(6_000)] }, backlog: 0 };
    let outcome = run(&setup);
    let finishes: Vec<_> = outcome.generations.iter().map(|g| (g.finish, g.scheduled)).collect();
    assert!(finishes.contains(&(FinishReason::Dropped, Time(6_000))), "{finishes:?}");
    assert_eq!(outcome.commits[&0], [5_000 + 26_456]);
    setup.load = Load::Closed { think: Span(40_000) };
    let thought = setup.load.think(setup.device.seed, specfleet_engine::id::DeviceId(0), 1);
    assert!(thought > Span::ZERO);
    assert_eq!(run(&setup).commits[&0], [26_456, 2 * 26_456 + thought.0]);
}

/// The first bit of a verdict is there when its upload is given up, the last one when the next generation has begun: that one
/// must not have run ahead of it.
#[test]
fn a_verdict_may_end_behind_its_generation() {
    let mut setup = exact();
    (setup.prompts, setup.device.max_new_tokens) = (2, 1);
    let arrives = by_hand(0)[0];
    setup.device.verdict_timeout = Span(BATCH + WAY + VERDICT - 10);
    (setup.device.on_unreachable, setup.device.unreachable_after) = (OnUnreachable::Local, Span(1));
    let outcome = run(&setup);
    assert_eq!(outcome.commits[&0][0], arrives - 9);
    let [first, second] = &outcome.generations[..] else { panic!("{:?}", outcome.generations) };
    assert_eq!((first.uploads.cancelled, first.counts.stale), (1, 0));
    assert_eq!((second.started, second.counts.stale), (Time(arrives - 9), 1));
}

// ---- the host ------------------------------------------------------------------------------------------------------

fn overheads(step: u64, upload: u64, wake: u64, batch: u64) -> HostOverheads {
    HostOverheads {
        step: Span(step),
        step_spread: vec![],
        upload: Span(upload),
        upload_spread: vec![],
        wake: Span(wake),
        wake_spread: vec![],
        batch: Span(batch),
        batch_spread: Vec::new(),
        own_share: 0.0,
        uplink_bytes: 0,
        downlink_bytes: 0,
        generations: 1,
    }
}

#[test]
fn host_overheads_add_what_they_say() {
    let mut setup = exact();
    for (step, upload, batch) in [(7, 0, 0), (0, 11, 0), (0, 0, 13), (70, 111, 130)] {
        setup.host = Host::measured(&overheads(step, upload, 0, batch));
        let outcome = run(&setup);
        assert_eq!(outcome.commits[&0], by_hand(step + upload + batch), "{step} {upload} {batch}");
        assert_eq!(outcome.generations[0].times.overrun, Span(3 * step));
    }
    // The pool's timer is late where there is something to wait for.
    setup.pool.max_wait = Span(700);
    setup.host = Host::measured(&overheads(0, 0, 23, 0));
    assert_eq!(run(&setup).commits[&0], by_hand(723));
}

/// Draws of a spread: all within it, and the same for all who are due in the same moment.
#[test]
fn a_host_is_late_with_everything_at_once() {
    let mut setup = exact();
    (setup.devices, setup.active, setup.device.max_new_tokens) = (500, 500, 10);
    setup.device.method.gate = Gate::Never;
    let late = |outcome: &Outcome| -> Vec<u64> {
        outcome.generations.iter().map(|generation| generation.times.overrun.0).collect()
    };
    let mut totals = Vec::new();
    for turn in 0..20 {
        let spread = HostOverheads { step_spread: vec![0.0, 400.0], ..overheads(0, 0, 0, 0) };
        setup.host = Host::measured(&spread).turn(turn);
        let late = late(&run(&setup));
        assert!(late.iter().all(|&total| total == late[0] && total <= 4_000), "{late:?}");
        totals.push(late[0]);
    }
    let mean = totals.iter().sum::<u64>() as f64 / 200.0;
    // Twenty uniform draws between 0 and 400: four standard deviations of their mean are 103.
    assert!((mean - 200.0).abs() < 103.0, "{mean}");
}

// ---- independence --------------------------------------------------------------------------------------------------

fn rough_cost() -> BatchCost {
    BatchCost::Measured(MeasuredCost {
        base: 3_000.0,
        per_token: 200.0,
        per_sequence: 100.0,
        per_cached_token: 1.0,
        contention: vec![1.0, 1.5],
        methods: Default::default(),
        spread: vec![0.5, 1.0, 3.0],
        batches: 1,
        relative_error: 0.0,
        r2: 1.0,
    })
}

/// A fleet with all that can cross: cancels, refusals, kills, outages or run-ahead, late hosts, spread batches.
fn rough() -> impl Strategy<Value = Setup> {
    let device = (
        prop_oneof![Just(Gate::Always), Just(Gate::Never), (0.1f32..0.9).prop_map(|p| Gate::Random { probability: p })],
        prop_oneof![Just((1u8, false)), Just((3, false)), Just((4, true))],
        proptest::bool::weighted(0.15),
        proptest::option::of((60_000u64..400_000, 1_000u64..200_000)),
        prop_oneof![Just(OnRefused::Retry), Just(OnRefused::Wait), Just(OnRefused::Local)],
        prop_oneof![Just(OnUnreachable::Wait), Just(OnUnreachable::Local), Just(OnUnreachable::Fail)],
        prop_oneof![Just(1_000_000u64), 22_000u64..80_000],
        prop_oneof![Just(0u64), 20_000u64..400_000],
    );
    let world = (
        proptest::option::of(30_000u64..600_000),
        proptest::option::of((0u64..2_000, 0u64..2_000)),
        proptest::collection::vec((0u64..500_000, 0u16..2), 0..4),
        1u32..40,
        prop_oneof![
            Just(Load::Closed { think: Span::ZERO }),
            Just(Load::Closed { think: Span(30_000) }),
            Just(Load::Open { arrivals: Arrivals::Poisson { rate: 1e5 }, backlog: 1 }),
        ],
        (0u64..4_000, 1u32..64, proptest::bool::ANY),
    );
    (device, world, 2u32..30).prop_map(|(device, world, active)| {
        let mut setup = exact();
        (setup.devices, setup.active, setup.every, setup.prompts) = (active * 7, active, 7, 2);
        let d = &mut setup.device;
        d.max_new_tokens = 8;
        d.method.gate = device.0;
        (d.method.block, d.method.draft_ahead) = device.1;
        d.method.bonus = d.method.block > 1;
        if device.2 {
            d.method.writer = Writer::Verifier;
        }
        d.outages = device.3.map(|(every, length)| Outages { every: Span(every), length: Span(length) });
        (d.on_refused, d.on_unreachable) = (device.4, device.5);
        (d.verdict_timeout, d.battery_nanojoules) = (Span(device.6), device.7);
        d.unreachable_after = Span(70_000);
        if let LinkRate::Fading { fading, coherence, .. } = &mut d.link.rate {
            (*fading, *coherence) = (Fading::Rayleigh, Span(5_000));
        }
        setup.churn = Churn { join_over: Span::ZERO, stay: world.0.map(Span) };
        setup.host = match world.1 {
            None => Host::ideal(),
            Some((step, upload)) => Host::measured(&HostOverheads {
                step_spread: vec![0.0, 2.0 * step as f32],
                upload_spread: vec![0.0, 2.0 * upload as f32],
                own_share: 0.3,
                ..overheads(step, upload, 100, 50)
            }),
        };
        setup.kills = world
            .2
            .into_iter()
            .map(|(at, verifier)| PlannedKill { at: Time(at), verifier: VerifierId(verifier) })
            .collect();
        setup.pool.verifiers = 2;
        setup.pool.queue_jobs = world.3;
        setup.load = world.4;
        (setup.pool.max_wait, setup.pool.batch_tokens) = (Span(world.5.0), world.5.1);
        if world.5.2 {
            let (min, max) = (1, 2);
            let (cold_start, period) = (Span(9_000), Span(40_000));
            setup.pool.autoscale = Some(Autoscale { min, max, target_busy: 0.5, cold_start, period });
        }
        setup.cost = rough_cost();
        setup
    })
}

/// All that a window's length must not change. (A phase ends with a window: a fault behind the last generation may or may not
/// strike before that.)
fn records(outcome: &Outcome) -> impl PartialEq + std::fmt::Debug {
    (outcome.records.clone(), format!("{:?}", outcome.batches), outcome.totals.last_end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn threads_do_not_matter(setup in rough()) {
        let one = run(&setup);
        for generation in &one.generations {
            prop_assert_eq!(generation.times.total(ACCOUNTING), generation.ended.since(generation.started), "{:?}", generation);
        }
        prop_assert!(one.commits.values().all(|times| times.is_sorted()), "a device's time runs forwards");
        for threads in 2..=4 {
            let many = run(&Setup { threads, ..setup.clone() });
            prop_assert_eq!(&one.streams, &many.streams);
            prop_assert_eq!(records(&one), records(&many));
            prop_assert_eq!(&one.verifiers, &many.verifiers);
            prop_assert_eq!(one.totals, many.totals);
        }
    }

    /// One more device, which has nothing to do, on a much shorter link: windows are much shorter.
    #[test]
    fn windows_do_not_matter(setup in rough(), round_trip in 400u64..20_000) {
        let long = run(&setup);
        let short = run(&Setup {
            devices: setup.devices + 1,
            idle_link: Some(link(Span(round_trip))),
            ..setup
        });
        prop_assert_eq!(records(&long), records(&short));
    }

    #[test]
    fn idle_devices_do_not_matter(setup in rough(), idle in 1u32..3_000) {
        let few = run(&setup);
        let many = run(&Setup { devices: setup.devices + idle, ..setup });
        prop_assert_eq!(records(&few), records(&many));
    }
}

/// A wake that was queued for what has been done meanwhile must not be the wake for what comes next: how late that is would
/// depend on the queue. One random fleet in 50,000 found it.
#[test]
fn a_wake_that_is_queued_still_is_nobodys() {
    let mut setup = exact();
    (setup.devices, setup.active, setup.every, setup.prompts) = (182, 26, 7, 2);
    let d = &mut setup.device;
    d.max_new_tokens = 8;
    d.method.writer = Writer::Verifier;
    d.outages = Some(Outages { every: Span(210_575), length: Span(52_976) });
    (d.verdict_timeout, d.unreachable_after) = (Span(53_364), Span(70_000));
    if let LinkRate::Fading { fading, coherence, .. } = &mut d.link.rate {
        (*fading, *coherence) = (Fading::Rayleigh, Span(5_000));
    }
    setup.churn = Churn { join_over: Span::ZERO, stay: Some(Span(356_859)) };
    setup.host = Host::measured(&HostOverheads {
        step_spread: vec![0.0, 0.0],
        upload_spread: vec![0.0, 2_630.0],
        own_share: 0.3,
        ..overheads(0, 1_315, 100, 50)
    });
    setup.pool.verifiers = 2;
    setup.pool.queue_jobs = 11;
    setup.load = Load::Closed { think: Span(30_000) };
    (setup.pool.max_wait, setup.pool.batch_tokens) = (Span(1_438), 25);
    setup.cost = rough_cost();
    let host = setup.host.clone();
    // Days on which it made a difference, about one of 150.
    for turn in [226, 248, 283, 339, 346] {
        setup.host = host.clone().turn(turn);
        let long = run(&setup);
        let short = run(&Setup { devices: setup.devices + 1, idle_link: Some(link(Span(400))), ..setup.clone() });
        assert_eq!(long.records, short.records, "{turn}");
    }
}

/// The length of windows is what an idle device changes.
#[test]
fn a_short_link_makes_short_windows() {
    let long = run(&exact());
    let short = run(&Setup { devices: 2, idle_link: Some(link(Span(400))), ..exact() });
    // The phase ends with a window, half a round trip after the last generation.
    assert_eq!((long.end, short.end), (Time(80_000 + 15_000), Time(78_800 + 10_100)));
    assert_eq!(long.commits, short.commits);
}

/// The properties above say something: the setups do cross what can cross.
#[test]
fn rough_fleets_are_rough() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut stale, mut cancelled, mut refused, mut local, mut killed) = (0, 0, 0, 0, 0);
    let mut finishes = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let setup = rough().new_tree(&mut runner).expect("a setup").current();
        let outcome = run(&setup);
        for generation in &outcome.generations {
            stale += generation.counts.stale;
            cancelled += generation.uploads.cancelled;
            refused += generation.uploads.refused;
            finishes.insert(generation.finish);
        }
        local += u32::from(setup.device.on_unreachable == OnUnreachable::Local);
        killed += outcome.killed;
    }
    assert!(stale > 0 && cancelled > 0 && refused > 0 && local > 0 && killed > 0, "{stale} {cancelled} {refused}");
    assert!(finishes.len() >= 5, "{finishes:?}");
}

// ---- ends ----------------------------------------------------------------------------------------------------------

/// A panic on any thread ends the simulation and reaches whoever runs it.
#[test]
fn a_panic_in_an_answer_does_not_hang() {
    for fails in [Fails::Step, Fails::Batch, Fails::Observer] {
        for threads in 1..=4 {
            let mut setup = exact();
            (setup.devices, setup.active, setup.threads, setup.fails) = (100, 100, threads, Some(fails));
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&setup)));
            let panic = outcome.expect_err("it was asked to fail");
            assert!(
                panic.downcast_ref::<&str>().is_some_and(|said| *said == "asked for"),
                "{fails:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn whoever_watches_may_end_it() {
    for threads in [1, 3] {
        let mut setup = exact();
        (setup.devices, setup.active, setup.threads) = (10, 10, threads);
        let stopped =
            run_until(&setup, |windows| if windows < 7 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
        assert!(stopped.totals.stopped && stopped.totals.progress.windows == 7);
        assert!(stopped.generations.is_empty());
        assert!(!run(&setup).totals.stopped);
    }
}

/// The pool works one window behind the devices: it still makes up for that before the account is closed.
#[test]
fn a_fault_before_the_end_strikes() {
    let mut setup = exact();
    let calm = run(&setup);
    assert!(calm.totals.last_end < calm.end);
    for at in [calm.totals.last_end, Time(calm.end.0 - 1)] {
        setup.kills = vec![PlannedKill { at, verifier: VerifierId(0) }];
        let outcome = run(&setup);
        assert_eq!((outcome.end, outcome.killed), (calm.end, 1));
        assert_eq!(outcome.verifiers.iter().map(|account| account.restarts).sum::<u32>(), 1);
        assert_eq!(outcome.records, calm.records);
    }
    setup.kills = vec![PlannedKill { at: calm.end, verifier: VerifierId(0) }];
    assert_eq!(run(&setup).killed, 0);
}
