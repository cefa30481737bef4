//! What the devices of a shard send to the pool, and what becomes of its answers.

use specfleet_engine::device::payload::token_bits;
use specfleet_engine::device::{Input, Refusal, UploadPlan, Verdict};
use specfleet_engine::id::{ConnectionId, DeviceId};
use specfleet_engine::pool::{JobRequest, SessionKey};
use specfleet_engine::time::Time;

use super::{ArrivingAnswer, Shard, ShardEvent, SimulatedDevice};
use crate::answers::DeviceAnswers;
use crate::fleet::{SHARDS, device_at};
use crate::message::{DeviceBody, PoolBody, ToDevice, ToPool};
use crate::sink::DeviceSink;

impl<A: DeviceAnswers, S: DeviceSink> Shard<'_, A, S> {
    /// Sends the pool a message, now or, if its device is ahead of the queue, when its time has come.
    pub(super) fn send(&mut self, at: Time, device: DeviceId, body: PoolBody<A::Upload>) {
        self.sent = self.sent.wrapping_add(1);
        let message = ToPool { at, device: device.0, number: self.sent, body: Some(body) };
        if at < self.end {
            self.outbox.push(message);
        } else {
            let spare = &mut self.spare;
            let departing = self.departing.entry(at.0 / self.window.0);
            departing.or_insert_with(|| spare.pop().unwrap_or_default()).push(message);
        }
    }

    /// Takes in what the pool has sent. Its first bit reaches the device half a round trip later; what the device is doing
    /// then decides what becomes of it.
    pub(super) fn receive(&mut self, message: ToDevice<A::Verdict>) {
        let ToDevice { at, device: id, connection: from, session, body } = message;
        let slot = id / SHARDS;
        let device = &mut self.devices[slot as usize];
        // One stream keeps its order, however late its host is.
        let at = (at + self.fleet.host().way_down(self.fleet.seed, DeviceId(id), at)).max(device.last_message);
        device.last_message = at;
        let reaches = at + device.machine.settings().link.propagation();
        // Mostly nothing can happen to a device that waits before then, and it can be asked now.
        let alone = device.left_alone_until();
        if reaches < alone {
            self.reached(slot, alone, at, from, session, body);
        } else {
            let place = self.keep(slot, from, ArrivingAnswer::Sent(at, session, body));
            self.push(reaches, ShardEvent::Arrived(place));
        }
    }

    /// Sends what was sent at `at` and has reached its device, which is left alone until `alone`, through the downlink.
    fn reached(
        &mut self,
        slot: u32,
        alone: Time,
        at: Time,
        from: ConnectionId,
        session: u32,
        body: DeviceBody<A::Verdict>,
    ) {
        let id = device_at(slot, self.index);
        let device = &mut self.devices[slot as usize];
        // Of a connection that is gone, or a generation that is over.
        let known = connection(device, id) == from && device.machine.session() == session;
        if !(known && device.connected && device.running) {
            return;
        }
        let more = matches!(&body, DeviceBody::Verdict(verdict, _) if verdict.more);
        let (arrives, arriving) = match body {
            DeviceBody::Refused(refusal) => {
                let bits = token_bits(device.machine.settings().vocab as usize);
                let (arrives, downlink) = device.machine.receive(at, bits);
                (arrives, Input::Refused(Refusal { downlink, ..refusal }))
            }
            DeviceBody::Verdict(verdict, cargo) => {
                let arrived = self.answers.verdict(slot, verdict.upload, verdict.accepted, cargo);
                let (arrives, downlink) = device.machine.receive(at, arrived.bits);
                let verdict = Verdict {
                    upload: verdict.upload,
                    accepted: verdict.accepted,
                    next: arrived.next,
                    more: verdict.more,
                    cost: verdict.cost,
                    price: verdict.price,
                    bytes: arrived.bytes,
                    downlink,
                };
                (arrives, Input::Verdict(verdict))
            }
        };
        // And mostly nothing happens before the last bit either. But what follows a verdict with more to come is still
        // charged to the generation that this one may end.
        if !more && arrives < alone {
            self.tell(slot, arrives, arriving);
        } else {
            let place = self.keep(slot, from, ArrivingAnswer::Last(arriving));
            self.push(arrives, ShardEvent::Arrived(place));
        }
    }

    /// Keeps something on its way down; its place is in the event.
    fn keep(&mut self, slot: u32, from: ConnectionId, arriving: ArrivingAnswer<A::Verdict>) -> u32 {
        let count = &mut self.devices[slot as usize].arriving;
        // Beyond that many the count stays, and so does the slower way, which is right for all.
        *count = count.saturating_add(1);
        self.arriving.keep((slot, from, arriving))
    }

    pub(super) fn arrived(&mut self, now: Time, place: u32) {
        let Some((slot, from, arriving)) = self.arriving.take(place) else { return };
        let device = &mut self.devices[slot as usize];
        device.arriving -= u16::from(device.arriving < u16::MAX);
        let input = match arriving {
            ArrivingAnswer::Sent(at, session, body) => {
                let alone = device.left_alone_until();
                return self.reached(slot, alone, at, from, session, body);
            }
            ArrivingAnswer::Last(input) => input,
        };
        if !device.connected || connection(device, device_at(slot, self.index)) != from {
            return;
        }
        self.tell(slot, now, input);
    }
}

/// The number of a device's last connection: devices take turns, so that none is ever used twice and the device can be
/// told from it.
pub(super) fn connection(device: &SimulatedDevice, id: DeviceId) -> ConnectionId {
    ConnectionId(u64::from(device.connections) << 32 | u64::from(id.0))
}

pub(super) fn session(device: &SimulatedDevice, id: DeviceId) -> SessionKey {
    SessionKey { connection: connection(device, id), session: device.machine.session() }
}

pub(super) fn request(plan: &UploadPlan, session: SessionKey) -> JobRequest {
    JobRequest {
        session,
        upload: plan.upload,
        base: plan.base,
        catch_up: plan.committed - plan.base,
        kind: plan.job,
        risk: plan.risk,
        deadline: plan.deadline,
        wanted: plan.wanted,
    }
}
