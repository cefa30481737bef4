//! What a fleet does: decisions, tokens, uploads, time and joules, by method.

use prometheus::{Counter, Histogram, IntCounter};
use specfleet_engine::record::{BatchRecord, FinishReason, GenerationRecord, RoundRecord, VerifierRecord};
use specfleet_engine::time::Time;

use crate::family;
use crate::labels;
use crate::pool::{PoolMetrics, joules};
use crate::registry::Registry;

/// The metrics of a run: its devices' and its pool's.
#[derive(Debug)]
pub struct FleetMetrics {
    methods: Vec<MethodMetrics>,
    pool: PoolMetrics,
}

/// How far an open generation is; what one round cannot say alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// When its last token was committed.
    last: Option<Time>,
    /// Position of the next judged token in the draft that it belongs to.
    position: u32,
}

/// The series of one method.
#[derive(Debug)]
struct MethodMetrics {
    first_token: Histogram,
    inter_token: Histogram,
    latency: Histogram,
    prompt_tokens: IntCounter,
    tokens: IntCounter,
    decisions: [IntCounter; labels::REASONS.len()],
    sources: [IntCounter; labels::SOURCES.len()],
    finishes: [IntCounter; labels::FINISHES.len()],
    verdicts: IntCounter,
    refused: IntCounter,
    cancelled: IntCounter,
    uplink_bytes: IntCounter,
    downlink_bytes: IntCounter,
    energy: [Counter; 3],
    /// As in the record's times.
    seconds: [Counter; 7],
    draft_steps: IntCounter,
    wasted: IntCounter,
}

impl FleetMetrics {
    /// Registers the families for a run with these methods in this order, all at zero. `generations`: how many the run
    /// will have.
    pub fn new(
        registry: &Registry,
        methods: &[String],
        generations: u64,
        run: &str,
        scenario_hash: &str,
    ) -> FleetMetrics {
        registry.gauges(&family::RUN).with_label_values(&[run, scenario_hash]).set(1);
        let planned = registry.gauges(&family::GENERATIONS_PLANNED).with_label_values::<&str>(&[]);
        planned.set(i64::try_from(generations).unwrap_or(i64::MAX));
        FleetMetrics { methods: series(registry, methods), pool: PoolMetrics::new(registry) }
    }

    /// The pool's part.
    pub fn pool(&self) -> &PoolMetrics {
        &self.pool
    }

    /// A token is committed. `course` belongs to its generation, and starts as the default.
    pub fn round(&self, method: u16, course: &mut Course, record: &RoundRecord) {
        let Some(metrics) = self.methods.get(usize::from(method)) else { return };
        metrics.tokens.inc();
        metrics.decisions[place(&labels::REASONS, record.reason)].inc();
        metrics.sources[place(&labels::SOURCES, record.source)].inc();
        if let Some(cost) = &record.upload {
            metrics.uplink_bytes.inc_by(u64::from(cost.uplink_bytes));
            metrics.downlink_bytes.inc_by(u64::from(cost.downlink_bytes));
        }
        if let Some(last) = course.last.replace(record.committed_at) {
            metrics.inter_token.observe(record.committed_at.since(last).seconds());
        }
        if record.source.is_unseen() {
            return;
        }
        if let Some(cost) = record.answered_request() {
            self.pool.answered(cost.queue_wait, cost.batch_wait);
        }
        if record.judged_upload().is_some() {
            self.pool.judged();
            course.position = 0;
        }
        if record.source.accepted() == Some(true) {
            self.pool.accepted(course.position);
        }
        course.position += 1;
    }

