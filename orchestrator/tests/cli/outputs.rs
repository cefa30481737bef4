//! What a run leaves: JSON on standard output, the files of `--out`, and rows whose books close.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use specfleet_analysis::check_energy_closes;
use specfleet_engine::record::ACCOUNTING;
use specfleet_engine::record::{BatchRecord, GenerationRecord};

use crate::common::*;

const UNIVERSAL: [&str; 18] = [
    "tokens_per_second",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_latency_seconds",
    "dropped",
    "dropped_share",
    "failed",
    "failed_share",
    "fleet_tokens_per_second",
    "fairness_jain",
    "worst_decile_inter_token_mean_seconds",
    "verifier_agreement",
    "verifier_busy_share",
    "energy_per_token_joules_device",
    "energy_per_token_joules_total",
    "exact_match",
    "token_agreement",
    "rouge_l",
];

const POOLED: [&str; 8] = [
    "uplink_bytes_per_token",
    "queue_seconds",
    "verify_seconds",
    "batch_sequences",
    "batch_tokens",
    "energy_per_token_joules_radio",
    "energy_per_token_joules_cloud",
    "energy_per_token_joules_cloud_paper",
];

/// Figures of pool and fleet that no single data set has.
const OF_THE_WHOLE: [&str; 11] = [
    "fleet_tokens_per_second",
    "goodput_tokens_per_second",
    "fairness_jain",
    "worst_decile_inter_token_mean_seconds",
    "verifier_busy_share",
    "verify_seconds",
    "batch_sequences",
    "batch_tokens",
    "wasted_joules_per_token_unclaimed",
    "dropped",
    "failed",
];

/// Beyond these two lists: which further metrics each method must have, and must not.
fn applies(method: &str, metric: &str) -> Option<bool> {
    let skips = !matches!(method, "llm-only" | "hlm" | "dssd" | "block");
    match metric {
        metric if UNIVERSAL.contains(&metric) => Some(metric != "token_agreement" || method != "llm-only"),
        metric if POOLED.contains(&metric) => Some(method != "slm-only"),
        // Whoever drafts can draft in vain.
        "wasted_drafts_per_token" | "wasted_joules_per_token_drafts" => Some(method != "llm-only"),
        // No user of this scenario waits for anything.
        "goodput_tokens_per_second" | "goodput_share" => Some(false),
        "energy_saved_vs_hlm" => Some(method != "hlm"),
        "rejection_rate" | "mean_acceptance_length" if method == "slm-only" || method == "llm-only" => Some(false),
        "upload_rate" if method == "llm-only" => Some(false),
        "upload_rate" if method != "slm-only" => Some(true),
        // Present as soon as a single token was skipped, or uploaded.
        "true_skip_rate" | "deviation_rate" if skips => (method == "slm-only").then_some(true),
        "true_skip_rate" | "deviation_rate" => Some(false),
        "rejection_rate" | "mean_acceptance_length" => (!skips).then_some(true),
        _ => None,
    }
}

