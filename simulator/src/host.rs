//! What the host of a live run adds to declared times: late timers, sockets, actors \[ours\].

use std::sync::Arc;

use specfleet_engine::calibration::HostOverheads;
use specfleet_engine::cost::quantile;
use specfleet_engine::device::WakeReason;
use specfleet_engine::id::DeviceId;
use specfleet_engine::random::{DrawKey, Purpose};
use specfleet_engine::time::{Span, Time};

/// How long one draw holds. A host that is busy is late with everything at once: whoever is due in the same moment is late
/// by the same share of the spread, so that devices which one batch has answered stay together.
const MOMENT: Span = Span(300_000);

/// How many moments a stall is followed through; what is left of longer ones is cut off.
const REACH: u64 = 32;

/// Numbers of one draw: so many moments share a key.
const SHARED: u64 = 8;

/// The overheads of a host, or none.
#[derive(Clone, Debug, Default)]
pub struct Host {
    late: Option<Arc<[Lateness; 4]>>,
    /// Share of a device's events that a draw of their own makes late.
    own_share: f32,
    /// Which of several simulations of the same.
    turn: u16,
}

/// How late one kind of event is.
#[derive(Clone, Debug)]
enum Lateness {
    /// Always as late.
    Mean(Span),
    /// As percentiles say.
    Spread {
        /// Of how late events are.
        spread: Vec<f32>,
        /// Of what a moment adds to those before it, see [`stalls`].
        stalls: Vec<f32>,
    },
}

/// What an event adds to; as a number, its place in [`Host::late`].
#[derive(Clone, Copy)]
enum Kind {
    Step,
    Upload,
    Wake,
    /// From a batch's order to its start.
    Batch,
}

impl Host {
    /// A host that adds nothing: what the declared times say happens.
    pub fn ideal() -> Host {
        Host::default()
    }

    /// A host as it was measured.
    pub fn measured(overheads: &HostOverheads) -> Host {
        let lateness = |mean: Span, spread: &[f32]| match spread {
            [] => Lateness::Mean(mean),
            spread => Lateness::Spread { spread: spread.to_vec(), stalls: stalls(spread) },
        };
        let late = [
            lateness(overheads.step, &overheads.step_spread),
            lateness(overheads.upload, &overheads.upload_spread),
            lateness(overheads.wake, &overheads.wake_spread),
            lateness(overheads.batch, &overheads.batch_spread),
        ];
        Host { late: Some(Arc::new(late)), own_share: overheads.own_share, turn: 0 }
    }

    /// The same host on another day: every turn has draws of its own.
    pub fn turn(self, turn: u16) -> Host {
        Host { turn, ..self }
    }

    /// Which of several simulations of the same this is.
    pub(crate) fn day(&self) -> u16 {
        self.turn
    }

    /// How much later than asked a device is woken that asked for `at`. The overhead of an upload is added half on its way
    /// up, half on the way down ([`Self::way_down`]).
    pub(crate) fn wake(&self, reason: WakeReason, seed: u64, device: DeviceId, at: Time) -> Span {
        match reason {
            WakeReason::StepTime => self.of_device(Kind::Step, seed, device, at),
            WakeReason::Uplink => Span(self.of_device(Kind::Upload, seed, device, at).0 / 2),
            _ => Span::ZERO,
        }
    }

    /// How much later than sent, at `at`, a message to a device starts to arrive.
    pub(crate) fn way_down(&self, seed: u64, device: DeviceId, at: Time) -> Span {
        Span(self.of_device(Kind::Upload, seed, device, at).0.div_ceil(2))
    }

    /// How much later than asked the pool is woken that asked for `at`.
    pub(crate) fn pool_wake(&self, seed: u64, at: Time) -> Span {
        self.draw(Kind::Wake, seed, at)
    }

    /// From the order of a batch, at `at`, to the start of its computation.
    pub(crate) fn batch(&self, seed: u64, at: Time) -> Span {
        self.draw(Kind::Batch, seed, at)
    }

