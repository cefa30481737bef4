//! The pool in metrics: what both programs that run one show of it.

use specfleet_engine::pool::Activity;
use specfleet_metrics::{PoolMetrics, PoolObserver, PoolState};

use crate::options::{PoolCall, PoolJournal};
use crate::status::PoolStatus;

/// Shows each call of the pool's machine to the observer.
pub fn observed(mut observer: PoolObserver) -> PoolJournal {
    Box::new(move |_, call, outputs| {
        if let PoolCall::Handle(input) = call {
            observer.handled(input, outputs);
        }
    })
}

impl PoolStatus {
    /// Sets the gauges.
    pub fn show(&self, metrics: &PoolMetrics) {
        let verifiers: Vec<Activity> = self.verifiers.iter().map(|verifier| verifier.activity).collect();
        metrics.state(&PoolState {
            running: self.outstanding.running as u64,
            waiting: u64::from(self.outstanding.queued_jobs),
            queued_tokens: self.outstanding.queued_tokens,
            connections: self.connections as u64,
            sessions: self.sessions as u64,
            kv_bytes: self.kv.iter().map(|held| held.bytes as u64).sum(),
            verifiers: &verifiers,
        });
    }
}
