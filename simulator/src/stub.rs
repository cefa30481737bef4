//! TEMPORARY
use specfleet_engine::id::DeviceId;
use specfleet_engine::time::Time;
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Begin,
    Ready(DeviceId),
    Finished(DeviceId),
    Gone(DeviceId),
    Timeout,
}
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output {
    Join(DeviceId),
    Start { device: DeviceId, job: u32, scheduled: Time },
    Drop { device: DeviceId, job: u32, scheduled: Time },
    Leave(DeviceId),
}
pub(crate) struct LoadMachine {
    shard: u32,
    devices: u32,
    jobs: u32,
    next: Vec<u32>,
    left: u64,
}
impl LoadMachine {
    pub(crate) fn new(shard: u32, devices: u32, jobs: u32) -> Self {
        let n = devices.saturating_sub(shard).div_ceil(64);
        let left = (0..n)
            .map(|s| {
                let d = s * 64 + shard;
                u64::from(jobs.saturating_sub(d).div_ceil(devices))
            })
            .sum();
        LoadMachine { shard, devices, jobs, next: (0..n).map(|s| s * 64 + shard).collect(), left }
    }
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        None
    }
    pub(crate) fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Begin => {
                for s in 0..self.next.len() as u32 {
                    if self.next[s as usize] < self.jobs {
                        out.push(Output::Join(DeviceId(s * 64 + self.shard)));
                    }
                }
            }
            Input::Ready(d) | Input::Finished(d) => {
                let n = &mut self.next[(d.0 / 64) as usize];
                if *n < self.jobs {
                    out.push(Output::Start { device: d, job: *n, scheduled: now });
                    *n += self.devices;
                    self.left -= 1;
                }
            }
            Input::Gone(_) | Input::Timeout => {}
        }
    }
}
