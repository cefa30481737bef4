//! Exports and imports: what goes out comes back, and hostile files are refused.

#[path = "../../../ledger/tests/suite/common/mod.rs"]
mod common;
mod hostile;
mod round_trip;
