//! One method after another in virtual time, and its records into the ledger.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use specfleet_analysis::{StreamSummary, Summary};
use specfleet_config::{Assignment, Fault, Fidelity, Settings};
use specfleet_engine::id::{GenerationId, PhaseId, VerifierId};
use specfleet_engine::method::{MAX_BLOCK, Method};
use specfleet_engine::pool::PoolSettings;
use specfleet_engine::record::{AuditRecord, Source as Origin};
use specfleet_engine::time::Time;
use specfleet_engine::wire::Limits;
use specfleet_ledger::{LedgerError, RunWriter};
use specfleet_model::KvArena;
use specfleet_simulator::answers::{DeviceAnswers, PoolAnswers};
use specfleet_simulator::drawn::DrawnPool;
use specfleet_simulator::fitted::{Fitted, FittedDevices};
use specfleet_simulator::{Fleet, Job, Kill, Phase, PoolSetup, SHARDS, Simulation, Timing};

use super::model::{ModelDevices, ModelPhase, ModelPool};
use super::sinks::{Kept, PoolRows, ShardSink, fitted_audit};
use super::source::Source;
use super::trace::{TraceDevices, TracePhase};
use crate::audit::{self, Case};
use crate::error::Error;
use crate::live::{Figures, Seen};
use crate::pair::Pair;
use crate::parts::device_settings;
use crate::passes;
use crate::progress::Progress;
use crate::run;
use crate::tasks::Tasks;
use crate::thresholds::Watch;

/// Windows between two looks at the sinks: a fixed number, so that rows are stored in the same order on any machine.
const WINDOWS_PER_LOOK: u64 = 256;

/// Real time between two flushes to the disk: what came after the last is what a crash takes.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// Tokens that a drafter may hold beyond what is committed: two blocks of drafts of the largest size, and a look ahead.
const AHEAD: usize = 2 * MAX_BLOCK + 2;

/// A run in the making.
pub(super) struct Phases<'a> {
    settings: &'a Settings,
    source: &'a Source,
    /// What batches take and the host adds, by method.
    timings: Vec<Timing>,
    /// A summary of this run without anything in it.
    empty: StreamSummary,
    stream: StreamSummary,
    writer: Option<RunWriter>,
    progress: &'a Progress,
    interrupted: &'a AtomicBool,
    threads: usize,
    jobs: Vec<JobHead>,
    assignment: Assignment,
    /// What the devices of the phases that are over have done.
    seen: Seen,
    /// For `live.json`.
    figures: Figures,
    tokens: u64,
    events: u64,
    end: Time,
    faults: u32,
    aborted: Option<String>,
}

/// What is left of it.
pub(super) struct Ended {
    pub(super) stream: StreamSummary,
    pub(super) folder: Option<PathBuf>,
    pub(super) problems: Vec<String>,
    pub(super) tokens: u64,
    pub(super) events: u64,
    pub(super) end: Time,
    pub(super) faults: u32,
    pub(super) aborted: Option<String>,
}

/// A request without its method.
#[derive(Clone, Copy)]
struct JobHead {
    prompt: u32,
    repetition: u16,
    data_set: u16,
}

