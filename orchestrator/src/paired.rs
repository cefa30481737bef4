//! Methods against each other, prompt by prompt: the comparison that the random numbers of a run are keyed for.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_analysis::{Crossed, PairedDifference, paired_difference};
use specfleet_engine::record::{GenerationRecord, RunClock};
use specfleet_ledger::{Meta, RunKind};

/// The method that the others are held against.
const SUBJECT: &str = "ui-hlm";

/// What is compared, per generation.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Total joules over generated tokens.
    joules_per_token: f64,
    /// 1 or 0; absent where the reference has no final answer.
    exact: Option<f64>,
}

/// A prompt, its repetition, and the pass.
type PairPlace = (u32, u16, u16);

/// Collects the generations of a run.
#[derive(Debug, Default)]
pub struct Pairing {
    figures: BTreeMap<u16, BTreeMap<PairPlace, Figures>>,
}

/// What decides how sure the differences within a run are.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    seed: u64,
    passes: u16,
    seeds: bool,
    /// Whether energies follow the host, and so differ from run to run.
    host_timed: bool,
}

impl Runs {
    /// Of this run.
    pub fn of(meta: &Meta) -> Runs {
        let host_timed = matches!(meta.kind, RunKind::Live) && meta.clock == RunClock::Host;
        Runs { seed: meta.seed, passes: meta.passes(), seeds: meta.seeds > 1, host_timed }
    }
}

/// `ui-hlm` minus another method on the same prompts, with a 95 % bootstrap interval.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub against: String,
    /// Prompts that both answered.
    pub prompts: usize,
    /// Difference of total energy in joules per token.
    pub joules_per_token: Option<Interval>,
    /// The same as a share of the other's mean.
    pub energy_share: Option<f64>,
    /// Difference of exact match, −1 to 1.
    pub exact_match: Option<Interval>,
}

/// A mean difference and its interval, which one prompt of one run does not have.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Interval {
    pub mean: f64,
    /// 2.5 % point; absent of one prompt.
    pub low: Option<f64>,
    /// 97.5 % point; absent of one prompt.
    pub high: Option<f64>,
    /// What the interval was taken over, in words.
    pub over: &'static str,
}

/// Of figures that follow the host, in a run that was not repeated.
const WITHIN: &str = "prompts, within this run";

impl Pairing {
    /// Adds a generation.
    pub fn add(&mut self, record: &GenerationRecord, exact_match: Option<bool>) {
        let tokens = record.tokens.len().max(1) as f64;
        let figures = Figures {
            joules_per_token: record.energy.total() as f64 * 1e-9 / tokens,
            exact: exact_match.map(|right| f64::from(u8::from(right))),
        };
        let place = (record.id.prompt, record.id.repetition, record.id.pass);
        self.figures.entry(record.id.method).or_default().insert(place, figures);
    }

    /// `ui-hlm` against every other method of the run, in run order; empty without `ui-hlm`.
    pub fn compare(&self, methods: &[&str], runs: &Runs) -> Vec<Comparison> {
        let index = |name: &str| methods.iter().position(|method| *method == name).map(|index| index as u16);
        let Some(subject) = index(SUBJECT).and_then(|index| self.figures.get(&index)) else { return Vec::new() };
        methods
            .iter()
            .filter(|&&name| name != SUBJECT)
            .filter_map(|&name| Some(against(name, subject, self.figures.get(&index(name)?)?, runs)))
            .collect()
    }
}

fn against(
    name: &str,
    subject: &BTreeMap<PairPlace, Figures>,
    other: &BTreeMap<PairPlace, Figures>,
    runs: &Runs,
) -> Comparison {
    let pairs: Vec<(PairPlace, Figures, Figures)> =
        subject.iter().filter_map(|(place, &ours)| Some((*place, ours, *other.get(place)?))).collect();
    let joules = |figures: Figures| Some(figures.joules_per_token);
    let joules_per_token = difference(&pairs, joules, runs, if runs.host_timed { WITHIN } else { "prompts" });
    let mean = pairs.iter().map(|(.., b)| b.joules_per_token).sum::<f64>() / pairs.len().max(1) as f64;
    let prompts: BTreeSet<(u32, u16)> =
        pairs.iter().map(|((prompt, repetition, _), ..)| (*prompt, *repetition)).collect();
    Comparison {
        against: name.to_owned(),
        prompts: prompts.len(),
        joules_per_token,
        energy_share: joules_per_token.map(|difference| difference.mean / mean).filter(|share| share.is_finite()),
        exact_match: difference(&pairs, |figures| figures.exact, runs, "prompts"),
    }
}

/// The mean difference of one figure over the pairs that have it. `single`: what its interval is over in a single pass.
fn difference(
    pairs: &[(PairPlace, Figures, Figures)],
    figure: impl Fn(Figures) -> Option<f64>,
    runs: &Runs,
    single: &'static str,
) -> Option<Interval> {
    let known: BTreeMap<PairPlace, (f64, f64)> =
        pairs.iter().filter_map(|&(place, a, b)| Some((place, (figure(a)?, figure(b)?)))).collect();
    if runs.passes < 2 {
        let (a, b): (Vec<f64>, Vec<f64>) = known.into_values().unzip();
        let PairedDifference { mean, low, high, .. } = paired_difference(&a, &b, runs.seed).ok()?;
        return Some(Interval { mean, low, high, over: single });
    }
    let prompts: BTreeSet<(u32, u16)> = known.keys().map(|(prompt, repetition, _)| (*prompt, *repetition)).collect();
    let crossed = Crossed::new((0..runs.passes).map(|pass| {
        prompts
            .iter()
            .map(|&(prompt, repetition)| {
                known.get(&(prompt, repetition, pass)).map_or((0.0, 0.0), |(a, b)| (a - b, 1.0))
            })
            .collect::<Vec<_>>()
    }));
    let interval = crossed.interval(runs.seed);
    let over = if runs.seeds { "seeds and prompts" } else { "passes and prompts" };
    let (low, high) = (interval.map(|interval| interval.low), interval.map(|interval| interval.high));
    Some(Interval { mean: crossed.mean()?, low, high, over })
}

/// The comparisons as a table.
pub fn table(comparisons: &[Comparison]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ui-hlm against",
        "prompts",
        "energy, mJ/token [95 %]",
        "energy, %",
        "exact match, points [95 %]",
    ]);
    let cell = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let interval = |interval: Option<Interval>, factor: f64| {
        interval.map_or(String::new(), |i| {
            let mean = format!("{:+.1}", i.mean * factor);
            match i.low.zip(i.high) {
                Some((low, high)) => format!("{mean} [{:+.1}, {:+.1}]", low * factor, high * factor),
                None => format!("{mean} [one prompt]"),
            }
        })
    };
    for comparison in comparisons {
        table.add_row([
            Cell::new(&comparison.against),
            cell(comparison.prompts.to_string()),
            cell(interval(comparison.joules_per_token, 1e3)),
            cell(comparison.energy_share.map_or(String::new(), |share| format!("{:+.1}", share * 100.0))),
            cell(interval(comparison.exact_match, 100.0)),
        ]);
    }
    let over: BTreeSet<&str> =
        comparisons.iter().filter_map(|comparison| comparison.joules_per_token).map(|interval| interval.over).collect();
    let words = over.into_iter().collect::<Vec<_>>().join(", ");
    let more =
        if words == WITHIN { ": the next run may lie outside of them (run --repeat 5 shows how far)" } else { "" };
    format!("{table}\nintervals of energy are over {words}{more}")
}
