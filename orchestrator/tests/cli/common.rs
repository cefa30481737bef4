//! Calling the `specfleet` binary and reading what it leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use specfleet_ledger::RunReader;
use tempfile::TempDir;

use crate::rows::Rows;

/// All upload methods, in the order of `--methods all`.
pub(crate) const METHODS: [&str; 11] =
    ["slm-only", "llm-only", "hlm", "rand-hlm", "u-hlm", "ui-hlm", "cu-hlm", "dssd", "block", "entropy", "max-prob"];

/// Devices as fast as this machine, over links that are not emulated, and nothing said meanwhile.
pub(crate) const FAST: [&str; 6] = ["--set", "device.profile=host", "--set", "device.link=real", "--ui", "none"];

/// Declared costs that are a tenth of a phone's, over a short wire: a live run is soon over, and a simulation knows them.
pub(crate) const QUICK: [&str; 4] = [
    "--set",
    "device.profile = { name = 'quick', source = 'these tests', kind = 'declared', draft_seconds = 0.0005, \
     draft_joules = 0.001, prefill_seconds = 0.00001, prefill_joules = 0.00001, uncertainty_seconds = 0.00005, \
     uncertainty_joules = 0.0001, importance_seconds = 0.00005, importance_joules = 0.0001, idle_watts = 0.4 }",
    "--set",
    "device.link=ethernet",
];

/// Batches that all take the same, on an ideal host: what a simulation needs no calibration for.
pub(crate) const FIXED: [&str; 6] =
    ["--set", "simulate.cost=fixed", "--set", "simulate.batch_ms=2", "--set", "simulate.host=false"];

