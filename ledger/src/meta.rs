//! The plain files beside a store: what a run is (`meta.json`), how far it got (`progress.json`), and what became of it as
//! a whole if the rows do not say (`summary.json`).
//!
//! They are read before, and often instead of, the store: a listing opens nothing else, and a store of another schema
//! is refused before sled could touch it. Both are replaced by writing a new file and renaming it over the old one, so a
//! reader sees the old or the new content, never a half.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use specfleet_engine::disturbance::{Disturbance, Noise, StoodStill};
use specfleet_engine::method::Method;
use specfleet_engine::record::RunClock;
use specfleet_files::sealed::{self, Seal};

use crate::error::LedgerError;
use crate::id::RunId;
use crate::inputs::Inputs;
use crate::manifest::{Manifest, Tables};
use crate::scores::Scorer;

/// The schema that this program writes, and the only one that it reads: a program of its time can export a run of an older
/// one, and this one can import it. It grows when a stored row or a plain file changes its meaning; a field that older
/// programs may ignore does not change it.
pub const SCHEMA: u32 = 6;

/// Most bytes of a plain file that is read: far more than the methods and calibrations of any run take.
const MOST: u64 = specfleet_files::DATA;

/// Where a new run's rows lie.
pub(crate) const FIRST_STORE: &str = "store";

fn first_store() -> String {
    FIRST_STORE.to_owned()
}

pub(crate) const META_FILE: &str = "meta.json";
pub(crate) const PROGRESS_FILE: &str = "progress.json";
pub(crate) const SUMMARY_FILE: &str = "summary.json";

/// Where a run stands, as its writer wrote it. A run whose writer died stays `running` in the file; who reads it through
/// [`crate::list()`] or [`crate::RunReader`] is told `Interrupted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RunState {
    Running,
    Completed,
    /// Ended early, by a signal or by the death of its writer.
    Interrupted,
    /// Ended by an error.
    Failed {
        reason: String,
    },
}

/// How a run's rows came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    /// Devices and a pool in real time.
    #[default]
    Live,
    /// The same machines in virtual time: times of rows are virtual.
    Simulated {
        /// What answered in place of the models: `model`, `trace` or `fitted`.
        fidelity: String,
        /// What the times of batches came from: `calibrated` (in older runs `measured`), `roofline` or `fixed`.
        cost: String,
        /// The rows hold every n-th device whole; with more than 1, `summary.json` beside them holds what all devices did.
        keep_every: u32,
    },
}

impl RunKind {
    /// The word for tables.
    pub fn name(&self) -> &'static str {
        match self {
            RunKind::Live => "live",
            RunKind::Simulated { .. } => "simulated",
        }
    }
}

/// The machine that a run ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    #[serde(default)]
    pub cpu: String,
    /// Logical cores that the process may use.
    #[serde(default)]
    pub cores: u32,
    /// Bytes of memory; 0 if unknown.
    #[serde(default)]
    pub memory_bytes: u64,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub arch: String,
}

impl Machine {
    /// This machine, as far as it can be told without a dependency: name and memory are read from `/proc` where that
    /// exists.
    pub fn detect() -> Machine {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory_kib = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        Machine {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            memory_bytes: memory_kib * 1024,
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
        }
    }
}

/// What a run is: everything needed to name it, repeat it and read its rows. Serialised as `meta.json`.
///
/// Forward compatible: unknown fields are ignored, missing optional ones take their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Schema of the store, [`SCHEMA`] when written by this program.
    pub schema: u32,
    /// The run's name, also its folder's.
    pub run: String,
    /// Its random number, which its rows bear too. Absent until it is written into a ledger, and in exports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RunId>,
    #[serde(flatten)]
    pub state: RunState,
    #[serde(default)]
    pub kind: RunKind,
    /// Process that wrote it.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// When it ended, in seconds since 1970.
    #[serde(default)]
    pub ended: Option<u64>,
    /// The scenario as TOML text, every default filled in.
    pub scenario: String,
    /// Digest of the scenario.
    pub scenario_hash: String,
    /// The run's seed; that of its first pass where passes have seeds of their own.
    pub seed: u64,
    /// Passes over all methods with the same seed.
    #[serde(default = "one")]
    pub repeat: u16,
    /// Passes over all methods with the seeds `seed`, `seed` + 1, ….
    #[serde(default = "one")]
    pub seeds: u16,
    /// Name → version of the program and of what decides its results.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    #[serde(default)]
    pub machine: Machine,
    /// The methods in run order: rows name them by index.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// The data sets: generations name them by index.
    #[serde(default)]
    pub data_sets: Vec<String>,
    /// How joules and waiting are accounted ([`specfleet_engine::record::ACCOUNTING`]).
    #[serde(default = "first_accounting")]
    pub accounting: u32,
    /// What batches are charged: `measured`, `calibrated`, `roofline` or `fixed`.
    #[serde(default = "measured")]
    pub pool_cost: String,
    /// What its times follow; a simulation's follow no host.
    #[serde(default)]
    pub clock: RunClock,
    /// Devices of the fleet.
    #[serde(default)]
    pub devices: u32,
    /// Verifiers of the pool.
    #[serde(default)]
    pub verifiers: u32,
    /// The calibration that resolved the methods' thresholds.
    #[serde(default)]
    pub calibration: Option<serde_json::Value>,
    /// Faults that the scenario injected so far.
    #[serde(default)]
    pub faults_injected: u32,
    /// What the host did to a live run, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbance: Option<Disturbance>,
    /// That in words, if it was too much: for who reads this file. Programs ask [`Disturbance::noise`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<String>,
    /// When the whole process of a live run stood still whose times follow the host. They are in no time of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standstills: Vec<StoodStill>,
    /// What a simulation took in real time, in seconds.
    #[serde(default)]
    pub wall_seconds: Option<f64>,
    /// Name of the folder beside this file that holds the rows. [`crate::compact()`] fills a new one and changes the name:
    /// that is the moment at which the new rows are the run's. Other folders `store…` are what a crash left.
    #[serde(default = "first_store")]
    pub store: String,
    /// Words that somebody put on the run to find it again, in the order in which they came.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Where it was imported from, for a run that another ledger recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_from: Option<String>,
    /// What has scored the run's texts since it ended: rows of the table `scores` name them by index.
    #[serde(default)]
    pub scorers: Vec<Scorer>,
    /// What it was made from.
    #[serde(default)]
    pub inputs: Inputs,
    /// What its store held when it was closed; absent while somebody writes it, and after its writer died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
}

