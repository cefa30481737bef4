//! The `specfleet` binary as a user calls it: what it refuses, what it leaves, and what must hold of every run.

mod addresses;
mod asking;
mod bad_input;
mod bad_simulations;
mod bits;
mod calibration;
mod care;
mod common;
#[path = "../../../ledger/tests/suite/common/damage.rs"]
mod damage;
mod dashboard;
mod deterministic;
mod documents;
mod doors;
mod emulated;
mod exports;
mod faults;
mod foreign_text;
mod full_disk;
mod hostile_exports;
#[cfg(target_os = "linux")]
mod hostile_files;
mod hostile_models;
mod hostile_pages;
#[cfg(target_os = "linux")]
mod hostile_systems;
mod inputs;
mod interruption;
mod kills;
mod load;
mod outputs;
mod page;
mod passes;
#[cfg(target_os = "linux")]
mod paths;
mod questions;
mod reading;
mod recorded;
mod rows;
mod same_tokens;
mod scores;
mod scratch;
mod simulations;
mod sizing;
mod thresholds;
mod too_long;
mod watching;