/// A temporary folder with a ledger in it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("a temporary folder");
        fs::write(&path, contents).expect("a temporary file");
        text(&path)
    }

    /// `specfleet` with the ledger of this place, in its folder, so that nothing is left anywhere else.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_specfleet"));
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// A run: [`FAST`], into the ledger, with results in `out`.
    pub(crate) fn run(&self, out: &str, arguments: &[&str]) -> Results {
        let output = self.try_run(&[&["--out", out], arguments].concat());
        assert!(output.status.success(), "{}", said(&output));
        Results::read(&self.path(out))
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(&["run", "--ledger", "runs"]).args(FAST).args(arguments).output().expect("the binary runs")
    }

    /// A live run or a simulation that must go well: [`QUICK`], into the ledger, with results in `out`.
    pub(crate) fn quick(&self, command: &str, out: &str, arguments: &[&str]) -> Output {
        let output = self.try_quick(command, out, arguments);
        assert!(output.status.success(), "{command} {arguments:?}: {}", said(&output));
        output
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_quick(&self, command: &str, out: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(&[command, "--ledger", "runs", "--out", out, "--ui", "none"]);
        command.args(QUICK).args(arguments).output().expect("the binary runs")
    }

    /// The listed run whose results are in `out`.
    pub(crate) fn run_of(&self, out: &str) -> Value {
        let identity = fs::read_to_string(self.path(out).join("run.json")).expect("run.json");
        let identity: Value = serde_json::from_str(&identity).expect("JSON");
        let listed = self.runs().into_iter().find(|run| run["run"] == identity["run"]);
        listed.unwrap_or_else(|| panic!("{} is not listed", identity["run"]))
    }

    /// The name of the run whose results are in `out`.
    pub(crate) fn name_of(&self, out: &str) -> String {
        self.run_of(out)["run"].as_str().expect("a run has a name").to_owned()
    }

    /// What the run whose results are in `out` has stored.
    pub(crate) fn rows_of(&self, out: &str) -> Rows {
        Rows::read(&self.reader(&self.run_of(out)))
    }

    /// A run or a simulation that goes on while the test does something else.
    pub(crate) fn start(&self, command: &str, arguments: &[&str]) -> Running {
        let mut command = self.command(&[command, "--ledger", "runs", "--ui", "none"]);
        // Tests under nohup have SIGHUP ignored, and so would their children.
        if cfg!(target_os = "linux") {
            let mut hearing = Command::new("env");
            hearing.current_dir(self.folder.path()).arg("--default-signal=HUP").arg(command.get_program());
            command = {
                hearing.args(command.get_args());
                hearing
            };
        }
        let child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Running { child: child.expect("the binary runs") }
    }

    /// What `specfleet runs --json` says.
    pub(crate) fn runs(&self) -> Vec<Value> {
        let output = self.command(&["runs", "--ledger", "runs", "--json"]).output().expect("the binary runs");
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).expect("a JSON list")
    }

    /// Waits until the only run has stored at least this many generations.
    pub(crate) fn wait_for_generations(&self, count: u64) -> Value {
        let started = Instant::now();
        loop {
            let runs = self.runs();
            if let Some(run) = runs.first().filter(|run| run["progress"]["generations"].as_u64() >= Some(count)) {
                return run.clone();
            }
            assert!(started.elapsed() < Duration::from_secs(60), "no {count} generations in a minute: {runs:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a run that is being written has stored at least this many generations.
    pub(crate) fn wait_for_running(&self, count: u64) {
        wait_for(|| {
            let stored = |run: &Value| run["progress"]["generations"].as_u64() >= Some(count);
            self.runs().iter().any(|run| run["state"] == "running" && stored(run)).then_some(())
        });
    }

    /// Opens the stored rows of a listed run.
    pub(crate) fn reader(&self, run: &Value) -> RunReader {
        let name = run["run"].as_str().expect("a run has a name");
        RunReader::open(&self.path("runs").join(name)).expect("an ended run can be read")
    }
}

/// What `look` finds, as soon as it finds anything.
pub(crate) fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "nothing in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Changes a run's `meta.json` as a program would that knows of its checksum.
pub(crate) fn put_meta(path: &Path, meta: &Value) {
    let mut meta = meta.clone();
    meta.as_object_mut().expect("an object").remove("checksum");
    fs::write(path, specfleet_files::sealed::seal(format!("{meta:#}").as_bytes())).expect("a file");
}

/// A child that is killed at the end of the test, however that ends.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn of(child: Child) -> Running {
        Running { child }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }

    /// SIGINT, and what it ends with; fails if that takes longer than `limit`.
    pub(crate) fn interrupt(self, limit: Duration) -> (ExitStatus, String) {
        self.signal("-INT", limit)
    }

    /// A signal, and what it ends with; fails if that takes longer than `limit`.
    pub(crate) fn signal(mut self, signal: &str, limit: Duration) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
        let sent = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                let mut said = String::new();
                let mut pipe = self.child.stderr.take().expect("it is piped");
                std::io::Read::read_to_string(&mut pipe, &mut said).expect("text");
                return (status, said);
            }
            assert!(sent.elapsed() < limit, "still running {limit:?} after {signal}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The files of `--out`.
pub(crate) struct Results {
    pub(crate) summary: Value,
    pub(crate) lines: Vec<Value>,
}

impl Results {
    pub(crate) fn read(folder: &Path) -> Results {
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
        let line = |line: &str| serde_json::from_str(line).expect("a line is a JSON object");
        Results {
            summary: serde_json::from_str(&read("summary.json")).expect("JSON"),
            lines: read("generations.jsonl").lines().map(line).collect(),
        }
    }

    /// Token ids and uploaded positions by method and prompt.
    pub(crate) fn decisions(&self) -> BTreeMap<(String, u64), (Value, Value)> {
        let key = |line: &Value| {
            (line["method"].as_str().expect("a name").to_owned(), line["prompt_id"].as_u64().expect("a number"))
        };
        let decisions: BTreeMap<_, _> = self
            .lines
            .iter()
            .map(|line| (key(line), (line["token_ids"].clone(), line["uploaded_positions"].clone())))
            .collect();
        assert_eq!(decisions.len(), self.lines.len(), "one line per prompt and method");
        decisions
    }

    /// Token ids by prompt under one method.
    pub(crate) fn tokens(&self, method: &str) -> BTreeMap<u64, Value> {
        self.decisions().into_iter().filter(|((m, _), _)| m == method).map(|((_, p), (t, _))| (p, t)).collect()
    }

    /// The run is valid and every upload ended exactly once.
    pub(crate) fn assert_sound(&self) {
        let summary = &self.summary;
        assert_eq!(summary["state"], "VALID", "{:?}", summary["problems"]);
        let count = |name: &str| summary["uploads"][name].as_u64().expect("a count");
        assert_eq!(count("sent"), count("verdicts") + count("refused") + count("cancelled"), "{}", summary["uploads"]);
    }
}

/// Calls `specfleet` about what lies in the ledger of a place.
pub(crate) fn call(place: &Place, arguments: &[&str]) -> Output {
    place.command(arguments).args(["--ledger", "runs"]).output().expect("the binary runs")
}

/// What it prints when all is well, which is all that it says.
pub(crate) fn printed(place: &Place, arguments: &[&str]) -> String {
    let output = call(place, arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// Both streams, for messages.
pub(crate) fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("Unicode").to_owned()
}

/// Copies an embedded model into a folder of its own.
pub(crate) fn copy_model(which: &str, to: &Path) {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets");
    fs::create_dir_all(to).expect("a temporary folder");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(assets.join(which).join(name), to.join(name)).expect(name);
    }
    fs::copy(assets.join("tokenizer.json"), to.join("tokenizer.json")).expect("tokenizer.json");
}

/// Sorted keys of a JSON object.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}
