//! What a device is made of, and who looks on.

use std::sync::Arc;

use specfleet_engine::device::{DeviceSettings, Input, Output};
use specfleet_engine::id::{DeviceId, UploadId};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::AdmissionToken;
use specfleet_timer::{HostClock, Timer};
use tokio::sync::mpsc;

use crate::connector::Connector;
use crate::drafter::Drafter;
use crate::message::DeviceEvent;

/// What a device is made of.
#[derive(Clone)]
pub struct AgentOptions {
    pub device: DeviceId,
    /// What its machine runs under.
    pub settings: Arc<DeviceSettings>,
    /// Where its drafts are computed.
    pub drafter: Drafter,
    /// Its way to the pool.
    pub connector: Connector,
    pub timer: Timer,
    /// Digest of the pair's tokenizer; the pool refuses another one's.
    pub tokenizer_digest: [u8; 32],
    /// What lets it into the pool of a run.
    pub admission: AdmissionToken,
    /// Where its records go. When it is full, the device waits.
    pub events: mpsc::Sender<DeviceEvent>,
    /// The host's clock, which starts with the run.
    pub clock: HostClock,
    /// Whether the pool's times are of that clock too. An emulated device then tells it when things arrive.
    pub shares_clock: bool,
    /// How many generations it is given one after another, the first as soon as it is ready; 0 where that is not known.
    pub in_a_row: u32,
    /// Sees every call of the machine, for replaying a live run; `None` outside tests.
    pub journal: Option<DeviceJournal>,
}

/// Is shown every call of a device's machine, on the device's own thread.
pub type DeviceJournal = Arc<dyn Fn(DeviceId, Time, DeviceCall<'_>) + Send + Sync>;

/// A call of the machine and what it led to.
#[derive(Clone, Copy, Debug)]
pub enum DeviceCall<'a> {
    Handle {
        input: &'a Input,
        /// What the machine asked for.
        outputs: &'a [Output],
    },
    Receive {
        /// What the frame answers.
        upload: UploadId,
        /// How long that was in the pool.
        pool: Span,
        /// Nominal bits of the frame.
        bits: u64,
        /// When the machine wants it handed over.
        arrives: Time,
    },
}
