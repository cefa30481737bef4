//! What a verification batch takes, as a pure function of its work: the timing half of a simulated verifier.
//!
//! Three kinds: fixed; fitted on the batches of a live run (`measured`); computed from what a device profile declares
//! (`roofline`, [declared]). The scheduler decides; this only prices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// What a batch feeds, and beside what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchWork {
    pub tokens: u32,
    pub sequences: u32,
    /// Tokens already in the KV caches of its sequences.
    pub cached: u64,
    /// Other verifiers of the same machine that are computing when it starts.
    pub beside: u16,
}

/// How long batches take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum BatchCost {
    Fixed {
        /// Time of a batch.
        span: Span,
    },
    /// A plane fitted on measured batches, with the spread around it.
    Measured(MeasuredCost),
    /// The larger of arithmetic and memory traffic, plus a fixed overhead.
    Roofline(Roofline),
}

/// (base + per_token·tokens + per_sequence·sequences + per_cached_token·cached) · contention\[beside\] · methods\[name\] ·
/// a draw of `spread`. Coefficients in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredCost {
    /// Time of an empty batch, in ns.
    pub base: f64,
    /// Per token fed, in ns.
    pub per_token: f64,
    /// Per sequence, in ns.
    pub per_sequence: f64,
    /// Per token in the KV caches, in ns.
    pub per_cached_token: f64,
    /// Slowdown by the number of other verifiers that compute at the same time, from 0 on; the last holds for more.
    pub contention: Vec<f64>,
    /// What the batches of each method take beside the others of their size, by its name \[ours\]; 1 for one that is not
    /// here. The same cores draft, encode and decode meanwhile, which methods do more or less of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub methods: BTreeMap<String, f64>,
    /// Percentiles 0 to 100 of measured over fitted time; empty means that every batch takes what the plane says.
    pub spread: Vec<f32>,
    /// Batches it was fitted on.
    pub batches: u64,
    /// Mean of |fitted − measured| over the mean measured time.
    pub relative_error: f64,
    /// r²: the share of the measured times' variance that plane and contention explain.
    pub r2: f64,
}

/// A verifier's machine and model in a few declared numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roofline {
    /// Floating-point operations per second that are reached in practice.
    pub flops_per_second: f64,
    /// Memory traffic in bytes per second that is reached in practice.
    pub bytes_per_second: f64,
    /// Launch and scheduling time of a batch.
    pub overhead: Span,
    pub model: ModelSize,
}

/// What a transformer's forward pass costs, in sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSize {
    pub name: String,
    /// Parameters that a token goes through.
    pub parameters: f64,
    pub parameter_bytes: f64,
    pub layers: u32,
    /// Width of the attention's queries, heads × head size.
    pub width: u32,
    /// Bytes of KV cache per token.
    pub kv_bytes_per_token: u64,
    /// Size of the vocabulary.
    pub vocab: u32,
    /// Longest sequence in tokens.
    pub context: u32,
}

impl ModelSize {
    /// Memory that the weights take.
    pub fn weight_bytes(&self) -> f64 {
        self.parameters * self.parameter_bytes
    }
}

impl BatchCost {
    /// The time of a batch. `draw`: a uniform draw from [0, 1), which only `measured` uses, for its spread.
    pub fn span(&self, work: &BatchWork, draw: f64) -> Span {
        match self {
            BatchCost::Fixed { span } => *span,
            BatchCost::Measured(measured) => measured.span(work, draw),
            BatchCost::Roofline(roofline) => roofline.span(work),
        }
    }

    /// The cost on a verifier that is `factor` times as fast in everything.
    pub fn faster(&self, factor: f64) -> BatchCost {
        let shorter = |span: Span| Span::from_seconds(span.seconds() / factor);
        match self {
            BatchCost::Fixed { span } => BatchCost::Fixed { span: shorter(*span) },
            BatchCost::Measured(measured) => BatchCost::Measured(measured.scaled(1.0 / factor)),
            BatchCost::Roofline(roofline) => BatchCost::Roofline(Roofline {
                flops_per_second: roofline.flops_per_second * factor,
                bytes_per_second: roofline.bytes_per_second * factor,
                overhead: shorter(roofline.overhead),
                model: roofline.model.clone(),
            }),
        }
    }

    /// What a batch is charged on an emulated pool: its time by its work alone, without the spread of the host that the
    /// cost was fitted on, without contention, and the same for every method. At least a nanosecond, so that it is later
    /// than its order.
    pub fn charge(&self, work: &BatchWork) -> Span {
        let span = match self {
            BatchCost::Fixed { span } => *span,
            BatchCost::Measured(measured) => {
                // The fitted slowdown without company is 1 up to the fit's rounding.
                Span::from_seconds(measured.plane(work) * 1e-9)
            }
            BatchCost::Roofline(roofline) => roofline.span(work),
        };
        span.max(Span(1))
    }

    /// The same cost as an ideal host has it: every batch takes what it is charged.
    pub fn ideal(&self) -> BatchCost {
        match self {
            BatchCost::Measured(measured) => BatchCost::Measured(MeasuredCost {
                contention: vec![1.0],
                methods: BTreeMap::new(),
                spread: Vec::new(),
                ..measured.clone()
            }),
            other => other.clone(),
        }
    }

    /// That of the batches of one method.
    pub fn of_method(&self, name: &str) -> BatchCost {
        match self {
            BatchCost::Measured(measured) => BatchCost::Measured(measured.of_method(name)),
            other => other.clone(),
        }
    }
}

