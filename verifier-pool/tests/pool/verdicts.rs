//! Verdicts are those of a direct computation, whatever the batch and the cache.

use specfleet_engine::acceptance::Next;
use specfleet_engine::device::payload::{Payload, Values};
use specfleet_engine::id::{PhaseId, UploadId};
use specfleet_engine::pool::RefuseReason;
use specfleet_engine::record::{BatchRecord, UploadCounts};
use specfleet_engine::time::Span;
use specfleet_engine::wire::{ClientFrame, ServerFrame, Upload, UploadJob};
use verifier_pool::PoolEvent;

use crate::common::client::Client;
use crate::common::direct::{judge, key, upload_of, verdict, written};
use crate::common::model::{Random, VOCAB, embedded, tiny};
use crate::common::world::{World, run};

/// A generation as a device runs it: what it has committed, and what the pool knows of that.
pub(crate) struct Generation {
    random: Random,
    session: u32,
    prompt: u32,
    tokens: Vec<u32>,
    /// Leading tokens that the pool has.
    known: usize,
    uploads: u32,
}

impl Generation {
    pub(crate) fn new(seed: u64, session: u32, prompt_tokens: usize) -> Generation {
        let mut random = Random(seed);
        let tokens = random.tokens(prompt_tokens, VOCAB);
        Generation { random, session, prompt: seed as u32, tokens, known: 0, uploads: 0 }
    }

    pub(crate) fn next_upload(&mut self) -> Upload {
        self.uploads += 1;
        // Tokens that the device has committed by itself meanwhile.
        let skipped = self.random.below(3);
        let skipped = self.random.tokens(skipped, VOCAB);
        self.tokens.extend(skipped);
        let key = key(self.prompt, self.tokens.len() as u32);
        let new = (self.known as u32, &self.tokens[self.known..]);
        judge(&mut self.random, VOCAB, (self.session, self.uploads), new, key)
    }

    /// One upload and its verdict, which must be the verifier's.
    pub(crate) async fn round(&mut self, world: &World, client: &mut Client) {
        let upload = self.next_upload();
        client.upload(&upload).await;
        self.take_verdict(world, client, &upload).await;
    }

    pub(crate) async fn take_verdict(&mut self, world: &World, client: &mut Client, upload: &Upload) {
        let answer = client.verdict(upload.upload).await;
        assert_eq!((answer.accepted, answer.next.clone()), verdict(&world.model, &self.tokens, upload));
        assert!(!answer.more);
        assert!(answer.cost.fed_tokens >= 1 && answer.cost.nanojoules >= answer.cost.paper_nanojoules);
        let UploadJob::Judge { drafts, .. } = &upload.job else { panic!("a judge upload") };
        self.tokens.extend(&drafts[..usize::from(answer.accepted)]);
        self.known = self.tokens.len();
        match answer.next {
            Next::None => {}
            Next::Replacement(token) | Next::Bonus(token) => {
                self.tokens.push(token);
                self.known += 1;
            }
            // Drawn here, so that the pool hears of it with the next upload.
            Next::Resample(_) => self.tokens.extend(self.random.tokens(1, VOCAB)),
        }
    }
}

#[test]
fn uploads_get_the_verdicts_of_a_direct_computation() {
    run(async {
        let world = World::start(tiny(), |_| {}).await;
        let mut client = Client::connect(&world).await;
        let mut generations: Vec<_> = (0..3).map(|n| Generation::new(n + 1, n as u32, 12)).collect();
        for _ in 0..12 {
            for generation in &mut generations {
                generation.round(&world, &mut client).await;
            }
        }
        let status = world.status().await;
        assert_eq!(status.counts, UploadCounts { sent: 36, verdicts: 36, refused: 0, cancelled: 0 });
        assert_eq!((status.sessions, status.connections, status.kv[0].sequences), (3, 1, 3));
        // Caches are used: most of the work would be the prompts again.
        let work: u32 = batches(&world).iter().map(|b| b.work).sum();
        assert!(work < 36 * 9, "{work}");
        world.stop().await;
    });
}

