//! What the toy pair says: drafts, uploads and verdicts as pure functions of tokens, for whichever driver asks.

use std::collections::BTreeMap;

use specfleet_engine::acceptance::{Next, resample_on_device, verifier_draw, verify_outcome};
use specfleet_engine::device::gate::{AttentionRows, lookahead_importance};
use specfleet_engine::device::payload::Payload;
use specfleet_engine::device::{DeviceSettings, Lookback, NextToken, Step, StepResult, UploadPlan, draft_outcome};
use specfleet_engine::distribution::Distribution;
use specfleet_engine::method::ImportanceStatistic;
use specfleet_engine::pool::{ItemOutcome, JobKind};
use specfleet_engine::random::DrawKey;
use specfleet_engine::time::Span;
use specfleet_engine::wire::{FrameLimits, Upload, UploadJob};

use crate::toy::Toy;

/// Bounds of a frame between toys.
pub const LIMITS: FrameLimits = FrameLimits { frame_bytes: 1 << 20 };

/// DraftDistributions of the drafts that are not decided, by position.
pub type DraftDistributions = BTreeMap<u32, Distribution>;

/// The key of a draw where every prompt is run once.
pub fn key(seed: u64, prompt: u32, position: u32, rejections: u32) -> DrawKey {
    DrawKey { seed, prompt, repetition: 0, position, rejections }
}

/// The draft of `step` behind `tokens`, and its distribution.
pub fn draft(settings: &DeviceSettings, drafter: &Toy, tokens: &[u32], step: &Step) -> (StepResult, Distribution) {
    assert!(step.keep < step.position, "a step feeds at least one token");
    // The store may have been rolled back since; then the machine drops the result.
    let length = (step.position as usize).min(tokens.len());
    let context = &tokens[..length];
    let attention = Toy::attention(length);
    let rows = AttentionRows::new(1, length, &attention);
    let key = key(settings.seed, step.generation.prompt, step.position, step.rejections);
    let spec = settings.draft_spec();
    let drafted = draft_outcome(&drafter.logits(context), rows, key, &spec);
    let payload = Payload::encode(&settings.method.payload, &drafted.distribution, drafted.token);
    let lookback = match spec.importance {
        Some(importance) if importance.statistic == ImportanceStatistic::Lookahead => (step.position >= 2).then(|| {
            let row = AttentionRows::new(1, length, &attention).expect("one row");
            let reading = lookahead_importance(row, step.position as usize - 2);
            Lookback { importance: reading.value, threshold: reading.threshold(importance.kappa) }
        }),
        _ => None,
    };
    let result = StepResult {
        generation: step.generation,
        position: step.position,
        rejections: step.rejections,
        token: drafted.token,
        signals: drafted.signals,
        payload_bits: payload.nominal_bits(settings.vocab as usize) as u32,
        lookback,
    };
    (result, drafted.distribution)
}

/// The upload of `plan` from a store of `tokens`.
pub fn compose(
    settings: &DeviceSettings,
    tokens: &[u32],
    distributions: &DraftDistributions,
    plan: &UploadPlan,
    patience: Span,
    wanted: Option<Span>,
) -> Upload {
    let (base, committed) = (plan.base as usize, plan.committed as usize);
    let job = match plan.job {
        JobKind::Judge { drafts, bonus } => {
            let drafts = tokens[committed..committed + usize::from(drafts)].to_vec();
            let payloads = drafts
                .iter()
                .zip(plan.committed..)
                .map(|(&draft, at)| Payload::encode(&settings.method.payload, &distributions[&at], draft))
                .collect();
            UploadJob::Judge { drafts, payloads, bonus }
        }
        JobKind::Write { left } => UploadJob::Write { limit: left },
    };
    Upload {
        session: plan.session,
        upload: plan.upload,
        base: plan.base,
        tokens: tokens[base..committed].to_vec(),
        key: key(settings.seed, plan.generation.prompt, plan.committed, plan.rejections),
        sampling: settings.sampling,
        job,
        patience,
        wanted,
        risk: plan.risk,
        arrives: None,
    }
}

/// What an upload asks of the pool's machine.
pub fn kind(upload: &Upload) -> JobKind {
    match &upload.job {
        UploadJob::Judge { drafts, bonus, .. } => JobKind::Judge { drafts: drafts.len() as u8, bonus: *bonus },
        UploadJob::Write { limit } => JobKind::Write { left: *limit },
    }
}

/// What the verifier says to an upload whose session holds `tokens`, those of the upload included.
pub fn judge(verifier: &Toy, tokens: &[u32], upload: &Upload) -> (ItemOutcome, Next) {
    let mut context = tokens.to_vec();
    let (accepted, next) = match &upload.job {
        UploadJob::Judge { drafts, payloads, bonus } => {
            let mut logits = verifier.logits(&context);
            let fed = drafts.len() - usize::from(!bonus);
            for &draft in &drafts[..fed] {
                context.push(draft);
                logits.extend(verifier.logits(&context));
            }
            let outcome =
                verify_outcome(&logits, verifier.vocab, &upload.sampling, upload.key, drafts, payloads, *bonus)
                    .expect("devices send valid payloads");
            (outcome.accepted as u8, outcome.next)
        }
        UploadJob::Write { .. } => {
            (0, Next::Bonus(verifier_draw(&verifier.logits(&context), &upload.sampling, upload.key)))
        }
    };
    let token = match next {
        Next::Replacement(token) | Next::Bonus(token) => Some(token),
        Next::None | Next::Resample(_) => None,
    };
    (ItemOutcome { accepted, next: token, malformed: false }, next)
}

/// Takes an upload in: the session now holds `base` tokens and what the upload brought.
pub fn admit(session: &mut Vec<u32>, upload: &Upload) {
    session.truncate(upload.base as usize);
    assert_eq!(session.len(), upload.base as usize, "the session holds what the upload builds on");
    session.extend(&upload.tokens);
}

/// A verdict goes out: the session keeps the accepted drafts and the next token. With `more` the upload goes on writing.
pub fn deliver(session: &mut Vec<u32>, upload: &mut Upload, outcome: &ItemOutcome, more: bool) {
    if let UploadJob::Judge { drafts, .. } = &upload.job {
        session.extend(&drafts[..usize::from(outcome.accepted)]);
    }
    session.extend(outcome.next);
    if more {
        upload.key.position += 1;
    }
}

/// What a verdict's next token is on the device that sent an upload with this key.
pub fn next_token(next: &Next, accepted: u8, distributions: &DraftDistributions, sent: DrawKey) -> NextToken {
    let key = sent.at(sent.position + u32::from(accepted));
    match next {
        Next::None => NextToken::None,
        Next::Replacement(token) => NextToken::Replacement(*token),
        Next::Bonus(token) => NextToken::Bonus(*token),
        Next::Resample(y) => match distributions.get(&key.position) {
            Some(x) => NextToken::Resampled(resample_on_device(x, y, key)),
            None => NextToken::None,
        },
    }
}

/// Puts a token into a session store; nothing follows it.
pub fn set(tokens: &mut Vec<u32>, position: u32, token: u32) {
    tokens.truncate(position as usize);
    assert_eq!(tokens.len(), position as usize, "no gap in the session store");
    tokens.push(token);
}
