//! The `specfleet` binary as a user calls it: what it refuses, what it leaves, and what must hold of every run.

mod bad_input;
mod common;
mod faults;
mod interruption;
mod outputs;
mod same_tokens;