#[test]
fn files_and_figures() {
    let place = Place::new();
    let run = place.run("out", &["--devices", "4", "--prompts", "4", "--max-new-tokens", "12"]);
    run.assert_sound();

    // One line per prompt and method, with all that it must say.
    let mut seen: Vec<_> = run.decisions().into_keys().collect();
    seen.sort();
    let mut expected: Vec<_> = METHODS.iter().flat_map(|m| (0..4).map(|prompt| ((*m).to_owned(), prompt))).collect();
    expected.sort();
    assert_eq!(seen, expected);
    for line in &run.lines {
        for key in ["prompt", "reference", "text", "finish_reason"] {
            assert!(line[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {line}");
        }
        let tokens = line["token_ids"].as_array().expect("a list");
        assert!((1..=12).contains(&tokens.len()), "{line}");
        let positions = line["uploaded_positions"].as_array().expect("a list");
        assert!(positions.iter().all(|position| position.as_u64() < Some(tokens.len() as u64)), "{line}");
        assert_eq!(line["device"].as_u64(), line["prompt_id"].as_u64(), "device i has prompt i");
        assert!(line["exact_match"].is_boolean(), "{line}");
        assert_eq!(keys(&line["energy_joules"]), ["cloud", "cloud_paper", "device", "radio"]);
        for part in keys(&line["energy_joules"]) {
            assert!(line["energy_joules"][part].as_f64().is_some_and(|joules| joules >= 0.0), "{line}");
        }
        match line["method"].as_str() {
            Some("slm-only" | "llm-only") => assert!(positions.is_empty(), "{line}"),
            Some("hlm" | "dssd") => assert_eq!(positions.len(), tokens.len(), "{line}"),
            // A block that is accepted as a whole brings a token of the verifier's own.
            Some("block") => assert!(!positions.is_empty() && positions.len() <= tokens.len(), "{line}"),
            _ => {}
        }
    }

    let summary = &run.summary;
    assert_eq!(summary["schema"], 2);
    assert_eq!(summary["quantiles"], "exact");
    // What tells this run from another with the same results stands in a file of its own.
    assert!(summary.get("run").is_none());
    let identity: Value =
        serde_json::from_slice(&fs::read(place.path("out/run.json")).expect("run.json")).expect("JSON");
    assert_eq!(keys(&identity), ["kind", "machine", "run", "started", "versions", "wall_seconds"]);
    assert_eq!(identity["kind"], "live");
    assert_eq!(summary["seed"], 1);
    assert_eq!(summary["faults_injected"], 0);
    assert_eq!(summary["generations"], 44);
    assert_eq!(summary["scenario_hash"].as_str().map(str::len), Some(64));
    assert_eq!(keys(&summary["data_sets"]), ["word-problems"]);
    let [all, data_set] = [&summary["methods"], &summary["data_sets"]["word-problems"]["methods"]];
    for group in [all, data_set] {
        let mut methods = METHODS;
        methods.sort();
        assert_eq!(keys(group), methods);
        for method in METHODS {
            let metrics = &group[method];
            let conditional = ["rejection_rate", "mean_acceptance_length", "upload_rate", "true_skip_rate"];
            let rest = [
                "deviation_rate",
                "energy_saved_vs_hlm",
                "wasted_drafts_per_token",
                "wasted_joules_per_token_drafts",
                "goodput_tokens_per_second",
                "goodput_share",
            ];
            for metric in UNIVERSAL.into_iter().chain(POOLED).chain(conditional).chain(rest) {
                let present = metrics.get(metric).is_some();
                if OF_THE_WHOLE.contains(&metric) && group == data_set {
                    assert!(!present, "{method}: {metric} is of all data sets together");
                    continue;
                }
                assert!(applies(method, metric).is_none_or(|applies| applies == present), "{method}: {metric}");
            }
            for (name, metric) in metrics.as_object().expect("metrics") {
                let figures = ["count", "max", "mean", "min", "p50", "p90", "p95", "p99", "std", "unit"];
                assert_eq!(keys(metric), figures, "{method}: {name}");
                assert!(metric["count"].as_u64() > Some(0), "{method}: {name}");
            }
        }
    }

    books_close(&place, &run);
}

/// From the stored rows: every generation closes, the batches' joules are where they should be, and the summary's mean is
/// that of the rows.
fn books_close(place: &Place, run: &Results) {
    let runs = place.runs();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["state"], "completed");
    assert_eq!(runs[0]["run"], place.run_of("out")["run"]);
    let reader = place.reader(&runs[0]);
    let generations: Vec<GenerationRecord> = reader.generations().collect::<Result<_, _>>().expect("rows");
    assert_eq!(generations.len(), run.lines.len());
    let mut cloud: BTreeMap<u16, u64> = BTreeMap::new();
    for generation in &generations {
        let rounds = reader.rounds(generation.id).expect("rows");
        check_energy_closes(generation, &rounds, ACCOUNTING)
            .unwrap_or_else(|error| panic!("{:?}: {error}", generation.id));
        *cloud.entry(generation.id.method).or_default() += generation.energy.cloud;
    }
    let batches: Vec<BatchRecord> = reader.batches().collect::<Result<_, _>>().expect("rows");
    for (&method, cloud) in &cloud {
        let of = |figure: fn(&BatchRecord) -> u64| -> u64 {
            batches.iter().filter(|batch| batch.method == method).map(figure).sum()
        };
        let (spent, unclaimed) = (of(|batch| batch.nanojoules), of(|batch| batch.unclaimed_nanojoules));
        assert_eq!(spent, cloud + unclaimed, "method {method}");
    }

    for (index, method) in METHODS.iter().enumerate() {
        let own = || generations.iter().filter(|generation| usize::from(generation.id.method) == index);
        let joules: f64 = own().map(|generation| generation.energy.total() as f64 * 1e-9).sum();
        let tokens: usize = own().map(|generation| generation.tokens.len()).sum();
        let stated = run.summary["methods"][method]["energy_per_token_joules_total"]["mean"].as_f64().expect("a mean");
        let own = joules / tokens as f64;
        assert!((stated - own).abs() <= 1e-9 * own, "{method}: {stated} is not {own}");
    }
}

#[test]
fn json_is_all_that_is_printed() {
    let place = Place::new();
    let output = place.command(&["run", "--ledger", "runs", "--json", "--methods", "slm-only,ui-hlm"]);
    let output = { output }.args(FAST).args(["--prompts", "2", "--max-new-tokens", "4"]).output().expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(summary["state"], "VALID");
    // Without `hlm` nothing is saved against it, and without `llm-only` nothing agrees with it.
    for method in ["slm-only", "ui-hlm"] {
        assert!(summary["methods"][method].get("energy_saved_vs_hlm").is_none());
        assert!(summary["methods"][method].get("token_agreement").is_none());
    }
    assert_eq!(place.runs().len(), 1);
}

#[test]
fn a_table_and_the_places_are_printed() {
    let place = Place::new();
    let arguments = ["--prompts", "2", "--max-new-tokens", "4", "--methods", "hlm", "--out", "out"];
    let output = place.try_run(&arguments);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    assert!(table.contains("tok/s") && table.contains(" hlm ") && table.contains("VALID"), "{table}");
    assert!(table.contains("Jain") && table.contains("queue p95"), "the pool's figures: {table}");
    assert!(table.contains("in runs/") && table.contains("in out"), "{table}");
}

#[test]
fn a_pool_that_listens_everywhere_serves_the_fleet() {
    let place = Place::new();
    let everywhere = ["--set", "pool.listen=0.0.0.0:0", "--methods", "hlm", "--prompts", "2", "--max-new-tokens", "2"];
    place.run("out", &everywhere).assert_sound();
}

/// Odd text goes in and comes out as it is; white space and marks of the tokenizer are text like any other.
#[test]
fn odd_prompts() {
    let place = Place::new();
    let prompts = ["Ünï 日本語 🎉 \u{0} \u{202e}", "<|endoftext|></s>", "a", "\u{a0}x\r\n\t", "\u{feff}\u{200d}"];
    let line = |prompt: &&str| serde_json::json!({"prompt": prompt, "reference": "…"}).to_string();
    let workload = place.file("odd.jsonl", prompts.iter().map(line).collect::<Vec<_>>().join("\n"));
    let arguments = ["--workload", &workload, "--prompts", "10", "--max-new-tokens", "1"];
    let run = place.run("out", &[&arguments[..], &["--methods", "llm-only,hlm,block", "--temperature", "5"]].concat());
    run.assert_sound();
    assert_eq!(run.lines.len(), 30);
    for line in &run.lines {
        let prompt = line["prompt_id"].as_u64().expect("a number") as usize;
        assert_eq!(line["prompt"], prompts[prompt]);
        assert!(line["repetition"].as_u64() <= Some(1), "{line}");
        assert!(line["exact_match"].is_null(), "the reference has no final answer: {line}");
    }
}

/// A full disk behind standard output is said in one line, whatever was to be printed; what was to be done is done.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_printed() {
    let place = Place::new();
    let run = ["run", "--devices", "1", "--prompts", "1", "--max-new-tokens", "2", "--methods", "hlm", "--ui", "none"];
    let print = |arguments: &[&str]| {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        let output = place.command(arguments).stdout(full).output().expect("the binary runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.starts_with("specfleet: cannot print: ") && error.lines().count() == 1, "{arguments:?}: {error}");
    };
    print(&["--help"]);
    print(&["runs", "--help"]);
    print(&["--version"]);
    print(&["check", "default"]);
    print(&[&run[..], &["--ledger", "runs"]].concat());
    assert_eq!(place.runs()[0]["state"], "completed");
    print(&["report", "latest", "--ledger", "runs"]);
    print(&["rm", "latest", "--ledger", "runs"]);
    assert_eq!(place.runs().len(), 1);
    print(&["rm", "latest", "--yes", "--ledger", "runs"]);
    assert_eq!(place.runs().len(), 0);
}

/// A reader that has gone has seen what it wanted.
#[test]
fn output_that_nobody_reads() {
    let place = Place::new();
    place.run("out", &["--devices", "1", "--prompts", "1", "--max-new-tokens", "2", "--methods", "hlm"]);
    let report = ["report", "latest", "--ledger", "runs"];
    for arguments in [&["--help"][..], &["check", "default"], &report, &["rm", "latest", "--yes", "--ledger", "runs"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = place.command(arguments).stdout(writer).output().expect("the binary runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {}", said(&output));
    }
    assert_eq!(place.runs().len(), 0);
}

/// What is told on standard error is lost where it cannot be written; the run is not.
#[test]
fn standard_error_that_cannot_be_written() {
    let small =
        ["run", "--devices", "2", "--prompts", "2", "--max-new-tokens", "4", "--methods", "hlm", "--ledger", "runs"];
    for ui in ["plain", "auto"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        let place = Place::new();
        let arguments = [&small[..], &["--ui", ui, "--log", "debug"]].concat();
        let output = place.command(&arguments).stderr(full).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{ui}: {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(place.runs()[0]["state"], "completed");
    }
    // And a mistake keeps its exit code.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
    let output = Place::new().command(&["report", "nowhere"]).stderr(full).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
}
