//! Chunks: the values of the store. A header that tells a damaged or foreign chunk from a good one, then the columns.
//!
//! | bytes | what |
//! |---|---|
//! | 0 .. 3 | `SFC` |
//! | 3 | [`VERSION`] of the encoding |
//! | 4 .. 12 | id of the run, little-endian like all that follows |
//! | 12 | tag of the table |
//! | 13 .. 21 | number of the chunk in its table |
//! | 21 .. 25 | bytes of the whole chunk |
//! | 25 .. 29 | number of rows |
//! | 29 .. 33 | CRC-32 of everything else |
//! | 33 .. | the columns |
//!
//! So a chunk says where it belongs, and is found again in the bytes of a store that sled cannot open (see `found`).

use std::ops::Range;

use crate::codec::{ColumnDecoder, ColumnEncoder, MAX_LIST_ELEMENTS, Malformed};
use crate::error::LedgerError;
use crate::id::RunId;
use crate::table::Table;

/// Largest chunk of rows of a run that is being written, header included: far enough below the size at which sled moves a
/// value into a file of its own. Compacting writes larger ones, up to 256 KiB.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// Largest chunk of rows of a compacted run.
const MAX_BULK_CHUNK_BYTES: usize = 256 * 1024;

const MAGIC: [u8; 3] = *b"SFC";
const VERSION: u8 = 4;
/// What every chunk begins with.
pub(crate) const START: [u8; 4] = [MAGIC[0], MAGIC[1], MAGIC[2], VERSION];
const CHECKSUM: Range<usize> = 29..33;
const HEADER: usize = 33;

/// Most rows of one chunk; a bound on what a damaged header can make us allocate.
const MAX_ROWS: usize = 1 << 16;

/// A row type with its table and columns.
pub(crate) trait TableRow: Sized + 'static {
    const TABLE: Table;
    /// Rows to try in one chunk: what fills most of 64 KiB at the usual size of a row.
    const ROWS_PER_CHUNK: usize;
    fn encode(rows: &[Self], columns: &mut ColumnEncoder);
    /// Reads `rows` rows back.
    fn decode(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<Self>, Malformed>;
    /// Length of its longest list.
    fn longest_list(&self) -> usize {
        0
    }
}

/// Where a chunk belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkIdentity {
    pub(crate) run: RunId,
    /// Its number in its table.
    pub(crate) number: u64,
}

/// One chunk of these rows, however large it gets. For the pieces of a chunk of rounds, which must be one: at most one
/// per row and 25 bytes each, so 100 KiB where every row is another generation's, which is still below sled's limit.
pub(crate) fn whole<R: TableRow>(rows: &[R], place: ChunkIdentity) -> Vec<u8> {
    let columns = columns(rows);
    let mut chunk = Vec::with_capacity(HEADER + columns.len());
    chunk.extend_from_slice(&START);
    chunk.extend_from_slice(&place.run.0.to_le_bytes());
    chunk.push(R::TABLE.tag());
    chunk.extend_from_slice(&place.number.to_le_bytes());
    chunk.extend_from_slice(&((HEADER + columns.len()) as u32).to_le_bytes());
    chunk.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    chunk.extend_from_slice(&[0; 4]);
    chunk.extend_from_slice(&columns);
    let sum = checksum(&chunk, CHECKSUM);
    chunk[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    chunk
}

/// The rows as columns, without a header.
pub(crate) fn columns<R: TableRow>(rows: &[R]) -> Vec<u8> {
    let mut columns = ColumnEncoder::default();
    R::encode(rows, &mut columns);
    columns.finish()
}

/// The CRC-32 over header and columns, the checksum's own place left out.
fn checksum(chunk: &[u8], place: Range<usize>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chunk[..place.start]);
    hasher.update(&chunk[place.end..]);
    hasher.finalize()
}

/// Little-endian integers of a header that is long enough.
fn integer<const N: usize>(chunk: &[u8], at: usize) -> [u8; N] {
    chunk[at..at + N].try_into().expect("invariant: a range of N bytes")
}

/// The chunk that begins these bytes, if it is whole: its table, its place and its length.
pub(crate) fn recognise(bytes: &[u8]) -> Option<(Table, ChunkIdentity, usize)> {
    if bytes.len() < HEADER || bytes[..4] != START {
        return None;
    }
    let len = u32::from_le_bytes(integer(bytes, 21)) as usize;
    let chunk = bytes.get(..len).filter(|chunk| chunk.len() >= HEADER)?;
    if checksum(chunk, CHECKSUM) != u32::from_le_bytes(integer(chunk, CHECKSUM.start)) {
        return None;
    }
    let table = Table::ALL.into_iter().find(|table| table.tag() == chunk[12])?;
    let place = ChunkIdentity {
        run: RunId(u64::from_le_bytes(integer(chunk, 4))),
        number: u64::from_le_bytes(integer(chunk, 13)),
    };
    Some((table, place, len))
}

/// How large chunks may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkLimits {
    /// Rows, in multiples of [`TableRow::ROWS_PER_CHUNK`].
    pub(crate) rows: usize,
    /// Rows of any type.
    pub(crate) most: usize,
    pub(crate) bytes: usize,
}

