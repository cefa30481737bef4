//! What both builders of a summary share: a run's samples by data set and method, its phases, its counts.

use specfleet_engine::id::{GenerationId, PhaseId};
use specfleet_engine::method::Method;
use specfleet_engine::record::{
    BETWEEN_METHODS, BatchRecord, FinishReason, GenerationRecord, UploadCounts, VerifierRecord,
};
use specfleet_engine::time::{Span, Time};

use super::cells::Cells;
use super::collector::{CollectedDistribution, Collector};
use super::kind::MetricId;
use super::phase::PhaseFigures;
use super::samples::MethodSamples;
use super::tally::GenerationTally;
use super::{DataSet, Metrics, Ordered, RunHeader, SUMMARY_SCHEMA, Scores, Summary, SummaryError, Validity};
use crate::passes::Crossed;

/// Problems that a summary lists in words; it counts the others.
const LISTED_PROBLEMS: usize = 20;

/// A run's samples, in collections of kind `C`.
#[derive(Clone, Debug)]
pub(super) struct Books<C: Collector> {
    header: RunHeader,
    methods: Vec<Method>,
    data_sets: Vec<String>,
    /// By data set, then phase: pass by pass, in each the methods in their order.
    samples: Vec<Vec<MethodSamples<C>>>,
    phases: Vec<PhaseFigures<C>>,
    /// Of a run with several passes, for the intervals of its means.
    cells: Option<Cells>,
    counts: EndCounts,
    problems: Problems,
}

/// Generations and uploads, by how they ended.
#[derive(Clone, Copy, Debug, Default)]
struct EndCounts {
    generations: u64,
    failed: u64,
    dropped: u64,
    left: u64,
    battery: u64,
    uploads: UploadCounts,
}

impl<C: CollectedDistribution> Books<C> {
    pub(super) fn new(header: RunHeader, methods: &[Method], data_sets: &[String]) -> Books<C> {
        let phases = methods.len() * usize::from(header.passes());
        Books {
            methods: methods.to_vec(),
            data_sets: data_sets.to_vec(),
            samples: vec![vec![MethodSamples::default(); phases]; data_sets.len()],
            phases: vec![PhaseFigures::default(); phases],
            cells: (header.passes() > 1).then(Cells::default),
            header,
            counts: EndCounts::default(),
            problems: Problems::default(),
        }
    }

    pub(super) fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Whether every pass must give the same tokens.
    pub(super) fn repeats(&self) -> bool {
        self.header.repeat > 1
    }

    pub(super) fn accounting(&self) -> u32 {
        self.header.accounting
    }

    /// A tally for a generation of this run.
    pub(super) fn start(
        &self,
        phase: PhaseId,
        data_set: u16,
        scheduled: Time,
        latency_target: Span,
    ) -> Result<GenerationTally, SummaryError> {
        let phase = self.place(phase)?;
        if usize::from(data_set) >= self.data_sets.len() {
            return Err(SummaryError::UnknownDataSet { index: data_set, data_sets: self.data_sets.len() });
        }
        Ok(GenerationTally::new(phase, data_set, scheduled, latency_target))
    }

    /// The samples that a tally's rounds go to.
    #[inline]
    pub(super) fn samples_of(&mut self, tally: &GenerationTally) -> &mut MethodSamples<C> {
        &mut self.samples[usize::from(tally.data_set)][usize::from(tally.phase)]
    }

    /// Adds a ratio to a generation that was added before.
    pub(super) fn paired_ratio(&mut self, id: GenerationId, data_set: u16, kind: MetricId, numerator: i64, of: u64) {
        // It was in the run's lists when it was added.
        let Ok(place) = self.place(id.phase()) else { return };
        self.samples[usize::from(data_set)][usize::from(place)].signed_ratio(kind, numerator, of);
        if let Some(cells) = &mut self.cells {
            cells.of(id.phase(), data_set, id.prompt).signed_ratio(kind, numerator, of);
        }
    }

    /// The same with a plain sample.
    pub(super) fn paired_sample(&mut self, id: GenerationId, data_set: u16, kind: MetricId, value: f64) {
        let Ok(place) = self.place(id.phase()) else { return };
        self.samples[usize::from(data_set)][usize::from(place)].sample(kind, value);
        if let Some(cells) = &mut self.cells {
            cells.of(id.phase(), data_set, id.prompt).sample(kind, value);
        }
    }

