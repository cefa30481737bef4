//! How sure a figure is of a run that was repeated: a bootstrap over passes and prompts.
//!
//! Every pass answers the same prompts, so passes and prompts are crossed: a pass that the host slowed down moves all its
//! prompts together, and a hard prompt is hard in every pass. Both are resampled with replacement, each as a whole \[Owen
//! 2007, the pigeonhole bootstrap\], and the two deviations are added up. A bootstrap of n takes the spread for too small by
//! (n − 1) / n and knows nothing of how uncertain that spread itself is, which matters for a handful of passes: each
//! deviation is widened by √(n / (n − 1)) and by Student's t over the normal quantile (Hesterberg 2015).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::rate::{Z, student};

/// Resamples of the bootstrap.
const RESAMPLES: usize = 1_000;

/// What an interval was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// The prompts of one pass: it says nothing about the next run.
    Prompts,
    /// Passes, for figures that belong to a pass as a whole.
    Passes,
    PassesAndPrompts,
}

/// A 95 % interval of a mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanInterval {
    pub low: f64,
    pub high: f64,
    /// What it was taken over.
    pub over: Over,
}

/// A figure's parts by pass and prompt: its mean is Σ numerators / Σ denominators.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Crossed {
    /// Σ over the prompts, by pass.
    passes: Vec<(f64, f64)>,
    /// Σ over the passes, by prompt.
    prompts: Vec<(f64, f64)>,
}

/// How a figure of one repeated run differs from another's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossedDifference {
    pub difference: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    pub high: f64,
    /// Two-sided p-value of "no difference": the share of resampled deviations as far from zero as the difference.
    pub p_value: f64,
}

impl MeanInterval {
    /// The same width around a mean that was taken with other weights than the `crossed` figure's own.
    pub(crate) fn around(self, mean: f64, crossed: &Crossed) -> MeanInterval {
        let shift = crossed.mean().map_or(0.0, |own| mean - own);
        MeanInterval { low: self.low + shift, high: self.high + shift, over: self.over }
    }
}

impl Crossed {
    /// From cells by pass and then prompt, each a numerator and a denominator. Every pass has the same prompts in the same
    /// order; a cell without anything is (0, 0).
    pub fn new<P>(cells: impl IntoIterator<Item = P>) -> Crossed
    where
        P: IntoIterator<Item = (f64, f64)>,
    {
        let mut crossed = Crossed::default();
        for pass in cells {
            let mut sum = (0.0, 0.0);
            for (index, cell) in pass.into_iter().enumerate() {
                if index == crossed.prompts.len() {
                    crossed.prompts.push((0.0, 0.0));
                }
                add(&mut crossed.prompts[index], cell);
                add(&mut sum, cell);
            }
            crossed.passes.push(sum);
        }
        // What has nothing of a figure says nothing about how it varies.
        crossed.passes.retain(|(_, denominator)| *denominator > 0.0);
        crossed
    }

    /// From one figure per pass.
    pub fn of_passes(figures: impl IntoIterator<Item = f64>) -> Crossed {
        Crossed::new(figures.into_iter().map(|figure| [(figure, 1.0)]))
    }

    /// Σ numerators / Σ denominators; `None` without any.
    pub fn mean(&self) -> Option<f64> {
        ratio(self.passes.iter().copied())
    }

