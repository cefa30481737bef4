//! One connection, from its handshake to its farewell. Whatever a peer does ends this task alone, with a typed reason.

use std::cell::Cell;
use std::time::Duration;

use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use specfleet_engine::id::ConnectionId;
use specfleet_engine::wire::{ClientFrame, FrameDecoder, FrameLimits, Goodbye, Refusals, ServerFrame, encode, greet};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::door::Door;
use crate::message::{Connected, ConnectionHandle, Disconnected, FromDevice, Request};
use crate::upload::checked_kind;

/// Frames that may wait for a device.
const QUEUE: usize = 64;

/// Most bytes taken from a stream at a time.
const PIECE: usize = 64 * 1024;

/// How long a frame that was begun may take to be complete, and how long a device may take none of what it is sent. The longest
/// frames have a few megabytes, and an honest device that writes or reads as slowly as this is of no use to anybody.
const FRAME_TIME: Duration = Duration::from_secs(20);

/// How long a device gets to shake hands and greet, whatever it may be silent for later.
const GREETING: Duration = Duration::from_secs(10);

/// How long a device gets to take its last frames.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a connection is over.
enum ConnectionEnd {
    /// The pool ends it.
    Goodbye(Goodbye),
    /// The device has finished its stream.
    Finished,
    /// The connection is lost, or the device closed it.
    Lost,
}

/// Serves a device until one side ends it. `handshake` is given back when the device has got its place, or none.
pub(crate) async fn serve(incoming: Incoming, handshake: OwnedSemaphorePermit, id: ConnectionId, door: &Door) {
    let deadline = Instant::now() + door.idle_timeout.min(GREETING);
    let Some(connection) = shake_hands(incoming, deadline).await else { return };
    let (number, remote) = (id.0, connection.remote_address());
    let (send, recv) = match timeout_at(deadline, connection.accept_bi()).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => {
            info!(connection = number, %remote, %error, "ended without a word");
            return;
        }
        Err(_) => {
            info!(connection = number, %remote, goodbye = %Goodbye::Silent, "turned away");
            return close(&connection, Goodbye::Silent);
        }
    };
    let mut outgoing = FrameWriter { send, limits: door.limits, buffer: Vec::new(), written: 0 };
    let mut incoming = FrameReader { recv, frames: FrameDecoder::new(door.limits) };
    let ending = match timeout_at(deadline, incoming.next()).await {
        Err(_) => ConnectionEnd::Goodbye(Goodbye::Silent),
        Ok(Err(ending)) => ending,
        Ok(Ok(first)) => match greet(&door.ours, &first) {
            Err(goodbye) => {
                warn!(connection = number, %remote, %goodbye, "handshake refused");
                ConnectionEnd::Goodbye(goodbye)
            }
            Ok(()) => match enter(id, door).await {
                Err(goodbye) => ConnectionEnd::Goodbye(goodbye),
                Ok(entered) => {
                    drop(handshake);
                    info!(connection = number, %remote, "connected");
                    outgoing.add(&ServerFrame::Welcome(door.welcome.clone()));
                    let (ending, waiting) = converse(&mut incoming, &mut outgoing, id, door, entered).await;
                    waiting.iter().for_each(|frame| outgoing.add(frame));
                    ending
                }
            },
        },
    };
    match ending {
        ConnectionEnd::Lost => info!(connection = number, %remote, "lost"),
        ConnectionEnd::Finished => {
            debug!(connection = number, %remote, "finished");
            connection.close(VarInt::from_u32(0), b"");
        }
        ConnectionEnd::Goodbye(goodbye) => {
            info!(connection = number, %remote, %goodbye, "sent away");
            outgoing.add(&ServerFrame::Goodbye(goodbye));
            // Best effort: the reason is in the close frame too.
            let _ = timeout(FAREWELL, outgoing.finish()).await;
            close(&connection, goodbye);
        }
    }
}

