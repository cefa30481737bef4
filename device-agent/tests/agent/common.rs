//! A pool in miniature: real QUIC and real frames, but one connection's uploads are judged one by one, at once, by the
//! verifier itself. What it can do that a real pool does not: refuse, forget and dawdle on purpose.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::Addr;
use device_agent::{
    AgentError, AgentOptions, Connector, ConnectorOptions, Device, DeviceEvent, DeviceJournal, Drafter, Generate,
    HostClock, Timer, Trust,
};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use specfleet_engine::acceptance::{Next, verifier_draw, verify_outcome};
use specfleet_engine::calibration::{MethodOverrides, resolve};
use specfleet_engine::device::energy::{DeviceCost, DeviceProfile, StepCost};
use specfleet_engine::device::link::{Fading, LinkProfile, LinkRate};
use specfleet_engine::device::{DeviceSettings, OnRefused, OnUnreachable, Retry};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::Sampling;
use specfleet_engine::pool::RefuseReason;
use specfleet_engine::record::{ACCOUNTING, GenerationRecord, RoundRecord, VerifyCost};
use specfleet_engine::time::Span;
use specfleet_engine::wire::{
    ALPN, AdmissionToken, ClientFrame, FrameDecoder, FrameLimits, Hello, PROTOCOL_VERSION, ServerFrame, Upload,
    UploadJob, VerdictFrame, VerifierIdentity, Welcome, encode, greet,
};
use specfleet_model::{
    Embedded, KvArena, LogitRows, Model, ModelDigests, Precision, SeqStep, Tokenizer, kernel_digest,
};
use tokio::sync::mpsc;

/// The embedded pair and its tokenizer, loaded once.
pub(crate) struct Pair {
    pub(crate) drafter: Model,
    pub(crate) verifier: Model,
    pub(crate) tokenizer: Tokenizer,
}

pub(crate) fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| Pair {
        drafter: Model::embedded(Embedded::Drafter, Precision::Q8_0).expect("part of the binary"),
        verifier: Model::embedded(Embedded::Verifier, Precision::Q8_0).expect("part of the binary"),
        tokenizer: Tokenizer::embedded().expect("part of the binary"),
    })
}

pub(crate) fn limits() -> FrameLimits {
    let shape = pair().verifier.shape();
    FrameLimits::for_pair(shape.vocab, shape.context)
}

/// How a pool misbehaves. Uploads are counted over all its connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// Refuse every n-th upload for lack of room.
    pub(crate) refuse_every: Option<u32>,
    /// Judge every n-th upload, but keep the verdict.
    pub(crate) drop_every: Option<u32>,
    /// Wait before each verdict.
    pub(crate) delay: Duration,
    /// Pretend to have another tokenizer.
    pub(crate) other_tokenizer: bool,
    /// After so many uploads, end the connections and have another verifier from then on.
    pub(crate) changes_after: Option<u32>,
    /// What refusals announce as the pool's price.
    pub(crate) price: f32,
}

pub(crate) struct FakePool {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
    /// The same as PEM.
    pub(crate) pem: String,
    pub(crate) state: Arc<PoolState>,
}

pub(crate) struct PoolState {
    behaviour: Behaviour,
    pub(crate) connections: AtomicU32,
    pub(crate) uploads: AtomicU32,
    arena: Mutex<KvArena>,
}

impl FakePool {
    /// Starts on the current runtime; ends with it.
    pub(crate) fn start(behaviour: Behaviour) -> FakePool {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate = made.cert.der().clone();
        let pem = made.cert.pem();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .expect("a matching key");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")));
        let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = endpoint.local_addr().expect("bound");
        let arena = Mutex::new(KvArena::new(&pair().verifier, 64 << 20));
        let state =
            Arc::new(PoolState { behaviour, connections: AtomicU32::new(0), uploads: AtomicU32::new(0), arena });
        let of_task = Arc::clone(&state);
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let state = Arc::clone(&of_task);
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        state.connections.fetch_add(1, Ordering::Relaxed);
                        // Errors are the ends of connections.
                        let _ = serve(connection, &state).await;
                    }
                });
            }
        });
        FakePool { address, certificate, pem, state }
    }

    pub(crate) fn connector(&self) -> Connector {
        connector(self.address, Trust::Pinned(self.certificate.clone()), Duration::from_secs(5))
    }
}

