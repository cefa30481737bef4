//! Simulations beside the live run of the same scenario.

use std::fs;

use serde_json::Value;
use specfleet_analysis::check_energy_closes;
use specfleet_engine::record::ACCOUNTING;
use specfleet_engine::record::Source;
use specfleet_ledger::RunKind;

use crate::calibration::calibrated;
use crate::common::*;
use crate::rows::Rows;

/// Small, and with every kind of decision in it.
const SMALL: [&str; 8] = ["--devices", "3", "--prompts", "6", "--max-new-tokens", "16", "--seed", "7"];

fn summary(place: &Place, out: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(out).join("summary.json")).expect("summary.json")).expect("JSON")
}

/// The default scenario, as it ships but for its number of prompts.
#[test]
fn the_default_scenario_in_every_fidelity() {
    let place = Place::new();
    let common = ["--prompts", "8", "--methods", "hlm,ui-hlm,block,llm-only", "--ui", "none"];
    let simulate = |out: &str, arguments: &[&str]| {
        let arguments = [&["simulate", "--ledger", "runs", "--out", out], &common[..], &FIXED, arguments].concat();
        let output = place.command(&arguments).output().expect("the binary runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("VALID · 32 generations · uploads: "), "{text}");
        assert!(text.contains(" s of virtual time in ") && text.contains("in runs/"), "{text}");
        let summary = summary(&place, out);
        assert_eq!((&summary["state"], &summary["generations"]), (&"VALID".into(), &32.into()), "{summary}");
        for method in ["hlm", "ui-hlm", "block", "llm-only"] {
            assert_eq!(summary["methods"][method]["tokens_per_second"]["count"], 8, "{method}");
        }
    };
    simulate("model", &[]);
    let recorded = place.name_of("model");
    simulate("trace", &["--fidelity", "trace", "--set", &format!("simulate.trace={recorded}")]);
    let file = place.file("calibration.json", calibrated());
    simulate("fitted", &["--fidelity", "fitted", "--set", &format!("calibration.file={file}")]);

    // A fleet of the same kind in the same time: what is replayed is what was there.
    place.rows_of("trace").assert_decided_as(&place.rows_of("model"));
    for (out, fidelity) in [("model", "model"), ("trace", "trace"), ("fitted", "fitted")] {
        let rows = place.rows_of(out);
        let kind = RunKind::Simulated { fidelity: fidelity.to_owned(), cost: "fixed".to_owned(), keep_every: 1 };
        assert_eq!(rows.meta.kind, kind);
        for (record, rounds) in &rows.generations {
            check_energy_closes(record, rounds, ACCOUNTING)
                .unwrap_or_else(|error| panic!("{out}: {:?}: {error}", record.id));
        }
        let exact = summary(&place, out)["methods"]["hlm"].get("exact_match").is_some();
        assert_eq!(exact, fidelity != "fitted", "drawn tokens are no text");
    }
}

/// All methods but `price`, whose decisions depend on times.
#[test]
fn models_decide_as_live_ones_and_a_trace_repeats_them() {
    let place = Place::new();
    place.quick("run", "live", &SMALL);
    let live = place.rows_of("live");
    assert_eq!(live.generations.len(), METHODS.len() * 6);
    let rounds = || live.generations.iter().flat_map(|(_, rounds)| rounds);
    for source in [Source::Skipped, Source::Accepted, Source::Replaced, Source::Bonus, Source::Verifier] {
        assert!(
            rounds().any(|round| round.source == source),
            "{source:?}: without one this shows little; take another seed"
        );
    }

    place.quick("simulate", "model", &[&SMALL[..], &FIXED].concat());
    let model = place.rows_of("model");
    model.assert_decided_as(&live);
    // What the verifier makes of skipped tokens does not depend on times either.
    let audits = |rows: &Rows| {
        let mut audits: Vec<String> = rows.audits.iter().map(|audit| format!("{audit:?}")).collect();
        audits.sort();
        audits
    };
    assert_eq!(audits(&model), audits(&live));

    let trace = format!("simulate.trace={}", place.name_of("live"));
    let replayed = ["--fidelity", "trace", "--set", &trace];
    place.quick("simulate", "trace", &[&SMALL[..], &FIXED, &replayed].concat());
    let trace_rows = place.rows_of("trace");
    let tokens = |rows: &Rows| -> Vec<_> {
        let mut tokens: Vec<_> =
            rows.generations.iter().map(|(record, _)| (record.id, record.tokens.clone())).collect();
        tokens.sort();
        tokens
    };
    assert_eq!(tokens(&trace_rows), tokens(&live));
    assert_eq!(audits(&trace_rows), audits(&live));
    // Another fleet, pool and link: other times, the same text.
    let other = ["--devices", "2", "--verifiers", "3", "--set", "device.link=poor", "--set", "pool.order=deadline"];
    let arguments = [&SMALL[2..], &FIXED, &replayed, &other].concat();
    place.quick("simulate", "elsewhere", &arguments);
    assert_eq!(tokens(&place.rows_of("elsewhere")), tokens(&live));
    assert_ne!(summary(&place, "elsewhere")["methods"], summary(&place, "trace")["methods"]);
}

#[test]
fn json_is_all_that_a_simulation_prints() {
    let place = Place::new();
    let arguments = ["simulate", "--ledger", "runs", "--json", "--methods", "slm-only,hlm", "--prompts", "2"];
    let output = place.command(&arguments).args(FIXED).args(QUICK).output().expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!((&summary["state"], &summary["run"]), (&"VALID".into(), &place.runs()[0]["run"]));
}
