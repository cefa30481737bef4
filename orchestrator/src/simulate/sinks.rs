//! Where a simulation's records go: figures of every device into a streamed summary, and every n-th device whole into the
//! ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use specfleet_analysis::{GenerationTally, Scores, StreamSummary};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{
    AuditRecord, BatchRecord, FinishReason, GenerationRecord, Provenance, RoundRecord, VerifierRecord,
};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{LedgerError, RunWriter};
use specfleet_simulator::fitted::Fitted;
use specfleet_simulator::{DeviceSink, PoolSink, SHARDS};

use crate::live::{Batches, Seen};

/// A generation with everything that was recorded of it.
pub(super) struct Kept {
    pub record: GenerationRecord,
    pub rounds: Vec<RoundRecord>,
}

/// What one shard records.
pub(super) struct ShardSink {
    /// The figures of all its devices.
    pub summary: StreamSummary,
    /// What they have done so far.
    pub seen: Seen,
    tallies: Vec<Option<GenerationTally>>,
    /// Devices whose number is a multiple of this are kept whole.
    keep_every: u32,
    /// Rounds of open generations of kept devices.
    open: BTreeMap<u32, Vec<RoundRecord>>,
    /// Generations of kept devices that are over.
    done: Vec<Kept>,
    /// Knows what a verifier would have said about skipped tokens.
    fitted: Option<Arc<Fitted>>,
}

impl ShardSink {
    /// A sink for a shard of `devices`.
    pub(super) fn new(
        summary: StreamSummary,
        devices: usize,
        keep_every: u32,
        fitted: Option<Arc<Fitted>>,
    ) -> ShardSink {
        let tallies = vec![None; devices];
        ShardSink {
            summary,
            seen: Seen::default(),
            tallies,
            keep_every,
            open: BTreeMap::new(),
            done: Vec::new(),
            fitted,
        }
    }

    /// The kept generations that have ended since the last call, in the order of their ends on this shard.
    pub(super) fn take(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.done)
    }

    fn keeps(&self, device: DeviceId) -> bool {
        device.0.is_multiple_of(self.keep_every)
    }
}

impl DeviceSink for ShardSink {
    fn started(&mut self, device: DeviceId, id: GenerationId, data_set: u16, scheduled: Time, target: Span) {
        // Methods and data sets are those of the run's own lists.
        self.tallies[(device.0 / SHARDS) as usize] = self.summary.start(id.phase(), data_set, scheduled, target).ok();
    }

    fn round(&mut self, device: DeviceId, _: GenerationId, record: &RoundRecord) {
        self.seen.round(record);
        if let Some(tally) = &mut self.tallies[(device.0 / SHARDS) as usize] {
            tally.round(record, &mut self.summary);
            if let Some(fitted) = self.fitted.as_ref().filter(|_| record.source.is_unseen()) {
                tally.audit(fitted.acceptance_at(record.uncertainty) as f32);
            }
        }
        if self.keeps(device) {
            self.open.entry(device.0).or_default().push(*record);
        }
    }

    fn finished(&mut self, mut record: GenerationRecord) {
        let device = record.device;
        self.seen.generation(&record);
        // A dropped request never started: what is under way on its device is another generation's.
        let dropped = record.finish == FinishReason::Dropped;
        let tally = if dropped {
            self.summary.start(record.id.phase(), record.data_set, record.scheduled, record.latency_target).ok()
        } else {
            self.tallies[(device.0 / SHARDS) as usize].take()
        };
        if let Some(tally) = tally {
            self.summary.generation(&record, &tally, Scores::default());
        }
        if self.keeps(device) {
            let rounds = if dropped { None } else { self.open.remove(&device.0) }.unwrap_or_default();
            if record.tokens.is_empty() {
                // Drawn answers keep no text; what they committed stands in the rounds.
                record.tokens = rounds.iter().map(|round| round.token).collect();
            }
            self.done.push(Kept { record, rounds });
        }
    }
}

/// What the pool records.
pub(super) struct PoolRows {
    pub summary: StreamSummary,
    /// What verifiers have done so far.
    pub done: Batches,
    batches: Vec<BatchRecord>,
    verifiers: Vec<VerifierRecord>,
    /// Batches whose number is a multiple of this are kept.
    keep_every: u64,
}

impl PoolRows {
    /// A sink that keeps every n-th batch.
    pub(super) fn new(summary: StreamSummary, keep_every: u32) -> PoolRows {
        PoolRows {
            summary,
            done: Batches::default(),
            batches: Vec::new(),
            verifiers: Vec::new(),
            keep_every: u64::from(keep_every),
        }
    }

    /// Hands what was kept to the ledger.
    pub(super) fn store(&mut self, writer: &mut RunWriter) -> Result<(), LedgerError> {
        for batch in self.batches.drain(..) {
            writer.append_batch(batch)?;
        }
        for verifier in self.verifiers.drain(..) {
            writer.append_verifier(verifier, Provenance::Modelled)?;
        }
        Ok(())
    }
}

impl PoolSink for PoolRows {
    fn batch(&mut self, record: &BatchRecord) {
        // Methods are those of the run's own list.
        let _ = self.summary.batch(record);
        self.done.batch(record);
        if record.batch.is_multiple_of(self.keep_every) {
            self.batches.push(*record);
        }
    }

    fn verifier(&mut self, record: &VerifierRecord) {
        let _ = self.summary.verifier(record);
        self.verifiers.push(*record);
    }
}

/// What the fitted verifier says about the tokens of a generation that it has not seen.
pub(super) fn fitted_audit(fitted: &Fitted, kept: &Kept) -> Option<AuditRecord> {
    let unseen = || kept.rounds.iter().filter(|round| round.source.is_unseen());
    let positions: Vec<u32> = unseen().map(|round| round.position).collect();
    let probabilities = unseen().map(|round| fitted.acceptance_at(round.uncertainty) as f32);
    (!positions.is_empty()).then(|| AuditRecord {
        id: kept.record.id,
        positions,
        accept_probabilities: probabilities.collect(),
    })
}
