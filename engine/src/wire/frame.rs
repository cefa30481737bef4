//! The frames themselves.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::identity::VerifierIdentity;
use crate::acceptance::Next;
use crate::device::payload::Payload;
use crate::id::{DeviceId, UploadId};
use crate::method::Sampling;
use crate::pool::RefuseReason;
use crate::random::DrawKey;
use crate::record::VerifyCost;
use crate::time::{Span, Time};

/// From a device to the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// Who calls; the first frame of a connection, and only that.
    Hello(Hello),
    Upload(Box<Upload>),
    /// Nobody waits for this upload any more.
    Cancel {
        /// The device's session number.
        session: u32,
        upload: UploadId,
        /// When, by the clock that device and pool share.
        at: Option<ClockReading>,
    },
    /// Nothing of this device arrives before a time, unless it is answered.
    Promise {
        /// Which device it is of the fleet: what arrives at the same time is taken in this order.
        device: DeviceId,
        /// That time, by the clock that device and pool share.
        until: ClockReading,
        /// How long nothing arrives after an answer has left the pool.
        after_answer: Span,
    },
    /// The generation is over.
    Close {
        /// The device's session number.
        session: u32,
        /// When, by the clock that device and pool share.
        at: Option<ClockReading>,
    },
}

/// A time of the clock that devices and pool of one run share. It takes eight bytes whatever the time, so that runs that
/// differ by nothing but when they began send equally many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClockReading([u8; 8]);

impl From<Time> for ClockReading {
    fn from(time: Time) -> ClockReading {
        ClockReading(time.0.to_le_bytes())
    }
}

impl From<ClockReading> for Time {
    fn from(reading: ClockReading) -> Time {
        Time(u64::from_le_bytes(reading.0))
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::PROTOCOL_VERSION`] of the device.
    pub protocol: u16,
    /// Digest of the tokenizer, which must be the pool's.
    pub tokenizer: [u8; 32],
    /// Size of the vocabulary.
    pub vocab: u32,
    /// What the pool of a run gave to its own devices.
    pub admission: AdmissionToken,
}

/// What lets a device into the pool of a run: random, and known to the run's own devices alone. It is the outer door only.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AdmissionToken(pub [u8; 16]);

impl AdmissionToken {
    /// That of a pool which takes everybody.
    pub const NONE: AdmissionToken = AdmissionToken([0; 16]);
}

impl fmt::Debug for AdmissionToken {
    /// Without its value, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == AdmissionToken::NONE { "no token" } else { "a token" })
    }
}

/// One upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// The device's session number; a new one with `base` 0 opens a session.
    pub session: u32,
    pub upload: UploadId,
    /// Tokens of the session that the pool holds already.
    pub base: u32,
    /// The committed tokens that follow them; the first upload carries the prompt.
    pub tokens: Vec<u32>,
    /// Key of the draws at the position behind `tokens`.
    pub key: DrawKey,
    /// How the verifier draws.
    pub sampling: Sampling,
    /// What is asked for.
    pub job: UploadJob,
    /// How long the device will wait.
    pub patience: Span,
    /// In what time it wants the verdict (zero: it is late already); `None` without a target.
    pub wanted: Option<Span>,
    /// Expected risk, for schedulers; NaN if the device has no estimate.
    pub risk: f32,
    /// When it arrives at the pool by the clock that both share: an emulated device sends it ahead. `None`: now.
    pub arrives: Option<ClockReading>,
}

/// What an upload asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UploadJob {
    Judge {
        /// The drafts, in order.
        drafts: Vec<u32>,
        payloads: Vec<Payload>,
        /// Add a token if all are accepted.
        bonus: bool,
    },
    /// Write up to this many tokens, one verdict each.
    Write { limit: u32 },
}

/// From the pool to a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// The device may upload.
    Welcome(Welcome),
    /// The answer to an upload.
    Verdict(Box<VerdictFrame>),
    /// The pool would not take an upload.
    Refused {
        /// The device's session number.
        session: u32,
        upload: UploadId,
        reason: RefuseReason,
        /// What to wait before trying again.
        retry_after: Span,
        /// λ_pool, the congestion price.
        price: f32,
    },
    /// The pool ends the connection.
    Goodbye(Goodbye),
}

/// The pool's answer to a `Hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`super::PROTOCOL_VERSION`] of the pool.
    pub protocol: u16,
    /// Longest sequence the verifier takes.
    pub context: u32,
    /// Which verifier it is.
    pub verifier: VerifierIdentity,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictFrame {
    /// The device's session number.
    pub session: u32,
    /// The attempt it answers.
    pub upload: UploadId,
    pub accepted: u8,
    pub next: Next,
    /// More verdicts follow for the same upload.
    pub more: bool,
    /// What it waited for, and its share of the batch's energy.
    pub cost: VerifyCost,
    /// λ_pool, the congestion price.
    pub price: f32,
}

/// Why the pool ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Goodbye {
    #[error("the pool speaks protocol {ours}, the device {theirs}")]
    Protocol { ours: u16, theirs: u16 },
    /// The pool belongs to a run, and the device does not.
    #[error("the pool serves the devices of its own run only")]
    Stranger,
    /// Another tokenizer or vocabulary.
    #[error("the device's tokenizer is not the pool's")]
    Tokenizer,
    /// Something else than a `Hello` came first, or a second one.
    #[error("a frame came out of order")]
    OutOfOrder,
    /// Bytes that are no frame, or too many of them.
    #[error("the device sent something that is no frame")]
    Malformed,
    /// No `Hello` within the idle timeout.
    #[error("the device connected and said nothing")]
    Silent,
    /// The device does not take its verdicts.
    #[error("the device reads too slowly")]
    SlowReader,
    /// The pool is full.
    #[error("the pool has too many connections")]
    Full,
    /// The pool is shutting down.
    #[error("the pool is closing")]
    Closing,
    /// The pool was full, and the device had no session for a while.
    #[error("the device had nothing to do, and another one needed its place")]
    Idle,
    /// A frame was begun and not completed in time.
    #[error("the device takes too long over a frame")]
    SlowWriter,
}

impl Goodbye {
    /// Whether to connect again is pointless.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Goodbye::Protocol { .. }
                | Goodbye::Stranger
                | Goodbye::Tokenizer
                | Goodbye::OutOfOrder
                | Goodbye::Malformed
        )
    }

    /// The QUIC application error code that goes with it.
    pub fn code(self) -> u32 {
        match self {
            Goodbye::Protocol { .. } => 1,
            Goodbye::Tokenizer => 2,
            Goodbye::OutOfOrder => 3,
            Goodbye::Malformed => 4,
            Goodbye::Silent => 5,
            Goodbye::SlowReader => 6,
            Goodbye::Full => 7,
            Goodbye::Closing => 8,
            Goodbye::Stranger => 9,
            Goodbye::Idle => 10,
            Goodbye::SlowWriter => 11,
        }
    }
}
