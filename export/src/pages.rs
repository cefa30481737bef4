//! Pages of a Parquet column, looked at before the library decodes them. It believes some of what a page says of itself, and
//! ends the process, or takes all the memory there is, where that is wrong.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parquet::basic::{CompressionCodec, Encoding, Type as Physical};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

/// Largest page, unpacked; they have a megabyte as a rule.
const LARGEST_PAGE: usize = 128 << 20;

/// The pages of one column of one row group.
pub(crate) struct Pages {
    pages: SerializedPageReader<File>,
    packed: bool,
    trust: PageTrust,
}

/// What can be known of the next page.
struct PageTrust {
    physical: Physical,
    /// Whether levels stand in front of the values: of definition, and of repetition.
    levels: [bool; 2],
    has_dictionary: bool,
    /// How many values more may come before somebody sets it anew.
    room: Arc<AtomicUsize>,
}

fn bad<T>(why: impl Into<String>) -> Result<T> {
    Err(ParquetError::General(why.into()))
}

impl Pages {
    pub(crate) fn new(file: &Arc<File>, chunk: &ColumnChunkMetaData, room: Arc<AtomicUsize>) -> Result<Pages> {
        let (column, compression) = (chunk.column_descr(), chunk.compression_codec());
        // Unpacked here: the library takes the memory that a page asks for before it looks at what there is.
        let plain = chunk.clone().into_builder().set_compression_codec(CompressionCodec::UNCOMPRESSED).build()?;
        Ok(Pages {
            pages: SerializedPageReader::new(file.clone(), &plain, 0, None)?,
            packed: compression == CompressionCodec::SNAPPY,
            trust: PageTrust {
                physical: chunk.column_type(),
                levels: [column.max_def_level() > 0, column.max_rep_level() > 0],
                has_dictionary: false,
                room,
            },
        })
    }
}

impl PageTrust {
    /// Refuses what the library would take on trust.
    fn check(&mut self, page: &mut Page) -> Result<()> {
        let count = page.num_values() as usize;
        let (values, encoding) = match page {
            Page::DictionaryPage { buf, .. } => {
                self.has_dictionary = true;
                let words = match self.physical {
                    Physical::BYTE_ARRAY => texts(buf),
                    Physical::INT64 => buf.len() / 8,
                    _ => buf.len() / 4,
                };
                return if count <= words { Ok(()) } else { bad("a dictionary is shorter than it says") };
            }
            Page::DataPage { buf, encoding, def_level_encoding, rep_level_encoding, .. } => {
                let found = [def_level_encoding, rep_level_encoding];
                if self.levels.iter().zip(found).any(|(there, found)| *there && *found != Encoding::RLE) {
                    return bad("a page has levels of another encoding than RLE");
                }
                let levels = self.levels.iter().filter(|there| **there).count();
                (behind(buf, levels), encoding)
            }
            Page::DataPageV2 { buf, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                (split(buf, *def_levels_byte_len, *rep_levels_byte_len).map(|(_, values)| values), encoding)
            }
        };
        let Some(values) = values else { return bad("a page is shorter than its levels") };
        let room = self.room.load(Ordering::Relaxed);
        let Some(left) = room.checked_sub(count) else {
            return bad(format!("a list or a page of lists has more than {room} values"));
        };
        self.room.store(left, Ordering::Relaxed);
        match *encoding {
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if !self.has_dictionary => {
                bad("a page needs a dictionary, and there is none")
            }
            Encoding::PLAIN if self.physical == Physical::BYTE_ARRAY && texts(values) < count => {
                bad("a page is shorter than it says, or a value is missing")
            }
            // Differences of no values, for a page of NULL. The library would read the first one all the same, of plain
            // values it reads none.
            Encoding::DELTA_BINARY_PACKED if values.is_empty() || delta_count(values) == Some(0) => {
                *encoding = Encoding::PLAIN;
                Ok(())
            }
            Encoding::PLAIN
            | Encoding::PLAIN_DICTIONARY
            | Encoding::RLE_DICTIONARY
            | Encoding::RLE
            | Encoding::DELTA_BINARY_PACKED => Ok(()),
            other => {
                bad(format!("a page is encoded as {other}: plain, dictionary, RLE and delta-packed ones are read"))
            }
        }
    }
}

/// A page that snappy packed; one whose levels have lengths of their own has them as they are, in front.
fn unpack(page: Page) -> Result<Page> {
    let bytes = |packed: &[u8], front: &[u8]| -> Result<Vec<u8>> {
        // A page without values may be nothing at all.
        let length = if packed.is_empty() { 0 } else { snap::raw::decompress_len(packed)? };
        if length > LARGEST_PAGE {
            return bad(format!("a page has {length} bytes, {LARGEST_PAGE} are read at most"));
        }
        let mut whole = front.to_vec();
        if length > 0 {
            whole.append(&mut snap::raw::Decoder::new().decompress_vec(packed)?);
        }
        Ok(whole)
    };
    Ok(match page {
        Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics } => {
            let buf = bytes(&buf, &[])?.into();
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics }
        }
        Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
            Page::DictionaryPage { buf: bytes(&buf, &[])?.into(), num_values, encoding, is_sorted }
        }
        Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed: true,
            statistics,
        } => {
            let Some((levels, values)) = split(&buf, def_levels_byte_len, rep_levels_byte_len) else {
                return bad("a page is shorter than its levels");
            };
            let buf = bytes(values, levels)?.into();
            let is_compressed = false;
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                num_nulls,
                num_rows,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                statistics,
            }
        }
        page => page,
    })
}

