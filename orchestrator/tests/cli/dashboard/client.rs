//! The least of an HTTP client: it sends what it is told, path and all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The word of a refusal.
    pub(crate) fn kind(&self) -> String {
        self.json()["error"]["kind"].as_str().unwrap_or_default().to_owned()
    }

    /// The sentence of a refusal.
    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path)
}

pub(crate) fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    ask_with(address, method, path, &address.to_string(), "")
}

/// Asks with this `Host` and these further header lines.
pub(crate) fn ask_with(address: SocketAddr, method: &str, path: &str, host: &str, more: &str) -> Answer {
    let mut answer = BufReader::new(send(
        address,
        &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"),
    ));
    let (status, headers) = head(&mut answer);
    let mut body = Vec::new();
    answer.read_to_end(&mut body).expect("a whole answer");
    Answer { status, headers, body }
}

fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).expect("a server");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    connection.write_all(request.as_bytes()).expect("sent");
    connection
}

fn head(answer: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    answer.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    let mut headers = Vec::new();
    loop {
        line.clear();
        answer.read_line(&mut line).expect("a header");
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => return (status, headers),
        }
    }
}

/// An open event stream.
pub(crate) struct Stream(BufReader<TcpStream>);

impl Stream {
    pub(crate) fn open(address: SocketAddr) -> Stream {
        let (status, stream) = Stream::begin(address);
        assert_eq!(status, 200);
        stream
    }

    /// The status of the answer; the stream is closed again.
    pub(crate) fn status(address: SocketAddr) -> u16 {
        Stream::begin(address).0
    }

    fn begin(address: SocketAddr) -> (u16, Stream) {
        let mut answer = BufReader::new(send(address, &format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n")));
        let (status, headers) = head(&mut answer);
        if status == 200 {
            assert!(headers.contains(&("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned())));
        }
        (status, Stream(answer))
    }

    /// The data of the next event of this kind. Lines of the chunked coding stand between those of the events and look
    /// like neither.
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        let mut current = String::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("an event in time") > 0, "the stream has ended");
            if let Some(name) = line.strip_prefix("event: ") {
                current = name.trim_end().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| current == kind) {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }

    /// Whether the server has ended it.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok()
    }
}
