//! The one pass over the rounds of a stored run, from which summary and figures come.

use specfleet_analysis::{
    MethodFigures as Collected, PiecewiseSummary, Quantiles, RoundPlace, Scores, Stretches, SummaryError,
};
use specfleet_engine::time::Time;
use specfleet_ledger::RoundChunk;

use super::DeviceSpread;
use super::spread::Spread;
use crate::error::Error;
use crate::results::header;
use crate::stored::{AuditCursor, FIGURE_COLUMNS, StoredRun};

/// Stretches of the timeline at most.
const TIMELINE: usize = 200;

/// What one part of the store leaves.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) summary: PiecewiseSummary,
    pub(super) figures: Vec<Collected>,
    error: Option<SummaryError>,
}

/// The pass over the rounds: summary, figures, and spread over the devices. What cannot be read is in the reader's log.
pub(super) fn collect(
    run: &StoredRun,
    threads: usize,
    quantiles: Quantiles,
) -> Result<(Part, Vec<DeviceSpread>), Error> {
    let meta = run.meta();
    let empty = Part {
        summary: PiecewiseSummary::new(header(meta), &meta.methods, &meta.data_sets, quantiles),
        figures: empty_figures(run),
        error: None,
    };
    let (parts, _) =
        run.reader.fold_rounds(&FIGURE_COLUMNS, threads, || empty.clone(), |part, chunk| part.chunk(run, chunk));
    let mut whole = empty.clone();
    for part in parts {
        for (mine, others) in whole.figures.iter_mut().zip(&part.figures) {
            mine.merge(others);
        }
        let figures = &mut whole.figures;
        let merged = whole.summary.merge(part.summary, |joint| {
            if let Some(figures) = figures.get_mut(usize::from(joint.id.method)) {
                figures.gap(joint.gap);
                joint.drafts.iter().for_each(|(place, accepted)| figures.place(*place, *accepted));
            }
        });
        if let Some(error) = part.error.or(merged.err()) {
            whole.summary.problem(error.to_string());
        }
    }
    let mut spread = Spread::default();
    for (record, text) in run.generations.iter().zip(&run.texts) {
        let scores = Scores { exact_match: text.exact_match, rouge_l: text.rouge_l };
        match whole.summary.generation(record, run.audit(record.id), scores) {
            Ok(totals) => spread.add(run, record, totals.uploads, totals.gap_time),
            Err(error) => whole.summary.problem(error.to_string()),
        }
        if let Some((figures, first)) = whole.figures.get_mut(usize::from(record.id.method)).zip(record.first_token) {
            figures.first_token.push(first.since(record.scheduled));
        }
    }
    for batch in run.reader.batches().flatten() {
        if let Err(error) = whole.summary.batch(&batch) {
            whole.summary.problem(error.to_string());
        }
        if let Some(figures) = whole.figures.get_mut(usize::from(batch.method)) {
            figures.batch(&batch);
        }
    }
    for verifier in run.reader.verifiers().flatten() {
        if let Err(error) = whole.summary.verifier(&verifier) {
            whole.summary.problem(error.to_string());
        }
    }
    Ok((whole, spread.finish(run)))
}

impl Part {
    fn chunk(&mut self, run: &StoredRun, chunk: &RoundChunk) {
        for piece in &chunk.pieces {
            // The rounds of what never came to an end are in no figure.
            let Some(index) = run.find(piece.id) else { continue };
            let record = &run.generations[index];
            let Some(figures) = self.figures.get_mut(usize::from(piece.id.method)) else { continue };
            let mut audit = AuditCursor::new(run.audit(piece.id), piece.first);
            let rows = piece.range.clone().map(|index| chunk.rows.partial_record(index));
            let taken = self.summary.piece(record, piece.first, rows, |round, RoundPlace { gap, draft }| {
                figures.round(piece.id.pass, round, gap, draft, audit.at(round.position));
            });
            self.error = self.error.take().or(taken.err());
        }
    }
}

/// Empty figures per method. The timeline's stretches are shared out by the length of the phases.
fn empty_figures(run: &StoredRun) -> Vec<Collected> {
    let (methods, passes) = (&run.meta().methods, usize::from(run.meta().passes()));
    // By method and then pass.
    let mut phases = vec![(Time(u64::MAX), Time::ZERO); methods.len() * passes];
    for record in &run.generations {
        let (method, pass) = (usize::from(record.id.method), usize::from(record.id.pass));
        if let Some((from, to)) = phases.get_mut(method * passes + pass).filter(|_| pass < passes) {
            *from = (*from).min(record.scheduled);
            *to = (*to).max(record.ended);
        }
    }
    let length = |(from, to): &(Time, Time)| to.since(*from).seconds();
    let total: f64 = phases.iter().map(length).sum();
    let spare = TIMELINE.saturating_sub(phases.len()) as f64;
    let stretches = |phase: &(Time, Time)| {
        let share = if total > 0.0 { length(phase) / total } else { 0.0 };
        Stretches::new(phase.0.min(phase.1), phase.1, 1 + (share * spare) as usize)
    };
    let of_methods = methods.iter().zip(phases.chunks(passes));
    of_methods.map(|(method, phases)| Collected::new(method, phases.iter().map(stretches).collect())).collect()
}
