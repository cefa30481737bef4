//! What both builders of a summary share: a run's samples by data set and method, its phases, its counts.

use specfleet_engine::id::GenerationId;
use specfleet_engine::method::Method;
use specfleet_engine::record::{
    BETWEEN_METHODS, BatchRecord, FinishReason, GenerationRecord, UploadCounts, VerifierRecord,
};
use specfleet_engine::time::{Span, Time};

use super::collector::Collector;
use super::phase::Phase;
use super::samples::MethodSamples;
use super::tally::GenerationTally;
use super::{DataSet, Metrics, Ordered, RunHeader, SUMMARY_SCHEMA, Scores, Summary, SummaryError, Validity};

/// Problems that a summary lists in words; it counts the others.
const LISTED_PROBLEMS: usize = 20;

/// A run's samples, in collections of kind `C`.
#[derive(Clone, Debug)]
pub(super) struct Books<C: Collector> {
    header: RunHeader,
    methods: Vec<Method>,
    data_sets: Vec<String>,
    /// By data set, then method.
    samples: Vec<Vec<MethodSamples<C>>>,
    /// By method.
    phases: Vec<Phase<C>>,
    counts: Counts,
    problems: Problems,
}

/// Generations and uploads, by how they ended.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    generations: u64,
    failed: u64,
    dropped: u64,
    left: u64,
    battery: u64,
    uploads: UploadCounts,
}

impl<C: Collector> Books<C> {
    pub(super) fn new(header: RunHeader, methods: &[Method], data_sets: &[String]) -> Books<C> {
        Books {
            header,
            methods: methods.to_vec(),
            data_sets: data_sets.to_vec(),
            samples: vec![vec![MethodSamples::default(); methods.len()]; data_sets.len()],
            phases: vec![Phase::default(); methods.len()],
            counts: Counts::default(),
            problems: Problems::default(),
        }
    }

    pub(super) fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The run's accounting.
    pub(super) fn accounting(&self) -> u32 {
        self.header.accounting
    }

    /// A tally for a generation of this run.
    pub(super) fn start(
        &self,
        method: u16,
        data_set: u16,
        scheduled: Time,
        latency_target: Span,
    ) -> Result<GenerationTally, SummaryError> {
        self.known_method(method)?;
        if usize::from(data_set) >= self.data_sets.len() {
            return Err(SummaryError::UnknownDataSet { index: data_set, data_sets: self.data_sets.len() });
        }
        Ok(GenerationTally::new(method, data_set, scheduled, latency_target))
    }

    /// The samples that a tally's rounds go to.
    #[inline]
    pub(super) fn samples_of(&mut self, tally: &GenerationTally) -> &mut MethodSamples<C> {
        self.samples_at(tally.data_set, tally.method)
    }

    #[inline]
    pub(super) fn samples_at(&mut self, data_set: u16, method: u16) -> &mut MethodSamples<C> {
        &mut self.samples[usize::from(data_set)][usize::from(method)]
    }

    /// Adds a generation whose rounds were tallied.
    pub(super) fn generation(&mut self, record: &GenerationRecord, tally: &GenerationTally, scores: Scores) {
        let (data_set, method) = (usize::from(tally.data_set), usize::from(tally.method));
        self.samples[data_set][method].add(&self.methods[method], record, tally, scores);
        self.phases[method].generation(record, tally);
        self.counts.generation(record);
    }

    pub(super) fn batch(&mut self, batch: &BatchRecord) -> Result<(), SummaryError> {
        if batch.method != BETWEEN_METHODS {
            self.known_method(batch.method)?;
            self.phases[usize::from(batch.method)].batch(batch);
        }
        Ok(())
    }

    pub(super) fn verifier(&mut self, verifier: &VerifierRecord) -> Result<(), SummaryError> {
        if verifier.method != BETWEEN_METHODS {
            self.known_method(verifier.method)?;
            self.phases[usize::from(verifier.method)].verifier(verifier);
        }
        Ok(())
    }

    pub(super) fn problem(&mut self, reason: String) {
        self.problems.add(reason);
    }

    /// A generation whose books do not close.
    pub(super) fn imbalance(&mut self, id: GenerationId, imbalance: &impl std::fmt::Display) {
        let name = &self.methods[usize::from(id.method)].name;
        let reason = format!("{name}, prompt {}, repetition {}: {imbalance}", id.prompt, id.repetition);
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
        self.counts.merge(&other.counts);
        self.problems.merge(&other.problems);
        Ok(())
    }

    pub(super) fn finish(self) -> Summary {
        let mut overall: Vec<MethodSamples<C>> = self.phases.into_iter().map(Phase::finish).collect();
        for data_set in &self.samples {
            for (sum, samples) in overall.iter_mut().zip(data_set) {
                sum.merge(samples);
            }
        }
        let metrics = |samples: Vec<MethodSamples<C>>| -> Ordered<Metrics> {
            let named = self.methods.iter().zip(samples);
            named
                .filter(|(_, samples)| samples.any())
                .map(|(method, samples)| (method.name.clone(), samples.metrics()))
                .collect()
        };
        let methods = metrics(overall);
        let data_sets = self.data_sets.into_iter().zip(self.samples);
        let data_sets = data_sets.map(|(name, samples)| (name, DataSet { methods: metrics(samples) }));
        let data_sets = data_sets.filter(|(_, data_set)| !data_set.methods.is_empty()).collect();
        let Counts { generations, failed, dropped, left, battery, uploads } = self.counts;
        Summary {
            schema: SUMMARY_SCHEMA,
            run: self.header.run,
            seed: self.header.seed,
            scenario_hash: self.header.scenario_hash,
            accounting: self.header.accounting,
            pool_cost: self.header.pool_cost,
            state: if self.problems.count == 0 { Validity::Valid } else { Validity::Invalid },
            problems: self.problems.listed(),
            faults_injected: self.header.faults_injected,
            quantiles: C::QUANTILES.to_owned(),
            generations,
            failed,
            dropped,
            left,
            battery,
            uploads,
            methods,
            data_sets,
        }
    }

    fn known_method(&self, index: u16) -> Result<(), SummaryError> {
        let methods = self.methods.len();
        if usize::from(index) < methods { Ok(()) } else { Err(SummaryError::UnknownMethod { index, methods }) }
    }
}

impl Counts {
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

    fn merge(&mut self, other: &Counts) {
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
