//! What a simulation draws from instead of asking models: distributions that a run's rounds were fitted with.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// The joint behaviour of a pair on a workload, as far as machines see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distributions {
    /// Drafts it was fitted on.
    pub drafts: u64,
    /// Percentiles 0 to 100 of u(t) over drafted positions.
    pub uncertainty: Vec<f32>,
    /// Mean of min(1, y_d/x_d) in each of as many equal shares of the drafts, ordered by u(t): acceptance given
    /// uncertainty.
    pub acceptance: Vec<f32>,
    /// Percentiles 0 to 100 of I(t) over drafted positions; empty if none was measured.
    pub importance: Vec<f32>,
    /// Share of the uncertain drafts that pass the importance criterion; absent if none was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub important: Option<f64>,
    /// Percentiles 0 to 100 of x_d.
    pub draft_probability: Vec<f32>,
    /// Percentiles 0 to 100 of the entropy of x, in nats; empty if no method measured it.
    pub entropy: Vec<f32>,
    /// Percentiles 0 to 100 of 1 − max x; empty if no method measured it.
    pub doubt: Vec<f32>,
    /// Percentiles 0 to 100 of the tokens of a generation.
    pub length: Vec<f32>,
    /// Percentiles 0 to 100 of the tokens of a prompt.
    pub prompt: Vec<f32>,
}

/// What the machine that emulates devices and pool adds to every declared time \[ours\]: measured on a live run, so that a
/// simulation can be held against another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostOverheads {
    /// Mean time by which a draft step came later than declared.
    pub step: Span,
    /// Percentiles 0 to 100 of the same, in ns, by generation.
    pub step_spread: Vec<f32>,
    /// Mean time of an upload that none of uplink, queue, batch, compute and downlink explains: timers, QUIC, actors.
    pub upload: Span,
    /// Percentiles 0 to 100 of the same, in ns, by generation.
    pub upload_spread: Vec<f32>,
    /// Mean time by which the pool's wake at the end of a batch's longest wait came late.
    #[serde(default)]
    pub wake: Span,
    /// Percentiles 0 to 100 of the same, in ns, by batch.
    #[serde(default)]
    pub wake_spread: Vec<f32>,
    /// Mean time from a batch's order to the start of its computation.
    pub batch: Span,
    /// Percentiles 0 to 100 of the same, in ns, by upload.
    #[serde(default)]
    pub batch_spread: Vec<f32>,
    /// Share of a device's events that are late by themselves; the others are late with everything that is due in the same
    /// moment.
    #[serde(default)]
    pub own_share: f32,
    /// Bytes of an upload's frame beyond its nominal bits.
    pub uplink_bytes: u32,
    /// Bytes of a verdict's frame.
    pub downlink_bytes: u32,
    /// Generations it was measured on.
    pub generations: u64,
}
