//! What a verification batch takes, fitted on the batches of a run \[ours\].
//!
//! compute ≈ (base + a·tokens + b·sequences + c·cached) · contention\[beside\] · methods\[method\], with a, b, c and base ≥ 0:
//! plane and contention by least squares, methods by their mean time, in turn until none moves. *Beside* are the other verifiers'
//! batches that are under way when a batch starts. Methods differ in what the same cores do meanwhile.
//!
//! Against a few huge outliers (a machine that slept): the first fit weighs batches by 1 / compute², so that no batch can
//! pull by more than its own relative error; what then took more than three times too long or too short, and more than six
//! robust standard deviations off the median in log scale, is left out of the fit and of the spread, and counted.

use specfleet_engine::calibration::percentiles;
use specfleet_engine::cost::{BatchWork, MeasuredCost};
use specfleet_engine::method::Method;
use specfleet_engine::record::BatchRecord;
use specfleet_engine::time::Time;

use super::least_squares::{COLUMNS, NormalEquations};

/// Fewer batches than this fit nothing.
const LEAST_BATCHES: usize = 20;

/// Fewer batches than this beside the same number of others, or of one method, say nothing of their own.
const LEAST_ALIKE: usize = 20;

/// Turns of plane, contention and methods at most.
const TURNS: usize = 100;

/// How well a fit of batch costs went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitReport {
    /// Batches it was fitted on.
    pub batches: u64,
    /// Completed batches that were left out as outliers.
    pub outliers: u64,
    /// Mean of |fitted − measured| over the mean measured time.
    pub relative_error: f64,
    /// r²: the share of the measured times' variance that the fit explains; 0 if they never vary.
    pub r2: f64,
}

/// Fits completed batches, whose methods are places in `methods`; `None` if there are too few (twenty).
pub fn fit_batch_cost(batches: &[BatchRecord], methods: &[Method]) -> Option<(MeasuredCost, FitReport)> {
    let all = observations(batches);
    if all.len() < LEAST_BATCHES {
        return None;
    }
    let mut kept = all.clone();
    let mut model = CostModel::fit(&kept, Observation::relative_weight(&kept));
    // Twice: what was left out may have hidden another.
    for _ in 0..2 {
        kept = without_outliers(&all, &model);
        if kept.len() < LEAST_BATCHES {
            return None;
        }
        model = CostModel::fit(&kept, |_| 1.0);
    }
    let fitted = |observation: &Observation| model.time(observation);
    let count = kept.len() as f64;
    let measured: f64 = kept.iter().map(|o| o.nanoseconds).sum();
    let expected: f64 = kept.iter().map(fitted).sum();
    let off: f64 = kept.iter().map(|o| (fitted(o) - o.nanoseconds).abs()).sum();
    let squares: f64 = kept.iter().map(|o| (fitted(o) - o.nanoseconds).powi(2)).sum();
    let mean = measured / count;
    let variance: f64 = kept.iter().map(|o| (o.nanoseconds - mean).powi(2)).sum();
    let report = FitReport {
        batches: kept.len() as u64,
        outliers: (all.len() - kept.len()) as u64,
        relative_error: off / measured,
        r2: if variance > 0.0 { 1.0 - squares / variance } else { 0.0 },
    };
    let [base, per_token, per_sequence, per_cached_token] = model.plane;
    let cost = MeasuredCost {
        base,
        per_token,
        per_sequence,
        per_cached_token,
        contention: model.contention(),
        methods: methods.iter().zip(&model.methods).map(|(method, factor)| (method.name.clone(), *factor)).collect(),
        spread: spread(&kept, &model, measured / expected),
        batches: report.batches,
        relative_error: report.relative_error,
        r2: report.r2,
    };
    Some((cost, report))
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    method: u16,
    work: BatchWork,
    nanoseconds: f64,
}

impl Observation {
    fn columns(&self) -> [f64; COLUMNS] {
        let BatchWork { tokens, sequences, cached, .. } = self.work;
        [1.0, f64::from(tokens), f64::from(sequences), cached as f64]
    }

