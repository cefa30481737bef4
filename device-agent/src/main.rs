//! One real device.

fn main() {}
