//! Rounds, and the pieces that say whose they are.
//!
//! A chunk of rounds holds pieces of several generations one after the other, so that short generations share chunks.
//! Within a piece the position counts up and times move little: both are stored relative to the row before
//! ([`to_relative`]), the first row relative to what its [`Piece`] says.

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::RoundRecord;
use specfleet_engine::time::Time;

use super::{decode_ids, encode_ids};
use crate::chunk::Row;
use crate::codec::{Decoder, Encoder, Malformed, unzigzag, zigzag};
use crate::columns::{Projection, RoundColumn, RoundRows};
use crate::table::Table;

/// Consecutive rounds of one generation within one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: GenerationId,
    pub(crate) device: DeviceId,
    /// Index of its first round among the generation's.
    pub(crate) first: u32,
    /// Rounds in it.
    pub(crate) rounds: u32,
    /// What the first round's time is relative to.
    pub(crate) base: Time,
}

impl Row for Piece {
    const TABLE: Table = Table::Pieces;
    const ROWS_PER_CHUNK: usize = RoundRecord::ROWS_PER_CHUNK;

    fn encode(rows: &[Piece], columns: &mut Encoder) {
        encode_ids(rows.iter().map(|row| &row.id), columns);
        columns.integers(rows.iter().map(|row| row.device.0));
        columns.integers(rows.iter().map(|row| row.first));
        columns.integers(rows.iter().map(|row| row.rounds));
        columns.integers(rows.iter().map(|row| row.base));
    }

    fn decode(rows: usize, columns: &mut Decoder<'_>) -> Result<Vec<Piece>, Malformed> {
        let ids = decode_ids(columns)?;
        let devices: Vec<u32> = columns.integers()?;
        let first: Vec<u32> = columns.integers()?;
        let rounds: Vec<u32> = columns.integers()?;
        let base: Vec<Time> = columns.integers()?;
        let piece = |i: usize| Piece {
            id: ids[i],
            device: DeviceId(devices[i]),
            first: first[i],
            rounds: rounds[i],
            base: base[i],
        };
        Ok((0..rows).map(piece).collect())
    }
}

/// Makes position and time of a piece's rounds relative, in place. Lossless for any values: the arithmetic wraps.
pub(crate) fn to_relative(rounds: &mut [RoundRecord], first: u32, base: Time) {
    let mut previous = base.0;
    for (index, round) in rounds.iter_mut().enumerate() {
        round.position = round.position.wrapping_sub(first.wrapping_add(index as u32));
        let at = std::mem::replace(&mut previous, round.committed_at.0);
        round.committed_at = Time(zigzag(round.committed_at.0.wrapping_sub(at) as i64));
    }
}

/// Undoes [`to_relative`].
pub(crate) fn to_absolute(rounds: &mut [RoundRecord], first: u32, base: Time) {
    absolute_positions(rounds.iter_mut().map(|round| &mut round.position), first);
    absolute_times(rounds.iter_mut().map(|round| &mut round.committed_at), base);
}

/// Undoes [`to_relative`] for the positions of a piece.
pub(crate) fn absolute_positions<'a>(positions: impl Iterator<Item = &'a mut u32>, first: u32) {
    for (index, position) in positions.enumerate() {
        *position = position.wrapping_add(first.wrapping_add(index as u32));
    }
}

/// Undoes [`to_relative`] for the times of a piece.
pub(crate) fn absolute_times<'a>(times: impl Iterator<Item = &'a mut Time>, base: Time) {
    let mut previous = base.0;
    for time in times {
        previous = previous.wrapping_add(unzigzag(time.0) as u64);
        *time = Time(previous);
    }
}

/// Rounds as they lie in a chunk: position and time relative.
impl Row for RoundRecord {
    const TABLE: Table = Table::Rounds;
    const ROWS_PER_CHUNK: usize = 1536;

