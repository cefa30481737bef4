//! Everything that can go wrong on a device.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use specfleet_engine::device::SettingsError;
use specfleet_engine::pool::RefuseReason;
use specfleet_engine::wire::{Goodbye, VerifierChange, WireError};
use specfleet_model::ModelError;
use thiserror::Error;

use crate::tls::NOT_PINNED;

/// Why a device cannot do what it was asked to. Cloned to everybody who waits for it.
#[derive(Clone, Debug, Error)]
pub enum AgentError {
    /// Settings that no device can run under.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A thread could not be started.
    #[error("cannot start the {thread} thread: {reason}")]
    Thread {
        thread: &'static str,
        /// What the operating system said.
        reason: String,
    },
    /// The drafter could not compute a draft; the generation has failed.
    #[error("cannot draft: {0}")]
    Draft(#[from] DraftError),
    /// There is no point in connecting again.
    #[error("the connection is refused for good: {0}")]
    Link(#[from] LinkError),
    /// The pool will never take an upload of this generation, which has failed.
    #[error("the pool refuses the upload for good: {0}")]
    Refused(RefuseReason),
    /// A generation is under way already.
    #[error("the device is busy with another generation")]
    Busy,
    /// A prompt without tokens.
    #[error("the prompt is empty")]
    NoPrompt,
    /// No room for a single token behind the prompt.
    #[error("the prompt has {tokens} tokens, which leaves no room for a new one in a context of {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        context: u32,
    },
    /// The device has left, or its battery is empty.
    #[error("the device has left")]
    Left,
}

/// Why a draft step failed.
#[derive(Clone, Debug, Error)]
pub enum DraftError {
    /// The model or its KV arena said no; the message says to what.
    #[error(transparent)]
    Model(#[from] Arc<ModelError>),
    /// The cache does not hold what the step builds on.
    #[error("the drafter's cache holds {held} tokens of a sequence, the step builds on {wanted}")]
    LostCache {
        /// Tokens in the cache.
        held: usize,
        /// Tokens that the step takes for granted.
        wanted: usize,
    },
    /// The drafter was stopped, or its thread panicked.
    #[error("the drafter's thread has stopped")]
    Stopped,
}

/// Why a connection could not be made, or ended.
#[derive(Clone, Debug, Error)]
pub enum LinkError {
    /// The pool said why it ends the connection.
    #[error("{0}")]
    Goodbye(Goodbye),
    /// The TLS handshake failed: another certificate, another protocol version, no client certificate.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The connection broke, or none came about.
    #[error("{0}")]
    Transport(String),
    /// The pool did not answer in time.
    #[error("the pool does not answer")]
    Silent,
    /// The pool sent what no pool sends.
    #[error("the pool broke the protocol: {0}")]
    Protocol(&'static str),
    /// Bytes that are no frame, or a frame over the limit.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The pool takes no frames any more.
    #[error("the pool does not read")]
    Stuck,
    /// The pool that answers now would go on with a text otherwise than the one that began it.
    #[error("{0}")]
    OtherVerifier(VerifierChange),
    #[error("the connection was cut")]
    Cut,
    /// The emulated link is lost for a while.
    #[error("the link is out")]
    Outage,
}

impl LinkError {
    /// Whether the pool has a certificate that is not trusted.
    pub fn is_about_certificate(&self) -> bool {
        // The first text is rustls' own; an alert of the peer has another one.
        let texts = ["invalid peer certificate", NOT_PINNED];
        matches!(self, LinkError::Handshake(reason) if texts.iter().any(|text| reason.contains(text)))
    }

    /// Whether to connect again is pointless.
    pub fn is_final(&self) -> bool {
        match self {
            LinkError::Goodbye(goodbye) => goodbye.is_final(),
            LinkError::Handshake(_) => true,
            LinkError::Transport(_)
            | LinkError::Silent
            | LinkError::Protocol(_)
            | LinkError::Wire(_)
            | LinkError::Stuck
            // Another pool behind the same address may still have the verifier, and the next text may begin with this one.
            | LinkError::OtherVerifier(_)
            | LinkError::Cut
            | LinkError::Outage => false,
        }
    }
}

/// Why there is no way to the pool at all.
#[derive(Debug, Error)]
pub enum ConnectorError {
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// TLS cannot be set up with what was given.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A PEM file cannot be read.
    #[error("{}: {reason}", path.display())]
    Pem {
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
