//! Importance I(t) from the drafter's attention \[rebuilt, method.md §3\]: two statistics and their adaptive threshold.
//!
//! The seed paper's abstract says that importance comes from attention and that its threshold adapts at each step to the
//! distribution of the attention weights; layers, heads and direction are our reconstruction. Position 0, the attention
//! sink, is left out of both statistics and of both thresholds.

use serde::{Deserialize, Serialize};

/// The attention of one query in one layer: for each head the weights over the positions 0 ..= its own.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRows<'a> {
    heads: usize,
    len: usize,
    weights: &'a [f32],
}

impl<'a> AttentionRows<'a> {
    /// `weights`: heads × len values, head by head, each head's row adding up to 1. `None` if the shape does not fit or is
    /// empty.
    pub fn new(heads: usize, len: usize, weights: &'a [f32]) -> Option<AttentionRows<'a>> {
        (heads > 0 && len > 0 && heads.checked_mul(len) == Some(weights.len())).then_some(AttentionRows {
            heads,
            len,
            weights,
        })
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Positions that the query attends to, its own included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: [`AttentionRows::new`] refuses empty rows.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The rows without the sink.
    fn rows(&self) -> impl Iterator<Item = &'a [f32]> {
        self.weights.chunks_exact(self.len).map(|row| &row[1..])
    }
}

/// An importance value beside the moments of what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportanceReading {
    pub value: f32,
    /// Mean of the comparison values; NaN where there are too few of them.
    pub mean: f32,
    /// Their standard deviation (population); NaN where there are too few.
    pub std: f32,
}

impl ImportanceReading {
    /// What I(t) has to reach: mean + κ·std. NaN where there is nothing to compare with.
    pub fn threshold(&self, kappa: f32) -> f32 {
        self.mean + kappa * self.std
    }

    /// I ≥ mean + κ·std; passes where there is nothing to compare with.
    pub fn passes(&self, kappa: f32) -> bool {
        let threshold = self.threshold(kappa);
        self.value >= threshold || self.value.is_nan() || threshold.is_nan()
    }

    /// The largest κ at which the value still passes, (I − mean) / std: what calibration ranks positions by. +∞ where
    /// it passes at any κ, −∞ where at none.
    pub fn score(&self) -> f32 {
        let distance = self.value - self.mean;
        if distance.is_nan() || self.std.is_nan() {
            f32::INFINITY
        } else if self.std > 0.0 {
            distance / self.std
        } else if distance >= 0.0 {
            f32::INFINITY
        } else {
            f32::NEG_INFINITY
        }
    }
}

/// `concentration`: 1 − H / ln n of the query's attention without the sink, renormalised, mean over heads, where H is its
/// entropy and n the number of positions left. 0 = spread evenly, 1 = on one position.
///
/// The row is that of the query at t−1, which produced l(t). NaN where fewer than two positions are left; a head with no
/// weight outside the sink counts as 0.
pub fn concentration(attention: AttentionRows<'_>) -> f32 {
    let positions = attention.len - 1;
    if positions < 2 {
        return f32::NAN;
    }
    let scale = 1.0 / (positions as f64).ln();
    let total: f64 = attention
        .rows()
        .map(|row| {
            let mass: f64 = row.iter().map(|&w| f64::from(w)).sum();
            if mass <= 0.0 || mass.is_nan() {
                return 0.0;
            }
            let entropy: f64 = row.iter().map(|&w| f64::from(w) / mass).filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum();
            (1.0 - entropy * scale).clamp(0.0, 1.0)
        })
        .sum();
    (total / attention.heads as f64) as f32
}

/// `lookahead`: the attention that position `received_at` (t's place in the sequence, prompt included, from 0) receives
/// from the query of `attention`, the one at t+1; mean over heads. The moments are those of the head-averaged row.
///
/// The threshold at κ is [`ImportanceReading::threshold`]. A position outside the row, or the sink itself, gives NaN.
pub fn lookahead_importance(attention: AttentionRows<'_>, received_at: usize) -> ImportanceReading {
    if received_at == 0 || received_at >= attention.len {
        return ImportanceReading { value: f32::NAN, mean: f32::NAN, std: f32::NAN };
    }
    let positions = attention.len - 1;
    let mut row = vec![0.0_f64; positions];
    for head in attention.rows() {
        for (sum, &weight) in row.iter_mut().zip(head) {
            *sum += f64::from(weight);
        }
    }
    let heads = attention.heads as f64;
    let mean = row.iter().sum::<f64>() / heads / positions as f64;
    let variance = row.iter().map(|sum| (sum / heads - mean).powi(2)).sum::<f64>() / positions as f64;
    ImportanceReading { value: (row[received_at - 1] / heads) as f32, mean: mean as f32, std: variance.sqrt() as f32 }
}

