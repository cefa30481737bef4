//! Damaged inputs of every kind that comes from outside: whatever their bytes, the function that a command calls answers,
//! soon, in little memory and without a panic.
//!
//! Each kind gets 1,000 inputs, or as many times more as `SPECFLEET_MUTATIONS` says.

mod files;
mod heap;
mod models;
mod stored;
mod watch;
mod wire;
