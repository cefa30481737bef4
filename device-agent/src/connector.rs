//! The way to the pool: QUIC endpoints of this process, the pool's address, and whom to believe.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
};
use specfleet_engine::id::DeviceId;
use specfleet_engine::wire::{FrameLimits, Hello};

use crate::connection::PoolConnection;
use crate::error::{ConnectorError, LinkError};
use crate::tls::{self, ServerIdentity, Trust};

/// Bytes of the pool's frames that may be under way unread; longer frames arrive in pieces.
const RECEIVE_WINDOW: u32 = 64 * 1024;
/// Bytes of our frames that may be under way without acknowledgement; the writer waits beyond.
const SEND_WINDOW: u64 = 256 * 1024;

/// How to reach a pool.
#[derive(Debug)]
pub struct ConnectorOptions {
    pub server: SocketAddr,
    /// Its name, as in its certificate; without meaning for a pinned one.
    pub server_name: String,
    /// Which certificate it may have.
    pub trust: Trust,
    /// The device's own certificate, if the pool asks for one.
    pub identity: Option<ServerIdentity>,
    /// Local endpoints to divide the connections among: each is driven by one task and one socket, so a fleet wants one
    /// for about every hundred devices.
    pub endpoints: usize,
    /// A connection that stays silent for so long is lost; ours never does, because keep-alives go out four times as
    /// often.
    pub idle_timeout: Duration,
    /// Bounds on frames, from the model pair.
    pub limits: FrameLimits,
}

/// The client endpoints of a process; cloning shares them.
#[derive(Clone, Debug)]
pub struct Connector(Arc<ConnectorInner>);

#[derive(Debug)]
struct ConnectorInner {
    endpoints: Vec<Endpoint>,
    config: ClientConfig,
    server: SocketAddr,
    server_name: String,
    idle_timeout: Duration,
    limits: FrameLimits,
}

impl Connector {
    /// Opens the endpoints, over UDP. They are driven by the tokio runtime that this is called on.
    pub fn new(options: ConnectorOptions) -> Result<Connector, ConnectorError> {
        let local: SocketAddr = match options.server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoints = (0..options.endpoints.max(1)).map(|_| Endpoint::client(local)).collect();
        Connector::with(endpoints, options)
    }

    /// The same over whatever carries datagrams: one endpoint for each of `sockets`, at least one; `endpoints` has no
    /// meaning.
    pub fn over(sockets: Vec<Arc<dyn AsyncUdpSocket>>, options: ConnectorOptions) -> Result<Connector, ConnectorError> {
        let endpoint = |socket| {
            Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
        };
        Connector::with(sockets.into_iter().map(endpoint).collect(), options)
    }

    fn with(endpoints: io::Result<Vec<Endpoint>>, options: ConnectorOptions) -> Result<Connector, ConnectorError> {
        let ConnectorOptions { server, server_name, trust, identity, endpoints: _, idle_timeout, limits } = options;
        let endpoints = endpoints.map_err(ConnectorError::Socket)?;
        if endpoints.is_empty() {
            return Err(ConnectorError::Socket(io::Error::other("none was given")));
        }
        let crypto = QuicClientConfig::try_from(tls::client_config(trust, identity)?)
            .map_err(|e| ConnectorError::Tls(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport(idle_timeout)?));
        Ok(Connector(Arc::new(ConnectorInner { endpoints, config, server, server_name, idle_timeout, limits })))
    }

    /// Waits until the pool has been told of every closed connection (or does not answer).
    pub async fn drain(&self) {
        for endpoint in &self.0.endpoints {
            endpoint.wait_idle().await;
        }
    }

    /// One connection for this device, greeted by the pool.
    pub(crate) async fn connect(&self, device: DeviceId, hello: Hello) -> Result<PoolConnection, LinkError> {
        let ConnectorInner { endpoints, config, server, server_name, idle_timeout, limits } = &*self.0;
        let endpoint = &endpoints[device.0 as usize % endpoints.len()];
        let connecting = endpoint
            .connect_with(config.clone(), *server, server_name)
            .map_err(|e| LinkError::Transport(e.to_string()))?;
        let greeting = async { PoolConnection::greet(connecting.await?, hello, *limits).await };
        // Keep-alives hold up the connection of a pool that never answers the greeting: bound that too.
        tokio::time::timeout((*idle_timeout * 2).min(GREETING), greeting).await.unwrap_or(Err(LinkError::Silent))
    }
}

/// Longest wait for a pool's answer to a greeting.
const GREETING: Duration = Duration::from_secs(20);

fn transport(idle_timeout: Duration) -> Result<TransportConfig, ConnectorError> {
    let idle = IdleTimeout::try_from(idle_timeout)
        .map_err(|_| ConnectorError::Tls(format!("an idle timeout of {idle_timeout:?} is too long")))?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(idle_timeout / 4))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        // The device opens the only stream; the pool may open none and send no datagrams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    Ok(transport)
}
