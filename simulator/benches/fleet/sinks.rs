//! Where the records go: to counters, or into the streamed figures that `specfleet simulate` keeps.

use std::sync::Arc;

use specfleet_analysis::{GenerationTally, RunHeader, Scores, StreamSummary, Summary};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::Method;
use specfleet_engine::record::{BatchRecord, GenerationRecord, RoundRecord, RunClock, Source, VerifierRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_simulator::fitted::Fitted;
use specfleet_simulator::{DeviceSink, PoolSink, SHARDS, Totals};

use crate::scene::Scene;

/// Counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    /// Tokens.
    pub(crate) rounds: u64,
    /// Of these, those that an upload led to.
    pub(crate) uploads: u64,
    /// Generations that ended.
    pub(crate) ended: u64,
    /// Their time in the pool's queue.
    pub(crate) queue: Span,
}

impl Count {
    /// The counts of a run.
    pub(crate) fn all<'a>(counts: impl IntoIterator<Item = &'a Count>) -> Count {
        counts.into_iter().fold(Count::default(), |sum, count| Count {
            rounds: sum.rounds + count.rounds,
            uploads: sum.uploads + count.uploads,
            ended: sum.ended + count.ended,
            queue: sum.queue + count.queue,
        })
    }
}

impl DeviceSink for Count {
    fn started(&mut self, _: DeviceId, _: GenerationId, _: u16, _: Time, _: Span) {}

    fn round(&mut self, _: DeviceId, _: GenerationId, record: &RoundRecord) {
        self.rounds += 1;
        self.uploads += u64::from(record.started_upload().is_some());
        self.queue += record.verify_cost().queue_wait;
    }

    fn finished(&mut self, _: GenerationRecord) {
        self.ended += 1;
    }
}

impl PoolSink for Count {
    fn batch(&mut self, _: &BatchRecord) {}

    fn verifier(&mut self, _: &VerifierRecord) {}
}

/// Streamed figures of all devices, as `specfleet simulate` keeps them, less the ledger's rows.
pub(crate) struct Figures {
    /// The figures.
    pub(crate) summary: StreamSummary,
    tallies: Vec<Option<GenerationTally>>,
    fitted: Arc<Fitted>,
}

impl Figures {
    /// Of a shard of `devices`, or (with none) of the pool.
    pub(crate) fn new(empty: &StreamSummary, devices: usize, fitted: &Arc<Fitted>) -> Figures {
        Figures { summary: empty.clone(), tallies: vec![None; devices], fitted: fitted.clone() }
    }
}

/// Runs a scene with streamed figures: their merging and their summary included.
pub(crate) fn with_figures(scene: &Scene, threads: usize) -> (Totals, Summary) {
    let fitted = scene.fitted();
    let mut whole = empty(&scene.method());
    let pool = Figures::new(&whole, 0, &fitted);
    let (totals, sinks, pool) = scene.run(threads, &fitted, |devices| Figures::new(&whole, devices, &fitted), pool);
    for part in sinks.iter().chain([&pool]) {
        whole.merge(&part.summary).expect("all are of one run");
    }
    let summary = whole.finish();
    assert_eq!(summary.generations, u64::from(scene.requests), "every request is answered");
    (totals, summary)
}

/// Figures without records.
fn empty(method: &Method) -> StreamSummary {
    let header = RunHeader {
        run: "bench".into(),
        seed: 1,
        scenario_hash: String::new(),
        faults_injected: 0,
        accounting: 2,
        pool_cost: "fixed".to_owned(),
        clock: RunClock::Emulated,
        repeat: 1,
        seeds: 1,
        noise: Vec::new(),
    };
    StreamSummary::new(header, std::slice::from_ref(method), &["words".to_owned()])
}

impl DeviceSink for Figures {
    fn started(&mut self, device: DeviceId, id: GenerationId, data_set: u16, scheduled: Time, target: Span) {
        self.tallies[(device.0 / SHARDS) as usize] = self.summary.start(id.phase(), data_set, scheduled, target).ok();
    }

    fn round(&mut self, device: DeviceId, _: GenerationId, record: &RoundRecord) {
        let Some(tally) = &mut self.tallies[(device.0 / SHARDS) as usize] else { return };
        tally.round(record, &mut self.summary);
        if matches!(record.source, Source::Skipped | Source::Fallback | Source::Refused) {
            tally.audit(self.fitted.acceptance_at(record.uncertainty) as f32);
        }
    }

    fn finished(&mut self, record: GenerationRecord) {
        if let Some(tally) = self.tallies[(record.device.0 / SHARDS) as usize].take() {
            self.summary.generation(&record, &tally, Scores::default());
        }
    }
}

impl PoolSink for Figures {
    fn batch(&mut self, record: &BatchRecord) {
        self.summary.batch(record).expect("the method is the run's");
    }

    fn verifier(&mut self, record: &VerifierRecord) {
        self.summary.verifier(record).expect("the method is the run's");
    }
}
