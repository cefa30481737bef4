//! The device: one generation loop ([`DeviceMachine`]), the pure functions that its driver calls where the logits are
//! ([`draft_outcome`]), and the models of what it costs ([`link`], [`energy`]).

mod attempt;
mod clock;
pub mod draft;
pub mod energy;
mod extras;
pub mod gate;
mod generation;
pub mod link;
mod machine;
mod message;
pub mod payload;
mod settings;

pub use clock::{DeviceClock, Due, NextTurn};
pub use draft::{DraftSpec, Drafted, Signals, draft_outcome};
pub use machine::DeviceMachine;
pub use message::{
    Input, Lookback, NextToken, Output, Refusal, Start, Step, StepResult, UploadPlan, Verdict, WakeReason,
};
pub use settings::{DeviceSettings, OnRefused, OnUnreachable, Outages, Retry, SettingsError};
