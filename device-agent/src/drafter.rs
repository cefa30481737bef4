//! The drafter thread: draft steps of many devices, packed into common passes.
//!
//! Each turn takes all steps that wait (up to a bound), runs them in one forward pass and answers each with its draft.
//! Which steps happen to share a pass changes no bit of any of them, because the model is batch-invariant.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use specfleet_model::{Model, ModelError, SeqId};
use tokio::sync::{mpsc, oneshot};

use crate::drafting::{Draft, Drafting};
use crate::error::{AgentError, DraftError};

/// Steps that may wait; a device that finds no room waits for it.
const WAITING: usize = 1024;
/// Most sequences of one pass.
const PASS_SEQUENCES: usize = 64;
/// Tokens from which on a pass takes no further step: a pass of prompts should not hold up short steps for long.
const PASS_TOKENS: usize = 1024;

/// The drafter of a process; cloning shares it. Its thread ends when the last handle is dropped, or told to.
#[derive(Clone)]
pub struct Drafter {
    commands: mpsc::Sender<DrafterCommand>,
    next_sequence: Arc<AtomicU64>,
    vocab: u32,
}

/// One sequence of the drafter's KV arena: opened by its first step, and freed when all clones are dropped.
///
/// The thread finds out by itself, at its next turn: no message can be lost, and a device that vanishes leaks nothing.
#[derive(Clone, Debug)]
pub(crate) struct Sequence(Arc<u64>);

/// A draft step as the thread gets it.
type DraftJob = crate::drafting::DraftJob<Sequence>;

enum DrafterCommand {
    Step(DraftJob, Reply),
    Stop(oneshot::Sender<()>),
    #[cfg(test)]
    Panic,
}

type Reply = oneshot::Sender<Result<Draft, DraftError>>;

impl Drafter {
    /// Starts the thread. Its KV arena holds at most `kv_bytes`; a pass runs on up to `threads` threads.
    pub fn start(model: Model, kv_bytes: usize, threads: usize) -> Result<Drafter, AgentError> {
        let (commands, queue) = mpsc::channel(WAITING);
        // The vocabulary of any model fits: token ids are `u32`.
        let vocab = u32::try_from(model.shape().vocab).unwrap_or(u32::MAX);
        let drafting = Drafting::new(model, kv_bytes, threads);
        let worker = DrafterWorker { drafting, sequences: BTreeMap::new() };
        thread::Builder::new()
            .name("drafter".to_owned())
            .spawn(move || worker.run(queue))
            .map_err(|e| AgentError::Thread { thread: "drafter", reason: e.to_string() })?;
        Ok(Drafter { commands, next_sequence: Arc::default(), vocab })
    }

    /// Ends the thread after the pass under way; steps that wait fail with [`DraftError::Stopped`].
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(DrafterCommand::Stop(done)).await.is_ok() {
            // An error says that the thread has ended otherwise.
            let _ = stopped.await;
        }
    }

    /// Size of the drafter's vocabulary.
    pub fn vocab(&self) -> u32 {
        self.vocab
    }

    /// A new, empty sequence.
    pub(crate) fn sequence(&self) -> Sequence {
        let number = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        Sequence(Arc::new(number))
    }

    /// Computes one step; waits for its turn.
    pub(crate) async fn step(&self, job: DraftJob) -> Result<Draft, DraftError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(DrafterCommand::Step(job, reply)).await.map_err(|_| DraftError::Stopped)?;
        // The thread drops replies only when it ends, by a panic too.
        answer.await.unwrap_or(Err(DraftError::Stopped))
    }
}

/// What the thread owns.
struct DrafterWorker {
    drafting: Drafting,
    sequences: BTreeMap<u64, CachedSequence>,
}

struct CachedSequence {
    seq: SeqId,
    owner: Weak<u64>,
}

/// A step whose cache is in place.
struct Prepared {
    seq: SeqId,
    job: DraftJob,
    reply: Reply,
}

