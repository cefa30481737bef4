//! The summary of pieces against the one of whole generations, however the pieces are cut and the store is divided.

use std::collections::BTreeMap;

use crate::common::*;
use proptest::prelude::*;
use specfleet_analysis::{
    GenerationView, MethodFigures, PiecewiseSummary, Quantiles, RoundPlace, Scores, Stretches, Summary, SummaryBuilder,
    Validity,
};
use specfleet_engine::id::GenerationId;
use specfleet_engine::record::{AuditRecord, GenerationRecord, RoundRecord, Source};
use specfleet_engine::time::{Span, Time};

type Whole = (GenerationRecord, Vec<RoundRecord>, Option<AuditRecord>);

/// One piece: which generation, and which of its rounds.
type Piece = (usize, u32, Vec<RoundRecord>);

fn data_sets() -> Vec<String> {
    vec!["words".to_owned(), "sums".to_owned()]
}

/// Blocks of up to three drafts: the first round of each pays.
fn rounds() -> impl Strategy<Value = Vec<RoundRecord>> {
    let step = (0u64..3, prop::collection::vec(any::<bool>(), 1..4), 0u64..900_000_000, 0u64..5_000_000_000);
    prop::collection::vec(step, 0..9).prop_map(|steps| {
        let mut now = SECOND;
        let mut rounds: Vec<RoundRecord> = Vec::new();
        for (kind, drafts, gap, cloud) in steps {
            now += gap;
            for (place, accepted) in drafts.iter().enumerate() {
                let source = match (kind, accepted) {
                    (0, _) => Source::Skipped,
                    (_, true) => Source::Accepted,
                    (_, false) => Source::Replaced,
                };
                let pays = kind > 0 && place == 0;
                let position = rounds.len() as u32;
                let cloud = if pays { cloud } else { 0 };
                let mut round = round(position, position % 5, source, u32::from(pays), cloud);
                round.committed_at = Time(now);
                if let Some(cost) = &mut round.upload {
                    cost.verify.queue_wait = Span(cloud / 7);
                }
                rounds.push(round);
            }
        }
        rounds
    })
}

fn generations() -> impl Strategy<Value = Vec<Whole>> {
    let one = (rounds(), 0u16..5, 0u16..2, 0u64..4, prop::option::of(0.0f32..1.0));
    prop::collection::vec(one, 1..9).prop_map(|generations| {
        let ids = generations.into_iter().enumerate().map(|(index, (rounds, method, data_set, target, audited))| {
            let mut record = generation(method, index as u32 / 3, data_set, &rounds);
            record.latency_target = Span(target * 200_000_000);
            let skipped = rounds.iter().filter(|round| round.source == Source::Skipped);
            let positions: Vec<u32> = skipped.map(|round| round.position).collect();
            let audit = audited.map(|p| AuditRecord {
                id: record.id,
                accept_probabilities: positions.iter().map(|_| p).collect(),
                positions,
            });
            (record, rounds, audit)
        });
        // One generation per method and prompt.
        let unique: BTreeMap<GenerationId, Whole> = ids.map(|whole| (whole.0.id, whole)).collect();
        unique.into_values().collect()
    })
}

/// Cuts generations into pieces and deals them out in turns, as devices that run side by side do.
fn cut(generations: &[Whole], sizes: &[usize]) -> Vec<Piece> {
    let mut left: Vec<(usize, u32, &[RoundRecord])> =
        generations.iter().enumerate().map(|(index, whole)| (index, 0, &whole.1[..])).collect();
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while left.iter().any(|(.., rounds)| !rounds.is_empty()) {
        for (index, first, rounds) in &mut left {
            let size = sizes.next().expect("it goes round").min(&rounds.len()).to_owned();
            let (piece, rest) = rounds.split_at(size);
            if !piece.is_empty() {
                pieces.push((*index, *first, piece.to_vec()));
            }
            (*first, *rounds) = (*first + size as u32, rest);
        }
    }
    pieces
}

