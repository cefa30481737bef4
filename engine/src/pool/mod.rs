//! The pool: sessions, a bounded queue, batches across devices, placement on verifiers ([`PoolMachine`]).

mod machine;
mod message;
mod settings;

pub use machine::PoolMachine;
pub use message::{Batch, BatchItem, Input, ItemOutcome, JobKind, JobRequest, Output, RefuseReason, SessionKey};
pub use settings::{Autoscale, Breaker, PoolSettings, PriceUpdate, QueueOrder};
