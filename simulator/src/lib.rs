//! Fleets in virtual time: the same machines as live ([`DeviceMachine`](specfleet_engine::device::DeviceMachine),
//! [`PoolMachine`](specfleet_engine::pool::PoolMachine)), driven by a queue of events instead of sockets and clocks.
//!
//! Nothing here decides anything: this crate transports, waits in virtual time, asks [`answers`] what a model would say,
//! and hands records on. Start reading at [`Simulation::run`].
//!
//! * The fleet is divided into [`SHARDS`] shards, whatever the number of threads; the pool is one more. All of them work on
//!   the same short window of virtual time, at most half the smallest delay from the pool to a device, so that nothing
//!   that happens in one can reach another before it is handed over between windows. Results therefore do not depend on
//!   the number of threads.
//! * A device that waits for nobody runs ahead of its queue until its next upload has left: its local drafts are no events, and
//!   mostly the way of an upload and of its verdict are none either.

pub mod answers;
pub mod drawn;
pub mod fitted;
mod fleet;
mod host;
mod message;
mod places;
mod pool;
mod queue;
mod rendezvous;
mod run;
mod shard;
mod sink;
mod stalls;

pub use fleet::{Fleet, SHARDS, SimulatedPhase, SimulatedRequest};
pub use host::Host;
pub use pool::{PlannedKill, PoolSetup, Timing};
pub use run::{Simulation, SimulationError, SimulationProgress, Sinks, Totals};
pub use sink::{DeviceSink, PoolSink};
