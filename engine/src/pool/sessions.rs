//! The open sessions: a table of slots, found by key or by connection.
//!
//! A slot stays taken while a batch computes for its session, even if the session closes meanwhile: then it can no longer
//! be found, and is freed when the batch is over. So whoever computes may keep the slot's number.

use super::index::{Index, hash};
use super::job::Queued;
use super::message::SessionKey;
use crate::id::{ConnectionId, UploadId};

/// Stands for "no slot" in the links.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: SessionKey,
    /// Tokens known to the pool.
    pub(super) length: u32,
    /// Leading tokens of its KV cache that still hold; 0 without one.
    pub(super) kv: u32,
    /// Smallest base of an upload admitted while another one (cancelled meanwhile) was being computed.
    pub(super) rebase: u32,
    pub(super) queued: Option<Queued>,
    /// The upload that is being computed.
    pub(super) running: Option<UploadId>,
    /// Nobody waits for what is being computed.
    pub(super) cancelled: bool,
    /// Nobody can find it any more.
    pub(super) closed: bool,
    /// Is about to enter the batch that is being formed.
    pub(super) chosen: bool,
    /// The other sessions of its connection, in a list, and how many there are in all; only the first one knows.
    before: u32,
    after: u32,
    siblings: u32,
}

#[derive(Debug)]
pub(super) struct Sessions {
    slots: Vec<Session>,
    free: Vec<u32>,
    by_key: Index,
    /// The first session of each connection.
    by_connection: Index,
}

fn key_hash(key: SessionKey) -> u32 {
    hash(key.connection.0, key.session)
}

fn connection_hash(connection: ConnectionId) -> u32 {
    hash(connection.0, 0)
}

impl Sessions {
    pub(super) fn new() -> Self {
        Sessions { slots: Vec::new(), free: Vec::new(), by_key: Index::new(), by_connection: Index::new() }
    }

    pub(super) fn find(&self, key: SessionKey) -> Option<u32> {
        self.by_key.find(key_hash(key), |slot| self[slot].key == key)
    }

    /// Sessions that can be found.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn first_of(&self, connection: ConnectionId) -> Option<u32> {
        self.by_connection.find(connection_hash(connection), |slot| self[slot].key.connection == connection)
    }

    /// How many sessions `connection` has open.
    pub(super) fn count_of(&self, connection: ConnectionId) -> u32 {
        self.first_of(connection).map_or(0, |first| self[first].siblings)
    }

    /// The keys of `connection`'s sessions, in order.
    pub(super) fn keys_of(&self, connection: ConnectionId) -> Vec<SessionKey> {
        let mut next = self.first_of(connection).unwrap_or(NONE);
        let mut keys = Vec::new();
        while next != NONE {
            keys.push(self[next].key);
            next = self[next].after;
        }
        keys.sort_unstable();
        keys
    }

    /// A new session without tokens. `key` must be unknown.
    pub(super) fn open(&mut self, key: SessionKey) -> u32 {
        let first = self.first_of(key.connection);
        let siblings = first.map_or(0, |first| self[first].siblings) + 1;
        let session = Session {
            key,
            length: 0,
            kv: 0,
            rebase: u32::MAX,
            queued: None,
            running: None,
            cancelled: false,
            closed: false,
            chosen: false,
            before: NONE,
            after: first.unwrap_or(NONE),
            siblings,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self[slot] = session;
                slot
            }
            None => {
                self.slots.push(session);
                // A table of 2³² slots would not fit into any memory.
                (self.slots.len() - 1) as u32
            }
        };
        match first {
            Some(first) => {
                self[first].before = slot;
                self.by_connection.replace(first, slot, connection_hash(key.connection));
            }
            None => self.by_connection.insert(slot, connection_hash(key.connection)),
        }
        self.by_key.insert(slot, key_hash(key));
        slot
    }

    /// Makes `slot` impossible to find. Its number stays taken until [`Self::free`].
    pub(super) fn close(&mut self, slot: u32) {
        let Session { key, before, after, .. } = self[slot];
        self[slot].closed = true;
        self.by_key.remove(slot, key_hash(key));
        if after != NONE {
            self[after].before = before;
        }
        if before != NONE {
            self[before].after = after;
            if let Some(first) = self.first_of(key.connection) {
                self[first].siblings -= 1;
            }
        } else if after != NONE {
            self[after].siblings = self[slot].siblings - 1;
            self.by_connection.replace(slot, after, connection_hash(key.connection));
        } else {
            self.by_connection.remove(slot, connection_hash(key.connection));
        }
    }

    /// Gives the number of a closed session back.
    pub(super) fn free(&mut self, slot: u32) {
        self.free.push(slot);
    }
}

impl std::ops::Index<u32> for Sessions {
    type Output = Session;

    fn index(&self, slot: u32) -> &Session {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Sessions {
    fn index_mut(&mut self, slot: u32) -> &mut Session {
        &mut self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sessions_are_found_by_key_and_by_connection(
            ops in proptest::collection::vec((any::<bool>(), 0u64..3, 0u32..5), 0..200),
        ) {
            let (mut sessions, mut naive) = (Sessions::new(), BTreeMap::new());
            for (open, connection, session) in ops {
                let key = SessionKey { connection: ConnectionId(connection), session };
                match (open, sessions.find(key)) {
                    (true, None) => {
                        let slot = sessions.open(key);
                        prop_assert!(naive.values().all(|&other| other != slot), "two sessions in one slot");
                        naive.insert(key, slot);
                    }
                    (false, Some(slot)) => {
                        sessions.close(slot);
                        sessions.free(slot);
                        naive.remove(&key);
                    }
                    _ => {}
                }
                prop_assert_eq!(sessions.len(), naive.len());
                prop_assert!(naive.iter().all(|(&key, &slot)| sessions.find(key) == Some(slot)));
                for connection in (0..3).map(ConnectionId) {
                    let keys: Vec<_> = naive.keys().copied().filter(|k| k.connection == connection).collect();
                    prop_assert_eq!(sessions.count_of(connection) as usize, keys.len());
                    prop_assert_eq!(sessions.keys_of(connection), keys);
                }
            }
        }
    }
}
