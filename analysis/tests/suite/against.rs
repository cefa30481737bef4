//! The comparison of a simulation with live runs.

use crate::common::*;
use specfleet_analysis::{GenerationView, Statistic, Summary, SummaryBuilder, compare_summaries};
use specfleet_engine::record::Source;
use specfleet_engine::time::Time;

/// One generation of `method` with this long between its tokens.
fn summary(method: u16, gap: u64) -> Summary {
    let mut rounds: Vec<_> = (0..5).map(|position| round(position, 1, Source::Accepted, 1, SECOND)).collect();
    for (position, round) in (1..).zip(&mut rounds) {
        round.committed_at = Time(position * gap);
    }
    let record = generation(method, 0, 0, &rounds);
    let mut builder = SummaryBuilder::new(header(), &methods(), &["words".to_owned()]);
    let view = GenerationView { record: &record, rounds: &rounds, audit: None, exact_match: None, rouge_l: None };
    builder.add(view).expect("method and data set exist");
    builder.finish()
}

#[test]
fn the_median_of_the_live_runs_counts() {
    let live = [summary(2, 300), summary(2, 100), summary(2, 110)];
    let rows = compare_summaries(&live, &[summary(2, 121)]);
    let row = |metric: &str, statistic: Statistic| {
        let found = rows.iter().find(|row| row.metric == metric && row.statistic == statistic);
        found.unwrap_or_else(|| panic!("no row of {metric} {statistic}"))
    };
    let gap = row("inter_token_latency_seconds", Statistic::P95);
    assert_eq!((gap.method.as_str(), gap.unit.as_str()), ("hlm", "s"));
    let close =
        |found: Option<f64>, expected: f64| (found.expect("it applies") - expected).abs() < 1e-9 * expected.abs();
    assert!(close(gap.live, 110e-9) && close(gap.simulated, 121e-9) && close(gap.relative_error, 0.1), "{gap:?}");
    let (lowest, highest) = gap.live_range.expect("there are live runs");
    assert!(close(Some(lowest), 100e-9) && close(Some(highest), 300e-9));
    assert!(close(row("fleet_tokens_per_second", Statistic::Mean).relative_error, 110.0 / 121.0 - 1.0));
    // Nothing waited on either side: no error, not an infinite one.
    assert_eq!(row("queue_seconds", Statistic::P50).relative_error, Some(0.0));
    assert_eq!(row("upload_rate", Statistic::Mean).relative_error, Some(0.0));
    assert_eq!(rows.len(), 15, "no batches were recorded: {rows:#?}");

    let (lowest, highest) = gap.simulated_range.expect("there is a simulation");
    assert!(close(Some(lowest), 121e-9) && close(Some(highest), 121e-9));

    let several = compare_summaries(&live, &[summary(2, 400), summary(2, 121), summary(2, 90)]);
    assert!(several.iter().any(|row| {
        row.metric == "inter_token_latency_seconds"
            && close(row.simulated, 121e-9)
            && row
                .simulated_range
                .is_some_and(|(lowest, highest)| close(Some(lowest), 90e-9) && close(Some(highest), 400e-9))
    }));

    let even = compare_summaries(&live[1..], &[summary(2, 105)]);
    assert!(even.iter().any(|row| row.metric == "inter_token_latency_seconds" && close(row.live, 105e-9)));
}

#[test]
fn what_one_side_lacks_is_shown_and_has_no_error() {
    let rows = compare_summaries(&[summary(2, 100)], &[summary(3, 100)]);
    let methods: Vec<&str> = rows.iter().map(|row| row.method.as_str()).collect();
    assert_eq!((methods[0], methods[rows.len() - 1]), ("hlm", "block"));
    assert!(rows.iter().all(|row| row.live.is_some() != row.simulated.is_some() && row.relative_error.is_none()));
    assert!(compare_summaries(&[], &[summary(2, 100)]).iter().all(|row| row.live_range.is_none()));
}
