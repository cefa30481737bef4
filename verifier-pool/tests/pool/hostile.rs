//! Whatever a peer does ends its own connection, with a typed reason, and nobody else's.

use std::time::{Duration, Instant};

use quinn::ConnectionError;
use specfleet_engine::id::UploadId;
use specfleet_engine::wire::{AdmissionToken, ClientFrame, Goodbye, Hello, PROTOCOL_VERSION, ServerFrame, UploadJob};

use super::verdicts::Generation;
use crate::common::client::{Client, Dial, close_code, dial, hello};
use crate::common::direct::{key, upload_of};
use crate::common::model::{Random, tiny};
use crate::common::world::{World, run};

const IDLE: Duration = Duration::from_millis(400);

/// A pool with a short idle timeout and a device at work, which must not notice anything.
async fn with_bystander(test: impl AsyncFnOnce(&World)) {
    let world = World::start(tiny(), |options| options.idle_timeout = IDLE).await;
    let mut bystander = Client::connect(&world).await;
    let mut generation = Generation::new(99, 1, 10);
    generation.round(&world, &mut bystander).await;
    test(&world).await;
    generation.round(&world, &mut bystander).await;
    let status = world.until(|s| s.connections == 1).await;
    assert_eq!((status.sessions, status.kv[0].sequences), (1, 1));
    world.stop().await;
}

/// The goodbye to a peer that sends `bytes` instead of a hello.
async fn goodbye_to(world: &World, bytes: &[u8]) -> Goodbye {
    let mut client = Client::open(world, Dial::default()).await;
    client.say_bytes(bytes).await;
    client.goodbye().await.1
}

#[test]
fn bytes_that_are_no_frame() {
    run(with_bystander(async |world| {
        let mut random = Random(1);
        for _ in 0..20 {
            let length = 1 + random.below(300);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            // Long enough for its header, or too long by it: never a frame to wait for.
            bytes.splice(0..0, ((length as u32) << (16 * random.below(2) as u32)).to_le_bytes());
            let goodbye = goodbye_to(world, &bytes).await;
            assert!(matches!(goodbye, Goodbye::Malformed | Goodbye::OutOfOrder), "{goodbye:?}");
        }
        assert_eq!(goodbye_to(world, &u32::MAX.to_le_bytes()).await, Goodbye::Malformed);
        // The same in the middle of a conversation.
        let mut client = Client::connect(world).await;
        client.say_bytes(&[3, 0, 0, 0, 255, 255, 255]).await;
        assert_eq!(client.goodbye().await.1, Goodbye::Malformed);
    }));
}

#[test]
fn another_alpn_fails_the_handshake() {
    run(with_bystander(async |world| {
        let (address, certificate) = (world.pool.local_addr(), world.pool.certificate_der());
        for alpn in [&b"specfleet/0"[..], b"h3"] {
            let how = Dial { alpn: alpn.to_vec(), ..Dial::default() };
            let error = dial(address, certificate, how).await.expect_err("another protocol");
            // TLS alert 120, no_application_protocol.
            let ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
            assert_eq!(u64::from(close.error_code), 0x100 + 120);
        }
    }));
}

#[test]
fn a_hello_that_does_not_fit() {
    run(with_bystander(async |world| {
        let ours = hello(&world.model);
        let cases = [
            (Hello { protocol: 0, ..ours.clone() }, Goodbye::Protocol { ours: PROTOCOL_VERSION, theirs: 0 }),
            (Hello { tokenizer: [0; 32], ..ours.clone() }, Goodbye::Tokenizer),
            (Hello { vocab: 1, ..ours.clone() }, Goodbye::Tokenizer),
        ];
        for (hello, expected) in cases {
            let mut client = Client::open(world, Dial::default()).await;
            client.say(&ClientFrame::Hello(hello)).await;
            assert_eq!(client.goodbye().await, (Vec::new(), expected));
        }
    }));
}

/// The pool of a run takes the run's own devices and nobody else.
#[test]
fn a_stranger_is_turned_away() {
    run(async {
        let token = verifier_pool::admission_token().expect("random bytes");
        let world = World::start(tiny(), |options| options.admission = token).await;
        for admission in [AdmissionToken::NONE, verifier_pool::admission_token().expect("random bytes")] {
            let mut client = Client::open(&world, Dial::default()).await;
            client.say(&ClientFrame::Hello(Hello { admission, ..hello(&world.model) })).await;
            assert_eq!(client.goodbye().await, (Vec::new(), Goodbye::Stranger));
        }
        let mut client = Client::open(&world, Dial::default()).await;
        client.greet(Hello { admission: token, ..hello(&world.model) }).await;
        drop(client);
        world.stop().await;
    });
}

#[test]
fn frames_out_of_order() {
    run(with_bystander(async |world| {
        let mut client = Client::open(world, Dial::default()).await;
        client.say(&ClientFrame::Close { session: 1, at: None }).await;
        assert_eq!(client.goodbye().await.1, Goodbye::OutOfOrder);
        let mut client = Client::connect(world).await;
        client.say(&ClientFrame::Hello(hello(&world.model))).await;
        assert_eq!(client.goodbye().await.1, Goodbye::OutOfOrder);
    }));
}

