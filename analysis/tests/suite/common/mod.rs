//! A run's methods and records to summarise.
#![allow(dead_code, reason = "each test binary uses its part")]

use specfleet_analysis::RunHeader;
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::{Gate, Method, PayloadForm, ProbabilityBits, Writer};
use specfleet_engine::record::{
    DeviceCounts, DeviceTimes, FinishReason, GenerationEnergy, GenerationRecord, Provenance, RoundRecord, RunClock,
    Source, UploadCost, UploadCounts, VerifyCost,
};
use specfleet_engine::time::{Span, Time};

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn method(name: &str, writer: Writer, gate: Gate, block: u8, bonus: bool) -> Method {
    Method {
        name: name.to_owned(),
        writer,
        gate,
        payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
        block,
        bonus,
        draft_ahead: false,
    }
}

pub(crate) fn methods() -> Vec<Method> {
    vec![
        method("slm-only", Writer::Drafter, Gate::Never, 1, false),
        method("llm-only", Writer::Verifier, Gate::Always, 1, false),
        method("hlm", Writer::Drafter, Gate::Always, 1, false),
        method("block", Writer::Drafter, Gate::Always, 3, true),
        method("u-hlm", Writer::Drafter, Gate::Random { probability: 0.5 }, 1, false),
    ]
}

pub(crate) fn round(position: u32, token: u32, source: Source, attempts: u32, cloud: u64) -> RoundRecord {
    RoundRecord {
        position,
        token,
        draft: token,
        rejections: 0,
        source,
        reason: GateReason::Always,
        uncertainty: f32::NAN,
        importance: f32::NAN,
        importance_threshold: f32::NAN,
        draft_probability: 0.5,
        price: f32::NAN,
        committed_at: Time(u64::from(position + 1) * SECOND / 2),
        waiting: Span::ZERO,
        upload: (attempts > 0 || cloud > 0).then(|| UploadCost {
            attempts,
            uplink_bytes: 100 * attempts,
            verify: VerifyCost { nanojoules: cloud, paper_nanojoules: cloud / 2, ..VerifyCost::ZERO },
            ..UploadCost::ZERO
        }),
    }
}

/// The cost of a round that pays for its upload.
pub(crate) fn cost(round: &mut RoundRecord) -> &mut UploadCost {
    round.upload.as_mut().expect("it pays")
}

/// A generation of these rounds that starts at 0, commits twice a second and ends with its last token; its device spends
/// one joule, its radio two joules per upload.
pub(crate) fn generation(method: u16, prompt: u32, data_set: u16, rounds: &[RoundRecord]) -> GenerationRecord {
    let attempts: u64 = rounds.iter().map(|round| u64::from(round.attempts())).sum();
    let verdicts = rounds.iter().filter(|round| round.attempts() > 0).count() as u64;
    let ended = rounds.last().map_or(Time(SECOND), |round| round.committed_at);
    GenerationRecord {
        id: GenerationId { method, prompt, repetition: 0, pass: 0 },
        device: DeviceId(0),
        data_set,
        prompt_tokens: 7,
        tokens: rounds.iter().map(|round| round.token).collect(),
        finish: FinishReason::Stop,
        scheduled: Time::ZERO,
        latency_target: Span::ZERO,
        started: Time::ZERO,
        first_token: rounds.first().map(|round| round.committed_at),
        ended,
        times: DeviceTimes { draft: Span(ended.0 / 3), idle: Span(ended.0 - ended.0 / 3), ..DeviceTimes::default() },
        airtime_up: Span::ZERO,
        airtime_down: Span::ZERO,
        counts: DeviceCounts::default(),
        uploads: UploadCounts { sent: attempts, verdicts, refused: attempts - verdicts, cancelled: 0 },
        energy: GenerationEnergy {
            device: SECOND,
            radio: 2 * SECOND * verdicts,
            cloud: rounds.iter().map(|round| round.cloud_nanojoules()).sum(),
            cloud_paper: rounds.iter().map(|round| round.cloud_paper_nanojoules()).sum(),
        },
        device_provenance: Provenance::Constant,
        radio_provenance: Provenance::Modelled,
        cloud_provenance: Provenance::Modelled,
    }
}

pub(crate) fn header() -> RunHeader {
    RunHeader {
        run: "r1".to_owned(),
        seed: 42,
        scenario_hash: "abc".to_owned(),
        faults_injected: 2,
        accounting: 2,
        pool_cost: "fixed".to_owned(),
        clock: RunClock::Emulated,
        repeat: 1,
        seeds: 1,
        noise: Vec::new(),
    }
}
