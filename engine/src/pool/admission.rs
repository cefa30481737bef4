//! Which uploads get into the queue.

use super::job::QueuedJob;
use super::machine::PoolMachine;
use super::message::{JobKind, JobRequest, Output, RefuseReason};
use crate::time::Time;

impl PoolMachine {
    pub(super) fn upload(&mut self, now: Time, request: &JobRequest, out: &mut Vec<Output>) {
        self.counts.sent += 1;
        let JobRequest { session, upload, .. } = *request;
        match self.admit(now, request) {
            Ok(()) => out.push(Output::Admitted { session, upload }),
            Err(reason) => {
                self.counts.refused += 1;
                let (retry_after, price) = (self.settings.retry_after, self.price.value());
                out.push(Output::Refused { session, upload, reason, retry_after, price });
            }
        }
    }

    fn admit(&mut self, now: Time, request: &JobRequest) -> Result<(), RefuseReason> {
        if self.closing {
            return Err(RefuseReason::Closing);
        }
        let committed = self.check_size(request)?;
        let found = self.sessions.find(request.session);
        let (known, kv) = found.map_or((0, 0), |slot| {
            let session = &self.sessions[slot];
            (session.length, session.kv.min(request.base))
        });
        let job = QueuedJob::new(now, self.next_job, committed, request);
        let tokens = job.work(kv);
        if let Some(session) = found.map(|slot| &self.sessions[slot])
            && (session.queued.is_some() || session.running.is_some() && !session.cancelled)
        {
            return Err(RefuseReason::Busy);
        }
        if request.base > known {
            return Err(RefuseReason::UnknownBase);
        }
        let most = self.settings.sessions_per_connection;
        if found.is_none() && self.sessions.count_of(request.session.connection) >= most {
            return Err(RefuseReason::TooManySessions);
        }
        if self.queued_jobs >= self.settings.queue_jobs {
            return Err(RefuseReason::QueueFull);
        }
        // One job may always wait, or a prompt longer than the whole queue would never get in.
        if self.queued_jobs > 0 && self.queued_tokens + u64::from(tokens) > self.settings.queue_tokens {
            return Err(RefuseReason::TokensFull);
        }
        let slot = found.unwrap_or_else(|| self.sessions.open(request.session));
        let session = &mut self.sessions[slot];
        session.length = committed;
        session.kv = kv;
        if session.running.is_some() {
            session.rebase = session.rebase.min(request.base);
        }
        // What is refused is no work, whatever it says of itself.
        self.price.offer(tokens);
        self.next_job += 1;
        self.enqueue(slot, job);
        Ok(())
    }

    /// The tokens that the upload's session would hold, at least 1, if the verifier can take it at all.
    fn check_size(&self, request: &JobRequest) -> Result<u32, RefuseReason> {
        let committed = request.base.checked_add(request.catch_up).ok_or(RefuseReason::TooLong)?;
        let asks = match request.kind {
            JobKind::Judge { drafts, .. } => u32::from(drafts),
            JobKind::Write { left } => left,
        };
        if asks == 0 || committed == 0 {
            return Err(RefuseReason::Malformed);
        }
        let longest = committed.checked_add(asks).ok_or(RefuseReason::TooLong)?;
        if longest > self.settings.context || u64::from(longest) > self.settings.kv_tokens {
            return Err(RefuseReason::TooLong);
        }
        Ok(committed)
    }
}
