//! What can go wrong with a command, and what that means for its exit code.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use device_agent::{AgentError, ConnectorError};
use specfleet_config::{AddressError, ConfigError};
use specfleet_engine::calibration::MethodError;
use specfleet_engine::names::did_you_mean;
use specfleet_export::ExportError;
use specfleet_files::room::NoRoom;
use specfleet_ledger::LedgerError;
use specfleet_metrics::ServeError;
use specfleet_model::ModelError;
use thiserror::Error;
use verifier_pool::PoolError;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The scenario, a flag or a data set.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model, its weights or its tokenizer.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A method that cannot be resolved.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// A prompt that the models cannot take.
    #[error(
        "data set \"{data_set}\", line {line}: the prompt has {tokens} tokens and leaves no room in a context of {context}; \
         run.too_long = \"skip\" or \"truncate\" goes on without it, or with its end"
    )]
    PromptTooLong {
        /// The data set's name or path.
        data_set: String,
        /// Line number from 1.
        line: usize,
        /// Tokens of the prompt.
        tokens: usize,
        /// The smaller context of the pair.
        context: usize,
    },
    /// A prompt of which the tokenizer makes nothing, so that no model can go on from it.
    #[error("data set \"{data_set}\", line {line}: the tokenizer makes no token of the prompt")]
    PromptWithoutTokens {
        /// The data set's name or path.
        data_set: String,
        /// Line number from 1.
        line: usize,
    },
    /// Prompts that the models cannot take, and no others.
    #[error("run.too_long: every prompt leaves no room for an answer in a context of {context}")]
    NoPromptFits {
        /// The smaller context of the pair.
        context: usize,
    },
    /// No calibration fits into the memory that it may take.
    #[error(
        "calibration.kv_mebibytes = {mebibytes} is out of range: following two texts of up to {tokens} prompt tokens takes \
         {needed} MiB"
    )]
    CalibrationMemory {
        /// What it may take.
        mebibytes: u32,
        /// What the least takes.
        needed: usize,
        /// Tokens of the longest prompt.
        tokens: usize,
    },
    /// A calibration file that is none, or one of another pair.
    #[error("calibration file {path}: {why}")]
    Calibration {
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The pool: a port in use, certificates, settings that do not fit the model.
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Metrics(#[from] ServeError),
    /// The way to the pool.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// The drafter's memory is too small for the fleet.
    #[error("device {device}: {source}; model.drafter_kv_mebibytes sets how much there is")]
    DrafterMemory {
        device: u32,
        /// How much was missing.
        source: AgentError,
    },
    #[error("device {device}: {source}")]
    Agent {
        device: u32,
        /// What happened to it.
        source: AgentError,
    },
    /// A device that has found no way into the pool.
    #[error("device {device} has not reached the pool in {seconds} s: {why}")]
    Unreachable {
        device: u32,
        /// How long it has tried.
        seconds: f64,
        /// What came of its last attempt.
        why: String,
    },
    /// A pool that wants certificates of devices that have none.
    #[error(
        "pool.tls.client_authority: the devices of a run have no certificates; leave it out, for the pool of a run lets in \
         its own devices alone, or start verifier-pool with it"
    )]
    ClientAuthority,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An export or an import.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A folder that a flag names and that cannot be used.
    #[error("{flag}: cannot write in {path}: {source}")]
    Folder {
        flag: &'static str,
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// More devices than one process can run.
    #[error(
        "run.devices: {devices} devices would run at the same time, a live run takes at most {most} (each has a \
         connection of its own)"
    )]
    TooManyDevices {
        /// Devices with something to do.
        devices: u32,
        most: u32,
    },
    /// More verifiers than one process can run.
    #[error(
        "{key}: {verifiers} verifiers would run at the same time, a live run takes at most {most} (each has threads and \
         KV memory of its own)"
    )]
    TooManyVerifiers {
        /// The key that asks for them.
        key: &'static str,
        verifiers: u16,
        most: u16,
    },
    /// A link or a device profile that no simulation knows the times of.
    #[error("{what} {name:?} takes the time that it takes, which a simulation cannot know; it needs {instead}")]
    RealTime {
        what: &'static str,
        name: String,
        /// What a simulation can take.
        instead: &'static str,
    },
    /// An address that a flag names by a host that cannot be found.
    #[error("{flag} {source}")]
    Address {
        flag: &'static str,
        /// What is wrong with it.
        source: AddressError,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", elsewhere(.source))]
    Listen {
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the results.
    #[error("cannot write {path}: {source}")]
    Output {
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something that a simulation was asked for and cannot do.
    #[error("{0}")]
    Simulation(String),
    /// A run that does not exist.
    #[error("{} holds no run (no meta.json){}", .folder.display(), meant(.near))]
    UnknownRun {
        /// Where it would lie.
        folder: PathBuf,
        /// Names of the ledger's runs that are most like it.
        near: Vec<String>,
    },
    /// `latest`, where no run has ended.
    #[error("latest: no run in {} has ended", .0.display())]
    NoRuns(PathBuf),
    /// A flag of a command over the ledger that asks for what there is not.
    #[error("{0}")]
    Asked(String),
    /// Scores that were asked for and cannot be computed.
    #[error("{0}")]
    Score(String),
    /// A question about stored runs that they cannot answer: an unknown name, runs that are not alike.
    #[error("{0}")]
    Question(String),
    /// A limit of the system that leaves no room for this program.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A clock that no run can be dated by.
    #[error("the system's clock is before 1970, and no run can be dated by it: set the clock")]
    WallClock,
    /// A part of this program stopped without saying why.
    #[error("{0} has stopped unexpectedly")]
    Stopped(&'static str),
    /// Ctrl-C. What was written until then is kept; the folder is empty where nothing is written.
    #[error("interrupted{}", kept(.0))]
    Interrupted(PathBuf),
}

/// What was probably meant, if anything.
fn meant(near: &[String]) -> String {
    did_you_mean(near).map_or(String::new(), |meant| format!("; {meant}"))
}

/// Where something was kept, if anywhere.
fn kept(folder: &Path) -> String {
    if folder.as_os_str().is_empty() {
        return String::new();
    }
    format!("; what was recorded until then is in {}", folder.display())
}

/// What to do about an address that another program has.
fn elsewhere(source: &std::io::Error) -> &'static str {
    if source.kind() == ErrorKind::AddrInUse { "; take another port, or 0 for a free one" } else { "" }
}

impl Error {
    /// The process's exit code: 2 for what the user can mend before anything runs, 130 for Ctrl-C, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config(_)
            | Error::Model(_)
            | Error::Method(_)
            | Error::PromptTooLong { .. }
            | Error::PromptWithoutTokens { .. }
            | Error::NoPromptFits { .. }
            | Error::Calibration { .. }
            | Error::CalibrationMemory { .. }
            | Error::Pool(_)
            | Error::Connector(_)
            | Error::Metrics(_)
            | Error::Folder { .. }
            | Error::TooManyDevices { .. }
            | Error::TooManyVerifiers { .. }
            | Error::ClientAuthority
            | Error::RealTime { .. }
            | Error::Address { .. }
            | Error::Listen { .. }
            | Error::Simulation(_)
            | Error::Question(_)
            | Error::UnknownRun { .. }
            | Error::NoRuns(_)
            | Error::Score(_)
            | Error::Asked(_) => 2,
            Error::Ledger(error) if error.is_mistake() => 2,
            Error::Export(error) if error.is_mistake() => 2,
            // A name that cannot be a file there.
            Error::Output { source, .. }
                if matches!(
                    source.kind(),
                    ErrorKind::NotFound
                        | ErrorKind::NotADirectory
                        | ErrorKind::IsADirectory
                        | ErrorKind::PermissionDenied
                        | ErrorKind::ReadOnlyFilesystem
                        | ErrorKind::InvalidFilename
                ) =>
            {
                2
            }
            Error::Interrupted(_) | Error::Export(ExportError::Interrupted) => specfleet_signals::exit_code(),
            Error::DrafterMemory { .. }
            | Error::Agent { .. }
            | Error::Unreachable { .. }
            | Error::Ledger(_)
            | Error::Export(_)
            | Error::Output { .. }
            | Error::NoRoom(_)
            | Error::WallClock
            | Error::Stopped(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_there_is_the_users_mistake() {
        let output = |kind: ErrorKind| Error::Output { path: "report.html".into(), source: kind.into() }.exit_code();
        assert_eq!(output(ErrorKind::IsADirectory), 2);
        assert_eq!(output(ErrorKind::NotFound), 2);
        assert_eq!(output(ErrorKind::InvalidFilename), 2);
        assert_eq!(output(ErrorKind::StorageFull), 1);
    }
}
