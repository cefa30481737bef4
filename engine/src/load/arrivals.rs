//! Arrival processes of an open loop.

use serde::{Deserialize, Serialize};

use crate::random::{DrawKey, Draws, Purpose};
use crate::time::{Span, Time};

/// How requests arrive at the whole fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "process")]
pub enum Arrivals {
    /// Independent: exponential gaps.
    Poisson {
        /// Mean requests per second.
        rate: f64,
    },
    /// In bursts (or evener than Poisson): gamma gaps.
    Gamma {
        /// Mean requests per second.
        rate: f64,
        /// Standard deviation of a gap over its mean; 1 is Poisson, more comes in bursts.
        variation: f64,
    },
    /// Every 1/rate seconds.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// Poisson at a rate that moves linearly from stage to stage; after the last it stays.
    Ramp {
        /// Rate at the start, in requests per second.
        start: f64,
        /// The stages.
        stages: Vec<Stage>,
    },
    /// At these times, in order; after the last, nothing more arrives.
    Recorded {
        /// Times since the start of the phase, ascending.
        times: Vec<Time>,
    },
}

/// One stage of a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// How long it lasts.
    pub span: Span,
    /// The rate that is reached at its end, in requests per second.
    pub rate: f64,
}

/// The arrival times of one phase, one after another.
#[derive(Clone, Debug)]
pub struct ArrivalTimes<'a> {
    arrivals: &'a Arrivals,
    draws: Draws,
    /// Seconds since the start of the phase of the last arrival.
    at: f64,
    count: u64,
}

impl Arrivals {
    /// The arrivals of a phase, by the run's seed: the same for every method.
    pub fn times(&self, seed: u64) -> ArrivalTimes<'_> {
        let key = DrawKey { seed, prompt: 0, repetition: 0, position: 0, epoch: 0 };
        ArrivalTimes { arrivals: self, draws: key.draws(Purpose::Load), at: 0.0, count: 0 }
    }
}

impl Iterator for ArrivalTimes<'_> {
    type Item = Time;

    /// The next arrival, since the start of the phase; never earlier than the one before.
    fn next(&mut self) -> Option<Time> {
        let _ = &mut self.draws;
        self.count += 1;
        match self.arrivals {
            Arrivals::Recorded { times } => times.get(self.count as usize - 1).copied(),
            // Placeholder until the processes are written.
            _ => {
                self.at += 1.0;
                Some(Time::ZERO + Span::from_seconds(self.at))
            }
        }
    }
}
