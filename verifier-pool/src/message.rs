//! What the pool actor is told and asked, and what it answers.

use actix::Message;
use specfleet_engine::id::{ConnectionId, PhaseId, UploadId, VerifierId};
use specfleet_engine::pool::JobKind;
use specfleet_engine::record::VerifierRecord;
use specfleet_engine::wire::{Goodbye, ServerFrame, Upload};
use tokio::sync::{mpsc, oneshot};

use crate::error::PoolError;
use crate::status::PoolStatus;

/// The pool's end of a connection.
pub(crate) struct Port {
    /// Bounded; a device that lets it fill up is sent away.
    pub(crate) frames: mpsc::Sender<ServerFrame>,
    /// Ends the connection.
    pub(crate) end: oneshot::Sender<Goodbye>,
}

/// A device has said hello.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Connected(pub(crate) ConnectionId, pub(crate) Port);

/// A connection is gone, or about to be.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Disconnected(pub(crate) ConnectionId);

/// What a device asks for.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FromDevice(pub(crate) ConnectionId, pub(crate) Request);

/// A frame after the hello, checked.
pub(crate) enum Request {
    Upload(Box<Upload>, JobKind),
    Cancel { session: u32, upload: UploadId },
    Close { session: u32 },
}

/// Make a verifier fail; the receiver hears when its successor has started.
#[derive(Message)]
#[rtype(result = "Result<oneshot::Receiver<()>, PoolError>")]
pub(crate) struct Kill(pub(crate) VerifierId);

/// End the phase and go on under the method with this index.
#[derive(Message)]
#[rtype(result = "Vec<VerifierRecord>")]
pub(crate) struct NextPhase(pub(crate) PhaseId);

/// Asks for the status.
#[derive(Message)]
#[rtype(result = "PoolStatus")]
pub(crate) struct GetStatus;

/// Refuse new uploads; the receiver hears when all others are answered.
#[derive(Message)]
#[rtype(result = "oneshot::Receiver<()>")]
pub(crate) struct Drain;

/// End all connections and verifiers, and this actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;
