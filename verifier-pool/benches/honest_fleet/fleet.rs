//! The honest fleets: a `specfleet run`, and a `verifier-pool` with eight `device-agent`s at a time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::pages::{Answers, Reader};
use crate::process::{Beside, Done, Peak, Program, Watch};
use crate::rows::{Http, Row, Target};

/// Devices at a time.
pub(crate) const DEVICES: usize = 8;

/// Answers that the agents write in a leg, all of them together.
const TASKS: usize = 80;

/// Newcomers beside first packets, and the time between two.
const NEWCOMERS: (usize, Duration) = (15, Duration::from_millis(500));

/// How long a leg may take. One that takes longer has not ended.
const LIMIT: Duration = Duration::from_secs(100);

/// Where the programs are, and what they share.
pub(crate) struct Place {
    programs: PathBuf,
    folder: TempDir,
    questions: Vec<String>,
    /// What the agents are told of themselves.
    devices: Vec<String>,
}

/// Who is there beside a fleet.
#[derive(Clone, Copy)]
pub(crate) enum Company {
    Nobody,
    Attacker,
    /// Takes this share of a processor.
    Burner(f64),
}

/// What a fleet did.
#[derive(Default)]
pub(crate) struct Leg {
    /// Token ids of each answer.
    pub(crate) answers: BTreeMap<String, Value>,
    pub(crate) tokens: usize,
    pub(crate) seconds: f64,
    /// It ended by itself, in time, and whole: a run as VALID, agents without an error.
    pub(crate) sound: bool,
    /// Of the process with the pool.
    pub(crate) peak: Peak,
    /// Of the company.
    pub(crate) done: Option<Done>,
    /// Newcomers that were welcomed and got their answer, and the longest that took.
    pub(crate) newcomers: Option<(usize, Duration)>,
    pub(crate) pages: Option<Answers>,
    /// Upload rate and exact match of a run's first method, in per cent.
    pub(crate) figures: Option<(f64, f64)>,
}

impl Leg {
    /// Tokens per second of the whole fleet.
    pub(crate) fn rate(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

impl Place {
    /// Programs of this folder; `are_fast`: agents are as fast as this machine, and not as a phone.
    pub(crate) fn new(programs: PathBuf, are_fast: bool) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        fs::write(folder.path().join("pool.pem"), made.cert.pem()).expect("writable");
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("writable");
        let workload = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/workloads/word-problems.jsonl");
        let question = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["question"].as_str().expect("text").to_owned()
        };
        let questions = fs::read_to_string(workload).expect("it ships").lines().map(question).collect();
        let phone = ["--set", "device.profile=phone", "--set", "device.link=fair"].map(str::to_owned).to_vec();
        Place { programs, folder, questions, devices: if are_fast { Vec::new() } else { phone } }
    }

