//! Whoever holds the page up, or asks in another's name.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::Page;
use crate::client::ask_with;

/// A connection that asks so many times for a file, and reads nothing.
fn ask_and_never_read(address: SocketAddr, path: &str, times: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    // So that the system keeps little for it, here and there.
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    socket.connect(&address.into()).expect("a server");
    let mut stream = TcpStream::from(socket);
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(question.repeat(times).as_bytes()).expect("the system keeps it");
    stream
}

#[test]
fn readers_that_never_read_hold_up_nobody() {
    let page = Page::new();
    let largest = "/assets/d3.min.js";
    assert!(page.get(largest).body.len() > 100_000);
    // More than there are places for.
    let _unread: Vec<TcpStream> = (0..140).map(|_| ask_and_never_read(page.address(), largest, 60)).collect();
    for _ in 0..3 {
        assert_eq!(page.get("/").status, 200);
        assert_eq!(page.get("/api/runs").status, 200);
    }
}

/// A page that is open to other machines is open to browsers on this one, and so to pages of other sites in them.
#[test]
fn an_open_page_answers_this_machine_in_its_own_names_alone() {
    let page = Page::listening_at((Ipv4Addr::UNSPECIFIED, 0).into());
    let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), page.address().port());
    let asked = |host: &str| ask_with(here, "GET", "/api/runs", host, "").status;
    assert_eq!((asked("localhost"), asked(&here.to_string())), (200, 200));
    assert_eq!(asked("rebound.example.org"), 403);
}