#[test]
fn peers_that_say_nothing() {
    run(with_bystander(async |world| {
        let since = Instant::now();
        // No stream; a stream with half a header; neither is idle for QUIC, because they keep their connections alive.
        let (_endpoint, connection) =
            dial(world.pool.local_addr(), world.pool.certificate_der(), Dial::default()).await.expect("a handshake");
        let mut client = Client::open(world, Dial::default()).await;
        client.say_bytes(&[1, 0]).await;
        assert_eq!(close_code(&connection).await, Some(Goodbye::Silent.code()));
        assert_eq!(client.goodbye().await.1, Goodbye::Silent);
        // Well under the default of 5 s, and with room for a busy machine.
        assert!(since.elapsed() < IDLE * 10);
    }));
}

#[test]
fn peers_that_vanish() {
    run(with_bystander(async |world| {
        // One after an upload, one in mid-frame; neither sends a packet again.
        let how = || Dial { keep_alive: None, ..Dial::default() };
        let mut idle = Client::connect_as(world, how()).await;
        Generation::new(3, 1, 10).round(world, &mut idle).await;
        let mut cut = Client::connect_as(world, how()).await;
        let upload = upload_of(1, 1, 0, &[1, 2, 3], key(0, 0), UploadJob::Write { limit: 5 });
        let bytes = cut.encoded(&ClientFrame::Upload(Box::new(upload)));
        cut.say_bytes(&bytes[..bytes.len() / 2]).await;
        let status = world.until(|s| s.connections == 3).await;
        assert_eq!(status.sessions, 2);
        let since = Instant::now();
        world.until(|s| s.connections == 1 && s.sessions == 1).await;
        // Well under the default of 5 s, and with room for a busy machine.
        assert!(since.elapsed() < IDLE * 10);
    }));
}

#[test]
fn a_stream_that_ends_within_a_frame() {
    run(with_bystander(async |world| {
        let mut client = Client::connect(world).await;
        client.say_bytes(&[9, 0, 0, 0, 1]).await;
        client.send.finish().expect("open");
        assert_eq!(client.goodbye().await.1, Goodbye::Malformed);
    }));
}

#[test]
fn a_device_that_does_not_read() {
    run(with_bystander(async |world| {
        let how = Dial { window: 64, ..Dial::default() };
        let mut client = Client::connect_as(world, how).await;
        // Each of these is refused, and the refusals pile up.
        let upload = upload_of(1, 7, 5, &[1], key(0, 0), UploadJob::Write { limit: 1 });
        for _ in 0..200 {
            client.upload(&upload).await;
        }
        assert_eq!(close_code(&client.connection).await, Some(Goodbye::SlowReader.code()));
    }));
}

#[test]
fn a_device_that_leaves_in_the_middle_of_a_batch() {
    run(with_bystander(async |world| {
        for abrupt in [true, false] {
            let mut client = Client::connect(world).await;
            client.upload(&upload_of(1, 1, 0, &[1, 2, 3], key(0, 0), UploadJob::Write { limit: 200 })).await;
            client.verdict(UploadId(1)).await;
            if abrupt {
                client.connection.close(0_u32.into(), b"");
            } else {
                client.send.finish().expect("open");
            }
            world.until(|s| s.connections == 1 && s.sessions == 1 && s.kv[0].sequences == 1).await;
        }
        let counts = world.status().await.counts;
        assert_eq!(counts.cancelled, 2);
    }));
}

#[test]
fn connections_beyond_the_limit_are_told() {
    run(async {
        let world = World::start(tiny(), |options| options.max_connections = 2).await;
        let first = Client::connect(&world).await;
        let _second = Client::connect(&world).await;
        let mut beyond = Client::open(&world, Dial::default()).await;
        beyond.say(&ClientFrame::Hello(hello(&world.model))).await;
        assert_eq!(beyond.goodbye().await, (Vec::new(), Goodbye::Full));
        // A place that is given up is free again.
        first.connection.close(0_u32.into(), b"");
        world.until(|s| s.connections == 1).await;
        let mut third = Client::connect(&world).await;
        Generation::new(3, 1, 10).round(&world, &mut third).await;
        world.stop().await;
    });
}

#[test]
fn a_second_stream_is_not_to_be_had() {
    run(with_bystander(async |world| {
        let client = Client::connect(world).await;
        let second = tokio::time::timeout(IDLE / 2, client.connection.open_bi()).await;
        assert!(second.is_err(), "the pool grants one stream");
        let uni = tokio::time::timeout(IDLE / 2, client.connection.open_uni()).await;
        assert!(uni.is_err(), "and it is bidirectional");
    }));
}

#[test]
fn too_many_sessions_are_refused_one_by_one() {
    run(with_bystander(async |world| {
        let mut client = Client::connect(world).await;
        let mut refused = 0;
        for session in 0..10 {
            client.upload(&upload_of(session, 1, 0, &[1, 2, 3], key(0, 0), UploadJob::Write { limit: 1 })).await;
            match client.hear().await {
                Some(ServerFrame::Verdict(_)) => {}
                Some(ServerFrame::Refused { .. }) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(refused, 6);
    }));
}
