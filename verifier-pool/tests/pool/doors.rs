//! What strangers can do at the door of the program `verifier-pool`, over UDP: whatever it is, honest devices do not notice.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use specfleet_engine::id::UploadId;
use specfleet_engine::pool::RefuseReason;
use specfleet_engine::wire::{AdmissionToken, ClientFrame, Goodbye, Hello, PROTOCOL_VERSION, ServerFrame};
use specfleet_model::{Embedded, Model, Precision, Tokenizer};
use tempfile::TempDir;

use super::binary::{Running, greeting, pool};
use crate::common::client::{Client, Dial, close_code, dial};
use crate::common::direct::{judge, key, unfounded};
use crate::common::flood::Flood;
use crate::common::model::Random;
use crate::common::world::run;

/// Places of a pool whose scenario has one device.
const PLACES: usize = 17;

/// How long a test waits for what must happen: far longer than any limit of the pool.
const PATIENCE: Duration = Duration::from_secs(45);

/// The program, and what a device needs to know of it.
struct Program {
    _running: Running,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    model: Model,
    hello: Hello,
    prompt: Vec<u32>,
    said: PathBuf,
    _folder: TempDir,
}

impl Program {
    /// For one device, and with more arguments.
    fn start(arguments: &[&str]) -> Program {
        let folder = tempfile::tempdir().expect("a folder");
        let (pem, said) = (folder.path().join("pool.pem"), folder.path().join("said"));
        let file = pem.display().to_string();
        let mut command = pool();
        command.args(["--listen", "0", "--verifiers", "1", "--set", "run.devices=1", "--certificate-out", &file]);
        command.args(arguments).stderr(fs::File::create(&said).expect("writable"));
        let mut running = Running(command.spawn().expect("the program starts"));
        let line = greeting(&mut running);
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(',').next()).expect("an address");
        let model = Model::embedded(Embedded::Verifier, Precision::Q8_0).expect("part of the binary");
        let tokenizer = Tokenizer::embedded().expect("part of the binary");
        Program {
            address: address.parse().expect("an address"),
            certificate: CertificateDer::from_pem_file(&pem).expect("the certificate"),
            hello: Hello {
                protocol: PROTOCOL_VERSION,
                tokenizer: tokenizer.digest(),
                vocab: model.shape().vocab as u32,
                admission: AdmissionToken::NONE,
            },
            prompt: tokenizer.encode("Question: Tom has 3 apples.").expect("text"),
            model,
            said,
            _running: running,
            _folder: folder,
        }
    }

    /// Connects and greets; what the pool answers.
    async fn knock(&self, how: Dial) -> (Client, Option<ServerFrame>) {
        let (endpoint, connection) = dial(self.address, &self.certificate, how).await.expect("a handshake");
        let mut client = Client::over(endpoint, connection, &self.model).await;
        client.say(&ClientFrame::Hello(self.hello.clone())).await;
        let answer = client.hear().await;
        (client, answer)
    }

    /// Connects and must be welcome.
    async fn enter(&self) -> Client {
        let (client, answer) = self.knock(Dial::default()).await;
        assert!(matches!(answer, Some(ServerFrame::Welcome(_))), "{answer:?}");
        client
    }

    /// An upload in a session of this number, and its verdict.
    async fn work(&self, client: &mut Client, session: u32) {
        let vocab = self.model.shape().vocab;
        client.upload(&judge(&mut Random(1), vocab, (session, 1), (0, &self.prompt), key(0, 0))).await;
        client.verdict(UploadId(1)).await;
    }

    /// What it has written to standard error.
    fn said(&self) -> String {
        fs::read_to_string(&self.said).expect("text")
    }
}