    fn encode(rows: &[RoundRecord], columns: &mut Encoder) {
        columns.integers(rows.iter().map(|row| row.position));
        columns.integers(rows.iter().map(|row| row.token));
        // A draft is its token unless it was replaced: 0 says so, anything else is the draft plus one.
        let draft = |row: &RoundRecord| if row.draft == row.token { 0 } else { u64::from(row.draft) + 1 };
        columns.integers(rows.iter().map(draft));
        columns.integers(rows.iter().map(|row| row.epoch));
        columns.dictionary(rows.iter().map(|row| row.source));
        columns.dictionary(rows.iter().map(|row| row.reason));
        columns.floats(rows.iter().map(|row| row.uncertainty));
        columns.floats(rows.iter().map(|row| row.importance));
        columns.floats(rows.iter().map(|row| row.importance_threshold));
        columns.floats(rows.iter().map(|row| row.draft_probability));
        columns.floats(rows.iter().map(|row| row.price));
        columns.integers(rows.iter().map(|row| row.committed_at));
        columns.integers(rows.iter().map(|row| row.attempts));
        columns.integers(rows.iter().map(|row| row.uplink_bits));
        columns.integers(rows.iter().map(|row| row.uplink_bytes));
        columns.integers(rows.iter().map(|row| row.downlink_bytes));
        columns.floats(rows.iter().map(|row| row.snr_db));
        columns.integers(rows.iter().map(|row| row.uplink));
        columns.integers(rows.iter().map(|row| row.downlink));
        columns.integers(rows.iter().map(|row| row.queue));
        columns.integers(rows.iter().map(|row| row.batch));
        columns.integers(rows.iter().map(|row| row.compute));
        columns.integers(rows.iter().map(|row| row.work));
        columns.integers(rows.iter().map(|row| row.cloud_nanojoules));
        columns.integers(rows.iter().map(|row| row.cloud_paper_nanojoules));
    }

    fn decode(rows: usize, columns: &mut Decoder<'_>) -> Result<Vec<RoundRecord>, Malformed> {
        let mut decoded = RoundRows::default();
        decode_columns(columns, Projection::ALL, &mut decoded)?;
        Ok((0..rows).map(|row| decoded.record(row)).collect())
    }
}

/// Decodes the wanted columns of a chunk of rounds into `rows`, which is empty, and steps over the others. Positions and
/// times stay relative.
pub(crate) fn decode_columns(
    columns: &mut Decoder<'_>,
    wanted: Projection,
    rows: &mut RoundRows,
) -> Result<(), Malformed> {
    use RoundColumn::*;
    macro_rules! column {
        ($column:ident, $decode:ident, $skip:ident, $field:ident) => {
            if wanted.has($column) { columns.$decode(&mut rows.$field)? } else { columns.$skip()? }
        };
        ($column:ident, integers, $field:ident) => {
            column!($column, integers_into, skip, $field)
        };
        ($column:ident, floats, $field:ident) => {
            column!($column, floats_into, skip, $field)
        };
    }
    column!(Position, integers, position);
    // Most drafts are known by their tokens.
    if wanted.has_any(&[Token, Draft]) {
        columns.integers_into(&mut rows.token)?
    } else {
        columns.skip()?
    }
    if wanted.has(Draft) {
        for (draft, token) in columns.integers::<u64>()?.into_iter().zip(&rows.token) {
            rows.draft.push(match draft.checked_sub(1) {
                None => *token,
                Some(draft) => u32::try_from(draft).map_err(|_| Malformed("a draft is out of range"))?,
            });
        }
        if !wanted.has(Token) {
            rows.token.clear();
        }
    } else {
        columns.skip()?;
    }
    column!(Epoch, integers, epoch);
    column!(Source, dictionary_into, skip_dictionary, source);
    column!(Reason, dictionary_into, skip_dictionary, reason);
    column!(Uncertainty, floats, uncertainty);
    column!(Importance, floats, importance);
    column!(ImportanceThreshold, floats, importance_threshold);
    column!(DraftProbability, floats, draft_probability);
    if columns.schema() >= 2 {
        column!(Price, floats, price);
    } else if wanted.has(Price) {
        rows.price.resize(columns.rows(), f32::NAN);
    }
    column!(CommittedAt, integers, committed_at);
    column!(Attempts, integers, attempts);
    column!(UplinkBits, integers, uplink_bits);
    column!(UplinkBytes, integers, uplink_bytes);
    column!(DownlinkBytes, integers, downlink_bytes);
    column!(SnrDb, floats, snr_db);
    column!(Uplink, integers, uplink);
    column!(Downlink, integers, downlink);
    column!(Queue, integers, queue);
    column!(Batch, integers, batch);
    column!(Compute, integers, compute);
    column!(Work, integers, work);
    column!(CloudNanojoules, integers, cloud_nanojoules);
    column!(CloudPaperNanojoules, integers, cloud_paper_nanojoules);
    Ok(())
}
