//! Does a run as a whole pay for what its pool did? What the batches of a phase were charged must be what its generations paid
//! and what was claimed by nobody.

use std::collections::BTreeMap;

use specfleet_engine::id::PhaseId;
use specfleet_engine::method::Method;
use specfleet_engine::record::{BETWEEN_METHODS, BatchRecord, GenerationRecord};
use thiserror::Error;

/// What a pool charged for its batches and who paid for it, phase by phase, in nanojoules.
#[derive(Clone, Debug, Default)]
pub struct PoolAccount(BTreeMap<PhaseId, PhaseAccount>);

/// The same of one phase.
#[derive(Clone, Copy, Debug, Default)]
struct PhaseAccount {
    batches: u128,
    unclaimed: u128,
    generations: u128,
    /// Uploads that a device had given up, answered or not.
    given_up: u64,
}

/// Work of a pool that was not paid for, or paid for and not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the pool's batches were charged {batches} nJ, but generations paid {generations} nJ of it and {unclaimed} nJ were claimed \
     by nobody"
)]
pub struct Unpaid {
    /// What the batches were charged.
    pub batches: u128,
    /// What the generations paid.
    pub generations: u128,
    /// The shares of uploads that nobody waited for any more when their batch ended.
    pub unclaimed: u128,
}

impl PoolAccount {
    /// Adds a batch. What the pool does between the methods is no method's.
    pub fn batch(&mut self, batch: &BatchRecord) {
        if batch.method == BETWEEN_METHODS {
            return;
        }
        let phase = self.0.entry(PhaseId { method: batch.method, pass: batch.pass }).or_default();
        phase.batches += u128::from(batch.nanojoules);
        phase.unclaimed += u128::from(batch.unclaimed_nanojoules);
    }

    /// Adds a closed generation.
    pub fn generation(&mut self, generation: &GenerationRecord) {
        let phase = self.0.entry(generation.id.phase()).or_default();
        phase.generations += u128::from(generation.energy.cloud);
        phase.given_up += generation.uploads.cancelled;
    }

    /// Whether the pool did anything.
    pub fn has_batches(&self) -> bool {
        self.0.values().any(|phase| phase.batches > 0)
    }

    /// The phases that do not close, of a run of which every generation was closed.
    pub fn unpaid(&self) -> impl Iterator<Item = (PhaseId, Unpaid)> + '_ {
        self.0.iter().filter_map(|(phase, account)| Some((*phase, account.check().err()?)))
    }

    /// The same in words.
    pub fn problems(&self, methods: &[Method], passes: u16) -> Vec<String> {
        let of_phase = |(phase, unpaid): (PhaseId, Unpaid)| {
            let name = methods.get(usize::from(phase.method)).map_or("?", |method| &method.name);
            let pass = if passes > 1 { format!(", pass {}", phase.pass) } else { String::new() };
            format!("{name}{pass}: {unpaid}")
        };
        self.unpaid().map(of_phase).collect()
    }
}

impl PhaseAccount {
    /// Exact where every device took its answers. An answer that comes after its device has given it up is in no generation, and
    /// the pool could not know: there the batches may have been charged more than was paid, and never less.
    fn check(&self) -> Result<(), Unpaid> {
        let PhaseAccount { batches, unclaimed, generations, given_up } = *self;
        let paid = generations + unclaimed;
        if paid == batches || given_up > 0 && paid < batches {
            return Ok(());
        }
        Err(Unpaid { batches, generations, unclaimed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closes(batches: u128, unclaimed: u128, generations: u128, given_up: u64) -> bool {
        PhaseAccount { batches, unclaimed, generations, given_up }.check().is_ok()
    }

    #[test]
    fn what_was_charged_is_paid_to_the_nanojoule() {
        assert!(closes(0, 0, 0, 0) && closes(10, 3, 7, 0) && closes(10, 3, 7, 1));
        assert!(!closes(10, 3, 6, 0) && !closes(10, 2, 7, 0), "somebody else had the pool work");
        assert!(!closes(10, 3, 8, 0) && !closes(10, 3, 8, 1), "more than there was cannot be paid");
        assert!(closes(10, 3, 6, 1), "an answer came too late");
    }
}
