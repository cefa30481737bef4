//! What follows from a batch that is done: verdicts, their shares of its energy, and its record.

use super::job::{RunningBatch, RunningItem};
use super::machine::PoolMachine;
use super::message::{ItemOutcome, JobKind, Output, RefuseReason};
use crate::device::energy::split;
use crate::id::VerifierId;
use crate::record::{BatchRecord, VerifyCost};
use crate::time::{Span, Time};

/// What a driver says of a batch that is over: how long its start took, and how long its computation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported {
    pub(super) now: Time,
    pub(super) waited: Span,
    pub(super) compute: Span,
}

/// The times of a batch as its record has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchTimes {
    pub(super) compute: Span,
    pub(super) measured: Span,
    pub(super) overrun: Span,
}

/// A batch that is over, by the accounts.
#[derive(Clone, Copy, Debug)]
struct EndedBatch {
    /// Until when its jobs waited in the queue.
    started: Time,
    /// From then until the computation began.
    batch_wait: Span,
    compute: Span,
    /// When it was over, and the next token of a text that the pool writes was due.
    over: Time,
}

impl EndedBatch {
    /// As reported, or as charged on an emulated pool: there the computation follows its order at once.
    fn of(running: &RunningBatch, reported: Reported) -> EndedBatch {
        let (batch_wait, compute) = match running.charge {
            Some(charge) => (Span::ZERO, charge),
            None => (reported.waited, reported.compute),
        };
        EndedBatch { started: running.started, batch_wait, compute, over: reported.now }
    }
}

impl PoolMachine {
    pub(super) fn batch_done(
        &mut self,
        reported: Reported,
        id: VerifierId,
        batch: u64,
        outcomes: &[ItemOutcome],
        out: &mut Vec<Output>,
    ) {
        let Some(verifier) = self.verifiers.get_mut(usize::from(id.0)) else { return };
        let answered = |running: &mut RunningBatch| running.batch == batch && running.items.len() == outcomes.len();
        let Some(running) = verifier.running.take_if(answered) else { return };
        let ended = EndedBatch::of(&running, reported);
        verifier.busy += ended.compute;
        verifier.breaker.succeed();
        self.running_jobs -= running.items.len();
        self.busy_changed(reported.now, -1);
        self.time_model.observe(running.tokens, running.items.len(), ended.compute);
        self.refresh(id);
        self.mark_dirty(id);
        let total = self.settings.profile.batch_energy(ended.compute);
        let works: Vec<u32> = running.items.iter().map(|item| item.work).collect();
        let shares = split(total, &works);
        let mut unclaimed = 0;
        out.reserve(running.items.len() + 1);
        for (index, (item, outcome)) in running.items.iter().zip(outcomes).enumerate() {
            let share = shares[index];
            let claimed = self.item_done(ended, id, index as u32, item, outcome, share, out);
            unclaimed += if claimed { 0 } else { share };
        }
        let overrun = running.charge.map_or(Span::ZERO, |charge| reported.compute - charge);
        let times = BatchTimes { compute: ended.compute, measured: reported.compute, overrun };
        out.push(Output::Record(self.batch_record(id, &running, times, total, unclaimed, true)));
        self.drained(reported.now, id, out);
    }

    /// Ends one item; whether somebody pays its share.
    #[expect(clippy::too_many_arguments, reason = "one item of a batch, and what the batch knows of it")]
    fn item_done(
        &mut self,
        ended: EndedBatch,
        id: VerifierId,
        index: u32,
        item: &RunningItem,
        outcome: &ItemOutcome,
        share: u64,
        out: &mut Vec<Output>,
    ) -> bool {
        let slot = item.session;
        let session = &mut self.sessions[slot];
        let key = session.key;
        if session.closed {
            self.kv.remove(slot);
            self.sessions.free(slot);
            out.push(Output::DropKv { verifier: id, session: key });
            return false;
        }
        let accepted = u32::from(outcome.accepted).min(item.job.kind.drafts());
        session.kv = (item.job.committed + accepted.min(item.job.kind.fed_drafts())).min(session.rebase);
        if session.cancelled {
            self.unpark(slot);
            return false;
        }
        session.running = None;
        if outcome.malformed {
            session.kv = session.kv.min(item.keep);
            self.refuse_for_good(slot, item, out);
            return false;
        }
        session.length = item.job.committed + accepted + u32::from(outcome.next.is_some());
        let length = session.length;
        let more = match (item.job.kind, outcome.next) {
            (JobKind::Write { left }, Some(token)) => left > 1 && !self.settings.end_tokens.contains(&token),
            _ => false,
        };
        out.push(Output::Verdict {
            session: key,
            upload: item.job.upload,
            item: index,
            more,
            cost: VerifyCost {
                queue_wait: ended.started.since(item.job.arrived),
                batch_wait: ended.batch_wait,
                compute: ended.compute,
                fed_tokens: item.work,
                nanojoules: share,
                paper_nanojoules: paper_share(share, item),
            },
            price: self.price.value(),
        });
        if let (true, JobKind::Write { left }) = (more, item.job.kind) {
            let number = self.number();
            let job = item.job.next_token(ended.over, number, length, left - 1);
            self.enqueue(slot, job);
            self.price.offer(self.sessions[slot].queued.map_or(0, |queued| queued.tokens));
        } else {
            self.counts.verdicts += 1;
        }
        true
    }

    /// Refuses what was being computed, because of what it is.
    pub(super) fn refuse_for_good(&mut self, slot: u32, item: &RunningItem, out: &mut Vec<Output>) {
        self.counts.refused += 1;
        out.push(Output::Refused {
            session: self.sessions[slot].key,
            upload: item.job.upload,
            reason: RefuseReason::Malformed,
            retry_after: Span::ZERO,
            price: self.price.value(),
        });
    }

    pub(super) fn batch_record(
        &self,
        verifier: VerifierId,
        running: &RunningBatch,
        times: BatchTimes,
        nanojoules: u64,
        unclaimed_nanojoules: u64,
        completed: bool,
    ) -> BatchRecord {
        let items = &running.items;
        let work = items.iter().map(|i| i.work).sum::<u32>();
        BatchRecord {
            method: self.settings.phase.method,
            pass: self.settings.phase.pass,
            batch: running.batch,
            verifier,
            started: running.started,
            compute: times.compute,
            measured: times.measured,
            overrun: times.overrun,
            estimate: running.estimate,
            price: running.price,
            sequences: items.len() as u32,
            work,
            catch_up: work - items.iter().map(|i| i.job.kind.fed_drafts()).sum::<u32>(),
            drafts: items.iter().map(|i| i.job.kind.drafts()).sum(),
            cached: items.iter().map(|i| u64::from(i.keep)).sum(),
            nanojoules,
            measured_nanojoules: self.settings.profile.batch_energy(times.measured),
            unclaimed_nanojoules,
            completed,
        }
    }
}

/// The papers charge one token per judged draft (or written token) and no catch-up.
fn paper_share(share: u64, item: &RunningItem) -> u64 {
    let counted = u64::from(item.job.kind.drafts().max(1).min(item.work));
    // `work` is at least 1, because a batch item feeds the last committed token at least.
    let work = u64::from(item.work.max(1));
    match share.checked_mul(counted) {
        Some(product) => product / work,
        None => (u128::from(share) * u128::from(counted) / u128::from(work)) as u64,
    }
}