    /// How late an event of a device is that is due at `at`. Mostly it is late with all others; a few are late by
    /// themselves, or devices that one batch has answered would never part again. Both have the same spread.
    fn of_device(&self, kind: Kind, seed: u64, device: DeviceId, at: Time) -> Span {
        if self.own_share > 0.0
            && let Some(late) = &self.late
            && let Lateness::Spread { spread, .. } = &late[kind as usize]
        {
            let key = DrawKey {
                seed,
                prompt: device.0,
                // Apart from the stalls' draws, and other ones on each day.
                repetition: u16::MAX / 2 - self.turn,
                position: at.0 as u32,
                // Times stay far below 2^62 ns, 146 years.
                epoch: (at.0 >> 32) as u32 | (kind as u32) << 30,
            };
            let mut draws = key.draws(Purpose::Simulation);
            if draws.uniform() < f64::from(self.own_share) {
                return Span(quantile(spread, draws.uniform()).unwrap_or(0.0) as u64);
            }
        }
        self.draw(kind, seed, at)
    }

    /// How late an event is that is due at `at`. Who is due while the host stalls waits for the same end: what a moment's
    /// draw says holds for the moments behind it too, less the time that has passed.
    fn draw(&self, kind: Kind, seed: u64, at: Time) -> Span {
        let Some(late) = &self.late else { return Span::ZERO };
        let table = match &late[kind as usize] {
            Lateness::Mean(mean) => return *mean,
            Lateness::Spread { stalls, .. } => stalls,
        };
        let moment = at.0 / MOMENT.0;
        let mut longest = 0.0_f64;
        // From the key of the farthest moment to that of this one.
        let first = moment.saturating_sub(REACH - 1);
        for group in first / SHARED..=moment / SHARED {
            let (low, high) = (group as u32, (group >> 32) as u32);
            let key = DrawKey { seed, prompt: low, repetition: self.turn, position: high, epoch: 0 };
            let mut draws = key.draws(Purpose::Simulation);
            for drawn in group * SHARED..(group + 1) * SHARED {
                let draw = draws.uniform();
                if (first..=moment).contains(&drawn) {
                    let gone = (moment - drawn) * MOMENT.0;
                    longest = longest.max(quantile(table, draw).unwrap_or(0.0) - gone as f64);
                }
            }
        }
        Span(longest as u64)
    }
}

/// From percentiles of how late events are to percentiles of what each moment draws, so that the former come out: an event
/// is at most x late if no moment j before it has drawn more than x + j · [`MOMENT`], the probability of which is
/// F(x) = G(x) · F(x + `MOMENT`). Hence G(x) = F(x) / F(x + `MOMENT`) \[ours\].
fn stalls(spread: &[f32]) -> Vec<f32> {
    let last = spread.len().saturating_sub(1).max(1) as f64;
    // The share of events that are at most x late.
    let share = |x: f64| {
        let above = spread.partition_point(|&value| f64::from(value) <= x);
        match (above.checked_sub(1), spread.get(above)) {
            (None, _) => 0.0,
            (Some(_), None) => 1.0,
            (Some(below), Some(&next)) => {
                let low = f64::from(spread[below]);
                (below as f64 + (x - low) / (f64::from(next) - low)) / last
            }
        }
    };
    let most = f64::from(spread.last().copied().unwrap_or(0.0)).max(0.0);
    // Finely where most values are: the values themselves, and some between each two.
    let mut points: Vec<f64> = vec![0.0];
    for pair in spread.windows(2) {
        let (low, high) = (f64::from(pair[0]), f64::from(pair[1]));
        points.extend((1..=4).map(|part| low + (high - low) * f64::from(part) / 4.0));
    }
    points.push(most);
    points.retain(|point| *point >= 0.0);
    points.sort_unstable_by(f64::total_cmp);
    let mut reached = 0.0_f64;
    let drawn: Vec<(f64, f64)> = points
        .into_iter()
        .map(|x| {
            let beyond = share(x + MOMENT.0 as f64);
            reached = reached.max(if beyond > 0.0 { share(x) / beyond } else { 0.0 });
            (reached, x)
        })
        .collect();
    (0..=PERMILLES)
        .map(|permille| {
            let wanted = f64::from(permille) / f64::from(PERMILLES);
            let at = drawn.partition_point(|(share, _)| *share < wanted);
            drawn.get(at).map_or(most, |(_, x)| *x) as f32
        })
        .collect()
}