async fn shake_hands(incoming: Incoming, deadline: Instant) -> Option<Connection> {
    // The error is a peer that is gone, or one that TLS turned away and told so: wrong ALPN, no or bad certificate.
    let remote = incoming.remote_address();
    match timeout_at(deadline, incoming.accept().ok()?).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            warn!(%remote, %error, "handshake failed");
            None
        }
        Err(_) => {
            info!(%remote, "handshake took too long");
            None
        }
    }
}

fn close(connection: &Connection, goodbye: Goodbye) {
    connection.close(VarInt::from_u32(goodbye.code()), goodbye.to_string().as_bytes());
}

/// Says `Disconnected` when it goes, whatever ends the task.
struct Registered<'a> {
    door: &'a Door,
    connection: ConnectionId,
}

impl Drop for Registered<'_> {
    #[expect(clippy::disallowed_methods, reason = "one message per connection: bounded by the number of connections")]
    fn drop(&mut self) {
        self.door.pool.do_send(Disconnected(self.connection));
    }
}

/// The connection's ends of what the pool holds of it.
struct Entered<'a> {
    queue: mpsc::Receiver<ServerFrame>,
    ended: oneshot::Receiver<Goodbye>,
    registered: Registered<'a>,
}

/// Asks the pool for a place.
async fn enter(connection: ConnectionId, door: &Door) -> Result<Entered<'_>, Goodbye> {
    let (frames, queue) = mpsc::channel(QUEUE);
    let (end, ended) = oneshot::channel();
    let entered = door.pool.send(Connected(connection, ConnectionHandle { frames, end })).await;
    entered.unwrap_or(Err(Goodbye::Closing))?;
    Ok(Entered { queue, ended, registered: Registered { door, connection } })
}

/// Carries frames both ways until something ends it; returns the frames that still wait for the device.
async fn converse(
    incoming: &mut FrameReader,
    outgoing: &mut FrameWriter,
    connection: ConnectionId,
    door: &Door,
    Entered { mut queue, mut ended, registered }: Entered<'_>,
) -> (ConnectionEnd, Vec<ServerFrame>) {
    let refusals = Cell::new(Refusals::default());
    let ending = tokio::select! {
        // In this order, so that what the pool decides comes before what the device does because of it.
        biased;
        goodbye = &mut ended => ConnectionEnd::Goodbye(goodbye.unwrap_or(Goodbye::Closing)),
        ending = incoming.read_all(connection, door, &refusals) => ending,
        ending = outgoing.write_all(&mut queue, &refusals) => ending,
    };
    // At once, and not after a farewell that takes its time.
    drop(registered);
    let mut waiting = Vec::new();
    while let Ok(frame) = queue.try_recv() {
        waiting.push(frame);
    }
    (ending, waiting)
}

/// The device's half of the stream.
struct FrameReader {
    recv: RecvStream,
    frames: FrameDecoder<ClientFrame>,
}

impl FrameReader {
    /// Hands every frame to the pool, one at a time: the next is read when the pool's machine has been told of the last.
    async fn read_all(&mut self, connection: ConnectionId, door: &Door, refusals: &Cell<Refusals>) -> ConnectionEnd {
        loop {
            let mut so_far = refusals.get();
            if let Some(pause) = so_far.take_pause().filter(|_| door.paces_refused) {
                refusals.set(so_far);
                tokio::time::sleep(Duration::from_nanos(pause.0)).await;
            }
            let request = match self.next().await {
                Err(ending) => return ending,
                Ok(ClientFrame::Hello(_)) => return ConnectionEnd::Goodbye(Goodbye::OutOfOrder),
                Ok(ClientFrame::Upload(upload)) => {
                    let kind = checked_kind(&upload, door.ours.vocab as usize);
                    Request::Upload(upload, kind)
                }
                Ok(ClientFrame::Cancel { session, upload, at }) => Request::Cancel { session, upload, at },
                Ok(ClientFrame::Promise { device, until, after_answer }) => {
                    Request::Promise { device, until, after_answer }
                }
                Ok(ClientFrame::Close { session, at }) => Request::Close { session, at },
            };
            if door.pool.send(FromDevice(connection, request)).await.is_err() {
                return ConnectionEnd::Goodbye(Goodbye::Closing);
            }
        }
    }

