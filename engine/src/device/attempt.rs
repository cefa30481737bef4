//! One attempt to send an upload: which channel it meets, and what waiting for its answer is charged.
//!
//! A device that is emulated waits on the clock of the machine that emulates it, which may be late for any reason. It is
//! charged what its upload takes by the emulated accounts alone: the uplink, the pool's queue and computation, the
//! downlink, less the declared time of what it drafted meanwhile. What it waited longer is overrun, and costs nothing
//! \[ours\].

use super::link::ChannelKey;
use crate::record::DeviceTimes;
use crate::time::{Span, Time};

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// When it began.
    began: Time,
    /// Waited since then by the clock, and not yet charged.
    waited: Span,
    /// Declared time of draft steps since then, not yet taken off a charge.
    drafted: Span,
    /// From its beginning to the last verdict's departure from the pool, by the emulated accounts.
    answered: Span,
    /// How much of the time since its beginning is charged.
    charged: Span,
    /// What the channel of its frames is drawn from.
    position: u32,
    number: u32,
    /// Frames that have arrived because of it.
    frames: u32,
}

impl Attempt {
    pub(super) const NONE: Attempt = Attempt {
        began: Time::ZERO,
        waited: Span::ZERO,
        drafted: Span::ZERO,
        answered: Span::ZERO,
        charged: Span::ZERO,
        position: 0,
        number: 0,
        frames: 0,
    };

    /// The attempt with this number, from 0, to upload from `position` on, which leaves the device for `uplink`.
    pub(super) fn begin(now: Time, position: u32, number: u32, uplink: Span) -> Attempt {
        Attempt { began: now, answered: uplink, position, number, ..Attempt::NONE }
    }

    /// The key of the next frame that comes down for it; `of` says whose it is.
    pub(super) fn next_frame(&mut self, of: ChannelKey) -> ChannelKey {
        self.frames += 1;
        ChannelKey { position: self.position + self.frames - 1, attempt: self.number, ..of }
    }

    /// The device waited this long.
    pub(super) fn wait(&mut self, elapsed: Span) {
        self.waited += elapsed;
    }

    /// A draft step that began at `since` is over, for which `declared` is charged.
    pub(super) fn drafted(&mut self, since: Time, declared: Span) {
        // What lay before the attempt was no time of its.
        self.drafted += declared - self.began.since(since);
    }

    /// An answer is here: it was in the pool for `pool` since the last one, and took `downlink` on its way. Divides what was
    /// waited into what is charged and what is overrun. `computing`: when the draft step under way began, and what is
    /// declared for it.
    pub(super) fn answer(
        &mut self,
        now: Time,
        pool: Span,
        downlink: Span,
        computing: Option<(Time, Span)>,
        times: &mut DeviceTimes,
    ) {
        self.answered += pool;
        let until = (self.answered + downlink).max(self.charged);
        let drafting = computing.map_or(Span::ZERO, |(since, declared)| declared.min(now.since(since.max(self.began))));
        let charge = (until - self.charged - self.drafted - drafting).min(self.waited);
        times.waiting += charge;
        times.waiting_overrun += self.waited - charge;
        (self.charged, self.waited, self.drafted) = (until, Span::ZERO, Span::ZERO);
    }

    /// It ended without an answer: what was waited is charged as it was.
    pub(super) fn give_up(&mut self, times: &mut DeviceTimes) {
        times.waiting += std::mem::replace(&mut self.waited, Span::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn millis(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    #[test]
    fn a_late_host_is_overrun() {
        let mut times = DeviceTimes::default();
        let mut attempt = Attempt::begin(Time(5 * MS), 7, 0, millis(10));
        attempt.wait(millis(40));
        attempt.answer(Time(45 * MS), millis(3), millis(12), None, &mut times);
        assert_eq!((times.waiting, times.waiting_overrun), (millis(25), millis(15)));
        // The next verdict of the same upload left the pool 3 ms after the one before and came down faster.
        attempt.wait(millis(4));
        attempt.answer(Time(49 * MS), millis(3), millis(11), None, &mut times);
        assert_eq!((times.waiting, times.waiting_overrun), (millis(27), millis(17)));
    }

    #[test]
    fn what_was_drafted_meanwhile_was_not_waited_for() {
        let mut times = DeviceTimes::default();
        let mut attempt = Attempt::begin(Time(5 * MS), 7, 0, millis(10));
        // Began 2 ms before the upload, declared 6 ms: 4 of them are the upload's.
        attempt.drafted(Time(3 * MS), millis(6));
        attempt.wait(millis(30));
        attempt.answer(Time(50 * MS), millis(3), millis(12), Some((Time(49 * MS), millis(6))), &mut times);
        assert_eq!((times.waiting, times.waiting_overrun), (millis(20), millis(10)));
    }

    proptest! {
        /// Whatever comes, no time is lost or made up.
        #[test]
        fn the_clock_divides_into_charge_and_overrun(
            answers in proptest::collection::vec((0u64..50, 0u64..50, 0u64..50, 0u64..50), 1..20)
        ) {
            let mut times = DeviceTimes::default();
            let mut attempt = Attempt::begin(Time::ZERO, 0, 0, Span(20));
            let mut now = 0;
            for &(waited, pool, downlink, drafted) in &answers {
                attempt.drafted(Time(now), Span(drafted));
                attempt.wait(Span(waited));
                now += waited + drafted;
                attempt.answer(Time(now), Span(pool), Span(downlink), None, &mut times);
            }
            let waited: u64 = answers.iter().map(|answer| answer.0).sum();
            prop_assert_eq!(times.waiting.0 + times.waiting_overrun.0, waited);
        }
    }
}
