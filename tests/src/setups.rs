//! Setups of the small world that several tests start from.

use specfleet_engine::device::energy::{DeviceCost, DeviceProfile, StepCost, VerifierProfile};
use specfleet_engine::device::link::{Fading, LinkProfile, LinkRate};
use specfleet_engine::device::{DeviceSettings, OnRefused, OnUnreachable, Retry};
use specfleet_engine::id::PhaseId;
use specfleet_engine::method::{
    Estimator, Gate, ImportanceRule, ImportanceStatistic, Join, Keep, Method, PayloadForm, PriceRule, ProbabilityBits,
    Sampling, Writer,
};
use specfleet_engine::pool::PoolSettings;
use specfleet_engine::time::Span;

use crate::toy::Toy;
use crate::world::Setup;

/// Vocabulary of the toy pair.
pub const VOCAB: usize = 4;

const FULL: PayloadForm = PayloadForm::Full { bits: ProbabilityBits::B32 };

/// A method that uploads every token, one at a time, in full.
pub fn hlm() -> Method {
    Method {
        name: "hlm".into(),
        writer: Writer::Drafter,
        gate: Gate::Always,
        payload: FULL,
        block: 1,
        bonus: false,
        draft_ahead: false,
    }
}

/// `hlm` with another payload.
pub fn hlm_with(payload: PayloadForm) -> Method {
    Method { payload, ..hlm() }
}

/// Blocks of γ with a bonus token, drafting ahead or not.
pub fn block(block: u8, draft_ahead: bool) -> Method {
    Method { name: "block".into(), block, bonus: true, draft_ahead, ..hlm() }
}

/// The verifier alone.
pub fn llm_only() -> Method {
    Method { name: "llm-only".into(), writer: Writer::Verifier, ..hlm() }
}

/// The joint gate of `ui-hlm`, with thresholds that make the toy pair do everything.
pub fn ui_hlm(statistic: ImportanceStatistic, estimator: Estimator) -> Method {
    Method {
        name: "ui-hlm".into(),
        gate: Gate::Joint {
            estimator,
            threshold: 0.3,
            importance: ImportanceRule { statistic, layer: 0, kappa: 0.0 },
            join: Join::And,
        },
        ..hlm()
    }
}

/// One method of each kind, for properties that hold for all.
pub fn zoo() -> Vec<Method> {
    vec![
        Method { name: "slm-only".into(), gate: Gate::Never, ..hlm() },
        llm_only(),
        hlm(),
        Method { name: "rand-hlm".into(), gate: Gate::Random { probability: 0.4 }, ..hlm() },
        ui_hlm(ImportanceStatistic::Concentration, Estimator::Expected),
        ui_hlm(ImportanceStatistic::Lookahead, Estimator::Sampled),
        hlm_with(PayloadForm::TokenOnly { bits: ProbabilityBits::B32 }),
        hlm_with(PayloadForm::SparseExact { keep: Keep::Top(2), bits: ProbabilityBits::B8 }),
        block(3, false),
        block(4, true),
        Method { name: "entropy".into(), gate: Gate::Entropy { threshold: 1.0 }, ..hlm() },
    ]
}

/// The rule of `price`, with weights at which the toy pair does everything. Its decisions depend on timing.
pub fn price(statistic: ImportanceStatistic) -> Method {
    let rule = PriceRule {
        estimator: Estimator::Expected,
        a: 0.8,
        b: 0.0,
        importance: ImportanceRule { statistic, layer: 0, kappa: 0.0 },
        percentiles: std::array::from_fn(|twentieth| twentieth as f32 / 20.0),
        risk_per_joule: 1e4,
        risk_per_second: 1e4,
        half_life: Span(20_000),
    };
    Method { name: "price".into(), gate: Gate::Price(rule), ..hlm() }
}

/// A few devices and two verifiers under `method`, without faults.
pub fn small(method: Method, prompts: u32, max_new_tokens: u32) -> Setup {
    Setup {
        device: DeviceSettings {
            method,
            sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 },
            seed: 7,
            max_new_tokens,
            context: 64,
            vocab: VOCAB as u32,
            end_tokens: vec![],
            profile: DeviceProfile {
                name: "toy".into(),
                source: "test".into(),
                cost: DeviceCost::Declared {
                    draft: StepCost { span: Span(1_000), nanojoules: 10 },
                    prefill: StepCost { span: Span(100), nanojoules: 1 },
                    uncertainty: StepCost { span: Span(50), nanojoules: 1 },
                    importance: StepCost { span: Span(20), nanojoules: 1 },
                },
                idle_watts: 0.5,
            },
            link: LinkProfile {
                name: "toy".into(),
                source: "test".into(),
                emulated: true,
                rate: LinkRate::Fading {
                    uplink_hz: 1e9,
                    downlink_hz: 1e9,
                    snr_db: 10.0,
                    fading: Fading::Rayleigh,
                    coherence: Span(10_000),
                    min_bits_per_second: 1e6,
                },
                round_trip: Span(2_000),
                transmit_watts: 1.0,
                receive_watts: 1.0,
            },
            verdict_timeout: Span(200_000),
            retry: Retry { first: Span(1_000), last: Span(20_000) },
            on_unreachable: OnUnreachable::Wait,
            unreachable_after: Span(1_000_000),
            on_refused: OnRefused::Retry,
            latency_target: Span::ZERO,
            battery_nanojoules: 0,
            outages: None,
        },
        pool: PoolSettings {
            phase: PhaseId::default(),
            verifiers: 2,
            batch_tokens: 32,
            batch_sequences: 4,
            max_wait: Span(500),
            batch_time: Span::ZERO,
            order: specfleet_engine::pool::QueueOrder::Fifo,
            breaker: specfleet_engine::pool::Breaker { failures: 0, cooldown: Span::ZERO },
            price: specfleet_engine::pool::PriceUpdate { step: 0.0, target_load: 1.0, period: Span::from_millis(100) },
            autoscale: None,
            queue_jobs: 64,
            queue_tokens: 4096,
            sessions_per_connection: 4,
            kv_tokens: 200,
            context: 64,
            end_tokens: vec![],
            retry_after: Span(5_000),
            cost: None,
            profile: VerifierProfile { name: "toy".into(), source: "test".into(), batch_watts: 3.0, idle_watts: 1.0 },
        },
        devices: 3,
        prompts: (0..prompts).map(|p| vec![p % VOCAB as u32, (p / 2) % VOCAB as u32, 1]).collect(),
        drafter: Toy { vocab: VOCAB, strays: 3.0 },
        verifier: Toy { vocab: VOCAB, strays: 0.0 },
        delays: 1,
        faults: vec![],
    }
}
