//! A fleet with made-up service times, driven by one instance or by several, against a model that follows each device
//! by itself.

use proptest::prelude::*;

use super::*;
use crate::load::Arrivals;
use crate::time::Span;

/// How the made-up fleet behaves: pure functions of the job and the device.
#[derive(Clone, Debug)]
struct World {
    load: Load,
    churn: Churn,
    seed: u64,
    turns: Turns,
    start: Time,
    /// Nanoseconds that generations take, in turn.
    service: Vec<u64>,
    /// Nanoseconds from joining to being ready, in turn by device.
    connect: Vec<u64>,
    /// This job empties its device's battery.
    fatal: u64,
}

impl World {
    fn phase(&self) -> DispatchPhase<'_> {
        DispatchPhase {
            load: &self.load,
            churn: self.churn,
            seed: self.seed,
            devices: self.turns.devices,
            start: self.start,
        }
    }

    fn service(&self, job: u64) -> Span {
        Span(self.service[job as usize % self.service.len()])
    }

    fn connect(&self, device: DeviceId) -> Span {
        Span(self.connect[device.0 as usize % self.connect.len()])
    }

    fn finish(&self, job: u64) -> FinishReason {
        if job == self.fatal { FinishReason::Battery } else { FinishReason::Stop }
    }

    fn joins(&self, device: DeviceId) -> Time {
        self.start + self.churn.joins(device, self.turns.devices).since(Time::ZERO)
    }

    fn leaves(&self, device: DeviceId) -> Time {
        let leaves = self.churn.leaves(self.seed, device, self.turns.devices);
        leaves.map_or(Time(u64::MAX), |at| self.start + at.since(Time::ZERO))
    }

    /// Runs the phase over `shards` instances; the orders with their times, by device.
    fn run(&self, shards: u32) -> BTreeMap<DeviceId, Vec<(Time, DispatchOrder)>> {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        enum Happens {
            Ready(DeviceId),
            Over(DeviceId, u64),
            Timeout(u32),
        }
        let mut parts: Vec<_> = (0..shards)
            .map(|index| Dispatch::new(self.phase(), self.turns, DispatchShard { index, of: shards }))
            .collect();
        let mut queue = std::collections::BTreeSet::new();
        for (index, part) in parts.iter().enumerate() {
            queue.extend(part.poll_timeout().map(|at| (at, Happens::Timeout(index as u32))));
        }
        // The running job of each device: what leaves is finished at once.
        let mut running: BTreeMap<DeviceId, u64> = BTreeMap::new();
        let mut found: BTreeMap<DeviceId, Vec<(Time, DispatchOrder)>> = BTreeMap::new();
        let mut started = 0;
        let mut last = self.start;
        loop {
            // What happens at the very end happens whole, in whatever order the instances come to it.
            let done = parts.iter().all(Dispatch::is_done);
            if done && queue.first().is_none_or(|(at, _)| *at > last) {
                break;
            }
            let (now, happens) = queue.pop_first().expect("a phase that is not over goes on");
            last = now;
            let (index, event) = match happens {
                Happens::Ready(device) => (device.0 % shards, DispatchEvent::Ready(device)),
                Happens::Over(device, job) => {
                    if running.get(&device) != Some(&job) {
                        continue;
                    }
                    running.remove(&device);
                    (device.0 % shards, DispatchEvent::Finished { device, finish: self.finish(job) })
                }
                Happens::Timeout(index) => (index, DispatchEvent::Timeout),
            };
            let part = &mut parts[index as usize];
            let mut events = vec![event];
            while let Some(event) = events.pop() {
                let mut out = Vec::new();
                part.handle(now, event, &mut out);
                for order in out {
                    let device = match order {
                        DispatchOrder::Join(device) => {
                            queue.insert((now + self.connect(device), Happens::Ready(device)));
                            device
                        }
                        DispatchOrder::Start { device, job, scheduled } => {
                            assert!(scheduled <= now);
                            assert_eq!(running.insert(device, job), None, "one job at a time");
                            queue.insert((now + self.service(job), Happens::Over(device, job)));
                            started += 1;
                            device
                        }
                        DispatchOrder::Drop { device, .. } => device,
                        DispatchOrder::Leave(device) => {
                            if running.remove(&device).is_some() {
                                events.push(DispatchEvent::Finished { device, finish: FinishReason::Left });
                            }
                            device
                        }
                    };
                    found.entry(device).or_default().push((now, order));
                }
            }
            queue.extend(part.poll_timeout().map(|at| (at, Happens::Timeout(index))));
        }
        assert!(running.is_empty() && started <= self.turns.jobs);
        found
    }

    /// What becomes of each job of `device`, found by following it alone: when it starts (or is dropped), and when it was
    /// due.
    fn expected(&self, device: DeviceId) -> Vec<(u64, Fate)> {
        let ready = self.joins(device) + self.connect(device);
        let leaves = self.leaves(device);
        let jobs = (0..self.turns.jobs).filter(|job| job % u64::from(self.turns.devices) == u64::from(device.0));
        let mut fates = Vec::new();
        // From when on the device is free, and whether it is gone then.
        let (mut free, mut gone) = (ready, false);
        match &self.load {
            Load::Closed { .. } => {
                for (n, job) in jobs.enumerate() {
                    let due = free + self.load.think(self.seed, device, n as u32);
                    if gone || due > leaves {
                        break;
                    }
                    fates.push((job, Fate { at: due, scheduled: due, dropped: false }));
                    free = due + self.service(job);
                    gone = job == self.fatal || free > leaves;
                }
            }
            Load::Open { arrivals, backlog } => {
                let times: Vec<Time> = arrivals.times(self.seed).take(self.turns.jobs as usize).collect();
                // Starts so far: a request waits until its start.
                let mut starts: Vec<Time> = Vec::new();
                let mut end_of_life = leaves;
                for job in jobs {
                    let Some(offset) = times.get(job as usize) else { break };
                    let due = self.start + offset.since(Time::ZERO);
                    let at = due.max(free);
                    let waiting = starts.iter().filter(|&&start| start > due).count();
                    let nobody = due > end_of_life || gone && due >= free;
                    let full = at > due && waiting >= *backlog as usize;
                    let fate = if nobody || full {
                        Fate { at: due, scheduled: due, dropped: true }
                    } else if at > end_of_life || gone {
                        Fate { at: end_of_life.min(free), scheduled: due, dropped: true }
                    } else {
                        starts.push(at);
                        free = at + self.service(job);
                        if job == self.fatal && free <= leaves {
                            (gone, end_of_life) = (true, free);
                        }
                        Fate { at, scheduled: due, dropped: false }
                    };
                    if fate.dropped && fate.at != due {
                        // It waited in vain, and took its place in the queue all the same.
                        starts.push(Time(u64::MAX));
                    }
                    fates.push((job, fate));
                }
            }
        }
        fates
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Fate {
    at: Time,
    scheduled: Time,
    dropped: bool,
}

fn fates(orders: &[(Time, DispatchOrder)]) -> Vec<(u64, Fate)> {
    let mut fates: Vec<(u64, Fate)> = orders
        .iter()
        .filter_map(|&(at, order)| match order {
            DispatchOrder::Start { job, scheduled, .. } => Some((job, Fate { at, scheduled, dropped: false })),
            DispatchOrder::Drop { job, scheduled, .. } => Some((job, Fate { at, scheduled, dropped: true })),
            DispatchOrder::Join(_) | DispatchOrder::Leave(_) => None,
        })
        .collect();
    fates.sort_by_key(|(job, _)| *job);
    fates
}

fn world() -> impl Strategy<Value = World> {
    let arrivals = prop_oneof![
        Just(Arrivals::Poisson { rate: 4e6 }),
        Just(Arrivals::Gamma { rate: 4e6, variation: 2.0 }),
        Just(Arrivals::Constant { rate: 3e6 }),
        proptest::collection::vec(0u64..9_000, 0..40).prop_map(|mut times| {
            times.sort_unstable();
            Arrivals::Recorded { times: times.into_iter().map(Time).collect() }
        }),
    ];
    let load = prop_oneof![
        prop_oneof![Just(0u64), Just(700)].prop_map(|think| Load::Closed { think: Span(think) }),
        (arrivals, 0u32..4).prop_map(|(arrivals, backlog)| Load::Open { arrivals, backlog }),
    ];
    let churn = prop_oneof![
        Just(Churn::NONE),
        (0u64..5_000, proptest::option::of(1u64..9_000))
            .prop_map(|(join, stay)| Churn { join_over: Span(join), stay: stay.map(Span) }),
    ];
    (
        (load, churn, any::<u64>(), 1u32..8, 0u64..40, 0u64..1_000),
        proptest::collection::vec(1u64..2_000, 1..9),
        proptest::collection::vec(1u64..900, 1..5),
        0u64..60,
    )
        .prop_map(|((load, churn, seed, devices, jobs, start), service, connect, fatal)| World {
            load,
            churn,
            seed,
            turns: Turns { jobs, devices },
            start: Time(start),
            service,
            connect,
            fatal,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_device_does_what_it_would_do_alone(world in world()) {
        let found = world.run(1);
        for device in (0..world.turns.devices).map(DeviceId) {
            let orders = found.get(&device).map_or(&[][..], Vec::as_slice);
            prop_assert_eq!(fates(orders), world.expected(device), "{:?}", device);
        }
    }

    #[test]
    fn shards_decide_what_the_whole_decides(world in world(), shards in 1u32..10) {
        prop_assert_eq!(world.run(1), world.run(shards));
    }

    #[test]
    fn turns_are_consistent(jobs in 0u64..50, devices in 1u32..9) {
        let turns = Turns { jobs, devices };
        let mut seen: Vec<u64> = Vec::new();
        for device in (0..devices).map(DeviceId) {
            let own: Vec<u64> = (0..).map_while(|n| turns.nth(device, n)).collect();
            prop_assert!(own.is_sorted() && own.iter().all(|&job| turns.device(job) == device));
            seen.extend(own);
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..jobs).collect::<Vec<_>>());
    }
}

#[test]
fn a_device_stays_small() {
    assert_eq!(size_of::<Slot>(), 8);
    assert!(size_of::<Reverse<(Time, DispatchTimer, DeviceId)>>() <= 16);
}
