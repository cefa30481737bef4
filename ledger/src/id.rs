//! Which run a chunk or a file belongs to.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::LedgerError;

/// The random number of a run, in its description and in each chunk of its rows: 16 hexadecimal digits.
///
/// Names and folders can be changed, swapped and copied; with this a store is told from that of another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub(crate) u64);

impl RunId {
    /// That of no run: for what is written nowhere.
    pub(crate) const NONE: RunId = RunId(0);

    pub(crate) fn random() -> Result<RunId, LedgerError> {
        // 0 stands for none.
        Ok(RunId(getrandom::u64().map_err(LedgerError::NoRandomness)?.max(1)))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As text: not every reader of JSON has integers of 64 bits.
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RunId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| plain);
        number.map(RunId).ok_or_else(|| D::Error::custom(format!("{text:?} is no id of a run")))
    }
}
