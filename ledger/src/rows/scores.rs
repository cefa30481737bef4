//! Scores: an id, a scorer, a figure.

use super::{decode_ids, encode_ids};
use crate::chunk::TableRow;
use crate::codec::{ColumnDecoder, ColumnEncoder, Malformed};
use crate::scores::ScoreRow;
use crate::table::Table;

impl TableRow for ScoreRow {
    const TABLE: Table = Table::Scores;
    const ROWS_PER_CHUNK: usize = 4096;

    fn encode(rows: &[ScoreRow], columns: &mut ColumnEncoder) {
        encode_ids(rows.iter().map(|row| &row.id), columns);
        columns.integers(rows.iter().map(|row| row.scorer));
        columns.floats(rows.iter().map(|row| row.value));
    }

    fn decode(_rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<ScoreRow>, Malformed> {
        let ids = decode_ids(columns)?;
        let scorers: Vec<u16> = columns.integers()?;
        let values = columns.floats()?;
        let rows = ids.into_iter().zip(scorers).zip(values);
        Ok(rows.map(|((id, scorer), value)| ScoreRow { id, scorer, value }).collect())
    }
}
