//! Whoever holds the page up, or asks in another's name.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::Page;
use super::client::ask_with;

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

#[test]
fn data_are_for_the_pages_of_this_site() {
    let page = Page::new();
    page.stored("good", 5, &json!({}));
    let asked = |path: &str, site: &str| {
        let header = format!("Sec-Fetch-Site: {site}\r\n");
        ask_with(page.address(), "HEAD", path, &page.address().to_string(), &header).status
    };
    let data = ["/api/runs", "/api/runs/good", "/api/runs/good/report", "/api/compare?a=good&b=good", "/events"];
    for path in data {
        for site in ["cross-site", "same-site", "anything"] {
            assert_eq!(asked(path, site), 403, "{path} {site}");
        }
        assert!(asked(path, "same-origin") != 403 && asked(path, "none") != 403, "{path}");
    }
    // A link to a page may stand anywhere.
    assert_eq!((asked("/", "cross-site"), asked("/runs/good", "cross-site")), (200, 200));
    let answer = ask_with(page.address(), "GET", "/api/runs", "localhost", "Sec-Fetch-Site: cross-site\r\n");
    assert_eq!((answer.status, answer.kind().as_str()), (403, "foreign-site"));
}

#[test]
fn a_text_to_look_for_is_short() {
    let page = Page::new();
    page.stored("good", 5, &json!({}));
    let asked = |text: &str| page.get(&format!("/api/runs?text={text}"));
    assert_eq!((asked(&"g+".repeat(32)).status, asked(&"g".repeat(1_024)).status), (200, 200));
    for bad in ["g+".repeat(33), "g".repeat(1_025), "g+".repeat(10_000)] {
        let answer = asked(&bad);
        assert_eq!((answer.status, answer.kind().as_str()), (400, "bad-request"), "{}", bad.len());
        assert!(answer.body.len() < 300, "what was asked is not repeated");
    }
}
