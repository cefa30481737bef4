//! `report`, `compare`, `query` and `frontier`: what stored runs answer.

use std::collections::BTreeMap;

use expect_test::expect;
use serde_json::Value;
use specfleet_ledger::RunReader;

use crate::bad_input::refused_at;
use crate::common::{printed as asked, *};

const SMALL: [&str; 8] = ["--devices", "3", "--prompts", "6", "--max-new-tokens", "24", "--threads", "2"];

fn simulated(place: &Place, out: &str, arguments: &[&str]) -> String {
    place.quick("simulate", out, &[&FIXED[..], &SMALL, arguments].concat());
    place.name_of(out)
}

fn json(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(&asked(place, arguments)).expect("JSON")
}

/// A stored run's report has the figures that the run itself had at its end.
#[test]
fn a_report_is_what_the_run_said() {
    let place = Place::new();
    let name = simulated(&place, "out", &["--methods", "llm-only,hlm,ui-hlm,block"]);
    let results = Results::read(&place.path("out"));
    let report = json(&place, &["report", &name, "--json"]);
    assert_eq!(report["validity"]["state"], "VALID", "{}", report["validity"]);
    assert_eq!((&report["quantiles"], &report["run"]["name"]), (&"exact".into(), &name.clone().into()));
    let methods = report["methods"].as_array().expect("a list");
    assert_eq!(methods.len(), 4);
    for method in methods {
        let of_run = &results.summary["methods"][method["name"].as_str().expect("a name")];
        assert_eq!(&method["metrics"], of_run, "{}", method["name"]);
    }
    let paired: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("out/paired.json")).expect("a file")).expect("JSON");
    assert_eq!(report["paired"], paired);

    // Histograms, batches, places and the timeline hold every row.
    let reader = place.reader(&place.run_of("out"));
    let list = |name: &str| report[name].as_array().expect("a list").clone();
    let sum = |rows: &[Value], field: &str| rows.iter().map(|row| row[field].as_u64().expect("a count")).sum::<u64>();
    let rounds: Vec<_> = reader.closed_rounds().map(|rounds| rounds.expect("rows")).collect();
    let tokens: usize = rounds.iter().map(|rounds| rounds.rounds.len()).sum();
    assert_eq!(sum(&list("answer_positions"), "tokens"), tokens as u64);
    assert_eq!(sum(&list("batch_sizes"), "batches"), reader.batches().count() as u64);
    assert_eq!(sum(&list("positions"), "judged"), sum(&list("answer_positions"), "judged"));
    // One process at a time opens a store.
    drop(reader);
    let counted = |metric: &str| {
        let of = list("latency").into_iter().filter(|histogram| histogram["metric"] == metric);
        of.map(|histogram| sum(histogram["bins"].as_array().expect("a list"), "count")).sum::<u64>()
    };
    assert_eq!(counted("time_to_first_token_seconds"), 24);
    assert_eq!(counted("inter_token_latency_seconds"), (tokens - 24) as u64);
    let committed: f64 = list("timeline")
        .iter()
        .map(|bin| bin["tokens_per_second"].as_f64().expect("a rate") * bin["width_seconds"].as_f64().expect("a width"))
        .sum();
    assert!((committed - tokens as f64).abs() < 1e-3 && list("timeline").len() <= 200, "{committed} {tokens}");
    let places = list("positions").into_iter().filter(|row| row["method"] == "block").count();
    assert_eq!(places, 4, "blocks of four");

    // The filter's damage is that of the audits.
    let damage = list("damage");
    let ours = damage.iter().find(|row| row["method"] == "ui-hlm").expect("it skips");
    let rate = ours["deviation_rate"].as_f64().expect("a rate");
    let mean = &results.summary["methods"]["ui-hlm"]["deviation_rate"]["mean"];
    assert!((rate - mean.as_f64().expect("a mean")).abs() < 1e-6);
    assert!(ours["low"].as_f64() <= Some(rate) && Some(rate) <= ours["high"].as_f64());

    let text = asked(&place, &["report", &name]);
    for expected in ["the filter's damage", "(constant)", "first_divergence_tokens", "VALID", "BERTScore is missing"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let page = place.path("page.html");
    asked(&place, &["report", &name, "--html", page.to_str().expect("Unicode")]);
    assert!(std::fs::read_to_string(&page).expect("a page").contains(&name));
}

