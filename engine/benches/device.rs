//! Rounds per second through one device machine with a driver that answers at once: what a simulation pays per token.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use specfleet_engine::device::energy::{DeviceCost, DeviceProfile, StepCost};
use specfleet_engine::device::link::{Fading, LinkProfile, LinkRate};
use specfleet_engine::device::{
    DeviceMachine, DeviceSettings, Input, NextToken, OnRefused, OnUnreachable, Output, Retry, Signals, Start,
    StepResult, Verdict,
};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::{Estimator, Gate, Method, PayloadForm, ProbabilityBits, Sampling, Writer};
use specfleet_engine::record::VerifyCost;
use specfleet_engine::time::{Span, Time};

/// Tokens of one generation.
const TOKENS: u32 = 100;

/// A phone on a fair link under `u-hlm`.
fn settings() -> Arc<DeviceSettings> {
    let step = |micros: u64| StepCost { span: Span(micros * 1_000), nanojoules: micros * 3_000 };
    Arc::new(DeviceSettings {
        method: Method {
            name: "u-hlm".into(),
            writer: Writer::Drafter,
            gate: Gate::Uncertainty { estimator: Estimator::Expected, threshold: 0.5 },
            payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
            block: 1,
            bonus: false,
            draft_ahead: false,
        },
        sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 },
        seed: 1,
        max_new_tokens: TOKENS,
        context: 1_024,
        vocab: 2_048,
        end_tokens: vec![0],
        profile: DeviceProfile {
            name: "phone".into(),
            source: "bench".into(),
            cost: DeviceCost::Declared {
                draft: step(4_000),
                prefill: step(300),
                uncertainty: step(300),
                importance: step(100),
            },
            idle_watts: 0.4,
        },
        link: LinkProfile {
            name: "fair".into(),
            source: "bench".into(),
            emulated: true,
            rate: LinkRate::Fading {
                uplink_hz: 2e6,
                downlink_hz: 4e6,
                snr_db: 10.0,
                fading: Fading::Rayleigh,
                coherence: Span::from_millis(20),
                min_bits_per_second: 1e5,
            },
            round_trip: Span::from_millis(12),
            transmit_watts: 1.2,
            receive_watts: 0.8,
        },
        verdict_timeout: Span::from_millis(20_000),
        retry: Retry { first: Span::from_millis(10), last: Span::from_millis(1_000) },
        on_unreachable: OnUnreachable::Wait,
        unreachable_after: Span::from_millis(1_000),
        on_refused: OnRefused::Retry,
        latency_target: Span::ZERO,
        battery_nanojoules: 0,
        outages: None,
    })
}

/// A machine and the time it lives in.
struct Bench {
    machine: DeviceMachine,
    now: Time,
    out: Vec<Output>,
    prompt: u32,
}

impl Bench {
    fn new() -> Bench {
        let machine = DeviceMachine::new(DeviceId(1), settings()).expect("valid settings");
        let mut bench = Bench { machine, now: Time::ZERO, out: Vec::new(), prompt: 0 };
        bench.machine.handle(Time::ZERO, Input::Join, &mut bench.out);
        bench.out.clear();
        bench.machine.handle(Time::ZERO, Input::Connected, &mut bench.out);
        bench.out.clear();
        bench
    }

    /// One generation, of whose tokens this share is uploaded; returns its length.
    fn generate(&mut self, share: f32) -> usize {
        self.prompt += 1;
        let generation = GenerationId { method: 0, prompt: self.prompt, repetition: 0, pass: 0 };
        let (scheduled, mut credit) = (self.now, 0.0);
        let mut input = Input::Start(Start { generation, data_set: 0, prompt_tokens: 50, scheduled });
        let mut records = 0;
        loop {
            self.machine.handle(self.now, input, &mut self.out);
            let mut next = None;
            for output in self.out.drain(..) {
                match output {
                    Output::Step(step) => {
                        credit += share;
                        let statistic = if credit >= 1.0 { 0.9 } else { 0.1 };
                        credit -= credit.floor();
                        let signals = Signals {
                            statistic,
                            importance: f32::NAN,
                            importance_threshold: f32::NAN,
                            draft_probability: 0.7,
                            gate_draw: 0.5,
                        };
                        next = Some(Input::StepDone(StepResult {
                            generation,
                            position: step.position,
                            rejections: step.rejections,
                            token: 7,
                            signals,
                            payload_bits: 65_536,
                            lookback: None,
                        }));
                    }
                    Output::Upload(plan) => {
                        let (at, downlink) = self.machine.receive(self.now, 43);
                        self.now = at;
                        next = Some(Input::Verdict(Verdict {
                            upload: plan.upload,
                            accepted: 1,
                            next: NextToken::None,
                            more: false,
                            cost: VerifyCost {
                                queue_wait: Span::ZERO,
                                batch_wait: Span::ZERO,
                                compute: Span::ZERO,
                                fed_tokens: 1,
                                nanojoules: 5,
                                paper_nanojoules: 5,
                            },
                            price: 0.0,
                            bytes: 60,
                            downlink,
                        }));
                    }
                    Output::Record(record) => records += usize::from(black_box(record).token == 7),
                    Output::Finished(record) => {
                        black_box(record);
                        return records;
                    }
                    _ => {}
                }
            }
            input = next.unwrap_or_else(|| {
                let (at, _) = self.machine.poll_timeout().expect("a generation under way waits for something");
                self.now = self.now.max(at);
                Input::Timeout
            });
        }
    }
}

fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("device rounds");
    group.throughput(Throughput::Elements(u64::from(TOKENS)));
    for share in [0.0, 0.3, 1.0] {
        let mut bench = Bench::new();
        group.bench_function(format!("upload rate {share}"), |b| {
            b.iter(|| assert_eq!(bench.generate(black_box(share)), TOKENS as usize));
        });
    }
    group.finish();
}

criterion_group!(benches, rounds);
criterion_main!(benches);
