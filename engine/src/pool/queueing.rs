//! Jobs in and out of the verifiers' queues, and what each queue's books say about them.

use super::job::Queued;
use super::machine::PoolMachine;
use super::order::Ticket;
use crate::id::VerifierId;

impl PoolMachine {
    fn ticket(&self, slot: u32, queued: &Queued) -> Ticket {
        Ticket::new(self.settings.order, slot, self.sessions[slot].key.connection, queued)
    }

    /// Puts the session's job into the queue that it names.
    pub(super) fn join(&mut self, id: VerifierId, slot: u32) {
        let session = &self.sessions[slot];
        let (Some(queued), parked) = (session.queued, session.running.is_some()) else { return };
        let ticket = self.ticket(slot, &queued);
        self.verifiers[usize::from(id.0)].insert(&ticket, parked);
        self.refresh(id);
        self.mark_dirty(id);
    }

    /// Takes the session's job out of the queue.
    pub(super) fn dequeue(&mut self, slot: u32) -> Option<Queued> {
        let queued = self.sessions[slot].queued.take()?;
        self.queued_jobs -= 1;
        self.queued_tokens -= u64::from(queued.tokens);
        match queued.verifier {
            Some(id) => {
                let ticket = self.ticket(slot, &queued);
                let parked = self.sessions[slot].running.is_some();
                self.verifiers[usize::from(id.0)].remove(&ticket, parked);
                self.refresh(id);
                self.mark_dirty(id);
            }
            None => {
                self.unplaced.remove(&queued.job.number);
            }
        }
        Some(queued)
    }

    /// Takes the session's job out of the queue and into a batch of `id`, where it waits.
    pub(super) fn dispatch(&mut self, id: VerifierId, slot: u32, queued: &Queued) {
        let ticket = self.ticket(slot, queued);
        self.verifiers[usize::from(id.0)].dispatch(&ticket);
        let session = &mut self.sessions[slot];
        session.queued = None;
        session.running = Some(queued.job.upload);
        session.cancelled = false;
        session.rebase = u32::MAX;
        self.queued_jobs -= 1;
        self.queued_tokens -= u64::from(queued.tokens);
    }

    /// The session's cache holds more or less than before: its waiting job, if any, is another amount of work.
    pub(super) fn rebook(&mut self, slot: u32) {
        let Some(old) = self.sessions[slot].queued else { return };
        let tokens = old.job.work(self.cached(slot, old.verifier));
        if tokens == old.tokens {
            return;
        }
        let new = Queued { tokens, ..old };
        self.queued_tokens = self.queued_tokens - u64::from(old.tokens) + u64::from(tokens);
        if let Some(id) = old.verifier {
            let (before, after) = (self.ticket(slot, &old), self.ticket(slot, &new));
            let parked = self.sessions[slot].running.is_some();
            self.verifiers[usize::from(id.0)].rebook(&before, &after, parked);
            self.refresh(id);
        }
        self.sessions[slot].queued = Some(new);
    }

    /// The session is in no batch any more: its waiting job, if any, can be computed.
    pub(super) fn unpark(&mut self, slot: u32) {
        self.rebook(slot);
        self.sessions[slot].running = None;
        let Some(queued) = self.sessions[slot].queued else { return };
        let Some(id) = queued.verifier else { return };
        let ticket = self.ticket(slot, &queued);
        let verifier = &mut self.verifiers[usize::from(id.0)];
        verifier.remove(&ticket, true);
        verifier.insert(&ticket, false);
        self.mark_dirty(id);
    }
}
