//! Arrival processes of an open loop.

use std::iter::Peekable;
use std::slice;

use serde::{Deserialize, Serialize};

use crate::random::{DrawKey, Draws, Purpose};
use crate::time::{Span, Time};

/// How requests arrive at the whole fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "process")]
pub enum Arrivals {
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
    Constant {
        rate: f64,
    },
    /// Poisson at a rate that moves linearly from stage to stage; after the last it stays.
    Ramp {
        /// Rate at the start, in requests per second.
        start: f64,
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

/// The arrival times of one phase, one after another, since its start; never one earlier than the one before. It ends
/// where nothing more arrives: behind the last recorded time, where the rate falls to 0 for good, and at the end of time.
#[derive(Clone, Debug)]
pub struct ArrivalTimes<'a> {
    process: Process<'a>,
    draws: Draws,
    last: Time,
}

#[derive(Clone, Debug)]
enum Process<'a> {
    Poisson { rate: f64, at: f64 },
    Gamma { gaps: Gamma, at: f64 },
    Constant { rate: f64, count: u64 },
    Ramp(Ramp<'a>),
    Recorded(slice::Iter<'a, Time>),
}

impl Arrivals {
    /// The arrivals of a phase, by the run's seed: the same for every method.
    pub fn times(&self, seed: u64) -> ArrivalTimes<'_> {
        let key = DrawKey { seed, prompt: 0, repetition: 0, position: 0, rejections: 0 };
        let process = match self {
            Arrivals::Poisson { rate } => Process::Poisson { rate: *rate, at: 0.0 },
            Arrivals::Gamma { rate, variation } => Process::Gamma { gaps: Gamma::new(*rate, *variation), at: 0.0 },
            Arrivals::Constant { rate } => Process::Constant { rate: *rate, count: 0 },
            Arrivals::Ramp { start, stages } => Process::Ramp(Ramp::new(*start, stages)),
            Arrivals::Recorded { times } => Process::Recorded(times.iter()),
        };
        ArrivalTimes { process, draws: key.draws(Purpose::Load), last: Time::ZERO }
    }
}

impl Iterator for ArrivalTimes<'_> {
    type Item = Time;

    fn next(&mut self) -> Option<Time> {
        let draws = &mut self.draws;
        let seconds = match &mut self.process {
            Process::Recorded(times) => return times.next().copied(),
            Process::Poisson { rate, at } => {
                *at += exponential(draws) / *rate;
                *at
            }
            Process::Gamma { gaps, at } => {
                *at += gaps.draw(draws);
                *at
            }
            // From the count, not from a sum: errors of rounding do not add up.
            Process::Constant { rate, count } => {
                *count += 1;
                *count as f64 / *rate
            }
            Process::Ramp(ramp) => ramp.next(exponential(draws))?,
        };
        // Rounding must not turn two arrivals round.
        self.last = self.last.max(Time::ZERO + Span::from_seconds(seconds));
        (seconds.is_finite() && self.last != Time(u64::MAX)).then_some(self.last)
    }
}

/// One draw from the exponential distribution with mean 1.
fn exponential(draws: &mut Draws) -> f64 {
    -(1.0 - draws.uniform()).ln()
}

// ---- gamma ---------------------------------------------------------------------------------------------------------

/// Gamma-distributed gaps in seconds, by Marsaglia and Tsang, "A simple method for generating gamma variables" (2000):
/// of d·v with v = (1 + c·x)³, x normal, those are kept for which ln U < x²/2 + d − d·v + d·ln v.
#[derive(Clone, Copy, Debug)]
struct Gamma {
    /// Shape − 1/3, of the shape itself if it is at least 1, of shape + 1 otherwise.
    d: f64,
    c: f64,
    /// 1/shape where the shape is less than 1: a draw of shape + 1 times U^(1/shape) has this shape.
    boost: Option<f64>,
    /// Mean gap over shape.
    scale: f64,
}

impl Gamma {
    /// Shape 1/variation², mean 1/rate.
    fn new(rate: f64, variation: f64) -> Gamma {
        let shape = 1.0 / (variation * variation);
        let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
        Gamma { d, c: 1.0 / (9.0 * d).sqrt(), boost: (shape < 1.0).then_some(1.0 / shape), scale: 1.0 / (rate * shape) }
    }

