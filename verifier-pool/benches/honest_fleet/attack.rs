//! The attacking client, a process of its own so that its processor time can be told.
//!
//! It says `ready`, waits for a line, attacks, says `under way` once the attack is what it will be, goes on until its standard
//! input ends, and then says what it has done.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, Write, stdin, stdout};
use std::net::SocketAddr;
use std::process::exit;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::Endpoint;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use specfleet_engine::acceptance::Next;
use specfleet_engine::id::UploadId;
use specfleet_engine::wire::{AdmissionToken, ClientFrame, Hello, PROTOCOL_VERSION, ServerFrame};
use specfleet_model::{Embedded, Model, Precision, Tokenizer};
use tokio::time::{interval, sleep};

use crate::common::client::{Client, Dial, caller};
use crate::common::direct::{judge, key, unfounded};
use crate::common::flood::Flood;
use crate::common::model::Random;
use crate::pages;

/// Connections of A2: the places of a pool for eight devices.
const PLACES: usize = 24;

/// Connections of A9.
const DRIBBLERS: usize = 40;

/// How often a client that is turned away calls again, all calls together.
const CALLS_PER_SECOND: u32 = 200;

/// Uploads of A4 in a second.
const UNFOUNDED_PER_SECOND: u32 = 50;

/// Tokens up to which A5 uploads in one session.
const SESSION: u32 = 200;

/// What has been done so far.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) calls: AtomicUsize,
    welcomes: AtomicUsize,
    pub(crate) sent: AtomicUsize,
    answers: AtomicUsize,
}

/// One more.
pub(crate) fn count(what: &AtomicUsize) {
    what.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    fn say(&self) {
        let [calls, welcomes, sent, answers] =
            [&self.calls, &self.welcomes, &self.sent, &self.answers].map(|count| count.load(Ordering::Relaxed));
        say(&format!("{calls} calls, {welcomes} welcome, {sent} sent, {answers} answered"));
    }
}

pub(crate) fn say(line: &str) {
    // Without a reader there is nobody to attack for.
    if writeln!(stdout(), "{line}").is_err() {
        exit(1);
    }
}

/// Says that it is ready, and returns when it may begin; the process ends with its standard input.
pub(crate) fn begin(tally: &Arc<Tally>) {
    say("ready");
    let mut lines = stdin().lock().lines();
    if lines.next().is_none() {
        exit(0);
    }
    drop(lines);
    let tally = tally.clone();
    std::thread::spawn(move || {
        while stdin().lock().lines().next().is_some() {}
        tally.say();
        exit(0);
    });
}

/// Attacks: a row's name, `run` or `pool`, an address, the certificate's file or what to ask for, and on how many connections.
pub(crate) fn attack(arguments: &[String]) {
    let [name, target, address, what, connections] = arguments else { panic!("five arguments, not {arguments:?}") };
    let address = address.parse().expect("an address");
    let tally = Arc::new(Tally::default());
    if name == "A10" {
        begin(&tally);
        say("under way");
        // Does not return.
        pages::ask_and_never_read(address, what, connections.parse().expect("a number"), &tally);
    }
    actix::System::new().block_on(async {
        let stranger = Stranger::new(address, what, tally.clone());
        begin(&tally);
        match (name.as_str(), target.as_str()) {
            ("A3", _) => stranger.send_initials().await,
            ("A9", _) => stranger.dribble(target == "pool").await,
            ("A2", "pool") => stranger.hold_places().await,
            ("A4", "pool") => stranger.upload_unfounded().await,
            ("A5", "pool") => stranger.work().await,
            ("A8", "pool") => stranger.flood().await,
            // Nobody without the run's token gets further than to the door: it says all that it has to say, and calls again.
            ("A4", _) => stranger.call_again(UNFOUNDED_PER_SECOND, 1).await,
            ("A8", _) => stranger.call_again(CALLS_PER_SECOND, 32).await,
            _ => stranger.call_again(CALLS_PER_SECOND, 0).await,
        }
    });
}

/// Whoever has no business here.
struct Stranger {
    endpoint: Endpoint,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    model: Model,
    hello: Hello,
    prompt: Vec<u32>,
    tally: Arc<Tally>,
}

