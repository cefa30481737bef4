//! Records to store: random ones for roundtrips, plausible ones for sizes and crashes.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod damage;

use std::fs;

use proptest::prelude::*;
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::{DeviceId, GenerationId, VerifierId};
use specfleet_engine::record::{
    AuditRecord, BatchRecord, DeviceCounts, DeviceTimes, FinishReason, GenerationEnergy, GenerationRecord, Provenance,
    RoundRecord, RunClock, Source, UploadCost, UploadCounts, VerifierRecord, VerifyCost,
};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{Machine, Meta, RunKind, RunState, SCHEMA};

#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use damage::{damage, flip, store_of};

pub(crate) fn meta(run: &str) -> Meta {
    Meta {
        schema: SCHEMA,
        run: run.to_owned(),
        id: None,
        manifest: None,
        state: RunState::Running,
        kind: RunKind::Live,
        pid: 0,
        started: 1_700_000_000,
        ended: None,
        scenario: "devices = 16\n".to_owned(),
        scenario_hash: "0123456789abcdef".to_owned(),
        seed: 42,
        versions: [("specfleet".to_owned(), "0.1.0".to_owned())].into(),
        machine: Machine::detect(),
        methods: Vec::new(),
        data_sets: vec!["word-problems".to_owned()],
        accounting: 2,
        pool_cost: "calibrated".to_owned(),
        clock: RunClock::Emulated,
        repeat: 1,
        seeds: 1,
        disturbance: None,
        noise: None,
        standstills: Vec::new(),
        devices: 16,
        verifiers: 2,
        calibration: Some(serde_json::json!({ "a": 0.82 })),
        faults_injected: 0,
        wall_seconds: None,
        store: String::new(),
        tags: Vec::new(),
        imported_from: None,
        scorers: Vec::new(),
        inputs: Default::default(),
    }
}

/// Opens a store behind the ledger's back. sled lets go of its file a moment after its last handle was dropped.
pub(crate) fn open_store(store: &std::path::Path) -> sled::Db {
    let conf = fs::read(store.join("conf")).expect("a file");
    let conf = String::from_utf8_lossy(&conf);
    let segment = conf.lines().find_map(|line| line.strip_prefix("segment_size: ")).expect("a size");
    let config = || sled::Config::new().path(store).segment_size(segment.parse().expect("a number"));
    for _ in 0..250 {
        match config().open() {
            Ok(store) => return store,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
    config().open().expect("the store")
}

pub(crate) fn id(method: u16, prompt: u32) -> GenerationId {
    GenerationId { method, prompt, repetition: 0, pass: 0 }
}

/// Any float, all kinds of NaN included.
pub(crate) fn any_float() -> impl Strategy<Value = f32> {
    prop_oneof![Just(f32::NAN), any::<u32>().prop_map(f32::from_bits), 0.0f32..1.0]
}

/// Any integer, but often a small or a usual one, so that all forms of a block come up.
fn long() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), 0u64..100, 1_000_000u64..2_000_000, any::<u64>()]
}

fn short() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0u32), 0u32..100, any::<u32>()]
}

fn source() -> impl Strategy<Value = Source> {
    use Source::*;
    prop::sample::select(vec![Skipped, Accepted, Replaced, Bonus, Verifier, Fallback, Refused])
}

fn reason() -> impl Strategy<Value = GateReason> {
    prop::sample::select(vec![GateReason::Never, GateReason::Always, GateReason::Certain, GateReason::Important])
}

fn provenance() -> impl Strategy<Value = Provenance> {
    prop::sample::select(vec![Provenance::Measured, Provenance::Modelled, Provenance::Constant])
}

pub(crate) fn any_id() -> impl Strategy<Value = GenerationId> {
    (any::<u16>(), short(), any::<u16>(), prop_oneof![Just(0), any::<u16>()])
        .prop_map(|(method, prompt, repetition, pass)| GenerationId { method, prompt, repetition, pass })
}