    /// Adds a generation whose rounds were tallied.
    pub(super) fn generation(&mut self, record: &GenerationRecord, tally: &GenerationTally, scores: Scores) {
        let (data_set, phase) = (usize::from(tally.data_set), usize::from(tally.phase));
        let method = &self.methods[phase % self.methods.len()];
        self.samples[data_set][phase].add(method, record, tally, scores);
        self.phases[phase].generation(record, tally);
        self.counts.generation(record);
        if let Some(cells) = &mut self.cells {
            let cell = cells.of(record.id.phase(), tally.data_set, record.id.prompt);
            cell.add(method, record, tally, scores);
            let gaps = record.first_token.map_or(Span::ZERO, |first| tally.last.since(first));
            cell.ratio(MetricId::InterTokenLatency, gaps.0, u64::from(tally.tokens.saturating_sub(1)));
        }
    }

    pub(super) fn batch(&mut self, batch: &BatchRecord) -> Result<(), SummaryError> {
        if batch.method != BETWEEN_METHODS {
            let phase = self.place(PhaseId { method: batch.method, pass: batch.pass })?;
            self.phases[usize::from(phase)].batch(batch);
        }
        Ok(())
    }

    pub(super) fn verifier(&mut self, verifier: &VerifierRecord) -> Result<(), SummaryError> {
        if verifier.method != BETWEEN_METHODS {
            let phase = self.place(PhaseId { method: verifier.method, pass: verifier.pass })?;
            self.phases[usize::from(phase)].verifier(verifier);
        }
        Ok(())
    }

    pub(super) fn problem(&mut self, reason: String) {
        self.problems.add(reason);
    }

    /// A generation whose books do not close.
    pub(super) fn imbalance(&mut self, id: GenerationId, imbalance: &impl std::fmt::Display) {
        let name = &self.methods[usize::from(id.method)].name;
        let pass = if self.header.passes() > 1 { format!(", pass {}", id.pass) } else { String::new() };
        let reason = format!("{name}, prompt {}, repetition {}{pass}: {imbalance}", id.prompt, id.repetition);
        self.problems.add(reason);
    }

    /// Adds another part of the same run.
    pub(super) fn merge(&mut self, other: &Books<C>) -> Result<(), SummaryError> {
        if (&self.header, &self.methods, &self.data_sets) != (&other.header, &other.methods, &other.data_sets) {
            return Err(SummaryError::OtherRun { run: self.header.run.clone(), other: other.header.run.clone() });
        }
        for (mine, others) in self.samples.iter_mut().flatten().zip(other.samples.iter().flatten()) {
            mine.merge(others);
        }
        for (mine, others) in self.phases.iter_mut().zip(&other.phases) {
            mine.merge(others);
        }
        if let (Some(mine), Some(others)) = (&mut self.cells, &other.cells) {
            mine.merge(others);
        }
        self.counts.merge(&other.counts);
        self.problems.merge(&other.problems);
        Ok(())
    }

    pub(super) fn finish(self) -> Summary {
        let Books { header, methods, data_sets, samples, phases, cells, .. } = self;
        let mut overall: Vec<MethodSamples<C>> = phases.into_iter().map(PhaseFigures::finish).collect();
        for data_set in &samples {
            for (sum, samples) in overall.iter_mut().zip(data_set) {
                sum.merge(samples);
            }
        }
        let passes = Passes { methods: &methods, count: header.passes(), cells: cells.as_ref(), seed: header.seed };
        let whole = passes.metrics(overall, None);
        let by_data_set = data_sets.into_iter().zip(samples).enumerate();
        let data_sets = by_data_set
            .map(|(index, (name, samples))| (name, DataSet { methods: passes.metrics(samples, Some(index as u16)) }));
        let data_sets = data_sets.filter(|(_, data_set)| !data_set.methods.is_empty()).collect();
        let EndCounts { generations, failed, dropped, left, battery, uploads } = self.counts;
        Summary {
            schema: SUMMARY_SCHEMA,
            run: header.run,
            seed: header.seed,
            repeat: header.repeat,
            seeds: header.seeds,
            scenario_hash: header.scenario_hash,
            accounting: header.accounting,
            pool_cost: header.pool_cost,
            clock: header.clock,
            noise: header.noise,
            state: if self.problems.count == 0 { Validity::Valid } else { Validity::Invalid },
            problems: self.problems.listed(),
            faults_injected: header.faults_injected,
            quantiles: C::QUANTILES.to_owned(),
            generations,
            failed,
            dropped,
            left,
            battery,
            uploads,
            methods: whole,
            data_sets,
        }
    }

