//! The metrics of a summary: what each means, its name, its unit.
//!
//! | metric | sample | mean |
//! |---|---|---|
//! | `tokens_per_second` | of a generation: committed tokens / (end − scheduled) | Σ tokens / Σ seconds |
//! | `time_to_first_token_seconds` | of a generation: first commit − scheduled | plain |
//! | `inter_token_latency_seconds` | one per pair of successive commits; tokens of one block follow each other at 0 | plain |
//! | `request_latency_seconds` | of a generation that came to its end: end − scheduled | plain |
//! | `dropped`, `failed` | requests that were never started because too many waited for their device; generations that ended without an answer | – |
//! | `dropped_share`, `failed_share` | of a request: 1 if it was dropped (ended without an answer), else 0 | Σ / Σ |
//! | `queue_seconds` | of an answered upload: the pool's queue and the wait in its batch | plain |
//! | `verify_seconds` | of a sequence of a completed batch: the batch's computation | plain |
//! | `batch_sequences`, `batch_tokens` | of a completed batch: sequences in it, tokens fed | plain |
//! | `verifier_busy_share` | of a verifier: time in batches / (that + idle time); scaled away counts as neither | Σ / Σ |
//! | `fleet_tokens_per_second` | all committed tokens / the phase's span | – |
//! | `goodput_tokens_per_second` \[ours\] | the tokens in time / the phase's span | – |
//! | `goodput_share` \[ours\] | of a generation with a latency target: tokens in time / committed tokens | Σ / Σ |
//! | `fairness_jain` \[Jain 1984\] | (Σ x)² / (n · Σ x²) over the n devices' x = tokens / second of presence | – |
//! | `worst_decile_inter_token_mean_seconds` \[ours\] | 90th percentile over the devices of each one's mean inter-token latency | – |
//! | `upload_rate` | of a generation: answered uploads / committed tokens | Σ / Σ |
//! | `true_skip_rate`, `deviation_rate` | of a generation: mean of min(1, y_d/x_d) over the audited tokens; 1 − that | over all audited tokens |
//! | `rejection_rate` | of a generation: rejected / judged drafts | Σ / Σ |
//! | `verifier_agreement` \[ours\] | of a generation: share of its tokens that the verifier accepted, wrote, or would have accepted by the audit | Σ / Σ |
//! | `mean_acceptance_length` | of a generation: with bonus 1 + accepted drafts / verified blocks, else committed tokens / answered uploads | Σ / Σ |
//! | `wasted_drafts_per_token` \[ours\] | of a generation: drafts behind a rejection or drafted ahead in vain / committed tokens | Σ / Σ |
//! | `stale_results_per_token` \[ours\] | of a generation: step results and verdicts that came too late / committed tokens | Σ / Σ |
//! | `wasted_joules_per_token_drafts` \[ours\] | of a generation: the wasted drafts' share of the drafting energy / committed tokens | Σ / Σ |
//! | `wasted_joules_per_token_unclaimed` \[ours\] | joules of batches that nobody waited for any more / committed tokens | – |
//! | `uplink_bytes_per_token` | of a generation: bytes of the upload frames on the wire, resends included / committed tokens | Σ / Σ |
//! | `energy_per_token_joules_*` | of a generation: the part's joules / committed tokens | Σ / Σ |
//! | `energy_saved_vs_hlm` | of a pair: 1 − joules / `hlm`'s joules on the same prompt and repetition | 1 − Σ / Σ over the pairs |
//! | `exact_match` | of a generation: 1 or 0 | plain |
//! | `token_agreement`, `rouge_l` | of a generation: the score | plain |
//! | `first_divergence_tokens` | of a pair: leading tokens equal to `llm-only`'s; all of them where the texts are equal | plain |
//!
//! An *answered upload* is one that a verdict's first token pays for; resends of the same drafts count once. A *phase* is
//! a method's time from the first scheduled start to the last end. A token is *in time* if the gap since the generation's
//! previous commit (for its first token: since it was scheduled) is at most the generation's latency target. A device's
//! *presence* is its time from its first scheduled start to its last end in the phase. The *drafting energy* is the
//! device's joules times the share of its time that draft steps took: rows do not say more, and where a waiting device
//! draws less than a drafting one it is too low. Figures without a mean hold for the method as a whole: one sample.
//! Requests that were dropped have no latency and no score; the tokens they lack count nowhere, but the time does. So a
//! latency says nothing without `dropped_share` beside it, which is why that one is always there.

