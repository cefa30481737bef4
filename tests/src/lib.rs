//! Whole-system, reference-model, golden and tidy tests. The library half is what they share: a small world in virtual
//! time ([`world::World`]) in which the real machines talk through the real codec, with toy models ([`toy`]) for logits; and
//! the same setups on the simulator ([`simulated`]). And a [`network`] in memory for the live actors,
//! and a [`mutator`] that damages inputs.

pub mod answers;
pub mod mutator;
pub mod network;
pub mod setups;
pub mod simulated;
pub mod toy;
pub mod world;
