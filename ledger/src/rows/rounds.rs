//! Rounds, and the pieces that say whose they are.
//!
//! A chunk of rounds holds pieces of several generations one after the other, so that short generations share chunks.
//! Within a piece the position counts up and times move little: both are stored relative to the row before
//! ([`to_relative`]), the first row relative to what its [`Piece`] says.

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{RoundRecord, Source, UploadCost, VerifyCost};
use specfleet_engine::time::{Span, Time};

use super::{decode_ids, encode_ids};
use crate::chunk::TableRow;
use crate::codec::{ColumnDecoder, ColumnEncoder, Malformed, unzigzag, zigzag};
use crate::columns::{Projection, RoundColumn, RoundRows};
use crate::table::Table;

/// Consecutive rounds of one generation within one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: GenerationId,
    pub(crate) device: DeviceId,
    /// Index of its first round among the generation's.
    pub(crate) first: u32,
    pub(crate) rounds: u32,
    /// What the first round's time is relative to.
    pub(crate) base: Time,
}

impl TableRow for Piece {
    const TABLE: Table = Table::Pieces;
    const ROWS_PER_CHUNK: usize = RoundRecord::ROWS_PER_CHUNK;

    fn encode(rows: &[Piece], columns: &mut ColumnEncoder) {
        encode_ids(rows.iter().map(|row| &row.id), columns);
        columns.integers(rows.iter().map(|row| row.device.0));
        columns.integers(rows.iter().map(|row| row.first));
        columns.integers(rows.iter().map(|row| row.rounds));
        columns.integers(rows.iter().map(|row| row.base));
    }

