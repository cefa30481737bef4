//! Runs of several passes: `--repeat`, `--warmup`, `--seeds`, what they are good for, and what a run says of its own
//! disturbance.

use std::collections::BTreeMap;
use std::fs;

use expect_test::expect;
use serde_json::{Value, json};

use crate::common::{printed as asked, *};

const SMALL: [&str; 6] = ["--devices", "2", "--prompts", "4", "--max-new-tokens", "16"];

fn live(place: &Place, out: &str, arguments: &[&str]) -> Value {
    place.quick("run", out, &[&SMALL[..], arguments].concat());
    Results::read(&place.path(out)).summary
}

/// Tokens by method, prompt and pass.
fn tokens(place: &Place, out: &str) -> BTreeMap<(String, u64, u64), Value> {
    let text = fs::read_to_string(place.path(out).join("generations.jsonl")).expect("generations");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let number = |line: &Value, key: &str| line[key].as_u64().expect("a number");
    lines
        .map(|line| {
            let method = line["method"].as_str().expect("a name").to_owned();
            ((method, number(&line, "prompt_id"), number(&line, "pass")), line["token_ids"].clone())
        })
        .collect()
}

fn row<'a>(compared: &'a Value, metric: &str) -> &'a Value {
    let rows = compared["rows"].as_array().expect("a list");
    rows.iter().find(|row| row["metric"] == metric).unwrap_or_else(|| panic!("{metric} in {compared}"))
}

#[test]
fn passes_have_equal_tokens_and_figures_have_intervals() {
    let place = Place::new();
    let summary = live(&place, "out", &["--methods", "hlm,u-hlm", "--repeat", "3", "--warmup", "1"]);
    assert_eq!(
        (&summary["state"], &summary["repeat"], &summary["generations"]),
        (&"VALID".into(), &3.into(), &24.into())
    );
    let of_pass = tokens(&place, "out");
    assert_eq!(of_pass.len(), 24, "the warm-up is not among them");
    for ((method, prompt, pass), tokens) in &of_pass {
        assert_eq!(tokens, &of_pass[&(method.clone(), *prompt, 0)], "{method}, prompt {prompt}, pass {pass}");
    }
    for (metric, over) in [
        ("energy_per_token_joules_total", "passes-and-prompts"),
        ("exact_match", "passes-and-prompts"),
        ("fleet_tokens_per_second", "passes"),
    ] {
        let metric = &summary["methods"]["u-hlm"][metric];
        assert_eq!(metric["interval"]["over"], over, "{metric}");
        assert!(metric["interval"]["low"].as_f64() <= metric["mean"].as_f64(), "{metric}");
    }
    // Every pass begins with another method, and methods do not overlap.
    let rows = place.rows_of("out");
    let mut starts: BTreeMap<(u16, u16), u64> = BTreeMap::new();
    for (record, _) in &rows.generations {
        let first = starts.entry((record.id.pass, record.id.method)).or_insert(u64::MAX);
        *first = (*first).min(record.started.0);
    }
    let mut order: Vec<((u16, u16), u64)> = starts.into_iter().collect();
    order.sort_by_key(|(_, start)| *start);
    let order: Vec<(u16, u16)> = order.into_iter().map(|(phase, _)| phase).collect();
    assert_eq!(order, [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1)]);
    let passes: Vec<u16> = rows.batches.iter().filter(|batch| batch.method < 2).map(|batch| batch.pass).collect();
    assert!(passes.is_sorted() && passes.last() == Some(&2), "batches know their pass");

    let name = place.name_of("out");
    let report = asked(&place, &["report", &name]);
    assert!(report.contains("seed 1, 3 passes") && report.contains("mean [95 %], 3 passes"), "{report}");
    let answer: Value = serde_json::from_str(&asked(&place, &["report", &name, "--json"])).expect("JSON");
    assert_eq!(answer["methods"][1]["metrics"], summary["methods"]["u-hlm"], "a report says what the run said");
    let asked_for =
        ["query", &name, "--metric", "generations:count,batches:count", "--group-by", "pass", "--format", "csv"];
    let by_pass = asked(&place, &asked_for);
    assert_eq!(by_pass.lines().filter(|line| line.contains(",8,")).count(), 3, "{by_pass}");
}

