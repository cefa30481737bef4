//! One method after another in virtual time, and its records into the ledger.

use std::path::PathBuf;
use std::sync::Arc;

use specfleet_analysis::{StreamSummary, Summary};
use specfleet_config::{Assignment, Fault, Settings};
use specfleet_engine::id::{GenerationId, PhaseId, VerifierId};
use specfleet_engine::method::{MAX_BLOCK, Method};
use specfleet_engine::pool::PoolSettings;
use specfleet_engine::record::AuditRecord;
use specfleet_engine::time::Time;
use specfleet_engine::wire::FrameLimits;
use specfleet_ledger::RunWriter;
use specfleet_model::KvArena;
use specfleet_simulator::answers::{DeviceAnswers, PoolAnswers};
use specfleet_simulator::drawn::DrawnPool;
use specfleet_simulator::fitted::{Fitted, FittedDevices};
use specfleet_simulator::{
    Fleet, PlannedKill, PoolSetup, SHARDS, SimulatedPhase, SimulatedRequest, Simulation, Timing,
};

use super::SimulateOptions;
use super::input::{FittedAnswers, SimulatedAnswers, SimulationInput};
use super::model::{ModelDevices, ModelPhase, ModelPool};
use super::observer::{ObservedPhase, PhaseObserver, PhaseStore};
use super::sinks::{PoolRows, ShardSink};
use super::trace::{RecordedGenerations, TraceDevices, TracePhase};
use crate::audit::{self, Case};
use crate::error::Error;
use crate::live::{Figures, Seen};
use crate::pair::Pair;
use crate::parts::device_settings;
use crate::passes;
use crate::run;
use crate::sizes::Sizes;
use crate::tasks::Tasks;
use crate::work::WorkPlan;

/// Tokens that a drafter may hold beyond what is committed: two blocks of drafts of the largest size, and a look ahead.
const AHEAD: usize = 2 * MAX_BLOCK + 2;

/// A run in the making.
pub(super) struct Phases<'a> {
    input: &'a SimulationInput,
    options: &'a SimulateOptions<'a>,
    /// What batches take and the host adds, by method.
    timings: Vec<Timing>,
    /// A summary of this run without anything in it.
    empty: StreamSummary,
    stream: StreamSummary,
    writer: Option<RunWriter>,
    jobs: Vec<JobHead>,
    assignment: Assignment,
    /// What the devices of the phases that are over have done.
    seen: Seen,
    figures: Figures,
    tokens: u64,
    events: u64,
    end: Time,
    faults: u32,
    aborted: Option<String>,
}

