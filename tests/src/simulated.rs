//! The setups of the small world on the simulator: the same toy pair as its answers, with real payloads through the real
//! codec, and checks of what the simulator promises to those who answer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use specfleet_engine::cost::BatchCost;
use specfleet_engine::device::payload::downlink_bits;
use specfleet_engine::device::{DeviceSettings, Step, StepResult, UploadPlan};
use specfleet_engine::id::{DeviceId, GenerationId, PhaseId, UploadId};
use specfleet_engine::load::{Churn, Load, Turns};
use specfleet_engine::pool::{Batch, ItemOutcome, PoolSettings, SessionKey};
use specfleet_engine::random::DrawKey;
use specfleet_engine::record::{BatchRecord, GenerationRecord, RoundRecord, UploadCounts, VerifierRecord, VerifyCost};
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::{ClientFrame, FrameDecoder, ServerFrame, Upload, VerdictFrame, encode};
use specfleet_simulator::answers::{Arrived, DeviceAnswers, PoolAnswers};
use specfleet_simulator::{
    DeviceSink, Fleet, Host, PlannedKill, PoolSetup, PoolSink, SHARDS, SimulatedPhase, SimulatedRequest, Simulation,
    Timing, Totals,
};

use crate::answers::{self, DraftDistributions, LIMITS};
use crate::toy::Toy;
use crate::world::Setup;

/// What the simulator is told beyond the setup of a world, whose delays and faults it does not use.
#[derive(Clone, Debug)]
pub struct Extras {
    /// When requests arrive.
    pub load: Load,
    /// When devices come and go.
    pub churn: Churn,
    /// What batches take.
    pub cost: BatchCost,
    /// What the host adds.
    pub host: Host,
    /// Verifiers that die.
    pub kills: Vec<PlannedKill>,
    /// Threads.
    pub threads: usize,
    /// How often the prompts are run, one phase after another.
    pub phases: u16,
}

impl Default for Extras {
    fn default() -> Extras {
        Extras {
            load: Load::Closed { think: Span::ZERO },
            churn: Churn::NONE,
            cost: BatchCost::Fixed { span: Span(1_500) },
            host: Host::ideal(),
            kills: Vec::new(),
            threads: 1,
            phases: 1,
        }
    }
}

/// What came out of one phase.
#[derive(Debug)]
pub struct Simulated {
    /// By prompt number: the generation and its rounds.
    pub generations: BTreeMap<u32, (GenerationRecord, Vec<RoundRecord>)>,
    /// The records of each shard, in the order in which they came.
    pub streams: Vec<Vec<String>>,
    /// What the simulator says.
    pub totals: Totals,
}

/// What came out of a run.
#[derive(Debug)]
pub struct Outcome {
    /// By phase.
    pub phases: Vec<Simulated>,
    /// All batches.
    pub batches: Vec<BatchRecord>,
    /// The verifiers' accounts of all phases, and of the time between them.
    pub verifiers: Vec<VerifierRecord>,
    /// Where the uploads that arrived at the pool have ended.
    pub counts: UploadCounts,
    /// Verifiers that were killed.
    pub killed: u32,
    /// When it was over.
    pub end: Time,
}

/// Runs every prompt of `setup` and checks the conservation distributions on the way.
pub fn simulate(setup: &Setup, extras: &Extras) -> Outcome {
    let tokens = Arc::new(Mutex::new(0));
    let pool = PoolSetup {
        settings: setup.pool.clone(),
        timings: vec![Timing { cost: extras.cost.clone(), host: extras.host.clone() }],
        seed: setup.device.seed,
        kills: extras.kills.clone(),
    };
    let answers = ToyPool::new(setup.verifier, tokens.clone());
    let mut simulation = Simulation::new(pool, extras.threads, answers, PoolRows::default());
    let parts = vec![Arc::new(setup.device.clone())];
    let mut phases = Vec::new();
    for method in 0..extras.phases {
        let jobs = 0..setup.prompts.len() as u32;
        let generation = |prompt| GenerationId { method, prompt, repetition: 0, pass: 0 };
        let fleet = Fleet::new(SimulatedPhase {
            devices: setup.devices,
            start: simulation.now(),
            seed: setup.device.seed,
            parts: parts.clone(),
            pattern: vec![0],
            jobs: jobs.map(|prompt| SimulatedRequest { generation: generation(prompt), data_set: 0 }).collect(),
            assignment: Arc::new(Turns { jobs: setup.prompts.len() as u64, devices: setup.devices }),
            load: extras.load.clone(),
            churn: extras.churn,
            host: extras.host.clone(),
        });
        let sides = (0..SHARDS).map(|_| (ToyDevices::new(setup), Rows::default())).collect();
        let (totals, sinks) = simulation
            .phase(PhaseId { method, pass: 0 }, &fleet.expect("valid settings"), sides, |progress, _| {
                assert!(progress.windows < 20_000_000, "the simulation does not come to rest");
                ControlFlow::Continue(())
            })
            .expect("the link has a delay");
        phases.push(gather(totals, sinks, setup.prompts.len()));
        // All permits are back, all sessions gone, every arrival ended once.
        let machine = simulation.machine();
        assert_eq!(machine.outstanding(), (0, 0, 0));
        assert_eq!(machine.sessions(), 0, "closed generations leave no session");
        assert_eq!(*tokens.lock().unwrap_or_else(PoisonError::into_inner), 0, "forgotten sessions leave no tokens");
    }
    let counts = simulation.machine().counts();
    assert_eq!(counts.sent, counts.verdicts + counts.refused + counts.cancelled, "{counts:?}");
    let (killed, end) = (simulation.killed(), simulation.now());
    let PoolRows { batches, verifiers } = simulation.into_sink();
    let outcome = Outcome { phases, batches, verifiers, counts, killed, end };
    outcome.check(&setup.pool);
    outcome
}

