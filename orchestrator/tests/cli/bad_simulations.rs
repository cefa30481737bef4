//! What simulations, and what is asked of them, refuse: one line, exit code 2, and no run is left.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::Value;

use crate::bad_input::refused_at;
use crate::calibration::MEASURED;
use crate::common::*;

fn refused(arguments: &[&str], expected: Expect) {
    refused_at(&Place::new(), &[arguments, &["--ui", "none"]].concat(), expected);
}

/// A simulation that needs no calibration, with more arguments.
fn simulation_refused(arguments: &[&str], expected: Expect) {
    let quick = ["simulate", "--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1"];
    refused(&[&quick, &FIXED[..], arguments].concat(), expected);
}

#[test]
fn keys_without_use() {
    simulation_refused(
        &["--set", "pool.listen=127.0.0.1:0"],
        expect!["specfleet: --set: pool.listen: a simulation has no use for it"],
    );
    simulation_refused(
        &["--set", "model.drafter_threads=2", "--set", "pool.endpoints=2"],
        expect!["specfleet: --set: model.drafter_threads: a simulation has no use for it; nor for pool.endpoints"],
    );
    refused(
        &["run", "--set", "simulate.keep_every=2"],
        expect!["specfleet: --set: simulate.keep_every: a live run has no use for it"],
    );
    simulation_refused(
        &["--set", "simulate.trace=there"],
        expect![[r#"specfleet: --set: simulate.trace: has no use with simulate.fidelity = "model""#]],
    );
    refused(
        &["simulate", "--set", "simulate.batch_ms=3"],
        expect![[r#"specfleet: --set: simulate.batch_ms: has no use with simulate.cost = "measured""#]],
    );
    simulation_refused(
        &["--set", "simulate.verifier_model=llama-2-7b"],
        expect![[r#"specfleet: --set: simulate.verifier_model: has no use with simulate.cost = "fixed""#]],
    );
    simulation_refused(
        &["--set", "load.rate=3"],
        expect![[r#"specfleet: --set: load.rate: has no use with load.pattern = "closed""#]],
    );
    simulation_refused(
        &["--fidelity", "exact"],
        expect![[r#"specfleet: --fidelity: simulate.fidelity = "exact" is not known; valid: model, trace, fitted"#]],
    );
    simulation_refused(
        &["--threads", "0"],
        expect!["specfleet: invalid value '0' for '--threads <N>': 0 is not in 1..=1024"],
    );
    refused(
        &["capacity", "--slo", "ttft<1s", "--out", "here"],
        expect!["specfleet: unexpected argument '--out' found; it is a flag of run, simulate, calibrate, export"],
    );
    refused(
        &["sweep", "--vary", "run.seed=1,2", "--set", "thresholds.checks=ttft<1s"],
        expect![
            "specfleet: --set thresholds.checks=ttft<1s: sweep has no use for it: it keeps no run and holds none to thresholds"
        ],
    );
}

/// Links and devices whose times nobody has declared.
#[test]
fn what_takes_real_time() {
    simulation_refused(
        &["--set", "device.link=real"],
        expect![[
            r#"specfleet: link "real" takes the time that it takes, which a simulation cannot know; it needs an emulated link, such as fair"#
        ]],
    );
    simulation_refused(
        &["--set", "device.link=fair,real"],
        expect![[
            r#"specfleet: link "real" takes the time that it takes, which a simulation cannot know; it needs an emulated link, such as fair"#
        ]],
    );
    simulation_refused(
        &["--set", "device.profile=host"],
        expect![[
            r#"specfleet: device profile "host" takes the time that it takes, which a simulation cannot know; it needs a profile that declares its times, such as phone"#
        ]],
    );
    refused(
        &[&["capacity", "--slo", "ttft<1s", "--set", "device.link=real"], &FIXED[..]].concat(),
        expect![[
            r#"specfleet: link "real" takes the time that it takes, which a simulation cannot know; it needs an emulated link, such as fair"#
        ]],
    );
}

#[test]
fn emulated_pairs() {
    let roofline = ["--set", "simulate.cost=roofline", "--set", "simulate.verifier_model=llama-2-7b"];
    refused(
        &[&["simulate", "--set", "pool.profile=h200"], &roofline[..]].concat(),
        expect![[
            r#"specfleet: pool.cost = "roofline" declares an emulated pair, whose answers nobody knows: it needs simulate.fidelity = "fitted""#
        ]],
    );
    let model = [&["simulate", "--set", "pool.profile=host-cpu"], &roofline[..2]].concat();
    refused(
        &model,
        expect![
            "specfleet: the default scenario: simulate.verifier_model is missing: llama-2-7b, tinyllama-1.1b, a path to a .toml file or a table"
        ],
    );
}

#[test]
fn targets() {
    let slo = |target: &str, expected| refused(&["capacity", "--slo", target], expected);
    slo(
        "inter_token_p95<0ms",
        expect![
            "specfleet: --slo: inter_token_latency_seconds_p95 < 0s can never hold: inter_token_latency_seconds is never below 0"
        ],
    );
    slo(
        "ttft<=-1s",
        expect![
            "specfleet: --slo: time_to_first_token_seconds <= -1s can never hold: time_to_first_token_seconds is never below 0"
        ],
    );
    slo(
        "agreement>1",
        expect!["specfleet: --slo: verifier_agreement > 1 can never hold: verifier_agreement lies in 0 to 1"],
    );
    slo(
        "agreement>=101%",
        expect!["specfleet: --slo: verifier_agreement >= 1.01 can never hold: verifier_agreement lies in 0 to 1"],
    );
    slo(
        "inter_token_p95<300",
        expect![
            "specfleet: --slo: inter_token_latency_seconds_p95 < 300: the limit has no unit, and inter_token_latency_seconds is a time; write 300ms or 300s"
        ],
    );
    slo(
        "energy<40",
        expect![
            "specfleet: --slo: energy_per_token_joules_total < 40: the limit has no unit, and energy_per_token_joules_total is an energy; write 40mJ or 40J"
        ],
    );
    slo(
        "ttft<40mJ",
        expect![
            "specfleet: --slo: time_to_first_token_seconds < 0.04J: time_to_first_token_seconds is a time; write the limit in ms or s"
        ],
    );
    slo(
        "agreement>90ms",
        expect![
            "specfleet: --slo: verifier_agreement > 0.09s: verifier_agreement is a share; write a number from 0 to 1, or %"
        ],
    );
    slo(
        "goodput>2s",
        expect![
            "specfleet: --slo: goodput_tokens_per_second > 2s: goodput_tokens_per_second is in tokens/s; write the number alone"
        ],
    );
    slo("agrement>0.5", expect![[r#"specfleet: --slo: there is no metric "agrement"; did you mean agreement?"#]]);
    slo(
        "smoothness>0.5",
        expect![[
            r#"specfleet: --slo: there is no metric "smoothness"; valid: tokens_per_second, time_to_first_token_seconds, inter_token_latency_seconds, request_latency_seconds, dropped, dropped_share, failed, failed_share, queue_seconds, verify_seconds, batch_sequences, batch_tokens, verifier_busy_share, fleet_tokens_per_second, goodput_tokens_per_second, goodput_share, fairness_jain, worst_decile_inter_token_mean_seconds, upload_rate, true_skip_rate, deviation_rate, rejection_rate, verifier_agreement, mean_acceptance_length, wasted_drafts_per_token, stale_results_per_token, wasted_joules_per_token_drafts, wasted_joules_per_token_unclaimed, uplink_bytes_per_token, energy_per_token_joules_device, energy_per_token_joules_radio, energy_per_token_joules_cloud, energy_per_token_joules_cloud_paper, energy_per_token_joules_total, energy_saved_vs_hlm, exact_match, token_agreement, first_divergence_tokens, rouge_l"#
        ]],
    );
    slo(
        "ttft",
        expect![[
            r#"specfleet: --slo: "ttft" compares nothing; the form is METRIC[_p50|_p90|_p95|_p99|_mean|_min|_max] <|<=|>|>= NUMBER[UNIT], such as inter_token_p95 < 250ms"#
        ]],
    );
    slo(
        "ttft_p93<1s",
        expect![[
            r#"specfleet: --slo: "ttft_p93" asks for a percentile that is not kept; did you mean ttft_p95? valid: p50, p90, p95, p99"#
        ]],
    );
    slo("ttft<1sec", expect![[r#"specfleet: --slo: "sec" is no unit; valid: ns, us, ms, s, J, mJ, %"#]]);
    refused(&["capacity"], expect!["specfleet: the following required arguments were not provided: --slo <TARGET>"]);
    for command in ["run", "simulate"] {
        refused(
            &[command, "--set", "thresholds.checks=ttft<1"],
            expect![
                "specfleet: thresholds.checks: time_to_first_token_seconds < 1: the limit has no unit, and time_to_first_token_seconds is a time; write 1ms or 1s"
            ],
        );
    }
    simulation_refused(
        &["--set", "thresholds.checks=ttfd<1s"],
        expect![[r#"specfleet: thresholds.checks: there is no metric "ttfd"; did you mean ttft?"#]],
    );
    refused(
        &["run", "--set", "thresholds.checks=ttfd<1s"],
        expect![[r#"specfleet: thresholds.checks: there is no metric "ttfd"; did you mean ttft?"#]],
    );
    simulation_refused(
        &["--set", "thresholds.checks=[{ check = 'ttft<1s', method = 'dssd' }]"],
        expect![[r#"specfleet: --set: thresholds.checks.method: "dssd" is not among run.methods"#]],
    );
}

#[test]
fn fleets_that_cannot_grow() {
    let place = Place::new();
    let capacity = [&["capacity", "--slo", "ttft<1s"], &FIXED[..]].concat();
    let ramp = ["--set", "load.pattern=ramp", "--set", "load.start_rate=1"];
    let stages = ["--set", "load.stages=[{ seconds = 1, rate = 1 }]"];
    refused_at(
        &place,
        &[&capacity[..], &ramp, &stages].concat(),
        expect![[
            r#"specfleet: capacity: the arrivals of load.pattern = "ramp" or "csv" cannot grow with the fleet; use closed, poisson, gamma or constant"#
        ]],
    );
    let file = format!("load.file={}", place.file("arrivals.csv", "0\n1\n"));
    refused_at(
        &place,
        &[&capacity[..], &["--set", "load.pattern=csv", "--set", &file]].concat(),
        expect![[
            r#"specfleet: capacity: the arrivals of load.pattern = "ramp" or "csv" cannot grow with the fleet; use closed, poisson, gamma or constant"#
        ]],
    );
}

#[test]
fn ranges() {
    let vary = |range: &str, expected| refused(&[&["sweep", "--vary", range], &FIXED[..]].concat(), expected);
    vary("run.devices=3..3:2", expect!["specfleet: --vary: run.devices: the range 3..3 is empty"]);
    vary(
        "run.devices=3..1:2",
        expect!["specfleet: --vary: run.devices: the range 3..1 is reversed; its smaller end comes first"],
    );
    vary(
        "run.devices=1..3:1",
        expect!["specfleet: --vary: run.devices: one value is nothing to vary; use --set run.devices=VALUE"],
    );
    vary(
        "run.devices=1..3",
        expect![[
            r#"specfleet: --vary: run.devices: "" is no number of values; a range is from..to:count, with 2 to 10000 values"#
        ]],
    );
    vary(
        "run.devices=",
        expect![[
            r#"specfleet: --vary: "run.devices=": must be key=from..to:count, key=from..to:count:log or key=a,b,c"#
        ]],
    );
    vary(
        "run.devices=4",
        expect!["specfleet: --vary: run.devices: one value is nothing to vary; use --set run.devices=VALUE"],
    );
    vary("run.devics=1..3:2", expect!["specfleet: --vary: unknown key run.devics; did you mean run.devices?"]);
    vary("run.devices=1.5..3:2", expect!["specfleet: --vary: run.devices must be a whole number, not the number 1.5"]);
    // Known before the first point has run.
    vary("run.temperature=1,9", expect!["specfleet: --vary: run.temperature = 9 is out of range: must lie in 0 to 5"]);
    vary(
        "pool.order=fifo,lifo",
        expect![[r#"specfleet: --vary: pool.order = "lifo" is not known; valid: fifo, deadline, fair, value"#]],
    );
    vary(
        "pool.listen=127.0.0.1:1,127.0.0.1:2",
        expect!["specfleet: --vary: pool.listen: a simulation has no use for it"],
    );
    let many = ["sweep", "--vary", "run.seed=1..1000:1000", "--vary", "run.devices=1..1000:1000"];
    refused(&many, expect!["specfleet: --vary: the ranges have more than 10000 combinations"]);
    refused(&["sweep"], expect!["specfleet: the following required arguments were not provided: --vary <KEY=VALUES>"]);
}

/// What a run recorded answers the scenario that it was made with, in any fleet, and no other.
#[test]
fn traces_of_other_scenarios() {
    let place = Place::new();
    let common = ["--devices", "2", "--prompts", "2", "--max-new-tokens", "8"];
    place.quick("run", "live", &[&common[..], &["--methods", "ui-hlm,hlm"]].concat());
    let trace = format!("simulate.trace={}", place.name_of("live"));
    let with = |arguments: &[&str], expected| {
        let methods = if arguments.contains(&"--methods") { &[][..] } else { &["--methods", "hlm,ui-hlm"] };
        let unset = common.chunks(2).filter(|pair| !arguments.contains(&pair[0])).flatten().copied();
        let simulate = ["simulate", "--fidelity", "trace", "--set", &trace].into_iter();
        let arguments: Vec<&str> = simulate
            .chain(FIXED)
            .chain(arguments.iter().copied())
            .chain(methods.iter().copied())
            .chain(unset)
            .collect();
        refused_at(&place, &arguments, expected);
    };
    with(
        &["--seed", "2"],
        expect![
            "specfleet: simulate.trace: run RUN has another seed than this scenario, so its answers are not those that it asks for"
        ],
    );
    with(
        &["--methods", "hlm,dssd"],
        expect![
            "specfleet: simulate.trace: run RUN has another list of methods (dssd is missing) than this scenario, so its answers are not those that it asks for"
        ],
    );
    with(
        &["--set", "method.uncertainty_threshold=0.3"],
        expect![
            "specfleet: simulate.trace: run RUN has another setting of ui-hlm than this scenario, so its answers are not those that it asks for"
        ],
    );
    with(
        &["--temperature", "0.5"],
        expect![
            "specfleet: simulate.trace: run RUN has another sampling or max_new_tokens than this scenario, so its answers are not those that it asks for"
        ],
    );
    with(
        &["--max-new-tokens", "9"],
        expect![
            "specfleet: simulate.trace: run RUN has another sampling or max_new_tokens than this scenario, so its answers are not those that it asks for"
        ],
    );
    with(
        &["--prompts", "3"],
        expect![
            "specfleet: simulate.trace: run RUN has another workload than this scenario, so its answers are not those that it asks for"
        ],
    );
    with(
        &["--workload", "gsm8k"],
        expect![
            "specfleet: simulate.trace: run RUN has another workload than this scenario, so its answers are not those that it asks for"
        ],
    );
    with(
        &["--precision", "f32"],
        expect![
            "specfleet: simulate.trace: run RUN has another precision of its models than this scenario, so its answers are not those that it asks for"
        ],
    );
}

#[test]
fn runs_that_do_not_serve() {
    let place = Place::new();
    let trace = ["simulate", "--fidelity", "trace", "--set", "simulate.trace=nowhere"];
    refused_at(&place, &[&trace, &FIXED[..]].concat(), expect!["specfleet: runs/nowhere holds no run (no meta.json)"]);
    refused_at(
        &place,
        &[&["simulate", "--fidelity", "trace"], &FIXED[..]].concat(),
        expect![
            "specfleet: the default scenario: simulate.trace is missing: the name of a recorded run, or the path of its folder"
        ],
    );
    refused_at(&place, &["calibrate", "nowhere"], expect!["specfleet: runs/nowhere holds no run (no meta.json)"]);
    refused_at(
        &place,
        &["simulate", "--against", "nowhere"],
        expect!["specfleet: runs/nowhere holds no run (no meta.json)"],
    );

    // A simulation measures nothing.
    place.quick("simulate", "simulated", &[&["--methods", "hlm", "--prompts", "2"], &FIXED[..]].concat());
    let simulated = place.name_of("simulated");
    refused_at(
        &place,
        &["calibrate", &simulated],
        expect!["specfleet: run RUN: it was simulated; only a live run measures anything"],
    );
    refused_at(
        &place,
        &["simulate", "--against", &simulated],
        expect!["specfleet: --against: run RUN was simulated itself; name a live run"],
    );
    // Nor do four batches.
    let few = ["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "4"];
    place.quick("run", "charged", &few);
    let charged = place.name_of("charged");
    refused_at(
        &place,
        &["calibrate", &charged],
        expect![
            "specfleet: run RUN: its batches were charged calibrated times, which say nothing about this host; repeat it with --set pool.cost=measured"
        ],
    );
    place.quick("run", "few", &[&few[..], &MEASURED].concat());
    let few = place.name_of("few");
    refused_at(
        &place,
        &["calibrate", &few],
        expect!["specfleet: run RUN: it has too few batches to fit what they take (twenty)"],
    );
    refused_at(
        &place,
        &["simulate", "default", "--against", &few],
        expect!["specfleet: --against takes the scenario of the run; leave out default"],
    );
}

#[test]
fn calibrations() {
    let place = Place::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/calibration/temperature-1.json");
    let shipped: Value = serde_json::from_slice(&fs::read(shipped).expect("it ships")).expect("JSON");
    let with = |name: &str, spoil: &dyn Fn(&mut Value), arguments: &[&str], expected: Expect| {
        let mut calibration = shipped.clone();
        spoil(&mut calibration);
        let file = format!("calibration.file={}", place.file(name, calibration.to_string()));
        let simulate = ["simulate", "--methods", "ui-hlm", "--prompts", "2", "--set", &file, "--ui", "none"];
        refused_at(&place, &[&simulate, arguments].concat(), expected);
    };
    with(
        "other.json",
        &|calibration| {
            let digest = calibration["key"]["verifier"].as_str().expect("a digest").to_owned();
            calibration["key"]["verifier"] = digest.chars().rev().collect::<String>().into();
        },
        &FIXED,
        expect![
            "specfleet: calibration file FOLDER/other.json: it belongs to another pair, temperature, estimator or prompt set"
        ],
    );
    with(
        "estimator.json",
        &|_| {},
        &[&FIXED[..], &["--set", "method.estimator=sampled"]].concat(),
        expect![
            "specfleet: calibration file FOLDER/estimator.json: it belongs to another pair, temperature, estimator or prompt set"
        ],
    );
    let without = |part: &'static str| {
        move |calibration: &mut Value| {
            calibration.as_object_mut().expect("an object").remove(part);
        }
    };
    with(
        "cost.json",
        &without("batch_cost"),
        &[],
        expect![
            "specfleet: calibration file FOLDER/cost.json: it has no batch cost: fit one with `specfleet calibrate RUN` on a live run and name its file with calibration.file"
        ],
    );
    with(
        "host.json",
        &without("host"),
        &[&FIXED[..4], &["--set", "simulate.host=true"]].concat(),
        expect![
            "specfleet: calibration file FOLDER/host.json: it has no host overheads (or set simulate.host = false): fit one with `specfleet calibrate RUN` on a live run and name its file with calibration.file"
        ],
    );
    let fitted = [&FIXED[..], &["--fidelity", "fitted"]].concat();
    with(
        "distributions.json",
        &without("distributions"),
        &fitted,
        expect![
            "specfleet: calibration file FOLDER/distributions.json: it has no distributions: fit one with `specfleet calibrate RUN` on a live run and name its file with calibration.file"
        ],
    );
    with(
        "half.json",
        &|calibration| *calibration = serde_json::json!({ "samples": 3 }),
        &FIXED,
        expect!["specfleet: calibration file FOLDER/half.json: missing field `harm_samples` at line 1 column 13"],
    );
}