    fn draw(&self, draws: &mut Draws) -> f64 {
        let kept = loop {
            let x = normal(draws);
            let v = (1.0 + self.c * x).powi(3);
            if v <= 0.0 {
                continue;
            }
            let u = 1.0 - draws.uniform();
            if u.ln() < 0.5 * x * x + self.d - self.d * v + self.d * v.ln() {
                break self.d * v;
            }
        };
        let boost = self.boost.map_or(1.0, |power| (1.0 - draws.uniform()).powf(power));
        kept * boost * self.scale
    }
}

/// One draw from the standard normal distribution, by Box and Muller.
fn normal(draws: &mut Draws) -> f64 {
    let radius = (2.0 * exponential(draws)).sqrt();
    radius * (std::f64::consts::TAU * draws.uniform()).cos()
}

// ---- ramp ----------------------------------------------------------------------------------------------------------

/// An inhomogeneous Poisson process: unit exponential gaps in the *expected* number of arrivals Λ(t), each turned into a
/// time by inverting Λ, which is quadratic within a stage.
#[derive(Clone, Debug)]
struct Ramp<'a> {
    /// The stages that have not begun.
    stages: Peekable<slice::Iter<'a, Stage>>,
    /// The stage under way: its start in seconds, the rate there, the rate at its end, and how long it lasts.
    from: f64,
    rate: f64,
    end_rate: f64,
    span: f64,
    /// Expected arrivals since the start of this stage until the last arrival.
    expected: f64,
}

