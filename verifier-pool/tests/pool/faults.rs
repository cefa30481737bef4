//! Verifiers that die lose nothing but time.

use specfleet_engine::id::{PhaseId, UploadId, VerifierId};
use specfleet_engine::record::UploadCounts;
use verifier_pool::PoolError;

use super::verdicts::{Generation, batches};
use crate::common::client::Client;
use crate::common::direct::{judge, key, verdict};
use crate::common::model::{Random, embedded, tiny};
use crate::common::world::{World, run};

/// A prompt that keeps the embedded verifier busy long enough to be killed meanwhile.
const LONG: usize = 480;

#[test]
fn a_kill_in_the_middle_of_a_batch_loses_nothing() {
    run(async {
        let world = World::start(embedded(), |_| {}).await;
        let mut client = Client::connect(&world).await;
        let vocab = world.model.shape().vocab;
        let mut random = Random(1);
        let tokens = random.tokens(LONG, vocab);
        let upload = judge(&mut random, vocab, (1, 1), (0, &tokens), key(0, 0));
        client.upload(&upload).await;
        world.until(|s| s.outstanding.running == 1).await;
        world.pool.kill_verifier(VerifierId(0)).await.expect("it is there");
        let answer = client.verdict(UploadId(1)).await;
        assert_eq!((answer.accepted, answer.next), verdict(&world.model, &tokens, &upload));
        world.until(|_| batches(&world).len() == 2).await;
        let batches = batches(&world);
        assert_eq!((batches[0].completed, batches[1].completed), (false, true));
        assert_eq!(batches[0].unclaimed_nanojoules, batches[0].nanojoules);
        let counts = world.status().await.counts;
        assert_eq!(counts, UploadCounts { sent: 1, verdicts: 1, refused: 0, cancelled: 0 });
        world.stop().await;
    });
}

#[test]
fn kills_while_idle_and_in_a_row_work_too() {
    run(async {
        let world = World::start(tiny(), |options| options.settings.verifiers = 2).await;
        let mut client = Client::connect(&world).await;
        let mut generation = Generation::new(4, 1, 10);
        generation.round(&world, &mut client).await;
        let kill = |verifier| world.pool.kill_verifier(VerifierId(verifier));
        let (a, b, c) = tokio::join!(kill(0), kill(0), kill(1));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        // All caches are lost, and are built again from the session store.
        assert!(world.status().await.kv.iter().all(|kv| kv.sequences == 0));
        for _ in 0..3 {
            generation.round(&world, &mut client).await;
        }
        let accounts = world.pool.next_phase(PhaseId { method: 1, pass: 0 }).await.expect("the pool runs");
        assert_eq!(accounts.iter().map(|a| a.restarts).collect::<Vec<_>>(), [2, 1]);
        assert!(matches!(
            world.pool.kill_verifier(VerifierId(2)).await,
            Err(PoolError::UnknownVerifier { count: 2, .. })
        ));
        world.stop().await;
    });
}

#[test]
fn generations_survive_a_storm_of_kills() {
    run(async {
        let world = World::start(tiny(), |options| options.settings.verifiers = 2).await;
        let generations = async {
            let runs = (0..6).map(|n| {
                let world = &world;
                async move {
                    let mut client = Client::connect(world).await;
                    let mut generation = Generation::new(n + 70, 1, 20);
                    for _ in 0..25 {
                        generation.round(world, &mut client).await;
                    }
                }
            });
            join_all(runs).await;
        };
        let kills = async {
            for n in 0..30 {
                world.pool.kill_verifier(VerifierId(n % 2)).await.expect("it is there");
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::join!(generations, kills);
        let status = world.status().await;
        assert_eq!(status.counts, UploadCounts { sent: 150, verdicts: 150, refused: 0, cancelled: 0 });
        assert_eq!(status.outstanding, Default::default());
        world.until_empty().await;
        world.stop().await;
    });
}

/// Runs all of them at once.
async fn join_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        waiting.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
