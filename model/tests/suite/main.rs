//! The models: the same bits whatever the batch, the reference implementation's numbers, and refusals of what cannot be run.

mod common;
mod invariance;
mod reference;
mod refusals;
mod states;