/// Mean and standard deviation of the values seen so far, in constant space (Welford).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningMoments {
    count: u32,
    mean: f64,
    /// Sum of squared distances from the mean.
    m2: f64,
}

impl RunningMoments {
    /// Takes a value in; values that are not finite are left out.
    pub fn push(&mut self, value: f32) {
        if !value.is_finite() {
            return;
        }
        self.count = self.count.saturating_add(1);
        let distance = f64::from(value) - self.mean;
        self.mean += distance / f64::from(self.count);
        self.m2 += distance * (f64::from(value) - self.mean);
    }

    /// How many values were taken in.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// `value` beside these moments, which are NaN with fewer than two values.
    pub fn reading(&self, value: f32) -> ImportanceReading {
        if self.count < 2 {
            return ImportanceReading { value, mean: f32::NAN, std: f32::NAN };
        }
        let std = (self.m2 / f64::from(self.count)).sqrt();
        ImportanceReading { value, mean: self.mean as f32, std: std as f32 }
    }

    /// mean + κ·std of the values so far; NaN with fewer than two.
    pub fn threshold(&self, kappa: f32) -> f32 {
        self.reading(f32::NAN).threshold(kappa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        assert!(AttentionRows::new(2, 3, &[0.0; 6]).is_some());
        assert!(AttentionRows::new(2, 3, &[0.0; 5]).is_none());
        assert!(AttentionRows::new(0, 3, &[]).is_none());
        assert!(AttentionRows::new(usize::MAX, 2, &[0.0; 2]).is_none());
    }

    #[test]
    fn concentration_goes_from_even_to_peaked() {
        let of = |weights: &[f32]| concentration(AttentionRows::new(1, weights.len(), weights).unwrap());
        assert!(of(&[0.7, 0.1, 0.1, 0.1]).abs() < 1e-6);
        assert!((of(&[0.7, 0.3, 0.0, 0.0]) - 1.0).abs() < 1e-6);
        assert_eq!(of(&[1.0, 0.0, 0.0]), 0.0);
        assert!(of(&[0.5, 0.5]).is_nan());
        let two_heads = [0.7, 0.1, 0.1, 0.1, 0.7, 0.3, 0.0, 0.0];
        assert!((concentration(AttentionRows::new(2, 4, &two_heads).unwrap()) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn lookahead_reads_the_received_weight() {
        let weights = [0.4, 0.1, 0.3, 0.2, 0.6, 0.1, 0.1, 0.2];
        let attention = AttentionRows::new(2, 4, &weights).unwrap();
        let reading = lookahead_importance(attention, 2);
        assert!((reading.value - 0.2).abs() < 1e-6);
        assert!((reading.mean - 0.5 / 3.0).abs() < 1e-6);
        assert!((reading.std - (2.0_f32 / 9.0).sqrt() * 0.1).abs() < 1e-6);
        assert!(reading.passes(0.0) && !reading.passes(1.0));
        assert!(lookahead_importance(attention, 0).value.is_nan());
        assert!(lookahead_importance(attention, 4).value.is_nan());
    }

    #[test]
    fn running_moments_match_two_passes() {
        let values = [0.1_f32, 0.7, 0.4, 0.4, 0.9];
        let mut running = RunningMoments::default();
        assert!(running.reading(0.3).passes(9.0));
        values.iter().for_each(|&v| running.push(v));
        running.push(f32::NAN);
        let mean = values.iter().sum::<f32>() / 5.0;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 5.0).sqrt();
        assert_eq!(running.count(), 5);
        assert!((running.threshold(1.0) - (mean + std)).abs() < 1e-6);
    }

    #[test]
    fn score_is_the_largest_passing_kappa() {
        let reading = ImportanceReading { value: 0.5, mean: 0.3, std: 0.1 };
        assert!((reading.score() - 2.0).abs() < 1e-5);
        assert!(reading.passes(1.99) && !reading.passes(2.01));
        assert_eq!(ImportanceReading { std: 0.0, ..reading }.score(), f32::INFINITY);
        assert_eq!(ImportanceReading { value: 0.2, std: 0.0, ..reading }.score(), f32::NEG_INFINITY);
        assert_eq!(ImportanceReading { mean: f32::NAN, ..reading }.score(), f32::INFINITY);
    }
}
