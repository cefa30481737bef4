//! The front door: the UDP socket, QUIC's limits, and the loop that lets connections in.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, Incoming, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use specfleet_engine::id::ConnectionId;
use specfleet_engine::wire::{FirstAnswer, FrameLimits, Hello, MOST_HANDSHAKES, Welcome, first_answer};
use tokio::sync::Semaphore;

use crate::connection;
use crate::error::PoolError;
use crate::pool_actor::PoolActor;
use crate::tls::PoolIdentity;

/// The most that a device may have under way to the pool, and the pool to a device, in bytes. A frame may be longer: it
/// is taken in as it comes.
const WINDOW: u32 = 256 * 1024;

/// First packets that may wait for their answer; more of them are refused without a word.
const UNANSWERED: usize = 1024;

/// Bytes of early packets kept for connections that are not accepted yet: of one, and of all.
const EARLY_BYTES: (u64, u64) = (64 * 1024, 16 * 1024 * 1024);

/// What every connection task needs.
pub(crate) struct Door {
    pub(crate) pool: Addr<PoolActor>,
    /// What the pool would say in the place of a device.
    pub(crate) ours: Hello,
    /// What it says to those that it lets in.
    pub(crate) welcome: Welcome,
    pub(crate) limits: FrameLimits,
    pub(crate) idle_timeout: Duration,
    /// Whether connections whose uploads are refused again and again are read more slowly. Devices that share the pool's clock
    /// send ahead of time and retry by that clock, so they are not.
    pub(crate) paces_refused: bool,
}

/// What carries datagrams to and from the pool.
pub(crate) enum Carrier {
    /// A port of this machine, not yet driven by a thread.
    Udp(UdpSocket),
    /// Something that was there already.
    Given(Arc<dyn AsyncUdpSocket>),
}

impl Carrier {
    /// Where devices reach the pool.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Carrier::Udp(socket) => socket.local_addr(),
            Carrier::Given(socket) => socket.local_addr(),
        }
    }
}

pub(crate) fn bind(address: SocketAddr) -> Result<UdpSocket, PoolError> {
    UdpSocket::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => PoolError::PortInUse { address },
        _ => PoolError::Listen { address: address.into(), source },
    })
}

/// QUIC over the pool's identity, with every buffer bounded.
pub(crate) fn server_config(identity: &PoolIdentity, idle_timeout: Duration) -> Result<ServerConfig, PoolError> {
    let idle = IdleTimeout::try_from(idle_timeout)
        .map_err(|_| PoolError::Settings(format!("an idle timeout of {idle_timeout:?} is longer than QUIC can say")))?;
    let mut transport = TransportConfig::default();
    transport
        // The device opens the only stream.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle))
        // Devices keep their connections alive; one that does not is gone.
        .keep_alive_interval(None);
    let mut config = ServerConfig::with_crypto(identity.crypto.clone());
    config
        .transport_config(Arc::new(transport))
        .max_incoming(UNANSWERED)
        .incoming_buffer_size(EARLY_BYTES.0)
        .incoming_buffer_size_total(EARLY_BYTES.1);
    Ok(config)
}

/// Opens the door. Call on the thread that will run it.
pub(crate) fn open(carrier: Carrier, config: ServerConfig) -> io::Result<Endpoint> {
    let socket = match carrier {
        Carrier::Udp(socket) => TokioRuntime.wrap_udp_socket(socket)?,
        Carrier::Given(socket) => socket,
    };
    Endpoint::new_with_abstract_socket(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
}

/// Lets connections in, one task each, until the endpoint is closed.
pub(crate) async fn serve(endpoint: Endpoint, door: Arc<Door>) {
    // A handshake takes no place of the pool: those are for connections that have greeted.
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    let mut next = 0;
    while let Some(incoming) = endpoint.accept().await {
        let under_way = MOST_HANDSHAKES - handshakes.available_permits();
        match first_answer(under_way, incoming.remote_address_validated()) {
            FirstAnswer::ProveAddress => {
                // QUIC's retry packet; the error is a newcomer that has proven its address already.
                let _ = Incoming::retry(incoming);
            }
            FirstAnswer::Refusal => incoming.refuse(),
            FirstAnswer::Handshake => {
                let Ok(handshake) = handshakes.clone().try_acquire_owned() else { continue };
                let connection = ConnectionId(next);
                next += 1;
                let door = door.clone();
                actix::spawn(async move { connection::serve(incoming, handshake, connection, &door).await });
            }
        }
    }
}
