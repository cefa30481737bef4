//! What shards and pool hand each other between windows.

use specfleet_engine::device::Refusal;
use specfleet_engine::id::{ConnectionId, UploadId};
use specfleet_engine::pool::{JobRequest, SessionKey};
use specfleet_engine::record::VerifyCost;
use specfleet_engine::time::Time;

/// From a device to the pool: there at the same instant, because what a device emits has been through its uplink.
#[derive(Debug)]
pub(crate) struct ToPool<U> {
    pub(crate) at: Time,
    pub(crate) device: u32,
    /// Counts a shard's messages, so that a device's own stay in order.
    pub(crate) number: u32,
    /// Until the pool has taken it.
    pub(crate) body: Option<PoolBody<U>>,
}

#[derive(Debug)]
pub(crate) enum PoolBody<U> {
    Upload(JobRequest, U),
    Cancel(SessionKey, UploadId),
    Close(SessionKey),
    Disconnected(ConnectionId),
}

/// From the pool to a device; its downlink is still before it.
#[derive(Debug)]
pub(crate) struct ToDevice<V> {
    pub(crate) at: Time,
    pub(crate) device: u32,
    pub(crate) connection: ConnectionId,
    pub(crate) session: u32,
    pub(crate) body: DeviceBody<V>,
}

#[derive(Debug)]
pub(crate) enum DeviceBody<V> {
    Verdict(VerdictBody, V),
    Refused(Refusal),
}

/// A verdict without what the answers carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VerdictBody {
    pub(crate) upload: UploadId,
    pub(crate) accepted: u8,
    pub(crate) more: bool,
    pub(crate) cost: VerifyCost,
    pub(crate) price: f32,
}