/// Summary and judged drafts by place, from parts of so many pieces.
fn piecewise(generations: &[Whole], pieces: &[Piece], per_part: usize, quantiles: Quantiles) -> (Summary, Figures) {
    let empty = PiecewiseSummary::new(header(), &methods(), &data_sets(), quantiles);
    let (mut whole, mut figures) = (empty.clone(), Figures::new());
    for part in pieces.chunks(per_part) {
        let (mut summary, mut seen) = (empty.clone(), Figures::new());
        for (index, first, rounds) in part {
            let record = &generations[*index].0;
            summary
                .piece(record, *first, rounds.iter().copied(), |round, RoundPlace { gap, draft }| {
                    seen.0[usize::from(record.id.method)].round(0, round, gap, draft, None);
                })
                .expect("methods and data sets of the run");
        }
        figures.0.iter_mut().zip(&seen.0).for_each(|(mine, others)| mine.merge(others));
        whole
            .merge(summary, |joint| {
                let figures = &mut figures.0[usize::from(joint.id.method)];
                figures.gap(joint.gap);
                joint.drafts.iter().for_each(|(place, accepted)| figures.place(*place, *accepted));
            })
            .expect("parts of one run");
    }
    for (record, _, audit) in generations {
        let scores = Scores { exact_match: Some(record.id.prompt % 2 == 0), rouge_l: None };
        whole.generation(record, audit.as_ref(), scores).expect("a generation of the run");
    }
    (whole.finish(), figures)
}

struct Figures(Vec<MethodFigures>);

impl Figures {
    fn new() -> Figures {
        Figures(
            methods()
                .iter()
                .map(|method| MethodFigures::new(method, vec![Stretches::new(Time::ZERO, Time(60 * SECOND), 7)]))
                .collect(),
        )
    }

    fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn reference(generations: &[Whole]) -> Summary {
    let mut builder = SummaryBuilder::new(header(), &methods(), &data_sets());
    for (record, rounds, audit) in generations {
        let view = GenerationView {
            record,
            rounds,
            audit: audit.as_ref(),
            exact_match: Some(record.id.prompt % 2 == 0),
            rouge_l: None,
        };
        builder.add(view).expect("a generation of the run");
    }
    builder.finish()
}

proptest! {
    #[test]
    fn pieces_give_the_figures_of_whole_generations(
        generations in generations(),
        sizes in prop::collection::vec(1usize..6, 1..5),
        per_part in 1usize..9,
    ) {
        let pieces = cut(&generations, &sizes);
        let (summary, figures) = piecewise(&generations, &pieces, per_part, Quantiles::Exact);
        prop_assert_eq!(&summary, &reference(&generations));
        let uncut = cut(&generations, &[usize::MAX]);
        let (_, whole) = piecewise(&generations, &uncut, usize::MAX, Quantiles::Exact);
        prop_assert_eq!(figures.text(), whole.text());
        let sketched = piecewise(&generations, &pieces, per_part, Quantiles::Sketched).0;
        prop_assert_eq!(sketched, piecewise(&generations, &uncut, 1, Quantiles::Sketched).0);
    }
}

#[test]
fn a_hole_is_seen_and_no_gap_is_taken_over_it() {
    let rounds: Vec<RoundRecord> = (0..9).map(|i| round(i, i, Source::Skipped, 0, 0)).collect();
    let whole = vec![(generation(0, 0, 0, &rounds), rounds.clone(), None)];
    let pieces = [(0, 0, rounds[..3].to_vec()), (0, 5, rounds[5..].to_vec())];
    for per_part in [1, 2] {
        let (summary, _) = piecewise(&whole, &pieces, per_part, Quantiles::Exact);
        assert_eq!(summary.state, Validity::Invalid);
        assert!(summary.problems[0].contains("its rounds agree with the first 3"), "{:?}", summary.problems);
        let gaps = summary.methods.get("slm-only").and_then(|m| m.get("inter_token_latency_seconds")).expect("gaps");
        assert_eq!((gaps.count, gaps.max), (5, 0.5), "two before the hole, three behind it");
    }
}
