//! Starting a pool, and the handle by which it is asked things and stopped.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter};
use quinn::{AsyncUdpSocket, Endpoint, VarInt};
use specfleet_engine::id::{PhaseId, VerifierId};
use specfleet_engine::pool::PoolSettings;
use specfleet_engine::record::VerifierRecord;
use specfleet_engine::time::Time;
use specfleet_engine::wire::{FrameLimits, Goodbye, Hello, NoPrecision, PROTOCOL_VERSION, VerifierIdentity, Welcome};
use specfleet_model::{KvArena, Model, ModelDigests, ModelShape, kernel_digest};
use specfleet_timer::Timer;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::door::{self, Carrier, Door};
use crate::error::PoolError;
use crate::message::{Drain, GetStatus, KillVerifier, NextPhase, StopPool};
use crate::options::PoolOptions;
use crate::pool_actor::{PoolActor, PoolParts};
use crate::replica::{Blueprint, Replica};
use crate::status::PoolStatus;
use crate::tls::{self, PoolIdentity};

/// How long connections get to end once the pool has sent them away: a little more than their tasks give devices for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A running pool. Clones are handles of the same one. Dropping them all leaves it running; only
/// [`shutdown`](Self::shutdown), or the end of the actix system, stops it.
#[derive(Clone)]
pub struct PoolHandle(Arc<PoolShared>);

struct PoolShared {
    pool: Addr<PoolActor>,
    endpoint: Endpoint,
    /// The thread of the front door and the pool actor.
    arbiter: Arbiter,
    address: SocketAddr,
    certificate: Vec<u8>,
    certificate_pem: String,
}

/// Starts a pool: binds its port, starts its verifiers and lets devices in. Must be called inside an actix system, which
/// has to outlive the pool; the pool's own threads are arbiters of that system.
///
/// Errors: a port that is in use, certificate files that cannot be read, settings that do not fit the model.
pub fn start(options: PoolOptions) -> StartingPool {
    Box::pin(begin(None, options))
}

/// The same over whatever carries datagrams; `listen` has no meaning.
pub fn start_over(socket: Arc<dyn AsyncUdpSocket>, options: PoolOptions) -> StartingPool {
    Box::pin(begin(Some(socket), options))
}

/// A pool that starts while it is awaited. It is boxed so that its code is compiled here, once: the body of an `async fn`
/// is compiled again in every crate that awaits it.
pub type StartingPool = Pin<Box<dyn Future<Output = Result<PoolHandle, PoolError>>>>;

async fn begin(socket: Option<Arc<dyn AsyncUdpSocket>>, options: PoolOptions) -> Result<PoolHandle, PoolError> {
    let arena_bytes = check(&options)?;
    let shape = options.model.shape().clone();
    let welcome = Welcome {
        protocol: PROTOCOL_VERSION,
        context: options.settings.context,
        verifier: identity_of(&options.model, &options.digests)?,
    };
    let identity = PoolIdentity::new(&options.tls)?;
    let config = door::server_config(&identity, options.idle_timeout)?;
    let carrier = match socket {
        Some(socket) => Carrier::Given(socket),
        None => Carrier::Udp(door::bind(options.listen.resolve()?)?),
    };
    let listen_error = |source| PoolError::Listen { address: options.listen.clone(), source };
    let address = carrier.local_addr().map_err(listen_error)?;

    let clock = options.clock.clone();
    let blueprint = Blueprint { model: options.model, arena_bytes, threads: options.threads, clock };
    let replicas: Result<Vec<Replica>, _> =
        (0..options.settings.replicas()).map(|_| Replica::start(&blueprint).map_err(PoolError::Thread)).collect();
    let parts = PoolParts {
        settings: options.settings,
        host: options.clock,
        shares_clock: options.shares_clock,
        most_guests: options.max_connections,
        blueprint,
        replicas: replicas?,
        clock: Timer::start().map_err(PoolError::Thread)?,
        events: options.events,
        journal: options.journal,
    };
    let arbiter = Arbiter::try_new().map_err(PoolError::Thread)?;
    let pool = PoolActor::start_in_arbiter(&arbiter.handle(), move |_| PoolActor::new(parts));
    let door = Arc::new(Door {
        pool: pool.clone(),
        // The vocabulary of any loadable model is far below `u32::MAX`: token ids are `u32`.
        ours: Hello {
            protocol: PROTOCOL_VERSION,
            tokenizer: options.tokenizer_digest,
            vocab: shape.vocab as u32,
            admission: options.admission,
        },
        welcome,
        limits: FrameLimits::for_pair(shape.vocab, shape.context),
        idle_timeout: options.idle_timeout,
        paces_refused: !options.shares_clock,
    });
    // The socket belongs to the thread that serves it.
    let (opened, endpoint) = oneshot::channel();
    arbiter.spawn(async move {
        let endpoint = door::open(carrier, config);
        let serving = endpoint.as_ref().ok().cloned();
        let _ = opened.send(endpoint);
        if let Some(endpoint) = serving {
            door::serve(endpoint, door).await;
        }
    });
    let endpoint = endpoint.await.map_err(|_| PoolError::Stopped)?.map_err(listen_error)?;
    Ok(PoolHandle(Arc::new(PoolShared {
        pool,
        endpoint,
        arbiter,
        address,
        certificate_pem: tls::to_pem(&identity.certificate),
        certificate: identity.certificate.to_vec(),
    })))
}

