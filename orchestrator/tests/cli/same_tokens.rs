//! What must not change tokens: the number of devices and verifiers; and who must write the same.

use crate::common::*;

/// The same workload on the smallest and on a large fleet.
fn assert_fleet_does_not_matter(place: &Place, further: &[&str]) -> Results {
    let common = [&["--prompts", "16", "--max-new-tokens", "16"], further].concat();
    let one = place.run("one", &[&["--devices", "1", "--verifiers", "1"], &common[..]].concat());
    let many = place.run("many", &[&["--devices", "16", "--verifiers", "3"], &common[..]].concat());
    one.assert_sound();
    many.assert_sound();
    let (one, expected) = (one.decisions(), many.decisions());
    assert_eq!(one.len(), METHODS.len() * 16);
    for (key, decision) in &one {
        assert_eq!(Some(decision), expected.get(key), "{key:?}");
    }
    many
}

#[test]
fn fleet_does_not_matter() {
    let run = assert_fleet_does_not_matter(&Place::new(), &["--temperature", "1", "--seed", "7"]);
    assert_eq!(run.tokens("dssd"), run.tokens("hlm"));
    let rejected = run.summary["methods"]["hlm"]["rejection_rate"]["mean"].as_f64();
    assert!(rejected > Some(0.0), "without a rejection this shows little: take another seed");
}

#[test]
fn fleet_does_not_matter_with_the_sampled_estimator() {
    // A small calibration of its own: what it says is of no concern here.
    let sampled = ["--set", "method.estimator=sampled", "--set", "calibration.prompts=8", "--seed", "3"];
    assert_fleet_does_not_matter(&Place::new(), &sampled);
}

#[test]
fn greedy_hlm_and_block_write_what_the_verifier_writes() {
    let place = Place::new();
    let arguments =
        ["--temperature", "0", "--prompts", "12", "--max-new-tokens", "48", "--methods", "llm-only,hlm,block"];
    let run = place.run("greedy", &[&arguments[..], &["--devices", "12"]].concat());
    run.assert_sound();
    let alone = run.tokens("llm-only");
    assert_eq!(alone.len(), 12);
    assert_eq!(run.tokens("hlm"), alone);
    assert_eq!(run.tokens("block"), alone);
}