pub(crate) fn any_round() -> impl Strategy<Value = RoundRecord> {
    let decision = (
        short(),
        short(),
        short(),
        short(),
        source(),
        reason(),
        any_float(),
        any_float(),
        any_float(),
        any_float(),
        long(),
    );
    (decision, any_float(), long(), prop::option::of(any_cost())).prop_map(|(a, price, waiting, upload)| RoundRecord {
        position: a.0,
        token: a.1,
        draft: a.2,
        rejections: a.3,
        source: a.4,
        reason: a.5,
        uncertainty: a.6,
        importance: a.7,
        importance_threshold: a.8,
        draft_probability: a.9,
        price,
        committed_at: Time(a.10),
        waiting: Span(waiting / 3),
        upload,
    })
}

/// Any cost, that of nothing but zeros included: a ledger tells it from none.
fn any_cost() -> impl Strategy<Value = UploadCost> {
    let sent = (short(), long(), short(), short(), any_float(), long(), long());
    let any = (sent, (long(), long(), long(), short(), long(), long())).prop_map(|(a, b)| UploadCost {
        attempts: a.0,
        uplink_bits: a.1,
        uplink_bytes: a.2,
        downlink_bytes: a.3,
        snr_db: a.4,
        uplink: Span(a.5),
        downlink: Span(a.6),
        verify: VerifyCost {
            queue_wait: Span(b.0),
            batch_wait: Span(b.1),
            compute: Span(b.2),
            fed_tokens: b.3,
            nanojoules: b.4,
            paper_nanojoules: b.5,
        },
    });
    prop_oneof![8 => any, 1 => Just(UploadCost::ZERO)]
}

pub(crate) fn any_generation() -> impl Strategy<Value = GenerationRecord> {
    let head = (any_id(), short(), any::<u16>(), short(), prop::collection::vec(short(), 0..40));
    let times = (long(), prop::option::of(long()), long(), prop::array::uniform8(long()));
    use FinishReason::{Battery, Dropped, Failed, Left, Length, Stop};
    let ends = prop::sample::select(vec![Stop, Length, Failed, Battery, Left, Dropped]);
    let rest = (prop::array::uniform14(long()), ends, provenance(), provenance(), provenance());
    (head, times, rest).prop_map(|(head, times, rest)| {
        let (t, n) = (times.3, rest.0);
        GenerationRecord {
            id: head.0,
            device: DeviceId(head.1),
            data_set: head.2,
            prompt_tokens: head.3,
            tokens: head.4,
            finish: rest.1,
            scheduled: Time(times.0 / 2),
            latency_target: Span(times.0 / 3),
            started: Time(times.0),
            first_token: times.1.map(Time),
            ended: Time(times.2),
            times: DeviceTimes {
                draft: Span(t[0]),
                uncertainty: Span(t[1]),
                importance: Span(t[2]),
                overrun: Span(t[3]),
                waiting: Span(t[4]),
                waiting_overrun: Span(t[7] / 2),
                idle: Span(t[5]),
            },
            airtime_up: Span(t[6]),
            airtime_down: Span(t[7]),
            counts: DeviceCounts {
                draft_steps: n[0],
                prefill_tokens: n[1],
                uncertainty: n[2],
                importance: n[3],
                wasted_drafts: n[4],
                stale: n[5],
            },
            uploads: UploadCounts { sent: n[6], verdicts: n[7], refused: n[8], cancelled: n[9] },
            energy: GenerationEnergy { device: n[10], radio: n[11], cloud: n[12], cloud_paper: n[13] },
            device_provenance: rest.2,
            radio_provenance: rest.3,
            cloud_provenance: rest.4,
        }
    })
}

pub(crate) fn any_batch() -> impl Strategy<Value = BatchRecord> {
    let counts = (short(), short(), short(), short(), long(), long(), long(), any::<bool>(), any_float());
    (any::<(u16, u16)>(), long(), any::<u16>(), long(), long(), counts).prop_map(
        |((method, pass), batch, verifier, started, compute, counts)| BatchRecord {
            method,
            pass,
            batch,
            verifier: VerifierId(verifier),
            started: Time(started),
            compute: Span(compute),
            measured: Span(compute / 3),
            overrun: Span(compute / 5),
            estimate: Span(compute / 2),
            price: counts.8,
            sequences: counts.0,
            work: counts.1,
            catch_up: counts.2,
            drafts: counts.3,
            cached: counts.4,
            nanojoules: counts.5,
            measured_nanojoules: counts.6 / 2,
            unclaimed_nanojoules: counts.6,
            completed: counts.7,
        },
    )
}

