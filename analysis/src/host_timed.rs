//! Which figures of a live run depend on when things happened on its host, and so differ from run to run.

use specfleet_engine::method::{Gate, Method};
use specfleet_engine::record::RunClock;

/// Metrics that follow the clock of a live run: latencies, rates over time, what batches hold and cost, and how long a
/// device waits and drafts ahead meanwhile.
const TIMED: [&str; 28] = [
    "tokens_per_second",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_latency_seconds",
    "dropped",
    "dropped_share",
    "failed",
    "failed_share",
    "queue_seconds",
    "verify_seconds",
    "batch_sequences",
    "batch_tokens",
    "verifier_busy_share",
    "fleet_tokens_per_second",
    "goodput_tokens_per_second",
    "goodput_share",
    "fairness_jain",
    "worst_decile_inter_token_mean_seconds",
    "wasted_drafts_per_token",
    "stale_results_per_token",
    "wasted_joules_per_token_drafts",
    "wasted_joules_per_token_unclaimed",
    "energy_per_token_joules_device",
    "energy_per_token_joules_cloud",
    "energy_per_token_joules_cloud_paper",
    "energy_per_token_joules_total",
    "energy_saved_vs_hlm",
    "uplink_bytes_per_token",
];

/// Follows the clock where the link does.
const RADIO: &str = "energy_per_token_joules_radio";

/// Whether a metric of a live run depends on its host. `rate_trace`: whether links follow a recorded rate over time, which
/// stays on the host's clock. Everything of `price` does, whose gate weighs what the pool asked last, in periods that began
/// with the run. What this crate has no name for is a score of texts, which follow from the seed.
pub fn is_host_timed(metric: &str, method: &Method, clock: RunClock, rate_trace: bool) -> bool {
    let timed = clock == RunClock::Host && TIMED.contains(&metric);
    matches!(method.gate, Gate::Price(_)) || timed || metric == RADIO && rate_trace
}

#[cfg(test)]
mod tests {
    use specfleet_engine::method::{PayloadForm, ProbabilityBits, Writer};

    use super::*;
    use crate::summary::metric_names;

    fn method(gate: Gate) -> Method {
        let payload = PayloadForm::Full { bits: ProbabilityBits::B32 };
        let name = "m".to_owned();
        Method { name, writer: Writer::Drafter, gate, payload, block: 1, bonus: false, draft_ahead: false }
    }

    #[test]
    fn every_metric_is_on_one_side() {
        let hlm = method(Gate::Always);
        assert!(TIMED.iter().all(|timed| metric_names().any(|(name, _)| name == *timed)), "all of them are metrics");
        let by_seed: Vec<&str> = metric_names()
            .map(|(name, _)| name)
            .filter(|name| !is_host_timed(name, &hlm, RunClock::Host, false))
            .collect();
        assert_eq!(
            by_seed,
            [
                "upload_rate",
                "true_skip_rate",
                "deviation_rate",
                "rejection_rate",
                "verifier_agreement",
                "mean_acceptance_length",
                "energy_per_token_joules_radio",
                "exact_match",
                "token_agreement",
                "first_divergence_tokens",
                "rouge_l",
            ]
        );
        let host = RunClock::Host;
        assert!(is_host_timed("energy_per_token_joules_radio", &hlm, host, true), "a rate trace stays on the clock");
        assert!(!is_host_timed("bertscore_f1", &hlm, host, true), "a score of texts");
        assert!(metric_names().all(|(name, _)| !is_host_timed(name, &hlm, RunClock::Emulated, false)));
    }
}