#[test]
fn seeds_are_runs_of_their_own_seeds() {
    let place = Place::new();
    let summary = live(&place, "both", &["--methods", "u-hlm", "--seed", "7", "--seeds", "2"]);
    assert_eq!((&summary["seed"], &summary["seeds"], &summary["state"]), (&7.into(), &2.into(), &"VALID".into()));
    live(&place, "second", &["--methods", "u-hlm", "--seed", "8"]);
    let (both, second) = (tokens(&place, "both"), tokens(&place, "second"));
    for ((method, prompt, _), tokens) in &second {
        assert_eq!(&both[&(method.clone(), *prompt, 1)], tokens, "prompt {prompt}");
    }
    assert!(
        second
            .keys()
            .any(|(method, prompt, _)| both[&(method.clone(), *prompt, 0)] != second[&(method.clone(), *prompt, 0)])
    );
    // The same as a simulation, which has seeds and no repetitions.
    place.quick(
        "simulate",
        "simulated",
        &[&FIXED[..], &SMALL, &["--methods", "u-hlm", "--seed", "7", "--seeds", "2"]].concat(),
    );
    assert_eq!(tokens_of(&place, "simulated"), tokens_of(&place, "both"));
    let simulated = Results::read(&place.path("simulated")).summary;
    assert_eq!(
        simulated["methods"]["u-hlm"]["energy_per_token_joules_total"]["interval"]["over"],
        "passes-and-prompts"
    );
}

/// Tokens of what is stored, by prompt and pass.
fn tokens_of(place: &Place, out: &str) -> BTreeMap<(u32, u16), Vec<u32>> {
    let rows = place.rows_of(out);
    rows.generations.iter().map(|(record, _)| ((record.id.prompt, record.id.pass), record.tokens.clone())).collect()
}

/// Prompts of one run say nothing about how runs differ; passes do.
#[test]
fn a_host_timed_figure_is_significant_only_between_repeated_runs() {
    let place = Place::new();
    let measured = ["--methods", "hlm", "--set", "pool.cost=measured"];
    for out in ["one", "other"] {
        live(&place, out, &measured);
    }
    for out in ["many", "more"] {
        live(&place, out, &[&measured[..], &["--repeat", "3"]].concat());
    }
    let name = |out: &str| place.name_of(out);
    let compared = |a: &str, b: &str| -> Value {
        serde_json::from_str(&asked(&place, &["compare", &name(a), &name(b), "--json"])).expect("JSON")
    };
    for (a, b) in [("one", "other"), ("one", "many")] {
        let single = compared(a, b);
        for metric in ["energy_per_token_joules_total", "energy_per_token_joules_cloud", "request_latency_seconds"] {
            let row = row(&single, metric);
            assert_eq!(
                (&row["host_timed"], &row["p_value"], &row["significant"]),
                (&json!(true), &Value::Null, &json!(false))
            );
            assert_eq!(row["over"], "prompts");
        }
        let radio = row(&single, "energy_per_token_joules_radio");
        assert_eq!(
            (&radio["host_timed"], &radio["difference"], &radio["p_value"]),
            (&json!(false), &json!(0.0), &json!(1.0))
        );
    }
    let repeated = compared("many", "more");
    let energy = row(&repeated, "energy_per_token_joules_total");
    assert_eq!((&energy["over"], energy["p_value"].is_f64()), (&json!("passes-and-prompts"), true), "{energy}");
    assert_eq!(row(&repeated, "tokens")["over"], "prompts", "equal in every pass");
    let text = asked(&place, &["compare", &name("one"), &name("other")]);
    assert!(text.contains("one run each: the figure follows the host"), "{text}");
    assert!(!asked(&place, &["compare", &name("many"), &name("more")]).contains("one run each"));
}

#[test]
fn a_single_run_says_what_its_intervals_are_over() {
    let place = Place::new();
    let arguments = [&SMALL[..], &["--methods", "hlm,ui-hlm", "--set", "pool.cost=measured"]].concat();
    let output = place.quick("run", "out", &arguments);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        printed.contains("intervals of energy are over prompts, within this run: the next run may lie outside"),
        "{printed}"
    );
    let output = place.quick("simulate", "virtual", &[&FIXED[..], &SMALL, &["--methods", "hlm,ui-hlm"]].concat());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("intervals of energy are over prompts\n"), "{printed}");
}