impl<'a> Phases<'a> {
    #[expect(clippy::too_many_arguments, reason = "the parts of a simulation, all of them needed at once")]
    pub(super) fn new(
        settings: &'a Settings,
        source: &'a Source,
        timings: Vec<Timing>,
        empty: StreamSummary,
        writer: Option<RunWriter>,
        progress: &'a Progress,
        interrupted: &'a AtomicBool,
        threads: usize,
    ) -> Phases<'a> {
        let data_set = |name: &str| source.data_sets.iter().position(|known| known == name).unwrap_or(0) as u16;
        let jobs = settings.workload.iter().flat_map(|part| {
            let data_set = data_set(&part.data_set);
            part.tasks().map(move |task| JobHead { prompt: task.prompt_id, repetition: task.repetition, data_set })
        });
        let jobs: Vec<JobHead> = jobs.collect();
        let methods: Vec<String> = source.resolved.methods.iter().map(|method| method.name.clone()).collect();
        let generations = (methods.len() * jobs.len()) as u64 * u64::from(settings.run.passes());
        Phases {
            jobs,
            seen: Seen::default(),
            figures: Figures::new(methods, generations),
            assignment: settings.assignment(),
            stream: empty.clone(),
            settings,
            source,
            timings,
            empty,
            writer,
            progress,
            interrupted,
            threads,
            tokens: 0,
            events: 0,
            end: Time::ZERO,
            faults: 0,
            aborted: None,
        }
    }

    /// All methods of the scenario, one after another.
    pub(super) fn all(&mut self) -> Result<(), Error> {
        let (settings, source) = (self.settings, self.source);
        let devices = settings.run.devices as usize;
        match &settings.simulate.fidelity {
            Fidelity::Model => {
                let (Some(pair), Some(work)) = (&source.pair, &source.work) else {
                    unreachable!("a source for models has loaded them")
                };
                let kv_bytes = settings.verifier_kv_bytes(pair.verifier.weight_bytes() as f64) as usize;
                let scale = settings.pool.autoscale.map_or(0, |scale| scale.max);
                let replicas = usize::from(settings.run.verifiers.max(scale));
                let pool = ModelPool::new(pair.verifier.clone(), replicas, kv_bytes, 1);
                let shape = pair.verifier.shape();
                let limits = Limits::for_pair(shape.vocab, shape.context);
                // Pages are taken as they are needed; each device has one session at a time.
                let longest = work.jobs.iter().map(|job| job.tokens.len()).max().unwrap_or(0);
                let session =
                    (longest + settings.run.max_new_tokens as usize + AHEAD).min(pair.drafter.shape().context);
                let session_bytes = KvArena::bytes_of(&pair.drafter, session);
                self.run(pool, |settings, method, _, count| {
                    ModelDevices::new(
                        Arc::new(ModelPhase {
                            drafter: pair.drafter.clone(),
                            work: work.clone(),
                            method: method.clone(),
                            sampling: settings.run.sampling,
                            seed: settings.run.seed,
                            limits,
                            kv_bytes: count * session_bytes,
                        }),
                        count,
                    )
                })
            }
            Fidelity::Trace { .. } => {
                let Some(trace) = &source.trace else { unreachable!("a source for a trace has read it") };
                let phases: Vec<Arc<TracePhase>> = source
                    .resolved
                    .methods
                    .iter()
                    .zip(&trace.generations)
                    .map(|(method, generations)| {
                        Arc::new(TracePhase {
                            generations: generations.clone(),
                            method: method.clone(),
                            sampling: settings.run.sampling,
                            vocab: source.sizes.vocab,
                            end_token: source.sizes.end_tokens.first().copied(),
                        })
                    })
                    .collect();
                self.run(DrawnPool::new(devices), |_, _, index, count| {
                    TraceDevices::new(phases[usize::from(index)].clone(), count)
                })
            }
            Fidelity::Fitted => self.run(DrawnPool::new(devices), |settings, method, _, count| {
                let Some(fitted) = self_fitted(settings, source, method) else {
                    unreachable!("a source for fitted answers has distributions")
                };
                FittedDevices::new(fitted, count)
            }),
        }
    }

    fn run<P, D>(&mut self, answers: P, devices: impl Fn(&Settings, &Method, u16, usize) -> D) -> Result<(), Error>
    where
        P: PoolAnswers,
        D: DeviceAnswers<Upload = P::Upload, Verdict = P::Verdict>,
    {
        let (settings, source) = (self.settings, self.source);
        let sizes = &source.sizes;
        let setup = PoolSetup {
            settings: PoolSettings {
                cost: Some(source.cost.clone()),
                ..settings.pool.machine(
                    &settings.run,
                    sizes.kv_tokens,
                    sizes.verifier_context,
                    sizes.end_tokens.clone(),
                )
            },
            timings: self.timings.clone(),
            seed: settings.run.seed,
            kills: kills(settings),
        };
        let rows = PoolRows::new(self.empty.clone(), settings.simulate.keep_every);
        let mut simulation = Simulation::new(setup, self.threads, answers, rows);
        let mut outcome = Ok(());
        let methods = &source.resolved.methods;
        'passes: for pass in 0..settings.run.passes() {
            let settings = settings.of_pass(pass);
            for phase in passes::of_pass(pass, methods.len()) {
                let method = &methods[usize::from(phase.method)];
                let fitted = match settings.simulate.fidelity {
                    Fidelity::Fitted => self_fitted(&settings, source, method),
                    _ => None,
                };
                let fleet = self.phase_of(simulation.now(), &settings, phase, method);
                let fleet = Fleet::new(fleet).map_err(|error| Error::Simulation(error.to_string()))?;
                let sides = (0..SHARDS)
                    .map(|shard| {
                        let count = settings.run.devices.saturating_sub(shard).div_ceil(SHARDS) as usize;
                        let keep_every = settings.simulate.keep_every;
                        let sink = ShardSink::new(self.empty.clone(), count, keep_every, fitted.clone());
                        (devices(&settings, method, phase.method, count), sink)
                    })
                    .collect();
                outcome = self.one(&mut simulation, phase, method, &fleet, sides, fitted.as_deref());
                if outcome.is_err() || self.aborted.is_some() {
                    break 'passes;
                }
            }
        }
        self.faults = simulation.killed();
        self.end = simulation.now();
        let mut rows = simulation.into_sink();
        if let Some(writer) = &mut self.writer {
            rows.store(writer)?;
        }
        // Both were made from the same lists.
        let _ = self.stream.merge(&rows.summary);
        outcome
    }

    fn one<P, D>(
        &mut self,
        simulation: &mut Simulation<P, PoolRows>,
        phase: PhaseId,
        method: &Method,
        fleet: &Fleet,
        sides: Vec<(D, ShardSink)>,
        fitted: Option<&Fitted>,
    ) -> Result<(), Error>
    where
        P: PoolAnswers,
        D: DeviceAnswers<Upload = P::Upload, Verdict = P::Verdict>,
    {
        let start = simulation.now();
        let label = passes::label(&method.name, phase.pass, self.settings.run.passes());
        let bar = self.progress.phase(&label, self.jobs.len());
        let mut watch = Watch::new(&self.settings.thresholds, &method.name, start);
        let audits = self.settings.audit && matches!(self.settings.simulate.fidelity, Fidelity::Model);
        let mut cases: Vec<Case> = Vec::new();
        let mut failure: Option<LedgerError> = None;
        let (mut aborted, mut broken_off) = (None, false);
        let (writer, figures, seen) = (&mut self.writer, &mut self.figures, self.seen);
        let (source, empty) = (self.source, &self.empty);
        let interrupted = self.interrupted;
        let mut flushed = Instant::now();
        let outcome = simulation.phase(phase, fleet, sides, |progress, mut sinks| {
            if interrupted.load(Ordering::Relaxed) {
                broken_off = true;
                return ControlFlow::Break(());
            }
            if !progress.windows.is_multiple_of(WINDOWS_PER_LOOK) {
                return ControlFlow::Continue(());
            }
            bar.set(progress.ended, progress.now.since(start));
            sinks.each(|sink| {
                for kept in sink.take() {
                    if failure.is_none() {
                        failure = keep(writer, kept, fitted, audits.then_some(&mut cases), source).err();
                    }
                }
            });
            if let Some(writer) = writer {
                failure = failure.take().or(sinks.pool.store(writer).err());
                // Where the rows are divided on the disk changes neither them nor their order.
                if flushed.elapsed() >= FLUSH_EVERY {
                    failure = failure.take().or(writer.flush().err());
                    let mut seen = seen;
                    sinks.each(|sink| seen.add(&sink.seen));
                    let live = figures.look(progress.now, phase.method, &seen, &sinks.pool.done, None);
                    failure = failure.take().or(writer.put_live(&live).err());
                    flushed = Instant::now();
                }
            }
            if watch.is_due(progress.now) {
                // What the run has so far, as one summary.
                let mut so_far = empty.clone();
                sinks.each(|sink| {
                    let _ = so_far.merge(&sink.summary);
                });
                let _ = so_far.merge(&sinks.pool.summary);
                aborted = watch.failed(progress.now, &so_far.finish());
            }
            if failure.is_some() || aborted.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let (totals, sinks) = outcome.map_err(|error| Error::Simulation(error.to_string()))?;
        for mut sink in sinks {
            for kept in sink.take() {
                if failure.is_none() {
                    failure = keep(&mut self.writer, kept, fitted, audits.then_some(&mut cases), source).err();
                }
            }
            let _ = self.stream.merge(&sink.summary);
            self.seen.add(&sink.seen);
        }
        bar.set(totals.progress.ended, totals.progress.now.since(start));
        bar.finish();
        self.tokens += totals.progress.tokens;
        self.events += totals.progress.events;
        self.aborted = self.aborted.take().or(aborted);
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        if broken_off {
            return Err(Error::Interrupted(PathBuf::new()));
        }
        self.audit(phase, &cases)
    }

    /// After a method's phase: what the verifier would have said of the tokens that it has not seen.
    fn audit(&mut self, phase: PhaseId, cases: &[Case]) -> Result<(), Error> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let audits: Vec<AuditRecord> = match (&self.source.pair, &self.source.trace) {
            (_, Some(trace)) => trace.audits.iter().filter(|audit| audit.id.phase() == phase).cloned().collect(),
            (Some(pair), None) if !cases.is_empty() => {
                audit::audit(&pair.verifier, &self.settings.run.sampling, cases)?
            }
            _ => Vec::new(),
        };
        for audit in audits {
            writer.append_audit(audit)?;
        }
        Ok(())
    }

    /// Ends the run in the ledger.
    pub(super) fn close(self, outcome: Result<(), Error>, wall_seconds: f64) -> Result<Ended, Error> {
        let mut folder = None;
        let mut problems = Vec::new();
        if (self.faults as usize) < self.settings.faults.len() {
            let (faults, planned) = (self.faults, self.settings.faults.len());
            problems.push(format!("{faults} of {planned} faults were injected: the run was over before the others"));
        }
        let non_finite = self.source.pair.as_ref().and_then(Pair::non_finite);
        let ended_by = self.aborted.as_deref().map(run::early).or(non_finite);
        problems.extend(ended_by.clone());
        if let Some(mut writer) = self.writer {
            folder = Some(writer.run_dir().to_path_buf());
            let faults = self.faults;
            writer.update_meta(|meta| {
                meta.faults_injected = faults;
                meta.wall_seconds = Some(wall_seconds);
            })?;
            if self.settings.simulate.keep_every > 1 {
                let summary = self.stream.clone().finish();
                writer.put_summary(&to_json(&summary)?)?;
            }
            writer.finish(super::state(&outcome, ended_by))?;
        }
        match outcome {
            Err(Error::Interrupted(_)) => Err(Error::Interrupted(folder.unwrap_or_default())),
            Err(error) => Err(error),
            Ok(()) => Ok(Ended {
                stream: self.stream,
                folder,
                problems,
                tokens: self.tokens,
                events: self.events,
                end: self.end,
                faults: self.faults,
                aborted: self.aborted,
            }),
        }
    }

    fn phase_of(&self, start: Time, settings: &Settings, phase: PhaseId, method: &Method) -> Phase {
        let PhaseId { method: index, pass } = phase;
        let jobs = self.jobs.iter().map(|head| Job {
            generation: GenerationId { method: index, prompt: head.prompt, repetition: head.repetition, pass },
            data_set: head.data_set,
        });
        Phase {
            devices: settings.run.devices,
            start,
            seed: settings.run.seed,
            parts: device_settings(settings, &self.source.sizes, method),
            pattern: settings.device.pattern.clone(),
            jobs: jobs.collect(),
            assignment: Arc::new(Tasks(self.assignment.clone())),
            load: settings.load.clone(),
            churn: settings.churn,
            host: self.timings[usize::from(index)].host.clone(),
        }
    }
}

