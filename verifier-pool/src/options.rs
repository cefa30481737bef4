//! What a pool is told when it starts, and what it tells while it runs.

use std::path::PathBuf;
use std::time::Duration;

use specfleet_config::HostPort;
use specfleet_engine::id::PhaseId;
use specfleet_engine::pool::{Input, Output, PoolSettings};
use specfleet_engine::record::{BatchRecord, VerifierRecord};
use specfleet_engine::time::Time;
use specfleet_engine::wire::AdmissionToken;
use specfleet_model::{Model, ModelDigests};
use specfleet_timer::HostClock;
use tokio::sync::mpsc;

/// Everything that [`crate::start`] needs.
pub struct PoolOptions {
    /// What the pool machine is told.
    pub settings: PoolSettings,
    /// Where to listen; port 0 takes a free one.
    pub listen: HostPort,
    /// Who the pool says it is, and whom it lets in.
    pub tls: TlsOptions,
    /// The verifier; replicas share its weights.
    pub model: Model,
    /// KV cache of each replica in bytes; must hold `settings.kv_tokens` tokens. The arena works in pages, so that it
    /// may take up to one page per session more.
    pub kv_bytes: usize,
    /// Threads of each replica.
    pub threads: usize,
    /// Digest of the tokenizer; devices must have the same.
    pub tokenizer_digest: [u8; 32],
    /// Digests of the verifier's files, which devices are told: one that began a text with another verifier does not go on
    /// with this one.
    pub digests: ModelDigests,
    /// What a device must know to be let in; [`AdmissionToken::NONE`] lets everybody in.
    pub admission: AdmissionToken,
    /// After how much silence a connection is gone. Keeping an idle connection alive is the device's job.
    pub idle_timeout: Duration,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Takes the records. While it is full, the whole pool waits; once its receiver is gone, records are dropped.
    pub events: mpsc::Sender<PoolEvent>,
    /// The host's clock, which starts with the run.
    pub clock: HostClock,
    /// Whether the devices' times are of that clock too. An emulated pool then goes by what they say of
    /// when things arrive; else by when they come.
    pub shares_clock: bool,
    /// Sees every call of the machine, for metrics and for replaying a live run; `None`: nobody does.
    pub journal: Option<PoolJournal>,
}

/// Is shown each call of the pool machine with its time and the outputs that it led to, on the pool's own thread.
pub type PoolJournal = Box<dyn FnMut(Time, PoolCall<'_>, &[Output]) + Send>;

/// A call of the pool machine.
#[derive(Clone, Copy, Debug)]
pub enum PoolCall<'a> {
    /// [`PoolMachine::new`](specfleet_engine::pool::PoolMachine::new), the first one.
    New,
    Handle(&'a Input),
    /// [`PoolMachine::next_phase`](specfleet_engine::pool::PoolMachine::next_phase) to this phase.
    NextPhase(PhaseId),
}

/// Where the pool's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsOptions {
    /// A self-signed certificate made at start, for `localhost`, `127.0.0.1` and `::1`. Devices pin it.
    Development,
    Pem {
        /// The certificate chain, leaf first.
        certificate: PathBuf,
        /// The private key of the leaf.
        key: PathBuf,
        /// Certificate authorities of the devices; `None` asks devices for no certificate.
        client_ca: Option<PathBuf>,
    },
}

/// A record of the running pool, for the ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PoolEvent {
    /// A batch is over.
    Batch(BatchRecord),
    /// A verifier's account of the phase that [`crate::PoolHandle::next_phase`] ended.
    Verifier(VerifierRecord),
}