pub(crate) fn connector(server: SocketAddr, trust: Trust, idle_timeout: Duration) -> Connector {
    let options = ConnectorOptions {
        server,
        server_name: "localhost".to_owned(),
        trust,
        identity: None,
        endpoints: 2,
        idle_timeout,
        limits: limits(),
    };
    Connector::new(options).expect("a socket")
}

type Broken = Box<dyn std::error::Error>;

async fn serve(connection: quinn::Connection, state: &PoolState) -> Result<(), Broken> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    let mut decoder = FrameDecoder::<ClientFrame>::new(limits());
    let mut sessions: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut greeted = false;
    while let Some(piece) = recv.read_chunk(64 * 1024, true).await? {
        decoder.push(&piece.bytes);
        while let Some((frame, _)) = decoder.next_frame()? {
            let mut answers = Vec::new();
            if !greeted {
                greeted = true;
                let answer = match greet(&ours(state.behaviour.other_tokenizer), &frame) {
                    Ok(()) => ServerFrame::Welcome(state.welcome()),
                    Err(goodbye) => ServerFrame::Goodbye(goodbye),
                };
                answers.push(answer);
            } else {
                match frame {
                    ClientFrame::Upload(_) if state.changes_now() => return Ok(()),
                    ClientFrame::Upload(upload) => {
                        tokio::time::sleep(state.behaviour.delay).await;
                        answers = state.answer(*upload, &mut sessions);
                    }
                    ClientFrame::Close { session, .. } => drop(sessions.remove(&session)),
                    ClientFrame::Hello(_) | ClientFrame::Cancel { .. } | ClientFrame::Promise { .. } => {}
                }
            }
            for answer in &answers {
                let mut bytes = Vec::new();
                encode(answer, limits(), &mut bytes)?;
                send.write_all(&bytes).await?;
            }
        }
    }
    Ok(())
}

fn ours(other_tokenizer: bool) -> Hello {
    let tokenizer = if other_tokenizer { [0; 32] } else { pair().tokenizer.digest() };
    Hello {
        protocol: PROTOCOL_VERSION,
        tokenizer,
        vocab: pair().verifier.shape().vocab as u32,
        admission: AdmissionToken::NONE,
    }
}

impl PoolState {
    /// Waits until so many uploads have come.
    pub(crate) async fn has_seen(&self, uploads: u32) {
        while self.uploads.load(Ordering::Relaxed) < uploads {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What the pool says of itself now.
    fn welcome(&self) -> Welcome {
        let (verifier, digests) = (&pair().verifier, ModelDigests::embedded(Embedded::Verifier));
        let identity = VerifierIdentity {
            model: digests.whole,
            weights: digests.weights,
            configuration: digests.configuration,
            precision: verifier.precision().to_string().try_into().expect("a name"),
            kernels: kernel_digest().expect("every machine computes something"),
        };
        let has_changed = self.behaviour.changes_after.is_some_and(|n| self.uploads.load(Ordering::Relaxed) > n);
        let verifier =
            if has_changed { VerifierIdentity { weights: [9; 32], model: [9; 32], ..identity } } else { identity };
        Welcome { protocol: PROTOCOL_VERSION, context: 1024, verifier }
    }

    /// Whether this upload is the one that the verifier changes at.
    fn changes_now(&self) -> bool {
        let changes = self.behaviour.changes_after.is_some_and(|n| self.uploads.load(Ordering::Relaxed) == n);
        if changes {
            self.uploads.fetch_add(1, Ordering::Relaxed);
        }
        changes
    }

    fn answer(&self, upload: Upload, sessions: &mut BTreeMap<u32, Vec<u32>>) -> Vec<ServerFrame> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed) + 1;
        let is_nth = |every: Option<u32>| every.is_some_and(|n| number.is_multiple_of(n));
        let tokens = sessions.entry(upload.session).or_default();
        let refuse = |reason| {
            let retry_after = Span::from_millis(1);
            vec![ServerFrame::Refused {
                session: upload.session,
                upload: upload.upload,
                reason,
                retry_after,
                price: self.behaviour.price,
            }]
        };
        if is_nth(self.behaviour.refuse_every) {
            return refuse(RefuseReason::QueueFull);
        }
        if upload.base as usize > tokens.len() {
            return refuse(RefuseReason::UnknownBase);
        }
        tokens.truncate(upload.base as usize);
        tokens.extend(&upload.tokens);
        let verdicts = match &upload.job {
            UploadJob::Judge { drafts, payloads, bonus } => {
                let rows = drafts.len() + usize::from(*bonus);
                let fed: Vec<u32> = tokens.iter().chain(&drafts[..rows - 1]).copied().collect();
                let logits = logits(&mut self.arena.lock().expect("no panic"), &fed, rows);
                let vocab = pair().verifier.shape().vocab;
                match verify_outcome(&logits, vocab, &upload.sampling, upload.key, drafts, payloads, *bonus) {
                    Ok(outcome) => {
                        tokens.extend(&drafts[..outcome.accepted as usize]);
                        if let Next::Replacement(token) | Next::Bonus(token) = outcome.next {
                            tokens.push(token);
                        }
                        vec![verdict(&upload, outcome.accepted as u8, outcome.next, false)]
                    }
                    Err(error) => panic!("the device sent a bad payload: {error}"),
                }
            }
            UploadJob::Write { limit } => {
                let mut verdicts = Vec::new();
                for left in (0..*limit).rev() {
                    let logits = logits(&mut self.arena.lock().expect("no panic"), tokens, 1);
                    let token = verifier_draw(&logits, &upload.sampling, upload.key.at(tokens.len() as u32));
                    tokens.push(token);
                    let more = left > 0 && !pair().verifier.shape().eos.contains(&token);
                    verdicts.push(verdict(&upload, 0, Next::Bonus(token), more));
                    if !more {
                        break;
                    }
                }
                verdicts
            }
        };
        if is_nth(self.behaviour.drop_every) { Vec::new() } else { verdicts }
    }
}