/// What is left of it.
pub(super) struct PhaseEnd {
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
    pub(super) fn new(
        input: &'a SimulationInput,
        options: &'a SimulateOptions<'a>,
        empty: StreamSummary,
        writer: Option<RunWriter>,
    ) -> Phases<'a> {
        let settings = options.settings;
        let data_set = |name: &str| input.data_sets.iter().position(|known| known == name).unwrap_or(0) as u16;
        let jobs = settings.workload.iter().flat_map(|part| {
            let data_set = data_set(&part.data_set);
            part.tasks().map(move |task| JobHead { prompt: task.prompt_id, repetition: task.repetition, data_set })
        });
        let jobs: Vec<JobHead> = jobs.collect();
        let methods: Vec<String> = input.resolved.methods.iter().map(|method| method.name.clone()).collect();
        let generations = (methods.len() * jobs.len()) as u64 * u64::from(settings.run.passes());
        let timings = input.timings.iter().cloned();
        Phases {
            jobs,
            seen: Seen::default(),
            figures: Figures::new(methods, generations),
            assignment: settings.assignment(),
            stream: empty.clone(),
            input,
            options,
            timings: timings.map(|timing| Timing { host: timing.host.turn(options.turn), ..timing }).collect(),
            empty,
            writer,
            tokens: 0,
            events: 0,
            end: Time::ZERO,
            faults: 0,
            aborted: None,
        }
    }

    /// All methods of the scenario, one after another.
    pub(super) fn run_all(&mut self) -> Result<(), Error> {
        let input = self.input;
        let devices = self.options.settings.run.devices as usize;
        match &input.answers {
            SimulatedAnswers::Model { pair, work } => self.run_models(pair, work),
            SimulatedAnswers::Trace { generations, .. } => {
                let phases = trace_phases(self.options.settings, input, generations);
                self.run_passes(DrawnPool::new(devices), |_, _, index, count| {
                    TraceDevices::new(phases[usize::from(index)].clone(), count)
                })
            }
            SimulatedAnswers::Fitted(answers) => {
                self.run_passes(DrawnPool::new(devices), |settings, method, _, count| {
                    FittedDevices::new(fit_method(settings, &input.sizes, answers, method), count)
                })
            }
        }
    }

    /// The loaded models answer.
    fn run_models(&mut self, pair: &Pair, work: &Arc<WorkPlan>) -> Result<(), Error> {
        let settings = self.options.settings;
        let kv_bytes = settings.verifier_kv_bytes(pair.verifier.weight_bytes() as f64) as usize;
        let scale = settings.pool.autoscale.map_or(0, |scale| scale.max);
        let replicas = usize::from(settings.run.verifiers.max(scale));
        let pool = ModelPool::new(pair.verifier.clone(), replicas, kv_bytes, 1);
        let shape = pair.verifier.shape();
        let limits = FrameLimits::for_pair(shape.vocab, shape.context);
        // Pages are taken as they are needed; each device has one session at a time.
        let longest = work.jobs.iter().map(|job| job.tokens.len()).max().unwrap_or(0);
        let session = (longest + settings.run.max_new_tokens as usize + AHEAD).min(pair.drafter.shape().context);
        let session_bytes = KvArena::bytes_of(&pair.drafter, session);
        self.run_passes(pool, |settings, method, _, count| {
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

    /// Every pass of every method. `devices` makes the answers of a shard: by the settings of the pass, the method, its
    /// index and the shard's number of devices.
    fn run_passes<P, D>(
        &mut self,
        answers: P,
        devices: impl Fn(&Settings, &Method, u16, usize) -> D,
    ) -> Result<(), Error>
    where
        P: PoolAnswers,
        D: DeviceAnswers<Upload = P::Upload, Verdict = P::Verdict>,
    {
        let (settings, input) = (self.options.settings, self.input);
        let rows = PoolRows::new(self.empty.clone(), settings.simulate.keep_every);
        let mut simulation = Simulation::new(self.pool_setup(), self.options.threads, answers, rows);
        let mut outcome = Ok(());
        let methods = &input.resolved.methods;
        'passes: for pass in 0..settings.run.passes() {
            let settings = settings.of_pass(pass);
            for phase in passes::of_pass(pass, methods.len()) {
                let method = &methods[usize::from(phase.method)];
                let fitted = match &input.answers {
                    SimulatedAnswers::Fitted(answers) => Some(fit_method(&settings, &input.sizes, answers, method)),
                    SimulatedAnswers::Model { .. } | SimulatedAnswers::Trace { .. } => None,
                };
                let fleet = self.plan_phase(simulation.now(), &settings, phase, method);
                let fleet = Fleet::new(fleet).map_err(|error| Error::Simulation(error.to_string()))?;
                let sides = (0..SHARDS)
                    .map(|shard| {
                        let count = settings.run.devices.saturating_sub(shard).div_ceil(SHARDS) as usize;
                        let keep_every = settings.simulate.keep_every;
                        let sink = ShardSink::new(self.empty.clone(), count, keep_every, fitted.clone());
                        (devices(&settings, method, phase.method, count), sink)
                    })
                    .collect();
                outcome = self.run_phase(&mut simulation, phase, &fleet, sides, fitted.as_deref());
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

    fn pool_setup(&self) -> PoolSetup {
        let (settings, sizes) = (self.options.settings, &self.input.sizes);
        PoolSetup {
            settings: PoolSettings {
                cost: Some(self.input.cost.clone()),
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
        }
    }

    /// One method's phase: it is observed while it runs; what is left of it is stored when it is over, and then audited.
    fn run_phase<P, D>(
        &mut self,
        simulation: &mut Simulation<P, PoolRows>,
        phase: PhaseId,
        fleet: &Fleet,
        sides: Vec<(D, ShardSink)>,
        fitted: Option<&Fitted>,
    ) -> Result<(), Error>
    where
        P: PoolAnswers,
        D: DeviceAnswers<Upload = P::Upload, Verdict = P::Verdict>,
    {
        let started = simulation.now();
        let method = &self.input.resolved.methods[usize::from(phase.method)].name;
        let store =
            PhaseStore::new(self.input, self.options, self.writer.as_mut(), &mut self.figures, self.seen, fitted);
        let mut observer =
            PhaseObserver::new(self.options, (phase, method), started, self.jobs.len(), &self.empty, store);
        let outcome = simulation.phase(phase, fleet, sides, |progress, sinks| observer.observe(progress, sinks));
        let (totals, mut sinks) = outcome.map_err(|error| Error::Simulation(error.to_string()))?;
        let ObservedPhase { cases, aborted, outcome } = observer.finish(&totals.progress, &mut sinks);
        for sink in sinks {
            let _ = self.stream.merge(&sink.summary);
            self.seen.add(&sink.seen);
        }
        self.tokens += totals.progress.tokens;
        self.events += totals.progress.events;
        self.aborted = self.aborted.take().or(aborted);
        outcome?;
        self.audit(phase, &cases)
    }

    /// After a method's phase: what the verifier would have said of the tokens that it has not seen.
    fn audit(&mut self, phase: PhaseId, cases: &[Case]) -> Result<(), Error> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let audits: Vec<AuditRecord> = match &self.input.answers {
            SimulatedAnswers::Trace { audits, .. } => {
                audits.iter().filter(|audit| audit.id.phase() == phase).cloned().collect()
            }
            SimulatedAnswers::Model { pair, .. } if !cases.is_empty() => {
                audit::audit(&pair.verifier, &self.options.settings.run.sampling, cases)?
            }
            // Fitted generations are audited when they are stored.
            SimulatedAnswers::Model { .. } | SimulatedAnswers::Fitted(_) => Vec::new(),
        };
        for audit in audits {
            writer.append_audit(audit)?;
        }
        Ok(())
    }

    /// Ends the run in the ledger.
    pub(super) fn close(self, outcome: Result<(), Error>, wall_seconds: f64) -> Result<PhaseEnd, Error> {
        let mut folder = None;
        let settings = self.options.settings;
        let mut problems: Vec<String> = run::faults_missed(settings, self.faults).into_iter().collect();
        let non_finite = self.input.pair().and_then(Pair::non_finite);
        let ended_by = self.aborted.as_deref().map(run::early).or(non_finite);
        problems.extend(ended_by.clone());
        if let Some(mut writer) = self.writer {
            folder = Some(writer.run_dir().to_path_buf());
            let faults = self.faults;
            writer.update_meta(|meta| {
                meta.faults_injected = faults;
                meta.wall_seconds = Some(wall_seconds);
            })?;
            if settings.simulate.keep_every > 1 {
                let summary = self.stream.clone().finish();
                writer.put_summary(&to_json(&summary)?)?;
            }
            writer.finish(super::state(&outcome, ended_by))?;
        }
        match outcome {
            Err(Error::Interrupted(_)) => Err(Error::Interrupted(folder.unwrap_or_default())),
            Err(error) => Err(error),
            Ok(()) => Ok(PhaseEnd {
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

    fn plan_phase(&self, start: Time, settings: &Settings, phase: PhaseId, method: &Method) -> SimulatedPhase {
        let PhaseId { method: index, pass } = phase;
        let jobs = self.jobs.iter().map(|head| SimulatedRequest {
            generation: GenerationId { method: index, prompt: head.prompt, repetition: head.repetition, pass },
            data_set: head.data_set,
        });
        SimulatedPhase {
            devices: settings.run.devices,
            start,
            seed: settings.run.seed,
            parts: device_settings(settings, &self.input.sizes, method),
            pattern: settings.device.pattern.clone(),
            jobs: jobs.collect(),
            assignment: Arc::new(Tasks(self.assignment.clone())),
            load: settings.load.clone(),
            churn: settings.churn,
            host: self.timings[usize::from(index)].host.clone(),
        }
    }
}

/// The recorded generations of each method, with what else its devices need.
fn trace_phases(
    settings: &Settings,
    input: &SimulationInput,
    generations: &[RecordedGenerations],
) -> Vec<Arc<TracePhase>> {
    let of_method = |(method, generations): (&Method, &RecordedGenerations)| {
        Arc::new(TracePhase {
            generations: generations.clone(),
            method: method.clone(),
            sampling: settings.run.sampling,
            vocab: input.sizes.vocab,
            end_token: input.sizes.end_tokens.first().copied(),
        })
    };
    input.resolved.methods.iter().zip(generations).map(of_method).collect()
}

/// The distributions with what a method's answers are drawn for.
fn fit_method(settings: &Settings, sizes: &Sizes, answers: &FittedAnswers, method: &Method) -> Arc<Fitted> {
    Arc::new(Fitted {
        distributions: answers.distributions.clone(),
        method: method.clone(),
        sampling: settings.run.sampling,
        seed: settings.run.seed,
        vocab: sizes.vocab,
        end_token: sizes.end_tokens.first().copied(),
        longest_prompt: sizes.context.saturating_sub(3).max(1),
        prompts: answers.lengths.prompts.clone(),
        answers: answers.lengths.answers.clone(),
    })
}

fn kills(settings: &Settings) -> Vec<PlannedKill> {
    let verifiers = settings.run.verifiers.max(1);
    let mut faults = settings.faults.clone();
    faults.sort_by_key(|Fault::KillVerifier { at }| *at);
    let kill = |(number, Fault::KillVerifier { at }): (usize, Fault)| PlannedKill {
        at: Time(at.0),
        verifier: VerifierId((number % usize::from(verifiers)) as u16),
    };
    faults.into_iter().enumerate().map(kill).collect()
}

fn to_json(summary: &Summary) -> Result<String, Error> {
    serde_json::to_string_pretty(summary)
        .map_err(|error| Error::Output { path: "summary.json".into(), source: error.into() })
}
