//! Chunks: the values of the store. A header that tells a damaged or foreign chunk from a good one, then the columns.
//!
//! | bytes | what |
//! |---|---|
//! | 0 .. 3 | `SFC` |
//! | 3 | version of the encoding: 1 up to schema 2, 2 up to schema 4, [`VERSION`] since schema 5 |
//! | 4 | tag of the table |
//! | 5 .. 9 | number of rows, little-endian |
//! | 9 .. 13 | CRC-32 of everything else |
//! | 13 .. | the columns |

use crate::codec::{Decoder, Encoder, Form, MAX_LIST_ELEMENTS, Malformed};
use crate::error::LedgerError;
use crate::table::Table;

/// Largest chunk of rows of a run that is being written, header included: far enough below the size at which sled moves a
/// value into a file of its own. Compacting writes larger ones, up to 256 KiB.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// Largest chunk of rows of a compacted run.
const MAX_BULK_CHUNK_BYTES: usize = 256 * 1024;

const MAGIC: [u8; 3] = *b"SFC";
const VERSION: u8 = 3;
/// The schema that [`VERSION`] came with: its chunks have all the columns of that schema, whatever the store has. Scores
/// may be added to a store of an older one.
const VERSION_SINCE: u32 = 5;
/// The version of schemas 1 and 2.
const BLOCKS_VERSION: u8 = 1;
/// The version of schemas 3 and 4, and the first of them.
const COLUMNS_VERSION: u8 = 2;
const COLUMNS_SINCE: u32 = 3;
const CHECKSUM: std::ops::Range<usize> = 9..13;
const HEADER: usize = 13;

/// Most rows of one chunk; a bound on what a damaged header can make us allocate.
const MAX_ROWS: usize = 1 << 16;

/// A row type with its table and columns.
pub(crate) trait Row: Sized + 'static {
    /// Its table.
    const TABLE: Table;
    /// Rows to try in one chunk: what fills most of 64 KiB at the usual size of a row.
    const ROWS_PER_CHUNK: usize;
    /// Writes the columns.
    fn encode(rows: &[Self], columns: &mut Encoder);
    /// Reads `rows` rows back.
    fn decode(rows: usize, columns: &mut Decoder<'_>) -> Result<Vec<Self>, Malformed>;
    /// Length of its longest list.
    fn longest_list(&self) -> usize {
        0
    }
}

/// One chunk of these rows, however large it gets. For the pieces of a chunk of rounds, which must be one: at most one
/// per row and 25 bytes each, so 100 KiB where every row is another generation's, which is still below sled's limit.
pub(crate) fn whole<R: Row>(rows: &[R]) -> Vec<u8> {
    let mut columns = Encoder::default();
    R::encode(rows, &mut columns);
    let columns = columns.finish();
    let mut chunk = Vec::with_capacity(HEADER + columns.len());
    chunk.extend_from_slice(&MAGIC);
    chunk.push(VERSION);
    chunk.push(R::TABLE.tag());
    chunk.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    chunk.extend_from_slice(&[0; 4]);
    chunk.extend_from_slice(&columns);
    let sum = checksum(&chunk);
    chunk[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    chunk
}

/// The CRC-32 over header and columns, the checksum's own place left out.
fn checksum(chunk: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chunk[..CHECKSUM.start]);
    hasher.update(&chunk[CHECKSUM.end..]);
    hasher.finalize()
}

/// How large chunks may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Rows, in multiples of [`Row::ROWS_PER_CHUNK`].
    pub(crate) rows: usize,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Limits {
    /// Of a run that is being written.
    pub(crate) const LIVE: Limits = Limits { rows: 1, bytes: MAX_CHUNK_BYTES };
    /// Of a compacted run, whose chunks sled keeps in files beside its log.
    pub(crate) const BULK: Limits = Limits { rows: 2, bytes: MAX_BULK_CHUNK_BYTES };
}

/// Hands the rows to `sink` in chunks within `limits` and of like size, in order; each with the number of its rows.
pub(crate) fn write<R: Row>(
    rows: &[R],
    limits: Limits,
    sink: &mut impl FnMut(usize, Vec<u8>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let parts = rows.len().div_ceil(limits.rows * R::ROWS_PER_CHUNK);
    for rows in rows.chunks(rows.len().div_ceil(parts.max(1)).max(1)) {
        // Equal elements take next to no bytes, so lists that no reader takes would fit.
        let elements: usize = rows.iter().map(R::longest_list).sum();
        let table = R::TABLE;
        if elements > MAX_LIST_ELEMENTS && rows.len() == 1 {
            return Err(LedgerError::ListTooLong { table, elements, limit: MAX_LIST_ELEMENTS });
        }
        if elements <= MAX_LIST_ELEMENTS {
            let chunk = whole(rows);
            if chunk.len() <= limits.bytes {
                sink(rows.len(), chunk)?;
                continue;
            }
            if rows.len() == 1 {
                return Err(LedgerError::RowTooLarge { table, bytes: chunk.len(), limit: limits.bytes });
            }
        }
        let (left, right) = rows.split_at(rows.len() / 2);
        write(left, limits, sink)?;
        write(right, limits, sink)?;
    }
    Ok(())
}

/// Refuses a row that is larger than a chunk. A row of lists of at most [`SHORT_LIST`] elements never is.
pub(crate) fn check_row<R: Row>(row: &R) -> Result<(), LedgerError> {
    write(std::slice::from_ref(row), Limits::LIVE, &mut |_, _| Ok(()))
}

/// Lists of this length fit a chunk whatever they hold: two columns of at most 32 bits per element, and the rest.
pub(crate) const SHORT_LIST: usize = 7000;

/// The rows of a chunk of a store of this schema.
pub(crate) fn read<R: Row>(chunk: &[u8], schema: u32) -> Result<Vec<R>, Malformed> {
    let mut columns = open::<R>(chunk, schema)?;
    let rows = R::decode(columns.rows(), &mut columns)?;
    columns.finish()?;
    Ok(rows)
}

/// The columns of a chunk, after its header was checked.
pub(crate) fn open<R: Row>(chunk: &[u8], schema: u32) -> Result<Decoder<'_>, Malformed> {
    if chunk.len() < HEADER || chunk[..3] != MAGIC {
        return Err(Malformed("it does not start like a chunk"));
    }
    let stored = u32::from_le_bytes(chunk[CHECKSUM].try_into().expect("invariant: four bytes"));
    if checksum(chunk) != stored {
        return Err(Malformed("its checksum does not match"));
    }
    // A chunk says itself how it is written: rows that are added to an older store are written as they are today.
    let (form, schema) = match chunk[3] {
        BLOCKS_VERSION => (Form::Blocks, schema),
        COLUMNS_VERSION => (Form::Columns, schema.max(COLUMNS_SINCE)),
        VERSION => (Form::Columns, schema.max(VERSION_SINCE)),
        _ => return Err(Malformed("its encoding is of an unknown version")),
    };
    if chunk[4] != R::TABLE.tag() {
        return Err(Malformed("it belongs to another table"));
    }
    let rows = u32::from_le_bytes(chunk[5..9].try_into().expect("invariant: four bytes")) as usize;
    if rows > MAX_ROWS {
        return Err(Malformed("it claims more rows than a chunk can hold"));
    }
    Ok(Decoder::new(&chunk[HEADER..], rows, schema, form))
}
