//! What happens beside a phase while it runs in virtual time: its progress is shown, its records go to the ledger, and it is
//! ended early where somebody asks for that or a check fails.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use specfleet_analysis::StreamSummary;
use specfleet_engine::id::PhaseId;
use specfleet_engine::record::Source;
use specfleet_engine::time::Time;
use specfleet_ledger::{LedgerError, RunWriter};
use specfleet_simulator::fitted::Fitted;
use specfleet_simulator::{SimulationProgress, Sinks};

use super::SimulateOptions;
use super::input::{SimulatedAnswers, SimulationInput};
use super::sinks::{Kept, PoolRows, ShardSink, fitted_audit};
use crate::audit::Case;
use crate::error::Error;
use crate::live::{Figures, Seen};
use crate::passes;
use crate::progress::ProgressPhase;
use crate::thresholds::Watch;
use crate::work::WorkPlan;

/// Windows between two looks at the sinks: a fixed number, so that rows are stored in the same order on any machine.
const WINDOWS_PER_LOOK: u64 = 256;

/// Real time between two flushes to the disk: what came after the last is what a crash takes.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// Looks at a phase between its windows.
pub(super) struct PhaseObserver<'a> {
    options: &'a SimulateOptions<'a>,
    phase: PhaseId,
    started: Time,
    bar: ProgressPhase,
    watch: Watch<'a>,
    /// A summary of the run without anything in it.
    empty: &'a StreamSummary,
    store: PhaseStore<'a>,
    /// The failed threshold that ended the phase, if one did.
    aborted: Option<String>,
    /// Whether somebody asked for an end of the run.
    interrupted: bool,
}

/// What an observer leaves when its phase is over.
pub(super) struct ObservedPhase {
    /// The generations that the verifier has to look at again.
    pub cases: Vec<Case>,
    /// The failed threshold that ended the phase, if one did.
    pub aborted: Option<String>,
    /// An error if rows could not be stored, or somebody asked for an end.
    pub outcome: Result<(), Error>,
}

impl<'a> PhaseObserver<'a> {
    /// For a phase of so many requests.
    pub(super) fn new(
        options: &'a SimulateOptions<'a>,
        (phase, method): (PhaseId, &str),
        started: Time,
        requests: usize,
        empty: &'a StreamSummary,
        store: PhaseStore<'a>,
    ) -> PhaseObserver<'a> {
        let label = passes::label(method, phase.pass, options.settings.run.passes());
        PhaseObserver {
            options,
            phase,
            started,
            bar: options.progress.phase(&label, requests),
            watch: Watch::new(&options.settings.thresholds, method, started),
            empty,
            store,
            aborted: None,
            interrupted: false,
        }
    }

    /// Between two windows: whether the phase goes on.
    pub(super) fn observe(
        &mut self,
        progress: &SimulationProgress,
        mut sinks: Sinks<'_, ShardSink, PoolRows>,
    ) -> ControlFlow<()> {
        if self.options.interrupted.load(Ordering::Relaxed) {
            self.interrupted = true;
            return ControlFlow::Break(());
        }
        if !progress.windows.is_multiple_of(WINDOWS_PER_LOOK) {
            return ControlFlow::Continue(());
        }
        self.bar.set(progress.ended, progress.now.since(self.started));
        self.store.take(self.phase, progress.now, &mut sinks);
        if self.watch.is_due(progress.now) {
            self.check_thresholds(progress.now, &mut sinks);
        }
        let goes_on = self.store.failure.is_none() && self.aborted.is_none();
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Evaluates the checks on one summary of what the phase has so far.
    fn check_thresholds(&mut self, now: Time, sinks: &mut Sinks<'_, ShardSink, PoolRows>) {
        let mut so_far = self.empty.clone();
        sinks.each(|sink| {
            let _ = so_far.merge(&sink.summary);
        });
        let _ = so_far.merge(&sinks.pool.summary);
        self.aborted = self.watch.failed(now, &so_far.finish());
    }

    /// The phase is over: what its shards still hold is stored too.
    pub(super) fn finish(mut self, progress: &SimulationProgress, sinks: &mut [ShardSink]) -> ObservedPhase {
        sinks.iter_mut().for_each(|sink| self.store.take_generations(sink));
        self.bar.set(progress.ended, progress.now.since(self.started));
        self.bar.finish();
        let outcome = match self.store.failure {
            Some(failure) => Err(failure.into()),
            None if self.interrupted => Err(Error::Interrupted(PathBuf::new())),
            None => Ok(()),
        };
        ObservedPhase { cases: self.store.cases.unwrap_or_default(), aborted: self.aborted, outcome }
    }
}