/// The distributions with what they are drawn for.
fn self_fitted(settings: &Settings, source: &Source, method: &Method) -> Option<Arc<Fitted>> {
    let distributions = source.calibration.as_ref()?.distributions.clone()?;
    let sizes = &source.sizes;
    Some(Arc::new(Fitted {
        distributions,
        method: method.clone(),
        sampling: settings.run.sampling,
        seed: settings.run.seed,
        vocab: sizes.vocab,
        end_token: sizes.end_tokens.first().copied(),
        longest_prompt: sizes.context.saturating_sub(3).max(1),
        prompts: source.lengths.as_ref().map(|lengths| lengths.prompts.clone()).unwrap_or_default(),
        answers: source.lengths.as_ref().map(|lengths| lengths.answers.clone()).unwrap_or_default(),
    }))
}

fn kills(settings: &Settings) -> Vec<Kill> {
    let verifiers = settings.run.verifiers.max(1);
    let mut faults = settings.faults.clone();
    faults.sort_by_key(|Fault::KillVerifier { at }| *at);
    let kill = |(number, Fault::KillVerifier { at }): (usize, Fault)| Kill {
        at: Time(at.0),
        verifier: VerifierId((number % usize::from(verifiers)) as u16),
    };
    faults.into_iter().enumerate().map(kill).collect()
}

