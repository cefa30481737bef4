//! Pages and figures that are asked for over HTTP: by a client that reads nothing (A10), and by one that reads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::attack::{Tally, count};

/// How many times each connection of A10 asks.
const TIMES: usize = 60;

/// Asks for `path` on so many connections, reads nothing, and connects again where it was cut off. Never returns.
pub(crate) fn ask_and_never_read(address: SocketAddr, path: &str, connections: usize, tally: &Arc<Tally>) -> ! {
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let ask = || {
        count(&tally.calls);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).ok()?;
        // So that the system keeps little for it here.
        socket.set_recv_buffer_size(4_096).ok()?;
        socket.connect_timeout(&address.into(), Duration::from_secs(1)).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(true).ok()?;
        // What the system does not take at once is not asked.
        stream.write_all(question.repeat(TIMES).as_bytes()).ok()?;
        count(&tally.sent);
        Some(stream)
    };
    let mut streams: Vec<Option<TcpStream>> = (0..connections).map(|_| ask()).collect();
    loop {
        thread::sleep(Duration::from_secs(1));
        for stream in &mut streams {
            // One more question tells whether it is still there.
            let is_gone = |mut open: &TcpStream| match open.write(question.as_bytes()) {
                Ok(_) => false,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            if stream.as_ref().is_none_or(is_gone) {
                *stream = ask();
            }
        }
    }
}

/// Somebody who asks twice a second and reads what is answered.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Answers>,
}

/// Before a program ends it stops to answer, and open answers get a second: what fails then is nobody's fault.
const LAST_MOMENTS: Duration = Duration::from_millis(2_500);

/// What a reader was answered.
#[derive(Clone, Copy, Default)]
pub(crate) struct Answers {
    pub(crate) asked: u32,
    /// Without an answer of 200 within ten seconds.
    pub(crate) failed: u32,
    /// The longest that an answer took.
    pub(crate) slowest: Duration,
}

impl Reader {
    pub(crate) fn start(address: SocketAddr, path: &'static str) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let asking = thread::spawn(move || {
            let (mut answers, mut failures) = (Answers::default(), Vec::new());
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                let answered = answer(address, path).is_some();
                answers.asked += 1;
                match answered {
                    true => answers.slowest = answers.slowest.max(began.elapsed()),
                    false => failures.push(began),
                }
                thread::sleep(Duration::from_millis(500));
            }
            let owed = |began: &&Instant| began.elapsed() > LAST_MOMENTS;
            answers.failed = failures.iter().filter(owed).count() as u32;
            answers
        });
        Reader { stop, asking }
    }

    pub(crate) fn stop(self) -> Answers {
        self.stop.store(true, Ordering::SeqCst);
        self.asking.join().expect("it does not panic")
    }
}

/// The whole answer to one question.
fn answer(address: SocketAddr, path: &str) -> Option<String> {
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200").then_some(text)
}
