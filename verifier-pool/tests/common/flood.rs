//! First packets of handshakes that nobody follows up.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Dial, caller};

/// First packets of handshakes, 40 a second, that reach a pool and are never followed up. Each has a source of its own.
pub(crate) struct Flood {
    sent: Arc<AtomicUsize>,
    calling: tokio::task::JoinHandle<()>,
}

impl Flood {
    /// Packets are made by a client that calls a socket of ours, which hands the first of each call on to `address`.
    pub(crate) fn start(address: SocketAddr, certificate: &[u8]) -> Flood {
        let trap = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let called = trap.local_addr().expect("bound");
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        trap.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        thread::spawn(move || {
            let (mut packet, mut known) = ([0; 2048], BTreeSet::new());
            // It ends when nobody has called for a while.
            while let Ok((length, _)) = trap.recv_from(&mut packet) {
                // A long header: flags, version, length of the connection's name, the name.
                let name = packet[6..6 + usize::from(packet[5])].to_vec();
                let forger = UdpSocket::bind("127.0.0.1:0").expect("a port");
                if known.insert(name) && forger.send_to(&packet[..length], address).is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let endpoint = caller(certificate, Dial::default());
        let calling = actix::spawn(async move {
            let mut calls = Vec::new();
            loop {
                calls.push(endpoint.connect(called, "localhost").expect("an address"));
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        Flood { sent, calling }
    }

    /// Packets so far.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        !self.calling.is_finished()
    }

    /// Waits for so many packets.
    pub(crate) async fn until(&self, count: usize, patience: Duration) {
        let began = Instant::now();
        while self.sent() < count {
            assert!(began.elapsed() < patience, "{} packets", self.sent());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.calling.abort();
    }
}
