//! Thresholds decided again over logs made by hand.

use crate::common::*;
use specfleet_analysis::{Candidate, FrontierError, FrontierLog, ImportanceChoice, LoggedGeneration, LoggedRound};
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::method::{Estimator, Gate, ImportanceRule, ImportanceStatistic, Join, Method, Writer};
use specfleet_engine::record::{GenerationEnergy, Source};

const U_HLM: Gate = Gate::Uncertainty { estimator: Estimator::Expected, threshold: 0.5 };

fn joint(statistic: ImportanceStatistic) -> Gate {
    let importance = ImportanceRule { statistic, layer: 0, kappa: 0.0 };
    Gate::Joint { estimator: Estimator::Expected, threshold: 0.5, importance, join: Join::And }
}

fn of(name: &str, gate: Gate) -> Method {
    method(name, Writer::Drafter, gate, 1, false)
}

/// A round of u-hlm at 0.5: skipped below with what the audit says, else accepted or replaced.
fn logged(uncertainty: f32, accepted: f32) -> LoggedRound {
    let uploaded = uncertainty > 0.5;
    LoggedRound {
        uncertainty,
        importance: f32::NAN,
        importance_threshold: f32::NAN,
        source: match uploaded {
            false => Source::Skipped,
            true if accepted > 0.0 => Source::Accepted,
            true => Source::Replaced,
        },
        reason: if uploaded { GateReason::Uncertain } else { GateReason::Certain },
        audited: (!uploaded).then_some(accepted),
        work: u32::from(uploaded) * 2,
        cloud_nanojoules: u64::from(uploaded) * 3_000,
    }
}

fn log(rounds: &[&[LoggedRound]]) -> Vec<LoggedGeneration> {
    let one = |rounds: &&[LoggedRound]| {
        let uploads = rounds.iter().filter(|round| round.work > 0).count() as u64;
        LoggedGeneration {
            prompt_tokens: 0,
            rounds: rounds.to_vec(),
            energy: GenerationEnergy {
                device: 1_000 * rounds.len() as u64 + 500 * uploads,
                radio: 2_000 * uploads,
                cloud: 3_000 * uploads,
                cloud_paper: 0,
            },
            waiting_nanojoules: Some(500 * uploads),
        }
    };
    rounds.iter().map(one).collect()
}

fn at(threshold: f32) -> Candidate {
    Candidate { threshold, importance: ImportanceChoice::Logged }
}

#[test]
fn figures_computed_by_hand() {
    let method = of("u-hlm", U_HLM);
    let first = [logged(0.1, 1.0), logged(0.4, 0.5), logged(0.6, 1.0), logged(0.9, 0.0)];
    let second = [logged(0.2, 1.0), logged(0.7, 1.0)];
    let log = FrontierLog::new(&method, log(&[&first, &second])).expect("a log");
    assert_eq!(log.agreement(), 1.0);
    let points = log.points(&[at(0.05), at(0.5), at(0.8), at(1.0)]).expect("thresholds");
    let rates: Vec<f64> = points.iter().map(|point| point.upload_rate.value).collect();
    assert_eq!(rates, [1.0, 0.5, 1.0 / 6.0, 0.0]);
    // Skipped tokens and what they meet: none; 1 − 1, 1 − 0.5, 1 − 1; those and two accepted ones; and the replaced one.
    let deviations: Vec<Option<f64>> = points.iter().map(|point| point.deviation_rate.map(|rate| rate.value)).collect();
    assert_eq!(deviations, [None, Some(0.5 / 3.0), Some(0.5 / 5.0), Some(1.5 / 6.0)]);
    let per_token: Vec<Option<f64>> = points.iter().map(|point| point.deviations_per_token).collect();
    assert_eq!(per_token, [Some(0.0), Some(0.5 / 6.0), Some(0.5 / 6.0), Some(1.5 / 6.0)]);
    // At the logged thresholds the log's own joules, to the last: 6 · 1000 + 3 · (500 + 2000 + 3000) nJ.
    assert!((points[1].joules_per_token.expect("uploads") - 22_500e-9 / 6.0).abs() < 1e-15);
    assert!((points[3].joules_per_token.expect("uploads") - 6_000e-9 / 6.0).abs() < 1e-15);
    assert_eq!(points.iter().map(|point| point.logged).collect::<Vec<_>>(), [false, true, false, false]);
    // At 0.05 the second token is judged, and with probability a half the text goes another way: two of six tokens lie
    // behind it. At 1.0 it is the last token of the first answer that goes another way, and nothing lies behind that.
    assert_eq!(points.iter().map(|point| point.on_policy).collect::<Vec<_>>(), [5.0 / 6.0, 1.0, 1.0, 1.0]);
    // 0.8 deviates as much as 0.5, for fewer joules.
    assert_eq!(points.iter().map(|point| point.front).collect::<Vec<_>>(), [true, false, true, true]);
    assert!(points.iter().all(|point| point.supported), "{points:?}");
}