    /// One fleet's work, beside somebody.
    pub(crate) fn leg(&self, row: &Row, company: Company) -> Leg {
        let address = free_udp();
        let http = row.http.as_ref().map(|_| free_tcp());
        let beside = match company {
            Company::Nobody => None,
            Company::Burner(share) => Some(Beside::ready(&["burn", &share.to_string()])),
            Company::Attacker => {
                let (target, certificate) = (row.target.name(), self.path("pool.pem"));
                let called = http.unwrap_or(address).to_string();
                let (what, connections) =
                    row.http.as_ref().map_or((certificate.as_str(), ""), |http| (http.attacked, http.connections));
                Some(Beside::ready(&["attack", row.attack, target, &called, what, connections]))
            }
        };
        match row.target {
            Target::Run => self.run(row, address, http, beside),
            Target::Pool => self.pool(row, address, http, beside),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A program of the fleet, in the folder of this bench; what it says goes to files there.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.path(&format!("{name}.err"))).expect("writable"));
        command
    }

    /// Arguments for a pool at this address.
    fn pool_arguments(&self, address: SocketAddr) -> [String; 6] {
        let keys = [
            format!("pool.listen={address}"),
            format!("pool.tls.certificate={}", self.path("pool.pem")),
            format!("pool.tls.key={}", self.path("key.pem")),
        ];
        let [listen, certificate, key] = keys;
        let set = || "--set".to_owned();
        [set(), listen, set(), certificate, set(), key]
    }

    fn run(&self, row: &Row, address: SocketAddr, http: Option<SocketAddr>, mut beside: Option<Beside>) -> Leg {
        let out = self.folder.path().join("out");
        // There is none yet before the first.
        let _ = fs::remove_dir_all(&out);
        let _ = fs::remove_dir_all(self.folder.path().join("runs"));
        let mut command = self.program("specfleet");
        command.args(["run", "--ui", "none", "--ledger", "runs", "--out", "out", "--verifiers", "2", "--devices"]);
        command.arg(DEVICES.to_string()).args(row.scenario).args(self.pool_arguments(address));
        if let (Some(Http { flag, .. }), Some(http)) = (&row.http, http) {
            command.arg(format!("{flag}={http}"));
        }
        let mut program = Program::start(&mut command);
        until_bound(address);
        let began = Instant::now();
        let watch = Watch::start(program.0.id());
        if let Some(beside) = &mut beside {
            beside.begin();
        }
        let reader = http.zip(row.http.as_ref()).map(|(address, http)| Reader::start(address, http.read));
        let status = program.end(LIMIT);
        let seconds = began.elapsed().as_secs_f64();
        let (pages, done, peak) = (reader.map(Reader::stop), beside.map(Beside::end), watch.stop());
        let mut leg = Leg { seconds, pages, done, peak, ..Leg::default() };
        if !status.is_some_and(|status| status.success()) {
            return leg;
        }
        let read = |name: &str| fs::read_to_string(out.join(name)).expect("a run writes it");
        for line in read("generations.jsonl").lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            leg.answers.insert(format!("{} {}", line["method"], line["prompt_id"]), line["token_ids"].clone());
        }
        leg.tokens = leg.answers.values().filter_map(Value::as_array).map(Vec::len).sum();
        let summary: Value = serde_json::from_str(&read("summary.json")).expect("JSON");
        leg.sound = summary["state"] == "VALID";
        let method = summary["methods"].as_object().and_then(|methods| methods.values().next());
        let figure = |name: &str| 100.0 * method.map_or(f64::NAN, |m| m[name]["mean"].as_f64().unwrap_or(f64::NAN));
        leg.figures = Some((figure("upload_rate"), figure("exact_match")));
        leg
    }

    fn pool(&self, row: &Row, address: SocketAddr, http: Option<SocketAddr>, mut beside: Option<Beside>) -> Leg {
        let mut command = self.program("verifier-pool");
        command.args(["--verifiers", "2", "--set", "run.devices=8"]).args(self.pool_arguments(address));
        if let (Some(Http { flag, .. }), Some(http)) = (&row.http, http) {
            command.arg(format!("{flag}={http}"));
        }
        let mut program = Program::start(command.stdout(Stdio::piped()));
        let mut greeting = String::new();
        let stdout = program.0.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut greeting).expect("text");
        assert!(greeting.starts_with("listening on "), "{greeting}");
        let watch = Watch::start(program.0.id());
        if let Some(beside) = &mut beside {
            beside.begin();
            beside.wait_for("under way");
        }
        let reader = http.zip(row.http.as_ref()).map(|(address, http)| Reader::start(address, http.read));
        let began = Instant::now();
        let (answers, failures, newcomers) = self.agents(address, row.has_newcomers, began);
        Leg {
            seconds: began.elapsed().as_secs_f64(),
            tokens: answers.values().filter_map(Value::as_array).map(Vec::len).sum(),
            sound: answers.len() == TASKS && failures == 0,
            answers,
            pages: reader.map(Reader::stop),
            done: beside.map(Beside::end),
            newcomers,
            peak: watch.stop(),
            figures: None,
        }
    }

    /// Agents at work, one process per answer: the answers, how many agents failed, and how newcomers fared.
    fn agents(
        &self,
        address: SocketAddr,
        has_newcomers: bool,
        began: Instant,
    ) -> (BTreeMap<String, Value>, usize, Option<(usize, Duration)>) {
        let (next, failures, answers) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let mut welcomed = None;
        thread::scope(|scope| {
            for _ in 0..DEVICES {
                scope.spawn(|| {
                    loop {
                        let task = next.fetch_add(1, Ordering::SeqCst);
                        if task >= TASKS {
                            break;
                        }
                        // Who finds no place comes again.
                        let answer = loop {
                            if began.elapsed() > LIMIT {
                                return;
                            }
                            match self.agent(address, task) {
                                Some(answer) => break answer,
                                None => _ = failures.fetch_add(1, Ordering::SeqCst),
                            }
                        };
                        answers.lock().expect("no panic").insert(task.to_string(), answer);
                    }
                });
            }
            if has_newcomers {
                let newcomers: Vec<_> = (0..NEWCOMERS.0)
                    .map(|number| {
                        thread::sleep(NEWCOMERS.1);
                        scope.spawn(move || {
                            let began = Instant::now();
                            self.agent(address, TASKS + number).map(|_| began.elapsed())
                        })
                    })
                    .collect();
                let took = newcomers.into_iter().filter_map(|newcomer| newcomer.join().expect("no panic"));
                let took: Vec<Duration> = took.collect();
                welcomed = Some((took.len(), took.into_iter().max().unwrap_or_default()));
            }
        });
        (answers.into_inner().expect("no panic"), failures.into_inner(), welcomed)
    }

    /// One agent that answers one question; `None` if it fails.
    fn agent(&self, address: SocketAddr, task: usize) -> Option<Value> {
        let question = &self.questions[task % self.questions.len()];
        let output = self
            .program("device-agent")
            .args(["--connect", &address.to_string(), "--certificate", &self.path("pool.pem"), "--json"])
            .args(["--seed", &task.to_string(), "--prompt", question])
            .args(&self.devices)
            .stdout(Stdio::piped())
            .output()
            .expect("it runs");
        let told: Value = serde_json::from_slice(&output.stdout).ok()?;
        output.status.success().then(|| told["token_ids"].clone())
    }
}

/// An address that is free, most likely.
fn free_udp() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
}

/// The same, for connections.
fn free_tcp() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
}

/// Waits until somebody listens there.
fn until_bound(address: SocketAddr) {
    let began = Instant::now();
    // The table has numbers of ports in hexadecimal digits.
    let port = format!(":{:04X} ", address.port());
    while !fs::read_to_string("/proc/net/udp").expect("Linux").lines().any(|line| line.contains(&port)) {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody listens at {address}");
        thread::sleep(Duration::from_millis(2));
    }
}
