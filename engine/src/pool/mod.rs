//! The pool: sessions, a bounded queue, batches across devices, placement on verifiers ([`PoolMachine`]).

mod admission;
mod agenda;
mod batching;
mod breaker;
#[cfg(test)]
mod emulated_tests;
mod endings;
mod estimate;
mod failures;
mod fair;
mod index;
mod job;
mod machine;
mod message;
mod order;
#[cfg(test)]
mod order_tests;
mod placement;
mod price;
mod queueing;
mod results;
mod scale;
mod sessions;
mod settings;
#[cfg(test)]
mod tests;
mod verifier;

pub use agenda::{Agenda, NextInput};
pub use machine::PoolMachine;
pub use message::{Batch, BatchItem, Input, ItemOutcome, JobKind, JobRequest, Output, RefuseReason, SessionKey};
pub use settings::{Autoscale, Breaker, PoolSettings, PriceUpdate, QueueOrder};
pub use verifier::Activity;
