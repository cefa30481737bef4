//! When a busy host stalls: whoever is due meanwhile waits for the same end \[ours\].
//!
//! Stalls of length s begin at a rate λ(s), each without regard to the others, and an event is late until the last one ends that
//! it falls into. It is at most x late with the probability F(x) = exp(−Λ(x)), Λ(x) = ∫ λ(s) (s − x)⁺ ds, so measured percentiles
//! F say how often stalls are longer than x: −Λ′(x) = F′(x) / F(x). That may only fall with x; where the percentiles say otherwise,
//! neighbours are averaged, and all lengths are stretched so that the mean still comes out.

use specfleet_engine::cost::quantile;
use specfleet_engine::random::{DrawKey, Purpose};
use specfleet_engine::time::{Span, Time};

/// Stalls that come out with measured percentiles.
#[derive(Clone, Debug)]
pub(crate) struct Stalls {
    /// What every event is late, in ns.
    least: u64,
    /// The longest stalls first.
    levels: Vec<Level>,
}

/// The stalls of one octave of lengths. They begin at the beginning of a slot, and reach less than [`REACH`] slots. Kinds of
/// events have different stalls but the same draws: a host that stalls is late with all of them.
#[derive(Clone, Debug)]
struct Level {
    octave: u32,
    /// The longest first: from which draw on a slot has a stall at least as long, and how long it is, in ns.
    stalls: Vec<(f64, u64)>,
}

/// So many slots does a stall reach at most, and so many share a key.
const REACH: u64 = 8;

/// The shortest octave is so many below the longest, and has all stalls that are shorter still.
const OCTAVES: u32 = 11;

/// A quarter of an hour, in ns: a file that says more is taken to say that.
const LONGEST: f64 = 9e11;

impl Stalls {
    /// From evenly spaced quantiles, the lowest and the highest included, in ns.
    pub(crate) fn of(spread: &[f32]) -> Stalls {
        // Λ at each percentile but the lowest, where it has no end; of equal ones the highest counts.
        let mut points: Vec<(f64, f64)> = Vec::new();
        for percent in 1..=100 {
            let share = f64::from(percent) / 100.0;
            let late = quantile(spread, share).unwrap_or(0.0).clamp(0.0, LONGEST);
            let point = (late, -share.ln());
            match points.last_mut() {
                Some(before) if point.0 <= before.0 => before.1 = point.1,
                _ => points.push(point),
            }
        }
        let least = points.first().map_or(0.0, |point| point.0);
        let pieces = falling(&points);
        let mean = |points: &[(f64, f64)]| points.windows(2).map(mean_beyond).sum::<f64>();
        let stretch = if pieces.len() < points.len() { mean(&points) / mean(&pieces) } else { 1.0 };
        let mut levels: Vec<Level> = Vec::new();
        let (mut longer, mut of_level) = (0.0, 0.0);
        let longest = points.last().map_or(0.0, |point| stretch * (point.0 - least)) as u64;
        let shortest_octave = longest.max(REACH).ilog2().saturating_sub(OCTAVES);
        for pair in pieces.windows(2).rev() {
            let length = (stretch * (pair[1].0 - least)) as u64;
            let rate = (pair[0].1 - pair[1].1) / (stretch * (pair[1].0 - pair[0].0));
            let octave = length.max(REACH).ilog2().max(shortest_octave);
            if levels.last().is_none_or(|level| level.octave != octave) {
                levels.push(Level { octave, stalls: Vec::new() });
                of_level = 0.0;
            }
            // Those of just this length.
            of_level += rate - longer;
            longer = rate;
            if let Some(level) = levels.last_mut() {
                // That no stall as long begins in a slot.
                let none = (-of_level * slot(octave) as f64).exp();
                level.stalls.push((none, length));
            }
        }
        Stalls { least: least as u64, levels }
    }

