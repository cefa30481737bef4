//! Reads a pool's metrics off the calls of its machine, where no device reports.

use std::collections::BTreeMap;

use specfleet_engine::pool::{Input, JobKind, Output};

use crate::pool::PoolMetrics;

/// Watches the calls of a pool machine. What it keeps is bounded by the batches under way, one per verifier.
#[derive(Debug)]
pub struct PoolObserver {
    metrics: PoolMetrics,
    /// By the number of a batch that is being computed: whether each of its items is a draft.
    running: BTreeMap<u64, Vec<bool>>,
    /// Nobody else counts verdicts.
    verdicts: bool,
}

impl PoolObserver {
    /// Counts what only the machine knows: refusals and restarts. Devices report the rest.
    pub fn beside_devices(metrics: PoolMetrics) -> PoolObserver {
        PoolObserver { metrics, running: BTreeMap::new(), verdicts: false }
    }

    /// Counts the fate of drafts and the waits too, as verifiers computed and uploads were answered. A draft counts even
    /// if its device has stopped waiting for it.
    pub fn alone(metrics: PoolMetrics) -> PoolObserver {
        PoolObserver { metrics, running: BTreeMap::new(), verdicts: true }
    }

    /// The machine was called, and asked for this.
    pub fn handled(&mut self, input: &Input, outputs: &[Output]) {
        if self.verdicts
            && let Input::BatchDone { batch, outcomes, .. } = input
            && let Some(drafts) = self.running.remove(batch)
        {
            for (outcome, _) in outcomes.iter().zip(drafts).filter(|(outcome, draft)| *draft && !outcome.malformed) {
                self.metrics.judged();
                (0..u32::from(outcome.accepted)).for_each(|position| self.metrics.accepted(position));
            }
        }
        outputs.iter().for_each(|output| self.asked(output));
    }

    fn asked(&mut self, output: &Output) {
        match output {
            Output::Refused { reason, .. } => self.metrics.refused(*reason),
            Output::Restart(_) => self.metrics.restarted(),
            Output::Verdict { cost, .. } if self.verdicts => self.metrics.answered(cost.queue_wait, cost.batch_wait),
            Output::Start(batch) if self.verdicts => {
                let drafts = batch.items.iter().map(|item| matches!(item.kind, JobKind::Judge { .. }));
                self.running.insert(batch.batch, drafts.collect());
            }
            // Its verifier has failed: there will be no outcomes.
            Output::Record(record) if !record.completed => {
                self.running.remove(&record.batch);
            }
            _ => {}
        }
    }
}
