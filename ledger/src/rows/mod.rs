//! The columns of each table. The order of the columns is the format: a change here is a new [`crate::SCHEMA`], and
//! a column that came later names the schema since which it is there.

mod batches;
mod energy;
mod generations;
mod rounds;
mod scores;

pub(crate) use generations::ClosedGeneration;
pub(crate) use rounds::{Piece, absolute_positions, absolute_times, decode_columns, to_absolute, to_relative};

use specfleet_engine::id::GenerationId;

use crate::codec::{ColumnDecoder, ColumnEncoder, Malformed};

/// The four columns of generation ids.
fn encode_ids<'a>(ids: impl Iterator<Item = &'a GenerationId> + Clone, columns: &mut ColumnEncoder) {
    columns.integers(ids.clone().map(|id| id.method));
    columns.integers(ids.clone().map(|id| id.prompt));
    columns.integers(ids.clone().map(|id| id.repetition));
    columns.integers(ids.map(|id| id.pass));
}

pub(crate) fn decode_ids(columns: &mut ColumnDecoder<'_>) -> Result<Vec<GenerationId>, Malformed> {
    let methods = columns.integers()?;
    let prompts: Vec<u32> = columns.integers()?;
    let repetitions: Vec<u16> = columns.integers()?;
    let passes: Vec<u16> = columns.integers()?;
    let ids = methods.into_iter().zip(prompts).zip(repetitions.into_iter().zip(passes));
    Ok(ids.map(|((method, prompt), (repetition, pass))| GenerationId { method, prompt, repetition, pass }).collect())
}
