//! Each order against a naive reference, and the bounds that the orders promise.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fair::Fair;
use super::job::{Queued, QueuedJob};
use super::message::JobKind;
use super::order::{OLDEST_EVERY, ReadyJobs, Ticket};
use super::settings::QueueOrder;
use crate::id::{ConnectionId, UploadId};
use crate::time::Time;

/// A job of a client, as the reference sees it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    client: u64,
    tokens: u32,
    wanted: u64,
    risk: f32,
}

fn entry() -> impl Strategy<Value = Entry> {
    let risk = prop_oneof![4 => 0.0f32..1.5, 1 => Just(f32::NAN), 1 => Just(-1.0f32)];
    (0u64..5, 1u32..40, 0u64..60, risk).prop_map(|(client, tokens, wanted, risk)| Entry {
        number: 0,
        client,
        tokens,
        wanted,
        risk,
    })
}

fn ticket(order: QueueOrder, entry: &Entry) -> Ticket {
    let job = QueuedJob {
        upload: UploadId(1),
        kind: JobKind::Judge { drafts: 1, bonus: false },
        committed: 1,
        number: entry.number,
        arrived: Time(0),
        wanted: Time(entry.wanted),
        risk: entry.risk,
        failures: 0,
    };
    let queued = Queued { job, verifier: None, tokens: entry.tokens };
    Ticket::new(order, entry.number as u32, ConnectionId(entry.client), &queued)
}

/// Numbers in the order in which `ready` would dispatch them.
fn scanned(ready: &ReadyJobs, entries: &BTreeMap<u64, Entry>, turn: u64, horizon: u64) -> Vec<u64> {
    let mut order = Vec::new();
    ready.scan(turn, horizon, |slot| {
        order.push(u64::from(slot));
        Some(entries[&u64::from(slot)].tokens)
    });
    order
}

/// The same by sorting; `counters`: of the clients, for `fair`.
fn expected(
    order: QueueOrder,
    entries: &BTreeMap<u64, Entry>,
    turn: u64,
    horizon: u64,
    counters: &BTreeMap<u64, u64>,
) -> Vec<u64> {
    let mut left: Vec<Entry> = entries.values().copied().collect();
    let mut counters = counters.clone();
    let mut found = Vec::new();
    if matches!(order, QueueOrder::Deadline | QueueOrder::Value) && turn % OLDEST_EVERY == OLDEST_EVERY - 1 {
        found.extend((!left.is_empty()).then(|| left.remove(0).number));
    }
    let worth = |e: &Entry| if e.risk.is_nan() { 1.0 } else { e.risk.clamp(0.0, 1.0) } / e.tokens as f32;
    while !left.is_empty() {
        let oldest_of = |client| left.iter().find(|e| e.client == client).map(|e| e.number);
        let first = |a: &&Entry, b: &&Entry| match order {
            QueueOrder::Fifo => a.number.cmp(&b.number),
            QueueOrder::Deadline => {
                (a.wanted < horizon, a.wanted, a.number).cmp(&(b.wanted < horizon, b.wanted, b.number))
            }
            QueueOrder::Value => worth(b).total_cmp(&worth(a)).then(a.number.cmp(&b.number)),
            QueueOrder::Fair => (counters[&a.client], oldest_of(a.client), a.number).cmp(&(
                counters[&b.client],
                oldest_of(b.client),
                b.number,
            )),
        };
        let next = *left.iter().min_by(first).expect("not empty");
        left.retain(|e| e.number != next.number);
        *counters.entry(next.client).or_default() += u64::from(next.tokens);
        found.push(next.number);
    }
    found
}

#[derive(Clone, Debug)]
enum Op {
    Arrive(Entry),
    /// The n-th of those that wait goes away.
    Leave(usize),
    /// The n-th turns out to be this much work.
    Rebook(usize, u32),
    /// So many are dispatched.
    Batch(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => entry().prop_map(Op::Arrive),
        1 => any::<usize>().prop_map(Op::Leave),
        1 => (any::<usize>(), 1u32..40).prop_map(|(at, tokens)| Op::Rebook(at, tokens)),
        2 => (1usize..6).prop_map(Op::Batch),
    ]
}

