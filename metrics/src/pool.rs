//! What a pool does: batches, verifiers, queue, refusals, and how the drafts fare.

use prometheus::{Counter, CounterVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use specfleet_engine::pool::{Activity, RefuseReason};
use specfleet_engine::record::{BatchRecord, VerifierRecord};
use specfleet_engine::time::Span;

use crate::family;
use crate::labels;
use crate::registry::Registry;

/// The metrics of a pool. Cloning shares them; everything may be called from any thread.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    queue_time: Histogram,
    batch_wait: Histogram,
    batch_size: Histogram,
    batch_tokens: Histogram,
    batch_seconds: Histogram,
    completed: IntCounter,
    failed: IntCounter,
    fed_catch_up: IntCounter,
    fed_drafts: IntCounter,
    batch_energy: Counter,
    unclaimed_energy: Counter,
    idle_energy: Counter,
    busy: Counter,
    restarts: IntCounter,
    refusals: IntCounterVec,
    drafts: IntCounter,
    draft_tokens: IntCounter,
    accepted: IntCounter,
    accepted_per_position: IntCounterVec,
    running: IntGauge,
    waiting: IntGauge,
    queued_tokens: IntGauge,
    connections: IntGauge,
    sessions: IntGauge,
    kv_bytes: IntGauge,
    verifiers: IntGaugeVec,
}

/// What a pool says of itself when asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolState<'a> {
    pub running: u64,
    pub waiting: u64,
    /// Tokens of work in them.
    pub queued_tokens: u64,
    pub connections: u64,
    pub sessions: u64,
    /// Bytes of keys and values.
    pub kv_bytes: u64,
    /// What each verifier does.
    pub verifiers: &'a [Activity],
}

impl PoolMetrics {
    /// Registers the families, all at zero.
    pub fn new(registry: &Registry) -> PoolMetrics {
        let histogram = |family| registry.histograms(family).with_label_values::<&str>(&[]);
        let counter = |family| registry.counters(family).with_label_values::<&str>(&[]);
        let gauge = |family| registry.gauges(family).with_label_values::<&str>(&[]);
        let batches = registry.counters(&family::BATCHES);
        let fed = registry.counters(&family::VERIFY_TOKENS);
        let energy: CounterVec = registry.sums(&family::VERIFIER_ENERGY);
        let refusals = registry.counters(&family::REFUSALS);
        let per_position = registry.counters(&family::ACCEPTED_PER_POSITION);
        let verifiers = registry.gauges(&family::VERIFIERS);
        // All series from the start: a rate over one that appears late misses its first step.
        labels::REFUSALS.iter().for_each(|reason| {
            refusals.with_label_values(&[labels::refusal(*reason)]);
        });
        labels::POSITIONS.iter().for_each(|position| {
            per_position.with_label_values(&[position]);
        });
        labels::ACTIVITIES.iter().for_each(|activity| {
            verifiers.with_label_values(&[labels::activity(*activity)]);
        });
        PoolMetrics {
            queue_time: histogram(&family::REQUEST_QUEUE_TIME),
            batch_wait: histogram(&family::BATCH_WAIT),
            batch_size: histogram(&family::BATCH_SIZE),
            batch_tokens: histogram(&family::BATCH_TOKENS),
            batch_seconds: histogram(&family::BATCH_SECONDS),
            completed: batches.with_label_values(&["completed"]),
            failed: batches.with_label_values(&["failed"]),
            fed_catch_up: fed.with_label_values(&["catch-up"]),
            fed_drafts: fed.with_label_values(&["drafts"]),
            batch_energy: energy.with_label_values(&["batch"]),
            unclaimed_energy: energy.with_label_values(&["unclaimed"]),
            idle_energy: energy.with_label_values(&["idle"]),
            busy: registry.sums(&family::VERIFIER_BUSY).with_label_values::<&str>(&[]),
            restarts: counter(&family::VERIFIER_RESTARTS),
            refusals,
            drafts: counter(&family::DRAFTS),
            draft_tokens: counter(&family::DRAFT_TOKENS),
            accepted: counter(&family::ACCEPTED_TOKENS),
            accepted_per_position: per_position,
            running: gauge(&family::REQUESTS_RUNNING),
            waiting: gauge(&family::REQUESTS_WAITING),
            queued_tokens: gauge(&family::QUEUED_TOKENS),
            connections: gauge(&family::CONNECTIONS),
            sessions: gauge(&family::SESSIONS),
            kv_bytes: gauge(&family::KV_BYTES),
            verifiers,
        }
    }

    /// A batch is over.
    pub fn batch(&self, record: &BatchRecord) {
        self.fed_catch_up.inc_by(u64::from(record.catch_up));
        self.fed_drafts.inc_by(u64::from(record.work - record.catch_up));
        self.batch_energy.inc_by(joules(record.nanojoules));
        self.unclaimed_energy.inc_by(joules(record.unclaimed_nanojoules));
        self.busy.inc_by(record.compute.seconds());
        if record.completed {
            self.completed.inc();
            self.draft_tokens.inc_by(u64::from(record.drafts));
            self.batch_size.observe(f64::from(record.sequences));
            self.batch_tokens.observe(f64::from(record.work));
            self.batch_seconds.observe(record.compute.seconds());
        } else {
            self.failed.inc();
        }
    }

    /// A phase is over for a verifier.
    pub fn verifier(&self, record: &VerifierRecord) {
        self.idle_energy.inc_by(joules(record.idle_nanojoules));
    }

    /// The pool would not take an upload.
    pub fn refused(&self, reason: RefuseReason) {
        self.refusals.with_label_values(&[labels::refusal(reason)]).inc();
    }

    /// A verifier has failed and is started anew.
    pub fn restarted(&self) {
        self.restarts.inc();
    }

    /// An upload is answered.
    pub fn answered(&self, queue: Span, batch: Span) {
        self.queue_time.observe(queue.seconds());
        self.batch_wait.observe(batch.seconds());
    }

    /// A verifier has judged a draft.
    pub fn judged(&self) {
        self.drafts.inc();
    }

    /// A verifier has accepted the token at this position of a draft.
    pub fn accepted(&self, position: u32) {
        self.accepted.inc();
        // No draft is longer, by the engine's own bound.
        let position = (position as usize).min(labels::POSITIONS.len() - 1);
        self.accepted_per_position.with_label_values(&[labels::POSITIONS[position]]).inc();
    }

    /// What the pool says of itself now.
    pub fn state(&self, state: &PoolState<'_>) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.running, state.running);
        set(&self.waiting, state.waiting);
        set(&self.queued_tokens, state.queued_tokens);
        set(&self.connections, state.connections);
        set(&self.sessions, state.sessions);
        set(&self.kv_bytes, state.kv_bytes);
        for activity in labels::ACTIVITIES {
            let count = state.verifiers.iter().filter(|now| **now == activity).count();
            set(&self.verifiers.with_label_values(&[labels::activity(activity)]), count as u64);
        }
    }
}

pub(crate) fn joules(nanojoules: u64) -> f64 {
    nanojoules as f64 * 1e-9
}