    /// How late an event is that is due at `at`, on the day `turn`.
    pub(crate) fn at(&self, seed: u64, turn: u16, at: Time) -> Span {
        let mut late = 0;
        for Level { octave, stalls } in &self.levels {
            if stalls.first().is_none_or(|(_, longest)| *longest <= late) {
                break;
            }
            let slot = slot(*octave);
            let of_event = at.0 / slot;
            let first = of_event.saturating_sub(REACH - 1);
            for group in first / REACH..=of_event / REACH {
                let (prompt, position) = (group as u32, (group >> 32) as u32);
                let mut draws = DrawKey { seed, prompt, repetition: turn, position, rejections: *octave }
                    .draws(Purpose::Simulation);
                for begin in group * REACH..(group + 1) * REACH {
                    let draw = draws.uniform();
                    if (first..=of_event).contains(&begin)
                        && let Some((_, length)) = stalls.iter().find(|(none, _)| draw >= *none)
                    {
                        late = late.max((begin * slot + length).saturating_sub(at.0));
                    }
                }
            }
        }
        Span(self.least + late)
    }
}

/// Length of an octave's slots, in ns: its stalls are of 2^octave to 2^(octave + 1) ns.
fn slot(octave: u32) -> u64 {
    (2 << octave) / REACH
}

/// Of points (x, Λ(x)) those between which −Λ′ falls.
fn falling(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let rate = |from: (f64, f64), to: (f64, f64)| (from.1 - to.1) / (to.0 - from.0);
    for &point in points {
        while let [.., before, last] = kept[..]
            && rate(before, last) <= rate(last, point)
        {
            kept.pop();
        }
        kept.push(point);
    }
    kept
}

/// What the values between two points add to the mean, Λ being straight there: the integral of 1 − exp(−Λ).
fn mean_beyond(pair: &[(f64, f64)]) -> f64 {
    let (length, fall) = (pair[1].0 - pair[0].0, pair[0].1 - pair[1].1);
    length * (1.0 - ((-pair[1].1).exp() - (-pair[0].1).exp()) / fall)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means of so many events, as measured and as drawn.
    fn means(spread: &[f32]) -> (f64, f64) {
        let stalls = Stalls::of(spread);
        let drawn: u64 = (0..40_000).map(|n| stalls.at(1, 0, Time(n * 1_234_567)).0).sum();
        let measured: f64 = spread.windows(2).map(|pair| f64::from(pair[0] + pair[1]) / 2.0).sum();
        (measured / (spread.len() - 1) as f64, drawn as f64 / 40_000.0)
    }

    #[test]
    fn whatever_the_spread_its_mean_comes_out() {
        let percentiles = |late: &dyn Fn(f64) -> f64| -> Vec<f32> {
            (0..=100).map(|percent| late(f64::from(percent) / 100.0) as f32).collect()
        };
        let spreads = [
            // Nanoseconds to milliseconds.
            percentiles(&|share| share * 400.0),
            percentiles(&|share| 60e3 + share * 90e3),
            percentiles(&|share| 30e3 * (1.0 - 0.99 * share).powi(-1)),
            percentiles(&|share| 2e6 * share.powi(12)),
            // Two humps: whole neighbourhoods are averaged.
            percentiles(&|share| if share < 0.6 { 5e3 + 2e3 * share } else { 5e5 + 1e6 * (share - 0.6) }),
        ];
        for spread in spreads {
            let (measured, drawn) = means(&spread);
            assert!((drawn - measured).abs() < 0.1 * measured, "{measured} {drawn} {spread:?}");
        }
        assert_eq!(means(&[7.0, 7.0]).1, 7.0);
    }

    #[test]
    fn any_file_gives_an_answer() {
        for spread in [&[][..], &[f32::MAX, f32::MAX], &[0.0, f32::MAX], &[f32::NAN; 3], &[5e9, 3.0, -1e9, 2e12]] {
            let stalls = Stalls::of(spread);
            for at in [0, 1, 1_000_000, 1 << 40, 1 << 61] {
                assert!(stalls.at(1, 0, Time(at)).0 <= 2 * LONGEST as u64, "{spread:?}");
            }
        }
    }
}
