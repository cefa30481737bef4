//! When a verifier starts a batch, and what goes into it.

use super::job::{Queued, RunningBatch, RunningItem};
use super::machine::PoolMachine;
use super::message::{Batch, BatchItem, Output, SessionKey};
use super::settings::QueueOrder;
use crate::cost::BatchWork;
use crate::id::VerifierId;
use crate::time::{Span, Time};

impl PoolMachine {
    /// Starts a batch on `id` if it is idle and either its batch is full or its oldest job has waited long enough; else
    /// notes when that will be.
    pub(super) fn try_start(&mut self, now: Time, id: VerifierId, out: &mut Vec<Output>) {
        let mut due = self.start_time(id);
        if due.is_some_and(|at| at <= now) {
            self.start(now, id, out);
            due = None;
        }
        let verifier = &mut self.verifiers[usize::from(id.0)];
        if verifier.due == due {
            return;
        }
        if let Some(at) = std::mem::replace(&mut verifier.due, due) {
            self.due.remove(&(at, id.0));
        }
        self.due.extend(due.map(|at| (at, id.0)));
    }

    /// When `id` can start a batch of what it has now.
    fn start_time(&self, id: VerifierId) -> Option<Time> {
        let verifier = &self.verifiers[usize::from(id.0)];
        if !verifier.takes_work() || verifier.running.is_some() {
            return None;
        }
        let (_, oldest) = verifier.ready.oldest()?;
        let full = verifier.ready.len() >= self.most_sequences() || verifier.ready.tokens() >= self.token_budget();
        if full || self.settings.max_wait == Span::ZERO {
            return Some(Time::ZERO);
        }
        self.sessions[oldest].queued.map(|queued| queued.job.arrived + self.settings.max_wait)
    }

    /// Most tokens of a batch: by the setting, and by the time that it may take. A single job may have more.
    pub(super) fn token_budget(&self) -> u64 {
        let budget = u64::from(self.settings.batch_tokens);
        match self.settings.batch_time {
            Span::ZERO => budget,
            time => budget.min(self.time_model.tokens_within(time)),
        }
    }

    fn most_sequences(&self) -> usize {
        self.settings.batch_sequences.max(1) as usize
    }

    fn start(&mut self, now: Time, id: VerifierId, out: &mut Vec<Output>) {
        let chosen = self.choose(now, id);
        let (items, evict) = self.reserve(id, &chosen, out);
        for &(slot, _) in &chosen {
            self.sessions[slot].chosen = false;
        }
        self.chosen = chosen;
        if items.is_empty() {
            return;
        }
        let item = |item: &RunningItem| BatchItem {
            session: self.sessions[item.session].key,
            upload: item.job.upload,
            keep: item.keep,
            committed: item.job.committed,
            kind: item.job.kind,
        };
        let batch = self.next_batch;
        self.next_batch += 1;
        let sequences: Vec<BatchItem> = items.iter().map(item).collect();
        let tokens = items.iter().map(|item| u64::from(item.work)).sum();
        self.running_jobs += items.len();
        let (estimate, price) = (self.time_model.estimate(tokens), self.price.value());
        let charge = self.charge(&items);
        let running = RunningBatch { batch, started: now, charge, items, tokens, estimate, price };
        out.push(Output::Start(Batch { verifier: id, batch, evict, items: sequences, release: running.release() }));
        let verifier = &mut self.verifiers[usize::from(id.0)];
        verifier.batches += 1;
        verifier.running = Some(running);
        self.busy_changed(now, 1);
        self.refresh(id);
    }

    /// What an emulated pool charges a batch of these jobs.
    fn charge(&self, items: &[RunningItem]) -> Option<Span> {
        let cost = self.settings.cost.as_ref()?;
        let work = BatchWork {
            tokens: items.iter().map(|item| item.work).sum(),
            sequences: items.len() as u32,
            cached: items.iter().map(|item| u64::from(item.keep)).sum(),
            beside: 0,
        };
        Some(cost.charge(&work))
    }

    /// Slots and work of the jobs of the next batch, in the order of the queue. Marks them.
    fn choose(&mut self, now: Time, id: VerifierId) -> Vec<(u32, u32)> {
        let mut chosen = std::mem::take(&mut self.chosen);
        chosen.clear();
        let (budget, most) = (self.token_budget(), self.most_sequences());
        let verifier = &self.verifiers[usize::from(id.0)];
        let horizon = match self.settings.order {
            QueueOrder::Deadline => {
                // What a batch of average jobs would be.
                let jobs = verifier.ready.len().max(1);
                let tokens = verifier.ready.tokens() * jobs.min(most) as u64 / jobs as u64;
                now + self.time_model.estimate(tokens.min(budget).max(1))
            }
            QueueOrder::Fifo | QueueOrder::Fair | QueueOrder::Value => Time::ZERO,
        };
        let sessions = &mut self.sessions;
        let mut tokens = 0;
        verifier.ready.scan(verifier.batches, horizon.0, |slot| {
            let queued = sessions[slot].queued?;
            let work = queued.tokens;
            tokens += u64::from(work);
            if chosen.len() >= most || !chosen.is_empty() && tokens > budget {
                return None;
            }
            chosen.push((slot, work));
            sessions[slot].chosen = true;
            Some(work)
        });
        chosen
    }

    /// Books KV room for the chosen jobs, moves them from the queue into a batch, and says whose caches must go. Jobs
    /// that do not fit beside the others stay in the queue, and all behind them, so that the order holds.
    fn reserve(
        &mut self,
        id: VerifierId,
        chosen: &[(u32, u32)],
        out: &mut Vec<Output>,
    ) -> (Vec<RunningItem>, Vec<SessionKey>) {
        let mut items = Vec::with_capacity(chosen.len());
        let mut evict = Vec::new();
        for &(slot, work) in chosen {
            // One that has just lost its cache to the first is another amount of work than what was chosen.
            let Some(queued) = self.sessions[slot].queued.filter(|queued| queued.tokens == work) else { break };
            // The first job gets its room whatever it takes, or jobs that hold each other's room would wait for ever; the
            // others do not push out members of their own batch.
            let first = items.is_empty();
            let keep = queued.job.keep(self.cached(slot, Some(id)));
            let moved_from = self.kv.arena(slot).filter(|&home| home != id.0);
            let mut victims = std::mem::take(&mut self.victims);
            let sessions = &self.sessions;
            let evictable = |victim| first || !sessions[victim].chosen;
            let booked = self.kv.reserve(id.0, slot, queued.job.held(), evictable, &mut victims);
            for slot in victims.drain(..) {
                evict.push(self.sessions[slot].key);
                self.sessions[slot].kv = 0;
                self.rebook(slot);
            }
            self.victims = victims;
            if booked.is_err() {
                break;
            }
            if let Some(home) = moved_from {
                out.push(Output::DropKv { verifier: VerifierId(home), session: self.sessions[slot].key });
            }
            self.dispatch(id, slot, &queued);
            items.push(self.item(slot, &queued, keep));
        }
        (items, evict)
    }

    fn item(&self, slot: u32, queued: &Queued, keep: u32) -> RunningItem {
        debug_assert_eq!(queued.tokens, queued.job.held() - keep, "the queue knows the work");
        RunningItem { session: slot, job: queued.job, keep, work: queued.tokens }
    }
}
