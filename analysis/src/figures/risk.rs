//! Uncertainty against rejection: bins for the eye, and the sums that the least-squares line needs.

/// Bins of u(t) from 0 to 1.
const BINS: usize = 20;

/// Steps of 1 in which u and rejection are summed up: integers, so that the order of the drafts does not matter.
const STEPS: f64 = (1_u64 << 24) as f64;

/// Drafts by their uncertainty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RiskBins {
    cells: [Cell; BINS],
    n: u64,
    x: u128,
    y: u128,
    xx: u128,
    yy: u128,
    xy: u128,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    x: u64,
    y: u64,
    n: u64,
}

/// One bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RiskCell {
    /// Mean u of its drafts.
    pub uncertainty: f64,
    /// Σ of their rejections, each from 0 to 1.
    pub rejected: f64,
    pub drafts: u64,
}

/// Least squares of rejection on u.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RiskFit {
    pub a: f64,
    pub b: f64,
    pub r: f64,
    pub samples: u64,
}

impl RiskBins {
    /// Adds a draft. What is not a number is left out, what lies outside 0 to 1 counts as its nearer end.
    #[inline]
    pub fn push(&mut self, uncertainty: f32, rejected: f32) {
        if uncertainty.is_nan() || rejected.is_nan() {
            return;
        }
        let steps = |value: f32| (f64::from(value.clamp(0.0, 1.0)) * STEPS).round() as u64;
        let (x, y) = (steps(uncertainty), steps(rejected));
        let cell = &mut self.cells[((uncertainty.clamp(0.0, 1.0) * BINS as f32) as usize).min(BINS - 1)];
        cell.x += x;
        cell.y += y;
        cell.n += 1;
        self.n += 1;
        self.x += u128::from(x);
        self.y += u128::from(y);
        // At most 2⁴⁸ each.
        self.xx += u128::from(x * x);
        self.yy += u128::from(y * y);
        self.xy += u128::from(x * y);
    }

    /// Adds another part.
    pub fn merge(&mut self, other: &RiskBins) {
        for (mine, others) in self.cells.iter_mut().zip(&other.cells) {
            mine.x += others.x;
            mine.y += others.y;
            mine.n += others.n;
        }
        self.n += other.n;
        self.x += other.x;
        self.y += other.y;
        self.xx += other.xx;
        self.yy += other.yy;
        self.xy += other.xy;
    }

    /// The bins that have drafts, ascending.
    pub fn cells(&self) -> Vec<RiskCell> {
        let used = self.cells.iter().filter(|cell| cell.n > 0);
        used.map(|cell| RiskCell {
            uncertainty: cell.x as f64 / STEPS / cell.n as f64,
            rejected: cell.y as f64 / STEPS,
            drafts: cell.n,
        })
        .collect()
    }

    /// The line; `None` where u never varies.
    pub fn fit(&self) -> Option<RiskFit> {
        // n·Σxy − Σx·Σy in integers: nothing cancels.
        let n = i128::from(self.n);
        let product = |sum: u128, a: u128, b: u128| (n * sum as i128 - a as i128 * b as i128) as f64;
        let (sxx, syy, sxy) =
            (product(self.xx, self.x, self.x), product(self.yy, self.y, self.y), product(self.xy, self.x, self.y));
        if sxx <= 0.0 {
            return None;
        }
        let a = sxy / sxx;
        let mean = |sum: u128| sum as f64 / STEPS / self.n as f64;
        let r = if syy > 0.0 { sxy / (sxx.sqrt() * syy.sqrt()) } else { 0.0 };
        Some(RiskFit { a, b: mean(self.y) - a * mean(self.x), r, samples: self.n })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use specfleet_engine::calibration::RiskLine;

    use super::*;

    proptest! {
        #[test]
        fn the_line_is_the_calibrations(
            drafts in prop::collection::vec((0.0f32..=1.0, prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..=1.0]), 3..200),
        ) {
            let (mut bins, mut other) = (RiskBins::default(), RiskBins::default());
            for (index, (u, rejected)) in drafts.iter().enumerate() {
                if index % 3 == 0 { other.push(*u, *rejected) } else { bins.push(*u, *rejected) }
            }
            bins.merge(&other);
            let line = RiskLine::fit(drafts.iter().copied());
            let fit = bins.fit().expect("u varies");
            prop_assert!((fit.a - line.a).abs() < 1e-4 * (1.0 + line.a.abs()), "{fit:?} {line:?}");
            prop_assert!((fit.b - line.b).abs() < 1e-4 * (1.0 + line.b.abs()), "{fit:?} {line:?}");
            prop_assert!((fit.r - line.r).abs() < 1e-4, "{fit:?} {line:?}");
            let cells = bins.cells();
            prop_assert_eq!(cells.iter().map(|cell| cell.drafts).sum::<u64>(), drafts.len() as u64);
            let rejected: f64 = drafts.iter().map(|(_, rejected)| f64::from(*rejected)).sum();
            prop_assert!((cells.iter().map(|cell| cell.rejected).sum::<f64>() - rejected).abs() < 1e-4);
        }
    }

    #[test]
    fn what_never_varies_has_no_line() {
        let mut bins = RiskBins::default();
        bins.push(0.5, 1.0);
        bins.push(0.5, 0.0);
        bins.push(f32::NAN, 1.0);
        assert_eq!(bins.fit(), None);
        assert_eq!(bins.cells(), [RiskCell { uncertainty: 0.5, rejected: 1.0, drafts: 2 }]);
    }
}