    /// Weights 1 / compute², bounded so that very short ones do not rule.
    fn relative_weight(all: &[Observation]) -> impl Fn(&Observation) -> f64 + use<> {
        let mut times: Vec<f64> = all.iter().map(|o| o.nanoseconds).collect();
        times.sort_unstable_by(f64::total_cmp);
        let floor = times[times.len() / 2] / 10.0;
        move |o| o.nanoseconds.max(floor).powi(-2)
    }
}

/// The completed batches, each with how many other verifiers were computing when it started.
fn observations(batches: &[BatchRecord]) -> Vec<Observation> {
    let mut ordered: Vec<&BatchRecord> = batches.iter().filter(|batch| batch.measured.0 > 0).collect();
    ordered.sort_by_key(|batch| (batch.started, batch.batch));
    // Until when each verifier computes.
    let mut busy: Vec<Time> = Vec::new();
    let mut observations = Vec::new();
    for batch in ordered {
        let verifier = usize::from(batch.verifier.0);
        if busy.len() <= verifier {
            busy.resize(verifier + 1, Time::ZERO);
        }
        let others = busy.iter().enumerate().filter(|(other, until)| *other != verifier && **until > batch.started);
        let beside = others.count() as u16;
        busy[verifier] = batch.started + batch.measured;
        if batch.completed {
            let work = BatchWork { tokens: batch.work, sequences: batch.sequences, cached: batch.cached, beside };
            observations.push(Observation { method: batch.method, work, nanoseconds: batch.measured.0 as f64 });
        }
    }
    observations
}

/// Plane, contention and methods.
#[derive(Clone, Debug)]
struct CostModel {
    plane: [f64; COLUMNS],
    /// By method, their mean over all batches 1; those without enough batches have 1 too.
    methods: Vec<f64>,
    /// By group of `beside`.
    slowdowns: Vec<f64>,
    /// The group of each number of others; the last holds for more.
    groups: Vec<usize>,
}

impl CostModel {
    fn fit(observations: &[Observation], weight: impl Fn(&Observation) -> f64) -> CostModel {
        let groups = groups(observations);
        let count = groups.last().map_or(1, |last| last + 1);
        let most = observations.iter().map(|o| usize::from(o.method)).max().unwrap_or(0);
        let methods = vec![1.0; most + 1];
        let mut model = CostModel { plane: [0.0; COLUMNS], methods, slowdowns: vec![1.0; count], groups };
        for _ in 0..TURNS {
            let mut equations = NormalEquations::default();
            for o in observations {
                let factor = model.slowdown(o.work.beside) * model.methods[usize::from(o.method)];
                equations.add(o.columns().map(|column| column * factor), o.nanoseconds, weight(o));
            }
            model.plane = equations.solve_nonnegative();
            let mut sums = vec![(0.0, 0.0); count];
            for o in observations {
                let rest = model.plane_time(o) * model.methods[usize::from(o.method)];
                let sum = &mut sums[model.group(o.work.beside)];
                sum.0 += weight(o) * rest * o.nanoseconds;
                sum.1 += weight(o) * rest * rest;
            }
            let slowdown = |(product, square): (f64, f64)| if square > 0.0 { product / square } else { 1.0 };
            // A verifier alone is the measure of contention.
            let alone = slowdown(sums[0]);
            let slowdowns: Vec<f64> = sums.into_iter().map(|sum| slowdown(sum) / alone).collect();
            let moved = distance(&slowdowns, &model.slowdowns);
            model.slowdowns = slowdowns;
            let methods = model.method_factors(observations, &weight);
            let moved = moved.max(distance(&methods, &model.methods));
            model.methods = methods;
            if moved < 1e-12 {
                break;
            }
        }
        model
    }