    /// The 95 % interval of the mean; `None` of a single sample. Deterministic in its arguments.
    pub fn interval(&self, seed: u64) -> Option<MeanInterval> {
        let mean = self.mean()?;
        let over = match (self.passes.len() > 1, self.prompts.len() > 1) {
            (true, true) => Over::PassesAndPrompts,
            (true, false) => Over::Passes,
            (false, true) => Over::Prompts,
            (false, false) => return None,
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut deviations: Vec<f64> =
            (0..RESAMPLES).map(|_| self.of_pass(mean, &mut random) + self.of_prompt(mean, &mut random)).collect();
        let (low, high) = ends(&mut deviations);
        Some(MeanInterval { low: mean + low, high: mean + high, over })
    }

    /// This figure minus that of another repeated run over the same prompts, in the same order; `None` where one of the two
    /// has less than two passes. Passes of two runs are independent; prompts are shared.
    pub fn minus(&self, other: &Crossed, seed: u64) -> Option<CrossedDifference> {
        let (a, b) = (self.mean()?, other.mean()?);
        if self.passes.len() < 2 || other.passes.len() < 2 {
            return None;
        }
        let difference = a - b;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let count = self.prompts.len().min(other.prompts.len());
        let mut deviations: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let passes = self.of_pass(a, &mut random) - other.of_pass(b, &mut random);
                let picks = draw(count, &mut random);
                let pick = |cells: &[(f64, f64)]| ratio(picks.iter().map(|&index| cells[index]));
                let prompts = match (count > 1, pick(&self.prompts), pick(&other.prompts)) {
                    (true, Some(one), Some(two)) => (one - two - difference) * widening(count),
                    _ => 0.0,
                };
                passes + prompts
            })
            .collect();
        // What only rounding tells apart from the difference counts as equal to it.
        let far = difference.abs() * (1.0 - 1e-12);
        let extreme = deviations.iter().filter(|deviation| deviation.abs() >= far).count();
        let p_value = (extreme + 1) as f64 / (RESAMPLES + 1) as f64;
        let (low, high) = ends(&mut deviations);
        Some(CrossedDifference { difference, low: difference + low, high: difference + high, p_value })
    }

    fn of_pass(&self, mean: f64, random: &mut ChaCha8Rng) -> f64 {
        deviation(&self.passes, mean, random)
    }

    fn of_prompt(&self, mean: f64, random: &mut ChaCha8Rng) -> f64 {
        deviation(&self.prompts, mean, random)
    }
}

fn add(sum: &mut (f64, f64), cell: (f64, f64)) {
    sum.0 += cell.0;
    sum.1 += cell.1;
}

fn ratio(cells: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let mut sum = (0.0, 0.0);
    cells.for_each(|cell| add(&mut sum, cell));
    (sum.1 > 0.0).then(|| sum.0 / sum.1)
}

/// How far the mean of as many cells, drawn with replacement, lies from the mean of all, widened; nothing for one cell.
fn deviation(cells: &[(f64, f64)], mean: f64, random: &mut ChaCha8Rng) -> f64 {
    if cells.len() < 2 {
        return 0.0;
    }
    let drawn = ratio(draw(cells.len(), random).into_iter().map(|index| cells[index]));
    drawn.map_or(0.0, |drawn| (drawn - mean) * widening(cells.len()))
}

fn draw(count: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    (0..count).map(|_| ((u64::from(random.next_u32()) * count as u64) >> 32) as usize).collect()
}

/// How the figures of a run's passes spread, as intervals.
fn widening(count: usize) -> f64 {
    (count as f64 / (count - 1) as f64).sqrt() * student(count as u64 - 1) / Z
}

