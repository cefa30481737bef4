//! What devices and pool say to each other.
//!
//! One bidirectional stream per connection, opened by the device. Each direction is a sequence of frames: a length
//! (`u32`, little-endian, at most [`FrameLimits::frame_bytes`]) and that many bytes, a [`ClientFrame`] or [`ServerFrame`] in
//! postcard. The device says [`ClientFrame::Hello`] first and the pool answers `Welcome` or `Goodbye`.
//!
//! The version is part of the ALPN ([`ALPN`]) and of `Hello`: peers of another major version do not get through the TLS
//! handshake, and one that lies about it is told so.

mod codec;
mod door;
mod frame;
mod handshake;
mod identity;

pub use codec::{FrameDecoder, FrameLimits, WireError, encode};
pub use door::{DoorPlaces, FirstAnswer, KEEPS_PLACE, KEEPS_UNUSED_PLACE, MOST_HANDSHAKES, Refusals, first_answer};
pub use frame::{
    AdmissionToken, ClientFrame, ClockReading, Goodbye, Hello, ServerFrame, Upload, UploadJob, VerdictFrame, Welcome,
};
pub use handshake::{greet, welcome_fits};
pub use identity::{NoPrecision, PrecisionName, Short, VerifierChange, VerifierIdentity};

/// Version of the frames; peers must agree on it.
pub const PROTOCOL_VERSION: u16 = 4;

/// The ALPN of this version.
pub const ALPN: &[u8] = b"specfleet/4";
