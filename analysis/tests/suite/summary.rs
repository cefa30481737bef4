//! A small run whose every figure was computed by hand.

use crate::common::*;
use specfleet_analysis::{
    GenerationView, Imbalance, Summary, SummaryBuilder, SummaryError, Validity, check_energy_closes,
};
use specfleet_engine::record::{AuditRecord, FinishReason, GenerationRecord, RoundRecord, Source, UploadCounts};

struct Entry {
    record: GenerationRecord,
    rounds: Vec<RoundRecord>,
    audit: Option<AuditRecord>,
    exact_match: Option<bool>,
}

fn run() -> Vec<Entry> {
    use Source::{Accepted, Bonus, Replaced, Skipped, Verifier};
    let entry = |method: u16, prompt, data_set, rounds: Vec<RoundRecord>, exact_match| Entry {
        record: generation(method, prompt, data_set, &rounds),
        rounds,
        audit: None,
        exact_match,
    };
    let mut entries = vec![
        entry(0, 0, 0, vec![round(0, 5, Skipped, 0, 0), round(1, 6, Skipped, 0, 0)], Some(false)),
        // One upload carries the prompt; the rest streams down.
        entry(1, 0, 0, vec![round(0, 5, Verifier, 1, SECOND), round(1, 7, Verifier, 0, SECOND)], Some(true)),
        // Two uploads, one resent: three attempts. Device 1 J, radio 4 J, cloud 5 J.
        entry(2, 0, 0, vec![round(0, 5, Accepted, 1, 2 * SECOND), round(1, 7, Replaced, 2, 3 * SECOND)], Some(true)),
        // Another prompt on the second data set, which only hlm and block answered.
        entry(2, 1, 1, vec![round(0, 1, Accepted, 1, SECOND)], None),
        // Two blocks: two accepted and a bonus; then a rejection at once.
        entry(
            3,
            1,
            1,
            vec![
                round(0, 1, Accepted, 1, SECOND),
                round(1, 2, Accepted, 0, 0),
                round(2, 3, Bonus, 0, 0),
                round(3, 4, Replaced, 1, SECOND),
            ],
            None,
        ),
        entry(
            4,
            0,
            0,
            vec![
                round(0, 5, Skipped, 0, 0),
                round(1, 7, Accepted, 1, SECOND),
                round(2, 8, Skipped, 0, 0),
                round(3, 9, Skipped, 0, 0),
            ],
            Some(true),
        ),
    ];
    entries[5].audit = Some(AuditRecord {
        id: entries[5].record.id,
        positions: vec![0, 2, 3],
        accept_probabilities: vec![1.0, 0.25, 0.25],
    });
    entries
}

fn summarise(entries: &[Entry]) -> Summary {
    let mut builder = SummaryBuilder::new(header(), &methods(), &["words".to_owned(), "gsm8k".to_owned()]);
    for entry in entries {
        let view = GenerationView {
            record: &entry.record,
            rounds: &entry.rounds,
            audit: entry.audit.as_ref(),
            exact_match: entry.exact_match,
            rouge_l: None,
        };
        builder.add(view).expect("methods and data sets are known");
    }
    builder.finish()
}

#[track_caller]
fn mean(summary: &Summary, method: &str, metric: &str, expected: Option<f64>) {
    let found = summary.methods.get(method).and_then(|metrics| metrics.get(metric)).map(|metric| metric.mean);
    match (found, expected) {
        (Some(found), Some(expected)) if (found - expected).abs() < 1e-9 => {}
        (None, None) => {}
        _ => panic!("{method} {metric}: {found:?}, expected {expected:?}"),
    }
}