/// The 2.5 % and the 97.5 % point.
fn ends(deviations: &mut [f64]) -> (f64, f64) {
    deviations.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| deviations[((deviations.len() - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A standard normal draw (Box and Muller 1958).
    fn normal(random: &mut ChaCha8Rng) -> f64 {
        let mut uniform = || (f64::from(random.next_u32()) + 0.5) / 4_294_967_296.0;
        (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    }

    /// What an experiment's figures vary by: from run to run, from prompt to prompt, and the rest.
    struct Spread {
        passes: f64,
        prompts: f64,
        rest: f64,
    }

    /// Energy per token of each prompt in each pass, as (joules, tokens), around 10.
    fn experiment(passes: usize, prompts: &[(f64, f64)], spread: &Spread, random: &mut ChaCha8Rng) -> Crossed {
        let cells: Vec<Vec<(f64, f64)>> = (0..passes)
            .map(|_| {
                let pass = normal(random) * spread.passes;
                prompts
                    .iter()
                    .map(|&(own, tokens)| ((10.0 + pass + own + normal(random) * spread.rest) * tokens, tokens))
                    .collect()
            })
            .collect();
        Crossed::new(cells)
    }

    fn prompts(count: usize, spread: &Spread, random: &mut ChaCha8Rng) -> Vec<(f64, f64)> {
        (0..count).map(|_| (normal(random) * spread.prompts, f64::from(20 + random.next_u32() % 60))).collect()
    }

    const SPREADS: [Spread; 4] = [
        Spread { passes: 0.5, prompts: 0.0, rest: 0.1 },
        Spread { passes: 0.5, prompts: 2.0, rest: 0.5 },
        Spread { passes: 0.1, prompts: 2.0, rest: 0.5 },
        Spread { passes: 0.0, prompts: 2.0, rest: 0.5 },
    ];

    #[test]
    fn five_passes_cover_the_truth_as_often_as_they_say() {
        for (number, spread) in SPREADS.iter().enumerate() {
            let mut random = ChaCha8Rng::seed_from_u64(40 + number as u64);
            let held = (0..1_000)
                .filter(|&seed| {
                    let prompts = prompts(48, spread, &mut random);
                    let interval = experiment(5, &prompts, spread, &mut random).interval(seed).expect("five passes");
                    interval.low <= 10.0 && 10.0 <= interval.high
                })
                .count();
            assert!((900..=980).contains(&held), "spread {number}: {held} of 1000 intervals hold the truth");
        }
    }

    /// An interval of one pass does not know how runs differ: the reason why `compare` gives no significance to it.
    #[test]
    fn one_pass_covers_far_less_where_runs_differ() {
        let mut random = ChaCha8Rng::seed_from_u64(50);
        let spread = &SPREADS[0];
        let held = (0..300)
            .filter(|&seed| {
                let prompts = prompts(48, spread, &mut random);
                let interval = experiment(1, &prompts, spread, &mut random).interval(seed).expect("many prompts");
                assert_eq!(interval.over, Over::Prompts);
                interval.low <= 10.0 && 10.0 <= interval.high
            })
            .count();
        assert!(held < 60, "{held} of 300");
    }

    #[test]
    fn two_runs_alarm_no_more_often_than_the_level_allows_and_see_what_is_there() {
        for (number, spread) in SPREADS.iter().enumerate() {
            let mut random = ChaCha8Rng::seed_from_u64(60 + number as u64);
            let (mut alarms, mut seen) = (0, 0);
            for seed in 0..500 {
                let prompts = prompts(48, spread, &mut random);
                let one = experiment(5, &prompts, spread, &mut random);
                let two = experiment(5, &prompts, spread, &mut random);
                alarms += u32::from(one.minus(&two, seed).expect("five passes").p_value <= 0.05);
                let dearer: Vec<(f64, f64)> = prompts.iter().map(|&(own, tokens)| (own + 2.0, tokens)).collect();
                let two = experiment(5, &dearer, spread, &mut random);
                seen += u32::from(one.minus(&two, seed).expect("five passes").p_value <= 0.05);
            }
            assert!(alarms <= 35, "spread {number}: {alarms} of 500 alarms");
            assert!(seen >= 450, "spread {number}: {seen} of 500 differences were seen");
        }
    }

    #[test]
    fn what_never_varies_has_no_width_and_one_sample_no_interval() {
        let same = Crossed::of_passes([3.0; 5]);
        let interval = same.interval(1).expect("five passes");
        assert_eq!((same.mean(), interval.low, interval.high, interval.over), (Some(3.0), 3.0, 3.0, Over::Passes));
        assert_eq!(Crossed::of_passes([3.0]).interval(1), None);
        assert_eq!(Crossed::default().interval(1), None);
        assert_eq!(same.minus(&Crossed::of_passes([3.0]), 1), None);
        let no_difference = same.minus(&same, 1).expect("five passes");
        assert_eq!((no_difference.difference, no_difference.p_value), (0.0, 1.0));
        let clear = same.minus(&Crossed::of_passes([2.0; 5]), 1).expect("five passes");
        assert_eq!((clear.difference, clear.low, clear.high), (1.0, 1.0, 1.0));
        assert!(clear.p_value < 0.001);
    }

    #[test]
    fn the_mean_is_the_ratio_of_the_sums() {
        let crossed = Crossed::new([vec![(1.0, 10.0), (30.0, 30.0)], vec![(3.0, 10.0), (0.0, 0.0)]]);
        assert_eq!(crossed.mean(), Some(34.0 / 50.0));
    }

    proptest! {
        #[test]
        fn intervals_hold_their_mean_and_are_repeatable(
            cells in prop::collection::vec(prop::collection::vec((0.0f64..9.0, 1.0f64..9.0), 7), 1..7),
            seed in any::<u64>(),
        ) {
            let crossed = Crossed::new(cells);
            let (mean, interval) = (crossed.mean().expect("cells"), crossed.interval(seed).expect("seven prompts"));
            prop_assert!(interval.low <= mean + 1e-9 && mean <= interval.high + 1e-9);
            prop_assert_eq!(Some(interval), crossed.interval(seed));
        }
    }
}
