//! Verifiers that die and come back.

use super::job::{MOST_FAILURES, QueuedJob};
use super::machine::PoolMachine;
use super::message::Output;
use super::results::BatchTimes;
use super::verifier::Stage;
use crate::id::VerifierId;
use crate::time::{Span, Time};

impl PoolMachine {
    pub(super) fn verifier_failed(&mut self, now: Time, id: VerifierId, out: &mut Vec<Output>) {
        let Some(verifier) = self.verifiers.get_mut(usize::from(id.0)) else { return };
        verifier.alive = false;
        verifier.restarts += 1;
        if verifier.stage == Stage::Draining {
            verifier.stage = Stage::Off(now);
        }
        let running = verifier.running.take();
        let waiting = verifier.waiting();
        let cooling = verifier.breaker.fail(&self.settings.breaker, now);
        self.cooling.extend(cooling.map(|until| (until, id.0)));
        self.refresh(id);
        self.mark_dirty(id);
        while let Some(slot) = self.kv.oldest(id.0) {
            self.kv.remove(slot);
            self.sessions[slot].kv = 0;
        }
        if let Some(running) = running {
            let measured = now.since(running.started);
            let compute = running.charge.map_or(measured, |charge| measured.min(charge));
            let lost = self.settings.profile.batch_energy(compute);
            self.verifiers[usize::from(id.0)].busy += compute;
            self.running_jobs -= running.items.len();
            self.busy_changed(now, -1);
            let times = BatchTimes { compute, measured, overrun: Span::ZERO };
            out.push(Output::Record(self.batch_record(id, &running, times, lost, lost, false)));
            for item in running.items {
                let slot = item.session;
                if self.sessions[slot].closed {
                    self.sessions.free(slot);
                    continue;
                }
                if self.sessions[slot].cancelled {
                    self.unpark(slot);
                    continue;
                }
                self.sessions[slot].running = None;
                let job = QueuedJob { failures: item.job.failures + 1, ..item.job };
                if job.failures < MOST_FAILURES {
                    self.enqueue(slot, job);
                } else {
                    self.refuse_for_good(slot, &item, out);
                }
            }
        }
        for slot in waiting {
            self.replace(slot);
        }
        out.push(Output::Restart(id));
    }

    pub(super) fn verifier_ready(&mut self, id: VerifierId) {
        let Some(verifier) = self.verifiers.get_mut(usize::from(id.0)) else { return };
        verifier.alive = true;
        self.refresh(id);
        self.mark_dirty(id);
        self.place_the_unplaced();
    }

    /// Breakers whose time is over let one batch in.
    pub(super) fn cool_down(&mut self, now: Time) {
        while let Some(&(until, id)) = self.cooling.first().filter(|(until, _)| *until <= now) {
            self.cooling.remove(&(until, id));
            self.verifiers[usize::from(id)].breaker.cooled(until);
            self.refresh(VerifierId(id));
        }
    }
}
