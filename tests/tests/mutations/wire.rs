//! Frames of the wire, as a pool and a device read them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use specfleet_engine::acceptance::Next;
use specfleet_engine::device::payload::Payload;
use specfleet_engine::distribution::Distribution;
use specfleet_engine::id::{DeviceId, UploadId};
use specfleet_engine::method::{Keep, PayloadForm, ProbabilityBits, Sampling};
use specfleet_engine::pool::RefuseReason;
use specfleet_engine::random::DrawKey;
use specfleet_engine::record::VerifyCost;
use specfleet_engine::time::{Span, Time};
use specfleet_engine::wire::{
    AdmissionToken, ClientFrame, FrameDecoder, FrameLimits, Goodbye, Hello, PROTOCOL_VERSION, ServerFrame, Upload,
    UploadJob, VerdictFrame, VerifierIdentity, Welcome, encode,
};
use specfleet_tests::mutator::{Mutator, Notation};

use crate::watch::{Input, watch};

const VOCAB: usize = 48;
const LIMITS: FrameLimits = FrameLimits { frame_bytes: 4096 };

/// Bytes of the length in front of each frame.
const HEADER: usize = 4;

fn judge(forms: &[PayloadForm]) -> UploadJob {
    let distribution: Vec<f32> = (0..VOCAB).map(|token| (token % 7) as f32).collect();
    let distribution = Distribution::from_logits(&distribution, &Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 });
    let drafts: Vec<u32> = (0..forms.len() as u32).map(|draft| 6 + 7 * draft).collect();
    let payloads =
        forms.iter().zip(&drafts).map(|(form, draft)| Payload::encode(form, &distribution, *draft)).collect();
    UploadJob::Judge { drafts, payloads, bonus: true }
}

fn client_frames() -> Vec<Vec<u8>> {
    use ProbabilityBits::{B8, B16, B32};
    let (keep, at) = (Keep::Top(5), Some(Time(1_000_000_007).into()));
    let upload = |job| {
        let key = DrawKey { seed: 42, prompt: 3, repetition: 0, position: 9, rejections: 1 };
        let sampling = Sampling { temperature: 0.7, top_k: 20, top_p: 0.9 };
        let (upload, patience, wanted) = (UploadId(300), Span(2_000_000_000), Some(Span(5_000_000)));
        let (tokens, risk) = ((0..9).collect(), 0.25);
        let session = 7;
        ClientFrame::Upload(Box::new(Upload {
            session,
            upload,
            base: 0,
            tokens,
            key,
            sampling,
            job,
            patience,
            wanted,
            risk,
            arrives: at,
        }))
    };
    let hello = Hello { protocol: PROTOCOL_VERSION, tokenizer: [7; 32], vocab: 48, admission: AdmissionToken([3; 16]) };
    [
        ClientFrame::Hello(hello),
        upload(UploadJob::Write { limit: 20 }),
        upload(judge(&[PayloadForm::Full { bits: B32 }, PayloadForm::Full { bits: B8 }])),
        upload(judge(&[PayloadForm::TopK { keep, bits: B16 }, PayloadForm::TokenOnly { bits: B8 }])),
        upload(judge(&[PayloadForm::SparseExact { keep: Keep::Top(VOCAB as u32), bits: B16 }])),
        ClientFrame::Cancel { session: 7, upload: UploadId(300), at },
        ClientFrame::Promise { device: DeviceId(5), until: Time(9).into(), after_answer: Span(700) },
        ClientFrame::Close { session: 7, at: None },
    ]
    .iter()
    .map(encoded)
    .collect()
}

