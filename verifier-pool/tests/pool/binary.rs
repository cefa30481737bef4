//! The program, as a user starts it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use specfleet_engine::id::UploadId;
use specfleet_engine::wire::{
    AdmissionToken, Goodbye, Hello, PROTOCOL_VERSION, UploadJob, VerifierChange, VerifierIdentity,
};
use specfleet_model::{Embedded, Model, Precision, Tokenizer};

use crate::common::client::{Client, Dial, dial};
use crate::common::direct::{judge, key, verdict};
use crate::common::model::Random;
use crate::common::world::run;

pub(super) fn pool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verifier-pool"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A program that does not outlive its test.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a pool and reads the line that it prints.
fn start(arguments: &[&str]) -> (Running, String) {
    let mut running = Running(pool().args(arguments).spawn().expect("the program starts"));
    let line = greeting(&mut running);
    (running, line)
}

/// The line that a pool prints.
pub(super) fn greeting(running: &mut Running) -> String {
    let mut line = String::new();
    let stdout = running.0.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

#[test]
fn serves_until_it_is_interrupted() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let pem = folder.path().join("pool.pem");
        let file = pem.display().to_string();
        // Free, most likely.
        let metrics =
            TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("bound").port().to_string();
        let (mut running, line) =
            start(&["--listen", "127.0.0.1:0", "--verifiers", "1", "--certificate-out", &file, "--metrics", &metrics]);
        let rest = line.strip_prefix("listening on ").expect("the address");
        let (address, rest) = rest.split_once(',').expect("the fingerprint");
        assert!(rest.ends_with(&format!(" in {file}")), "{line}");
        let certificate = CertificateDer::from_pem_file(&pem).expect("the certificate");

        let model = Model::embedded(Embedded::Verifier, Precision::Q8_0).expect("part of the binary");
        let tokenizer = Tokenizer::embedded().expect("part of the binary");
        let address = address.parse().expect("an address");
        let (endpoint, connection) = dial(address, &certificate, Dial::default()).await.expect("a handshake");
        let mut client = Client::over(endpoint, connection, &model).await;
        let vocab = model.shape().vocab;
        client
            .greet(Hello {
                protocol: PROTOCOL_VERSION,
                tokenizer: tokenizer.digest(),
                vocab: vocab as u32,
                admission: AdmissionToken::NONE,
            })
            .await;
        let tokens = tokenizer.encode("Question: Tom has 3 apples.").expect("text");
        let upload = judge(&mut Random(1), vocab, (1, 1), (0, &tokens), key(0, 0));
        client.upload(&upload).await;
        let answer = client.verdict(UploadId(1)).await;
        assert_eq!((answer.accepted, answer.next), verdict(&model, &tokens, &upload));

        let UploadJob::Judge { drafts, .. } = &upload.job else { panic!("drafts were to be judged") };
        await_metrics(
            &metrics,
            &[
                "specfleet_spec_decode_num_drafts_total 1",
                &format!("specfleet_spec_decode_num_draft_tokens_total {}", drafts.len()),
                &format!("specfleet_spec_decode_num_accepted_tokens_total {}", answer.accepted),
                "specfleet_request_queue_time_seconds_count 1",
                "specfleet_verify_batch_size_count 1",
                "specfleet_connections 1",
                "specfleet_verifiers{state=\"idle\"} 1",
                "specfleet_build_info{program=\"verifier-pool\"",
            ],
        );

        let interrupted = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status();
        assert!(interrupted.expect("kill is there").success());
        assert_eq!(client.goodbye().await.1, Goodbye::Closing);
        assert!(running.0.wait().expect("it ends").success());
    });
}

/// A pool says which verifier it has: by its weights and configuration wherever they lie, its precision, and what this machine
/// computes.
#[test]
fn the_verifier_is_told_to_whoever_is_let_in() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets");
        for file in ["verifier/config.json", "verifier/model.safetensors", "tokenizer.json"] {
            let name = file.rsplit('/').next().expect("a name");
            std::fs::copy(assets.join(file), folder.path().join(name)).expect("copied");
        }
        let copy = folder.path().to_str().expect("Unicode");
        let embedded = verifier_of(&[]).await;
        assert_eq!(embedded.precision.as_str(), "q8_0");
        assert_eq!(embedded.weights, <[u8; 32]>::from(Sha256::digest(Embedded::Verifier.weights())));
        assert_eq!(embedded.change_to(&verifier_of(&[]).await), None, "a pool that is started again");
        assert_eq!(embedded.change_to(&verifier_of(&["--verifier", copy]).await), None, "the same files in a folder");
        let f32 = verifier_of(&["--set", "model.verifier_precision=f32"]).await;
        assert!(matches!(embedded.change_to(&f32), Some(VerifierChange::Precision { .. })));
        assert_eq!(embedded.kernels, f32.kernels, "the probe goes through all precisions");

        let config = std::fs::read_to_string(folder.path().join("config.json")).expect("readable");
        let changed = config.replace("\"rope_theta\": 10000.0", "\"rope_theta\": 10001.0");
        assert_ne!(config, changed);
        std::fs::write(folder.path().join("config.json"), changed).expect("writable");
        let rotated = verifier_of(&["--verifier", copy]).await;
        assert!(matches!(embedded.change_to(&rotated), Some(VerifierChange::Configuration { .. })));
        std::fs::write(folder.path().join("config.json"), config).expect("writable");
        let mut weights = std::fs::read(folder.path().join("model.safetensors")).expect("readable");
        let last = weights.len() - 2;
        weights[last] ^= 1;
        std::fs::write(folder.path().join("model.safetensors"), weights).expect("writable");
        let other = verifier_of(&["--verifier", copy]).await;
        assert!(matches!(embedded.change_to(&other), Some(VerifierChange::Weights { .. })));
    });
}

