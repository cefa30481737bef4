//! Runs that were repeated: intervals over passes and prompts, and passes that should have had the same tokens.

use crate::common::*;
use specfleet_analysis::{
    GenerationView, Over, PiecewiseSummary, Quantiles, RunHeader, Scores, Summary, SummaryBuilder, Validity,
};
use specfleet_engine::record::{GenerationRecord, RoundRecord, Source};
use specfleet_engine::time::{Span, Time};

const HLM: u16 = 2;
const U_HLM: u16 = 4;

/// Two uploads on the prompt's own tokens; the device spends some joules more in later passes.
fn answer(method: u16, prompt: u32, pass: u16) -> (GenerationRecord, Vec<RoundRecord>) {
    let rounds = [
        round(0, 10 + prompt, Source::Accepted, 1, SECOND * u64::from(prompt + 1)),
        round(1, 20 + prompt, Source::Replaced, 1, SECOND),
    ];
    let mut record = generation(method, prompt, 0, &rounds);
    record.id.pass = pass;
    record.energy.device = SECOND * u64::from(pass + 1);
    (record, rounds.to_vec())
}

fn header_of(repeat: u16, seeds: u16) -> RunHeader {
    RunHeader { repeat, seeds, ..header() }
}

fn summary(header: RunHeader, answers: &[(GenerationRecord, Vec<RoundRecord>)]) -> Summary {
    let data_sets = ["sums".to_owned()];
    let mut builder = SummaryBuilder::new(header.clone(), &methods(), &data_sets);
    let mut pieces = PiecewiseSummary::new(header, &methods(), &data_sets, Quantiles::Exact);
    for (record, rounds) in answers {
        let (audit, exact_match, rouge_l) = (None, Some(record.id.prompt % 2 == 0), None);
        builder.add(GenerationView { record, rounds, audit, exact_match, rouge_l }).expect("in the lists");
        pieces.piece(record, 0, rounds.iter().copied(), |_, _| ()).expect("in the lists");
        pieces.generation(record, None, Scores { exact_match, rouge_l }).expect("in the lists");
    }
    let summary = builder.finish();
    assert_eq!(summary, pieces.finish(), "both builders say the same");
    summary
}

fn all(passes: u16) -> Vec<(GenerationRecord, Vec<RoundRecord>)> {
    let phases = (0..passes).flat_map(|pass| [HLM, U_HLM].map(|method| (pass, method)));
    phases.flat_map(|(pass, method)| (0..4).map(move |prompt| answer(method, prompt, pass))).collect()
}

#[test]
fn means_have_intervals_over_passes_and_prompts() {
    let summary = summary(header_of(3, 1), &all(3));
    assert_eq!((summary.state, summary.repeat, summary.seeds, summary.generations), (Validity::Valid, 3, 1, 24));
    let metrics = summary.methods.get("u-hlm").expect("it ran");
    let device = metrics.get("energy_per_token_joules_device").expect("it has energy");
    // 1, 2 and 3 joules over two tokens each.
    assert_eq!((device.count, device.mean), (12, 1.0));
    let interval = device.interval.expect("three passes");
    assert_eq!(interval.over, Over::PassesAndPrompts);
    assert!(interval.low < 0.6 && 1.4 < interval.high, "three passes say little: {interval:?}");
    // Equal in every pass: only prompts differ.
    let cloud = metrics.get("energy_per_token_joules_cloud").expect("it uploads").interval.expect("three passes");
    assert!(cloud.low > 0.5 && cloud.high < 3.0, "{cloud:?}");
    let matched = metrics.get("exact_match").expect("scored").interval.expect("three passes");
    assert!(matched.low < 0.5 && 0.5 < matched.high);
    // Belongs to a pass as a whole, and each pass is as fast.
    let fleet = metrics.get("fleet_tokens_per_second").expect("one figure per pass");
    let over_passes = fleet.interval.expect("three passes");
    assert_eq!((fleet.count, over_passes.over, over_passes.low), (3, Over::Passes, fleet.mean));
    let gaps = metrics.get("inter_token_latency_seconds").expect("two tokens each").interval.expect("three passes");
    assert_eq!((gaps.low, gaps.high), (0.5, 0.5));
    let agreement = metrics.get("energy_saved_vs_hlm").expect("hlm ran").interval.expect("three passes");
    assert_eq!((agreement.low, agreement.high), (0.0, 0.0), "paired within each pass");
}

#[test]
fn one_pass_has_no_intervals() {
    let summary = summary(header_of(1, 1), &all(1));
    assert!(summary.methods.iter().all(|(_, metrics)| metrics.iter().all(|(_, metric)| metric.interval.is_none())));
}

#[test]
fn other_tokens_with_the_same_seed_are_a_problem() {
    let mut answers = all(2);
    let (record, rounds) = &mut answers[13];
    assert_eq!((record.id.method, record.id.prompt, record.id.pass), (U_HLM, 1, 1));
    (record.tokens[1], rounds[1].token) = (99, 99);
    let repeated = summary(header_of(2, 1), &answers);
    assert_eq!(repeated.state, Validity::Invalid);
    assert_eq!(
        repeated.problems,
        ["u-hlm, prompt 1, repetition 0, pass 1: other tokens than in pass 0, with the same seed"]
    );
    let seeds = summary(header_of(1, 2), &answers);
    assert_eq!(seeds.state, Validity::Valid, "another seed gives other tokens: {:?}", seeds.problems);
    // A draft that was committed because the pool did not answer is a matter of time.
    let (_, rounds) = &mut answers[13];
    let verify = &mut cost(&mut rounds[1]).verify;
    (verify.nanojoules, verify.paper_nanojoules) = (SECOND, SECOND / 2);
    rounds[1].source = Source::Refused;
    assert_eq!(summary(header_of(2, 1), &answers).problems, [""; 0]);
}

#[test]
fn a_pass_beyond_the_runs_is_refused() {
    let (record, rounds) = answer(HLM, 0, 2);
    let mut builder = SummaryBuilder::new(header_of(2, 1), &methods(), &["sums".to_owned()]);
    let view = GenerationView { record: &record, rounds: &rounds, audit: None, exact_match: None, rouge_l: None };
    assert_eq!(builder.add(view).expect_err("no such pass").to_string(), "a record names pass 2, the run has 2");
    let stream = specfleet_analysis::StreamSummary::new(header_of(2, 1), &methods(), &["sums".to_owned()]);
    assert!(stream.start(record.id.phase(), 0, Time::ZERO, Span::ZERO).is_err());
}