impl ChunkLimits {
    /// Of a run that is being written.
    pub(crate) const LIVE: ChunkLimits = ChunkLimits { rows: 1, most: MAX_ROWS, bytes: MAX_CHUNK_BYTES };
    /// Of a compacted run, whose chunks sled keeps in files beside its log.
    pub(crate) const BULK: ChunkLimits = ChunkLimits { rows: 2, most: MAX_ROWS, bytes: MAX_BULK_CHUNK_BYTES };

    /// These for a table of so many rows: if it has many, a chunk that is lost takes few of them with it.
    pub(crate) fn of_table(self, rows: u64) -> ChunkLimits {
        if rows < MANY_ROWS {
            return self;
        }
        let share = usize::try_from(rows / PARTS_OF_MANY).unwrap_or(MAX_ROWS);
        ChunkLimits { most: self.most.min(share), ..self }
    }
}

/// Rows of a table from which on none of its chunks in a compacted run holds more than one part of [`PARTS_OF_MANY`].
const MANY_ROWS: u64 = 2000;
const PARTS_OF_MANY: u64 = 20;

/// Hands the rows to `sink` in chunks within `limits` and of like size, in order; each with the number of its rows. They are
/// numbered from `next` on, which is that of the next one then.
pub(crate) fn write<R: TableRow>(
    rows: &[R],
    limits: ChunkLimits,
    next: &mut ChunkIdentity,
    sink: &mut impl FnMut(usize, Vec<u8>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let parts = rows.len().div_ceil((limits.rows * R::ROWS_PER_CHUNK).min(limits.most));
    for rows in rows.chunks(rows.len().div_ceil(parts.max(1)).max(1)) {
        // Equal elements take next to no bytes, so lists that no reader takes would fit.
        let elements: usize = rows.iter().map(R::longest_list).sum();
        let table = R::TABLE;
        if elements > MAX_LIST_ELEMENTS && rows.len() == 1 {
            return Err(LedgerError::ListTooLong { table, elements, limit: MAX_LIST_ELEMENTS });
        }
        if elements <= MAX_LIST_ELEMENTS {
            let chunk = whole(rows, *next);
            if chunk.len() <= limits.bytes {
                sink(rows.len(), chunk)?;
                next.number += 1;
                continue;
            }
            if rows.len() == 1 {
                return Err(LedgerError::RowTooLarge { table, bytes: chunk.len(), limit: limits.bytes });
            }
        }
        let (left, right) = rows.split_at(rows.len() / 2);
        write(left, limits, next, sink)?;
        write(right, limits, next, sink)?;
    }
    Ok(())
}

/// Refuses a row that is larger than a chunk. A row of lists of at most [`SHORT_LIST`] elements never is.
pub(crate) fn check_row<R: TableRow>(row: &R) -> Result<(), LedgerError> {
    let mut nowhere = ChunkIdentity { run: RunId::NONE, number: 0 };
    write(std::slice::from_ref(row), ChunkLimits::LIVE, &mut nowhere, &mut |_, _| Ok(()))
}

/// Lists of this length fit a chunk whatever they hold: two columns of at most 32 bits per element, and the rest.
pub(crate) const SHORT_LIST: usize = 7000;

/// The rows of a chunk that lies at this place.
pub(crate) fn read<R: TableRow>(chunk: &[u8], expected: ChunkIdentity) -> Result<Vec<R>, Malformed> {
    let mut columns = open::<R>(chunk, expected)?;
    let rows = R::decode(columns.rows(), &mut columns)?;
    columns.finish()?;
    Ok(rows)
}

/// The columns of a chunk, after its header was checked.
pub(crate) fn open<R: TableRow>(chunk: &[u8], expected: ChunkIdentity) -> Result<ColumnDecoder<'_>, Malformed> {
    if chunk.len() < START.len() || chunk[..3] != MAGIC {
        return Err(Malformed("it does not start like a chunk"));
    }
    if chunk[3] != VERSION {
        return Err(Malformed("its encoding is of an unknown version"));
    }
    if chunk.len() < HEADER || checksum(chunk, CHECKSUM) != u32::from_le_bytes(integer(chunk, CHECKSUM.start)) {
        return Err(Malformed("its checksum does not match"));
    }
    let rows = rows::<R>(chunk[12], integer(chunk, 25))?;
    if u64::from_le_bytes(integer(chunk, 4)) != expected.run.0 {
        return Err(Malformed("it belongs to another run"));
    }
    if u64::from_le_bytes(integer(chunk, 13)) != expected.number {
        return Err(Malformed("it is another chunk of its table"));
    }
    if u32::from_le_bytes(integer(chunk, 21)) as usize != chunk.len() {
        return Err(Malformed("it has another length than it says"));
    }
    Ok(ColumnDecoder::new(&chunk[HEADER..], rows))
}

/// The number of rows, which a header says beside the tag of the table.
fn rows<R: TableRow>(tag: u8, rows: [u8; 4]) -> Result<usize, Malformed> {
    if tag != R::TABLE.tag() {
        return Err(Malformed("it belongs to another table"));
    }
    let rows = u32::from_le_bytes(rows) as usize;
    if rows > MAX_ROWS { Err(Malformed("it claims more rows than a chunk can hold")) } else { Ok(rows) }
}
