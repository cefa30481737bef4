//! The session store: the tokens of every session, and the upload that each one waits for. The machine knows lengths
//! only; this is what a batch is cut from, and what a lost KV cache is rebuilt from.

use std::collections::BTreeMap;
use std::sync::Arc;

use specfleet_engine::id::UploadId;
use specfleet_engine::pool::{BatchItem, SessionKey};
use specfleet_engine::random::DrawKey;
use specfleet_engine::wire::{Upload, UploadJob};

/// Tokens and pending uploads by session. Follows `Admitted`, `Verdict`, `Refused` and `Forget`.
#[derive(Default)]
pub struct SessionStore {
    sessions: BTreeMap<SessionKey, StoredSession>,
}

#[derive(Default)]
struct StoredSession {
    /// Everything committed, as far as the pool knows.
    tokens: Vec<u32>,
    pending: Option<PendingTask>,
}

/// An admitted upload without an answer; shared with the verifier that computes it, and kept here so that it can be
/// computed again if that verifier dies.
#[derive(Clone)]
struct PendingTask {
    upload: Arc<Upload>,
    /// Key of the first draw that is still to come.
    key: DrawKey,
}

/// One item of a batch with all that the verifier needs for it.
pub struct VerifyTask {
    pub(crate) session: SessionKey,
    /// Leading tokens of the KV cache that still hold.
    pub(crate) keep: usize,
    /// What to feed behind them: committed tokens, then drafts.
    pub(crate) feed: Vec<u32>,
    /// Last rows whose logits are wanted: one per draft from the last committed token on, and one for a bonus.
    pub(crate) rows: usize,
    /// Key of the first draw.
    pub(crate) key: DrawKey,
    /// The upload, its tokens taken out.
    pub(crate) upload: Arc<Upload>,
}

impl SessionStore {
    /// `Admitted`: the session holds `base` tokens and what the upload brought.
    pub fn admit(&mut self, session: SessionKey, mut upload: Box<Upload>) {
        let stored = self.sessions.entry(session).or_default();
        stored.tokens.truncate(upload.base as usize);
        stored.tokens.append(&mut upload.tokens);
        upload.tokens = Vec::new();
        stored.pending = Some(PendingTask { key: upload.key, upload: Arc::from(upload) });
    }

    /// What the verifier needs for an item of a batch that starts now; `None` for a session without an upload, which
    /// the machine never puts into a batch.
    pub fn task(&self, item: &BatchItem) -> Option<VerifyTask> {
        let stored = self.sessions.get(&item.session)?;
        let pending = stored.pending.as_ref().filter(|p| p.upload.upload == item.upload)?;
        let mut feed = stored.tokens.get(item.keep as usize..item.committed as usize)?.to_vec();
        let rows = match &pending.upload.job {
            UploadJob::Judge { drafts, bonus, .. } => {
                // The last draft only matters to the token behind it.
                let fed = drafts.len() - usize::from(!bonus);
                feed.extend_from_slice(drafts.get(..fed)?);
                fed + 1
            }
            UploadJob::Write { .. } => 1,
        };
        Some(VerifyTask {
            session: item.session,
            keep: item.keep as usize,
            feed,
            rows,
            key: pending.key,
            upload: pending.upload.clone(),
        })
    }

    /// `Verdict`: the session keeps the accepted drafts and the next token. With `more`, the upload goes on writing at
    /// the next position.
    pub fn commit(&mut self, session: SessionKey, accepted: u8, next: Option<u32>, more: bool) {
        let Some(stored) = self.sessions.get_mut(&session) else { return };
        let Some(pending) = &mut stored.pending else { return };
        if let UploadJob::Judge { drafts, .. } = &pending.upload.job {
            stored.tokens.extend(drafts.iter().take(usize::from(accepted)));
        }
        stored.tokens.extend(next);
        pending.key = pending.key.at(pending.key.position.saturating_add(1));
        if !more {
            stored.pending = None;
        }
    }

    /// Nobody waits for this upload any more.
    pub fn drop_upload(&mut self, session: SessionKey, upload: UploadId) {
        if let Some(stored) = self.sessions.get_mut(&session) {
            stored.pending.take_if(|pending| pending.upload.upload == upload);
        }
    }

    /// `Forget`: the session is over.
    pub fn forget(&mut self, session: SessionKey) {
        self.sessions.remove(&session);
    }
}