    /// Where a phase stands among the others.
    fn place(&self, PhaseId { method, pass }: PhaseId) -> Result<u16, SummaryError> {
        let (methods, passes) = (self.methods.len(), self.header.passes());
        if usize::from(method) >= methods {
            return Err(SummaryError::UnknownMethod { index: method, methods });
        }
        let place = usize::from(pass) * methods + usize::from(method);
        u16::try_from(place).ok().filter(|_| pass < passes).ok_or(SummaryError::UnknownPass { index: pass, passes })
    }
}

/// What turns the samples of phases into metrics of methods.
struct Passes<'a> {
    methods: &'a [Method],
    count: u16,
    cells: Option<&'a Cells>,
    seed: u64,
}

impl Passes<'_> {
    /// Metrics by method, over all passes, from the samples by phase; of one data set or of all.
    fn metrics<C: CollectedDistribution>(
        &self,
        samples: Vec<MethodSamples<C>>,
        data_set: Option<u16>,
    ) -> Ordered<Metrics> {
        let named = self.methods.iter().enumerate().map(|(index, method)| {
            let of_method = samples.iter().skip(index).step_by(self.methods.len());
            let mut sum = MethodSamples::default();
            of_method.clone().for_each(|pass| sum.merge(pass));
            (index as u16, &method.name, of_method, sum)
        });
        named
            .filter(|(.., sum)| sum.any())
            .map(|(index, name, of_method, sum)| {
                let mut metrics = sum.metrics();
                if let Some(cells) = self.cells {
                    let by_pass: Vec<Metrics> = of_method.map(|pass| pass.clone().metrics()).collect();
                    for (kind, name) in MetricId::all() {
                        let Some(metric) = metrics.get_mut(name) else { continue };
                        let crossed = cells.crossed(index, data_set, kind, self.count);
                        // Batches and phases have no prompts.
                        let crossed = if crossed.mean().is_some() {
                            crossed
                        } else {
                            Crossed::of_passes(by_pass.iter().filter_map(|pass| Some(pass.get(name)?.mean)))
                        };
                        metric.interval = crossed.interval(self.seed).map(|found| found.around(metric.mean, &crossed));
                    }
                }
                (name.clone(), metrics)
            })
            .collect()
    }
}

impl EndCounts {
    fn generation(&mut self, record: &GenerationRecord) {
        self.generations += 1;
        match record.finish {
            FinishReason::Stop | FinishReason::Length => {}
            FinishReason::Failed => self.failed += 1,
            FinishReason::Dropped => self.dropped += 1,
            FinishReason::Left => self.left += 1,
            FinishReason::Battery => self.battery += 1,
        }
        self.uploads(&record.uploads);
    }

    fn uploads(&mut self, uploads: &UploadCounts) {
        self.uploads.sent += uploads.sent;
        self.uploads.verdicts += uploads.verdicts;
        self.uploads.refused += uploads.refused;
        self.uploads.cancelled += uploads.cancelled;
    }

    fn merge(&mut self, other: &EndCounts) {
        self.generations += other.generations;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.left += other.left;
        self.battery += other.battery;
        self.uploads(&other.uploads);
    }
}

/// The first problems in alphabetical order, for generations arrive in the order of their ends, which is not the run's
/// own; and how many there are.
#[derive(Clone, Debug, Default)]
struct Problems {
    first: Vec<String>,
    count: u64,
}

impl Problems {
    fn add(&mut self, reason: String) {
        let at = self.first.partition_point(|known| *known <= reason);
        if at < LISTED_PROBLEMS {
            self.first.insert(at, reason);
            self.first.truncate(LISTED_PROBLEMS);
        }
        self.count += 1;
    }

    fn merge(&mut self, other: &Problems) {
        let unlisted = other.count - other.first.len() as u64;
        other.first.iter().for_each(|reason| self.add(reason.clone()));
        self.count += unlisted;
    }

    fn listed(self) -> Vec<String> {
        let more = self.count - self.first.len() as u64;
        self.first.into_iter().chain((more > 0).then(|| format!("… and {more} more"))).collect()
    }
}