/// What a pool with these arguments says of its verifier.
async fn verifier_of(arguments: &[&str]) -> VerifierIdentity {
    let folder = tempfile::tempdir().expect("a folder");
    let pem = folder.path().join("pool.pem");
    let file = pem.display().to_string();
    let fixed = ["--listen", "127.0.0.1:0", "--verifiers", "1", "--certificate-out", &file];
    let (_running, line) = start(&[&fixed[..], arguments].concat());
    let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(',').next()).expect("an address");
    let certificate = CertificateDer::from_pem_file(&pem).expect("the certificate");
    let model = Model::embedded(Embedded::Verifier, Precision::Q8_0).expect("part of the binary");
    let address = address.parse().expect("an address");
    let (endpoint, connection) = dial(address, &certificate, Dial::default()).await.expect("a handshake");
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        tokenizer: Tokenizer::embedded().expect("part of the binary").digest(),
        vocab: model.shape().vocab as u32,
        admission: AdmissionToken::NONE,
    };
    Client::over(endpoint, connection, &model).await.greet(hello).await.verifier
}

/// Memory of KV caches is not given back while a pool lives, so how much it can be is said.
#[test]
fn the_bound_of_its_memory_is_said() {
    let (mut running, _) =
        start(&["--listen", "127.0.0.1:0", "--verifiers", "2", "--set", "model.verifier_kv_mebibytes=48"]);
    let mut line = String::new();
    BufReader::new(running.0.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(
        line.trim(),
        "KV caches take up to 48 MiB in each of 2 verifiers, and the pool keeps what they once took"
    );
}

/// The polite signal of a service manager: as Ctrl-C, and it says so with its exit code.
#[test]
fn sigterm_ends_it_in_order() {
    let (running, greeting) = start(&["--listen", "127.0.0.1:0"]);
    assert!(greeting.contains("listening on"), "{greeting}");
    end(running);
}

/// A pool that was stopped has charged nobody for it, and says so.
#[test]
fn a_standstill_is_said_at_the_end() {
    let (mut running, _) = start(&["--listen", "127.0.0.1:0", "--verifiers", "1"]);
    let process = running.0.id().to_string();
    for (signal, pause) in [("-STOP", 2_000), ("-CONT", 200)] {
        assert!(Command::new("kill").args([signal, &process]).status().expect("kill is there").success());
        std::thread::sleep(Duration::from_millis(pause));
    }
    let mut stderr = running.0.stderr.take().expect("piped");
    end(running);
    let mut said = String::new();
    stderr.read_to_string(&mut said).expect("text");
    assert!(
        said.contains("the process stood still for 2.") || said.contains("the process stood still for 1.9"),
        "{said}"
    );
    assert!(said.contains(" s, which no batch is charged"), "{said}");
}

#[test]
fn host_names_and_bare_ports_are_taken() {
    for listen in ["localhost:0", ":0", "0"] {
        let (_running, line) = start(&["--listen", listen, "--metrics", "localhost:0", "--verifiers", "1"]);
        assert!(line.starts_with("listening on 127.0.0.1:"), "{listen}: {line}");
    }
    let (_running, line) = start(&["--set", "pool.listen=localhost:0", "--verifiers", "1"]);
    assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
}

/// A pool serves on where it cannot say that it does, and tells what its devices need on standard error.
#[cfg(target_os = "linux")]
#[test]
fn a_greeting_that_cannot_be_printed_costs_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
    let serve = ["--listen", "0", "--verifiers", "1"];
    let mut running = Running(pool().args(serve).stdout(full).spawn().expect("it starts"));
    let mut said = BufReader::new(running.0.stderr.take().expect("piped")).lines();
    let mut line = || said.next().expect("a line").expect("text");
    assert!(line().starts_with("cannot print: "));
    assert!(line().starts_with("listening on 127.0.0.1:"));
    end(running);

    // A reader that has gone does not matter either; the metrics tell that the pool is there.
    let port = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("bound").port().to_string();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let running = Running(pool().args(serve).args(["--metrics", &port]).stdout(writer).spawn().expect("it starts"));
    let began = Instant::now();
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not serve");
        std::thread::sleep(Duration::from_millis(50));
    }
    await_metrics(&port, &["specfleet_verifiers{state=\"idle\"} 1"]);
    end(running);

    for asked in ["--help", "--version"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        let output = pool().arg(asked).stdout(full).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with("error: cannot print: "), "{}", text(&output.stderr));
    }
}