    /// A generation has ended.
    pub fn generation(&self, record: &GenerationRecord) {
        let Some(metrics) = self.methods.get(usize::from(record.id.method)) else { return };
        metrics.finishes[place(&labels::FINISHES, record.finish)].inc();
        metrics.prompt_tokens.inc_by(u64::from(record.prompt_tokens));
        if let Some(first) = record.first_token {
            metrics.first_token.observe(first.since(record.scheduled).seconds());
        }
        if matches!(record.finish, FinishReason::Stop | FinishReason::Length) {
            metrics.latency.observe(record.ended.since(record.scheduled).seconds());
        }
        metrics.verdicts.inc_by(record.uploads.verdicts);
        metrics.refused.inc_by(record.uploads.refused);
        metrics.cancelled.inc_by(record.uploads.cancelled);
        metrics.draft_steps.inc_by(record.counts.draft_steps);
        metrics.wasted.inc_by(record.counts.wasted_drafts);
        let energy = [record.energy.device, record.energy.radio, record.energy.cloud];
        metrics.energy.iter().zip(energy).for_each(|(counter, nanojoules)| counter.inc_by(joules(nanojoules)));
        let times = &record.times;
        let spans = [
            times.draft,
            times.uncertainty,
            times.importance,
            times.overrun,
            times.waiting,
            times.waiting_overrun,
            times.idle,
        ];
        metrics.seconds.iter().zip(spans).for_each(|(counter, span)| counter.inc_by(span.seconds()));
    }

    /// A batch is over.
    pub fn batch(&self, record: &BatchRecord) {
        self.pool.batch(record);
    }

    /// A phase is over for a verifier.
    pub fn verifier(&self, record: &VerifierRecord) {
        self.pool.verifier(record);
    }
}

/// Where `value` stands in the list of all values.
fn place<T: PartialEq, const N: usize>(all: &[T; N], value: T) -> usize {
    all.iter().position(|known| *known == value).expect("invariant: the lists of labels are complete, see their test")
}

fn series(registry: &Registry, methods: &[String]) -> Vec<MethodMetrics> {
    let first_token = registry.histograms(&family::TIME_TO_FIRST_TOKEN);
    let inter_token = registry.histograms(&family::INTER_TOKEN_LATENCY);
    let latency = registry.histograms(&family::REQUEST_LATENCY);
    let prompt_tokens = registry.counters(&family::PROMPT_TOKENS);
    let tokens = registry.counters(&family::GENERATION_TOKENS);
    let decisions = registry.counters(&family::UPLOAD_DECISIONS);
    let sources = registry.counters(&family::TOKENS_COMMITTED);
    let finishes = registry.counters(&family::GENERATIONS);
    let uploads = registry.counters(&family::UPLOADS);
    let uplink_bytes = registry.counters(&family::UPLINK_BYTES);
    let downlink_bytes = registry.counters(&family::DOWNLINK_BYTES);
    let energy = registry.sums(&family::DEVICE_ENERGY);
    let seconds = registry.sums(&family::DEVICE_SECONDS);
    let draft_steps = registry.counters(&family::DRAFT_STEPS);
    let wasted = registry.counters(&family::WASTED_DRAFTS);
    let of = |method: &String| {
        let method = method.as_str();
        MethodMetrics {
            first_token: first_token.with_label_values(&[method]),
            inter_token: inter_token.with_label_values(&[method]),
            latency: latency.with_label_values(&[method]),
            prompt_tokens: prompt_tokens.with_label_values(&[method]),
            tokens: tokens.with_label_values(&[method]),
            decisions: labels::REASONS
                .map(|reason| decisions.with_label_values(&[method, labels::decision(reason), labels::reason(reason)])),
            sources: labels::SOURCES.map(|source| sources.with_label_values(&[method, labels::source(source)])),
            finishes: labels::FINISHES.map(|finish| finishes.with_label_values(&[method, labels::finish(finish)])),
            verdicts: uploads.with_label_values(&[method, "verdict"]),
            refused: uploads.with_label_values(&[method, "refused"]),
            cancelled: uploads.with_label_values(&[method, "cancelled"]),
            uplink_bytes: uplink_bytes.with_label_values(&[method]),
            downlink_bytes: downlink_bytes.with_label_values(&[method]),
            energy: ["device", "radio", "cloud"].map(|part| energy.with_label_values(&[method, part])),
            seconds: ["draft", "uncertainty", "importance", "overrun", "waiting", "waiting_overrun", "idle"]
                .map(|state| seconds.with_label_values(&[method, state])),
            draft_steps: draft_steps.with_label_values(&[method]),
            wasted: wasted.with_label_values(&[method]),
        }
    };
    methods.iter().map(of).collect()
}