pub(crate) fn any_verifier() -> impl Strategy<Value = VerifierRecord> {
    (any::<(u16, u16)>(), any::<u16>(), long(), long(), long(), short()).prop_map(
        |((method, pass), verifier, busy, idle, idle_nanojoules, restarts)| VerifierRecord {
            method,
            pass,
            verifier: VerifierId(verifier),
            busy: Span(busy),
            idle: Span(idle),
            off: Span(idle / 2),
            idle_nanojoules,
            restarts,
        },
    )
}

pub(crate) fn any_audit() -> impl Strategy<Value = AuditRecord> {
    (any_id(), prop::collection::vec((short(), any_float()), 0..30)).prop_map(|(id, skipped)| {
        let (positions, accept_probabilities) = skipped.into_iter().unzip();
        AuditRecord { id, positions, accept_probabilities }
    })
}

/// A cheap source of plausible noise.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Rounds as an uncertainty gate leaves them: about `uploaded` of 100 tokens go to the pool.
pub(crate) fn plausible_rounds(noise: &mut Noise, count: u32, uploaded: u64) -> Vec<RoundRecord> {
    let mut now = noise.below(60_000_000_000);
    (0..count)
        .map(|position| {
            let upload = noise.below(100) < uploaded;
            let (token, rejected) = (noise.below(2048) as u32, upload && noise.below(5) == 0);
            now += 20_000_000 + noise.below(200_000) + if upload { 30_000_000 + noise.below(10_000_000) } else { 0 };
            let mut cost = |base: u64, spread: u64| if upload { base + noise.below(spread) } else { 0 };
            let (uplink, downlink) = (Span(cost(8_000_000, 4_000_000)), Span(cost(5_000_000, 1_000_000)));
            let (queue, batch) = (Span(cost(0, 4_000_000)), Span(cost(1_000, 50_000)));
            let compute = Span(cost(3_000_000, 2_000_000));
            let (fed_tokens, cloud) = (cost(1, 12) as u32, cost(100_000_000, 50_000_000));
            RoundRecord {
                position,
                token,
                draft: if rejected { token ^ 77 } else { token },
                rejections: position / 9,
                source: match (upload, rejected) {
                    (false, _) => Source::Skipped,
                    (true, false) => Source::Accepted,
                    (true, true) => Source::Replaced,
                },
                reason: if upload { GateReason::Uncertain } else { GateReason::Certain },
                uncertainty: noise.share(),
                importance: f32::NAN,
                importance_threshold: f32::NAN,
                draft_probability: noise.share(),
                price: f32::NAN,
                committed_at: Time(now),
                waiting: Span::ZERO,
                upload: upload.then(|| UploadCost {
                    attempts: 1,
                    uplink_bits: 65_536,
                    uplink_bytes: 8_230 + fed_tokens,
                    downlink_bytes: 74,
                    snr_db: noise.share() * 20.0,
                    uplink,
                    downlink,
                    verify: VerifyCost {
                        queue_wait: queue,
                        batch_wait: batch,
                        compute,
                        fed_tokens,
                        nanojoules: cloud,
                        paper_nanojoules: cloud / u64::from(fed_tokens),
                    },
                }),
            }
        })
        .collect()
}

