//! The samples of one method: how each metric of a summary is taken from a generation.
//!
//! | metric | sample of a generation | mean over generations |
//! |---|---|---|
//! | `tokens_per_second` | committed tokens / (end − start) | Σ tokens / Σ seconds |
//! | `time_to_first_token_seconds` | first commit − start | plain |
//! | `inter_token_latency_seconds` | one per pair of successive commits; tokens of one block follow each other at 0 | plain |
//! | `upload_rate` | answered uploads / committed tokens | Σ / Σ |
//! | `true_skip_rate`, `deviation_rate` | mean of min(1, y_d/x_d) over the audited skipped tokens; 1 − that | over all skipped tokens |
//! | `rejection_rate` | rejected / judged drafts | Σ / Σ |
//! | `mean_acceptance_length` | with bonus 1 + accepted drafts / verified blocks, else committed tokens / answered uploads | Σ / Σ |
//! | `uplink_bytes_per_token` | bytes of the upload frames on the wire, resends included / committed tokens | Σ / Σ |
//! | `energy_per_token_joules_*` | the part's joules / committed tokens | Σ / Σ |
//! | `energy_saved_vs_hlm` | 1 − joules / `hlm`'s joules on the same prompt and repetition | 1 − Σ / Σ over the pairs |
//! | `exact_match` | 1 or 0 | plain |
//! | `token_agreement`, `rouge_l` | the score | plain |
//!
//! An *answered upload* is one that a verdict's first token pays for; resends of the same drafts count once.

use specfleet_engine::method::{Gate, Method, Writer};
use specfleet_engine::record::{RoundRecord, Source};

use super::{GenerationView, Metrics};
use crate::distribution::Samples;

const NANO: f64 = 1e-9;

/// A metric; as a number, its place in the tables.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    TokensPerSecond,
    TimeToFirstToken,
    InterTokenLatency,
    UploadRate,
    TrueSkipRate,
    DeviationRate,
    RejectionRate,
    AcceptanceLength,
    UplinkBytes,
    EnergyDevice,
    EnergyRadio,
    EnergyCloud,
    EnergyCloudPaper,
    EnergyTotal,
    EnergySaved,
    ExactMatch,
    TokenAgreement,
    RougeL,
}

/// Name and unit of each [`Kind`], in its order.
const NAMES: [(&str, &str); 18] = [
    ("tokens_per_second", "tokens/s"),
    ("time_to_first_token_seconds", "s"),
    ("inter_token_latency_seconds", "s"),
    ("upload_rate", "uploads/token"),
    ("true_skip_rate", "ratio"),
    ("deviation_rate", "ratio"),
    ("rejection_rate", "ratio"),
    ("mean_acceptance_length", "tokens/upload"),
    ("uplink_bytes_per_token", "B/token"),
    ("energy_per_token_joules_device", "J/token"),
    ("energy_per_token_joules_radio", "J/token"),
    ("energy_per_token_joules_cloud", "J/token"),
    ("energy_per_token_joules_cloud_paper", "J/token"),
    ("energy_per_token_joules_total", "J/token"),
    ("energy_saved_vs_hlm", "ratio"),
    ("exact_match", "ratio"),
    ("token_agreement", "ratio"),
    ("rouge_l", "ratio"),
];

/// The samples of one method, by [`Kind`].
#[derive(Clone, Debug, Default)]
pub(super) struct MethodSamples {
    generations: u64,
    samples: [Samples; NAMES.len()],
}

impl MethodSamples {
    /// Whether any generation was added.
    pub(super) fn any(&self) -> bool {
        self.generations > 0
    }

    /// Takes the samples of a generation, all but the paired ones.
    pub(super) fn add(&mut self, method: &Method, view: GenerationView<'_>) {
        self.generations += 1;
        self.add_latencies(view);
        self.add_energy(method, view);
        if method.writer == Writer::Drafter {
            self.add_decisions(method, view);
        }
        if let Some(matched) = view.exact_match {
            self.sample(Kind::ExactMatch, f64::from(u8::from(matched)));
        }
        if let Some(score) = view.rouge_l {
            self.sample(Kind::RougeL, score);
        }
    }