#[test]
fn figures_computed_by_hand() {
    let summary = summarise(&run());
    assert_eq!(summary.state, Validity::Valid, "{:?}", summary.problems);
    assert_eq!((summary.generations, summary.failed, summary.faults_injected), (6, 0, 2));
    assert_eq!(summary.uploads, UploadCounts { sent: 8, verdicts: 7, refused: 1, cancelled: 0 });

    // hlm: 3 tokens, 3 answered uploads, 1 of 3 drafts rejected, 400 bytes, device 2 J, radio 6 J, cloud 6 J.
    mean(&summary, "hlm", "tokens_per_second", Some(2.0));
    mean(&summary, "hlm", "time_to_first_token_seconds", Some(0.5));
    mean(&summary, "hlm", "inter_token_latency_seconds", Some(0.5));
    mean(&summary, "hlm", "upload_rate", Some(1.0));
    mean(&summary, "hlm", "rejection_rate", Some(1.0 / 3.0));
    mean(&summary, "hlm", "mean_acceptance_length", Some(1.0));
    mean(&summary, "hlm", "uplink_bytes_per_token", Some(400.0 / 3.0));
    mean(&summary, "hlm", "energy_per_token_joules_device", Some(2.0 / 3.0));
    mean(&summary, "hlm", "energy_per_token_joules_radio", Some(2.0));
    mean(&summary, "hlm", "energy_per_token_joules_cloud", Some(2.0));
    mean(&summary, "hlm", "energy_per_token_joules_cloud_paper", Some(1.0));
    mean(&summary, "hlm", "energy_per_token_joules_total", Some(14.0 / 3.0));
    mean(&summary, "hlm", "exact_match", Some(1.0));
    mean(&summary, "hlm", "token_agreement", Some(1.0));

    // block: 4 tokens by 2 uploads; 1 + 2 accepted / 2 blocks; 1 of 3 judged drafts rejected.
    mean(&summary, "block", "upload_rate", Some(0.5));
    mean(&summary, "block", "mean_acceptance_length", Some(2.0));
    mean(&summary, "block", "rejection_rate", Some(1.0 / 3.0));
    // Device 1, radio 4, cloud 2 against hlm's 1 + 2 + 1 on prompt 1.
    mean(&summary, "block", "energy_saved_vs_hlm", Some(1.0 - 7.0 / 4.0));

    // u-hlm: 4 tokens by 1 upload; of 3 skipped ones 1.5 would have been kept; 1 + 2 + 1 against hlm's 10 J on prompt 0.
    mean(&summary, "u-hlm", "upload_rate", Some(0.25));
    mean(&summary, "u-hlm", "mean_acceptance_length", Some(4.0));
    mean(&summary, "u-hlm", "true_skip_rate", Some(0.5));
    mean(&summary, "u-hlm", "deviation_rate", Some(0.5));
    mean(&summary, "u-hlm", "energy_saved_vs_hlm", Some(0.6));
    mean(&summary, "u-hlm", "token_agreement", Some(0.5));

    mean(&summary, "slm-only", "token_agreement", Some(0.5));
    mean(&summary, "slm-only", "energy_saved_vs_hlm", Some(0.9));
    mean(&summary, "slm-only", "exact_match", Some(0.0));
}

#[test]
fn what_does_not_apply_is_absent() {
    let summary = summarise(&run());
    for metric in [
        "rejection_rate",
        "mean_acceptance_length",
        "uplink_bytes_per_token",
        "energy_per_token_joules_radio",
        "energy_per_token_joules_cloud",
        "energy_per_token_joules_cloud_paper",
        "true_skip_rate",
        "deviation_rate",
        "rouge_l",
    ] {
        mean(&summary, "slm-only", metric, None);
    }
    for metric in ["upload_rate", "rejection_rate", "mean_acceptance_length", "true_skip_rate", "token_agreement"] {
        mean(&summary, "llm-only", metric, None);
    }
    mean(&summary, "hlm", "energy_saved_vs_hlm", None);
    mean(&summary, "hlm", "true_skip_rate", None);
    mean(&summary, "block", "token_agreement", None);
    mean(&summary, "block", "exact_match", None);

    let without_standards: Vec<Entry> =
        run().into_iter().filter(|entry| !(1..=2).contains(&entry.record.id.method)).collect();
    let summary = summarise(&without_standards);
    assert!(summary.methods.get("hlm").is_none());
    mean(&summary, "u-hlm", "energy_saved_vs_hlm", None);
    mean(&summary, "u-hlm", "token_agreement", None);
}

#[test]
fn data_sets_stand_apart() {
    let summary = summarise(&run());
    let names: Vec<&str> = summary.data_sets.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["words", "gsm8k"]);
    let second = &summary.data_sets.get("gsm8k").expect("it has generations").methods;
    let names: Vec<&str> = second.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["hlm", "block"]);
    let bytes = second.get("hlm").and_then(|metrics| metrics.get("uplink_bytes_per_token")).expect("hlm uploads");
    assert_eq!((bytes.count, bytes.mean, bytes.unit.as_str()), (1, 100.0, "B/token"));
}

