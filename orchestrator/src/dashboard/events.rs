//! Server-sent events: one message for all open pages, and pages that do not read are cut off.

use std::any::Any;
use std::convert::Infallible;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Extensions;
use actix_web::web::Bytes;
use tokio::sync::mpsc;

use super::refusal::PageRefusal;

/// Most open pages that listen.
pub(super) const CLIENTS: usize = 32;

/// Messages that wait for one page: some seconds' worth.
const WAITING: usize = 16;

/// What starts every stream: the browser comes back after two seconds if it breaks.
const HELLO: &[u8] = b"retry: 2000\n\n";

/// What keeps a stream alive, and finds out that its page has gone.
pub(super) const HEARTBEAT: &[u8] = b": still here\n\n";

/// An event as it goes over the wire. `data` may have several lines.
pub(super) fn frame(event: &str, data: &str) -> Bytes {
    let mut text = format!("event: {event}\n");
    for line in data.lines() {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

pub(super) struct Hub {
    inner: Mutex<HubState>,
    /// Wakes the one who looks for news: a page has come, or it is over.
    wake: SyncSender<()>,
}

#[derive(Default)]
struct HubState {
    clients: Vec<Client>,
    /// The last message of each kind, for pages that come later.
    last: Vec<(&'static str, Bytes)>,
    closed: bool,
}

struct Client {
    sender: mpsc::Sender<Bytes>,
    connection: Option<OpenPage>,
}

/// A second handle on a page's connection, to end it from outside: the server itself waits for its page to read.
#[derive(Clone, Debug)]
pub(super) struct OpenPage(Arc<TcpStream>);

/// Keeps a handle on each connection beside it (called by the server for each that it accepts).
pub(super) fn remember_connection(io: &dyn Any, extensions: &mut Extensions) {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        if let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>()
            && let Ok(handle) = stream.as_fd().try_clone_to_owned()
        {
            extensions.insert(OpenPage(Arc::new(TcpStream::from(handle))));
        }
    }
    #[cfg(windows)]
    {
        use std::os::windows::io::AsSocket;
        if let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>()
            && let Ok(handle) = stream.as_socket().try_clone_to_owned()
        {
            extensions.insert(OpenPage(Arc::new(TcpStream::from(handle))));
        }
    }
}

impl Hub {
    /// A hub without pages, and what wakes its watcher.
    pub(super) fn new() -> (Hub, Receiver<()>) {
        let (wake, woken) = sync_channel(1);
        (Hub { inner: Mutex::default(), wake }, woken)
    }

    fn inner(&self) -> MutexGuard<'_, HubState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream for a page that has come, with the last message of each kind in it.
    pub(super) fn subscribe(&self, connection: Option<OpenPage>) -> Result<EventStream, PageRefusal> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(PageRefusal::stopping());
        }
        inner.clients.retain(|client| !client.sender.is_closed());
        if inner.clients.len() >= CLIENTS {
            return Err(PageRefusal::too_many_clients(CLIENTS));
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let first =
            std::iter::once(Bytes::from_static(HELLO)).chain(inner.last.iter().map(|(_, message)| message.clone()));
        for message in first {
            // There is room: a hello and one message of each kind.
            let _ = sender.try_send(message);
        }
        inner.clients.push(Client { sender, connection });
        drop(inner);
        self.wake();
        Ok(EventStream { receiver })
    }

    /// Sends a message of this kind to all pages, if it says something new.
    pub(super) fn publish(&self, kind: &'static str, message: Bytes) {
        let mut inner = self.inner();
        match inner.last.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, last)) if *last == message => return,
            Some((_, last)) => *last = message.clone(),
            None => inner.last.push((kind, message.clone())),
        }
        inner.send(&message);
    }

    /// Sends a comment to all pages.
    pub(super) fn heartbeat(&self) {
        self.inner().send(&Bytes::from_static(HEARTBEAT));
    }

    pub(super) fn is_watched(&self) -> bool {
        let mut inner = self.inner();
        inner.clients.retain(|client| !client.sender.is_closed());
        !inner.clients.is_empty()
    }

    /// Whether it is over.
    pub(super) fn is_closed(&self) -> bool {
        self.inner().closed
    }

    /// Ends all streams; there will be no others.
    pub(super) fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        inner.clients.clear();
        drop(inner);
        self.wake();
    }

    fn wake(&self) {
        match self.wake.try_send(()) {
            // It is awake already, or has gone.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

impl HubState {
    fn send(&mut self, message: &Bytes) {
        self.clients.retain(|client| match client.sender.try_send(message.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                if let Some(OpenPage(connection)) = &client.connection {
                    // It may have ended by itself.
                    let _ = connection.shutdown(Shutdown::Both);
                }
                false
            }
        });
    }
}

/// The body of an answer that does not end until its page goes or the server stops.
pub(super) struct EventStream {
    receiver: mpsc::Receiver<Bytes>,
}

impl MessageBody for EventStream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.receiver.poll_recv(context).map(|message| message.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is ready in a stream, and whether it has ended.
    fn drain(stream: &mut EventStream) -> (String, bool) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut text = String::new();
        loop {
            match Pin::new(&mut *stream).poll_next(&mut context) {
                Poll::Ready(Some(Ok(bytes))) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Poll::Ready(None) => return (text, true),
                Poll::Pending => return (text, false),
            }
        }
    }

    #[test]
    fn frames_are_events_of_the_standard() {
        assert_eq!(frame("live", "{\"a\":1}"), "event: live\ndata: {\"a\":1}\n\n");
        assert_eq!(frame("x", "two\nlines"), "event: x\ndata: two\ndata: lines\n\n");
        assert!(HEARTBEAT.starts_with(b":") && HEARTBEAT.ends_with(b"\n\n"));
    }

    #[test]
    fn a_late_page_gets_the_last_message_of_each_kind_and_news_only_once() {
        let (hub, _woken) = Hub::new();
        hub.publish("runs", frame("runs", "1"));
        hub.publish("live", frame("live", "old"));
        hub.publish("live", frame("live", "new"));
        let mut stream = hub.subscribe(None).expect("a place");
        let expected = "retry: 2000\n\nevent: runs\ndata: 1\n\nevent: live\ndata: new\n\n";
        assert_eq!(drain(&mut stream), (expected.to_owned(), false));
        hub.publish("live", frame("live", "new"));
        assert_eq!(drain(&mut stream), (String::new(), false));
        hub.close();
        assert_eq!(drain(&mut stream), (String::new(), true));
        assert_eq!(hub.subscribe(None).err().expect("no more").kind(), "stopping");
    }

    #[test]
    fn places_are_counted_and_come_back() {
        let (hub, _woken) = Hub::new();
        let mut streams: Vec<EventStream> = (0..CLIENTS).map(|_| hub.subscribe(None).expect("a place")).collect();
        assert_eq!(hub.subscribe(None).err().expect("full").kind(), "too-many-clients");
        streams.pop();
        assert!(hub.subscribe(None).is_ok());
    }

    #[test]
    fn a_page_that_does_not_read_is_cut_off() {
        let (hub, _woken) = Hub::new();
        let mut slow = hub.subscribe(None).expect("a place");
        let mut quick = hub.subscribe(None).expect("a place");
        for number in 0..2 * WAITING {
            hub.publish("live", frame("live", &number.to_string()));
            let (_, ended) = drain(&mut quick);
            assert!(!ended);
        }
        let (read, ended) = drain(&mut slow);
        assert!(ended && read.matches("event: live").count() < WAITING);
    }

    #[test]
    fn cutting_off_ends_the_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut page = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        page.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a timeout");
        let (accepted, _) = listener.accept().expect("accepted");
        let (hub, _woken) = Hub::new();
        let _unread = hub.subscribe(Some(OpenPage(Arc::new(accepted)))).expect("a place");
        for number in 0..2 * WAITING {
            hub.publish("live", frame("live", &number.to_string()));
        }
        let end = std::io::Read::read(&mut page, &mut [0; 1]).expect("an end, not a timeout");
        assert_eq!((end, hub.is_watched()), (0, false));
    }
}
