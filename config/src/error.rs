//! What a user can get wrong, each in one line that names the file, the key and what would be right.

use std::path::PathBuf;

use thiserror::Error;

/// Why a scenario, a profile or a workload was refused.
///
/// `origin` is the file, or the flag, that the offending text came from.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A scenario that is neither a file nor one that ships.
    #[error("{name}: no such file, and no scenario of that name ships; those that do: {valid}")]
    UnknownScenario {
        /// What was asked for.
        name: String,
        valid: String,
    },
    #[error("{origin}:{line}: not valid TOML: {message}")]
    Syntax {
        origin: String,
        line: usize,
        /// What the parser said, in one line.
        message: String,
    },
    /// A key that nothing reads.
    #[error("{origin}: unknown key {key}{}", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownKey {
        origin: String,
        key: String,
        /// The valid key that is nearest to it, if any is near.
        nearest: Option<String>,
    },
    /// A value of another type.
    #[error("{origin}: {key} must be {expected}, not {found}")]
    WrongType {
        origin: String,
        key: String,
        /// What it must be.
        expected: &'static str,
        /// The type and value found.
        found: String,
    },
    /// A number outside its range.
    #[error("{origin}: {key} = {value} is out of range: {range}")]
    OutOfRange {
        origin: String,
        key: String,
        value: String,
        /// The valid range, in words.
        range: String,
    },
    /// A name that is not among the valid ones.
    #[error("{origin}: {key} = {value:?} is not known; valid: {valid}")]
    UnknownName {
        origin: String,
        key: String,
        value: String,
        /// The valid ones, separated by commas.
        valid: String,
    },
    /// A key that must be there.
    #[error("{origin}: {key} is missing: {expected}")]
    Missing {
        origin: String,
        key: String,
        /// What it must be.
        expected: String,
    },
    /// Settings that contradict each other.
    #[error("{origin}: {key}: {problem}")]
    Conflict { origin: String, key: String, problem: String },
    /// An override that is no `key=value`.
    #[error("--set {assignment}: must be key=value, such as run.devices=100")]
    Assignment { assignment: String },
    /// A workload or rate trace whose contents are wrong.
    #[error("{origin}:{line}: {problem}")]
    Line {
        origin: String,
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A text file in UTF-16.
    #[error("{}: the file is UTF-16; convert it to UTF-8", path.display())]
    Utf16 { path: PathBuf },
    /// A file that a run was made from is another one by now.
    #[error("{origin} changed since the run: SHA-256 {} then, {} now", short(recorded), short(found))]
    Changed {
        origin: String,
        /// Its digest then, in hex.
        recorded: String,
        /// Its digest now, in hex.
        found: String,
    },
    /// A data set of a run that is a file, of which the run does not say where it lies.
    #[error("the run does not say where the file of its data set {data_set} lies")]
    Unrecorded { data_set: String },
    /// A workload without a single prompt.
    #[error("{origin}: the file is empty; it needs one JSON object per line")]
    EmptyWorkload { origin: String },
}

/// The beginning of a digest, for messages.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
