//! What a report draws beside its tables, collected round by round: histograms, risk, acceptance by place, a timeline.
//!
//! All of it is counts and integer sums, so that parts of a store can be collected apart and merged in any order.

mod bins;
mod risk;
mod timeline;

pub use bins::{LogBin, LogBins};
pub use risk::{RiskBins, RiskCell, RiskFit};
pub use timeline::{Stretches, TimelineStretch};

use std::collections::BTreeMap;

use specfleet_engine::method::{Gate, Method};
use specfleet_engine::record::{BatchRecord, RoundRecord};
use specfleet_engine::time::Span;

/// Tokens of one bin of [`MethodFigures::answer`].
pub const ANSWER_BIN: u32 = 8;

/// Bins of [`MethodFigures::answer`] at most; what lies behind is in the last.
const ANSWER_BINS: usize = 128;

/// Judged and accepted drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    pub tokens: u64,
    /// Drafts that the verifier judged.
    pub judged: u64,
    pub accepted: u64,
}

impl Judged {
    fn add(&mut self, other: &Judged) {
        self.tokens += other.tokens;
        self.judged += other.judged;
        self.accepted += other.accepted;
    }
}

/// What one method's rounds and batches look like.
#[derive(Clone, Debug)]
pub struct MethodFigures {
    measures_uncertainty: bool,
    pub gaps: LogBins,
    /// Time in the pool's queue, per answered upload.
    pub queue: LogBins,
    /// First commit after the scheduled start.
    pub first_token: LogBins,
    /// Uncertainty against rejection; empty where the method measures no u(t).
    pub risk: RiskBins,
    /// By the place of a draft in its upload.
    pub places: Vec<Judged>,
    /// By the place in the answer, in bins of [`ANSWER_BIN`] tokens.
    pub answer: Vec<Judged>,
    /// Completed batches by their number of sequences, which a stored run may say is anything.
    pub batch_sizes: BTreeMap<u32, u64>,
    /// Over time, by pass.
    pub passes: Vec<Stretches>,
}

impl MethodFigures {
    /// Nothing collected. `passes`: the stretches of the method's phase in each pass of the run.
    pub fn new(method: &Method, passes: Vec<Stretches>) -> MethodFigures {
        MethodFigures {
            measures_uncertainty: measures_uncertainty(&method.gate),
            gaps: LogBins::default(),
            queue: LogBins::default(),
            first_token: LogBins::default(),
            risk: RiskBins::default(),
            places: Vec::new(),
            answer: Vec::new(),
            batch_sizes: BTreeMap::new(),
            passes,
        }
    }

    /// Takes in the next round of a generation in this pass. `gap`: since its previous commit, where there is one; `place`: of its draft
    /// in the upload, where that is known; `audited`: min(1, y_d/x_d), where the verifier only said so afterwards.
    #[inline]
    pub fn round(
        &mut self,
        pass: u16,
        round: &RoundRecord,
        gap: Option<Span>,
        place: Option<u32>,
        audited: Option<f32>,
    ) {
        if let Some(gap) = gap {
            self.gap(gap);
        }
        let accepted = round.source.accepted();
        let bin = ((round.position / ANSWER_BIN) as usize).min(ANSWER_BINS - 1);
        if self.answer.len() <= bin {
            self.answer.resize(bin + 1, Judged::default());
        }
        self.answer[bin].tokens += 1;
        if let Some(accepted) = accepted {
            self.answer[bin].judged += 1;
            self.answer[bin].accepted += u64::from(accepted);
            if let Some(place) = place {
                self.place(place, accepted);
            }
        }
        if self.measures_uncertainty
            && let Some(rejected) = accepted.map(|accepted| f32::from(u8::from(!accepted))).or(audited.map(|p| 1.0 - p))
        {
            self.risk.push(round.uncertainty, rejected);
        }
        let queue = round.answered_upload().map(|cost| cost.verify.queue_wait + cost.verify.batch_wait);
        if let Some(queue) = queue {
            self.queue.push(queue);
        }
        if let Some(stretches) = self.passes.get_mut(usize::from(pass)) {
            stretches.round(round.committed_at, queue);
        }
    }

    /// A gap between two commits that lie in two parts of the store.
    pub fn gap(&mut self, gap: Span) {
        self.gaps.push(gap);
    }

    /// A judged draft whose place in its upload was found later. Places are counted, so there are never more of them than
    /// rounds.
    pub fn place(&mut self, place: u32, accepted: bool) {
        let place = place as usize;
        if self.places.len() <= place {
            self.places.resize(place + 1, Judged::default());
        }
        self.places[place].judged += 1;
        self.places[place].accepted += u64::from(accepted);
    }

    /// Takes in a batch.
    pub fn batch(&mut self, batch: &BatchRecord) {
        if batch.completed {
            *self.batch_sizes.entry(batch.sequences).or_default() += 1;
            if let Some(stretches) = self.passes.get_mut(usize::from(batch.pass)) {
                stretches.batch(batch.started, batch.sequences);
            }
        }
    }

    /// Adds another part of the same method.
    pub fn merge(&mut self, other: &MethodFigures) {
        self.gaps.merge(&other.gaps);
        self.queue.merge(&other.queue);
        self.first_token.merge(&other.first_token);
        self.risk.merge(&other.risk);
        merge_judged(&mut self.places, &other.places);
        merge_judged(&mut self.answer, &other.answer);
        for (sequences, batches) in &other.batch_sizes {
            *self.batch_sizes.entry(*sequences).or_default() += batches;
        }
        self.passes.iter_mut().zip(&other.passes).for_each(|(mine, others)| mine.merge(others));
    }
}

fn merge_judged(mine: &mut Vec<Judged>, others: &[Judged]) {
    if mine.len() < others.len() {
        mine.resize(others.len(), Judged::default());
    }
    mine.iter_mut().zip(others).for_each(|(mine, other)| mine.add(other));
}

/// Whether the uncertainty of a round's record is u(t).
fn measures_uncertainty(gate: &Gate) -> bool {
    matches!(gate, Gate::Uncertainty { .. } | Gate::Joint { .. } | Gate::Price(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use specfleet_engine::id::VerifierId;
    use specfleet_engine::method::{PayloadForm, ProbabilityBits, Writer};
    use specfleet_engine::time::Time;

    #[test]
    fn a_batch_of_any_size_takes_no_more_memory() {
        let method = Method {
            name: "hlm".to_owned(),
            writer: Writer::Drafter,
            gate: Gate::Always,
            payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
            block: 1,
            bonus: false,
            draft_ahead: false,
        };
        let batch = |sequences, completed| BatchRecord {
            method: 0,
            pass: 0,
            batch: 0,
            verifier: VerifierId(0),
            started: Time::ZERO,
            compute: Span::ZERO,
            measured: Span::ZERO,
            overrun: Span::ZERO,
            estimate: Span::ZERO,
            price: f32::NAN,
            sequences,
            work: 0,
            catch_up: 0,
            drafts: 0,
            cached: 0,
            nanojoules: 0,
            measured_nanojoules: 0,
            unclaimed_nanojoules: 0,
            completed,
        };
        let mut figures = MethodFigures::new(&method, vec![Stretches::new(Time::ZERO, Time(1), 1)]);
        for sequences in [3, u32::MAX, 3] {
            figures.batch(&batch(sequences, true));
        }
        figures.batch(&batch(4, false));
        figures.merge(&figures.clone());
        assert_eq!(figures.batch_sizes, BTreeMap::from([(3, 4), (u32::MAX, 2)]));
    }
}
