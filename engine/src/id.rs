//! Small identifiers. None of them enters a random key except the prompt and the repetition: results never depend on
//! which device, verifier or connection did the work.

use serde::{Deserialize, Serialize};

/// A device of the fleet, numbered from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub u32);

/// A verifier replica of the pool, numbered from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VerifierId(pub u16);

/// A connection to the pool, numbered by the front door; never reused within a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// A session of the pool: one generation of one connection. The pool numbers them; never reused within a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// One upload attempt, numbered per device from 1. A resent upload gets a number of its own, so that each attempt ends
/// exactly once (verdict, refusal or cancel).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadId(pub u32);

/// Whose turn it is: a run lets its methods follow each other, and may do so several times over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PhaseId {
    /// Index of the method in the run's list, or [`crate::record::BETWEEN_METHODS`].
    pub method: u16,
    /// Pass over all methods, from 0.
    pub pass: u16,
}

impl PhaseId {
    /// While no method runs.
    pub const BETWEEN: PhaseId = PhaseId { method: crate::record::BETWEEN_METHODS, pass: 0 };
}

/// One generation: a prompt, answered under one method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GenerationId {
    /// Index of the method in the run's list of methods.
    pub method: u16,
    /// Line number of the prompt in its workload, from 0.
    pub prompt: u32,
    /// Repetition of the same prompt, from 0.
    pub repetition: u16,
    /// Pass of the run over all its methods, from 0. No draw depends on it: with one seed every pass gives the same tokens.
    pub pass: u16,
}

impl GenerationId {
    /// Whose turn it was.
    pub fn phase(self) -> PhaseId {
        PhaseId { method: self.method, pass: self.pass }
    }
}
