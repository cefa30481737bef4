//! A device written by hand: it says what a test tells it to say, however wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use specfleet_engine::id::UploadId;
use specfleet_engine::wire::{
    ALPN, AdmissionToken, ClientFrame, FrameDecoder, FrameLimits, Goodbye, Hello, PROTOCOL_VERSION, ServerFrame,
    Upload, VerdictFrame, Welcome, encode,
};
use specfleet_model::Model;

use super::world::{DIGEST, World};

/// How to connect.
pub(crate) struct Dial {
    pub(crate) alpn: Vec<u8>,
    /// Bytes that the pool may send before the client reads.
    pub(crate) window: u32,
    /// After how long without a word it says that it is still there.
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

impl Default for Dial {
    fn default() -> Self {
        Dial { alpn: ALPN.to_vec(), window: 1 << 20, keep_alive: Some(Duration::from_millis(50)), identity: None }
    }
}

/// A connection, perhaps with its stream.
pub(crate) struct Client {
    /// Drives the connection.
    _endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    frames: FrameDecoder<ServerFrame>,
    limits: FrameLimits,
}

pub(crate) fn hello(model: &Model) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        tokenizer: DIGEST,
        vocab: model.shape().vocab as u32,
        admission: AdmissionToken::NONE,
    }
}

/// Connects to `address`, trusting `certificate`, up to the end of the handshake.
pub(crate) async fn dial(
    address: SocketAddr,
    certificate: &[u8],
    dial: Dial,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let endpoint = caller(certificate, dial);
    let connection = endpoint.connect(address, "localhost").expect("an address").await?;
    Ok((endpoint, connection))
}

/// What connects, trusting `certificate`.
pub(crate) fn caller(certificate: &[u8], dial: Dial) -> Endpoint {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate.to_vec())).expect("a certificate");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut tls = match dial.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("a matching key"),
    };
    tls.alpn_protocols = vec![dial.alpn];
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(dial.window)).keep_alive_interval(dial.keep_alive);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    endpoint.set_default_client_config(config);
    endpoint
}

impl Client {
    /// Connects, opens the stream, and says nothing.
    pub(crate) async fn open(world: &World, how: Dial) -> Client {
        let (endpoint, connection) =
            dial(world.pool.local_addr(), world.pool.certificate_der(), how).await.expect("a handshake");
        Client::over(endpoint, connection, &world.model).await
    }

    /// Opens the stream of a connection.
    pub(crate) async fn over(endpoint: Endpoint, connection: Connection, model: &Model) -> Client {
        let (send, recv) = connection.open_bi().await.expect("a stream");
        let limits = FrameLimits::for_pair(model.shape().vocab, model.shape().context);
        Client { _endpoint: endpoint, connection, send, recv, frames: FrameDecoder::new(limits), limits }
    }

    /// Connects and is welcome.
    pub(crate) async fn connect(world: &World) -> Client {
        Client::connect_as(world, Dial::default()).await
    }

    /// The same, in another way.
    pub(crate) async fn connect_as(world: &World, how: Dial) -> Client {
        let mut client = Client::open(world, how).await;
        client.greet(hello(&world.model)).await;
        client
    }

    /// Says hello and is welcome.
    pub(crate) async fn greet(&mut self, hello: Hello) -> Welcome {
        self.say(&ClientFrame::Hello(hello)).await;
        match self.hear().await {
            Some(ServerFrame::Welcome(welcome)) => {
                assert_eq!(welcome.protocol, PROTOCOL_VERSION);
                welcome
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub(crate) fn encoded(&self, frame: &ClientFrame) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(frame, self.limits, &mut bytes).expect("within the limits");
        bytes
    }

    /// Sends a frame. A pool that has closed already does not mind.
    pub(crate) async fn say(&mut self, frame: &ClientFrame) {
        let bytes = self.encoded(frame);
        self.say_bytes(&bytes).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    pub(crate) async fn upload(&mut self, upload: &Upload) {
        self.say(&ClientFrame::Upload(Box::new(upload.clone()))).await;
    }

    /// The next frame; `None` at the end of the stream or the connection.
    pub(crate) async fn hear(&mut self) -> Option<ServerFrame> {
        loop {
            if let Some((frame, _)) = self.frames.next_frame().expect("a frame") {
                return Some(frame);
            }
            match self.recv.read_chunk(65_536, true).await {
                Ok(Some(chunk)) => self.frames.push(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next frame, which must be a verdict on `upload`.
    pub(crate) async fn verdict(&mut self, upload: UploadId) -> VerdictFrame {
        match self.hear().await {
            Some(ServerFrame::Verdict(verdict)) => {
                assert_eq!(verdict.upload, upload);
                *verdict
            }
            other => panic!("no verdict: {other:?}"),
        }
    }

    /// Everything that the pool still says, up to its goodbye; the code in its close frame must be the same.
    pub(crate) async fn goodbye(mut self) -> (Vec<ServerFrame>, Goodbye) {
        let mut said = Vec::new();
        while let Some(frame) = self.hear().await {
            said.push(frame);
        }
        let code = close_code(&self.connection).await;
        match said.pop() {
            Some(ServerFrame::Goodbye(goodbye)) => {
                assert_eq!(code, Some(goodbye.code()));
                (said, goodbye)
            }
            other => panic!("no goodbye but {other:?}, closed with {code:?}"),
        }
    }
}

/// The code with which the pool closes; `None` if the connection ends otherwise.
pub(crate) async fn close_code(connection: &Connection) -> Option<u32> {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner()).ok(),
        _ => None,
    }
}