fn gather(totals: Totals, sinks: Vec<Rows>, prompts: usize) -> Simulated {
    let mut generations = BTreeMap::new();
    let mut streams = Vec::new();
    for sink in sinks {
        assert!(sink.open.is_empty(), "what has started has ended");
        for (record, rounds) in sink.done {
            let earlier = generations.insert(record.id.prompt, (record, rounds));
            assert!(earlier.is_none(), "a prompt ends once");
        }
        streams.push(sink.stream);
    }
    assert_eq!(totals.progress.ended, generations.len() as u64);
    assert!(generations.len() <= prompts);
    let rounds: usize = generations.values().map(|(_, rounds)| rounds.len()).sum();
    assert_eq!(totals.progress.tokens, rounds as u64);
    Simulated { generations, streams, totals }
}

impl Outcome {
    /// The generations of all phases.
    pub fn generations(&self) -> impl Iterator<Item = &(GenerationRecord, Vec<RoundRecord>)> {
        self.phases.iter().flat_map(|phase| phase.generations.values())
    }

    /// What must hold between devices and pool, whatever went wrong on the way.
    fn check(&self, settings: &PoolSettings) {
        let sum = |of: fn(&GenerationRecord) -> u64| self.generations().map(|(record, _)| of(record)).sum::<u64>();
        assert_eq!(sum(|g| g.uploads.sent), self.counts.sent, "what devices send arrives");
        let (billed, cancelled) = (sum(|g| g.energy.cloud), sum(|g| g.uploads.cancelled));
        if cancelled == 0 {
            assert_eq!(sum(|g| g.uploads.verdicts), self.counts.verdicts);
            assert_eq!(sum(|g| g.uploads.refused), self.counts.refused);
        }
        let spent: u64 = self.batches.iter().map(|batch| batch.nanojoules).sum();
        let unclaimed: u64 = self.batches.iter().map(|batch| batch.unclaimed_nanojoules).sum();
        // A verdict that crosses its cancel is paid for by nobody.
        assert!(billed + unclaimed <= spent, "{billed} + {unclaimed} of {spent}");
        assert!(cancelled > 0 || billed + unclaimed == spent, "{billed} + {unclaimed} of {spent}");
        for batch in &self.batches {
            assert!(batch.unclaimed_nanojoules <= batch.nanojoules);
            assert!(batch.completed || batch.unclaimed_nanojoules == batch.nanojoules);
        }
        // Time zero to the end, in phases and between them, for every replica.
        let of = |record: &VerifierRecord| record.busy + record.idle + record.off;
        let accounted: Span = self.verifiers.iter().map(of).fold(Span::ZERO, |sum, span| sum + span);
        assert_eq!(accounted.0, self.end.0 * u64::from(settings.replicas()), "verifiers' times add up");
        let busy: u64 = self.verifiers.iter().map(|record| record.busy.0).sum();
        let computed: u64 = self.batches.iter().map(|batch| batch.compute.0).sum();
        assert_eq!(busy, computed, "busy with what was computed");
    }
}

// ---- records -------------------------------------------------------------------------------------------------------

/// What one shard records.
#[derive(Default)]
struct Rows {
    open: BTreeMap<DeviceId, (GenerationId, Vec<RoundRecord>)>,
    done: Vec<(GenerationRecord, Vec<RoundRecord>)>,
    stream: Vec<String>,
}

impl DeviceSink for Rows {
    fn started(&mut self, device: DeviceId, generation: GenerationId, _: u16, _: Time, _: Span) {
        assert!(self.open.insert(device, (generation, Vec::new())).is_none(), "one generation at a time");
    }

