//! One connection to the pool: frames out through a bounded queue, frames in as they are asked for.

use std::time::Duration;

use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use specfleet_engine::wire::{
    ClientFrame, FrameDecoder, FrameLimits, Goodbye, Hello, ServerFrame, VerifierIdentity, encode, welcome_fits,
};
use tokio::sync::mpsc;

use crate::error::LinkError;

/// Frames that may wait to be written. A device has one upload under way, and with it at most a cancel, the close of its
/// session, and promises for a pool on its clock: a queue that is full belongs to a pool that has stopped reading.
const UNWRITTEN: usize = 64;

/// Room among them that is left to frames that say something new.
const KEPT_FREE: usize = 32;
/// Bytes asked of the stream at once.
const PIECE: usize = 16 * 1024;
/// QUIC error codes that carry a TLS alert.
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;
/// How long a graceful end waits for the pool's acknowledgement.
const GRACE: Duration = Duration::from_secs(2);

/// A connection that the pool has welcomed.
pub(crate) struct PoolConnection {
    pub(crate) verifier: VerifierIdentity,
    pub(crate) outgoing: FrameSender,
    pub(crate) incoming: Incoming,
}

/// The sending half. Dropping it ends the connection gracefully: what is queued still goes out.
pub(crate) struct FrameSender {
    connection: quinn::Connection,
    frames: mpsc::Sender<Vec<u8>>,
    limits: FrameLimits,
}

/// The receiving half. Nothing is read ahead of being asked for, so the stream's window is its bound.
pub(crate) struct Incoming {
    stream: RecvStream,
    decoder: FrameDecoder<ServerFrame>,
}

impl PoolConnection {
    /// Opens the stream and exchanges greetings.
    pub(crate) async fn greet(
        connection: quinn::Connection,
        hello: Hello,
        limits: FrameLimits,
    ) -> Result<PoolConnection, LinkError> {
        let (send, recv) = connection.open_bi().await?;
        let (frames, queue) = mpsc::channel(UNWRITTEN);
        tokio::spawn(write(connection.clone(), send, queue));
        let outgoing = FrameSender { connection, frames, limits };
        let mut incoming = Incoming { stream: recv, decoder: FrameDecoder::new(limits) };
        outgoing.send(&ClientFrame::Hello(hello))?;
        let welcome = match incoming.next().await? {
            (ServerFrame::Welcome(welcome), _) => welcome,
            (ServerFrame::Goodbye(goodbye), _) => return Err(LinkError::Goodbye(goodbye)),
            _ => return Err(LinkError::Protocol("its first frame is no welcome")),
        };
        welcome_fits(&welcome).map_err(LinkError::Goodbye)?;
        Ok(PoolConnection { verifier: welcome.verifier, outgoing, incoming })
    }
}

impl FrameSender {
    /// Queues a frame and returns its bytes on the wire.
    pub(crate) fn send(&self, frame: &ClientFrame) -> Result<u32, LinkError> {
        let mut bytes = Vec::new();
        let length = encode(frame, self.limits, &mut bytes)?;
        self.frames.try_send(bytes).map_err(|_| LinkError::Stuck)?;
        // The limit on frames lies far below the largest `u32`.
        Ok(u32::try_from(length).unwrap_or(u32::MAX))
    }

    /// Queues a frame that a later one makes up for, if there is plenty of room; whether it did.
    pub(crate) fn send_spare(&self, frame: &ClientFrame) -> bool {
        self.frames.capacity() > KEPT_FREE && self.send(frame).is_ok()
    }

    /// Ends the connection at once, whatever is queued.
    pub(crate) fn cut(&self) {
        self.connection.close(VarInt::from_u32(0), b"cut");
    }
}

impl Incoming {
    /// The next frame and its bytes on the wire.
    pub(crate) async fn next(&mut self) -> Result<(ServerFrame, usize), LinkError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            match self.stream.read_chunk(PIECE, true).await? {
                Some(piece) => self.decoder.push(&piece.bytes),
                None => {
                    self.decoder.finish()?;
                    return Err(LinkError::Transport("the pool has ended the stream".to_owned()));
                }
            }
        }
    }
}

/// Writes frames until the queue ends, then sees to it that the pool gets them. A broken connection shows on the reading
/// side.
async fn write(connection: quinn::Connection, mut stream: SendStream, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = queue.recv().await {
        let written: Result<(), WriteError> = stream.write_all(&frame).await;
        if written.is_err() {
            return;
        }
    }
    if stream.finish().is_ok() {
        // Resolves when everything is acknowledged; after the grace it is too late to mind.
        let _ = tokio::time::timeout(GRACE, stream.stopped()).await;
    }
    connection.close(VarInt::from_u32(0), b"done");
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> LinkError {
        match &error {
            ConnectionError::TransportError(e) if TLS_ALERTS.contains(&u64::from(e.code)) => {
                // What rustls puts before an error of ours says nothing.
                LinkError::Handshake(e.reason.trim_start_matches("other error: ").to_owned())
            }
            ConnectionError::ConnectionClosed(close) if TLS_ALERTS.contains(&u64::from(close.error_code)) => {
                LinkError::Handshake(error.to_string())
            }
            // The pool's last frame may be lost with the connection: its code says the same.
            ConnectionError::ApplicationClosed(close) => match goodbye_of(close.error_code.into_inner()) {
                Some(goodbye) => LinkError::Goodbye(goodbye),
                None => LinkError::Transport(error.to_string()),
            },
            ConnectionError::TimedOut => LinkError::Silent,
            _ => LinkError::Transport(error.to_string()),
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> LinkError {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            _ => LinkError::Transport(error.to_string()),
        }
    }
}

/// The reason behind an application error code. `Protocol` is left out: its code does not tell the versions.
fn goodbye_of(code: u64) -> Option<Goodbye> {
    [
        Goodbye::Tokenizer,
        Goodbye::Stranger,
        Goodbye::OutOfOrder,
        Goodbye::Malformed,
        Goodbye::Silent,
        Goodbye::SlowReader,
        Goodbye::Full,
        Goodbye::Closing,
        Goodbye::Idle,
        Goodbye::SlowWriter,
    ]
    .into_iter()
    .find(|goodbye| u64::from(goodbye.code()) == code)
}
