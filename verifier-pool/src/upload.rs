//! What is checked before the machine sees an upload: that tokens exist and payloads can be read. Behind this point no
//! upload can make a verifier fail.

use specfleet_engine::id::ConnectionId;
use specfleet_engine::method::MAX_BLOCK;
use specfleet_engine::pool::{JobKind, JobRequest, SessionKey};
use specfleet_engine::time::Time;
use specfleet_engine::wire::{Upload, UploadJob};

/// An upload that asks for nothing: the machine refuses it as malformed. Unreadable uploads are handed on as this, so
/// that the machine's counts hold every upload that arrived.
const NOTHING: JobKind = JobKind::Judge { drafts: 0, bonus: false };

/// What the upload asks for, or [`NOTHING`] if it cannot be computed.
pub(crate) fn checked_kind(upload: &Upload, vocab: usize) -> JobKind {
    if upload.tokens.iter().any(|&token| token as usize >= vocab) {
        return NOTHING;
    }
    match &upload.job {
        UploadJob::Write { limit } => JobKind::Write { left: *limit },
        UploadJob::Judge { drafts, payloads, bonus } => {
            let readable = (1..=MAX_BLOCK).contains(&drafts.len())
                && payloads.len() == drafts.len()
                && drafts.iter().all(|&draft| (draft as usize) < vocab)
                && payloads.iter().zip(drafts).all(|(payload, &draft)| payload.decode(vocab, draft).is_ok());
            match u8::try_from(drafts.len()) {
                Ok(drafts) if readable => JobKind::Judge { drafts, bonus: *bonus },
                _ => NOTHING,
            }
        }
    }
}

/// The upload as the machine sees it, arriving at `now`.
pub(crate) fn request(connection: ConnectionId, upload: &Upload, kind: JobKind, now: Time) -> JobRequest {
    JobRequest {
        session: SessionKey { connection, session: upload.session },
        upload: upload.upload,
        base: upload.base,
        // Saturates only beyond any frame; the machine finds such a sequence too long.
        catch_up: u32::try_from(upload.tokens.len()).unwrap_or(u32::MAX),
        kind,
        risk: upload.risk,
        deadline: now + upload.patience,
        wanted: upload.wanted.map(|within| now + within),
    }
}