/// Sums of a query are the ledger's own integers.
#[test]
fn sums_are_the_ledgers() {
    let place = Place::new();
    let name = simulated(&place, "out", &["--methods", "hlm,ui-hlm,block"]);
    let reader: RunReader = place.reader(&place.run_of("out"));
    let mut expected: BTreeMap<u16, [u64; 4]> = BTreeMap::new();
    for record in reader.generations() {
        let record = record.expect("a row");
        let sums = expected.entry(record.id.method).or_default();
        sums[0] += record.energy.total();
        for round in reader.rounds(record.id).expect("rows") {
            sums[1] += 1;
            sums[2] += u64::from(round.uplink_bytes());
            sums[3] += round.started_upload().map_or(0, |cost| (cost.verify.queue_wait + cost.verify.batch_wait).0);
        }
    }
    drop(reader);
    let metrics = "energy_total:sum,rounds:count,uplink_bytes:sum,queue:sum";
    let csv = asked(&place, &["query", &name, "--group-by", "method", "--metric", metrics, "--format", "csv"]);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("method,energy_total:sum,rounds:count,uplink_bytes:sum,queue:sum"));
    let seconds = |nanoseconds: u64| {
        let text = format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    for (line, (index, sums)) in lines.by_ref().zip(&expected) {
        let method = ["hlm", "ui-hlm", "block"][usize::from(*index)];
        let [energy, rounds, bytes, queue] = *sums;
        assert_eq!(line, format!("{method},{},{rounds},{bytes},{}", seconds(energy), seconds(queue)));
    }
    assert_eq!(lines.next(), None);

    // Conditions and groups divide the rows and lose none.
    let count = |arguments: &[&str]| {
        let fixed = ["query", &name, "--metric", "rounds:count", "--format", "json"];
        let rows = json(&place, &[&fixed[..], arguments].concat());
        rows.as_array().expect("a list").iter().map(|row| row["rounds:count"].as_u64().expect("a count")).sum::<u64>()
    };
    let all = count(&[]);
    assert_eq!(all, expected.values().map(|sums| sums[1]).sum::<u64>());
    assert_eq!(count(&["--group-by", "device,source,reason,position"]), all);
    let (above, below) = (count(&["--where", "uncertainty>0.3"]), count(&["--where", "uncertainty<=0.3"]));
    assert_eq!(above + below, count(&["--where", "method=ui-hlm"]), "only ui-hlm measures it");
    assert!(above > 0 && below > 0);
    assert_eq!(
        count(&["--where", "source!=skipped", "--where", "method=ui-hlm"]) + count(&["--where", "source=skipped"]),
        count(&["--where", "method=ui-hlm"])
    );
    let list = place.command(&["query", "--list"]).output().expect("the binary runs");
    assert!(String::from_utf8_lossy(&list.stdout).contains("energy_total"), "{}", said(&list));
}