fn verdict(upload: &Upload, accepted: u8, next: Next, more: bool) -> ServerFrame {
    ServerFrame::Verdict(Box::new(VerdictFrame {
        session: upload.session,
        upload: upload.upload,
        accepted,
        next,
        more,
        cost: VerifyCost {
            queue_wait: Span::ZERO,
            batch_wait: Span::ZERO,
            compute: Span(1000),
            fed_tokens: 1,
            nanojoules: 7,
            paper_nanojoules: 5,
        },
        price: 0.0,
    }))
}

/// The verifier's logits of the last `rows` rows of a whole sequence.
fn logits(arena: &mut KvArena, tokens: &[u32], rows: usize) -> Vec<f32> {
    let seq = arena.open();
    let step = SeqStep { seq, tokens, logits: LogitRows::Last(rows), attention: None };
    let output = pair().verifier.forward(arena, &[step]).expect("it fits");
    arena.close(seq);
    output.logits(0).to_vec()
}

/// What the verifier itself writes greedily behind `prompt`.
pub(crate) fn greedy(prompt: &[u32], limit: usize) -> Vec<u32> {
    let mut arena = KvArena::new(&pair().verifier, 16 << 20);
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + limit {
        let row = logits(&mut arena, &tokens, 1);
        let best = specfleet_engine::distribution::Distribution::from_logits(&row, &sampling(0.0)).arg_max();
        tokens.push(best);
        if pair().verifier.shape().eos.contains(&best) {
            break;
        }
    }
    tokens.split_off(prompt.len())
}

pub(crate) fn sampling(temperature: f32) -> Sampling {
    Sampling { temperature, top_k: 0, top_p: 1.0 }
}

/// A prompt of the kind that the embedded pair has learnt.
pub(crate) fn prompt(number: u32) -> Arc<[u32]> {
    let text = format!(
        "Question: Tom has {} apples and buys {} more. He eats {}. How many apples does he have?\nAnswer:",
        number + 5,
        2 * number + 3,
        number % 3 + 1
    );
    pair().tokenizer.encode(&text).expect("plain text").into()
}

/// Settings of a method on this machine over a link that takes no time; tests change what they are about.
pub(crate) fn settings(method: &str, overrides: &MethodOverrides, temperature: f32) -> DeviceSettings {
    let shape = pair().drafter.shape();
    DeviceSettings {
        method: resolve(None, method, overrides).expect("a method that needs no calibration"),
        sampling: sampling(temperature),
        seed: 7,
        max_new_tokens: 24,
        context: shape.context as u32,
        vocab: shape.vocab as u32,
        end_tokens: shape.eos.clone(),
        profile: DeviceProfile {
            name: "host".to_owned(),
            source: "tests".to_owned(),
            cost: DeviceCost::Host { active_watts: 10.0 },
            idle_watts: 1.0,
        },
        link: link(false),
        verdict_timeout: Span::from_millis(20_000),
        retry: Retry { first: Span::from_millis(1), last: Span::from_millis(20) },
        on_unreachable: OnUnreachable::Wait,
        unreachable_after: Span::from_millis(50),
        on_refused: OnRefused::Retry,
        latency_target: Span::ZERO,
        battery_nanojoules: 0,
        outages: None,
    }
}

