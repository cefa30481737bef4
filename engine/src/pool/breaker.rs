//! The circuit breaker of one verifier: after too many failures in a row without a completed batch it gets no new work for
//! a while, then one batch on trial.

use super::settings::Breaker;
use crate::time::{Span, Time};

/// A cooldown is doubled this often at most: 64 times the first one.
const MOST_DOUBLINGS: u32 = 6;

#[derive(Clone, Copy, Debug)]
pub(super) struct Circuit {
    failures: u32,
    state: BreakerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BreakerState {
    Closed,
    OpenUntil(Time),
    /// The next batch decides.
    Trial,
}

impl Circuit {
    pub(super) fn closed() -> Circuit {
        Circuit { failures: 0, state: BreakerState::Closed }
    }

    /// Whether new work may come, for a verifier that computes a batch or does not.
    pub(super) fn lets_in(&self, running: bool) -> bool {
        match self.state {
            BreakerState::Closed => true,
            BreakerState::OpenUntil(_) => false,
            BreakerState::Trial => !running,
        }
    }

    /// The verifier failed. If that opens the breaker: until when.
    pub(super) fn fail(&mut self, settings: &Breaker, now: Time) -> Option<Time> {
        self.failures = self.failures.saturating_add(1);
        if settings.failures == 0 || self.failures < settings.failures {
            return None;
        }
        let doublings = (self.failures - settings.failures).min(MOST_DOUBLINGS);
        let until = now + Span(settings.cooldown.0.saturating_mul(1 << doublings));
        self.state = BreakerState::OpenUntil(until);
        Some(until)
    }

    /// The time until which it was open has come, unless it was changed since.
    pub(super) fn cooled(&mut self, until: Time) {
        if self.state == BreakerState::OpenUntil(until) {
            self.state = BreakerState::Trial;
        }
    }

    /// It has completed a batch.
    pub(super) fn succeed(&mut self) {
        *self = Circuit::closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_cools_down_and_closes_again() {
        let settings = Breaker { failures: 2, cooldown: Span(10) };
        let mut circuit = Circuit::closed();
        assert_eq!(circuit.fail(&settings, Time(0)), None);
        circuit.succeed();
        assert_eq!(circuit.fail(&settings, Time(0)), None, "a batch in between starts the count anew");
        assert!(circuit.lets_in(true));
        let mut now = Time(0);
        for doubling in [0, 1, 2, 3, 4, 5, 6, 6] {
            let until = circuit.fail(&settings, now);
            assert_eq!(until, Some(now + Span(10 << doubling)));
            assert!(!circuit.lets_in(false));
            now = until.unwrap();
            circuit.cooled(now + Span(1));
            assert!(!circuit.lets_in(false), "another time than that of the last failure");
            circuit.cooled(now);
            assert!(circuit.lets_in(false) && !circuit.lets_in(true), "one batch on trial");
        }
        circuit.succeed();
        assert!(circuit.lets_in(true));
        let never = Breaker { failures: 0, cooldown: Span(10) };
        assert!((0..100).all(|_| circuit.fail(&never, Time(0)).is_none()));
    }
}
