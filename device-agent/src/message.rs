//! What a device is told and asked, and what it reports.

use std::sync::Arc;

use actix::prelude::*;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{GenerationRecord, RoundRecord};
use specfleet_engine::time::Time;
use specfleet_engine::wire::VerifierIdentity;

use crate::error::{AgentError, LinkError};

/// What a device reports.
#[derive(Clone, Debug)]
pub enum DeviceEvent {
    /// A token is committed.
    Round {
        generation: GenerationId,
        device: DeviceId,
        /// What it was and what it cost.
        record: RoundRecord,
    },
    /// A generation is over; its tokens are filled in. Its rounds have all been reported before.
    Finished(Box<GenerationRecord>),
}

/// Resolves when the device can start its first generation: connected, if its method ever uploads. The error is one that
/// trying again does not help against; until then the device keeps trying.
#[derive(Message)]
#[rtype(result = "Result<(), AgentError>")]
pub struct Ready;

/// Run a generation; resolves when it is over and its records are handed over. The error is a failure of this program or
/// of the pair; a generation that ends as its settings say (`on_unreachable = fail` included) is a record.
#[derive(Message)]
#[rtype(result = "Result<GenerationRecord, AgentError>")]
pub struct Generate {
    /// Which one; its `method` is the index of the settings' method in the run.
    pub generation: GenerationId,
    /// Index into the run's list of data sets.
    pub data_set: u16,
    pub prompt: Arc<[u32]>,
    /// When it was due; `None`: now.
    pub scheduled: Option<Time>,
}

/// Close the connection at once, whatever is under way: the fault that tests and scenarios inject. The device connects
/// again as after any other loss.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CutConnection;

/// Why the last connection ended, or could not be made: what to tell a user who waits.
#[derive(Message)]
#[rtype(result = "Option<LinkError>")]
pub struct LastLinkError;

/// Which verifier the pool said that it has, when it was last connected to.
#[derive(Message)]
#[rtype(result = "Option<VerifierIdentity>")]
pub struct PoolVerifier;

/// End gracefully. A generation under way ends as `left`, and its record says so.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Leave;