    /// The next frame. One of which a part is here must be complete within [`FRAME_TIME`].
    async fn next(&mut self) -> Result<ClientFrame, ConnectionEnd> {
        // It counts from here: while the pool takes its time over the frame before, nothing is read, and what has come of the
        // next one meanwhile is not late.
        let mut limit = None;
        loop {
            match self.frames.next_frame() {
                Ok(Some((frame, _))) => return Ok(frame),
                Ok(None) => {}
                Err(_) => return Err(ConnectionEnd::Goodbye(Goodbye::Malformed)),
            }
            if self.frames.is_within_frame() {
                limit.get_or_insert_with(|| Instant::now() + FRAME_TIME);
            }
            let read = self.recv.read_chunk(PIECE, true);
            let read = match limit {
                None => read.await,
                Some(limit) => {
                    timeout_at(limit, read).await.map_err(|_| ConnectionEnd::Goodbye(Goodbye::SlowWriter))?
                }
            };
            match read {
                Ok(Some(chunk)) => self.frames.push(&chunk.bytes),
                Ok(None) => {
                    let whole = self.frames.finish().is_ok();
                    return Err(if whole {
                        ConnectionEnd::Finished
                    } else {
                        ConnectionEnd::Goodbye(Goodbye::Malformed)
                    });
                }
                Err(_) => return Err(ConnectionEnd::Lost),
            }
        }
    }
}

/// The pool's half of the stream. Knows how much of a frame is written, so that a farewell can follow at any time.
struct FrameWriter {
    send: SendStream,
    limits: FrameLimits,
    buffer: Vec<u8>,
    written: usize,
}

impl FrameWriter {
    /// Writes every frame that comes through the queue.
    async fn write_all(&mut self, queue: &mut mpsc::Receiver<ServerFrame>, refusals: &Cell<Refusals>) -> ConnectionEnd {
        loop {
            if let Err(ending) = self.flush().await {
                return ending;
            }
            match queue.recv().await {
                Some(frame) => {
                    let mut so_far = refusals.get();
                    match &frame {
                        ServerFrame::Refused { retry_after, .. } => so_far.refused(*retry_after),
                        ServerFrame::Verdict(_) => so_far.answered(),
                        ServerFrame::Welcome(_) | ServerFrame::Goodbye(_) => {}
                    }
                    refusals.set(so_far);
                    self.add(&frame);
                }
                // The pool has let go of this connection and says why on the other channel.
                None => std::future::pending().await,
            }
        }
    }

    /// Puts a frame behind those that are not written yet.
    fn add(&mut self, frame: &ServerFrame) {
        // The limit holds a block of whole distributions, and a verdict has one at most.
        let _ = encode(frame, self.limits, &mut self.buffer);
    }

    /// Writes what there is. Cancelling it loses nothing: each write reports what it took.
    async fn flush(&mut self) -> Result<(), ConnectionEnd> {
        while self.written < self.buffer.len() {
            let write = timeout(FRAME_TIME, self.send.write(&self.buffer[self.written..]));
            let written = write.await.map_err(|_| ConnectionEnd::Goodbye(Goodbye::SlowReader))?;
            self.written += written.map_err(|_| ConnectionEnd::Lost)?;
        }
        self.buffer.clear();
        self.written = 0;
        Ok(())
    }

    /// Writes what there is, ends the stream and waits until the device has it all.
    async fn finish(&mut self) -> Result<(), ConnectionEnd> {
        self.flush().await?;
        if self.send.finish().is_ok() {
            // The error is a connection that is gone.
            let _ = self.send.stopped().await;
        }
        Ok(())
    }
}
