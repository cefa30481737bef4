//! The tables of a store and their keys.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A table of a run's store.
///
/// All tables share sled's default tree and are told apart by the first byte of the key, because one sled batch over
/// one tree is what makes "a closed generation has all its rows" a single atomic write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Table {
    /// One row per closed generation.
    Generations = b'g',
    /// One row per committed token.
    Rounds = b'r',
    /// Which part of which generation lies in which chunk of `Rounds`; chunk n here indexes chunk n there.
    Pieces = b'p',
    /// One row per verification batch.
    Batches = b'b',
    /// One row per generation and part, and the verifiers' idle energy.
    Energy = b'e',
    /// One row per audited generation.
    Audits = b'a',
    /// One row per method and verifier.
    Verifiers = b'v',
    /// One row per scored generation and scorer, added after the run.
    Scores = b's',
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 8] = [
        Table::Generations,
        Table::Rounds,
        Table::Pieces,
        Table::Batches,
        Table::Energy,
        Table::Audits,
        Table::Verifiers,
        Table::Scores,
    ];

    /// The name in messages and exports.
    pub fn name(self) -> &'static str {
        match self {
            Table::Generations => "generations",
            Table::Rounds => "rounds",
            Table::Pieces => "pieces",
            Table::Batches => "batches",
            Table::Energy => "energy",
            Table::Audits => "audits",
            Table::Verifiers => "verifiers",
            Table::Scores => "scores",
        }
    }

    /// First byte of its keys and type byte of its chunks.
    pub(crate) fn tag(self) -> u8 {
        self as u8
    }

    /// The key of chunk `sequence`: the tag, then the number big-endian, so that sled's order is the order of writing.
    pub(crate) fn key(self, sequence: u64) -> [u8; 9] {
        let mut key = [self.tag(); 9];
        key[1..].copy_from_slice(&sequence.to_be_bytes());
        key
    }

    /// The key of chunk `sequence` in messages: the letter of the table, then the number in hexadecimal digits.
    pub fn key_text(self, sequence: u64) -> String {
        format!("{}{sequence:016x}", char::from(self.tag()))
    }

    /// The chunk number in a key of this table; `None` if the key was not made by [`Table::key`].
    pub(crate) fn sequence(self, key: &[u8]) -> Option<u64> {
        let (tag, number) = key.split_first()?;
        (*tag == self.tag()).then_some(())?;
        Some(u64::from_be_bytes(number.try_into().ok()?))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