#[test]
fn the_embedded_verifier_answers_like_itself() {
    run(async {
        let world = World::start(embedded(), |_| {}).await;
        let mut client = Client::connect(&world).await;
        let vocab = world.model.shape().vocab;
        let mut random = Random(3);
        let tokens = random.tokens(40, vocab);
        let upload = judge(&mut random, vocab, (1, 1), (0, &tokens), key(0, 0));
        client.upload(&upload).await;
        let answer = client.verdict(UploadId(1)).await;
        assert_eq!((answer.accepted, answer.next), verdict(&world.model, &tokens, &upload));
        world.stop().await;
    });
}

#[test]
fn write_jobs_give_one_verdict_per_token() {
    run(async {
        let prompt = Random(5).tokens(9, VOCAB);
        let expected = written(&tiny(), &prompt, key(5, 0), 12);
        let world = World::start(tiny(), |_| {}).await;
        let mut client = Client::connect(&world).await;
        client.upload(&upload_of(1, 1, 0, &prompt, key(5, 0), UploadJob::Write { limit: 12 })).await;
        for (step, token) in expected.iter().enumerate() {
            let answer = client.verdict(UploadId(1)).await;
            assert_eq!((answer.accepted, answer.next, answer.more), (0, Next::Bonus(*token), step < 11));
        }
        // The session goes on from what was written.
        let mut tokens = prompt.clone();
        tokens.extend(&expected);
        let upload = judge(&mut Random(6), VOCAB, (1, 2), (tokens.len() as u32, &[]), key(5, 12));
        client.upload(&upload).await;
        let answer = client.verdict(UploadId(2)).await;
        assert_eq!((answer.accepted, answer.next), verdict(&world.model, &tokens, &upload));
        world.stop().await;
    });
}

#[test]
fn writing_stops_at_an_end_token() {
    run(async {
        let prompt = Random(5).tokens(9, VOCAB);
        let expected = written(&tiny(), &prompt, key(5, 0), 12);
        let end = expected[5];
        let length = expected.iter().position(|&token| token == end).expect("it is there") + 1;
        let world = World::start(tiny(), |options| options.settings.end_tokens = vec![end]).await;
        let mut client = Client::connect(&world).await;
        client.upload(&upload_of(1, 1, 0, &prompt, key(5, 0), UploadJob::Write { limit: 12 })).await;
        for (step, token) in expected[..length].iter().enumerate() {
            let answer = client.verdict(UploadId(1)).await;
            assert_eq!((answer.next, answer.more), (Next::Bonus(*token), step + 1 < length));
        }
        assert_eq!(world.status().await.counts.verdicts, 1);
        world.stop().await;
    });
}

#[test]
fn connections_batched_together_get_the_verdicts_they_get_alone() {
    run(async {
        // A batch waits until it has two sequences.
        let world = World::start(tiny(), |options| {
            options.settings.max_wait = Span::from_millis(60_000);
            options.settings.batch_sequences = 2;
        })
        .await;
        let mut clients = [Client::connect(&world).await, Client::connect(&world).await];
        let mut generations = [Generation::new(21, 1, 17), Generation::new(22, 1, 5)];
        for _ in 0..8 {
            let uploads = [generations[0].next_upload(), generations[1].next_upload()];
            for (client, upload) in clients.iter_mut().zip(&uploads) {
                client.upload(upload).await;
            }
            for ((client, generation), upload) in clients.iter_mut().zip(&mut generations).zip(&uploads) {
                generation.take_verdict(&world, client, upload).await;
            }
        }
        let batches = batches(&world);
        assert_eq!(batches.len(), 8);
        assert!(batches.iter().all(|b| b.sequences == 2 && b.completed && b.unclaimed_nanojoules == 0));
        world.stop().await;
    });
}

