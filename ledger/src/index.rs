//! What a reader knows about the generations of a run before it reads their rows: which are closed, and where their
//! rounds lie. Read when first asked for, into sorted lists, because a scan of ten million rounds needs the first only.

use specfleet_engine::id::GenerationId;

use crate::chunk::{self, ChunkIdentity};
use crate::codec::Malformed;
use crate::rows::{ClosedGeneration, Piece, decode_ids};

/// The closed generations, and how many rounds each was closed with.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    rows: Vec<(GenerationId, u32)>,
}

impl Closed {
    /// From the chunks of the table of generations; those that do not decode are left out.
    pub(crate) fn new(chunks: impl Iterator<Item = (ChunkIdentity, impl AsRef<[u8]>)>) -> Closed {
        let mut rows = Vec::new();
        for (expected, chunk) in chunks {
            // What is damaged is reported by whoever reads the rows.
            let _ = Closed::add(chunk.as_ref(), expected, &mut rows);
        }
        rows.sort_unstable();
        Closed { rows }
    }

    /// The first columns of a chunk are enough.
    fn add(chunk: &[u8], expected: ChunkIdentity, rows: &mut Vec<(GenerationId, u32)>) -> Result<(), Malformed> {
        let mut columns = chunk::open::<ClosedGeneration>(chunk, expected)?;
        let rounds: Vec<u32> = columns.integers()?;
        rows.extend(decode_ids(&mut columns)?.into_iter().zip(rounds));
        Ok(())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Rounds that this generation was closed with; `None` if it was not closed.
    pub(crate) fn rounds(&self, id: GenerationId) -> Option<u32> {
        let at = self.rows.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.rows[at].1)
    }

    /// Rounds that all of them were closed with.
    pub(crate) fn all_rounds(&self) -> u64 {
        self.rows.iter().map(|(_, rounds)| u64::from(*rounds)).sum()
    }

    /// Their ids, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = GenerationId> + '_ {
        self.rows.iter().map(|(id, _)| *id)
    }
}

/// A piece and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PieceLocation {
    pub(crate) chunk: u64,
    /// Index of its first row in the chunk.
    pub(crate) offset: u32,
    pub(crate) piece: Piece,
}

/// Where each generation's rounds lie.
#[derive(Debug, Default)]
pub(crate) struct PieceIndex {
    /// Sorted by id, then in the order of the store.
    rows: Vec<PieceLocation>,
}

impl PieceIndex {
    /// From the pieces of each chunk, in the order of the store.
    pub(crate) fn new(chunks: impl Iterator<Item = (u64, Vec<Piece>)>) -> PieceIndex {
        let mut rows = Vec::new();
        for (chunk, pieces) in chunks {
            let mut offset: u32 = 0;
            for piece in pieces {
                rows.push(PieceLocation { chunk, offset, piece });
                offset = offset.saturating_add(piece.rounds);
            }
        }
        // A stable sort: the pieces of a generation stay in order.
        rows.sort_by_key(|place| place.piece.id);
        PieceIndex { rows }
    }

    /// Those of one generation, in order.
    pub(crate) fn of(&self, id: GenerationId) -> &[PieceLocation] {
        let start = self.rows.partition_point(|place| place.piece.id < id);
        let count = self.rows[start..].partition_point(|place| place.piece.id == id);
        &self.rows[start..start + count]
    }

    /// Those of each generation that has any, by id.
    pub(crate) fn by_generation(&self) -> impl Iterator<Item = &[PieceLocation]> {
        self.rows.chunk_by(|a, b| a.piece.id == b.piece.id)
    }
}
