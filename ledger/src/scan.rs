//! Scanning rounds by columns, chunk by chunk, on one thread or several.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use specfleet_engine::record::RoundRecord;
use specfleet_files::room;

use crate::chunk;
use crate::columns::{Projection, RoundChunk, RoundColumn, RoundPiece};
use crate::error::LedgerError;
use crate::reader::RunReader;
use crate::rows::{Piece, absolute_positions, absolute_times, decode_columns};
use crate::table::Table;

/// Parts that [`RunReader::fold_rounds`] divides a store into: enough for any machine's threads to finish together, few
/// enough that a state per part costs little.
const PARTS: usize = 32;

/// The state of a part and its damage, once it is done.
type ScanPart<S> = Mutex<Option<(S, Vec<LedgerError>)>>;

impl RunReader {
    /// All rounds by columns, in the order of the store; rows of generations that were never closed are among them and
    /// say so. A damaged chunk gives an error in its place, and the scan goes on.
    ///
    /// Only what was asked for is decoded. A damaged row of the table of generations costs its generations the mark
    /// [`RoundPiece::closed`]; [`RunReader::damaged`] lists it.
    pub fn scan_rounds(
        &self,
        columns: &[RoundColumn],
    ) -> impl Iterator<Item = Result<RoundChunk, LedgerError>> + use<'_> {
        let wanted = Projection::new(columns);
        let (numbers, errors) = self.round_chunks();
        let closed = Rc::new(Cell::new(Some(0)));
        let seen = Rc::clone(&closed);
        if !errors.is_empty() {
            closed.set(None);
        }
        let chunks = numbers.into_iter().map(move |number| {
            let mut chunk = RoundChunk::default();
            match self.read_rounds(number, wanted, &mut chunk) {
                Ok(()) => {
                    seen.set(seen.get().map(|rounds: u64| rounds + closed_rounds(&chunk)));
                    Ok(chunk)
                }
                Err(error) => {
                    seen.set(None);
                    Err(error)
                }
            }
        });
        let end = std::iter::once_with(move || self.lacking_rounds(closed.get()?).map(Err)).flatten();
        errors.into_iter().map(Err).chain(chunks).chain(end)
    }

    /// The same, folded on `threads` threads: the store is divided into contiguous parts, each part starts with `start()`
    /// and takes in its chunks in order. The parts do not depend on `threads`, and neither does the result: the parts'
    /// states in the order of the store, and what was damaged, in that order too.
    ///
    /// # Panics
    /// If `start` or `step` does.
    pub fn fold_rounds<S: Send>(
        &self,
        columns: &[RoundColumn],
        threads: usize,
        start: impl Fn() -> S + Sync,
        step: impl Fn(&mut S, &RoundChunk) + Sync,
    ) -> (Vec<S>, Vec<LedgerError>) {
        let wanted = Projection::new(columns);
        let (numbers, mut all_damage) = self.round_chunks();
        let parts: Vec<&[u64]> = numbers.chunks(numbers.len().div_ceil(PARTS).max(1)).collect();
        let next = AtomicUsize::new(0);
        let closed = AtomicU64::new(0);
        let results: Vec<ScanPart<S>> = parts.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            let mut chunk = RoundChunk::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(part) = parts.get(number) else { return };
                let (mut state, mut damage) = (start(), Vec::new());
                for number in *part {
                    match self.read_rounds(*number, wanted, &mut chunk) {
                        Ok(()) => {
                            closed.fetch_add(closed_rounds(&chunk), Ordering::Relaxed);
                            step(&mut state, &chunk);
                        }
                        Err(error) => damage.push(error),
                    }
                }
                // Each part has one worker, and nobody looks before all are done.
                if let Ok(mut result) = results[number].lock() {
                    *result = Some((state, damage));
                }
            }
        };
        room::share_out(0..threads.min(parts.len()).max(1), |_| work());
        let results = results.into_iter().filter_map(|result| result.into_inner().ok().flatten());
        let (states, damage): (Vec<S>, Vec<Vec<LedgerError>>) = results.unzip();
        all_damage.extend(damage.into_iter().flatten());
        if all_damage.is_empty() {
            all_damage.extend(self.lacking_rounds(closed.into_inner()));
        }
        (states, all_damage)
    }

    /// The error of a scan without one that found another number of rounds of closed generations than these were closed with:
    /// the end of a table leaves no gap that a chunk's number would show.
    fn lacking_rounds(&self, found: u64) -> Option<LedgerError> {
        let expected = self.closed().all_rounds();
        let path = self.store_dir().to_path_buf();
        let error = LedgerError::MissingRows { path, expected, found };
        (expected != found).then(|| self.damage_log().note(Table::Rounds, error))
    }

    /// The numbers of the chunks of rounds, in order: those that have pieces, and those that lack them; and why these are
    /// not all.
    pub(crate) fn round_chunks(&self) -> (Vec<u64>, Vec<LedgerError>) {
        // Chunks of pieces are small and lie together, so their keys cost little; of the large ones only those that
        // fill a gap are looked up.
        let (pieces, error) = self.numbers(Table::Pieces, 0, u64::MAX);
        let mut errors: Vec<LedgerError> = error.into_iter().collect();
        let mut numbers = Vec::with_capacity(pieces.len());
        let mut next = 0;
        let mut fill = |numbers: &mut Vec<u64>, first, last| {
            let (mut lacking, error) = self.numbers(Table::Rounds, first, last);
            numbers.append(&mut lacking);
            errors.extend(error);
        };
        for number in pieces {
            if next < number {
                fill(&mut numbers, next, number - 1);
            }
            numbers.push(number);
            next = number.saturating_add(1);
        }
        fill(&mut numbers, next, u64::MAX);
        let mut next = 0;
        for number in &numbers {
            errors.extend(self.gap(Table::Rounds, next, *number));
            next = number.saturating_add(1);
        }
        errors.extend(self.end_gap(Table::Rounds, next));
        (numbers, errors)
    }

    /// Fills `into` with the wanted columns of a chunk of rounds.
    pub(crate) fn read_rounds(
        &self,
        number: u64,
        wanted: Projection,
        into: &mut RoundChunk,
    ) -> Result<(), LedgerError> {
        into.pieces.clear();
        into.rows.clear();
        let malformed = |table| move |error: crate::codec::Malformed| self.damage(table, number, error.0.to_owned());
        let expected = self.expected(number);
        let pieces = self.value(Table::Pieces, number)?;
        let pieces: Vec<Piece> = chunk::read(&pieces, expected).map_err(malformed(Table::Pieces))?;
        let rounds = self.value(Table::Rounds, number)?;
        let mut columns = chunk::open::<RoundRecord>(&rounds, expected).map_err(malformed(Table::Rounds))?;
        let rows = columns.rows();
        if pieces.iter().map(|piece| u64::from(piece.rounds)).sum::<u64>() != rows as u64 {
            return Err(self.damage(Table::Rounds, number, "its pieces say another number of rows".to_owned()));
        }
        decode_columns(&mut columns, wanted, &mut into.rows).map_err(malformed(Table::Rounds))?;
        columns.finish().map_err(malformed(Table::Rounds))?;
        let closed = self.closed();
        let mut offset = 0;
        for piece in pieces {
            let range = offset..offset + piece.rounds as usize;
            offset = range.end;
            if wanted.has(RoundColumn::Position) {
                absolute_positions(into.rows.position[range.clone()].iter_mut(), piece.first);
            }
            if wanted.has(RoundColumn::CommittedAt) {
                absolute_times(into.rows.committed_at[range.clone()].iter_mut(), piece.base);
            }
            into.pieces.push(RoundPiece {
                id: piece.id,
                device: piece.device,
                first: piece.first,
                range,
                closed: closed.rounds(piece.id).is_some(),
            });
        }
        Ok(())
    }
}

/// Rows of closed generations in a chunk.
fn closed_rounds(chunk: &RoundChunk) -> u64 {
    chunk.pieces.iter().filter(|piece| piece.closed).map(|piece| piece.range.len() as u64).sum()
}