    fn round(&mut self, device: DeviceId, generation: GenerationId, record: &RoundRecord) {
        let (open, rounds) = self.open.get_mut(&device).expect("it has started");
        assert_eq!(*open, generation);
        rounds.push(*record);
        self.stream.push(format!("{device:?} {record:?}"));
    }

    fn finished(&mut self, record: GenerationRecord) {
        self.stream.push(format!("{record:?}"));
        let dropped = record.finish == specfleet_engine::record::FinishReason::Dropped;
        let rounds = if dropped {
            Vec::new()
        } else {
            let (generation, rounds) = self.open.remove(&record.device).expect("it has started");
            assert_eq!(generation, record.id);
            rounds
        };
        crate::world::check_generation(&record, &rounds);
        let times = || rounds.iter().map(|round| round.committed_at);
        assert!(times().is_sorted(), "time runs forwards: {rounds:?}");
        assert!(times().all(|at| record.started <= at && at <= record.ended));
        assert_eq!(record.first_token, times().next());
        self.done.push((record, rounds));
    }
}

/// What the pool records.
#[derive(Default)]
struct PoolRows {
    batches: Vec<BatchRecord>,
    verifiers: Vec<VerifierRecord>,
}

impl PoolSink for PoolRows {
    fn batch(&mut self, record: &BatchRecord) {
        self.batches.push(*record);
    }

    fn verifier(&mut self, record: &VerifierRecord) {
        self.verifiers.push(*record);
    }
}

// ---- devices -------------------------------------------------------------------------------------------------------

/// The drafter's half, for one shard.
pub struct ToyDevices {
    settings: DeviceSettings,
    drafter: Toy,
    prompts: Vec<Vec<u32>>,
    slots: BTreeMap<u32, Store>,
}

struct Store {
    tokens: Vec<u32>,
    prompt: usize,
    committed: usize,
    distributions: DraftDistributions,
    /// The upload last sent, and its key.
    sent: Option<(UploadId, DrawKey)>,
}

impl ToyDevices {
    /// The toys of a setup; job i is prompt i.
    pub fn new(setup: &Setup) -> ToyDevices {
        let (settings, prompts) = (setup.device.clone(), setup.prompts.clone());
        ToyDevices { settings, drafter: setup.drafter, prompts, slots: BTreeMap::new() }
    }

    fn store(&mut self, slot: u32) -> &mut Store {
        self.slots.get_mut(&slot).expect("a generation runs on this device")
    }
}

impl DeviceAnswers for ToyDevices {
    /// The frame.
    type Upload = Vec<u8>;
    /// The frame.
    type Verdict = Vec<u8>;

    fn start(&mut self, slot: u32, _: DeviceId, generation: GenerationId, job: u32) -> u32 {
        assert_eq!(generation.prompt, job, "jobs are numbered by the phase's list");
        let tokens = self.prompts[job as usize].clone();
        let prompt = tokens.len();
        let store = Store { tokens, prompt, committed: prompt, distributions: DraftDistributions::new(), sent: None };
        assert!(self.slots.insert(slot, store).is_none(), "one generation at a time");
        prompt as u32
    }

    fn step(&mut self, slot: u32, step: &Step) -> Option<StepResult> {
        let store = self.slots.get_mut(&slot).expect("a generation runs on this device");
        let (result, distribution) = answers::draft(&self.settings, &self.drafter, &store.tokens, step);
        store.distributions.insert(step.position, distribution);
        Some(result)
    }

    fn set(&mut self, slot: u32, position: u32, token: u32) {
        answers::set(&mut self.store(slot).tokens, position, token);
    }

    fn commit(&mut self, slot: u32, generated: u32) {
        let store = self.store(slot);
        assert_eq!(store.committed - store.prompt, generated as usize, "in order, once");
        store.committed += 1;
    }

    fn upload(&mut self, slot: u32, plan: &UploadPlan) -> (Vec<u8>, u32) {
        let store = self.slots.get_mut(&slot).expect("a generation runs on this device");
        let upload = answers::compose(&self.settings, &store.tokens, &store.distributions, plan, Span::ZERO, None);
        store.sent = Some((plan.upload, upload.key));
        let mut bytes = Vec::new();
        let length = encode(&ClientFrame::Upload(Box::new(upload)), LIMITS, &mut bytes).expect("within the limits");
        (bytes, length as u32)
    }

