//! Chunks that are found in the bytes of a store's files, without sled.
//!
//! sled's recovery stops at the first page that it cannot read, cuts its log there, and sometimes panics. What it has written
//! lies in its files as it was handed over, though, and each chunk says of which run and table it is, which number it has, and
//! whether it is whole. So a store that nobody closed, or that has changed since, is read here: a damaged byte costs the chunk
//! that it lies in, and often not even that, because sled writes most chunks more than once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;

use crate::chunk::{self, START};
use crate::error::LedgerError;
use crate::id::RunId;
use crate::store;
use crate::table::Table;

/// Bytes that are looked at together.
const WINDOW: usize = 8 << 20;

/// Longest chunk that is looked for: what follows a window by less is looked at again with the next one.
const LONGEST: usize = 1 << 20;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug)]
struct Spot {
    file: usize,
    offset: u64,
    len: usize,
}

/// The whole chunks of a run in a store's files.
#[derive(Debug)]
pub(crate) struct Found {
    files: Vec<PathBuf>,
    spots: BTreeMap<(Table, u64), Spot>,
    /// Whether there are chunks of other runs too.
    pub(crate) has_foreign: bool,
    /// Files that could not be read to their end.
    pub(crate) unread: Vec<LedgerError>,
}

impl Found {
    /// Looks through the files of a store for chunks of this run.
    pub(crate) fn scan(store_dir: &Path, run: RunId) -> Result<Found, LedgerError> {
        let files = store::file_names(store_dir)?.into_iter().map(|name| store_dir.join(name)).collect();
        let mut found = Found { files, spots: BTreeMap::new(), has_foreign: false, unread: Vec::new() };
        let finder = Finder::new(&START);
        let mut window = Vec::new();
        for number in 0..found.files.len() {
            if let Err(error) = found.scan_file(number, run, &finder, &mut window) {
                found.unread.push(LedgerError::io(&found.files[number], error));
            }
        }
        Ok(found)
    }

    fn scan_file(&mut self, number: usize, run: RunId, finder: &Finder<'_>, window: &mut Vec<u8>) -> io::Result<()> {
        let mut file = File::open(&self.files[number])?;
        let mut start: u64 = 0;
        window.clear();
        loop {
            let wanted = WINDOW - window.len();
            let read = (&mut file).take(wanted as u64).read_to_end(window)?;
            let last = read < wanted;
            // Chunks that begin behind this place are found with the next window.
            let settled = if last { window.len() } else { window.len() - LONGEST };
            for at in finder.find_iter(window).take_while(|at| *at < settled) {
                let Some((table, place, len)) = chunk::recognise(&window[at..]) else { continue };
                if place.run == run {
                    let spot = Spot { file: number, offset: start + at as u64, len };
                    self.spots.entry((table, place.number)).or_insert(spot);
                } else {
                    self.has_foreign = true;
                }
            }
            if last {
                return Ok(());
            }
            window.drain(..settled);
            start += settled as u64;
        }
    }

    /// The chunk of this number, if it was found.
    pub(crate) fn get(&self, table: Table, number: u64) -> Result<Option<Vec<u8>>, LedgerError> {
        let Some(spot) = self.spots.get(&(table, number)) else { return Ok(None) };
        let path = &self.files[spot.file];
        let mut chunk = vec![0; spot.len];
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(spot.offset))?;
            file.read_exact(&mut chunk)
        });
        read.map_err(|error| LedgerError::io(path, error))?;
        Ok(Some(chunk))
    }

    /// The numbers of the chunks of a table from `first` to `last`.
    pub(crate) fn numbers(&self, table: Table, first: u64, last: u64) -> impl Iterator<Item = u64> + '_ {
        self.spots.range((table, first)..=(table, last)).map(|((_, number), _)| *number)
    }
}
