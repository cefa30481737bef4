//! The pool over real QUIC on this machine, with real (tiny) models.

#[path = "../common/mod.rs"]
mod common;

mod binary;
mod doors;
mod faults;
mod hostile;
mod lifecycle;
mod replay;
mod verdicts;