impl<'a> Ramp<'a> {
    fn new(start: f64, stages: &'a [Stage]) -> Ramp<'a> {
        let stages = stages.iter().peekable();
        // A stage of no length that jumps nowhere: the first real one follows.
        Ramp { stages, from: 0.0, rate: start, end_rate: start, span: 0.0, expected: 0.0 }
    }

    /// The time at which `gap` more arrivals are expected than at the last one.
    fn next(&mut self, gap: f64) -> Option<f64> {
        self.expected += gap;
        loop {
            let whole = 0.5 * (self.rate + self.end_rate) * self.span;
            if self.expected < whole {
                return Some(self.from + self.inverse(self.expected));
            }
            let Some(stage) = self.stages.next() else { break };
            self.expected -= whole;
            self.from += self.span;
            (self.rate, self.end_rate, self.span) = (self.end_rate, stage.rate, stage.span.seconds());
        }
        let whole = 0.5 * (self.rate + self.end_rate) * self.span;
        let beyond = (self.expected - whole) / self.end_rate;
        (self.end_rate > 0.0).then_some(self.from + self.span + beyond)
    }

    /// Where in this stage r·t + s·t²/2 = `expected`, with s = (end rate − rate) / span. Written so that nothing cancels
    /// and s = 0 needs no case of its own: t = 2Λ / (r + √(r² + 2sΛ)).
    fn inverse(&self, expected: f64) -> f64 {
        let slope = (self.end_rate - self.rate) / self.span;
        let root = (self.rate * self.rate + 2.0 * slope * expected).max(0.0).sqrt();
        (2.0 * expected / (self.rate + root)).min(self.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(arrivals: &Arrivals, seed: u64, count: usize) -> Vec<f64> {
        let times: Vec<Time> = arrivals.times(seed).take(count).collect();
        assert!(times.is_sorted(), "{arrivals:?}");
        times.iter().map(|time| time.0 as f64 * 1e-9).collect()
    }

    /// Mean and coefficient of variation of the gaps.
    fn gaps(arrivals: &Arrivals, count: usize) -> (f64, f64) {
        let times = seconds(arrivals, 3, count);
        let gaps: Vec<f64> = times.iter().zip([0.0].iter().chain(&times)).map(|(to, from)| to - from).collect();
        let mean = gaps.iter().sum::<f64>() / count as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn gaps_have_their_mean_and_variation() {
        let rate = 40.0;
        for (arrivals, variation) in [
            (Arrivals::Poisson { rate }, 1.0),
            (Arrivals::Gamma { rate, variation: 1.0 }, 1.0),
            (Arrivals::Gamma { rate, variation: 0.3 }, 0.3),
            (Arrivals::Gamma { rate, variation: 2.5 }, 2.5),
            (Arrivals::Constant { rate }, 0.0),
            (Arrivals::Ramp { start: rate, stages: vec![] }, 1.0),
        ] {
            let (mean, found) = gaps(&arrivals, 200_000);
            assert!((mean * rate - 1.0).abs() < 0.02, "{arrivals:?}: mean {mean}");
            assert!((found - variation).abs() < 0.02 * variation.max(0.01), "{arrivals:?}: variation {found}");
        }
    }

    /// Beyond two moments: P(gap > mean) of a gamma of shape 1/4 is Q(1/4, 1/4) = 0.2563, of an exponential e⁻¹.
    #[test]
    fn gamma_has_its_tail() {
        for (variation, expected) in [(2.0, 0.256_322), (1.0, (-1.0_f64).exp())] {
            let times = seconds(&Arrivals::Gamma { rate: 1.0, variation }, 5, 200_000);
            let long = times.windows(2).filter(|pair| pair[1] - pair[0] > 1.0).count() as f64 / 199_999.0;
            assert!((long - expected).abs() < 0.005, "variation {variation}: {long}, not {expected}");
        }
    }

    #[test]
    fn constant_is_exact() {
        let times: Vec<Time> = Arrivals::Constant { rate: 8.0 }.times(1).take(1_000_000).collect();
        for (index, time) in times.iter().enumerate() {
            assert_eq!(time.0, (index as u64 + 1) * 125_000_000);
        }
    }

    #[test]
    fn a_ramp_holds_what_its_stages_promise() {
        let stage = |seconds: u64, rate: f64| Stage { span: Span::from_millis(seconds * 1_000), rate };
        // Up, a jump (a stage of no length), flat, down to nothing, a pause, and up again.
        let stages =
            vec![stage(10, 100.0), stage(0, 20.0), stage(10, 20.0), stage(10, 0.0), stage(5, 0.0), stage(10, 50.0)];
        let ramp = Arrivals::Ramp { start: 0.0, stages };
        let (mut counts, mut halves) = ([0_u32; 6], 0_u32);
        let seeds = 200_u32;
        for seed in 0..seeds {
            for at in ramp.times(u64::from(seed)).map(|time| time.0 as f64 * 1e-9).take_while(|&at| at < 55.0) {
                let stage = [10.0, 20.0, 30.0, 35.0, 45.0, 55.0].iter().position(|&end| at < end).unwrap();
                counts[stage] += 1;
                halves += u32::from(at < 5.0);
            }
        }
        for (stage, expected) in [500.0, 200.0, 100.0, 0.0, 250.0, 500.0].into_iter().enumerate() {
            let (found, all) = (f64::from(counts[stage]), expected * f64::from(seeds));
            // Four standard deviations of a Poisson count.
            assert!((found - all).abs() <= 4.0 * all.sqrt(), "stage {stage}: {found}, not {all}");
        }
        let quarter = 0.25 * f64::from(counts[0]);
        assert!((f64::from(halves) - quarter).abs() < 4.0 * quarter.sqrt(), "a rising rate is late in its stage");
    }

    #[test]
    fn what_ends_ends() {
        let down = Arrivals::Ramp { start: 50.0, stages: vec![Stage { span: Span::from_millis(1_000), rate: 0.0 }] };
        let count = down.times(1).count();
        assert!((5..60).contains(&count), "25 are expected: {count}");
        let times = vec![Time(5), Time(5), Time(9)];
        assert_eq!(Arrivals::Recorded { times: times.clone() }.times(1).collect::<Vec<_>>(), times);
        assert_eq!(Arrivals::Poisson { rate: 0.0 }.times(1).next(), None);
    }

    #[test]
    fn the_seed_decides() {
        for arrivals in [
            Arrivals::Poisson { rate: 3.0 },
            Arrivals::Gamma { rate: 3.0, variation: 1.5 },
            Arrivals::Ramp { start: 1.0, stages: vec![Stage { span: Span::from_millis(9), rate: 7.0 }] },
        ] {
            assert_eq!(seconds(&arrivals, 1, 100), seconds(&arrivals, 1, 100));
            assert_ne!(seconds(&arrivals, 1, 100), seconds(&arrivals, 2, 100));
        }
    }
}