/// Paths on Linux are bytes.
#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_no_unicode_are_taken_as_they_are() {
    use std::os::unix::ffi::OsStringExt;

    let folder = tempfile::tempdir().expect("a folder");
    let odd = |name: &str| folder.path().join(std::ffi::OsString::from_vec([name.as_bytes(), b"\xff"].concat()));
    let (verifier, scenario, certificate) = (odd("verifier"), odd("scenario"), odd("pool.pem"));
    std::fs::create_dir(&verifier).expect("a folder");
    let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets");
    for file in ["verifier/config.json", "verifier/model.safetensors", "tokenizer.json"] {
        let name = file.rsplit('/').next().expect("a name");
        std::fs::copy(assets.join(file), verifier.join(name)).expect("copied");
    }
    std::fs::write(&scenario, "[pool]\nlisten = 0\n").expect("writable");
    let mut command = pool();
    command.arg(&scenario).arg("--verifier").arg(&verifier).arg("--certificate-out").arg(&certificate);
    let mut running = Running(command.spawn().expect("it starts"));
    let mut line = String::new();
    let stdout = running.0.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
    assert!(CertificateDer::from_pem_file(&certificate).is_ok());
    end(running);
}

/// Asks a pool to end, and sees that it does so in order.
fn end(mut running: Running) {
    let asked = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status();
    assert!(asked.expect("kill is there").success());
    assert_eq!(running.0.wait().expect("it ends").code(), Some(143));
}

/// Scrapes until all of these lines are there: the gauges follow a quarter of a second behind.
fn await_metrics(port: &str, wanted: &[&str]) {
    let began = Instant::now();
    loop {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let missing: Vec<&&str> =
            wanted.iter().filter(|start| !answer.lines().any(|line| line.starts_with(**start))).collect();
        if missing.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{missing:?} in\n{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().display().to_string();
    let scraped = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let metrics = scraped.local_addr().expect("bound").to_string();
    let nowhere = format!("{empty}/missing/pool.pem");
    let cases: [(&[&str], &str); 14] = [
        (&["--listen", &port], &port),
        (&["--metrics", &metrics], "--metrics"),
        (&["--metrics", "nowhere"], "--metrics"),
        (
            &["--metrics", "no-such-host.invalid:80"],
            "--metrics: no-such-host.invalid: the host name cannot be resolved",
        ),
        (&["--log", "loud"], "--log"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--listen", "no-such-host.invalid:80"], "no-such-host.invalid: the host name cannot be resolved"),
        (&["--listen", "::1"], "\"::1\" is no address"),
        (&["--verifiers", "0"], "--verifiers"),
        (&["--set", "pool.batch_tokens=0"], "batch_tokens"),
        (&["--set", "pool.nonsense=1"], "nonsense"),
        (&["no-such-scenario.toml"], "no-such-scenario.toml"),
        (&["--verifier", &empty], "config.json"),
        (&["--certificate-out", &nowhere], &nowhere),
    ];
    for (arguments, named) in cases {
        let Output { status, stdout, stderr } = finished(arguments);
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}", stderr = text(&stderr));
        assert_eq!(text(&stderr).trim().lines().count(), 1, "{}", text(&stderr));
        assert!(text(&stderr).contains(named), "{arguments:?}: {}", text(&stderr));
        assert!(stdout.is_empty());
    }
}

/// Runs to the end; a program that goes on serving instead has printed its line and is ended.
fn finished(arguments: &[&str]) -> Output {
    let (mut running, line) = start(arguments);
    assert!(line.is_empty(), "{arguments:?} started: {line}");
    let mut stderr = Vec::new();
    running.0.stderr.take().expect("piped").read_to_end(&mut stderr).expect("readable");
    Output { status: running.0.wait().expect("it ends"), stdout: line.into_bytes(), stderr }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A system with little room: one line and exit code 1, or a pool that serves.
#[cfg(target_os = "linux")]
#[test]
fn a_system_without_room_is_refused_in_one_line() {
    for (limit, says) in [("--nofile=8", "files at the same time"), ("--nofile=16", "files at the same time")] {
        let mut limited = Command::new("prlimit");
        let output = limited.args([limit, env!("CARGO_BIN_EXE_verifier-pool"), "--listen", "127.0.0.1:0"]).output();
        let output = output.expect("prlimit runs");
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{limit}: {error}");
        assert!(error.lines().count() == 1 && error.contains(says), "{limit}: {error}");
    }
}