pub(crate) fn link(emulated: bool) -> LinkProfile {
    LinkProfile {
        name: "tests".to_owned(),
        source: "tests".to_owned(),
        emulated,
        rate: LinkRate::Fading {
            uplink_hz: 20e6,
            downlink_hz: 20e6,
            snr_db: 10.0,
            fading: Fading::Rayleigh,
            coherence: Span::from_millis(10),
            min_bits_per_second: 0.0,
        },
        round_trip: Span::from_millis(2),
        transmit_watts: 1.0,
        receive_watts: 0.5,
    }
}

pub(crate) fn declared() -> DeviceCost {
    let step = |micros: u64| StepCost { span: Span(micros * 1000), nanojoules: micros * 1000 };
    DeviceCost::Declared { draft: step(1500), prefill: step(20), uncertainty: step(200), importance: step(100) }
}

/// A started device and everything that it reports.
pub(crate) struct Rig {
    pub(crate) device: Addr<Device>,
    pub(crate) events: mpsc::Receiver<DeviceEvent>,
}

impl Rig {
    pub(crate) fn start(settings: DeviceSettings, drafter: &Drafter, connector: Connector, number: u32) -> Rig {
        Rig::start_with(settings, drafter, connector, number, None)
    }

    pub(crate) fn start_with(
        settings: DeviceSettings,
        drafter: &Drafter,
        connector: Connector,
        number: u32,
        journal: Option<DeviceJournal>,
    ) -> Rig {
        // A queue of one: every test is a test of waiting for room too.
        let (sender, events) = mpsc::channel(1);
        let options = AgentOptions {
            device: DeviceId(number),
            settings: Arc::new(settings),
            drafter: drafter.clone(),
            connector,
            timer: Timer::start().expect("threads can be started"),
            tokenizer_digest: pair().tokenizer.digest(),
            events: sender,
            clock: HostClock::start().expect("threads can be started"),
            admission: AdmissionToken::NONE,
            shares_clock: false,
            in_a_row: 0,
            journal,
        };
        Rig { device: Device::start(options).expect("valid settings"), events }
    }

    /// Runs one generation and checks what holds for every one.
    pub(crate) async fn generate(&mut self, number: u32) -> (Result<GenerationRecord, AgentError>, Vec<RoundRecord>) {
        let generation = GenerationId { method: 0, prompt: number, repetition: 0, pass: 0 };
        let device = self.device.clone();
        let answer = tokio::spawn(async move {
            device
                .send(Generate { generation, data_set: 0, prompt: prompt(number), scheduled: None })
                .await
                .expect("it lives")
        });
        let mut rounds = Vec::new();
        let record = loop {
            match self.events.recv().await.expect("it lives") {
                DeviceEvent::Round { record, .. } => rounds.push(record),
                DeviceEvent::Finished(record) => break *record,
            }
        };
        let answer = answer.await.expect("no panic");
        if let Ok(answer) = &answer {
            assert_eq!(*answer, record);
        }
        assert_eq!(record.uploads.sent, record.uploads.verdicts + record.uploads.refused + record.uploads.cancelled);
        assert_eq!(record.times.total(ACCOUNTING), record.ended.since(record.started), "{:?}", record.times);
        assert_eq!(rounds.iter().map(|round| round.token).collect::<Vec<_>>(), record.tokens);
        assert!(rounds.iter().enumerate().all(|(index, round)| round.position as usize == index));
        (answer, rounds)
    }
}

pub(crate) fn drafter() -> Drafter {
    Drafter::start(pair().drafter.clone(), 64 << 20, 1).expect("threads can be started")
}

/// One generation on one device.
pub(crate) async fn run_one(
    settings: DeviceSettings,
    behaviour: Behaviour,
    number: u32,
) -> (GenerationRecord, Vec<RoundRecord>) {
    let pool = FakePool::start(behaviour);
    let mut rig = Rig::start(settings, &drafter(), pool.connector(), 0);
    let (record, rounds) = rig.generate(number).await;
    (record.expect("it succeeds"), rounds)
}

/// Runs a test on an actix system of its own.
pub(crate) fn system<F: Future<Output = ()> + 'static>(test: F) {
    actix::System::new().block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("a test that hangs has failed");
    });
}
