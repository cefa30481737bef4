//! The summary of a stored run, whose rounds come in pieces: in the order of the store, a generation's between those of
//! others, and the store in parts that are read side by side.

use std::collections::BTreeMap;

use specfleet_engine::id::GenerationId;
use specfleet_engine::method::Method;
use specfleet_engine::record::{AuditRecord, BatchRecord, FinishReason, GenerationRecord, RoundRecord, VerifierRecord};
use specfleet_engine::time::{Span, Time};

use super::books::Books;
use super::pairs::{MethodPairs, Outcome};
use super::tally::GenerationTally;
use super::{RunHeader, Scores, Summary, SummaryError};
use crate::balance::{RoundSums, check_totals};
use crate::distribution::Samples;
use crate::sketch::Sketch;

/// How percentiles are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantiles {
    /// Every sample is kept: sixteen bytes each.
    Exact,
    /// From sketches with a relative error of 1 %, whatever the number of samples.
    Sketched,
}

/// Collects a run piece by piece. The same figures under the same names as [`SummaryBuilder`](super::SummaryBuilder),
/// which wants a generation's rounds together.
///
/// Order of calls: [`Self::piece`] for pieces in the order of the store; [`Self::merge`] for the parts in that order;
/// then [`Self::generation`] once for each closed generation, [`Self::batch`], [`Self::verifier`], and [`Self::finish`].
#[derive(Clone, Debug)]
pub struct PiecewiseSummary {
    books: EitherBooks,
    fragments: BTreeMap<GenerationId, Fragment>,
    pairs: MethodPairs,
}

#[derive(Clone, Debug)]
enum EitherBooks {
    Exact(Books<Samples>),
    Sketched(Books<Sketch>),
}

/// `$books` bound to whichever books they are.
macro_rules! either {
    ($either:expr, $books:ident => $result:expr) => {
        match $either {
            EitherBooks::Exact($books) => $result,
            EitherBooks::Sketched($books) => $result,
        }
    };
}

/// What is known of a generation whose rounds were read in part.
#[derive(Clone, Debug)]
struct Fragment {
    tally: GenerationTally,
    /// Index of its first round among the generation's.
    first: u32,
    first_commit: Time,
    sums: RoundSums,
    /// Place in its upload of the next judged draft; absent until an upload begins.
    place: Option<u32>,
    /// Judged drafts whose upload began in an earlier part, and whether they were accepted.
    orphans: Vec<bool>,
}

/// What a round is in its generation, for whoever looks at rounds beside the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundPlace {
    /// Since the generation's previous commit; absent for its first round, and where the one before lies in another part.
    pub gap: Option<Span>,
    /// Of a judged draft: its place in its upload, from 0; absent where the upload begins in another part.
    pub draft: Option<u32>,
}

/// What joining two parts of a generation brings to light.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    pub id: GenerationId,
    /// The gap between the parts.
    pub gap: Span,
    /// Judged drafts whose upload lies before the joint: place in the upload, and whether it was accepted.
    pub drafts: Vec<(u32, bool)>,
}

/// A generation's sums, from its rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GenerationTotals {
    pub tokens: u32,
    /// Answered uploads of drafts.
    pub uploads: u32,
    /// From the first commit to the last.
    pub gap_time: Span,
}

impl PiecewiseSummary {
    /// A summary without generations. `methods` and `data_sets` are the run's lists: records name them by index.
    pub fn new(header: RunHeader, methods: &[Method], data_sets: &[String], quantiles: Quantiles) -> PiecewiseSummary {
        let books = match quantiles {
            Quantiles::Exact => EitherBooks::Exact(Books::new(header, methods, data_sets)),
            Quantiles::Sketched => EitherBooks::Sketched(Books::new(header, methods, data_sets)),
        };
        PiecewiseSummary { books, fragments: BTreeMap::new(), pairs: MethodPairs::default() }
    }

    /// Takes in consecutive rounds of the generation that ended as `record`, the first of them its round `first`; `each` is
    /// told of every one. Fields that no figure needs may be anything.
    pub fn piece(
        &mut self,
        record: &GenerationRecord,
        first: u32,
        rounds: impl Iterator<Item = RoundRecord>,
        mut each: impl FnMut(&RoundRecord, RoundPlace),
    ) -> Result<(), SummaryError> {
        let fragment = match self.fragments.get_mut(&record.id) {
            Some(fragment) => fragment,
            None => {
                let (phase, data_set) = (record.id.phase(), record.data_set);
                let tally = either!(&self.books, books => {
                    books.start(phase, data_set, record.scheduled, record.latency_target)?
                });
                self.fragments.entry(record.id).or_insert(Fragment::new(tally, first))
            }
        };
        // At the start of a part, and behind a hole, the next gap would be a wrong one.
        let mut adjacent = first == 0 || fragment.sums.rounds > 0 && fragment.first + fragment.sums.rounds == first;
        either!(&mut self.books, books => {
            let samples = books.samples_of(&fragment.tally);
            for round in rounds {
                if fragment.sums.rounds == 0 {
                    fragment.first_commit = round.committed_at;
                }
                let gap = fragment.tally.enter(&round, samples, adjacent);
                adjacent = true;
                fragment.sums.add(&round, &record.tokens);
                let draft = fragment.place_of(&round);
                each(&round, RoundPlace { gap, draft });
            }
        });
        Ok(())
    }