impl DrafterWorker {
    fn run(mut self, mut queue: mpsc::Receiver<DrafterCommand>) {
        while let Some(first) = queue.blocking_recv() {
            let mut steps = Vec::new();
            let mut tokens = 0;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    DrafterCommand::Step(job, reply) => {
                        tokens += job.tokens.len();
                        steps.push((job, reply));
                    }
                    DrafterCommand::Stop(done) => {
                        let _ = done.send(());
                        return;
                    }
                    #[cfg(test)]
                    DrafterCommand::Panic => panic!("asked to"),
                }
                let room = steps.len() < PASS_SEQUENCES && tokens < PASS_TOKENS;
                next = if room { queue.try_recv().ok() } else { None };
            }
            self.pass(steps);
        }
    }

    fn pass(&mut self, steps: Vec<(DraftJob, Reply)>) {
        self.free_the_ownerless();
        let prepared: Vec<Prepared> = steps.into_iter().filter_map(|(job, reply)| self.prepare(job, reply)).collect();
        if prepared.is_empty() {
            return;
        }
        match self.forward(&prepared) {
            Ok(drafts) => {
                for (step, draft) in prepared.into_iter().zip(drafts) {
                    // A device that has gone does not mind.
                    let _ = step.reply.send(Ok(draft));
                }
            }
            // A failed pass has changed nothing, but does not say whose fault it was: each step for itself.
            Err(_) if prepared.len() > 1 => {
                for step in prepared {
                    self.alone(step);
                }
            }
            Err(error) => {
                for step in prepared {
                    let _ = step.reply.send(Err(DraftError::Model(Arc::clone(&error))));
                }
            }
        }
    }

    fn alone(&mut self, step: Prepared) {
        let result = self.forward(std::slice::from_ref(&step)).map_err(DraftError::Model);
        let result = result.and_then(|mut drafts| drafts.pop().ok_or(DraftError::Stopped));
        let _ = step.reply.send(result);
    }

    fn forward(&mut self, steps: &[Prepared]) -> Result<Vec<Draft>, Arc<ModelError>> {
        let steps: Vec<_> = steps.iter().map(|step| (step.seq, &step.job)).collect();
        self.drafting.compute(&steps).map_err(Arc::new)
    }

    fn free_the_ownerless(&mut self) {
        let drafting = &mut self.drafting;
        self.sequences.retain(|_, cached| {
            let owned = cached.owner.strong_count() > 0;
            if !owned {
                drafting.close(cached.seq);
            }
            owned
        });
    }

    /// Rolls the step's sequence back to where it starts.
    fn prepare(&mut self, job: DraftJob, reply: Reply) -> Option<Prepared> {
        let DrafterWorker { drafting, sequences } = self;
        let owner = &job.sequence.0;
        let cached = sequences
            .entry(**owner)
            .or_insert_with(|| CachedSequence { seq: drafting.open(), owner: Arc::downgrade(owner) });
        let seq = cached.seq;
        match drafting.roll_back(seq, job.keep) {
            Ok(()) => Some(Prepared { seq, job, reply }),
            Err(error) => {
                let _ = reply.send(Err(error));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use specfleet_engine::device::DraftSpec;
    use specfleet_engine::device::draft::GateStatistic;
    use specfleet_engine::method::{PayloadForm, ProbabilityBits, Sampling};
    use specfleet_engine::random::DrawKey;
    use specfleet_model::{Embedded, Precision};

    fn drafter() -> Drafter {
        let model = Model::embedded(Embedded::Drafter, Precision::Q8_0).expect("part of the binary");
        Drafter::start(model, 8 << 20, 1).expect("threads can be started")
    }

    fn job(sequence: &Sequence, keep: usize, tokens: &[u32]) -> DraftJob {
        let spec = DraftSpec {
            sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 },
            payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
            statistic: GateStatistic::None,
            importance: None,
        };
        let key = DrawKey { seed: 1, prompt: 0, repetition: 0, position: (keep + tokens.len()) as u32, rejections: 0 };
        DraftJob { sequence: sequence.clone(), keep, tokens: tokens.to_vec(), spec, key }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn a_rolled_back_sequence_drafts_as_a_fresh_one() {
        let drafter = drafter();
        block_on(async {
            let (first, second) = (drafter.sequence(), drafter.sequence());
            drafter.step(job(&first, 0, &[0, 5, 9, 12])).await.expect("drafts");
            let rolled_back = drafter.step(job(&first, 2, &[7])).await.expect("drafts");
            let fresh = drafter.step(job(&second, 0, &[0, 5, 7])).await.expect("drafts");
            assert_eq!(rolled_back.drafted.distribution, fresh.drafted.distribution);
        });
    }

    #[test]
    fn bad_steps_fail_alone() {
        let drafter = drafter();
        block_on(async {
            let (good, bad) = (drafter.sequence(), drafter.sequence());
            let lost = drafter.step(job(&good, 3, &[7])).await;
            assert!(matches!(lost, Err(DraftError::LostCache { held: 0, wanted: 3 })));
            let refused = drafter.step(job(&bad, 0, &[1_000_000])).await;
            assert!(matches!(refused, Err(DraftError::Model(_))));
            drafter.step(job(&good, 0, &[0, 5])).await.expect("the others go on");
        });
    }

    #[test]
    fn a_panic_of_the_thread_is_an_error_and_not_a_hang() {
        let drafter = drafter();
        block_on(async {
            drafter.commands.send(DrafterCommand::Panic).await.expect("it runs");
            let sequence = drafter.sequence();
            for _ in 0..2 {
                assert!(matches!(drafter.step(job(&sequence, 0, &[0])).await, Err(DraftError::Stopped)));
            }
            drafter.stop().await;
        });
    }
}