#[test]
fn importance_is_decided_again_from_its_own_history() {
    let method = of("ui-hlm", joint(ImportanceStatistic::Concentration));
    let values = [0.2_f32, 0.4, 0.1, 0.5, 0.25, 0.3];
    // The mean of the earlier values: none, 0.2, 0.3, 0.233, 0.3, 0.29.
    let important = [true, true, false, true, false, true];
    let rounds: Vec<LoggedRound> = values
        .iter()
        .zip(important)
        .map(|(importance, important)| LoggedRound {
            importance: *importance,
            source: if important { Source::Accepted } else { Source::Skipped },
            reason: if important { GateReason::Important } else { GateReason::Unimportant },
            audited: (!important).then_some(1.0),
            ..logged(0.9, 1.0)
        })
        .collect();
    let log = FrontierLog::new(&method, log(&[&rounds])).expect("a log");
    assert_eq!(log.agreement(), 1.0, "the moments are those of the machine");
    let candidate = |importance| Candidate { threshold: 0.5, importance };
    let points = log
        .points(&[
            candidate(ImportanceChoice::Off),
            candidate(ImportanceChoice::Kappa(9.0)),
            candidate(ImportanceChoice::Kappa(-9.0)),
        ])
        .expect("choices");
    // With fewer than two earlier values anything is important.
    let rates: Vec<f64> = points.iter().map(|point| point.upload_rate.value).collect();
    assert_eq!(rates, [1.0, 2.0 / 6.0, 1.0]);
}

#[test]
fn what_lookahead_did_not_look_at_is_unknown() {
    let method = of("ui-hlm", joint(ImportanceStatistic::Lookahead));
    let seen = |importance: f32| LoggedRound {
        importance,
        importance_threshold: 0.3,
        source: if importance >= 0.3 { Source::Accepted } else { Source::Skipped },
        reason: if importance >= 0.3 { GateReason::Important } else { GateReason::Unimportant },
        ..logged(0.9, 1.0)
    };
    let rounds = [logged(0.4, 1.0), logged(0.1, 1.0), seen(0.4), seen(0.5), seen(0.6), seen(0.1)];
    let log = FrontierLog::new(&method, log(&[&rounds])).expect("a log");
    let points = log.points(&[at(0.5), at(0.3)]).expect("thresholds");
    assert_eq!((points[0].unknown, points[0].upload_rate.value), (0.0, 0.5));
    // The first round would be looked at; three of the four that were passed.
    assert!((points[1].upload_rate.value - 3.75 / 6.0).abs() < 1e-12);
    assert!((points[1].unknown - 1.0 / 6.0).abs() < 1e-12 && !points[1].supported);
    let kappa = Candidate { threshold: 0.5, importance: ImportanceChoice::Kappa(1.0) };
    assert!(matches!(log.points(&[kappa]), Err(FrontierError::FixedKappa { .. })));
}

#[test]
fn what_cannot_be_decided_again_is_refused() {
    let generations = || log(&[&[logged(0.9, 1.0)]]);
    let refused = |method: &Method| FrontierLog::new(method, generations()).expect_err("refused");
    let no_threshold = |method: &Method| assert!(matches!(refused(method), FrontierError::NoThreshold { .. }));
    no_threshold(&of("hlm", Gate::Always));
    no_threshold(&of("rand-hlm", Gate::Random { probability: 0.5 }));
    no_threshold(&method("llm-only", Writer::Verifier, U_HLM, 1, false));
    assert!(matches!(
        refused(&method("u-hlm", Writer::Drafter, U_HLM, 4, true)),
        FrontierError::Blocks { block: 4, .. }
    ));
    let u_hlm = of("u-hlm", U_HLM);
    assert!(matches!(FrontierLog::new(&u_hlm, log(&[&[]])), Err(FrontierError::Empty { .. })));
    let log = FrontierLog::new(&u_hlm, generations()).expect("a log");
    let kappa = Candidate { threshold: 0.5, importance: ImportanceChoice::Kappa(1.0) };
    assert!(matches!(log.points(&[kappa]), Err(FrontierError::NoImportance { .. })));
}
