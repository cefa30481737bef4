//! The live actors with the embedded pair: against the simulator, and against their own machines.

mod common;
mod parity;
mod replay;