    fn verdict(&mut self, slot: u32, upload: UploadId, accepted: u8, verdict: Vec<u8>) -> Arrived {
        let mut decoder = FrameDecoder::<ServerFrame>::new(LIMITS);
        decoder.push(&verdict);
        let Ok(Some((ServerFrame::Verdict(frame), bytes))) = decoder.next_frame() else {
            panic!("the pool sends verdicts")
        };
        assert_eq!((frame.upload, frame.accepted), (upload, accepted), "the cargo belongs to the verdict");
        let bits = downlink_bits(
            &self.settings.method.payload,
            self.settings.vocab as usize,
            matches!(frame.next, specfleet_engine::acceptance::Next::Resample(_)),
        );
        let store = self.store(slot);
        let next = match store.sent {
            Some((last, key)) if last == upload => {
                answers::next_token(&frame.next, accepted, &store.distributions, key)
            }
            // Of an earlier upload: the machine drops it.
            _ => specfleet_engine::device::NextToken::None,
        };
        Arrived { next, bits, bytes: bytes as u32 }
    }

    fn finish(&mut self, slot: u32, record: &mut GenerationRecord) {
        let mut store = self.slots.remove(&slot).expect("a generation runs on this device");
        store.tokens.truncate(store.committed);
        record.tokens = store.tokens.split_off(store.prompt);
    }
}

// ---- pool ----------------------------------------------------------------------------------------------------------

/// The verifier's half.
pub struct ToyPool {
    verifier: Toy,
    sessions: BTreeMap<SessionKey, (Vec<u32>, Upload)>,
    /// Tokens in the KV caches.
    caches: BTreeMap<(u16, SessionKey), u32>,
    /// Sessions that hold tokens, for whoever watches.
    held: Arc<Mutex<usize>>,
}

impl ToyPool {
    /// A pool that keeps the number of its sessions in `held`.
    pub fn new(verifier: Toy, held: Arc<Mutex<usize>>) -> ToyPool {
        ToyPool { verifier, sessions: BTreeMap::new(), caches: BTreeMap::new(), held }
    }

    fn count(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = self.sessions.len();
    }
}

impl PoolAnswers for ToyPool {
    type Upload = Vec<u8>;
    type Verdict = Vec<u8>;

    fn admitted(&mut self, _: DeviceId, session: SessionKey, upload: Vec<u8>) {
        let mut decoder = FrameDecoder::<ClientFrame>::new(LIMITS);
        decoder.push(&upload);
        let Ok(Some((ClientFrame::Upload(upload), _))) = decoder.next_frame() else { panic!("devices send uploads") };
        let mut tokens = self.sessions.remove(&session).map(|(tokens, _)| tokens).unwrap_or_default();
        answers::admit(&mut tokens, &upload);
        self.sessions.insert(session, (tokens, *upload));
        self.count();
    }

    fn compute(
        &mut self,
        batch: &Batch,
        device: &dyn Fn(SessionKey) -> DeviceId,
        outcomes: &mut Vec<ItemOutcome>,
        verdicts: &mut Vec<Vec<u8>>,
    ) -> bool {
        for item in &batch.items {
            let (tokens, upload) = &self.sessions[&item.session];
            assert_eq!(upload.upload, item.upload, "the session's last upload is computed");
            assert!(item.keep < item.committed && item.committed as usize <= tokens.len());
            let cached = self.caches.entry((batch.verifier.0, item.session)).or_default();
            assert!(item.keep <= *cached, "a cache holds what the machine counts on: {item:?}, {cached}");
            *cached = item.keep + item.work();
            assert_eq!(u64::from(device(item.session).0), item.session.connection.0 & 0xffff_ffff);
            let (outcome, next) = answers::judge(&self.verifier, &tokens[..item.committed as usize], upload);
            let frame = VerdictFrame {
                session: item.session.session,
                upload: item.upload,
                accepted: outcome.accepted,
                next,
                more: false,
                cost: VerifyCost {
                    queue_wait: Span::ZERO,
                    batch_wait: Span::ZERO,
                    compute: Span::ZERO,
                    fed_tokens: item.work(),
                    nanojoules: 0,
                    paper_nanojoules: 0,
                },
                price: 0.0,
            };
            let mut bytes = Vec::new();
            encode(&ServerFrame::Verdict(Box::new(frame)), LIMITS, &mut bytes).expect("within the limits");
            outcomes.push(outcome);
            verdicts.push(bytes);
        }
        true
    }

    fn delivered(&mut self, _: DeviceId, session: SessionKey, outcome: &ItemOutcome, more: bool) {
        let (tokens, upload) = self.sessions.get_mut(&session).expect("verdicts go to open sessions");
        answers::deliver(tokens, upload, outcome, more);
    }

    fn forget(&mut self, _: DeviceId, session: SessionKey) {
        assert!(self.sessions.remove(&session).is_some(), "what is forgotten was known");
        self.count();
    }

    fn drop_cache(&mut self, verifier: u16, session: SessionKey) {
        self.caches.remove(&(verifier, session));
    }

    fn lose_caches(&mut self, verifier: u16) {
        self.caches.retain(|(of, _), _| *of != verifier);
    }
}
