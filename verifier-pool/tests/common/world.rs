//! A pool to test, in an actix system of its own.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use specfleet_config::HostPort;
use specfleet_engine::device::energy::VerifierProfile;
use specfleet_engine::id::PhaseId;
use specfleet_engine::pool::PoolSettings;
use specfleet_engine::time::Span;
use specfleet_engine::wire::AdmissionToken;
use specfleet_model::{Embedded, Model, ModelDigests};
use specfleet_timer::HostClock;
use tokio::sync::mpsc;
use verifier_pool::{PoolEvent, PoolHandle, PoolOptions, PoolStatus, TlsOptions};

pub(crate) const DIGEST: [u8; 32] = [42; 32];

/// The longest that any test may take; a hanging one fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test inside an actix system.
pub(crate) fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// A running pool and its records so far.
pub(crate) struct World {
    pub(crate) pool: PoolHandle,
    pub(crate) model: Model,
    events: Arc<Mutex<Vec<PoolEvent>>>,
}

impl World {
    /// A pool of one verifier that starts batches at once, changed by `change`.
    pub(crate) async fn start(model: Model, change: impl FnOnce(&mut PoolOptions)) -> World {
        let (events, mut records) = mpsc::channel(16);
        let mut options = options(model.clone(), events);
        change(&mut options);
        let pool = verifier_pool::start(options).await.expect("the pool starts");
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        actix::spawn(async move {
            while let Some(record) = records.recv().await {
                keep.lock().expect("no panic").push(record);
            }
        });
        World { pool, model, events: kept }
    }

    pub(crate) fn events(&self) -> Vec<PoolEvent> {
        self.events.lock().expect("no panic").clone()
    }

    pub(crate) async fn status(&self) -> PoolStatus {
        self.pool.status().await.expect("the pool runs")
    }

    /// Waits until the pool is as `wanted` says.
    pub(crate) async fn until(&self, wanted: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until no connection has left anything behind.
    pub(crate) async fn until_empty(&self) {
        self.until(|s| s.connections == 0 && s.sessions == 0 && s.kv.iter().all(|kv| kv.sequences == 0)).await;
    }

    /// Ends the pool; nothing may hang.
    pub(crate) async fn stop(self) {
        self.pool.shutdown(Duration::from_secs(5)).await;
    }
}

pub(crate) fn options(model: Model, events: mpsc::Sender<PoolEvent>) -> PoolOptions {
    let shape = model.shape();
    let kv_tokens = 4096;
    PoolOptions {
        settings: PoolSettings {
            phase: PhaseId::default(),
            verifiers: 1,
            batch_tokens: 512,
            batch_sequences: 16,
            max_wait: Span::ZERO,
            batch_time: Span::ZERO,
            order: specfleet_engine::pool::QueueOrder::Fifo,
            breaker: specfleet_engine::pool::Breaker { failures: 0, cooldown: Span::ZERO },
            price: specfleet_engine::pool::PriceUpdate { step: 0.0, target_load: 1.0, period: Span::from_millis(100) },
            autoscale: None,
            queue_jobs: 256,
            queue_tokens: 16_384,
            sessions_per_connection: 4,
            kv_tokens,
            context: shape.context as u32,
            end_tokens: Vec::new(),
            retry_after: Span::from_millis(5),
            cost: None,
            profile: VerifierProfile {
                name: "test".to_owned(),
                source: "declared by this test".to_owned(),
                batch_watts: 10.0,
                idle_watts: 1.0,
            },
        },
        listen: HostPort::loopback(0),
        tls: TlsOptions::Development,
        kv_bytes: kv_tokens as usize * shape.kv_bytes_per_token,
        threads: 1,
        tokenizer_digest: DIGEST,
        digests: ModelDigests::embedded(Embedded::Verifier),
        idle_timeout: Duration::from_secs(5),
        max_connections: 32,
        events,
        clock: HostClock::start().expect("threads can be started"),
        shares_clock: false,
        admission: AdmissionToken::NONE,
        journal: None,
        model,
    }
}
