//! The few statistics that calibration is made of: percentiles, least squares, correlation, area under the ROC curve.

/// Percentiles 0 ..= 100 of `values` by the nearest rank; empty if there are none. What is not finite is left out.
pub fn percentiles(mut values: Vec<f32>) -> Vec<f32> {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f32::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return Vec::new();
    };
    (0..=100).map(|percent| values[(last * percent + 50) / 100]).collect()
}

/// Means and sums of squared distances of pairs.
pub(super) struct StatisticPairs {
    pub(super) n: usize,
    pub(super) mean_x: f64,
    pub(super) mean_y: f64,
    pub(super) xx: f64,
    pub(super) xy: f64,
    pub(super) yy: f64,
}

impl StatisticPairs {
    /// Two passes, for accuracy. Pairs with a number that is not finite are left out.
    pub(super) fn of(pairs: impl Iterator<Item = (f32, f32)> + Clone) -> StatisticPairs {
        let pairs = pairs.filter(|(x, y)| x.is_finite() && y.is_finite()).map(|(x, y)| (f64::from(x), f64::from(y)));
        let (mut n, mut sum_x, mut sum_y) = (0, 0.0, 0.0);
        for (x, y) in pairs.clone() {
            n += 1;
            sum_x += x;
            sum_y += y;
        }
        // With no pairs at all every figure is 0.
        let count = n.max(1) as f64;
        let (mean_x, mean_y) = (sum_x / count, sum_y / count);
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, y) in pairs {
            xx += (x - mean_x) * (x - mean_x);
            xy += (x - mean_x) * (y - mean_y);
            yy += (y - mean_y) * (y - mean_y);
        }
        StatisticPairs { n, mean_x, mean_y, xx, xy, yy }
    }

    /// Pearson's r; `None` if either side never varies.
    pub(super) fn correlation(&self) -> Option<f64> {
        (self.xx > 0.0 && self.yy > 0.0).then(|| (self.xy / (self.xx * self.yy).sqrt()).clamp(-1.0, 1.0))
    }
}

/// Over all pairs of different `harm`: the share in which the more harmful one has the higher score, ties counting half.
/// `None` if there is no such pair. Quadratic in the number of items, of which there are a few thousand at most.
pub(super) fn concordance(items: &[(f32, f32)]) -> Option<f64> {
    let (mut halves, mut pairs) = (0_u64, 0_u64);
    for (i, &(score, harm)) in items.iter().enumerate() {
        for &(other_score, other_harm) in &items[..i] {
            if harm == other_harm {
                continue;
            }
            pairs += 1;
            let (higher, lower) = if harm > other_harm { (score, other_score) } else { (other_score, score) };
            halves += if higher > lower { 2 } else { u64::from(higher == lower) };
        }
    }
    (pairs > 0).then(|| halves as f64 / (2 * pairs) as f64)
}

/// The threshold above which `count` of the `values` lie, or as close to it as ties allow from below: the (count+1)-th
/// largest value, or something below all of them. `None` if there are no values.
pub(super) fn threshold_above(mut values: Vec<f32>, count: usize) -> Option<f32> {
    values.sort_unstable_by(f32::total_cmp);
    match values.len().checked_sub(count + 1) {
        Some(index) => values.get(index).copied(),
        None => values.first().map(|lowest| lowest.next_down()),
    }
}