/// Steps of the table: stalls are rare, and the last percent holds most of them.
const PERMILLES: u16 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Percentiles of an exponential lateness with a mean of 500 µs, in ns.
    fn spread() -> Vec<f32> {
        (0..=100).map(|percent| (-(1.0 - 0.0099 * percent as f64).ln() * 500e3) as f32).collect()
    }

    fn host(spread: Vec<f32>) -> Host {
        partly_apart(spread, 0.0)
    }

    fn partly_apart(spread: Vec<f32>, own_share: f32) -> Host {
        let span = Span(1);
        Host::measured(&HostOverheads {
            step: span,
            step_spread: spread,
            upload: span,
            upload_spread: vec![],
            wake: span,
            wake_spread: vec![],
            batch: span,
            batch_spread: vec![],
            own_share,
            uplink_bytes: 0,
            downlink_bytes: 0,
            generations: 1,
        })
    }

    fn late(host: &Host, device: u32, at: u64) -> u64 {
        host.wake(WakeReason::StepTime, 1, DeviceId(device), Time(at)).0
    }

    #[test]
    fn events_are_as_late_as_measured() {
        for own_share in [0.0, 0.3, 1.0] {
            let host = partly_apart(spread(), own_share);
            let mut late: Vec<u64> = (0..40_000).map(|n| late(&host, 7, n * 1_234_567)).collect();
            late.sort_unstable();
            for percent in [25, 50, 75, 90, 95, 99] {
                let (found, expected) = (late[late.len() * percent / 100] as f64, f64::from(spread()[percent]));
                assert!((found - expected).abs() < 0.08 * expected + 5e3, "{own_share}, {percent}: {found} {expected}");
            }
        }
    }

    #[test]
    fn a_share_of_the_events_is_late_by_itself() {
        for own_share in [0.0, 0.1, 1.0] {
            let host = partly_apart(spread(), own_share);
            let apart = (0..20_000).filter(|n| late(&host, 1, n * 1_234_567) != late(&host, 2, n * 1_234_567)).count();
            // One of two devices, or both.
            let expected = 20_000.0 * f64::from(1.0 - (1.0 - own_share).powi(2));
            assert!((apart as f64 - expected).abs() < 150.0, "{own_share}: {apart} {expected}");
        }
    }

    #[test]
    fn who_is_due_in_a_stall_waits_for_its_end() {
        let host = host(spread());
        let release = |at: u64| at + late(&host, 1, at);
        let due: Vec<u64> = (0..20_000).map(|n| n * MOMENT.0 / 2).collect();
        // Nobody overtakes who was due a moment before.
        assert!(due.windows(3).all(|due| release(due[2]) + 1 >= release(due[0])));
        // Many come together, who were due one after another.
        let together = due.windows(3).filter(|due| release(due[2]) <= release(due[0]) + 1).count();
        assert!(together > due.len() / 4, "{together}");
    }

    #[test]
    fn a_day_has_its_own_stalls_and_no_spread_is_the_mean() {
        let one = host(spread());
        let other = one.clone().turn(1);
        let late = |host: &Host| (0..50).map(|n| Span(late(host, 1, n * 1_000_000))).collect::<Vec<_>>();
        assert_eq!(late(&one), late(&one.clone()));
        assert_ne!(late(&one), late(&other));
        assert!(late(&host(vec![])).iter().all(|late| *late == Span(1)));
        assert!(late(&Host::ideal()).iter().all(|late| *late == Span::ZERO));
    }
}