/// Counters as their definition says, for `fair`: who comes back is lifted to the least of those that wait.
fn lift(counters: &mut BTreeMap<u64, u64>, entries: &BTreeMap<u64, Entry>, client: u64) {
    if entries.values().any(|e| e.client == client) {
        return;
    }
    let least = entries.values().map(|e| counters[&e.client]).min();
    if least.is_none() {
        counters.clear();
    }
    let counter = counters.entry(client).or_default();
    *counter = (*counter).max(least.unwrap_or(0));
}

fn runs_like_the_reference(order: QueueOrder, ops: Vec<Op>, horizon: u64) -> Result<(), TestCaseError> {
    let horizon = if order == QueueOrder::Deadline { horizon } else { 0 };
    let (mut ready, mut entries) = (ReadyJobs::new(order), BTreeMap::new());
    let (mut counters, mut turn) = (BTreeMap::new(), 0);
    for (number, op) in (0u64..).zip(ops) {
        match op {
            Op::Arrive(entry) => {
                let entry = Entry { number, ..entry };
                lift(&mut counters, &entries, entry.client);
                ready.insert(&ticket(order, &entry));
                entries.insert(number, entry);
            }
            Op::Leave(at) => {
                let Some(&number) = entries.keys().nth(at % entries.len().max(1)) else { continue };
                let entry = entries.remove(&number).expect("it waits");
                ready.remove(&ticket(order, &entry));
            }
            Op::Rebook(at, tokens) => {
                let Some(&number) = entries.keys().nth(at % entries.len().max(1)) else { continue };
                let entry = entries.get_mut(&number).expect("it waits");
                let new = Entry { tokens, ..*entry };
                ready.rebook(&ticket(order, entry), &ticket(order, &new));
                *entry = new;
            }
            Op::Batch(count) => {
                for number in scanned(&ready, &entries, turn, horizon).into_iter().take(count) {
                    let entry = entries.remove(&number).expect("it waits");
                    ready.dispatch(&ticket(order, &entry));
                    *counters.entry(entry.client).or_default() += u64::from(entry.tokens);
                }
                turn += 1;
            }
        }
        let found = scanned(&ready, &entries, turn, horizon);
        prop_assert_eq!(found, expected(order, &entries, turn, horizon, &counters));
        prop_assert_eq!(ready.tokens(), entries.values().map(|e| u64::from(e.tokens)).sum::<u64>());
        prop_assert_eq!(ready.oldest().map(|(number, _)| number), entries.keys().next().copied());
    }
    Ok(())
}

