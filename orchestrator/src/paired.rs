//! Methods against each other, prompt by prompt: the comparison that the random numbers of a run are keyed for.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_analysis::{PairedDifference, paired_difference};
use specfleet_engine::record::GenerationRecord;

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

/// Collects the generations of a run.
#[derive(Debug, Default)]
pub struct Pairing {
    /// By method index, then prompt and repetition.
    figures: BTreeMap<u16, BTreeMap<(u32, u16), Figures>>,
}

/// `ui-hlm` minus another method on the same prompts, with a 95 % bootstrap interval.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The other method.
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

/// A mean difference and its interval, which one prompt does not have.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Interval {
    /// Mean difference.
    pub mean: f64,
    /// 2.5 % point; absent of one prompt.
    pub low: Option<f64>,
    /// 97.5 % point; absent of one prompt.
    pub high: Option<f64>,
}

impl From<PairedDifference> for Interval {
    fn from(difference: PairedDifference) -> Interval {
        Interval { mean: difference.mean, low: difference.low, high: difference.high }
    }
}

impl Pairing {
    /// Adds a generation.
    pub fn add(&mut self, record: &GenerationRecord, exact_match: Option<bool>) {
        let tokens = record.tokens.len().max(1) as f64;
        let figures = Figures {
            joules_per_token: record.energy.total() as f64 * 1e-9 / tokens,
            exact: exact_match.map(|right| f64::from(u8::from(right))),
        };
        self.figures.entry(record.id.method).or_default().insert((record.id.prompt, record.id.repetition), figures);
    }

    /// `ui-hlm` against every other method of the run, in run order; empty without `ui-hlm`.
    pub fn compare(&self, methods: &[&str], seed: u64) -> Vec<Comparison> {
        let index = |name: &str| methods.iter().position(|method| *method == name).map(|index| index as u16);
        let Some(subject) = index(SUBJECT).and_then(|index| self.figures.get(&index)) else { return Vec::new() };
        methods
            .iter()
            .filter(|&&name| name != SUBJECT)
            .filter_map(|&name| Some(against(name, subject, self.figures.get(&index(name)?)?, seed)))
            .collect()
    }
}

fn against(
    name: &str,
    subject: &BTreeMap<(u32, u16), Figures>,
    other: &BTreeMap<(u32, u16), Figures>,
    seed: u64,
) -> Comparison {
    let pairs: Vec<(Figures, Figures)> =
        subject.iter().filter_map(|(prompt, &ours)| Some((ours, *other.get(prompt)?))).collect();
    let interval = |figures: Vec<(f64, f64)>| -> Option<Interval> {
        let (a, b): (Vec<f64>, Vec<f64>) = figures.into_iter().unzip();
        paired_difference(&a, &b, seed).ok().map(Interval::from)
    };
    let joules_per_token = interval(pairs.iter().map(|(a, b)| (a.joules_per_token, b.joules_per_token)).collect());
    let mean = pairs.iter().map(|(_, b)| b.joules_per_token).sum::<f64>() / pairs.len().max(1) as f64;
    Comparison {
        against: name.to_owned(),
        prompts: pairs.len(),
        joules_per_token,
        energy_share: joules_per_token.map(|difference| difference.mean / mean).filter(|share| share.is_finite()),
        exact_match: interval(pairs.iter().filter_map(|(a, b)| Some((a.exact?, b.exact?))).collect()),
    }
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
    table.to_string()
}
