//! The samples of one method: how each metric of a generation is taken from its record and its tally. What they mean
//! stands in `kind.rs`.

use specfleet_engine::method::{Gate, Method, Writer};
use specfleet_engine::record::{ACCOUNTING, FinishReason, GenerationRecord};
use specfleet_engine::time::Span;

use super::collector::{CollectedDistribution, Collector};
use super::kind::{KINDS, MetricId};
use super::tally::{GenerationTally, SHARE_STEPS};
use super::{Metrics, Scores};

/// The samples of one method, by [`MetricId`].
#[derive(Clone, Debug)]
pub(super) struct MethodSamples<C> {
    generations: u64,
    samples: [C; KINDS.len()],
}

impl<C: Collector> MethodSamples<C> {
    /// Whether any generation was added.
    pub(super) fn any(&self) -> bool {
        self.generations > 0
    }

    /// Takes the samples of a generation, all but the paired ones and those that its rounds left behind.
    pub(super) fn add(&mut self, method: &Method, record: &GenerationRecord, tally: &GenerationTally, scores: Scores) {
        self.generations += 1;
        let is = |finish| u64::from(record.finish == finish);
        self.ratio(MetricId::DroppedShare, is(FinishReason::Dropped), 1);
        self.ratio(MetricId::FailedShare, is(FinishReason::Failed), 1);
        if record.finish == FinishReason::Dropped {
            return;
        }
        self.add_latencies(record, tally);
        self.add_energy(method, record, tally);
        self.add_decisions(method, tally);
        self.add_waste(record, tally);
        if let Some(matched) = scores.exact_match {
            self.sample(MetricId::ExactMatch, f64::from(u8::from(matched)));
        }
        if let Some(score) = scores.rouge_l {
            self.sample(MetricId::RougeL, score);
        }
    }

    fn add_latencies(&mut self, record: &GenerationRecord, tally: &GenerationTally) {
        let latency = record.ended.since(record.scheduled);
        self.ratio(MetricId::TokensPerSecond, u64::from(tally.tokens), latency.0);
        if let Some(first) = record.first_token {
            self.nanoseconds(MetricId::TimeToFirstToken, first.since(record.scheduled), 1);
        }
        if matches!(record.finish, FinishReason::Stop | FinishReason::Length) {
            self.nanoseconds(MetricId::RequestLatency, latency, 1);
        }
        if tally.latency_target > Span::ZERO {
            self.ratio(MetricId::GoodputShare, u64::from(tally.in_time), u64::from(tally.tokens));
        }
    }

    fn add_energy(&mut self, method: &Method, record: &GenerationRecord, tally: &GenerationTally) {
        let tokens = u64::from(tally.tokens);
        let energy = record.energy;
        self.ratio(MetricId::EnergyDevice, energy.device, tokens);
        self.ratio(MetricId::EnergyTotal, energy.total(), tokens);
        // A method that never asks the pool has no radio and no cloud, which is not the same as using none of it.
        if method.writer == Writer::Verifier || method.gate != Gate::Never {
            self.ratio(MetricId::EnergyRadio, energy.radio, tokens);
            self.ratio(MetricId::EnergyCloud, energy.cloud, tokens);
            self.ratio(MetricId::EnergyCloudPaper, energy.cloud_paper, tokens);
            self.ratio(MetricId::UplinkBytes, tally.uplink_bytes, tokens);
        }
    }

    /// What became of the drafts: all but the agreement only for methods whose text the drafter writes.
    fn add_decisions(&mut self, method: &Method, tally: &GenerationTally) {
        let [tokens, uploads, accepted, replaced, added, unseen, audited] =
            [tally.tokens, tally.uploads, tally.accepted, tally.replaced, tally.added, tally.unseen(), tally.audited]
                .map(u64::from);
        // Of unseen tokens that the audit left out we know what it says about the others.
        let kept = match audited {
            0 if unseen > 0 => None,
            0 => Some(0),
            _ => Some((u128::from(tally.kept) * u128::from(unseen) / u128::from(audited)) as u64),
        };
        if let Some(kept) = kept {
            self.ratio(MetricId::VerifierAgreement, (accepted + replaced + added) * SHARE_STEPS + kept, tokens);
        }
        if method.writer == Writer::Verifier {
            return;
        }
        self.ratio(MetricId::UploadRate, uploads, tokens);
        self.ratio(MetricId::RejectionRate, replaced, accepted + replaced);
        self.ratio(MetricId::AcceptanceLength, if method.bonus { uploads + accepted } else { tokens }, uploads);
        self.ratio(MetricId::TrueSkipRate, tally.kept, audited);
        self.ratio(MetricId::DeviationRate, audited * SHARE_STEPS - tally.kept, audited);
    }

    fn add_waste(&mut self, record: &GenerationRecord, tally: &GenerationTally) {
        let (tokens, counts) = (u64::from(tally.tokens), record.counts);
        if counts.draft_steps == 0 {
            return;
        }
        self.ratio(MetricId::WastedDrafts, counts.wasted_drafts, tokens);
        self.ratio(MetricId::StaleResults, counts.stale, tokens);
        let share = |whole: u64, part: u64, of: u64| {
            u64::try_from(u128::from(whole) * u128::from(part) / u128::from(of.max(1))).unwrap_or(u64::MAX)
        };
        let drafting = share(record.energy.device, record.times.draft.0, record.times.total(ACCOUNTING).0);
        let wasted = share(drafting, counts.wasted_drafts.min(counts.draft_steps), counts.draft_steps);
        self.ratio(MetricId::WastedJoulesDrafts, wasted, tokens);
    }

    /// Adds a plain sample of a metric.
    pub(super) fn sample(&mut self, kind: MetricId, value: f64) {
        self.samples[kind as usize].sample(value);
    }

    /// Adds `count` plain samples of a metric in seconds.
    #[inline]
    pub(super) fn nanoseconds(&mut self, kind: MetricId, span: Span, count: u32) {
        self.samples[kind as usize].nanoseconds(span.0, count);
    }

    /// Adds a ratio, weighted by its denominator; see the scales in [`KINDS`].
    pub(super) fn ratio(&mut self, kind: MetricId, numerator: u64, denominator: u64) {
        self.signed_ratio(kind, i64::try_from(numerator).unwrap_or(i64::MAX), denominator);
    }

    /// The same where the numerator may lie below zero.
    pub(super) fn signed_ratio(&mut self, kind: MetricId, numerator: i64, denominator: u64) {
        self.samples[kind as usize].ratio(numerator, denominator, KINDS[kind as usize].3);
    }

    /// Adds another collection's samples.
    pub(super) fn merge(&mut self, other: &MethodSamples<C>) {
        self.generations += other.generations;
        for (mine, others) in self.samples.iter_mut().zip(&other.samples) {
            mine.merge(others);
        }
    }

    /// What was collected of one metric.
    pub(super) fn of(&self, kind: MetricId) -> &C {
        &self.samples[kind as usize]
    }
}

impl<C: CollectedDistribution> MethodSamples<C> {
    /// The metrics that apply.
    pub(super) fn metrics(self) -> Metrics {
        let metrics = KINDS.into_iter().zip(self.samples);
        metrics
            .filter_map(|((_, name, unit, scale), samples)| Some((name.to_owned(), samples.metric(unit, scale)?)))
            .collect()
    }
}

impl<C: Collector> Default for MethodSamples<C> {
    fn default() -> MethodSamples<C> {
        MethodSamples { generations: 0, samples: std::array::from_fn(|_| C::default()) }
    }
}
