//! Run store: one sled database per run beside plain files; nothing else in the workspace knows sled.
//!
//! ```text
//! <ledger>/<run>/meta.json       what the run is: scenario, seed, versions, machine, methods, state   ([`Meta`])
//!                progress.json   rows safely stored, rewritten at each flush                          ([`Progress`])
//!                summary.json    what all devices did, where the rows hold only some of them        ([`RunWriter::put_summary`])
//!                lock            held by the writer while it lives; the system frees it when it dies
//!                store/          sled: the rows, in columnar chunks of at most 64 KiB                  ([`Table`])
//! ```
//!
//! * [`RunWriter`] appends and flushes; [`RunReader`] opens what has ended; [`list()`] looks at plain files only.
//! * **A closed generation has all its rows.** Rows are buffered, and each commit is *one* sled batch over *one* tree,
//!   which sled recovers whole or not at all. The row that closes a generation lies in the same batch as its last
//!   rounds and its energy rows, and sled recovers batches in order, so its earlier rounds are there too.
//! * **Chunks are shared.** A chunk of rounds holds pieces of many generations, with the table `pieces` as the index:
//!   thousands of sixteen-token generations cost a few chunks. The price: reading one generation decodes the few chunks
//!   that its pieces lie in (recently decoded ones are kept).
//! * **Scores come later.** [`ScoreWriter`] adds rows of the table `scores` to a run that has ended, under the run's lock.
//! * **A crash takes at most what came after the last [`RunWriter::flush`]**, which the caller does at least each second.

mod chunk;
mod codec;
mod energy;
mod error;
mod list;
mod lock;
mod meta;
mod reader;
mod rows;
mod scores;
mod store;
mod table;
mod writer;

pub use chunk::MAX_CHUNK_BYTES;
pub use energy::{EnergyOwner, EnergyPart, EnergyRow};
pub use error::LedgerError;
pub use list::{ListedState, RunListing, list};
pub use meta::{Machine, Meta, Progress, RunKind, RunState, SCHEMA};
pub use reader::{GenerationRounds, OpenGeneration, RunReader};
pub use scores::{ScoreRow, ScoreWriter, Scorer};
pub use table::Table;
pub use writer::RunWriter;
