//! Batches and verifiers: the pool's side of a run.

use specfleet_engine::id::VerifierId;
use specfleet_engine::record::{BatchRecord, VerifierRecord};
use specfleet_engine::time::Span;

use crate::chunk::TableRow;
use crate::codec::{ColumnDecoder, ColumnEncoder, Malformed};
use crate::table::Table;

impl TableRow for BatchRecord {
    const TABLE: Table = Table::Batches;
    const ROWS_PER_CHUNK: usize = 2048;

    fn encode(rows: &[BatchRecord], columns: &mut ColumnEncoder) {
        columns.integers(rows.iter().map(|row| row.method));
        columns.integers(rows.iter().map(|row| row.batch));
        columns.integers(rows.iter().map(|row| row.verifier.0));
        columns.integers(rows.iter().map(|row| row.started));
        columns.integers(rows.iter().map(|row| row.compute));
        columns.integers(rows.iter().map(|row| row.estimate));
        columns.floats(rows.iter().map(|row| row.price));
        columns.integers(rows.iter().map(|row| row.sequences));
        columns.integers(rows.iter().map(|row| row.work));
        columns.integers(rows.iter().map(|row| row.catch_up));
        columns.integers(rows.iter().map(|row| row.drafts));
        columns.integers(rows.iter().map(|row| row.cached));
        columns.integers(rows.iter().map(|row| row.nanojoules));
        columns.integers(rows.iter().map(|row| row.unclaimed_nanojoules));
        columns.integers(rows.iter().map(|row| row.completed));
        columns.integers(rows.iter().map(|row| row.measured));
        columns.integers(rows.iter().map(|row| row.measured_nanojoules));
        columns.integers(rows.iter().map(|row| row.overrun));
        columns.integers(rows.iter().map(|row| row.pass));
    }

    fn decode(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<BatchRecord>, Malformed> {
        let method = columns.integers()?;
        let batch = columns.integers()?;
        let verifier = columns.integers()?;
        let started = columns.integers()?;
        let compute: Vec<Span> = columns.integers()?;
        let estimate = columns.integers()?;
        let price = columns.floats()?;
        let sequences = columns.integers()?;
        let work = columns.integers()?;
        let catch_up = columns.integers()?;
        let drafts = columns.integers()?;
        let cached = columns.integers()?;
        let nanojoules: Vec<u64> = columns.integers()?;
        let unclaimed_nanojoules = columns.integers()?;
        let completed = columns.integers()?;
        let measured = columns.integers()?;
        let measured_nanojoules = columns.integers()?;
        let overrun = columns.integers()?;
        let pass = columns.integers()?;
        let batch = |i: usize| BatchRecord {
            method: method[i],
            pass: pass[i],
            batch: batch[i],
            verifier: VerifierId(verifier[i]),
            started: started[i],
            compute: compute[i],
            measured: measured[i],
            overrun: overrun[i],
            estimate: estimate[i],
            price: price[i],
            sequences: sequences[i],
            work: work[i],
            catch_up: catch_up[i],
            drafts: drafts[i],
            cached: cached[i],
            nanojoules: nanojoules[i],
            measured_nanojoules: measured_nanojoules[i],
            unclaimed_nanojoules: unclaimed_nanojoules[i],
            completed: completed[i],
        };
        Ok((0..rows).map(batch).collect())
    }
}

impl TableRow for VerifierRecord {
    const TABLE: Table = Table::Verifiers;
    const ROWS_PER_CHUNK: usize = 2048;

    fn encode(rows: &[VerifierRecord], columns: &mut ColumnEncoder) {
        columns.integers(rows.iter().map(|row| row.method));
        columns.integers(rows.iter().map(|row| row.verifier.0));
        columns.integers(rows.iter().map(|row| row.busy));
        columns.integers(rows.iter().map(|row| row.idle));
        columns.integers(rows.iter().map(|row| row.off));
        columns.integers(rows.iter().map(|row| row.idle_nanojoules));
        columns.integers(rows.iter().map(|row| row.restarts));
        columns.integers(rows.iter().map(|row| row.pass));
    }

    fn decode(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<VerifierRecord>, Malformed> {
        let method = columns.integers()?;
        let verifier = columns.integers()?;
        let busy = columns.integers()?;
        let idle = columns.integers()?;
        let off = columns.integers()?;
        let idle_nanojoules = columns.integers()?;
        let restarts = columns.integers()?;
        let pass = columns.integers()?;
        let verifier = |i: usize| VerifierRecord {
            method: method[i],
            pass: pass[i],
            verifier: VerifierId(verifier[i]),
            busy: busy[i],
            idle: idle[i],
            off: off[i],
            idle_nanojoules: idle_nanojoules[i],
            restarts: restarts[i],
        };
        Ok((0..rows).map(verifier).collect())
    }
}
