//! One phase's fleet: who runs what, under which settings.

use std::sync::Arc;

use specfleet_engine::device::link::LinkProfile;
use specfleet_engine::device::{DeviceMachine, DeviceSettings, SettingsError};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::load::{self, Churn, Dispatch, Jobs, Load};
use specfleet_engine::pool::SessionKey;
use specfleet_engine::time::Time;

use crate::host::Host;

/// Parts that a fleet is divided into, whatever the number of threads: device d is in shard d mod `SHARDS`.
pub const SHARDS: u32 = 64;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedRequest {
    /// Which generation it makes.
    pub generation: GenerationId,
    /// Index into the run's list of data sets.
    pub data_set: u16,
}

/// What a phase runs.
#[derive(Clone)]
pub struct SimulatedPhase {
    pub devices: u32,
    pub start: Time,
    /// Seed of the run.
    pub seed: u64,
    /// What devices run under, one entry per part of the fleet.
    pub parts: Vec<Arc<DeviceSettings>>,
    /// The parts of devices 0, 1, …, repeated.
    pub pattern: Vec<u16>,
    pub jobs: Arc<[SimulatedRequest]>,
    /// Whose they are, by their places in `jobs`.
    pub assignment: Arc<dyn Jobs + Send + Sync>,
    pub load: Load,
    /// When devices come and go.
    pub churn: Churn,
    /// What the host adds.
    pub host: Host,
}

/// A [`SimulatedPhase`] whose settings every machine takes.
#[derive(Clone)]
pub struct Fleet {
    phase: SimulatedPhase,
    pub(crate) devices: u32,
    pub(crate) start: Time,
    pub(crate) seed: u64,
}

impl Fleet {
    /// Checks the settings of all parts.
    pub fn new(phase: SimulatedPhase) -> Result<Fleet, SettingsError> {
        for part in &phase.parts {
            part.check()?;
        }
        Ok(Fleet { devices: phase.devices, start: phase.start, seed: phase.seed, phase })
    }

    pub(crate) fn machine(&self, device: DeviceId) -> DeviceMachine {
        DeviceMachine::new(device, self.settings(device).clone()).expect("all parts were checked")
    }

    pub(crate) fn settings(&self, device: DeviceId) -> &Arc<DeviceSettings> {
        let part = self.phase.pattern[device.0 as usize % self.phase.pattern.len()];
        &self.phase.parts[usize::from(part)]
    }

    pub(crate) fn leaves(&self, device: DeviceId) -> Time {
        match self.phase.churn.leaves(self.seed, device, self.devices) {
            Some(at) => Time(self.start.0.saturating_add(at.0)),
            None => Time(u64::MAX),
        }
    }

    pub(crate) fn job(&self, index: u32) -> SimulatedRequest {
        self.phase.jobs[index as usize]
    }

    pub(crate) fn host(&self) -> &Host {
        &self.phase.host
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &LinkProfile> {
        self.phase.parts.iter().map(|part| &part.link)
    }

    pub(crate) fn dispatch(&self, shard: u32) -> Dispatch<'_, Assigned<'_>> {
        let phase = load::DispatchPhase {
            load: &self.phase.load,
            churn: self.phase.churn,
            seed: self.seed,
            devices: self.devices,
            start: self.start,
        };
        Dispatch::new(phase, Assigned(&*self.phase.assignment), load::DispatchShard { index: shard, of: SHARDS })
    }
}

/// Whose the requests of a phase are.
#[derive(Clone, Copy)]
pub(crate) struct Assigned<'a>(&'a (dyn Jobs + Send + Sync));

impl Jobs for Assigned<'_> {
    fn count(&self) -> u64 {
        self.0.count()
    }

    fn device(&self, job: u64) -> DeviceId {
        self.0.device(job)
    }

    fn nth(&self, device: DeviceId, n: u32) -> Option<u64> {
        self.0.nth(device, n)
    }
}

/// The device in a slot of a shard.
pub(crate) fn device_at(slot: u32, shard: u32) -> DeviceId {
    DeviceId(slot * SHARDS + shard)
}

/// Whose connection this is.
pub(crate) fn device_of(session: SessionKey) -> DeviceId {
    // The low half is the device.
    DeviceId(session.connection.0 as u32)
}
