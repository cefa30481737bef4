//! One method's phase as a whole: its batches and verifiers, its devices, and the figures that no single generation has.

use std::collections::BTreeMap;

use specfleet_engine::record::{BatchRecord, FinishReason, GenerationRecord, VerifierRecord};
use specfleet_engine::time::{Span, Time};

use super::collector::Collector;
use super::kind::MetricId;
use super::samples::MethodSamples;
use super::tally::GenerationTally;

/// A method's phase, over all data sets.
#[derive(Clone, Debug, Default)]
pub(super) struct PhaseFigures<C: Collector> {
    /// Of batches and verifiers.
    samples: MethodSamples<C>,
    devices: BTreeMap<u32, Presence>,
    unclaimed_nanojoules: u64,
    dropped: u64,
    failed: u64,
    /// Tokens in time, over generations with a latency target; absent without any.
    in_time: Option<u64>,
}

/// What a device did in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Presence {
    first: Time,
    last: Time,
    /// Σ of the gaps between commits, and their number.
    gap_time: Span,
    gaps: u32,
    tokens: u32,
}

impl<C: Collector> PhaseFigures<C> {
    pub(super) fn generation(&mut self, record: &GenerationRecord, tally: &GenerationTally) {
        let gap_time = record.first_token.map_or(Span::ZERO, |first| tally.last.since(first));
        let presence = Presence {
            first: record.scheduled,
            last: record.ended,
            gap_time,
            gaps: tally.tokens.saturating_sub(1),
            tokens: tally.tokens,
        };
        self.devices.entry(record.device.0).and_modify(|known| known.add(&presence)).or_insert(presence);
        self.dropped += u64::from(record.finish == FinishReason::Dropped);
        self.failed += u64::from(record.finish == FinishReason::Failed);
        if tally.latency_target > Span::ZERO {
            *self.in_time.get_or_insert(0) += u64::from(tally.in_time);
        }
    }

    pub(super) fn batch(&mut self, batch: &BatchRecord) {
        self.unclaimed_nanojoules += batch.unclaimed_nanojoules;
        if batch.completed {
            self.samples.nanoseconds(MetricId::Verify, batch.compute, batch.sequences);
            self.samples.sample(MetricId::BatchSequences, f64::from(batch.sequences));
            self.samples.sample(MetricId::BatchTokens, f64::from(batch.work));
        }
    }

    pub(super) fn verifier(&mut self, verifier: &VerifierRecord) {
        self.samples.ratio(MetricId::BusyShare, verifier.busy.0, (verifier.busy + verifier.idle).0);
    }

    pub(super) fn merge(&mut self, other: &PhaseFigures<C>) {
        self.samples.merge(&other.samples);
        for (device, presence) in &other.devices {
            self.devices.entry(*device).and_modify(|known| known.add(presence)).or_insert(*presence);
        }
        self.unclaimed_nanojoules += other.unclaimed_nanojoules;
        self.dropped += other.dropped;
        self.failed += other.failed;
        if let Some(in_time) = other.in_time {
            *self.in_time.get_or_insert(0) += in_time;
        }
    }

    /// Its samples, the figures of the whole phase included.
    pub(super) fn finish(mut self) -> MethodSamples<C> {
        let tokens: u64 = self.devices.values().map(|presence| u64::from(presence.tokens)).sum();
        let first = self.devices.values().map(|presence| presence.first).min().unwrap_or_default();
        let last = self.devices.values().map(|presence| presence.last).max().unwrap_or_default();
        let seconds = last.since(first).seconds();
        if seconds > 0.0 {
            self.samples.sample(MetricId::FleetTokens, tokens as f64 / seconds);
            if let Some(in_time) = self.in_time {
                self.samples.sample(MetricId::Goodput, in_time as f64 / seconds);
            }
        }
        if !self.devices.is_empty() {
            self.samples.sample(MetricId::Dropped, self.dropped as f64);
            self.samples.sample(MetricId::Failed, self.failed as f64);
        }
        if self.unclaimed_nanojoules > 0 && tokens > 0 {
            let joules = self.unclaimed_nanojoules as f64 * 1e-9;
            self.samples.sample(MetricId::WastedJoulesUnclaimed, joules / tokens as f64);
        }
        if let Some(fairness) = jain(self.devices.values().filter_map(Presence::tokens_per_second)) {
            self.samples.sample(MetricId::Fairness, fairness);
        }
        let mut gaps: Vec<f64> = self.devices.values().filter_map(Presence::mean_gap_seconds).collect();
        gaps.sort_unstable_by(f64::total_cmp);
        if let Some(worst) = gaps.get((gaps.len() * 9).div_ceil(10).saturating_sub(1)) {
            self.samples.sample(MetricId::WorstDecile, *worst);
        }
        self.samples
    }
}

impl Presence {
    fn add(&mut self, other: &Presence) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.gap_time += other.gap_time;
        self.gaps += other.gaps;
        self.tokens += other.tokens;
    }

    /// A device that got nothing at all has a rate of zero, however short it was there.
    fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.last.since(self.first).seconds();
        if self.tokens == 0 { Some(0.0) } else { (seconds > 0.0).then(|| f64::from(self.tokens) / seconds) }
    }

    fn mean_gap_seconds(&self) -> Option<f64> {
        (self.gaps > 0).then(|| self.gap_time.seconds() / f64::from(self.gaps))
    }
}

/// Jain's fairness index, (Σ x)² / (n · Σ x²): 1 if all are equal, 1/n if one has everything; `None` if none has anything.
fn jain(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        sum += value;
        squares += value * value;
    }
    (squares > 0.0).then(|| sum * sum / (count * squares))
}

#[cfg(test)]
mod tests {
    use super::jain;

    #[test]
    fn fairness_of_equals_and_of_one_who_has_it_all() {
        assert_eq!(jain([3.0; 7].into_iter()), Some(1.0));
        assert_eq!(jain([0.0, 5.0, 0.0, 0.0].into_iter()), Some(0.25));
        assert_eq!(jain([1.0, 3.0].into_iter()), Some(0.8));
        assert_eq!(jain([0.0, 0.0].into_iter()), None);
        assert_eq!(jain(std::iter::empty()), None);
    }
}