/// What the pool tells devices of its verifier.
fn identity_of(model: &Model, digests: &ModelDigests) -> Result<VerifierIdentity, PoolError> {
    let precision = model.precision().to_string();
    Ok(VerifierIdentity {
        model: digests.whole,
        weights: digests.weights,
        configuration: digests.configuration,
        precision: precision.try_into().map_err(|error: NoPrecision| PoolError::Settings(error.to_string()))?,
        kernels: kernel_digest().map_err(PoolError::Probe)?,
    })
}

/// Checks the settings against the model, and says how large an arena may grow.
fn check(options: &PoolOptions) -> Result<usize, PoolError> {
    let PoolSettings { verifiers, context, kv_tokens, sessions_per_connection, .. } = options.settings;
    let ModelShape { context: longest, kv_bytes_per_token, .. } = *options.model.shape();
    if verifiers == 0 {
        return Err(PoolError::Settings("a pool needs at least 1 verifier".to_owned()));
    }
    if kv_tokens == 0 {
        let reason = "the memory of pool.profile (memory_bytes × pool.memory_share) and model.verifier_kv_mebibytes leave \
                      no room for KV caches beside the verifier's weights";
        return Err(PoolError::Settings(reason.to_owned()));
    }
    if context as usize > longest {
        let reason = format!("a context of {context} tokens is beyond the verifier's {longest}");
        return Err(PoolError::Settings(reason));
    }
    let booked = usize::try_from(kv_tokens).unwrap_or(usize::MAX).saturating_mul(kv_bytes_per_token);
    if booked > options.kv_bytes {
        let bytes = options.kv_bytes;
        let reason = format!("{kv_tokens} tokens of KV cache take {booked} bytes, more than the {bytes} allowed");
        return Err(PoolError::Settings(reason));
    }
    // The machine's book counts tokens, the arena whole pages: each session may leave most of its last page unused.
    let mut probe = KvArena::new(&options.model, 0);
    let seq = probe.open();
    let page = probe.bytes_to_append(seq, 1);
    let sessions = options.max_connections.saturating_mul(sessions_per_connection as usize);
    let sessions = sessions.min(usize::try_from(kv_tokens).unwrap_or(usize::MAX));
    Ok(options.kv_bytes.saturating_add(sessions.saturating_mul(page)))
}

impl PoolHandle {
    /// Where the pool listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// The pool's certificate in DER, for devices to pin.
    pub fn certificate_der(&self) -> &[u8] {
        &self.0.certificate
    }

    /// The same in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.0.certificate_pem
    }

    /// Makes a verifier fail: in the middle of its batch if it has one, else at once. Returns when the pool has noticed
    /// and has started a fresh one in its place.
    pub async fn kill_verifier(&self, verifier: VerifierId) -> Result<(), PoolError> {
        let killed = self.ask(KillVerifier(verifier)).await??;
        killed.await.map_err(|_| PoolError::Stopped)
    }

    /// Ends the phase of one method and goes on with the method of this index. The accounts of the phase also come as
    /// events, behind all batches of the phase: record one or the other.
    pub async fn next_phase(&self, phase: PhaseId) -> Result<Vec<VerifierRecord>, PoolError> {
        self.next_phase_at(phase, None).await
    }

    /// The same at a time of the clock that the devices share with an emulated pool; nothing of the phase that ends may
    /// arrive later.
    pub async fn next_phase_at(&self, phase: PhaseId, at: Option<Time>) -> Result<Vec<VerifierRecord>, PoolError> {
        self.ask(NextPhase(phase, at)).await
    }

    /// What the pool is doing.
    pub async fn status(&self) -> Result<PoolStatus, PoolError> {
        self.ask(GetStatus).await
    }

    /// Stops: lets no connection in, refuses new uploads, answers those it has, says goodbye and closes, all within
    /// `deadline`; what is not done by then is cut off. The events must go on being taken meanwhile.
    pub async fn shutdown(&self, deadline: Duration) {
        let deadline = Instant::now() + deadline;
        let PoolShared { pool, endpoint, arbiter, .. } = &*self.0;
        endpoint.set_server_config(None);
        // Errors of each step are a pool that has stopped already, or the deadline; the next step follows either way.
        if let Ok(Ok(drained)) = timeout_at(deadline, pool.send(Drain)).await {
            let _ = timeout_at(deadline, drained).await;
        }
        let _ = timeout_at(deadline, pool.send(StopPool)).await;
        // Whoever had a place gets its farewell meanwhile. Handshakes are not waited for: strangers can keep some open for ever.
        let farewell = deadline.min(Instant::now() + FAREWELL);
        let _ = timeout_at(farewell, endpoint.wait_idle()).await;
        endpoint.close(VarInt::from_u32(Goodbye::Closing.code()), b"the pool is closing");
        arbiter.stop();
    }

    async fn ask<M>(&self, message: M) -> Result<M::Result, PoolError>
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        PoolActor: actix::Handler<M>,
        <PoolActor as Actor>::Context: actix::dev::ToEnvelope<PoolActor, M>,
    {
        self.0.pool.send(message).await.map_err(|_| PoolError::Stopped)
    }
}
