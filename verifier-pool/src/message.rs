//! What the pool actor is told and asked, and what it answers.

use actix::Message;
use specfleet_engine::id::{ConnectionId, DeviceId, PhaseId, UploadId, VerifierId};
use specfleet_engine::pool::JobKind;
use specfleet_engine::record::VerifierRecord;
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::{ClockReading, Goodbye, ServerFrame, Upload};
use tokio::sync::{mpsc, oneshot};

use crate::error::PoolError;
use crate::status::PoolStatus;

/// The pool's end of a connection.
pub(crate) struct ConnectionHandle {
    /// Bounded; a device that lets it fill up is sent away.
    pub(crate) frames: mpsc::Sender<ServerFrame>,
    pub(crate) end: oneshot::Sender<Goodbye>,
}

/// A device has said hello and wants a place; the error is a pool that has none.
#[derive(Message)]
#[rtype(result = "Result<(), Goodbye>")]
pub(crate) struct Connected(pub(crate) ConnectionId, pub(crate) ConnectionHandle);

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
    Cancel { session: u32, upload: UploadId, at: Option<ClockReading> },
    Close { session: u32, at: Option<ClockReading> },
    Promise { device: DeviceId, until: ClockReading, after_answer: Span },
}

impl Request {
    /// When it arrives, as the device says.
    pub(crate) fn at(&self) -> Option<ClockReading> {
        match self {
            Request::Upload(upload, _) => upload.arrives,
            Request::Cancel { at, .. } | Request::Close { at, .. } => *at,
            Request::Promise { .. } => None,
        }
    }
}

/// Make a verifier fail; the receiver hears when its successor has started.
#[derive(Message)]
#[rtype(result = "Result<oneshot::Receiver<()>, PoolError>")]
pub(crate) struct KillVerifier(pub(crate) VerifierId);

/// End the phase and go on under another one, at this time of the clock that devices share; `None`: now.
#[derive(Message)]
#[rtype(result = "Vec<VerifierRecord>")]
pub(crate) struct NextPhase(pub(crate) PhaseId, pub(crate) Option<Time>);

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
pub(crate) struct StopPool;
