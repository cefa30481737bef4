//! Starting and stopping.

use std::time::Duration;

use specfleet_engine::pool::RefuseReason;
use specfleet_engine::time::Span;
use specfleet_engine::wire::{Goodbye, ServerFrame, UploadJob};
use tokio::sync::mpsc;
use verifier_pool::{PoolError, PoolOptions, TlsOptions};

use super::verdicts::Generation;
use crate::common::client::{Client, Dial, dial};
use crate::common::direct::{key, upload_of};
use crate::common::model::tiny;
use crate::common::world::{World, options, run};

#[test]
fn shutdown_answers_what_it_has_and_says_goodbye() {
    run(async {
        let world = World::start(tiny(), |options| options.settings.max_wait = Span::from_millis(150)).await;
        let mut client = Client::connect(&world).await;
        let mut idle = Client::connect(&world).await;
        let mut generation = Generation::new(1, 1, 10);
        let upload = generation.next_upload();
        client.upload(&upload).await;
        world.until(|s| s.outstanding.queued_jobs == 1).await;
        let (pool, world) = (world.pool.clone(), &world);
        let shutdown = pool.shutdown(Duration::from_secs(5));
        let devices = async {
            // Until the pool is closing, this one is refused because it builds on nothing.
            let unknown = upload_of(1, 1, 5, &[1], key(0, 0), UploadJob::Write { limit: 1 });
            loop {
                idle.upload(&unknown).await;
                match idle.hear().await {
                    Some(ServerFrame::Refused { reason: RefuseReason::UnknownBase, .. }) => {}
                    Some(ServerFrame::Refused { reason: RefuseReason::Closing, .. }) => break,
                    other => panic!("not refused: {other:?}"),
                }
            }
            generation.take_verdict(world, &mut client, &upload).await;
            assert_eq!(client.goodbye().await, (Vec::new(), Goodbye::Closing));
            assert_eq!(idle.goodbye().await, (Vec::new(), Goodbye::Closing));
        };
        tokio::join!(shutdown, devices);
        assert!(matches!(world.pool.status().await, Err(PoolError::Stopped)));
        let again = dial(world.pool.local_addr(), world.pool.certificate_der(), Dial::default());
        assert!(!matches!(tokio::time::timeout(Duration::from_millis(300), again).await, Ok(Ok(_))));
    });
}

#[test]
fn shutdown_keeps_its_deadline() {
    run(async {
        let world = World::start(tiny(), |options| options.settings.max_wait = Span::from_millis(60_000)).await;
        let mut client = Client::connect(&world).await;
        client.upload(&Generation::new(1, 1, 10).next_upload()).await;
        world.until(|s| s.outstanding.queued_jobs == 1).await;
        let since = std::time::Instant::now();
        world.pool.shutdown(Duration::from_millis(200)).await;
        assert!(since.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_full_event_queue_slows_the_pool_down_and_loses_nothing() {
    run(async {
        let (events, mut records) = mpsc::channel(1);
        let world = World::start(tiny(), |options| options.events = events).await;
        let mut client = Client::connect(&world).await;
        let generation = async {
            let mut generation = Generation::new(1, 1, 10);
            for _ in 0..6 {
                generation.round(&world, &mut client).await;
            }
        };
        let recorder = async {
            let mut seen = 0;
            while seen < 6 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                seen += u32::from(records.recv().await.is_some());
            }
        };
        tokio::join!(generation, recorder);
        world.stop().await;
    });
}

async fn refusal(change: impl FnOnce(&mut PoolOptions)) -> String {
    let (events, _records) = mpsc::channel(1);
    let mut options = options(tiny(), events);
    change(&mut options);
    verifier_pool::start(options).await.err().expect("it cannot start").to_string()
}

#[test]
fn what_keeps_a_pool_from_starting_is_named() {
    run(async {
        let world = World::start(tiny(), |_| {}).await;
        let address = world.pool.local_addr();
        let text = refusal(|options| options.listen = address.into()).await;
        assert!(text.contains(&address.to_string()) && text.contains("in use"), "{text}");

        let folder = tempfile::tempdir().expect("a folder");
        let (missing, garbage) = (folder.path().join("missing.pem"), folder.path().join("garbage.pem"));
        std::fs::write(&garbage, "no certificate").expect("writable");
        for path in [&missing, &garbage] {
            let text = refusal(|options| {
                options.tls = TlsOptions::Pem { certificate: path.clone(), key: garbage.clone(), client_ca: None };
            })
            .await;
            assert!(text.contains(&path.display().to_string()) && text.contains("certificate chain"), "{text}");
        }

        let text = refusal(|options| options.settings.context = 257).await;
        assert!(text.contains("257") && text.contains("256"), "{text}");
        let text = refusal(|options| options.kv_bytes -= 1).await;
        assert!(text.contains("4096 tokens"), "{text}");
        let text = refusal(|options| options.settings.verifiers = 0).await;
        assert!(text.contains("at least 1"), "{text}");
        world.stop().await;
    });
}

#[test]
fn pem_files_and_client_certificates() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
            std::fs::write(path(&format!("{name}.pem")), made.cert.pem()).expect("writable");
            std::fs::write(path(&format!("{name}.key")), made.signing_key.serialize_pem()).expect("writable");
            made
        };
        make("localhost");
        let device = make("device");
        let world = World::start(tiny(), |options| {
            options.tls = TlsOptions::Pem {
                certificate: path("localhost.pem"),
                key: path("localhost.key"),
                client_ca: Some(path("device.pem")),
            };
        })
        .await;
        let file = std::fs::read_to_string(path("localhost.pem")).expect("written above");
        assert_eq!(world.pool.certificate_pem().lines().collect::<Vec<_>>(), file.lines().collect::<Vec<_>>());
        let key = rustls::pki_types::PrivateKeyDer::try_from(device.signing_key.serialize_der()).expect("a key");
        let identity = Some((device.cert.der().clone(), key));
        let mut known = Client::connect_as(&world, Dial { identity, ..Dial::default() }).await;
        Generation::new(1, 1, 10).round(&world, &mut known).await;
        // TLS 1.3 lets a client think that it is in until the server has looked at its certificate.
        if let Ok((_endpoint, connection)) =
            dial(world.pool.local_addr(), world.pool.certificate_der(), Dial::default()).await
        {
            let reason = connection.closed().await.to_string();
            assert!(reason.to_lowercase().contains("certificate"), "{reason}");
        }
        world.stop().await;
    });
}