/// Rounds as `ui-hlm` leaves them live, with about `uploaded` of 100 tokens sent to the pool: what follows from something
/// else follows here too. u(t) counts twentieths, a gap is the draft and the way of the upload, the verifier's joules are
/// those of its time.
pub(crate) fn usual_rounds(noise: &mut Noise, count: u32, uploaded: u64) -> Vec<RoundRecord> {
    let mut now = noise.below(60_000_000_000);
    let mut rejections = 0;
    let mut rounds = plausible_rounds(noise, count, uploaded);
    for round in &mut rounds {
        let upload = round.upload.is_some();
        // Most drafts are nearly certain.
        let doubt = noise.share() * noise.share() * noise.share();
        round.draft_probability = 1.0 - doubt;
        round.uncertainty = (doubt * 20.0).round() / 20.0;
        round.importance = if upload || noise.below(3) == 0 { 1.0 + noise.share() * noise.share() } else { f32::NAN };
        round.importance_threshold = if round.importance.is_nan() { f32::NAN } else { 1.05 };
        round.rejections = rejections;
        if round.source == Source::Replaced {
            rejections += 1;
        }
        now += 20_000_000 + noise.below(60_000) * noise.below(4);
        if let Some(cost) = &mut round.upload {
            // One of up to four sequences in a batch of 15 W.
            let work = 1 + noise.below(3 + u64::from(round.position % 8)) as u32;
            let verify = &mut cost.verify;
            verify.fed_tokens = work;
            verify.nanojoules = 15 * verify.compute.0 * u64::from(work) / (u64::from(work) + 3 * noise.below(4));
            verify.paper_nanojoules = verify.nanojoules / u64::from(work);
            verify.queue_wait.0 = if noise.below(3) == 0 { noise.below(4_000_000) } else { noise.below(30_000) };
            cost.uplink_bytes = 8_230 + work;
            now += cost.uplink.0 + cost.downlink.0 + cost.verify.pool_time().0;
        }
        round.committed_at = Time(now);
    }
    rounds
}

/// A batch of a live run.
pub(crate) fn usual_batch(noise: &mut Noise, number: u64) -> BatchRecord {
    let compute = Span(3_000_000 + noise.below(2_000_000));
    BatchRecord {
        method: 0,
        pass: 0,
        batch: number,
        verifier: VerifierId(noise.below(2) as u16),
        started: Time(number * 15_000_000 + noise.below(9_000_000)),
        compute,
        measured: compute,
        overrun: Span::ZERO,
        estimate: Span(3_900_000 + noise.below(300_000)),
        price: f32::NAN,
        sequences: 1 + noise.below(4) as u32,
        work: 1 + noise.below(24) as u32,
        catch_up: noise.below(16) as u32,
        drafts: 1 + noise.below(4) as u32,
        cached: 60 + noise.below(400),
        nanojoules: 15 * compute.0,
        measured_nanojoules: 15 * compute.0,
        unclaimed_nanojoules: 0,
        completed: true,
    }
}

/// A plausible record for these rounds.
pub(crate) fn plausible_generation(id: GenerationId, device: DeviceId, rounds: &[RoundRecord]) -> GenerationRecord {
    let started = rounds.first().map_or(Time::ZERO, |round| Time(round.committed_at.0 - 20_000_000));
    let ended = rounds.last().map_or(Time::ZERO, |round| round.committed_at);
    GenerationRecord {
        id,
        device,
        data_set: 0,
        prompt_tokens: 40,
        tokens: rounds.iter().map(|round| round.token).collect(),
        finish: FinishReason::Stop,
        scheduled: started,
        latency_target: Span::ZERO,
        started,
        first_token: rounds.first().map(|round| round.committed_at),
        ended,
        times: DeviceTimes { idle: ended.since(started), ..DeviceTimes::default() },
        airtime_up: Span::ZERO,
        airtime_down: Span::ZERO,
        counts: DeviceCounts::default(),
        uploads: UploadCounts::default(),
        energy: GenerationEnergy { device: 5_000_000_000, ..GenerationEnergy::default() },
        device_provenance: Provenance::Constant,
        radio_provenance: Provenance::Modelled,
        cloud_provenance: Provenance::Modelled,
    }
}

/// Batches by their bits.
pub(crate) fn batch_bits(batches: &[BatchRecord]) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    batches.iter().map(|batch| (BatchRecord { price: 0.0, ..*batch }, batch.price.to_bits())).collect()
}

/// Rounds by their bits: `==` says no to every NaN.
pub(crate) fn bits(rounds: &[RoundRecord]) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let bits = |round: &RoundRecord| {
        let floats = [
            round.uncertainty,
            round.importance,
            round.importance_threshold,
            round.draft_probability,
            round.price,
            round.upload.map_or(0.0, |cost| cost.snr_db),
        ]
        .map(f32::to_bits);
        let rest = RoundRecord {
            uncertainty: 0.0,
            importance: 0.0,
            importance_threshold: 0.0,
            draft_probability: 0.0,
            price: 0.0,
            upload: round.upload.map(|cost| UploadCost { snr_db: 0.0, ..cost }),
            ..*round
        };
        (rest, floats)
    };
    rounds.iter().map(bits).collect()
}
