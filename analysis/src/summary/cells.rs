//! The figures of a repeated run by pass and prompt, for the intervals of their means.

use std::collections::{BTreeMap, BTreeSet};

use specfleet_engine::id::PhaseId;

use super::collector::Collector;
use super::kind::{KINDS, MetricId};
use super::samples::MethodSamples;
use crate::passes::Crossed;

/// Groups that prompts fall into: where there are more prompts, as many of them vary together, which changes no interval by
/// much and bounds the memory.
const GROUPS: u32 = 256;

/// Σ numerators and Σ denominators of one figure, in integers: the sums do not depend on an order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moments {
    numerator: i64,
    denominator: u64,
}

impl Collector for Moments {
    fn sample(&mut self, value: f64) {
        if value.is_finite() {
            // Plain samples count in billionths, as their kind's scale says. `as` saturates.
            self.ratio((value * 1e9).round() as i64, 1, 1e-9);
        }
    }

    fn nanoseconds(&mut self, nanoseconds: u64, count: u32) {
        let sum = i64::try_from(u128::from(nanoseconds) * u128::from(count)).unwrap_or(i64::MAX);
        self.ratio(sum, u64::from(count), 1e-9);
    }

    fn ratio(&mut self, numerator: i64, denominator: u64, _scale: f64) {
        if denominator > 0 {
            self.numerator = self.numerator.saturating_add(numerator);
            self.denominator = self.denominator.saturating_add(denominator);
        }
    }

    fn merge(&mut self, other: &Moments) {
        self.numerator = self.numerator.saturating_add(other.numerator);
        self.denominator = self.denominator.saturating_add(other.denominator);
    }
}

/// Data set and group of prompts.
type Group = (u16, u32);

/// By method, group and pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells {
    cells: BTreeMap<(u16, Group, u16), MethodSamples<Moments>>,
}

impl Cells {
    /// The cell of a generation.
    pub(super) fn of(&mut self, phase: PhaseId, data_set: u16, prompt: u32) -> &mut MethodSamples<Moments> {
        self.cells.entry((phase.method, (data_set, prompt % GROUPS), phase.pass)).or_default()
    }

    pub(super) fn merge(&mut self, other: &Cells) {
        for (place, cell) in &other.cells {
            self.cells.entry(*place).or_default().merge(cell);
        }
    }

    /// One figure of a method, of one data set or of all.
    pub(super) fn crossed(&self, method: u16, data_set: Option<u16>, kind: MetricId, passes: u16) -> Crossed {
        let scale = KINDS[kind as usize].3;
        let all = || {
            let cells = self.cells.range((method, (0, 0), 0)..=(method, (u16::MAX, u32::MAX), u16::MAX));
            cells.filter(|((_, (set, _), _), _)| data_set.is_none_or(|wanted| wanted == *set))
        };
        let groups: BTreeSet<Group> = all().map(|((_, group, _), _)| *group).collect();
        Crossed::new((0..passes).map(|pass| {
            groups.iter().map(move |group| {
                let cell = self.cells.get(&(method, *group, pass)).map(|cell| *cell.of(kind)).unwrap_or_default();
                (cell.numerator as f64 * scale, cell.denominator as f64)
            })
        }))
    }
}
