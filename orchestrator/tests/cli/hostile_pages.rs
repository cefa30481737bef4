//! Metrics of a run that somebody holds up, or asks for in another's name.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::common::*;

/// What `/metrics` is answered in the name of this host; `None` where nobody listens.
fn answer(address: SocketAddr, host: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in time");
    Some(answer)
}

/// The status of that answer.
fn asked(address: SocketAddr, host: &str) -> Option<u16> {
    let answer = answer(address, host)?;
    Some(answer.split(' ').nth(1).expect("a status").parse().expect("a number"))
}

/// A run that goes on for as long as its metrics are asked for, and where it serves them.
fn served(place: &Place, listen: &str, more: &[&str]) -> (Running, SocketAddr) {
    let port = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("its address").port();
    let metrics = format!("{listen}:{port}");
    let mut command = place.command(&["run", "--ledger", "runs", "--ui", "none", "--metrics", &metrics]);
    command.args(["--devices", "1", "--prompts", "4000", "--methods", "hlm,slm-only"]).args(more);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let (running, address) = (Running::of(child), (Ipv4Addr::LOCALHOST, port).into());
    let began = Instant::now();
    // There is little to read before the run begins.
    while answer(address, "localhost").is_none_or(|answer| answer.len() < 10_000) {
        assert!(began.elapsed() < Duration::from_secs(60), "no metrics at {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
    (running, address)
}

#[test]
fn metrics_are_read_in_the_names_of_their_host_alone() {
    let place = Place::new();
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let (running, address) = served(&place, listen, &["--allow-host", "proxy.example.org"]);
        let names = ["localhost:9464", "127.0.0.1", "proxy.example.org", "rebound.example.org"];
        let answers = names.map(|host| asked(address, host).expect("it listens"));
        assert_eq!(answers, [200, 200, 200, 403], "{listen}");
        running.kill();
    }
}

#[test]
fn readers_that_never_read_hold_up_no_scrape() {
    let place = Place::new();
    let (running, address) = served(&place, "127.0.0.1", &[]);
    // What they ask for is more than the systems on both sides keep.
    let question = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(1_000);
    let unread = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        socket.connect(&address.into()).expect("a server");
        let mut stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        // The server takes no more questions while it cannot answer.
        let _ = stream.write_all(question.as_bytes());
        stream
    };
    // More than there are places for.
    let _unread: Vec<TcpStream> = (0..40).map(unread).collect();
    for _ in 0..3 {
        assert_eq!(asked(address, "localhost"), Some(200));
    }
    running.kill();
}