impl MeasuredCost {
    fn of_method(&self, name: &str) -> MeasuredCost {
        let factor = self.methods.get(name).copied().unwrap_or(1.0);
        MeasuredCost { methods: BTreeMap::new(), ..self.scaled(factor) }
    }

    /// Every batch takes `factor` times as long.
    fn scaled(&self, factor: f64) -> MeasuredCost {
        MeasuredCost {
            base: self.base * factor,
            per_token: self.per_token * factor,
            per_sequence: self.per_sequence * factor,
            per_cached_token: self.per_cached_token * factor,
            ..self.clone()
        }
    }

    /// The fitted time of any method without the spread, in ns.
    pub fn expected(&self, work: &BatchWork) -> f64 {
        let last = self.contention.len().saturating_sub(1);
        let slowdown = self.contention.get(usize::from(work.beside).min(last)).copied().unwrap_or(1.0);
        self.plane(work) * slowdown
    }

    /// The fitted time by the work alone, in ns.
    fn plane(&self, work: &BatchWork) -> f64 {
        let plane = self.base
            + self.per_token * f64::from(work.tokens)
            + self.per_sequence * f64::from(work.sequences)
            + self.per_cached_token * work.cached as f64;
        plane.max(0.0)
    }

    fn span(&self, work: &BatchWork, draw: f64) -> Span {
        Span::from_seconds(self.expected(work) * quantile(&self.spread, draw).unwrap_or(1.0) * 1e-9)
    }
}

impl Roofline {
    /// max(arithmetic, traffic) + overhead \[Williams et al. 2009\]. Arithmetic: 2 per parameter and token, and 4 per
    /// unit of width, layer, token and token attended to. Traffic: the weights once, and the KV caches of all sequences.
    pub fn span(&self, work: &BatchWork) -> Span {
        let (tokens, model) = (f64::from(work.tokens), &self.model);
        let attended = work.cached as f64 / f64::from(work.sequences.max(1));
        let attention = 4.0 * f64::from(model.width) * f64::from(model.layers) * tokens * attended;
        let flops = 2.0 * model.parameters * tokens + attention;
        let bytes =
            model.parameters * model.parameter_bytes + (work.cached as f64 + tokens) * model.kv_bytes_per_token as f64;
        let seconds = (flops / self.flops_per_second).max(bytes / self.bytes_per_second);
        Span::from_seconds(seconds) + self.overhead
    }
}

/// The quantile at `draw` in [0, 1) of a table of evenly spaced quantiles, by linear interpolation; `None` of an empty
/// one.
#[inline]
pub fn quantile(table: &[f32], draw: f64) -> Option<f64> {
    let last = table.len().checked_sub(1)?;
    let place = draw.clamp(0.0, 1.0) * last as f64;
    let below = (place as usize).min(last);
    let above = (below + 1).min(last);
    let (low, high) = (f64::from(table[below]), f64::from(table[above]));
    Some(low + (high - low) * (place - below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(tokens: u32, sequences: u32, cached: u64, beside: u16) -> BatchWork {
        BatchWork { tokens, sequences, cached, beside }
    }

    #[test]
    fn a_plane_with_contention_and_spread() {
        let cost = MeasuredCost {
            base: 100.0,
            per_token: 10.0,
            per_sequence: 5.0,
            per_cached_token: 0.1,
            contention: vec![1.0, 1.5],
            methods: [("dssd".to_owned(), 0.5)].into(),
            spread: vec![0.5, 1.0, 1.5],
            batches: 10,
            relative_error: 0.0,
            r2: 1.0,
        };
        assert_eq!(cost.expected(&work(4, 2, 100, 0)), 160.0);
        assert_eq!(cost.expected(&work(4, 2, 100, 7)), 240.0, "the last slowdown holds for more");
        let cost = BatchCost::Measured(cost);
        assert_eq!(cost.span(&work(4, 2, 100, 0), 0.5), Span(160));
        assert_eq!(cost.span(&work(4, 2, 100, 0), 0.0), Span(80));
        assert_eq!(cost.span(&work(4, 2, 100, 0), 0.75), Span(200));
        assert_eq!(cost.of_method("dssd").span(&work(4, 2, 100, 0), 0.75), Span(100));
        assert_eq!(cost.of_method("hlm").span(&work(4, 2, 100, 0), 0.75), Span(200));
        assert_eq!(cost.faster(1.25).span(&work(4, 2, 100, 0), 0.5), Span(128));
    }

    #[test]
    fn a_roofline_has_two_sides() {
        let model = ModelSize {
            name: "m".into(),
            parameters: 1e9,
            parameter_bytes: 2.0,
            layers: 10,
            width: 1000,
            kv_bytes_per_token: 1000,
            vocab: 32_000,
            context: 4096,
        };
        let roofline = Roofline { flops_per_second: 1e14, bytes_per_second: 1e12, overhead: Span(5), model };
        // One token: 2 GB at 1 TB/s.
        assert_eq!(roofline.span(&work(1, 1, 0, 0)), Span(2_000_001 + 5));
        // 1,000 tokens: 2e12 operations at 1e14 per second.
        assert_eq!(roofline.span(&work(1000, 1, 0, 0)), Span(20_000_000 + 5));
        let faster = BatchCost::Roofline(roofline).faster(1.25);
        assert_eq!(faster.span(&work(1000, 1, 0, 0), 0.0), Span(16_000_000 + 4));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.9), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.25), Some(1.25));
        assert_eq!(quantile(&[1.0, 2.0], 7.0), Some(2.0));
    }
}
