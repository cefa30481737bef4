//! The verifier pool, live: a QUIC front door, the `Pool` actor that owns the engine's
//! [`PoolMachine`](specfleet_engine::pool::PoolMachine), and one `Verifier` actor per model replica.
//!
//! The machine decides everything: who is admitted, what goes into which batch, whose cache is dropped, what a batch
//! costs. This crate transports frames, sleeps until the machine's next timeout, computes
//! [`verify_outcome`](specfleet_engine::acceptance::verify_outcome) and
//! [`verifier_draw`](specfleet_engine::acceptance::verifier_draw) where the logits are, and stores the tokens of the
//! sessions.
//!
//! ```text
//!   device ══ QUIC ══ connection task ── bounded mailbox ──► Pool actor ── orders ──► Verifier actor (own thread)
//!                            ▲                                │  ▲                          │
//!                            └──── bounded queue of frames ───┘  └──── answer, or failure ──┘
//! ```
//!
//! Start reading at [`start`], then `pool_actor.rs`. What bounds what:
//!
//! * connections that have greeted: [`PoolOptions::max_connections`]; past it one that has long had nothing to do makes room,
//!   or the newcomer hears `Goodbye::Full`. Handshakes are counted apart (`specfleet_engine::wire::MOST_HANDSHAKES`).
//! * bytes from a device: QUIC stream windows, then one frame of at most `Limits::frame_bytes`. A connection task hands
//!   frames over one at a time and waits for the mailbox of the pool, so a busy pool slows its devices down.
//! * frames to a device: a queue of its own; past it, or when nothing of it can be written for a while,
//!   `Goodbye::SlowReader`.
//! * a frame from a device: what is begun must be completed in a while; past it `Goodbye::SlowWriter`.
//! * work: the machine's queue; past it a typed refusal.
//! * a verifier's orders: one message under way; what gathers meanwhile is at most one batch, and one "free this
//!   cache" per cache it holds.
//! * events: [`PoolOptions::events`]; while it is full the pool actor waits, and so do the devices.

mod connection;
mod door;
mod error;
mod guests;
mod handle;
mod judge;
mod message;
mod metering;
mod options;
mod pool_actor;
mod refusals;
mod replica;
mod scenario;
mod status;
mod store;
mod tls;
mod upload;
mod verifier_actor;

pub use error::PoolError;
pub use handle::{PoolHandle, StartingPool, start, start_over};
pub use judge::{ItemAnswer, Judge, JudgeError};
pub use metering::observed;
pub use options::{PoolCall, PoolEvent, PoolJournal, PoolOptions, TlsOptions};
pub use status::{KvHeld, Outstanding, PoolStatus, VerifierStatus};
pub use store::{SessionStore, VerifyTask};
pub use tls::admission_token;
