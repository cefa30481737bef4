//! From a scenario's settings to the pool's options.

use std::time::Duration;

use specfleet_config::Settings;
use specfleet_engine::pool::PoolSettings;
use specfleet_engine::time::Span;
use specfleet_engine::wire::AdmissionToken;
use specfleet_model::{Model, ModelDigests, useful_threads};
use specfleet_timer::HostClock;
use tokio::sync::mpsc;

use crate::options::{PoolEvent, PoolOptions, TlsOptions};

/// Connections that are let in beyond the fleet's own.
const GUESTS: usize = 16;

impl PoolOptions {
    /// The pool that a scenario describes, for this verifier: its whole context, its end tokens, as many tokens of KV cache
    /// as the scenario, and the memory in the pool's profile, have room for, and the cost of batches that it declares. One
    /// that comes from a calibration is up to the caller; until then batches are charged as measured.
    pub fn from_settings(
        settings: &Settings,
        (model, digests): (Model, ModelDigests),
        tokenizer_digest: [u8; 32],
        events: mpsc::Sender<PoolEvent>,
        clock: HostClock,
    ) -> PoolOptions {
        let pool = &settings.pool;
        let shape = model.shape();
        // More than `usize` is more than there is.
        let kv_bytes = usize::try_from(settings.verifier_kv_bytes(model.weight_bytes() as f64)).unwrap_or(usize::MAX);
        let machine = pool.machine(
            &settings.run,
            (kv_bytes / shape.kv_bytes_per_token) as u64,
            // A context beyond `u32` is longer than any token position.
            u32::try_from(shape.context).unwrap_or(u32::MAX),
            shape.eos.clone(),
        );
        PoolOptions {
            settings: PoolSettings { cost: pool.cost.declared(), ..machine },
            listen: pool.listen.clone(),
            tls: TlsOptions::from_settings(pool),
            model,
            kv_bytes,
            threads: useful_threads(settings.model.verifier_threads.into()),
            tokenizer_digest,
            digests,
            admission: AdmissionToken::NONE,
            idle_timeout: duration(pool.idle_timeout),
            max_connections: settings.run.devices as usize + GUESTS,
            events,
            clock,
            shares_clock: false,
            journal: None,
        }
    }
}

impl TlsOptions {
    /// The certificates that a scenario names.
    pub fn from_settings(pool: &specfleet_config::PoolSection) -> TlsOptions {
        match &pool.tls {
            None => TlsOptions::Development,
            Some(files) => TlsOptions::Pem {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                client_ca: files.client_authority.clone(),
            },
        }
    }
}

fn duration(span: Span) -> Duration {
    Duration::from_nanos(span.0)
}
