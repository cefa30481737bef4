//! What the tests share: pools with tiny models, a client written by hand, floods of first packets, and verdicts computed directly.

pub(crate) mod client;
pub(crate) mod direct;
pub(crate) mod flood;
pub(crate) mod model;
pub(crate) mod world;