/// Hands a generation to the ledger, and to the audit.
fn keep(
    writer: &mut Option<RunWriter>,
    kept: Kept,
    fitted: Option<&Fitted>,
    cases: Option<&mut Vec<Case>>,
    source: &Source,
) -> Result<(), LedgerError> {
    let Some(writer) = writer else { return Ok(()) };
    if let Some(audit) = fitted.and_then(|fitted| fitted_audit(fitted, &kept)) {
        writer.append_audit(audit)?;
    }
    if let (Some(cases), Some(work)) = (cases, &source.work) {
        cases.extend(case(work, &kept));
    }
    writer.close_generation(kept.record, &kept.rounds)
}

fn case(work: &crate::work::Work, kept: &Kept) -> Option<Case> {
    let id = kept.record.id;
    let prompt = work.tokens(id.prompt, id.repetition)?;
    let skipped = kept.rounds.iter().filter(|round| round.source == Origin::Skipped);
    Some(Case {
        id,
        tokens: [prompt, &kept.record.tokens[..]].concat(),
        prompt_tokens: prompt.len(),
        skipped: skipped.map(|round| (round.position, round.draft_probability)).collect(),
    })
}

fn to_json(summary: &Summary) -> Result<String, Error> {
    serde_json::to_string_pretty(summary)
        .map_err(|error| Error::Output { path: "summary.json".into(), source: error.into() })
}
