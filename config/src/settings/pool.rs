//! `[pool]`: the verifier pool, its bounds and its front door.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use specfleet_engine::device::energy::VerifierProfile;
use specfleet_engine::time::Span;

use crate::ConfigError;
use crate::profile;
use crate::read::Section;

/// The pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolOptions {
    /// Most tokens fed in one batch.
    pub batch_tokens: u32,
    /// Most sequences in one batch.
    pub batch_sequences: u32,
    /// How long an idle verifier waits for more jobs after the first; 0 starts at once.
    pub max_wait: Span,
    /// Most jobs in the queue.
    pub queue_jobs: u32,
    /// Most tokens of work in the queue.
    pub queue_tokens: u64,
    /// Most sessions that one connection may have open.
    pub sessions_per_connection: u32,
    /// What a refused device is told to wait.
    pub retry_after: Span,
    /// How long a connection may be silent before it is closed and its KV memory freed.
    pub idle_timeout: Span,
    /// How long a shutdown may take to drain.
    pub shutdown_timeout: Span,
    /// Where the front door listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Sockets that the fleet's connections are spread over, each with a task of its own.
    pub endpoints: u16,
    /// Power of one replica.
    pub profile: VerifierProfile,
    /// PEM files; without them a development certificate is made at start and pinned by the fleet.
    /// Not part of the canonical text: no result depends on it.
    #[serde(skip)]
    pub tls: Option<TlsFiles>,
}

/// PEM files of the front door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that client certificates must come from; none asks for no client certificate.
    pub client_authority: Option<PathBuf>,
}

impl PoolOptions {
    pub(super) fn read(section: &Section<'_>) -> Result<PoolOptions, ConfigError> {
        Ok(PoolOptions {
            batch_tokens: section.integer("batch_tokens", 1..=1_048_576, 512)?,
            batch_sequences: section.integer("batch_sequences", 1..=65_536, 64)?,
            max_wait: section.millis("max_wait_ms", 0.0..=10_000.0, 1.0)?,
            queue_jobs: section.integer("queue_jobs", 1..=16_777_216, 4_096)?,
            queue_tokens: section.integer("queue_tokens", 1..=1 << 40, 262_144)?,
            sessions_per_connection: section.integer("sessions_per_connection", 1..=65_536, 8)?,
            retry_after: section.millis("retry_after_ms", 1.0..=600_000.0, 20.0)?,
            idle_timeout: section.seconds("idle_timeout_seconds", 0.05..=86_400.0, 5.0)?,
            shutdown_timeout: section.seconds("shutdown_timeout_seconds", 0.0..=3_600.0, 5.0)?,
            listen: listen(section)?,
            endpoints: section.integer("endpoints", 1..=64, 1)?,
            profile: profile::verifier(section, "profile", "host-cpu")?,
            tls: tls(&section.section("tls")?)?,
        })
    }
}

fn listen(section: &Section<'_>) -> Result<SocketAddr, ConfigError> {
    let text = section.opt_text("listen")?.unwrap_or("127.0.0.1:0");
    text.parse().map_err(|_| {
        section.conflict("listen", format!("{text:?} is no address; use ADDRESS:PORT, such as 0.0.0.0:4433"))
    })
}

fn tls(section: &Section<'_>) -> Result<Option<TlsFiles>, ConfigError> {
    let certificate = section.opt_path("certificate")?;
    let key = section.opt_path("key")?;
    let client_authority = section.opt_path("client_authority")?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key, client_authority })),
        (None, None) if client_authority.is_none() => Ok(None),
        (None, _) => Err(section.missing("certificate", "a PEM file with the server's certificate chain".into())),
        (Some(_), None) => Err(section.missing("key", "a PEM file with the certificate's private key".into())),
    }
}
