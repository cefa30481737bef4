//! The whole system: machines, models, live actors and simulator together.

mod bertscore;
mod calibration;
mod device_clock;
mod exactness;
mod fuzz_machines;
mod identity;
mod live;
mod reference_model;
mod simulator_parity;