#[test]
fn many_connections_at_once() {
    run(async {
        let world = World::start(tiny(), |options| {
            options.settings.verifiers = 2;
            options.max_connections = 200;
        })
        .await;
        let mut devices = Vec::new();
        for n in 0..200 {
            devices.push((Client::connect(&world).await, Generation::new(n, 1, 10)));
        }
        for _ in 0..3 {
            let uploads: Vec<_> = devices.iter_mut().map(|(_, generation)| generation.next_upload()).collect();
            for ((client, _), upload) in devices.iter_mut().zip(&uploads) {
                client.upload(upload).await;
            }
            for ((client, generation), upload) in devices.iter_mut().zip(&uploads) {
                generation.take_verdict(&world, client, upload).await;
            }
        }
        assert_eq!(world.status().await.counts.verdicts, 600);
        assert!(batches(&world).len() < 600, "uploads of different connections share batches");
        drop(devices);
        world.until_empty().await;
        world.stop().await;
    });
}

#[test]
fn the_timer_starts_a_batch_that_does_not_fill() {
    run(async {
        let world = World::start(tiny(), |options| options.settings.max_wait = Span::from_millis(30)).await;
        let mut client = Client::connect(&world).await;
        Generation::new(1, 1, 10).round(&world, &mut client).await;
        world.stop().await;
    });
}

#[test]
fn a_full_arena_drops_caches_and_changes_nothing() {
    run(async {
        let world = World::start(tiny(), |options| {
            options.settings.kv_tokens = 120;
            options.settings.context = 120;
            options.kv_bytes = 120 * options.model.shape().kv_bytes_per_token;
        })
        .await;
        let mut clients = [Client::connect(&world).await, Client::connect(&world).await];
        let mut generations: Vec<_> = (0..6).map(|n| Generation::new(n + 50, n as u32 / 2, 30)).collect();
        for _ in 0..4 {
            for (index, generation) in generations.iter_mut().enumerate() {
                generation.round(&world, &mut clients[index % 2]).await;
            }
        }
        assert!(world.status().await.kv[0].sequences < 6);
        assert!(batches(&world).iter().all(|b| b.completed));
        world.stop().await;
    });
}

#[test]
fn a_cancelled_upload_ends_silently_and_its_session_goes_on() {
    run(async {
        let world = World::start(tiny(), |options| {
            options.settings.max_wait = Span::from_millis(60_000);
            options.settings.batch_sequences = 2;
        })
        .await;
        let mut client = Client::connect(&world).await;
        let mut cancelled = Generation::new(31, 1, 10);
        client.upload(&cancelled.next_upload()).await;
        world.until(|s| s.outstanding.queued_jobs == 1).await;
        client.say(&ClientFrame::Cancel { session: 1, upload: UploadId(1), at: None }).await;
        world.until(|s| s.counts.cancelled == 1 && s.outstanding.queued_jobs == 0).await;
        // The device sends the same again under another number, and another session fills the batch.
        let again = cancelled.next_upload();
        let mut other = Generation::new(32, 2, 10);
        let filling = other.next_upload();
        client.upload(&again).await;
        client.upload(&filling).await;
        cancelled.take_verdict(&world, &mut client, &again).await;
        other.take_verdict(&world, &mut client, &filling).await;
        for session in [1, 2] {
            client.say(&ClientFrame::Close { session, at: None }).await;
        }
        let status = world.until(|s| s.sessions == 0 && s.kv[0].sequences == 0).await;
        assert_eq!(status.counts, UploadCounts { sent: 3, verdicts: 2, refused: 0, cancelled: 1 });
        world.stop().await;
    });
}

