//! Device agents: everything a device does besides deciding.
//!
//! `specfleet-engine`'s `DeviceMachine` decides when to draft, what to upload and what to commit; this crate carries
//! that out. Start reading at [`Device`], one actor per device: it turns whatever happens into one call of the machine
//! and carries the outputs out in order. What it needs for that:
//!
//! * [`Drafter`]: the thread on which the draft steps of all devices of the process run, packed into common passes;
//! * [`Connector`]: the way to the pool, QUIC with TLS 1.3;
//! * [`Timer`]: waking up on time, far closer than tokio's own timers;
//! * [`HostClock`]: the time of the host, without what the process stood still;
//! * [`meters`]: the hardware energy meters of a real device.
//!
//! Nothing here compares an uncertainty, a length, a price or a load with anything: that is the engine's business.

mod actor;
mod connection;
mod connector;
mod drafter;
mod drafting;
mod error;
mod message;
pub mod meters;
mod options;
mod rounds;
mod store;
mod tls;

pub use actor::Device;
pub use connector::{Connector, ConnectorOptions};
pub use drafter::Drafter;
pub use drafting::{Draft, DraftJob, Drafting};
pub use error::{AgentError, ConnectorError, DraftError, LinkError};
pub use message::{CutConnection, DeviceEvent, Generate, LastLinkError, Leave, PoolVerifier, Ready};
pub use options::{AgentOptions, DeviceCall, DeviceJournal};
pub use specfleet_timer::{HostClock, Timer};
pub use store::Store;
pub use tls::{ServerIdentity, Trust};