/// A metric; as a number, its place in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricId {
    TokensPerSecond,
    TimeToFirstToken,
    InterTokenLatency,
    RequestLatency,
    Dropped,
    DroppedShare,
    Failed,
    FailedShare,
    Queue,
    Verify,
    BatchSequences,
    BatchTokens,
    BusyShare,
    FleetTokens,
    Goodput,
    GoodputShare,
    Fairness,
    WorstDecile,
    UploadRate,
    TrueSkipRate,
    DeviationRate,
    RejectionRate,
    VerifierAgreement,
    AcceptanceLength,
    WastedDrafts,
    StaleResults,
    WastedJoulesDrafts,
    WastedJoulesUnclaimed,
    UplinkBytes,
    EnergyDevice,
    EnergyRadio,
    EnergyCloud,
    EnergyCloudPaper,
    EnergyTotal,
    EnergySaved,
    ExactMatch,
    TokenAgreement,
    FirstDivergence,
    RougeL,
}

/// Ratios whose numerator counts billionths of the unit (nanojoules, nanoseconds, rounded shares), and plain samples.
const NANO: f64 = 1e-9;

/// Ratios whose denominator counts nanoseconds.
const PER_NANO: f64 = 1e9;

/// Each [`MetricId`], in the order of their numbers: its name, its unit and the scale of its ratios.
pub(super) const KINDS: [(MetricId, &str, &str, f64); 39] = [
    (MetricId::TokensPerSecond, "tokens_per_second", "tokens/s", PER_NANO),
    (MetricId::TimeToFirstToken, "time_to_first_token_seconds", "s", NANO),
    (MetricId::InterTokenLatency, "inter_token_latency_seconds", "s", NANO),
    (MetricId::RequestLatency, "request_latency_seconds", "s", NANO),
    (MetricId::Dropped, "dropped", "requests", NANO),
    (MetricId::DroppedShare, "dropped_share", "ratio", 1.0),
    (MetricId::Failed, "failed", "requests", NANO),
    (MetricId::FailedShare, "failed_share", "ratio", 1.0),
    (MetricId::Queue, "queue_seconds", "s", NANO),
    (MetricId::Verify, "verify_seconds", "s", NANO),
    (MetricId::BatchSequences, "batch_sequences", "sequences", NANO),
    (MetricId::BatchTokens, "batch_tokens", "tokens", NANO),
    (MetricId::BusyShare, "verifier_busy_share", "ratio", 1.0),
    (MetricId::FleetTokens, "fleet_tokens_per_second", "tokens/s", NANO),
    (MetricId::Goodput, "goodput_tokens_per_second", "tokens/s", NANO),
    (MetricId::GoodputShare, "goodput_share", "ratio", 1.0),
    (MetricId::Fairness, "fairness_jain", "ratio", NANO),
    (MetricId::WorstDecile, "worst_decile_inter_token_mean_seconds", "s", NANO),
    (MetricId::UploadRate, "upload_rate", "uploads/token", 1.0),
    (MetricId::TrueSkipRate, "true_skip_rate", "ratio", NANO),
    (MetricId::DeviationRate, "deviation_rate", "ratio", NANO),
    (MetricId::RejectionRate, "rejection_rate", "ratio", 1.0),
    (MetricId::VerifierAgreement, "verifier_agreement", "ratio", NANO),
    (MetricId::AcceptanceLength, "mean_acceptance_length", "tokens/upload", 1.0),
    (MetricId::WastedDrafts, "wasted_drafts_per_token", "drafts/token", 1.0),
    (MetricId::StaleResults, "stale_results_per_token", "results/token", 1.0),
    (MetricId::WastedJoulesDrafts, "wasted_joules_per_token_drafts", "J/token", NANO),
    (MetricId::WastedJoulesUnclaimed, "wasted_joules_per_token_unclaimed", "J/token", NANO),
    (MetricId::UplinkBytes, "uplink_bytes_per_token", "B/token", 1.0),
    (MetricId::EnergyDevice, "energy_per_token_joules_device", "J/token", NANO),
    (MetricId::EnergyRadio, "energy_per_token_joules_radio", "J/token", NANO),
    (MetricId::EnergyCloud, "energy_per_token_joules_cloud", "J/token", NANO),
    (MetricId::EnergyCloudPaper, "energy_per_token_joules_cloud_paper", "J/token", NANO),
    (MetricId::EnergyTotal, "energy_per_token_joules_total", "J/token", NANO),
    (MetricId::EnergySaved, "energy_saved_vs_hlm", "ratio", 1.0),
    (MetricId::ExactMatch, "exact_match", "ratio", NANO),
    (MetricId::TokenAgreement, "token_agreement", "ratio", NANO),
    (MetricId::FirstDivergence, "first_divergence_tokens", "tokens", NANO),
    (MetricId::RougeL, "rouge_l", "ratio", NANO),
];

impl MetricId {
    /// All of them in their order, with their names.
    pub(super) fn all() -> impl Iterator<Item = (MetricId, &'static str)> {
        KINDS.iter().map(|(kind, name, ..)| (*kind, *name))
    }
}

/// Names and units of all metrics that a summary can have, in the order of its tables.
pub fn metric_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    KINDS.iter().map(|(_, name, unit, _)| (*name, *unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_number() {
        assert!(KINDS.iter().enumerate().all(|(number, (kind, ..))| *kind as usize == number));
    }
}