    /// Adds the next part of the store; `each` is told of what lay on both sides of the cut.
    pub fn merge(&mut self, later: PiecewiseSummary, mut each: impl FnMut(Joint)) -> Result<(), SummaryError> {
        match (&mut self.books, &later.books) {
            (EitherBooks::Exact(mine), EitherBooks::Exact(others)) => mine.merge(others)?,
            (EitherBooks::Sketched(mine), EitherBooks::Sketched(others)) => mine.merge(others)?,
            // The caller made one empty summary and cloned it.
            _ => unreachable!("parts of one summary take their percentiles alike"),
        }
        for (id, fragment) in later.fragments {
            match self.fragments.get_mut(&id) {
                Some(known) => {
                    let samples_of = either!(&mut self.books, books => {
                        known.join(fragment, |tally, gap| {
                            books.samples_of(tally).nanoseconds(super::kind::MetricId::InterTokenLatency, gap, 1);
                        })
                    });
                    if let Some((gap, drafts)) = samples_of {
                        each(Joint { id, gap, drafts });
                    }
                }
                None => {
                    self.fragments.insert(id, fragment);
                }
            }
        }
        Ok(())
    }

    /// Adds a closed generation after its rounds. If its books do not close, the summary is invalid and says why.
    pub fn generation(
        &mut self,
        record: &GenerationRecord,
        audit: Option<&AuditRecord>,
        scores: Scores,
    ) -> Result<GenerationTotals, SummaryError> {
        let fragment = match self.fragments.remove(&record.id) {
            Some(fragment) => fragment,
            None => {
                let (phase, data_set) = (record.id.phase(), record.data_set);
                let tally = either!(&self.books, books => {
                    books.start(phase, data_set, record.scheduled, record.latency_target)?
                });
                Fragment::new(tally, 0)
            }
        };
        let Fragment { mut tally, first_commit, sums, .. } = fragment;
        if let Some(audit) = audit {
            tally.audit_all(audit);
        }
        either!(&mut self.books, books => {
            let accounting = books.accounting();
            if let Err(imbalance) = check_totals(record, accounting).and_then(|()| sums.check(record, accounting)) {
                books.imbalance(record.id, &imbalance);
            }
            books.generation(record, &tally, scores);
        });
        if record.finish != FinishReason::Dropped {
            self.pairs.add(record, Outcome::of(record, sums.local));
        }
        let gap_time = if tally.tokens > 0 { tally.last.since(first_commit) } else { Span::ZERO };
        Ok(GenerationTotals { tokens: tally.tokens, uploads: tally.uploads, gap_time })
    }

    /// Adds a verification batch. Batches between the methods are left out.
    pub fn batch(&mut self, batch: &BatchRecord) -> Result<(), SummaryError> {
        either!(&mut self.books, books => books.batch(batch))
    }

    /// Adds what a verifier did in a method's phase. What it did between the methods is left out.
    pub fn verifier(&mut self, verifier: &VerifierRecord) -> Result<(), SummaryError> {
        either!(&mut self.books, books => books.verifier(verifier))
    }

    /// Declares the run invalid for a reason that lies outside its rows.
    pub fn problem(&mut self, reason: impl Into<String>) {
        either!(&mut self.books, books => books.problem(reason.into()));
    }

    /// The summary.
    pub fn finish(self) -> Summary {
        let pairs = self.pairs;
        match self.books {
            EitherBooks::Exact(mut books) => {
                pairs.fill(&mut books);
                books.finish()
            }
            EitherBooks::Sketched(mut books) => {
                pairs.fill(&mut books);
                books.finish()
            }
        }
    }
}

impl Fragment {
    fn new(tally: GenerationTally, first: u32) -> Fragment {
        Fragment {
            tally,
            first,
            first_commit: Time::ZERO,
            sums: RoundSums::starting_at(first),
            place: None,
            orphans: Vec::new(),
        }
    }

    /// The place of a judged draft in its upload: the first one pays for it.
    fn place_of(&mut self, round: &RoundRecord) -> Option<u32> {
        if round.started_upload().is_some() {
            self.place = Some(0);
        }
        let accepted = round.source.accepted()?;
        match &mut self.place {
            Some(place) => {
                *place += 1;
                Some(*place - 1)
            }
            None => {
                self.orphans.push(accepted);
                None
            }
        }
    }

    /// Appends the fragment that follows: the gap between the two, and the drafts whose place was unknown so far. `None`
    /// where rounds are missing between them.
    fn join(
        &mut self,
        later: Fragment,
        sample: impl FnOnce(&GenerationTally, Span),
    ) -> Option<(Span, Vec<(u32, bool)>)> {
        let whole = self.first + self.sums.rounds == later.first;
        let gap = later.first_commit.since(self.tally.last);
        if whole {
            sample(&self.tally, gap);
            self.tally.in_time += u32::from(gap <= self.tally.latency_target);
        }
        self.tally.append(&later.tally);
        self.sums.append(&later.sums);
        let drafts = match (whole, self.place) {
            (true, Some(place)) => (place..).zip(later.orphans.iter().copied()).collect(),
            _ => Vec::new(),
        };
        self.place = later.place.or(self.place.map(|place| place + later.orphans.len() as u32));
        whole.then_some((gap, drafts))
    }
}