/// That of runs whose file does not say.
fn first_accounting() -> u32 {
    1
}

/// What batches cost in runs whose file does not say.
fn measured() -> String {
    "measured".to_owned()
}

/// Passes of runs whose file does not say.
fn one() -> u16 {
    1
}

impl Meta {
    /// The number that its rows bear.
    pub(crate) fn written_id(&self, run_dir: &Path) -> Result<RunId, LedgerError> {
        self.id.ok_or_else(|| LedgerError::NoId(run_dir.join(META_FILE)))
    }

    /// What disturbed the run too much.
    pub fn noise(&self) -> Vec<Noise> {
        self.disturbance.map_or_else(Vec::new, |disturbance| disturbance.noise())
    }

    /// Passes over all methods.
    pub fn passes(&self) -> u16 {
        self.repeat.max(self.seeds).max(1)
    }

    /// Reads the run's `meta.json`. Another schema is refused by its number alone, whatever else the file holds.
    pub fn read(run_dir: &Path) -> Result<Meta, LedgerError> {
        read_checked(run_dir)
    }

    /// The same of a file that is not what was written, as far as it can be parsed.
    pub(crate) fn read_unchecked(run_dir: &Path) -> Result<Meta, LedgerError> {
        let path = run_dir.join(META_FILE);
        let text = specfleet_files::read(&path, MOST).map_err(|error| LedgerError::io(&path, error))?;
        serde_json::from_slice(&text).map_err(|source| LedgerError::DamagedFile { path, source })
    }
}

/// Reads `meta.json` as `T` after checking its schema.
pub(crate) fn read_checked<T: DeserializeOwned>(run_dir: &Path) -> Result<T, LedgerError> {
    /// The one field that must keep its name and meaning in every schema to come.
    #[derive(Deserialize)]
    struct VersionedMeta {
        schema: u32,
    }
    let path = run_dir.join(META_FILE);
    let text = match specfleet_files::read(&path, MOST) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(LedgerError::NotFound(run_dir.to_path_buf()));
        }
        Err(error) => return Err(LedgerError::io(&path, error)),
    };
    let damaged = |source| LedgerError::DamagedFile { path: path.clone(), source };
    let VersionedMeta { schema } = serde_json::from_slice(&text).map_err(damaged)?;
    match schema.cmp(&SCHEMA) {
        Ordering::Less => return Err(LedgerError::OlderSchema { path, found: schema, supported: SCHEMA }),
        Ordering::Greater => return Err(LedgerError::NewerSchema { path, found: schema, supported: SCHEMA }),
        Ordering::Equal => check_seal(&path, &text)?,
    }
    serde_json::from_slice(&text).map_err(damaged)
}

/// Whether a plain file is what was written.
fn check_seal(path: &Path, text: &[u8]) -> Result<(), LedgerError> {
    match sealed::check(text) {
        Seal::Whole => Ok(()),
        Seal::Absent | Seal::Broken => Err(LedgerError::BrokenSeal(path.to_path_buf())),
    }
}

/// Changes some fields of the run's `meta.json` and keeps the others, those too that this program does not know.
pub(crate) fn edit<T>(run_dir: &Path, change: impl FnOnce(&mut Fields) -> T) -> Result<(), LedgerError> {
    let mut fields: Fields = read_checked(run_dir)?;
    fields.remove("checksum");
    change(&mut fields);
    replace_json(run_dir, META_FILE, &fields, true)
}

