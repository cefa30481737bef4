//! What one upload costs the pool machine, from its arrival to its verdict, with its share of the batch: 100,000 open
//! sessions on 64 verifiers in batches of 64, and a million sessions on 4,096.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use specfleet_engine::device::energy::VerifierProfile;
use specfleet_engine::id::{ConnectionId, PhaseId, UploadId};
use specfleet_engine::pool::{
    Batch, Breaker, Input, ItemOutcome, JobKind, JobRequest, Output, PoolMachine, PoolSettings, PriceUpdate,
    QueueOrder, SessionKey,
};
use specfleet_engine::time::{Span, Time};

/// A fleet that uploads as fast as it gets verdicts: each session sends its next upload when the last one is answered.
struct Fleet {
    machine: PoolMachine,
    now: Time,
    out: Vec<Output>,
    /// Tokens of each session.
    lengths: Vec<u32>,
    /// Sessions that are free to upload, in a mixed order.
    idle: Vec<u32>,
    /// Uploads that are kept under way, so that every verifier has a queue.
    backlog: usize,
    under_way: usize,
    batches: std::collections::VecDeque<Batch>,
}

const OUTCOME: ItemOutcome = ItemOutcome { accepted: 1, next: None, malformed: false };

impl Fleet {
    fn new(sessions: u32, verifiers: u16, order: QueueOrder, price_step: f32) -> Fleet {
        let settings = PoolSettings {
            phase: PhaseId::default(),
            verifiers,
            batch_tokens: 4096,
            batch_sequences: 64,
            max_wait: Span(1_000_000),
            batch_time: Span::ZERO,
            order,
            breaker: Breaker { failures: 3, cooldown: Span::from_millis(100) },
            price: PriceUpdate { step: price_step, target_load: 0.8, period: Span::from_millis(100) },
            autoscale: None,
            queue_jobs: u32::MAX,
            queue_tokens: u64::MAX,
            sessions_per_connection: 4,
            kv_tokens: 2_000_000,
            context: 2048,
            end_tokens: vec![],
            retry_after: Span(5_000),
            cost: None,
            profile: VerifierProfile {
                name: "bench".into(),
                source: "bench".into(),
                batch_watts: 300.0,
                idle_watts: 60.0,
            },
        };
        // A stride that is prime to the number of sessions mixes neighbours.
        let idle = (0..sessions).map(|i| (u64::from(i) * 48_271 % u64::from(sessions)) as u32).collect();
        let mut fleet = Fleet {
            machine: PoolMachine::new(Time::ZERO, settings),
            now: Time::ZERO,
            out: Vec::new(),
            lengths: vec![0; sessions as usize],
            idle,
            backlog: usize::from(verifiers) * 128,
            under_way: 0,
            batches: std::collections::VecDeque::new(),
        };
        // Every session is known, and its cache somewhere.
        fleet.verdicts(2 * sessions as usize);
        fleet
    }

    /// Runs until `count` more uploads have their verdict.
    fn verdicts(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            while self.under_way < self.backlog {
                let Some(session) = self.idle.pop() else { break };
                self.upload(session);
            }
            let batch = self.batches.pop_front().expect("the backlog keeps the verifiers busy");
            left = left.saturating_sub(batch.items.len());
            self.finish(&batch);
        }
    }

    fn upload(&mut self, session: u32) {
        let base = self.lengths[session as usize];
        let catch_up = if base == 0 { 60 } else { 3 };
        let request = JobRequest {
            session: SessionKey { connection: ConnectionId(u64::from(session)), session: 1 },
            upload: UploadId(base),
            base,
            catch_up,
            kind: JobKind::Judge { drafts: 1, bonus: false },
            risk: (session % 100) as f32 / 100.0,
            deadline: self.now + Span::from_millis(1_000),
            wanted: Some(self.now + Span::from_millis(u64::from(session % 50))),
        };
        self.lengths[session as usize] = base + catch_up + 1;
        self.under_way += 1;
        self.handle(Input::Upload(request));
    }

    fn finish(&mut self, batch: &Batch) {
        self.now = self.now + Span(20_000);
        let outcomes = vec![OUTCOME; batch.items.len()];
        let (verifier, waited, compute) = (batch.verifier, Span(1_000), Span(2_000_000));
        self.handle(Input::BatchDone { verifier, batch: batch.batch, waited, compute, outcomes });
        for item in &batch.items {
            self.idle.push(item.session.connection.0 as u32);
        }
        self.under_way -= batch.items.len();
        // The next uploads come from sessions that have rested.
        let rested = self.idle.len() / 2;
        let (front, back) = self.idle.split_at_mut(rested);
        let mixed = front.len().min(batch.items.len()).min(back.len());
        let at = (self.now.0 as usize * 7) % (front.len() - mixed + 1);
        let end = back.len();
        front[at..at + mixed].swap_with_slice(&mut back[end - mixed..]);
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(self.now, input, &mut self.out);
        std::hint::black_box(self.machine.poll_timeout());
        for output in self.out.drain(..) {
            if let Output::Start(batch) = output {
                self.batches.push_back(batch);
            }
        }
    }
}

fn uploads(c: &mut Criterion) {
    let cases = [
        ("fifo, 100k sessions, 64 verifiers", 100_000, 64, QueueOrder::Fifo, 0.0),
        ("fifo with price, 100k sessions, 64 verifiers", 100_000, 64, QueueOrder::Fifo, 0.1),
        ("deadline, 100k sessions, 64 verifiers", 100_000, 64, QueueOrder::Deadline, 0.0),
        ("value, 100k sessions, 64 verifiers", 100_000, 64, QueueOrder::Value, 0.0),
        ("fair, 100k sessions, 64 verifiers", 100_000, 64, QueueOrder::Fair, 0.0),
        ("fifo, 1M sessions, 4096 verifiers", 1_000_000, 4096, QueueOrder::Fifo, 0.0),
    ];
    let mut group = c.benchmark_group("pool");
    group.sample_size(10);
    const STEP: usize = 100_000;
    group.throughput(Throughput::Elements(STEP as u64));
    for (name, sessions, verifiers, order, step) in cases {
        let mut fleet = Fleet::new(sessions, verifiers, order, step);
        // Sessions grow by 4 tokens per upload and must stay below the context: they are closed now and then.
        group.bench_function(name, |b| {
            b.iter(|| {
                if fleet.lengths[0] > 1_000 {
                    fleet = Fleet::new(sessions, verifiers, order, step);
                }
                fleet.verdicts(STEP);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, uploads);
criterion_main!(benches);