    fn decode(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<Piece>, Malformed> {
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
///
/// Costs of an upload stand in rows that pay for one only, and which these are is nearly always known from who wrote the
/// token. The gap before a token and the waiting that it is charged are mostly the sum of its upload's times, and the papers'
/// share of the energy mostly that of the tokens judged: what is stored is the difference.
impl TableRow for RoundRecord {
    const TABLE: Table = Table::Rounds;
    const ROWS_PER_CHUNK: usize = 4096;

    fn encode(rows: &[RoundRecord], columns: &mut ColumnEncoder) {
        columns.integers(rows.iter().map(|row| row.position));
        columns.integers(rows.iter().map(|row| row.token));
        // A draft is its token unless it was replaced: 0 says so, anything else is the draft plus one.
        let draft = |row: &RoundRecord| if row.draft == row.token { 0 } else { u64::from(row.draft) + 1 };
        columns.integers(rows.iter().map(draft));
        columns.integers(rows.iter().map(|row| row.rejections));
        columns.dictionary(rows.iter().map(|row| row.source));
        columns.dictionary(rows.iter().map(|row| row.reason));
        columns.floats(rows.iter().map(|row| row.uncertainty));
        columns.floats(rows.iter().map(|row| row.importance));
        columns.floats(rows.iter().map(|row| row.importance_threshold));
        columns.floats(rows.iter().map(|row| row.draft_probability));
        columns.floats(rows.iter().map(|row| row.price));
        // What is stored is the option and not the figures, so that a cost of nothing but zeros is read back as one.
        columns.integers(rows.iter().map(|row| row.upload.is_some() != usually_pays(row.source)));
        let costs: Vec<&UploadCost> = rows.iter().filter_map(|row| row.upload.as_ref()).collect();
        let costs = || costs.iter().copied();
        columns.integers(costs().map(|cost| cost.attempts));
        columns.integers(costs().map(|cost| cost.uplink_bits));
        columns.integers(costs().map(|cost| cost.uplink_bytes));
        columns.integers(costs().map(|cost| cost.downlink_bytes));
        columns.floats(costs().map(|cost| cost.snr_db));
        columns.integers(costs().map(|cost| cost.uplink));
        columns.integers(costs().map(|cost| cost.downlink));
        columns.integers(costs().map(|cost| cost.verify.queue_wait));
        columns.integers(costs().map(|cost| cost.verify.batch_wait));
        columns.integers(costs().map(|cost| cost.verify.compute));
        columns.integers(costs().map(|cost| cost.verify.fed_tokens));
        columns.integers(costs().map(|cost| cost.verify.nanojoules));
        let share = |cost: &VerifyCost| Share::of(cost.paper_nanojoules, cost.nanojoules, cost.fed_tokens);
        let shares = || costs().map(|cost| share(&cost.verify));
        columns.integers(shares().map(|share| share.tokens));
        columns.integers(shares().map(|share| share.rest));
        columns.integers(rows.iter().map(|row| {
            let gap = unzigzag(row.committed_at.0) as u64;
            zigzag(gap.wrapping_sub(row.upload.as_ref().map_or(0, cost_time)) as i64)
        }));
        columns.integers(
            rows.iter().map(|row| zigzag(row.waiting.0.wrapping_sub(row.upload.as_ref().map_or(0, cost_time)) as i64)),
        );
    }

    fn decode(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<RoundRecord>, Malformed> {
        let mut decoded = RoundRows::default();
        decode_columns(columns, Projection::ALL, &mut decoded)?;
        Ok((0..rows).map(|row| decoded.record(row)).collect())
    }
}

/// Whether a token of this source usually pays for an upload. A guess that misses costs a few bits.
fn usually_pays(source: Source) -> bool {
    source.is_judged_draft() || source == Source::Verifier
}

/// The part of a gap that an upload explains.
fn round_trip(times: [Span; 5]) -> u64 {
    times.iter().fold(0, |sum, time| sum.wrapping_add(time.0))
}

/// The same of a cost.
fn cost_time(cost: &UploadCost) -> u64 {
    let verify = &cost.verify;
    round_trip([cost.uplink, cost.downlink, verify.queue_wait, verify.batch_wait, verify.compute])
}

/// The papers' part of an upload's energy, as so many tokens' share of the whole and a rest.
#[derive(Clone, Copy)]
struct Share {
    tokens: u64,
    rest: u64,
}

impl Share {
    fn of(part: u64, whole: u64, work: u32) -> Share {
        // The nearest number of tokens; none where there is nothing to divide.
        let tokens = (u128::from(part) * u128::from(work) + u128::from(whole) / 2).checked_div(u128::from(whole));
        let tokens = tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(0);
        Share { tokens, rest: zigzag(part.wrapping_sub(Share::tokens_part(tokens, whole, work)) as i64) }
    }

    fn part(self, whole: u64, work: u32) -> u64 {
        Share::tokens_part(self.tokens, whole, work).wrapping_add(unzigzag(self.rest) as u64)
    }

    fn tokens_part(tokens: u64, whole: u64, work: u32) -> u64 {
        (u128::from(whole) * u128::from(tokens)).checked_div(u128::from(work)).unwrap_or(0) as u64
    }
}

/// Decodes a column if it is wanted, and steps over it otherwise.
macro_rules! column {
    ($columns:ident, $wanted:ident, $column:ident, $decode:ident, $skip:ident, $into:expr) => {
        if $wanted.has(RoundColumn::$column) { $columns.$decode(&mut $into)? } else { $columns.$skip()? }
    };
    ($columns:ident, $wanted:ident, $column:ident, integers, $into:expr) => {
        column!($columns, $wanted, $column, integers_into, skip, $into)
    };
    ($columns:ident, $wanted:ident, $column:ident, floats, $into:expr) => {
        column!($columns, $wanted, $column, floats_into, skip, $into)
    };
}

/// Decodes the wanted columns of a chunk of rounds into `rows`, which is empty, and steps over the others. Positions and
/// times stay relative.
pub(crate) fn decode_columns(
    columns: &mut ColumnDecoder<'_>,
    wanted: Projection,
    rows: &mut RoundRows,
) -> Result<(), Malformed> {
    decode_decisions(columns, wanted.with_needed(), rows)?;
    decode_costs(columns, wanted, rows)?;
    // What only helped to decode something else.
    if !wanted.has(RoundColumn::Source) {
        rows.source.clear();
    }
    Ok(())
}

/// The columns that every row has a value of.
fn decode_decisions(
    columns: &mut ColumnDecoder<'_>,
    wanted: Projection,
    rows: &mut RoundRows,
) -> Result<(), Malformed> {
    use RoundColumn::{Draft, Token};
    column!(columns, wanted, Position, integers, rows.position);
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
    column!(columns, wanted, Rejections, integers, rows.rejections);
    column!(columns, wanted, Source, dictionary_into, skip_dictionary, rows.source);
    column!(columns, wanted, Reason, dictionary_into, skip_dictionary, rows.reason);
    column!(columns, wanted, Uncertainty, floats, rows.uncertainty);
    column!(columns, wanted, Importance, floats, rows.importance);
    column!(columns, wanted, ImportanceThreshold, floats, rows.importance_threshold);
    column!(columns, wanted, DraftProbability, floats, rows.draft_probability);
    column!(columns, wanted, Price, floats, rows.price);
    Ok(())
}

/// Times and costs: values of the rows that pay for an upload.
fn decode_costs(columns: &mut ColumnDecoder<'_>, wanted: Projection, rows: &mut RoundRows) -> Result<(), Malformed> {
    use RoundColumn::*;
    /// The surprises, the costs (the last is two columns), the gaps, the waits.
    const COLUMNS: usize = RoundColumn::COSTS.len() + 4;
    if !wanted.has_any(&[CommittedAt, Waiting]) && !wanted.has_any(RoundColumn::COSTS) {
        return (0..COLUMNS).try_for_each(|_| columns.skip());
    }
    let surprising: Vec<bool> = columns.integers()?;
    let pays: Vec<bool> =
        rows.source.iter().zip(surprising).map(|(source, surprising)| usually_pays(*source) != surprising).collect();
    let count = pays.iter().filter(|pays| **pays).count();
    /// One of the columns, spread over all rows if it is wanted itself; the values of the paying rows.
    macro_rules! paying {
        ($column:ident, $decode:ident, $needed:expr, $default:expr, $into:expr) => {{
            let values = if wanted.has($column) || wanted.has_any($needed) {
                columns.$decode(count)?
            } else {
                columns.skip()?;
                Vec::new()
            };
            if wanted.has($column) {
                let mut each = values.iter().copied();
                // There are as many values as rows that pay.
                $into.extend(pays.iter().map(|pays| if *pays { each.next().unwrap_or($default) } else { $default }));
            }
            values
        }};
    }
    paying!(Attempts, some_integers, &[], 0, rows.attempts);
    paying!(UplinkBits, some_integers, &[], 0, rows.uplink_bits);
    paying!(UplinkBytes, some_integers, &[], 0, rows.uplink_bytes);
    paying!(DownlinkBytes, some_integers, &[], 0, rows.downlink_bytes);
    paying!(SnrDb, some_floats, &[], f32::NAN, rows.snr_db);
    let uplink = paying!(Uplink, some_integers, &[CommittedAt, Waiting], Span::ZERO, rows.uplink);
    let downlink = paying!(Downlink, some_integers, &[CommittedAt, Waiting], Span::ZERO, rows.downlink);
    let queue = paying!(Queue, some_integers, &[CommittedAt, Waiting], Span::ZERO, rows.queue);
    let batch = paying!(Batch, some_integers, &[CommittedAt, Waiting], Span::ZERO, rows.batch);
    let compute = paying!(Compute, some_integers, &[CommittedAt, Waiting], Span::ZERO, rows.compute);
    let work: Vec<u32> = paying!(Work, some_integers, &[CloudPaperNanojoules], 0, rows.work);
    let cloud = paying!(CloudNanojoules, some_integers, &[CloudPaperNanojoules], 0, rows.cloud_nanojoules);
    if wanted.has(CloudPaperNanojoules) {
        let (tokens, rests): (Vec<u64>, Vec<u64>) = (columns.some_integers(count)?, columns.some_integers(count)?);
        let shares = tokens.into_iter().zip(rests).map(|(tokens, rest)| Share { tokens, rest });
        let mut parts = shares.zip(cloud.iter().zip(&work)).map(|(share, (whole, work))| share.part(*whole, *work));
        rows.cloud_paper_nanojoules.extend(pays.iter().map(|pays| if *pays { parts.next().unwrap_or(0) } else { 0 }));
    } else {
        columns.skip()?;
        columns.skip()?;
    }
    if wanted.has(CommittedAt) {
        columns.integers_into(&mut rows.committed_at)?;
        let paying = rows.committed_at.iter_mut().zip(&pays).filter(|(_, pays)| **pays);
        for (number, (time, _)) in paying.enumerate() {
            let times = [uplink[number], downlink[number], queue[number], batch[number], compute[number]];
            let gap = (unzigzag(time.0) as u64).wrapping_add(round_trip(times));
            *time = Time(zigzag(gap as i64));
        }
    } else {
        columns.skip()?;
    }
    if wanted.has(Waiting) {
        columns.integers_into(&mut rows.waiting)?;
        let mut number = 0;
        for (waiting, pays) in rows.waiting.iter_mut().zip(&pays) {
            let mut charged = 0;
            if *pays {
                charged = round_trip([uplink[number], downlink[number], queue[number], batch[number], compute[number]]);
                number += 1;
            }
            *waiting = Span((unzigzag(waiting.0) as u64).wrapping_add(charged));
        }
    } else {
        columns.skip()?;
    }
    if wanted.has_any(RoundColumn::COSTS) {
        rows.pays = pays;
    }
    Ok(())
}
