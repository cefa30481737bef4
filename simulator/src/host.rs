//! What the host of a live run adds to declared times: late timers, sockets, actors \[ours\].

use specfleet_engine::calibration::HostOverheads;
use specfleet_engine::cost::quantile;
use specfleet_engine::device::WakeReason;
use specfleet_engine::id::DeviceId;
use specfleet_engine::random::{DrawKey, Purpose};
use specfleet_engine::time::Span;

/// The overheads of a host, or none.
#[derive(Clone, Debug, Default)]
pub struct Host(Option<HostOverheads>);

/// What an event adds to.
#[derive(Clone, Copy)]
enum Kind {
    Step,
    Upload,
    Wake,
    Verdict,
    /// From a batch's order to its start.
    Batch,
}

impl Host {
    /// A host that adds nothing: what the declared times say happens.
    pub fn ideal() -> Host {
        Host(None)
    }

    /// A host as it was measured.
    pub fn measured(overheads: HostOverheads) -> Host {
        Host(Some(overheads))
    }

    /// How much later than asked a device is woken for the `number`-th time. The overhead of an upload is added half on its way up, half on the
    /// way down ([`Self::way_down`]).
    pub(crate) fn wake(&self, reason: WakeReason, seed: u64, device: DeviceId, number: u32) -> Span {
        match reason {
            WakeReason::StepTime => self.draw(Kind::Step, seed, device, number),
            WakeReason::Uplink => Span(self.draw(Kind::Upload, seed, device, number).0 / 2),
            _ => Span::ZERO,
        }
    }

    /// How much later than sent the `number`-th message to a device starts to arrive.
    pub(crate) fn way_down(&self, seed: u64, device: DeviceId, number: u32) -> Span {
        Span(self.draw(Kind::Verdict, seed, device, number).0.div_ceil(2))
    }

    /// How much later than asked the pool is woken for the `number`-th time.
    pub(crate) fn pool_wake(&self, seed: u64, number: u32) -> Span {
        self.draw(Kind::Wake, seed, DeviceId(u32::MAX), number)
    }

    /// From the order of a batch to the start of its computation, for the `number`-th batch.
    pub(crate) fn batch(&self, seed: u64, number: u64) -> Span {
        self.draw(Kind::Batch, seed, DeviceId(u32::MAX), number as u32)
    }

    fn draw(&self, kind: Kind, seed: u64, device: DeviceId, number: u32) -> Span {
        let Some(host) = &self.0 else { return Span::ZERO };
        let (mean, spread) = match kind {
            Kind::Step => (host.step, &host.step_spread),
            Kind::Upload | Kind::Verdict => (host.upload, &host.upload_spread),
            Kind::Wake => (host.wake, &host.wake_spread),
            Kind::Batch => (host.batch, &host.batch_spread),
        };
        let key = DrawKey { seed, prompt: device.0, repetition: kind as u16, position: number, epoch: 0 };
        match quantile(spread, key.draws(Purpose::Simulation).uniform()) {
            Some(nanoseconds) => Span(nanoseconds.max(0.0) as u64),
            None => mean,
        }
    }
}
