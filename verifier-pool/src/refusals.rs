//! What the log says of refused uploads.

use std::collections::BTreeMap;

use specfleet_engine::id::{ConnectionId, UploadId};
use specfleet_engine::pool::{RefuseReason, SessionKey};
use tracing::{debug, info};

/// Refused uploads by connection and reason. The first of each is a line of the log, the others are counted: whoever sends a flood
/// of uploads that are refused would else write the log at the speed of the network, from the pool's only thread.
#[derive(Debug, Default)]
pub(crate) struct ConnectionRefusals(BTreeMap<ConnectionId, BTreeMap<RefuseReason, u64>>);

impl ConnectionRefusals {
    /// An upload of a connection that is there was refused.
    pub(crate) fn add(&mut self, session: SessionKey, upload: UploadId, reason: RefuseReason) {
        let SessionKey { connection, session } = session;
        let (connection, upload) = (connection, upload.0);
        let count = self.0.entry(connection).or_default().entry(reason).or_default();
        *count += 1;
        if *count == 1 {
            info!(connection = connection.0, session, upload, %reason, "refused; more of these are counted");
        } else {
            debug!(connection = connection.0, session, upload, %reason, "refused");
        }
    }

    /// The connection is gone: says how many there were where one line did not say it.
    pub(crate) fn end(&mut self, connection: ConnectionId) {
        for (reason, refused) in self.0.remove(&connection).unwrap_or_default() {
            if refused > 1 {
                info!(connection = connection.0, %reason, refused, "refused in all");
            }
        }
    }
}
