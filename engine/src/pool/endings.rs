//! Uploads that nobody waits for any more, sessions that close, connections that go away.

use super::machine::PoolMachine;
use super::message::{Output, SessionKey};
use crate::id::{ConnectionId, UploadId, VerifierId};

impl PoolMachine {
    pub(super) fn cancel(&mut self, key: SessionKey, upload: UploadId) {
        let Some(slot) = self.sessions.find(key) else { return };
        let session = &self.sessions[slot];
        if session.queued.is_some_and(|queued| queued.job.upload == upload) {
            self.dequeue(slot);
            self.counts.cancelled += 1;
        } else if session.running == Some(upload) {
            self.cancel_running(slot);
        }
    }

    /// Notes that nobody waits for what is being computed for the session.
    fn cancel_running(&mut self, slot: u32) {
        let session = &mut self.sessions[slot];
        if session.running.is_some() && !session.cancelled {
            session.cancelled = true;
            self.counts.cancelled += 1;
        }
    }

    pub(super) fn close(&mut self, key: SessionKey, out: &mut Vec<Output>) {
        let Some(slot) = self.sessions.find(key) else { return };
        if self.dequeue(slot).is_some() {
            self.counts.cancelled += 1;
        }
        self.sessions.close(slot);
        out.push(Output::Forget(key));
        if self.sessions[slot].running.is_some() {
            // Its cache is in use; it is freed when the batch is over.
            self.cancel_running(slot);
            return;
        }
        if let Some(home) = self.kv.arena(slot) {
            self.kv.remove(slot);
            out.push(Output::DropKv { verifier: VerifierId(home), session: key });
        }
        self.sessions.free(slot);
    }

    pub(super) fn disconnected(&mut self, connection: ConnectionId, out: &mut Vec<Output>) {
        for key in self.sessions.keys_of(connection) {
            self.close(key, out);
        }
    }
}
