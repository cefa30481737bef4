//! Scenario files to validated settings, with the presets and profiles that ship.
//!
//! A [`Scenario`] is a tree of TOML with the command line's overrides put on top; [`Scenario::settings`] turns it into
//! [`Settings`], in which every number lies in its range, every profile is read and every prompt is loaded. Nothing
//! downstream checks a setting again.
//!
//! Everything that ships (scenarios, device, link and verifier profiles, data sets) is embedded in the binary; a
//! scenario may name a file of its own wherever it may name something that ships.
//!
//! Start reading at [`Settings`].

mod address;
mod arrivals;
mod check;
mod error;
mod fault;
mod mode;
mod overrides;
mod precision;
mod presets;
mod profile;
mod read;
mod scenario;
mod settings;
mod vary;
mod workload;

pub use address::{AddressError, HostPort};
pub use check::{Check, CheckError, CheckStatistic, METRIC_ALIASES, Quantity};
pub use error::{ConfigError, short};
pub use fault::{Fault, FaultError};
pub use mode::Mode;
pub use precision::PrecisionChoice;
pub use presets::ShippedFile;
pub use profile::{DeclaredModel, VerifierSpeed};
pub use read::{InputFile, nearest_of};
pub use scenario::Scenario;
pub use settings::{
    Assignment, CalibrationFile, CalibrationOptions, CostChoice, DeviceOptions, Fidelity, FleetPart, MethodChoice,
    ModelChoice, ModelOptions, PoolSection, RecordedLengths, RunPlace, RunSection, Settings, SimulateSection, Task,
    Threshold, TlsFiles, WorkloadPart,
};
pub use vary::{Vary, VaryError};
pub use workload::{Prompt, Workload};

/// Calibrations of the embedded pair that ship, as JSON; each says in its key what it belongs to. How they are made stands
/// in `config/calibration/README.md`.
pub const CALIBRATIONS: [&str; 2] =
    [include_str!("../calibration/greedy.json"), include_str!("../calibration/temperature-1.json")];