/// A value for a field of `meta.json`.
pub(crate) fn to_value(run_dir: &Path, value: &impl Serialize) -> Result<serde_json::Value, LedgerError> {
    serde_json::to_value(value).map_err(|source| LedgerError::DamagedFile { path: run_dir.join(META_FILE), source })
}

/// The fields of a plain file.
pub(crate) type Fields = serde_json::Map<String, serde_json::Value>;

/// How much of a run is safely stored. Serialised as `progress.json` after each flush, so that a listing can tell what an
/// interrupted run still holds without opening its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Closed generations: each has all its rows.
    #[serde(default)]
    pub generations: u64,
    /// Rounds, those of open generations included.
    #[serde(default)]
    pub rounds: u64,
    #[serde(default)]
    pub batches: u64,
}

impl RunProgress {
    /// Reads the run's `progress.json`; all zeros while there is none.
    pub fn read(run_dir: &Path) -> Result<RunProgress, LedgerError> {
        Ok(Stock::read(run_dir)?.map(|stock| stock.progress).unwrap_or_default())
    }
}

/// The whole of `progress.json`: beside the progress, what the store holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stock {
    /// Rows that the run has written.
    #[serde(flatten)]
    pub(crate) progress: RunProgress,
    /// The store that `tables` is about.
    pub(crate) store: String,
    /// What that store holds for sure, while `meta.json` has no manifest.
    #[serde(default, skip_serializing_if = "Tables::is_empty")]
    pub(crate) tables: Tables,
}

impl Stock {
    /// Reads the run's `progress.json`; `None` while there is none.
    pub(crate) fn read(run_dir: &Path) -> Result<Option<Stock>, LedgerError> {
        let path = run_dir.join(PROGRESS_FILE);
        let text = match specfleet_files::read(&path, MOST) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::io(&path, error)),
        };
        check_seal(&path, &text)?;
        serde_json::from_slice(&text).map(Some).map_err(|source| LedgerError::DamagedFile { path, source })
    }

    /// Replaces the run's `progress.json`.
    pub(crate) fn write(&self, run_dir: &Path) -> Result<(), LedgerError> {
        replace_json(run_dir, PROGRESS_FILE, self, true)
    }
}

/// The `progress.json` of a run, which has one.
pub(crate) fn stock(run_dir: &Path) -> Result<Stock, LedgerError> {
    Stock::read(run_dir)?.ok_or_else(|| LedgerError::MissingFile(run_dir.join(PROGRESS_FILE)))
}

impl Stock {
    /// What the store of this name holds for sure, which nobody closed.
    pub(crate) fn tables_of(self, run_dir: &Path, store: &str) -> Result<Tables, LedgerError> {
        if self.store == store {
            Ok(self.tables)
        } else {
            Err(LedgerError::OtherStore { path: run_dir.join(PROGRESS_FILE), store: store.to_owned() })
        }
    }
}

/// Replaces `dir/name` by `value` as JSON with a checksum: all or nothing. `durable` also waits for the disk, for files whose
/// loss in a power cut would matter.
pub(crate) fn replace_json(dir: &Path, name: &str, value: &impl Serialize, durable: bool) -> Result<(), LedgerError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|source| LedgerError::DamagedFile { path: dir.join(name), source })?;
    replace_object(dir, name, &text, durable)
}

/// The same with the text of an object.
pub(crate) fn replace_object(dir: &Path, name: &str, text: &[u8], durable: bool) -> Result<(), LedgerError> {
    replace_text(dir, name, &sealed::seal(text), durable)
}

/// The same with a text.
fn replace_text(dir: &Path, name: &str, text: &[u8], durable: bool) -> Result<(), LedgerError> {
    let path = dir.join(name);
    let fresh = dir.join(format!("{name}.new"));
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(text)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&fresh, &path)?;
        if durable && cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    };
    write().map_err(|error| LedgerError::io(&path, error))
}

/// A plain file of a run as text, without its checksum; `None` if there is none.
pub(crate) fn read_sealed(dir: &Path, name: &str) -> Result<Option<String>, LedgerError> {
    let Some(text) = read_text(dir, name)? else { return Ok(None) };
    check_seal(&dir.join(name), text.as_bytes())?;
    Ok(Some(String::from_utf8_lossy(&sealed::without(text.as_bytes())).into_owned()))
}

/// A regular file of a run's size as text.
fn read_whole(path: &Path) -> io::Result<String> {
    String::from_utf8(specfleet_files::read(path, MOST)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// A plain file as text; `None` if there is none.
pub(crate) fn read_text(dir: &Path, name: &str) -> Result<Option<String>, LedgerError> {
    let path = dir.join(name);
    match read_whole(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::io(&path, error)),
    }
}
