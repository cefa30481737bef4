//! Everything that can go wrong, each message naming the file, address or setting at fault and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use specfleet_config::{AddressError, HostPort};
use specfleet_engine::id::VerifierId;
use specfleet_model::ModelError;

/// Why the pool did not start, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// Another process has the port.
    #[error("{address} is in use by another process; stop it, or listen on another port (port 0 takes a free one)")]
    PortInUse { address: SocketAddr },
    /// No address is known for the name that it should listen at.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: HostPort,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate or key file cannot be read or holds something else.
    #[error("{}: {reason}; expected {expected} in PEM", path.display())]
    Pem {
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates do not work together, or none could be made.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// Settings that do not fit each other or the model.
    #[error("{0}")]
    Settings(String),
    /// The probe of what this machine computes failed.
    #[error("the probe of this machine's kernels failed: {0}")]
    Probe(#[source] ModelError),
    /// The operating system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// There is no such verifier.
    #[error("there is no verifier {}, the pool has {count}", verifier.0)]
    UnknownVerifier {
        /// The one asked for.
        verifier: VerifierId,
        /// How many there are.
        count: usize,
    },
    /// The pool has been shut down.
    #[error("the pool has stopped")]
    Stopped,
}
