//! Which device does which task of a run, for the machine that hands them out.

use specfleet_config::Assignment;
use specfleet_engine::id::DeviceId;
use specfleet_engine::load::Jobs;

/// A run's tasks by their devices.
#[derive(Clone, Debug)]
pub struct Tasks(pub Assignment);

impl Jobs for Tasks {
    fn count(&self) -> u64 {
        u64::from(self.0.tasks())
    }

    fn device(&self, job: u64) -> DeviceId {
        // Jobs are numbered below `count`.
        self.0.device(job as u32)
    }

    fn nth(&self, device: DeviceId, n: u32) -> Option<u64> {
        self.0.nth_task(device, n).map(u64::from)
    }
}
