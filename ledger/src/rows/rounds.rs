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
    for (index, round) in (first..).zip(rounds) {
        round.position = round.position.wrapping_sub(index);
        let at = std::mem::replace(&mut previous, round.committed_at.0);
        round.committed_at = Time(zigzag(round.committed_at.0.wrapping_sub(at) as i64));
    }
}

/// Undoes [`to_relative`].
pub(crate) fn to_absolute(rounds: &mut [RoundRecord], first: u32, base: Time) {
    let mut previous = base.0;
    for (index, round) in (first..).zip(rounds) {
        round.position = round.position.wrapping_add(index);
        previous = previous.wrapping_add(unzigzag(round.committed_at.0) as u64);
        round.committed_at = Time(previous);
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
        let position: Vec<u32> = columns.integers()?;
        let token: Vec<u32> = columns.integers()?;
        let draft =
            columns.integers::<u64>()?.into_iter().zip(&token).map(|(draft, token)| match draft.checked_sub(1) {
                None => Ok(*token),
                Some(draft) => u32::try_from(draft).map_err(|_| Malformed("a draft is out of range")),
            });
        let draft: Vec<u32> = draft.collect::<Result<_, Malformed>>()?;
        let epoch = columns.integers()?;
        let source = columns.dictionary()?;
        let reason = columns.dictionary()?;
        let uncertainty = columns.floats()?;
        let importance = columns.floats()?;
        let importance_threshold = columns.floats()?;
        let draft_probability = columns.floats()?;
        let price = columns.floats_since(2, f32::NAN)?;
        let committed_at = columns.integers()?;
        let attempts = columns.integers()?;
        let uplink_bits = columns.integers()?;
        let uplink_bytes = columns.integers()?;
        let downlink_bytes = columns.integers()?;
        let snr_db = columns.floats()?;
        let uplink = columns.integers()?;
        let downlink = columns.integers()?;
        let queue = columns.integers()?;
        let batch = columns.integers()?;
        let compute = columns.integers()?;
        let work = columns.integers()?;
        let cloud_nanojoules = columns.integers()?;
        let cloud_paper_nanojoules = columns.integers()?;
        let round = |i: usize| RoundRecord {
            position: position[i],
            token: token[i],
            draft: draft[i],
            epoch: epoch[i],
            source: source[i],
            reason: reason[i],
            uncertainty: uncertainty[i],
            importance: importance[i],
            importance_threshold: importance_threshold[i],
            draft_probability: draft_probability[i],
            price: price[i],
            committed_at: committed_at[i],
            attempts: attempts[i],
            uplink_bits: uplink_bits[i],
            uplink_bytes: uplink_bytes[i],
            downlink_bytes: downlink_bytes[i],
            snr_db: snr_db[i],
            uplink: uplink[i],
            downlink: downlink[i],
            queue: queue[i],
            batch: batch[i],
            compute: compute[i],
            work: work[i],
            cloud_nanojoules: cloud_nanojoules[i],
            cloud_paper_nanojoules: cloud_paper_nanojoules[i],
        };
        Ok((0..rows).map(round).collect())
    }
}