/// Hands the records of a phase to the ledger, if the run is kept.
pub(super) struct PhaseStore<'a> {
    answers: &'a SimulatedAnswers,
    fitted: Option<&'a Fitted>,
    writer: Option<&'a mut RunWriter>,
    figures: &'a mut Figures,
    /// What the devices of the phases before have done.
    seen: Seen,
    /// Generations to be audited when the phase is over; absent where the loaded verifier does not audit.
    cases: Option<Vec<Case>>,
    /// The first error; nothing more is stored after it.
    failure: Option<LedgerError>,
    flushed: Instant,
}

impl<'a> PhaseStore<'a> {
    /// `fitted`: what the phase's answers are drawn from, where they are fitted.
    pub(super) fn new(
        input: &'a SimulationInput,
        options: &SimulateOptions<'_>,
        writer: Option<&'a mut RunWriter>,
        figures: &'a mut Figures,
        seen: Seen,
        fitted: Option<&'a Fitted>,
    ) -> PhaseStore<'a> {
        let audits = options.settings.audit && matches!(input.answers, SimulatedAnswers::Model { .. });
        PhaseStore {
            answers: &input.answers,
            fitted,
            writer,
            figures,
            seen,
            cases: audits.then(Vec::new),
            failure: None,
            flushed: Instant::now(),
        }
    }

    /// Takes what has ended since the last look.
    fn take(&mut self, phase: PhaseId, now: Time, sinks: &mut Sinks<'_, ShardSink, PoolRows>) {
        sinks.each(|sink| self.take_generations(sink));
        let Some(writer) = &mut self.writer else { return };
        self.failure = self.failure.take().or(sinks.pool.store(writer).err());
        // Where the rows are divided on the disk changes neither them nor their order.
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.failure = self.failure.take().or(writer.flush().err());
            let mut seen = self.seen;
            sinks.each(|sink| seen.add(&sink.seen));
            let live = self.figures.look(now, phase.method, &seen, &sinks.pool.done, None);
            self.failure = self.failure.take().or(writer.put_live(&live).err());
            self.flushed = Instant::now();
        }
    }

    fn take_generations(&mut self, sink: &mut ShardSink) {
        for kept in sink.take() {
            if self.failure.is_none() {
                self.failure = self.keep(kept).err();
            }
        }
    }

    /// Hands a generation to the ledger, and to the audit.
    fn keep(&mut self, kept: Kept) -> Result<(), LedgerError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if let Some(audit) = self.fitted.and_then(|fitted| fitted_audit(fitted, &kept)) {
            writer.append_audit(audit)?;
        }
        if let (Some(cases), SimulatedAnswers::Model { work, .. }) = (&mut self.cases, self.answers) {
            cases.extend(case(work, &kept));
        }
        writer.close_generation(kept.record, &kept.rounds)
    }
}

fn case(work: &WorkPlan, kept: &Kept) -> Option<Case> {
    let id = kept.record.id;
    let prompt = work.tokens(id.prompt, id.repetition)?;
    let skipped = kept.rounds.iter().filter(|round| round.source == Source::Skipped);
    Some(Case {
        id,
        tokens: [prompt, &kept.record.tokens[..]].concat(),
        prompt_tokens: prompt.len(),
        skipped: skipped.map(|round| (round.position, round.draft_probability)).collect(),
    })
}