#[test]
fn the_summary_is_json_in_run_order_and_does_not_depend_on_the_order_of_generations() {
    let forward = summarise(&run());
    let mut entries = run();
    entries.reverse();
    assert_eq!(summarise(&entries), forward);

    let json = serde_json::to_string_pretty(&forward).expect("it serialises");
    let place = |name: &str| json.find(&format!("\"{name}\": {{")).expect(name);
    assert!(
        place("slm-only") < place("llm-only") && place("llm-only") < place("hlm") && place("block") < place("u-hlm")
    );
    let value: serde_json::Value = serde_json::from_str(&json).expect("it parses");
    assert_eq!(value["schema"], 2);
    assert_eq!(value["quantiles"], "exact");
    assert_eq!(value["state"], "VALID");
    assert_eq!(value["uploads"]["sent"], 8);
    for field in ["unit", "count", "mean", "std", "min", "max", "p50", "p90", "p95", "p99"] {
        assert!(!value["methods"]["hlm"]["upload_rate"][field].is_null(), "{field}");
    }
    assert!(value["methods"]["slm-only"]["rejection_rate"].is_null());
    assert_eq!(serde_json::from_str::<Summary>(&json).expect("it reads back"), forward);
}

#[test]
fn books_that_do_not_close_make_a_run_invalid() {
    let mut entries = run();
    entries[2].record.energy.cloud += 1;
    let summary = summarise(&entries);
    assert_eq!(summary.state, Validity::Invalid);
    assert_eq!(summary.problems.len(), 1);
    assert!(summary.problems[0].starts_with("hlm, prompt 0, repetition 0: the rounds' shares of cloud"), "{summary:?}");
}

#[test]
fn every_imbalance_has_its_name() {
    let Entry { record, rounds, .. } = run().swap_remove(2);
    assert_eq!(check_energy_closes(&record, &rounds, 2), Ok(()));
    let check = |change: fn(&mut GenerationRecord, &mut Vec<RoundRecord>)| {
        let (mut record, mut rounds) = (record.clone(), rounds.clone());
        change(&mut record, &mut rounds);
        check_energy_closes(&record, &rounds, 2).expect_err("the books were cooked")
    };
    let span = record.ended.0;
    assert_eq!(check(|record, _| record.times.idle.0 += 5), Imbalance::Time { states: span + 5, span });
    assert!(matches!(
        check(|_, rounds| cost(&mut rounds[0]).verify.paper_nanojoules -= 1),
        Imbalance::Energy { account: "cloud_paper", .. }
    ));
    assert_eq!(check(|record, _| record.uploads.cancelled += 1), Imbalance::Uploads { sent: 3, ended: 4 });
    assert_eq!(check(|record, _| record.tokens.push(9)), Imbalance::Tokens { tokens: 3, agreeing: 2, rounds: 2 });
    // What was dropped spent no time, however long it had been due; what else it claims to have done is found out.
    let mut dropped = generation(2, 0, 0, &[]);
    (dropped.finish, dropped.times) = (FinishReason::Dropped, Default::default());
    assert_eq!(check_energy_closes(&dropped, &[], 2), Ok(()));
    assert!(matches!(check_energy_closes(&dropped, &rounds, 2), Err(Imbalance::Energy { .. })));
    assert_eq!(check(|record, _| record.finish = FinishReason::Dropped), Imbalance::Time { states: span, span: 0 });
    assert_eq!(check(|_, rounds| rounds[1].position = 0), Imbalance::Tokens { tokens: 2, agreeing: 1, rounds: 2 });
    assert_eq!(check(|_, rounds| rounds[0].token = 0), Imbalance::Tokens { tokens: 2, agreeing: 0, rounds: 2 });
}

#[test]
fn foreign_records_are_refused() {
    let Entry { mut record, rounds, .. } = run().swap_remove(0);
    let mut builder = SummaryBuilder::new(header(), &methods(), &["words".to_owned()]);
    record.data_set = 1;
    let view = |record| GenerationView { record, rounds: &rounds, audit: None, exact_match: None, rouge_l: None };
    assert_eq!(builder.add(view(&record)), Err(SummaryError::UnknownDataSet { index: 1, data_sets: 1 }));
    let mut other = record.clone();
    other.id.method = 9;
    assert_eq!(builder.add(view(&other)), Err(SummaryError::UnknownMethod { index: 9, methods: 5 }));
}

#[test]
fn a_generation_without_tokens_has_no_rates() {
    let mut record = generation(4, 0, 0, &[]);
    record.finish = FinishReason::Failed;
    let summary = summarise(&[Entry { record, rounds: Vec::new(), audit: None, exact_match: Some(false) }]);
    assert_eq!((summary.generations, summary.failed), (1, 1));
    mean(&summary, "u-hlm", "upload_rate", None);
    mean(&summary, "u-hlm", "energy_per_token_joules_total", None);
    mean(&summary, "u-hlm", "time_to_first_token_seconds", None);
    mean(&summary, "u-hlm", "tokens_per_second", Some(0.0));
    mean(&summary, "u-hlm", "exact_match", Some(0.0));
}
