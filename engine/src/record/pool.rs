//! What verifiers leave behind: batches, the time between them, and audits.

use serde::{Deserialize, Serialize};

use crate::id::{GenerationId, VerifierId};
use crate::time::{Span, Time};

/// One verification batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Index of the method in the run's list, or [`BETWEEN_METHODS`].
    pub method: u16,
    /// Pass of the run over all its methods, from 0.
    pub pass: u16,
    /// Number of the batch, from 0, over all verifiers.
    pub batch: u64,
    pub verifier: VerifierId,
    /// When its computation was asked for.
    pub started: Time,
    /// How long it took: as charged where the pool is emulated, else as measured.
    pub compute: Span,
    /// How long it took, as the verifier's thread measured it.
    pub measured: Span,
    /// How much later than charged its verdicts left, because the emulating machine was late. Charged to nobody.
    pub overrun: Span,
    /// How long the pool thought it would take when it formed it.
    pub estimate: Span,
    /// λ_pool when it was started.
    pub price: f32,
    pub sequences: u32,
    /// Tokens fed (catch-up and drafts).
    pub work: u32,
    /// The catch-up part of `work`.
    pub catch_up: u32,
    pub drafts: u32,
    /// Tokens already in the KV caches of its sequences.
    pub cached: u64,
    /// Its energy over `compute`, in nanojoules.
    pub nanojoules: u64,
    /// Its energy over `measured`, in nanojoules; beside the accounts, never part of them.
    pub measured_nanojoules: u64,
    /// The part of `nanojoules` whose upload nobody waited for any more when the batch ended.
    pub unclaimed_nanojoules: u64,
    /// False if the verifier failed in it; its sequences are computed again elsewhere.
    pub completed: bool,
}

/// In place of a method's index: what verifiers did while no method ran (fleets coming and going, audits).
pub const BETWEEN_METHODS: u16 = u16::MAX;

/// What a verifier did in one method's phase, for the account of idle energy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifierRecord {
    /// Index of the method in the run's list, or [`BETWEEN_METHODS`].
    pub method: u16,
    /// Pass of the run over all its methods, from 0.
    pub pass: u16,
    pub verifier: VerifierId,
    pub busy: Span,
    pub idle: Span,
    /// Time for which it was scaled away, and drew nothing.
    pub off: Span,
    /// Energy of the idle time, in nanojoules.
    pub idle_nanojoules: u64,
    /// Times it was restarted.
    pub restarts: u32,
}

/// The audit of one generation: for each skipped token, what the verifier would have accepted (method.md §8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    pub id: GenerationId,
    /// Positions of the skipped tokens among the generated ones.
    pub positions: Vec<u32>,
    /// min(1, y_d/x_d) at each of them.
    pub accept_probabilities: Vec<f32>,
}