#[test]
fn mistakes_come_with_the_nearest_names() {
    let place = Place::new();
    let name = simulated(&place, "out", &["--methods", "hlm,u-hlm"]);
    let query =
        |arguments: &[&str], expected| refused_at(&place, &[&["query", &name][..], arguments].concat(), expected);
    query(
        &["--metric", "energy_totl:mean"],
        expect![[r#"specfleet: --metric: there is no metric "energy_totl"; did you mean energy_total?"#]],
    );
    query(
        &["--metric", "energy_total:men"],
        expect![[r#"specfleet: --metric energy_total:men: there is no statistic "men"; did you mean mean or min?"#]],
    );
    query(
        &["--metric", "tokens", "--group-by", "metod"],
        expect![[r#"specfleet: --group-by: there is no group "metod"; did you mean method?"#]],
    );
    query(
        &["--metric", "energy_total", "--group-by", "source"],
        expect!["specfleet: energy_total is a metric of generations, which have no source; source is of rounds"],
    );
    query(
        &["--metric", "tokens", "--where", "method=uhlm"],
        expect![[r#"specfleet: --where method: run RUN has no "uhlm"; did you mean hlm or u-hlm?"#]],
    );
    query(
        &["--metric", "tokens", "--where", "tokens>many"],
        expect![[r#"specfleet: --where tokens>many: "many" is not a number"#]],
    );
    query(
        &["--metric", "tokens", "--where", "tokens"],
        expect!["specfleet: --where tokens: it must be COLUMN=VALUE, or with !=, <, <=, > or >="],
    );
    let frontier =
        |arguments: &[&str], expected| refused_at(&place, &[&["frontier", &name][..], arguments].concat(), expected);
    frontier(
        &["--method", "hlm"],
        expect![
            "specfleet: run RUN: hlm decides by no threshold; the methods that do are u-hlm, ui-hlm, cu-hlm, entropy and max-prob"
        ],
    );
    frontier(
        &["--method", "uhlm"],
        expect![[r#"specfleet: run RUN has no method "uhlm"; did you mean hlm or u-hlm?"#]],
    );
    frontier(&["--kappa", "0..1:3"], expect!["specfleet: run RUN: u-hlm measures no importance: leave out --kappa"]);
    frontier(
        &["--uncertainty", "high"],
        expect!["specfleet: --uncertainty high: it must be FROM..TO:COUNT or numbers with commas between them"],
    );
    frontier(&["--importance", "offf"], expect![[r#"specfleet: --importance: there is no "offf"; did you mean off?"#]]);
}

#[test]
fn runs_that_are_not_alike_are_not_compared() {
    let place = Place::new();
    let methods = ["--methods", "hlm,u-hlm"];
    let base = simulated(&place, "base", &methods);
    let warm = simulated(&place, "warm", &[&methods[..], &["--temperature", "0.5"]].concat());
    let other = simulated(&place, "other", &[&methods[..], &["--workload", "gsm8k"]].concat());
    let precise = simulated(&place, "precise", &[&methods[..], &["--precision", "f32"]].concat());
    let refused = |second: &str, why: &str| {
        let output = place.command(&["compare", &base, second, "--ledger", "runs"]).output().expect("the binary runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(error.lines().count() == 1 && error.contains(why), "{error}");
    };
    refused(&warm, "they sample differently: temperature 1, top_k 0, top_p 1 and temperature 0.5");
    refused(&other, "their workloads differ: word-problems and gsm8k");
    refused(&precise, "they ran other models");
    refused(&base, "compare needs two different runs");
    refused("nothing", "nothing");

    // A slower pool changes times and nothing else.
    let slow = simulated(&place, "slow", &[&methods[..], &["--set", "simulate.batch_ms=9"]].concat());
    let compared = json(&place, &["compare", &base, &slow, "--method", "hlm", "--json"]);
    let row = |metric: &str| {
        let rows = compared["rows"].as_array().expect("a list");
        rows.iter().find(|row| row["metric"] == metric).cloned().unwrap_or_else(|| panic!("{metric} in {compared}"))
    };
    for same in ["tokens", "rouge_l", "uploads_per_token"] {
        assert_eq!((&row(same)["difference"], &row(same)["p_value"]), (&0.0.into(), &1.0.into()), "{same}");
    }
    let latency = row("request_latency_seconds");
    assert_eq!(latency["pairs"], 6);
    assert!(latency["difference"].as_f64() < Some(0.0) && latency["high"].as_f64() < Some(0.0), "{latency}");
    // Six pairs of one sign: 2 of 64 patterns.
    assert_eq!(latency["p_value"], 0.03125);
    assert!(latency["effect"].as_f64() < Some(-1.0));
    let differences = compared["differences"].as_array().expect("a list");
    assert!(
        differences.iter().any(|row| row[0].as_str().is_some_and(|key| key.starts_with("pool.cost"))),
        "{compared}"
    );
    assert!(asked(&place, &["compare", &base, &slow]).contains("differs: pool.cost"));
    let across = json(&place, &["compare", &base, &slow, "--method-a", "hlm", "--method-b", "u-hlm", "--json"]);
    assert_eq!(across["rows"][0]["method_b"], "u-hlm");
}

/// What the log of one run says about other thresholds is what runs with these thresholds do.
#[test]
fn the_frontier_is_true() {
    let place = Place::new();
    let fresh = |out: &str, threshold: &str| {
        let set = format!("method.uncertainty_threshold={threshold}");
        let arguments = ["--devices", "8", "--prompts", "40", "--methods", "ui-hlm", "--set", &set];
        place.quick("simulate", out, &[&FIXED[..], &arguments].concat());
        Results::read(&place.path(out)).summary["methods"]["ui-hlm"].clone()
    };
    let thresholds = ["0.04", "0.08", "0.16"];
    let runs: Vec<Value> = thresholds.iter().map(|threshold| fresh(threshold, threshold)).collect();
    let name = place.name_of("0.08");
    let swept = json(&place, &["frontier", &name, "--uncertainty", &thresholds.join(","), "--json"]);
    assert_eq!((&swept["agreement"], &swept["method"]), (&1.0.into(), &"ui-hlm".into()), "{swept}");
    let points = swept["points"].as_array().expect("a list");
    assert_eq!(points.len(), 3, "{swept}");
    let mut rates = Vec::new();
    for (point, run) in points.iter().zip(&runs) {
        let figure = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("a figure in {point}"));
        let (estimate, truth) = (figure(&point["upload_rate"]["value"]), figure(&run["upload_rate"]["mean"]));
        assert!((estimate - truth).abs() < 0.03, "upload rate {estimate}, a fresh run's {truth}: {point}");
        let joules = figure(&run["energy_per_token_joules_total"]["mean"]);
        assert!((figure(&point["joules_per_token"]) / joules - 1.0).abs() < 0.1, "{joules} J/token: {point}");
        assert!(point["supported"] == true, "{point}");
        rates.push(truth);
    }
    assert!(rates[0] > rates[1] + 0.05 && rates[1] > rates[2] + 0.05, "the thresholds lie apart: {rates:?}");
    assert_eq!(points[1]["logged"], true);
    let logged = points[1]["upload_rate"]["value"].as_f64().expect("a rate");
    assert!((logged - rates[1]).abs() < 1e-9, "at its own thresholds the log is the run");
    let text = asked(&place, &["frontier", &name, "--csv", place.path("f.csv").to_str().expect("Unicode")]);
    assert!(text.contains("off-policy") && text.contains("logged"), "{text}");
    assert!(std::fs::read_to_string(place.path("f.csv")).expect("a file").starts_with("threshold,kappa,upload_rate,"));
}

/// Figures of all devices, drawings of the kept ones, and no accuracy of a text that there is not.
#[test]
fn a_run_that_is_kept_in_part() {
    let place = Place::new();
    let file = format!("calibration.file={}", place.file("calibration.json", crate::calibration::calibrated()));
    let arguments = [
        "--set",
        "simulate.fidelity=fitted",
        "--set",
        "simulate.keep_every=2",
        "--set",
        &file,
        "--methods",
        "hlm,ui-hlm",
    ];
    let name = simulated(&place, "out", &arguments);
    let summary: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("out/summary.json")).expect("a file")).expect("JSON");
    let report = json(&place, &["report", &name, "--json"]);
    assert_eq!(report["methods"][1]["metrics"], summary["methods"]["ui-hlm"]);
    assert!(report["quantiles"].as_str().is_some_and(|text| text.starts_with("sketch")), "{report}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("every 2th device") && notes.contains("there is no text"), "{notes}");
    assert!(!notes.contains("BERTScore"), "{notes}");
    // Without the figures of all devices the rest is no whole report.
    std::fs::write(place.path("runs").join(&name).join("summary.json"), "{").expect("a file");
    let output = call(&place, &["report", &name, "--json"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("run {name} is damaged: file summary.json in 1 place")), "{error}");
}

/// One prompt says nothing about how prompts differ: no table and no file gives it an interval.
#[test]
fn one_prompt_has_no_interval() {
    let place = Place::new();
    let one = ["--prompts", "1", "--devices", "1", "--max-new-tokens", "24", "--methods", "hlm,ui-hlm"];
    let output = place.quick("simulate", "a", &[&FIXED[..], &one].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("[one prompt]") && !said.contains("[+") && !said.contains("[-"), "{said}");
    place.quick("simulate", "b", &[&FIXED[..], &one, &["--seed", "8"]].concat());
    let (a, b) = (place.name_of("a"), place.name_of("b"));

    let report = json(&place, &["report", &a, "--json"]);
    let energy = &report["paired"][0]["joules_per_token"];
    assert!(energy["mean"].is_number() && energy["low"].is_null() && energy["high"].is_null(), "{energy}");
    for damage in report["damage"].as_array().expect("a list") {
        assert!(damage["low"].is_null() && damage["high"].is_null(), "{damage}");
    }
    let text = asked(&place, &["report", &a]);
    assert!(text.contains("[one prompt]") && text.contains("[one generation]"), "{text}");

    let compared = json(&place, &["compare", &a, &b, "--json"]);
    let rows = compared["rows"].as_array().expect("a list");
    assert!(!rows.is_empty());
    for row in rows {
        assert!(row["low"].is_null() && row["high"].is_null() && row["significant"] == false, "{row}");
    }
    assert!(asked(&place, &["compare", &a, &b]).contains("[one prompt]"));

    let frontier = json(&place, &["frontier", &a, "--method", "ui-hlm", "--json"]);
    for point in frontier["points"].as_array().expect("a list") {
        assert!(point["upload_rate"]["low"].is_null() && point["upload_rate"]["high"].is_null(), "{point}");
    }
}

/// A p95 of three samples is the largest of them, and says so wherever it stands.
#[test]
fn percentiles_of_few_samples_say_so() {
    let place = Place::new();
    let few = ["--set", "run.prompts=1", "--set", "run.max_new_tokens=4", "--methods", "hlm"];
    let check = ["--set", "thresholds.checks=inter_token_p95 < 100s"];
    let output = place.quick("simulate", "few", &[&FIXED[..], &["--devices", "1"], &few, &check].concat());
    let name = place.name_of("few");
    let footnote = "* the largest sample: a p95 needs 20 samples, a p90 10, a p99 100";
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let page = place.path("few.html");
    let report = asked(&place, &["report", &name, "--html", page.to_str().expect("Unicode")]);
    assert!(report.is_empty() || report.contains("few.html"), "{report}");
    for text in [printed.clone(), asked(&place, &["report", &name])] {
        assert!(text.contains(footnote), "{text}");
    }
    let held = printed.lines().find(|line| line.starts_with("threshold met")).expect("a verdict");
    assert!(held.ends_with(", the largest of 3 samples)"), "{held}");
    let note = "a percentile of fewer samples than it needs (p90 10, p95 20, p99 100) is the largest one";
    let query = |run: &str, metric: &str| {
        let arguments = ["query", run, "--ledger", "runs", "--metric", metric];
        said(&place.command(&arguments).output().expect("the binary runs"))
    };
    assert!(query(&name, "inter_token:p95").contains(note));
    assert!(!query(&name, "inter_token:p50,inter_token:max").contains(note));
    let many = simulated(&place, "many", &["--methods", "hlm"]);
    assert!(!asked(&place, &["report", &many]).contains(footnote) && !query(&many, "inter_token:p95").contains(note));
}

/// What the report says of the uploads of `llm-only`, which has no drafts to upload, the query says too.
#[test]
fn llm_only_has_no_upload_rate_anywhere() {
    let place = Place::new();
    let name = simulated(&place, "out", &["--methods", "llm-only,hlm"]);
    let report = json(&place, &["report", &name, "--json"]);
    assert!(report["methods"][0]["metrics"]["upload_rate"].is_null(), "{}", report["methods"][0]);
    let metrics = ["--metric", "upload_rate:mean,uploaded:mean", "--group-by", "method", "--format", "csv"];
    let csv = asked(&place, &[&["query", name.as_str()][..], &metrics].concat());
    assert_eq!(csv.trim_end(), "method,upload_rate:mean,uploaded:mean\nllm-only,,\nhlm,1,1");
}

/// The numbers that calibration resolved stand in the report and on the page, not in `meta.json` alone.
#[test]
fn thresholds_are_in_view() {
    let place = Place::new();
    let arguments = ["--methods", "ui-hlm,entropy", "--set", "method.uncertainty_threshold=0.125"];
    let name = simulated(&place, "out", &arguments);
    let text = asked(&place, &["report", &name]);
    assert!(text.contains("u > 0.1250 (expected) and I >= mean "), "{text}");
    let report = json(&place, &["report", &name, "--json"]);
    assert_eq!(report["rules"][1]["method"], "entropy");
    let entropy = report["rules"][1]["uploads"].as_str().expect("words");
    assert!(entropy.starts_with("entropy > ") && text.contains(entropy), "{entropy}");
}