fn server_frames() -> Vec<Vec<u8>> {
    let verdict = |next| {
        let cost = VerifyCost {
            queue_wait: Span(1000),
            batch_wait: Span(0),
            compute: Span(3_000_000),
            fed_tokens: 12,
            nanojoules: 150_000_000,
            paper_nanojoules: 12_500_000,
        };
        let (session, upload) = (7, UploadId(300));
        ServerFrame::Verdict(Box::new(VerdictFrame {
            session,
            upload,
            accepted: 2,
            next,
            more: false,
            cost,
            price: 0.5,
        }))
    };
    let (session, upload, reason) = (7, UploadId(300), RefuseReason::QueueFull);
    [
        ServerFrame::Welcome(Welcome { protocol: PROTOCOL_VERSION, context: 512, verifier: verifier() }),
        verdict(Next::Replacement(17)),
        verdict(Next::Resample(Distribution::one_hot(VOCAB, 5))),
        ServerFrame::Refused { session, upload, reason, retry_after: Span(5_000_000), price: 0.5 },
        ServerFrame::Goodbye(Goodbye::Protocol { ours: 3, theirs: 2 }),
    ]
    .iter()
    .map(encoded)
    .collect()
}

fn verifier() -> VerifierIdentity {
    VerifierIdentity {
        model: [1; 32],
        weights: [2; 32],
        configuration: [3; 32],
        precision: "q8_0".to_owned().try_into().expect("a name"),
        kernels: [4; 32],
    }
}

fn encoded<F: Serialize>(frame: &F) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, LIMITS, &mut bytes).expect("short");
    bytes
}

/// A damaged stream of frames, or one frame that is damaged behind its length, which says how long it is by now.
fn damaged(mutator: &mut Mutator, frames: &[Vec<u8>]) -> Input {
    let base = mutator.below(frames.len());
    if mutator.below(2) == 0 {
        let next = mutator.below(frames.len());
        let stream = [&frames[base][..], &frames[next]].concat();
        return Input { base, bytes: mutator.mutate(&stream, Notation::Binary) };
    }
    let body = mutator.mutate(&frames[base][HEADER..], Notation::Binary);
    let length = u32::try_from(body.len()).expect("mutations are bounded");
    Input { base, bytes: [&length.to_le_bytes()[..], &body].concat() }
}

/// Reads a stream in pieces of 100 bytes; whether a frame came out of it.
fn read<F: DeserializeOwned + Serialize>(bytes: &[u8], each: impl Fn(&F)) -> bool {
    let mut decoder = FrameDecoder::<F>::new(LIMITS);
    let mut frames = 0;
    // Zeros behind the stream complete any frame within the limit, and are none themselves: a decoder that still waits
    // then would have held whatever a peer announces.
    let zeros = vec![0; LIMITS.frame_bytes + 2 * HEADER];
    for piece in bytes.chunks(100).chain(zeros.chunks(100)) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Err(_) => return frames > 0,
                Ok(None) => break,
                Ok(Some((frame, length))) => {
                    assert!((HEADER..=HEADER + LIMITS.frame_bytes).contains(&length), "a frame of {length} bytes");
                    each(&frame);
                    frames += 1;
                }
            }
        }
    }
    panic!("the decoder still waits");
}

#[test]
fn a_pool_reads_any_frame() {
    watch("frames of devices", 1, client_frames(), damaged, |input| {
        read(&input.bytes, |frame: &ClientFrame| {
            // What the pool does with it before its machine sees the upload.
            if let ClientFrame::Upload(upload) = frame
                && let UploadJob::Judge { drafts, payloads, .. } = &upload.job
            {
                payloads.iter().zip(drafts).for_each(|(payload, draft)| {
                    let _ = payload.decode(VOCAB, *draft);
                });
            }
        })
    });
}

#[test]
fn a_device_reads_any_frame() {
    watch("frames of pools", 2, server_frames(), damaged, |input| {
        read(&input.bytes, |frame: &ServerFrame| {
            if let ServerFrame::Verdict(verdict) = frame
                && let Next::Resample(distribution) = &verdict.next
            {
                assert!((distribution.sample(0.5) as usize) < distribution.len().max(1));
            }
        })
    });
}
