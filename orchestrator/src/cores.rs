//! How many threads are worth starting.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

/// The cores that this process may use; 1 if the system does not say.
pub fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}
