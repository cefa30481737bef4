//! The energy table: one flag column tells generations from verifiers, which share the id columns.

use specfleet_engine::id::{DeviceId, GenerationId, VerifierId};

use super::{decode_ids, encode_ids};
use crate::chunk::TableRow;
use crate::codec::{ColumnDecoder, ColumnEncoder, Malformed};
use crate::energy::{EnergyOwner, EnergyRow};
use crate::table::Table;

impl TableRow for EnergyRow {
    const TABLE: Table = Table::Energy;
    const ROWS_PER_CHUNK: usize = 4096;

    fn encode(rows: &[EnergyRow], columns: &mut ColumnEncoder) {
        // A verifier's row has a method, no prompt, and its number where a generation has its device's.
        let flat = |row: &EnergyRow| match row.owner {
            EnergyOwner::Generation { id, device } => (false, id, device.0),
            EnergyOwner::Verifier { method, pass, verifier } => {
                (true, GenerationId { method, prompt: 0, repetition: 0, pass }, u32::from(verifier.0))
            }
        };
        let ids: Vec<GenerationId> = rows.iter().map(|row| flat(row).1).collect();
        columns.integers(rows.iter().map(|row| flat(row).0));
        encode_ids(ids.iter(), columns);
        columns.integers(rows.iter().map(|row| flat(row).2));
        columns.dictionary(rows.iter().map(|row| row.part));
        columns.integers(rows.iter().map(|row| row.nanojoules));
        columns.dictionary(rows.iter().map(|row| row.provenance));
    }

    fn decode(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<EnergyRow>, Malformed> {
        let of_verifier: Vec<bool> = columns.integers()?;
        let ids = decode_ids(columns)?;
        let numbers: Vec<u32> = columns.integers()?;
        let part = columns.dictionary()?;
        let nanojoules = columns.integers()?;
        let provenance = columns.dictionary()?;
        let owner = |i: usize| {
            if !of_verifier[i] {
                return Ok(EnergyOwner::Generation { id: ids[i], device: DeviceId(numbers[i]) });
            }
            let verifier = u16::try_from(numbers[i]).map_err(|_| Malformed("a verifier's number is out of range"))?;
            Ok(EnergyOwner::Verifier { method: ids[i].method, pass: ids[i].pass, verifier: VerifierId(verifier) })
        };
        let row = |i: usize| {
            Ok(EnergyRow { owner: owner(i)?, part: part[i], nanojoules: nanojoules[i], provenance: provenance[i] })
        };
        (0..rows).map(row).collect()
    }
}
