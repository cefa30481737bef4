//! The run store: what is written is read back, whatever happened to the writer, the disk or the bytes.

mod common;
mod compact;
mod crash;
mod files;
mod full_disk;
mod older_schemas;
mod roundtrip;
mod scan;
mod scores;
