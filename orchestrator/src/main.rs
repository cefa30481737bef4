//! The `specfleet` command.
fn main() {}