/// Sends [`unfounded`] and returns the price in its refusal.
async fn refused(client: &mut Client) -> f32 {
    client.upload(&unfounded()).await;
    match client.hear().await {
        Some(ServerFrame::Refused { reason: RefuseReason::UnknownBase, price, .. }) => price,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn who_has_nothing_to_do_makes_room_for_a_newcomer() {
    run(async {
        let pool = Program::start(&[]);
        let mut worker = pool.enter().await;
        pool.work(&mut worker, 1).await;
        // They keep their connections alive and never ask for anything, as long as the newcomer comes.
        let mut strangers = Vec::new();
        while strangers.len() < PLACES - 1 {
            strangers.push(pool.enter().await);
        }
        let began = Instant::now();
        let _newcomer = loop {
            match pool.knock(Dial::default()).await {
                (client, Some(ServerFrame::Welcome(_))) => break client,
                (_, Some(ServerFrame::Goodbye(Goodbye::Full))) => {}
                (_, other) => panic!("{other:?}"),
            }
            assert!(began.elapsed() < PATIENCE, "there is no place for it");
            tokio::time::sleep(Duration::from_millis(250)).await;
        };
        // The first of those that never had a session, and nobody else.
        assert_eq!(strangers.remove(0).goodbye().await, (Vec::new(), Goodbye::Idle));
        assert!(strangers.iter().all(|stranger| stranger.connection.close_reason().is_none()));
        pool.work(&mut worker, 2).await;
    });
}

#[test]
fn first_packets_that_nobody_follows_up_keep_nobody_out() {
    run(async {
        let pool = Program::start(&[]);
        let flood = Flood::start(pool.address, &pool.certificate);
        flood.until(2 * PLACES, PATIENCE).await;
        let mut newcomers = Vec::new();
        for _ in 0..15 {
            newcomers.push(pool.enter().await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(newcomers.iter().all(|newcomer| newcomer.connection.close_reason().is_none()));
        assert!(flood.is_under_way());
        pool.work(&mut newcomers[0], 1).await;
    });
}

#[test]
fn what_is_refused_moves_no_price() {
    run(async {
        // Nothing that one device can do is more than the whole load.
        let price = ["pool.price_step=1", "pool.price_target_load=1", "pool.price_period_ms=10"];
        let pool = Program::start(&price.map(|key| ["--set", key]).concat());
        let mut client = pool.enter().await;
        // The pool learns what it can do in a period.
        pool.work(&mut client, 1).await;
        let began = Instant::now();
        for _ in 0..400 {
            assert_eq!(refused(&mut client).await, 0.0);
        }
        // Over several periods, or it could not have moved.
        while began.elapsed() < Duration::from_millis(100) {
            assert_eq!(refused(&mut client).await, 0.0);
        }
    });
}

#[test]
fn a_flood_of_refused_uploads_is_two_lines_of_the_log() {
    const FLOOD: usize = 2_000;
    run(async {
        let pool = Program::start(&["--log", "info"]);
        let mut client = pool.enter().await;
        for _ in 0..FLOOD {
            refused(&mut client).await;
        }
        client.connection.close(0_u32.into(), b"");
        let began = Instant::now();
        while !pool.said().contains("refused in all") {
            assert!(began.elapsed() < PATIENCE, "{}", pool.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let said = pool.said();
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("refused")).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains(&format!("refused={FLOOD}")), "{lines:?}");
    });
}

#[test]
fn frames_and_answers_that_make_no_progress_end_their_connection() {
    run(async {
        let pool = Program::start(&[]);
        let mut bystander = pool.enter().await;
        // A byte a second of a frame of 200 bytes.
        let mut writer = pool.enter().await;
        writer.say_bytes(&[200, 0, 0, 0]).await;
        let writing = writer.connection.clone();
        let dribble = async {
            while writer.send.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        // Fewer answers than wait in a queue, more than it lets the pool send.
        let (mut reader, answer) = pool.knock(Dial { window: 64, ..Dial::default() }).await;
        assert!(matches!(answer, Some(ServerFrame::Welcome(_))), "{answer:?}");
        for _ in 0..20 {
            reader.upload(&unfounded()).await;
        }
        let ((), written, read) = tokio::join!(dribble, close_code(&writing), close_code(&reader.connection));
        assert_eq!(written, Some(Goodbye::SlowWriter.code()));
        assert_eq!(read, Some(Goodbye::SlowReader.code()));
        // Silence between frames is no progress either, and nobody minds.
        pool.work(&mut bystander, 1).await;
    });
}
