//! What the host of a live run adds to declared times: late timers, sockets, actors \[ours\].

use std::sync::Arc;

use specfleet_engine::calibration::HostOverheads;
use specfleet_engine::cost::quantile;
use specfleet_engine::device::WakeReason;
use specfleet_engine::id::DeviceId;
use specfleet_engine::random::{DrawKey, Purpose};
use specfleet_engine::time::{Span, Time};

use crate::stalls::Stalls;

/// The overheads of a host, or none.
#[derive(Clone, Debug, Default)]
pub struct Host {
    late: Option<Arc<[Lateness; 5]>>,
    /// Share of a device's events that a draw of their own makes late.
    own_share: f32,
    /// Which of several simulations of the same.
    turn: u16,
}

/// How late one kind of event is.
#[derive(Clone, Debug)]
enum Lateness {
    Mean(Span),
    Spread {
        /// Of how late events are, in ns.
        spread: Vec<f32>,
        /// The stalls that make them so.
        stalls: Stalls,
    },
}

/// What an event adds to; as a number, its place in [`Host::late`].
#[derive(Clone, Copy)]
enum DelayKind {
    Step,
    /// Half of what an upload takes longer: on its way up.
    Up,
    /// And on the way down of its verdict.
    Down,
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
            spread => Lateness::Spread { spread: spread.to_vec(), stalls: Stalls::of(spread) },
        };
        let half: Vec<f32> = overheads.upload_spread.iter().map(|late| late / 2.0).collect();
        let late = [
            lateness(overheads.step, &overheads.step_spread),
            lateness(Span(overheads.upload.0 / 2), &half),
            lateness(Span(overheads.upload.0.div_ceil(2)), &half),
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
            WakeReason::StepTime => self.of_device(DelayKind::Step, seed, device, at),
            WakeReason::Uplink => self.of_device(DelayKind::Up, seed, device, at),
            _ => Span::ZERO,
        }
    }

    /// How much later than sent, at `at`, a message to a device starts to arrive.
    pub(crate) fn way_down(&self, seed: u64, device: DeviceId, at: Time) -> Span {
        self.of_device(DelayKind::Down, seed, device, at)
    }

    /// How much later than asked the pool is woken that asked for `at`.
    pub(crate) fn pool_wake(&self, seed: u64, at: Time) -> Span {
        self.draw(DelayKind::Wake, seed, at)
    }

    /// From the order of a batch, at `at`, to the start of its computation.
    pub(crate) fn batch(&self, seed: u64, at: Time) -> Span {
        self.draw(DelayKind::Batch, seed, at)
    }

    /// How late an event of a device is that is due at `at`. Mostly it is late with all others; a few are late by
    /// themselves, or devices that one batch has answered would never part again. Both have the same spread.
    fn of_device(&self, kind: DelayKind, seed: u64, device: DeviceId, at: Time) -> Span {
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
                // Times stay far below 2^61 ns, 73 years.
                rejections: (at.0 >> 32) as u32 | (kind as u32) << 29,
            };
            let mut draws = key.draws(Purpose::Simulation);
            if draws.uniform() < f64::from(self.own_share) {
                return Span(quantile(spread, draws.uniform()).unwrap_or(0.0) as u64);
            }
        }
        self.draw(kind, seed, at)
    }

    /// How late an event is that is due at `at`.
    fn draw(&self, kind: DelayKind, seed: u64, at: Time) -> Span {
        let Some(late) = &self.late else { return Span::ZERO };
        match &late[kind as usize] {
            Lateness::Mean(mean) => *mean,
            Lateness::Spread { stalls, .. } => stalls.at(seed, self.turn, at),
        }
    }
}

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
        let release: Vec<u64> = (0..20_000).map(|n| n * 50_000).map(|at| at + late(&host, 1, at)).collect();
        assert!(release.is_sorted(), "nobody overtakes who was due before");
        let together = release.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(together > release.len() / 2, "{together}");
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