proptest! {
    #[test]
    fn fifo_is_as_defined(ops in proptest::collection::vec(op(), 0..80)) {
        runs_like_the_reference(QueueOrder::Fifo, ops, 0)?;
    }

    #[test]
    fn deadline_is_as_defined(ops in proptest::collection::vec(op(), 0..80), horizon in 0u64..60) {
        runs_like_the_reference(QueueOrder::Deadline, ops, horizon)?;
    }

    #[test]
    fn value_is_as_defined(ops in proptest::collection::vec(op(), 0..80)) {
        runs_like_the_reference(QueueOrder::Value, ops, 0)?;
    }

    #[test]
    fn fair_is_as_defined(ops in proptest::collection::vec(op(), 0..80)) {
        runs_like_the_reference(QueueOrder::Fair, ops, 0)?;
    }

    /// The promise of `super::order`: whatever arrives, a job with n older ones beside it is dispatched in one of the next
    /// (n + 1) · OLDEST_EVERY batches, of one job each.
    #[test]
    fn nothing_starves(deadline in any::<bool>(), arrivals in proptest::collection::vec(entry(), 1..200)) {
        let order = if deadline { QueueOrder::Deadline } else { QueueOrder::Value };
        let (mut ready, mut entries) = (ReadyJobs::new(order), BTreeMap::new());
        // The worst job there is, three of them older than everybody: never in time, worth nothing.
        let worst = Entry { number: 0, client: 9, tokens: 40, wanted: 0, risk: 0.0 };
        let patient = 3;
        for number in 0..=patient {
            entries.insert(number, Entry { number, ..worst });
            ready.insert(&ticket(order, &entries[&number]));
        }
        let mut batches = 0;
        while entries.contains_key(&patient) {
            // Two better ones arrive for each one that is dispatched.
            for n in 0..2 {
                let number = patient + 1 + 2 * batches + n;
                let arrival = arrivals[number as usize % arrivals.len()];
                let entry = Entry { number, wanted: 100 + arrival.wanted, risk: 1.0, ..arrival };
                entries.insert(number, entry);
                ready.insert(&ticket(order, &entry));
            }
            let horizon = if deadline { 50 } else { 0 };
            let next = scanned(&ready, &entries, batches, horizon)[0];
            let entry = entries.remove(&next).expect("it waits");
            ready.dispatch(&ticket(order, &entry));
            batches += 1;
            prop_assert!(batches <= (patient + 1) * OLDEST_EVERY);
        }
        // Somebody better went first, or this would show nothing.
        prop_assert!(batches > patient + 1);
    }

    /// The bound of `super::fair`, from its proof: at any time those that wait lie within U of each other, and over any
    /// interval in which two wait all the time, their service differs by 2U at most.
    #[test]
    fn the_service_gap_is_bounded(
        works in proptest::collection::vec((0u64..4, 1u32..100), 1..400),
        away in proptest::collection::vec((0usize..400, 0u64..4), 0..10),
    ) {
        let largest = u64::from(works.iter().map(|w| w.1).max().unwrap_or(0));
        let mut fair = Fair::default();
        let mut jobs: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
        let mut waits = [0usize; 4];
        // Service of each client, and at each moment that of all of them.
        let mut served = [0u64; 4];
        let mut since = [[0i64; 4]; 4];
        let mut gaps = [[(0i64, 0i64); 4]; 4];
        for (at, &(client, tokens)) in works.iter().enumerate() {
            // Everybody is kept waiting, except who is away now.
            for who in (0..4).filter(|who| !away.contains(&(at, *who))) {
                let tokens = if who == client { tokens } else { 1 + tokens / (2 + who as u32) };
                let number = 4 * at as u64 + who;
                fair.insert(ConnectionId(who), number, number as u32);
                jobs.insert(number as u32, (who, tokens));
                waits[who as usize] += 1;
            }
            for _ in 0..3 {
                let mut first = None;
                fair.scan(|slot| {
                    if first.is_some() {
                        return None;
                    }
                    first = Some(slot);
                    Some(jobs[&slot].1)
                });
                let Some(slot) = first else { break };
                let (who, tokens) = jobs.remove(&slot).expect("it waits");
                fair.remove(ConnectionId(who), u64::from(slot), tokens);
                served[who as usize] += u64::from(tokens);
                waits[who as usize] -= 1;
                for a in 0..4 {
                    for b in 0..a {
                        let gap = served[a] as i64 - served[b] as i64 - since[a][b];
                        let (low, high) = &mut gaps[a][b];
                        (*low, *high) = ((*low).min(gap), (*high).max(gap));
                        // The largest change over any part of the time that both have been waiting.
                        prop_assert!((*high - *low) as u64 <= 2 * largest, "{a} {b} {gap} {largest}");
                        if waits[a] == 0 || waits[b] == 0 {
                            since[a][b] = served[a] as i64 - served[b] as i64;
                            gaps[a][b] = (0, 0);
                        }
                    }
                }
            }
        }
    }
}