#[test]
fn passes_that_make_no_sense_are_refused() {
    let place = Place::new();
    let refused = |arguments: &[&str], expected: expect_test::Expect| {
        let output = place.command(arguments).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        expected.assert_eq(String::from_utf8_lossy(&output.stderr).trim_end());
    };
    refused(
        &["run", "--repeat", "2", "--seeds", "2"],
        expect!["specfleet: --seeds: run.seeds: has no use with repeat: passes have one seed, or each its own"],
    );
    refused(
        &["run", "--repeat", "0"],
        expect!["specfleet: --repeat: run.repeat = 0 is out of range: must lie in 1 to 1000"],
    );
    refused(
        &["run", "--seeds", "3", "--seed", "9223372036854775806"],
        expect![
            "specfleet: --seeds: run.seeds: seed 9223372036854775806 and those behind it would pass 9223372036854775807"
        ],
    );
    refused(
        &["simulate", "--set", "run.repeat=2"],
        expect!["specfleet: --set: run.repeat: a simulation has no use for it"],
    );
}

/// Changes what a run recorded of its disturbance.
fn disturb(place: &Place, name: &str, change: &[(&str, Value)]) {
    let path = place.path("runs").join(name).join("meta.json");
    let mut meta: Value = serde_json::from_str(&fs::read_to_string(&path).expect("meta.json")).expect("JSON");
    for (key, value) in change {
        meta["disturbance"][*key] = value.clone();
    }
    put_meta(&path, &meta);
}

const QUIET: [(&str, u64); 6] = [
    ("emulated", 100_000),
    ("overrun", 1_000),
    ("charged", 100_000),
    ("batch_overrun", 1_000),
    ("stalled", 0),
    ("watched", 100_000),
];

#[test]
fn a_noisy_run_is_called_so_everywhere_and_a_quiet_one_nowhere() {
    let place = Place::new();
    // No host computes batches in a microsecond.
    let output = place.quick(
        "run",
        "out",
        &[&SMALL[..], &["--methods", "hlm", "--set", "pool.cost=fixed", "--set", "pool.batch_ms=0.001"]].concat(),
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("NOISY: ") && printed.contains("verifiers were late by "), "{printed}");
    let name = place.name_of("out");
    let meta = || -> Value {
        let text = fs::read_to_string(place.path("runs").join(&name).join("meta.json")).expect("meta.json");
        serde_json::from_str(&text).expect("JSON")
    };
    assert!(meta()["noise"].as_str().is_some_and(|noise| noise.starts_with("NOISY: ")), "{}", meta());
    assert!(meta()["disturbance"]["watched"].as_u64() > Some(0));
    let results = Results::read(&place.path("out"));
    assert!(results.summary["noise"].as_array().is_some_and(|noise| !noise.is_empty()));

    let pages = || {
        let page = place.path("page.html");
        asked(&place, &["report", &name, "--html", page.to_str().expect("Unicode")]);
        [asked(&place, &["report", &name]), asked(&place, &["runs"]), fs::read_to_string(page).expect("a page")]
    };
    let quiet: Vec<(&str, Value)> = QUIET.iter().map(|(key, value)| (*key, json!(value))).collect();
    disturb(
        &place,
        &name,
        &[
            &quiet[..],
            &[
                ("others", json!(0.02)),
                ("stolen", json!(0.0)),
                ("batch_overrun", json!(140_000)),
                ("stalled", json!(5_000)),
            ],
        ]
        .concat(),
    );
    let [report, runs, page] = pages();
    let line = |text: &str| text.lines().find(|line| line.contains("NOISY")).unwrap_or_default().to_owned();
    expect!["NOISY: verifiers were late by 140.0 % of their charged time (limit 100 %); the host stood still for 5.0 % of the run (limit 1 %)"].assert_eq(&line(&report));
    assert!(runs.contains("NOISY: verifiers 140 %, stalls 5 %"), "{runs}");
    assert!(page.contains("NOISY: verifiers were late by 140.0 %"));
    disturb(&place, &name, &[&quiet[..], &[("others", json!(0.02)), ("stolen", json!(0.0))]].concat());
    for text in pages() {
        assert_eq!(text.matches("\"noise\":\"NOISY").count() + usize::from(line(&text).starts_with("NOISY")), 0);
    }
}
