//! Hardware energy meters of a real device.