    fn add_latencies(&mut self, GenerationView { record, rounds, .. }: GenerationView<'_>) {
        self.ratio(Kind::TokensPerSecond, record.tokens.len() as f64, record.ended.since(record.started).seconds());
        if let Some(first) = record.first_token {
            self.sample(Kind::TimeToFirstToken, first.since(record.started).seconds());
        }
        for pair in rounds.windows(2) {
            self.sample(Kind::InterTokenLatency, pair[1].committed_at.since(pair[0].committed_at).seconds());
        }
    }

    fn add_energy(&mut self, method: &Method, GenerationView { record, rounds, .. }: GenerationView<'_>) {
        let tokens = record.tokens.len() as f64;
        let energy = record.energy;
        self.ratio(Kind::EnergyDevice, energy.device as f64 * NANO, tokens);
        self.ratio(Kind::EnergyTotal, energy.total() as f64 * NANO, tokens);
        // A method that never asks the pool has no radio and no cloud, which is not the same as using none of it.
        if method.writer == Writer::Verifier || method.gate != Gate::Never {
            self.ratio(Kind::EnergyRadio, energy.radio as f64 * NANO, tokens);
            self.ratio(Kind::EnergyCloud, energy.cloud as f64 * NANO, tokens);
            self.ratio(Kind::EnergyCloudPaper, energy.cloud_paper as f64 * NANO, tokens);
            let bytes: u64 = rounds.iter().map(|round| u64::from(round.uplink_bytes)).sum();
            self.ratio(Kind::UplinkBytes, bytes as f64, tokens);
        }
    }

    /// What became of the drafts: only methods whose text the drafter writes have them.
    fn add_decisions(&mut self, method: &Method, GenerationView { record, rounds, audit, .. }: GenerationView<'_>) {
        let tokens = record.tokens.len() as f64;
        let count = |which: fn(&RoundRecord) -> bool| rounds.iter().filter(|round| which(round)).count() as f64;
        let uploads = count(|round| {
            round.attempts > 0 && matches!(round.source, Source::Accepted | Source::Replaced | Source::Bonus)
        });
        let accepted = count(|round| round.source == Source::Accepted);
        let rejected = count(|round| round.source == Source::Replaced);
        self.ratio(Kind::UploadRate, uploads, tokens);
        self.ratio(Kind::RejectionRate, rejected, accepted + rejected);
        let length = if method.bonus { uploads + accepted } else { tokens };
        self.ratio(Kind::AcceptanceLength, length, uploads);
        if let Some(audit) = audit {
            let probabilities = || audit.accept_probabilities.iter().copied().map(f64::from).filter(|p| p.is_finite());
            let (kept, skipped) = (probabilities().sum::<f64>(), probabilities().count() as f64);
            self.ratio(Kind::TrueSkipRate, kept, skipped);
            self.ratio(Kind::DeviationRate, skipped - kept, skipped);
        }
    }

    /// Adds a plain sample of a metric.
    pub(super) fn sample(&mut self, kind: Kind, value: f64) {
        self.samples[kind as usize].push(value);
    }

    /// Adds a ratio, weighted by its denominator.
    pub(super) fn ratio(&mut self, kind: Kind, numerator: f64, denominator: f64) {
        self.samples[kind as usize].push_ratio(numerator, denominator);
    }

    /// Adds another collection's samples.
    pub(super) fn merge(&mut self, other: &MethodSamples) {
        self.generations += other.generations;
        for (mine, others) in self.samples.iter_mut().zip(&other.samples) {
            mine.merge(others);
        }
    }

    /// The metrics that apply.
    pub(super) fn metrics(self) -> Metrics {
        let metrics = NAMES.into_iter().zip(self.samples);
        metrics.filter_map(|((name, unit), samples)| Some((name.to_owned(), samples.metric(unit)?))).collect()
    }
}
