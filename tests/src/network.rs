//! A network in memory: sockets that hand each other datagrams, in order and without loss, for the live actors to talk
//! over instead of UDP.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// All sockets by their addresses; cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Network(Arc<Mutex<BTreeMap<SocketAddr, Arc<Mailbox>>>>);

/// What has been sent to a socket.
#[derive(Debug, Default)]
struct Mailbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<Datagram>,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
}

/// One socket.
#[derive(Debug)]
struct Socket {
    address: SocketAddr,
    network: Network,
    mailbox: Arc<Mailbox>,
}

/// There is always room.
#[derive(Debug)]
struct Writable;

impl Network {
    /// A socket with this address, which takes the place of an earlier one.
    pub fn bind(&self, address: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
        let mailbox = Arc::new(Mailbox::default());
        lock(&self.0).insert(address, mailbox.clone());
        Arc::new(Socket { address, network: self.clone(), mailbox })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Nobody there: as lost as on a real network.
        let Some(mailbox) = lock(&self.network.0).get(&transmit.destination).cloned() else { return Ok(()) };
        let mut waiting = lock(&mailbox.0);
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(size) {
            let contents = contents.to_vec();
            waiting.datagrams.push_back(Datagram { from: self.address, ecn: transmit.ecn, contents });
        }
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = lock(&self.mailbox.0);
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some(Datagram { from, ecn, contents }) = waiting.datagrams.pop_front() else { break };
            let len = contents.len().min(buffer.len());
            buffer[..len].copy_from_slice(&contents[..len]);
            *meta = RecvMeta { addr: from, len, stride: len, ecn, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        waiting.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
