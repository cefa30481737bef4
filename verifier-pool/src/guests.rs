//! The connections that have greeted: their places, their queues of frames, and what was refused to them.

use std::collections::BTreeMap;

use specfleet_engine::id::{ConnectionId, UploadId};
use specfleet_engine::pool::{RefuseReason, SessionKey};
use specfleet_engine::time::Time;
use specfleet_engine::wire::{DoorPlaces, Goodbye, ServerFrame};
use tokio::sync::mpsc::error::TrySendError;

use crate::message::ConnectionHandle;
use crate::refusals::ConnectionRefusals;

/// The connections that the pool has let in.
pub(crate) struct Guests {
    ports: BTreeMap<ConnectionId, ConnectionHandle>,
    places: DoorPlaces,
    refusals: ConnectionRefusals,
}

impl Guests {
    /// Nobody yet; this many at a time.
    pub(crate) fn new(most: usize) -> Guests {
        Guests { ports: BTreeMap::new(), places: DoorPlaces::new(most), refusals: ConnectionRefusals::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn contains(&self, connection: ConnectionId) -> bool {
        self.ports.contains_key(&connection)
    }

    /// Lets a connection in, and says who was sent away for it. `is_idle`: whether a connection has no session.
    pub(crate) fn enter(
        &mut self,
        now: Time,
        connection: ConnectionId,
        port: ConnectionHandle,
        is_idle: impl Fn(ConnectionId) -> bool,
    ) -> Result<Option<ConnectionId>, Goodbye> {
        let leaving = self.places.enter(now, connection, is_idle)?;
        if let Some(leaving) = leaving {
            self.send_away(leaving, Goodbye::Idle);
        }
        self.ports.insert(connection, port);
        Ok(leaving)
    }

    /// An upload of the connection was admitted, or one of its sessions has ended.
    pub(crate) fn worked(&mut self, now: Time, connection: ConnectionId) {
        self.places.worked(now, connection);
    }

    /// An upload was refused; of a connection that is gone nobody asks why.
    pub(crate) fn refused(&mut self, session: SessionKey, upload: UploadId, reason: RefuseReason) {
        if self.contains(session.connection) {
            self.refusals.add(session, upload, reason);
        }
    }

    /// Queues a frame. `false`: the queue was full, and the connection is no guest from here on.
    pub(crate) fn send(&mut self, connection: ConnectionId, frame: ServerFrame) -> bool {
        let Some(port) = self.ports.get(&connection) else { return true };
        match port.frames.try_send(frame) {
            // A task that is ending will say so.
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(_)) => {
                self.send_away(connection, Goodbye::SlowReader);
                false
            }
        }
    }

    /// The connection is gone.
    pub(crate) fn leave(&mut self, connection: ConnectionId) -> Option<ConnectionHandle> {
        self.places.leave(connection);
        self.refusals.end(connection);
        self.ports.remove(&connection)
    }

    fn send_away(&mut self, connection: ConnectionId, goodbye: Goodbye) {
        if let Some(port) = self.leave(connection) {
            // A task that is ending by itself takes no farewell.
            let _ = port.end.send(goodbye);
        }
    }

    pub(crate) fn close(&mut self) {
        while let Some((&connection, _)) = self.ports.first_key_value() {
            self.send_away(connection, Goodbye::Closing);
        }
    }
}