/// What stands behind so many kinds of levels, each with its length in front.
fn behind(mut bytes: &[u8], levels: usize) -> Option<&[u8]> {
    for _ in 0..levels {
        let (length, rest) = bytes.split_first_chunk()?;
        bytes = rest.get(u32::from_le_bytes(*length) as usize..)?;
    }
    Some(bytes)
}

/// Levels and values of a page that says how long its levels are.
fn split(bytes: &[u8], definitions: u32, repetitions: u32) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(definitions.checked_add(repetitions)? as usize)
}

/// How many whole texts stand there.
fn texts(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(rest) = behind(bytes, 1) {
        bytes = rest;
        count += 1;
    }
    count
}

/// How many values differences are of: the third number.
fn delta_count(bytes: &[u8]) -> Option<u64> {
    let mut bytes = bytes.iter();
    let mut number = || {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    };
    number()?;
    number()?;
    number()
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(page) = self.pages.get_next_page()? else { return Ok(None) };
        let mut page = if self.packed { unpack(page)? } else { page };
        self.trust.check(&mut page)?;
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_holds_is_counted() {
        assert_eq!(texts(&[]), 0);
        assert_eq!(texts(&[1, 0, 0, 0, b'a', 0, 0, 0, 0]), 2);
        // The last one is cut off, or its length is.
        assert_eq!(texts(&[1, 0, 0, 0, b'a', 2, 0, 0, 0, b'b']), 1);
        assert_eq!(texts(&[1, 0, 0, 0, b'a', 2, 0]), 1);
        assert_eq!(texts(&[255; 8]), 0);
        assert_eq!(delta_count(&[0x80, 1, 4, 0, 7]), Some(0));
        assert_eq!(delta_count(&[0x80, 1, 4, 0x80]), None);
        assert_eq!(delta_count(&[0x80, 1, 4, 0xac, 2, 7]), Some(300));
        assert_eq!(behind(&[1, 0, 0, 0, 9, 5], 1), Some(&[5][..]));
        assert_eq!(behind(&[7, 0, 0, 0, 9, 5], 1), None);
        assert_eq!(split(&[1, 2, 3], u32::MAX, 1), None);
        assert_eq!(split(&[1, 2, 3], 1, 1), Some((&[1, 2][..], &[3][..])));
    }

    fn page(encoding: Encoding, values: &[u8]) -> Page {
        Page::DataPage {
            buf: values.to_vec().into(),
            num_values: 2,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        }
    }

    #[test]
    fn pages_that_the_library_would_trip_over_are_refused() {
        let check = |physical, mut page| {
            let room = Arc::new(AtomicUsize::new(3));
            let mut trust = PageTrust { physical, levels: [false, false], has_dictionary: false, room };
            trust.check(&mut page).map(|()| page.encoding())
        };
        assert!(check(Physical::INT64, page(Encoding::RLE_DICTIONARY, &[1, 2])).is_err());
        assert!(check(Physical::BYTE_ARRAY, page(Encoding::PLAIN, &[0, 0, 0, 0, 9])).is_err());
        assert!(check(Physical::BYTE_ARRAY, page(Encoding::PLAIN, &[0; 8])).is_ok());
        assert!(check(Physical::BYTE_ARRAY, page(Encoding::DELTA_BYTE_ARRAY, &[0; 8])).is_err());
        assert!(check(Physical::FLOAT, page(Encoding::BYTE_STREAM_SPLIT, &[0; 1])).is_err());
        let none = check(Physical::INT64, page(Encoding::DELTA_BINARY_PACKED, &[0x80, 1, 4, 0, 7]));
        assert_eq!(none.expect("no values are read"), Encoding::PLAIN);
        let dictionary = Page::DictionaryPage {
            buf: vec![0; 8].into(),
            num_values: 1 << 31,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        assert!(check(Physical::INT64, dictionary).is_err());
        let packed = snap::raw::Encoder::new().compress_vec(&[7; 100]).expect("it is short");
        assert_eq!(unpack(page(Encoding::PLAIN, &packed)).expect("a page").buffer()[..], [7; 100]);
        // A length of 2^31 and nothing behind it.
        assert!(unpack(page(Encoding::PLAIN, &[0x80, 0x80, 0x80, 0x80, 8])).is_err());
    }
}
