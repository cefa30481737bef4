//! Uploads made up at random, and what a verifier must answer: computed with the model alone, without pool, batch or
//! cache.

use specfleet_engine::acceptance::{Next, verifier_draw, verify_outcome};
use specfleet_engine::device::payload::Payload;
use specfleet_engine::distribution::Distribution;
use specfleet_engine::id::UploadId;
use specfleet_engine::method::{Keep, PayloadForm, ProbabilityBits, Sampling};
use specfleet_engine::random::DrawKey;
use specfleet_engine::time::Span;
use specfleet_engine::wire::{Upload, UploadJob};
use specfleet_model::{KvArena, LogitRows, Model, SeqStep};

use super::model::Random;

pub(crate) const SAMPLING: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };

pub(crate) fn key(prompt: u32, position: u32) -> DrawKey {
    DrawKey { seed: 11, prompt, repetition: 0, position, rejections: 0 }
}

/// A judge upload with drafts from random distributions.
pub(crate) fn judge(
    random: &mut Random,
    vocab: usize,
    (session, upload): (u32, u32),
    (base, tokens): (u32, &[u32]),
    key: DrawKey,
) -> Upload {
    let form = match random.below(3) {
        0 => PayloadForm::Full { bits: ProbabilityBits::B32 },
        1 => PayloadForm::TopK { keep: Keep::Top(5), bits: ProbabilityBits::B16 },
        _ => PayloadForm::TokenOnly { bits: ProbabilityBits::B32 },
    };
    let (drafts, payloads) = (0..1 + random.below(4))
        .map(|_| {
            let logits: Vec<f32> = (0..vocab).map(|_| 2.0 * random.uniform() as f32).collect();
            let x = Distribution::from_logits(&logits, &SAMPLING);
            let draft = x.sample(random.uniform());
            (draft, Payload::encode(&form, &x, draft))
        })
        .unzip();
    let job = UploadJob::Judge { drafts, payloads, bonus: random.below(2) == 0 };
    upload_of(session, upload, base, tokens, key, job)
}

pub(crate) fn upload_of(session: u32, upload: u32, base: u32, tokens: &[u32], key: DrawKey, job: UploadJob) -> Upload {
    Upload {
        session,
        upload: UploadId(upload),
        base,
        tokens: tokens.to_vec(),
        key,
        sampling: SAMPLING,
        job,
        patience: Span::from_millis(60_000),
        wanted: None,
        risk: f32::NAN,
        arrives: None,
    }
}

/// An upload that says of itself that it builds on a thousand tokens, in a session that nobody knows.
pub(crate) fn unfounded() -> Upload {
    upload_of(7, 7, 1_000, &[1], key(0, 0), UploadJob::Write { limit: 1 })
}

/// What the verifier must say to `upload` when the session's tokens, those of the upload included, are `tokens`:
/// accepted drafts and what follows them. For a write job, the first token.
pub(crate) fn verdict(model: &Model, tokens: &[u32], upload: &Upload) -> (u8, Next) {
    let vocab = model.shape().vocab;
    match &upload.job {
        UploadJob::Write { .. } => {
            (0, Next::Bonus(verifier_draw(&logits(model, tokens, 1), &upload.sampling, upload.key)))
        }
        UploadJob::Judge { drafts, payloads, bonus } => {
            let mut fed = tokens.to_vec();
            fed.extend_from_slice(drafts);
            fed.truncate(fed.len() - usize::from(!bonus));
            let rows = drafts.len() + usize::from(*bonus);
            let logits = logits(model, &fed, rows);
            let outcome = verify_outcome(&logits, vocab, &upload.sampling, upload.key, drafts, payloads, *bonus);
            let outcome = outcome.expect("a valid upload");
            (outcome.accepted as u8, outcome.next)
        }
    }
}

/// The text that a write job of `limit` tokens gives.
pub(crate) fn written(model: &Model, tokens: &[u32], key: DrawKey, limit: u32) -> Vec<u32> {
    let mut tokens = tokens.to_vec();
    (0..limit)
        .map(|step| {
            let row = logits(model, &tokens, 1);
            let token = verifier_draw(&row, &SAMPLING, key.at(key.position + step));
            tokens.push(token);
            token
        })
        .collect()
}

fn logits(model: &Model, tokens: &[u32], rows: usize) -> Vec<f32> {
    let mut arena = KvArena::new(model, 64 << 20);
    let seq = arena.open();
    let step = SeqStep { seq, tokens, logits: LogitRows::Last(rows), attention: None };
    model.forward(&mut arena, &[step]).expect("a pass").logits(0).to_vec()
}