#[test]
fn refusals_are_typed_and_counted() {
    run(async {
        let world = World::start(tiny(), |_| {}).await;
        let mut client = Client::connect(&world).await;
        let good = judge(&mut Random(1), VOCAB, (1, 1), (0, &[3, 4, 5]), key(1, 0));
        let UploadJob::Judge { drafts, payloads, bonus } = good.job.clone() else { panic!("a judge upload") };
        let with = |drafts: &[u32], count: usize| UploadJob::Judge {
            drafts: drafts.to_vec(),
            payloads: vec![payloads[0].clone(); count],
            bonus,
        };
        let outside = VOCAB as u32;
        let bad = [
            (Upload { tokens: vec![1, outside], ..good.clone() }, RefuseReason::Malformed),
            (Upload { tokens: Vec::new(), ..good.clone() }, RefuseReason::Malformed),
            (Upload { job: with(&[outside], 1), ..good.clone() }, RefuseReason::Malformed),
            (Upload { job: with(&[], 0), ..good.clone() }, RefuseReason::Malformed),
            (Upload { job: with(&[1; 9], 9), ..good.clone() }, RefuseReason::Malformed),
            (Upload { job: with(&drafts[..1], 2), ..good.clone() }, RefuseReason::Malformed),
            (Upload { job: wrong_payload(drafts[0]), ..good.clone() }, RefuseReason::Malformed),
            (Upload { job: UploadJob::Write { limit: 0 }, ..good.clone() }, RefuseReason::Malformed),
            (Upload { job: UploadJob::Write { limit: u32::MAX }, ..good.clone() }, RefuseReason::TooLong),
            (Upload { base: u32::MAX, ..good.clone() }, RefuseReason::TooLong),
            (Upload { base: 1, ..good.clone() }, RefuseReason::UnknownBase),
        ];
        for (index, (upload, expected)) in bad.iter().enumerate() {
            client.upload(upload).await;
            match client.hear().await {
                Some(ServerFrame::Refused { session: 1, upload: UploadId(1), reason, .. }) => {
                    assert_eq!(reason, *expected, "number {index}");
                }
                other => panic!("number {index} was not refused: {other:?}"),
            }
        }
        client.upload(&good).await;
        let answer = client.verdict(UploadId(1)).await;
        assert_eq!((answer.accepted, answer.next), verdict(&world.model, &[3, 4, 5], &good));
        let counts = world.status().await.counts;
        assert_eq!(counts, UploadCounts { sent: 12, verdicts: 1, refused: 11, cancelled: 0 });
        world.stop().await;
    });
}

fn wrong_payload(draft: u32) -> UploadJob {
    let short = Payload::Full(Values::B32(vec![0.5, 0.5]));
    UploadJob::Judge { drafts: vec![draft], payloads: vec![short], bonus: false }
}

#[test]
fn a_second_upload_of_the_same_session_is_refused_and_the_first_one_answered() {
    run(async {
        let world = World::start(tiny(), |options| options.settings.max_wait = Span::from_millis(100)).await;
        let mut client = Client::connect(&world).await;
        let mut generation = Generation::new(8, 1, 10);
        let upload = generation.next_upload();
        client.upload(&upload).await;
        client.upload(&upload).await;
        match client.hear().await {
            Some(ServerFrame::Refused { reason: RefuseReason::Busy, .. }) => {}
            other => panic!("not refused: {other:?}"),
        }
        generation.take_verdict(&world, &mut client, &upload).await;
        world.stop().await;
    });
}

#[test]
fn phases_end_with_an_account_of_each_verifier() {
    run(async {
        let world = World::start(tiny(), |options| options.settings.verifiers = 2).await;
        let mut client = Client::connect(&world).await;
        let mut generation = Generation::new(8, 1, 10);
        generation.round(&world, &mut client).await;
        let first = world.pool.next_phase(PhaseId { method: 1, pass: 0 }).await.expect("the pool runs");
        generation.round(&world, &mut client).await;
        let second = world.pool.next_phase(PhaseId { method: 2, pass: 0 }).await.expect("the pool runs");
        assert_eq!((first.len(), second.len()), (2, 2));
        world.until(|_| world.events().len() == 6).await;
        let of: Vec<(bool, u16)> = world
            .events()
            .iter()
            .map(|event| match event {
                PoolEvent::Batch(record) => (true, record.method),
                PoolEvent::Verifier(record) => (false, record.method),
            })
            .collect();
        assert_eq!(of, [(true, 0), (false, 0), (false, 0), (true, 1), (false, 1), (false, 1)]);
        world.stop().await;
    });
}

pub(crate) fn batches(world: &World) -> Vec<BatchRecord> {
    let batch = |event| match event {
        PoolEvent::Batch(record) => Some(record),
        PoolEvent::Verifier(_) => None,
    };
    world.events().into_iter().filter_map(batch).collect()
}
