//! Run store: one sled database per run beside plain files; nothing else in the workspace knows sled.
//!
//! ```text
//! <ledger>/<run>/meta.json       what the run is: scenario, seed, versions, machine, methods, state   ([`Meta`])
//!                progress.json   rows safely stored, rewritten at each flush                          ([`RunProgress`])
//!                live.json       what it is doing, while it is written                                ([`Live`])
//!                summary.json    what all devices did, where the rows hold only some of them        ([`RunWriter::put_summary`])
//!                lock            held by the writer while it lives; the system frees it when it dies
//!                spare           room to say why a run failed when the disk is full; goes when the run ends
//!                store/          sled: the rows, in columnar chunks of at most 64 KiB                  ([`Table`]);
//!                                store-2/ and so on once the run was compacted, as meta.json says      ([`compact()`])
//! ```
//!
//! * [`RunWriter`] appends and flushes; [`RunReader`] opens what has ended; [`list()`] looks at plain files only.
//! * **A closed generation has all its rows.** Rows are buffered, and each commit is *one* sled batch over *one* tree,
//!   which sled recovers whole or not at all. The row that closes a generation lies in the same batch as its last
//!   rounds and its energy rows, and sled recovers batches in order, so its earlier rounds are there too.
//! * **Chunks are shared.** A chunk of rounds holds pieces of many generations, with the table `pieces` as the index:
//!   thousands of sixteen-token generations cost a few chunks. The price: reading one generation decodes the few chunks
//!   that its pieces lie in (recently decoded ones are kept).
//! * **Scans decode what they are asked for.** [`RunReader::scan_rounds`] and [`RunReader::fold_rounds`] hand out columns,
//!   and step over the others.
//! * **Reading changes nothing.** A store that is as it was closed, which its manifest in `meta.json` tells, is read through sled
//!   from a private copy; any other is read from the bytes of its files, as far as chunks are whole ([`rescue()`] saves them).
//! * **Damage costs what lies in it.** A chunk that does not decode is an error in its place, with its table, number and
//!   key; everything else is read, and [`RunReader::damage_log`] knows what was met. [`verify()`] looks at every chunk.
//! * **Scores come later.** [`ScoreWriter`] adds rows of the table `scores` to a run that has ended, under the run's lock.
//! * **A crash takes at most what came after the last [`RunWriter::flush`]**, which the caller does at least each second.

mod appender;
mod aside;
mod chunk;
mod codec;
mod columns;
mod compact;
mod damage;
mod edit;
mod energy;
mod error;
mod found;
mod id;
mod index;
mod inputs;
mod list;
mod live;
mod lock;
mod manifest;
mod meta;
mod reader;
mod rescue;
mod rows;
mod scan;
mod scores;
mod scratch;
mod source;
mod store;
mod table;
mod verify;
mod writer;

pub use aside::leftovers;
pub use chunk::MAX_CHUNK_BYTES;
pub use codec::MAX_LIST_ELEMENTS;
pub use columns::{RoundChunk, RoundColumn, RoundPiece, RoundRows};
pub use compact::{CompactStep, Compacted, compact, compact_watched};
pub use damage::{DamageLog, RunPart, Unreadable};
pub use edit::{check_tag, edit_tags, is_busy, remove, run_bytes};
pub use energy::{EnergyOwner, EnergyPart, EnergyRow};
pub use error::LedgerError;
pub use id::RunId;
pub use inputs::{InputDigest, Inputs, WorkloadInput};
pub use list::{ListedState, RunListing, list};
pub use live::{Live, LiveJoules, LiveVerifier, VerifierState};
pub use manifest::{FileDigest, Manifest, Stored, Tables};
pub use meta::{Machine, Meta, RunKind, RunProgress, RunState, SCHEMA};
pub use reader::{GenerationRounds, OpenGeneration, RunReader};
pub use rescue::{Rescued, rescue};
pub use scores::{ScoreRow, ScoreWriter, Scorer};
pub use table::Table;
pub use verify::{TableCheck, Verified, verify};
pub use writer::RunWriter;