    /// What each method's batches took over what plane and contention say: the ratio of the sums, because a method's mean
    /// must be right before all, whether its batches are large or small.
    fn method_factors(&self, observations: &[Observation], weight: impl Fn(&Observation) -> f64) -> Vec<f64> {
        let mut sums = vec![(0_usize, 0.0, 0.0); self.methods.len()];
        for o in observations {
            let (count, measured, fitted) = &mut sums[usize::from(o.method)];
            let weight = weight(o).sqrt();
            *count += 1;
            *measured += weight * o.nanoseconds;
            *fitted += weight * self.plane_time(o) * self.slowdown(o.work.beside);
        }
        let known = |count: usize, fitted: f64| count >= LEAST_ALIKE && fitted > 0.0;
        let factor = |&(count, measured, fitted): &(usize, f64, f64)| {
            if known(count, fitted) { measured / fitted } else { 1.0 }
        };
        let mean = sums.iter().map(|sum| factor(sum) * sum.0 as f64).sum::<f64>() / observations.len() as f64;
        sums.iter().map(|sum| if known(sum.0, sum.2) { factor(sum) / mean } else { 1.0 }).collect()
    }

    fn group(&self, beside: u16) -> usize {
        self.groups[usize::from(beside).min(self.groups.len() - 1)]
    }

    fn slowdown(&self, beside: u16) -> f64 {
        self.slowdowns[self.group(beside)]
    }

    fn plane_time(&self, observation: &Observation) -> f64 {
        observation.columns().into_iter().zip(self.plane).map(|(column, coefficient)| column * coefficient).sum()
    }

    fn time(&self, observation: &Observation) -> f64 {
        self.plane_time(observation)
            * self.slowdown(observation.work.beside)
            * self.methods[usize::from(observation.method)]
    }

    /// The slowdown by the number of others.
    fn contention(&self) -> Vec<f64> {
        self.groups.iter().map(|group| self.slowdowns[*group]).collect()
    }
}

/// The largest difference between two of a place.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Which numbers of others are told apart: each that enough batches have; the others go with the next lower one, those
/// below the first with that.
fn groups(observations: &[Observation]) -> Vec<usize> {
    let most = observations.iter().map(|o| o.work.beside).max().unwrap_or(0);
    let mut counts = vec![0; usize::from(most) + 1];
    observations.iter().for_each(|o| counts[usize::from(o.work.beside)] += 1);
    let mut known = 0_usize;
    counts
        .into_iter()
        .map(|count| {
            known += usize::from(count >= LEAST_ALIKE);
            known.saturating_sub(1)
        })
        .collect()
}

/// Those within a factor of three of what the model says, or within six robust standard deviations of the usual.
fn without_outliers(all: &[Observation], model: &CostModel) -> Vec<Observation> {
    let ratio = |o: &Observation| (o.nanoseconds / model.time(o)).ln();
    let ratios: Vec<f64> = all.iter().map(ratio).collect();
    let usual = median(ratios.clone());
    // The median distance, as the standard deviation of a normal distribution that has it.
    let deviation = 1.4826 * median(ratios.iter().map(|ratio| (ratio - usual).abs()).collect());
    let bound = (6.0 * deviation).max(3.0_f64.ln());
    all.iter().zip(ratios).filter(|(_, ratio)| (ratio - usual).abs() <= bound).map(|(o, _)| *o).collect()
}

/// Percentiles 0 to 100 of measured over fitted time, scaled so that the mean of draws from them is `mean`: percentiles
/// alone say too much about the largest one, and a simulation's mean times must be right before all.
fn spread(kept: &[Observation], model: &CostModel, mean: f64) -> Vec<f32> {
    let table = percentiles(kept.iter().map(|o| (o.nanoseconds / model.time(o)) as f32).collect());
    let steps = table.windows(2).map(|pair| (f64::from(pair[0]) + f64::from(pair[1])) / 2.0);
    let drawn = steps.sum::<f64>() / 100.0;
    table.into_iter().map(|ratio| (f64::from(ratio) * mean / drawn) as f32).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