impl Stranger {
    fn new(address: SocketAddr, certificate: &str, tally: Arc<Tally>) -> Rc<Stranger> {
        let pem = fs::read(certificate).expect("the certificate");
        let certificate = CertificateDer::from_pem_slice(&pem).expect("PEM");
        let model = Model::embedded(Embedded::Verifier, Precision::Q8_0).expect("part of the binary");
        let tokenizer = Tokenizer::embedded().expect("part of the binary");
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            tokenizer: tokenizer.digest(),
            vocab: model.shape().vocab as u32,
            admission: AdmissionToken::NONE,
        };
        let prompt = tokenizer.encode("Question: Tom has 3 apples.").expect("text");
        let how = Dial { keep_alive: Some(Duration::from_secs(1)), ..Dial::default() };
        let endpoint = caller(&certificate, how);
        Rc::new(Stranger { endpoint, address, certificate, model, hello, prompt, tally })
    }

    /// Connects and opens the stream; `None` without an answer.
    async fn call(&self) -> Option<Client> {
        count(&self.tally.calls);
        let connection = self.endpoint.connect(self.address, "localhost").expect("an address").await.ok()?;
        Some(Client::over(self.endpoint.clone(), connection, &self.model).await)
    }

    /// Connects and greets; `None` if it is not welcome.
    async fn enter(&self) -> Option<Client> {
        let mut client = self.call().await?;
        client.say(&ClientFrame::Hello(self.hello.clone())).await;
        let welcome = matches!(client.hear().await, Some(ServerFrame::Welcome(_)));
        if welcome {
            count(&self.tally.welcomes);
        }
        welcome.then_some(client)
    }

    /// A2: as many connections as the pool has places, which ask for nothing.
    async fn hold_places(self: Rc<Self>) {
        let held = Rc::new(Cell::new(0));
        for _ in 0..PLACES {
            let (stranger, held) = (self.clone(), held.clone());
            actix::spawn(async move {
                loop {
                    if let Some(client) = stranger.enter().await {
                        held.set(held.get() + 1);
                        client.connection.closed().await;
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            });
        }
        while held.get() < PLACES {
            sleep(Duration::from_millis(20)).await;
        }
        say("under way");
        std::future::pending().await
    }

    /// A3: first packets.
    async fn send_initials(self: Rc<Self>) {
        let flood = Flood::start(self.address, &self.certificate);
        flood.until(PLACES, Duration::from_secs(10)).await;
        say("under way");
        loop {
            self.tally.sent.store(flood.sent(), Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A4: uploads that name a session which nobody knows, and claim to build on a thousand tokens.
    async fn upload_unfounded(self: Rc<Self>) {
        say("under way");
        let mut ticks = interval(Duration::from_secs(1) / UNFOUNDED_PER_SECOND);
        loop {
            let Some(mut client) = self.enter().await else { continue };
            loop {
                ticks.tick().await;
                client.upload(&unfounded()).await;
                count(&self.tally.sent);
                if client.hear().await.is_none() {
                    break;
                }
                count(&self.tally.answers);
            }
        }
    }

    /// A5: small pieces of valid work, one after another, in sessions of its own.
    async fn work(self: Rc<Self>) {
        say("under way");
        let (mut random, vocab) = (Random(1), self.model.shape().vocab);
        loop {
            let Some(mut client) = self.enter().await else { continue };
            'connected: for session in 1.. {
                let (mut base, mut tokens) = (0, self.prompt.clone());
                for upload in 1.. {
                    let job = judge(&mut random, vocab, (session, upload), (base, &tokens), key(session, upload));
                    client.upload(&job).await;
                    count(&self.tally.sent);
                    let Some(ServerFrame::Verdict(verdict)) = client.hear().await else { break 'connected };
                    assert_eq!(verdict.upload, UploadId(upload));
                    count(&self.tally.answers);
                    base += tokens.len() as u32 + u32::from(verdict.accepted);
                    tokens.clear();
                    match verdict.next {
                        Next::None => {}
                        Next::Replacement(_) | Next::Bonus(_) => base += 1,
                        // The device draws the token, and says it with its next upload.
                        Next::Resample(_) => tokens.push(1),
                    }
                    if base > SESSION {
                        break;
                    }
                }
                client.say(&ClientFrame::Close { session, at: None }).await;
            }
        }
    }

    /// A8: tiny uploads that are refused, as many as go through one connection.
    async fn flood(self: Rc<Self>) {
        say("under way");
        loop {
            let Some(client) = self.enter().await else { continue };
            let uploads = client.encoded(&ClientFrame::Upload(Box::new(unfounded()))).repeat(32);
            let Client { mut send, mut recv, connection, .. } = client;
            let write = async {
                while send.write_all(&uploads).await.is_ok() {
                    self.tally.sent.fetch_add(32, Ordering::Relaxed);
                }
            };
            let read = async { while let Ok(Some(_)) = recv.read_chunk(65_536, true).await {} };
            tokio::join!(write, read);
            drop(connection);
        }
    }

    /// A9: connections that send a byte of a frame a second. Every other one greets before, if it may; the rest is as slow
    /// over its greeting.
    async fn dribble(self: Rc<Self>, may_greet: bool) {
        for number in 0..DRIBBLERS {
            let (stranger, greets) = (self.clone(), may_greet && number % 2 == 0);
            actix::spawn(async move {
                loop {
                    let client = if greets { stranger.enter().await } else { stranger.call().await };
                    if let Some(mut client) = client {
                        // The length of a frame, and then of its bytes one a second.
                        let mut piece = &[200, 0, 0, 0][..];
                        while client.send.write_all(piece).await.is_ok() {
                            count(&stranger.tally.sent);
                            piece = &[0];
                            sleep(Duration::from_secs(1)).await;
                        }
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            });
        }
        sleep(Duration::from_millis(500)).await;
        say("under way");
        std::future::pending().await
    }

    /// Greets without a token, with so many uploads right behind it, and again when it is turned away.
    async fn call_again(self: Rc<Self>, per_second: u32, uploads: usize) {
        say("under way");
        let mut ticks = interval(Duration::from_secs(1) / per_second);
        loop {
            ticks.tick().await;
            let stranger = self.clone();
            actix::spawn(async move {
                let Some(mut client) = stranger.call().await else { return };
                let mut said = client.encoded(&ClientFrame::Hello(stranger.hello.clone()));
                let upload = client.encoded(&ClientFrame::Upload(Box::new(unfounded())));
                said.extend(upload.repeat(uploads));
                client.say_bytes(&said).await;
                count(&stranger.tally.sent);
                while let Some(answer) = client.hear().await {
                    let welcome = matches!(answer, ServerFrame::Welcome(_));
                    count(if welcome { &stranger.tally.welcomes } else { &stranger.tally.answers });
                }
            });
        }
    }
}
