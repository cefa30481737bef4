//! The pure core of specfleet: everything that *decides* (when a device uploads, how a batch is formed, which
//! verifier gets it, what is accepted, what it costs) and nothing that touches a clock, socket, thread, model, file
//! or global random generator.
//!
//! Two kinds of things live here:
//!
//! * **machines** ([`device::DeviceMachine`], [`pool::PoolMachine`]): state machines without I/O, driven by
//!   `handle_*(now, input)`, `poll_output()` and `poll_timeout()`. They see *signals* and *verdicts*, never logits.
//! * **named pure functions** ([`device::draft_outcome`], [`acceptance::verify_outcome`], …) that a driver calls where
//!   the logits are, on its model threads.
//!
//! Start reading at [`device::DeviceMachine`]: it is one device's generation loop.

pub mod acceptance;
pub mod calibration;
mod chacha;
pub mod cost;
pub mod device;
pub mod distribution;
pub mod disturbance;
pub mod id;
pub mod kv;
pub mod load;
pub mod method;
pub mod names;
pub mod pool;
pub mod prompt;
pub mod random;
pub mod record;
pub mod sizing;
mod splitmix;
pub mod time;
pub mod wire;
