//! The precompiled map of a normalizer: a double array of units, by which the library replaces texts by others. The library
//! follows its offsets without a look at where they lead, so each that a text can reach is followed here before.

/// Largest byte that occurs in a text.
const LARGEST_BYTE: usize = 0xf4;

/// Why the library could not use a map, with any text.
pub(crate) fn check_charsmap(map: &[u8]) -> Result<(), String> {
    let (length, rest) = map.split_first_chunk().ok_or("its map has no length")?;
    let length = u32::from_le_bytes(*length) as usize / size_of::<u32>() * size_of::<u32>();
    // The library makes room for as many units as it says before it reads the first.
    let (trie, texts) = rest.split_at_checked(length).ok_or("its map is shorter than it says")?;
    let texts = str::from_utf8(texts).map_err(|_| "the texts of its map are no UTF-8")?;
    let units: Vec<usize> = trie.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    let unit_at = |place: usize| units.get(place).copied().ok_or("its map points outside itself");
    let mut open = vec![offset_of(unit_at(0)?)];
    let mut is_seen = vec![false; units.len()];
    while let Some(base) = open.pop() {
        for byte in 1..=LARGEST_BYTE {
            let place = base ^ byte;
            let unit = unit_at(place)?;
            // A unit of another label is no child, and a damaged map may lead back to where it began.
            if unit & (1 << 31 | 0xff) != byte || std::mem::replace(&mut is_seen[place], true) {
                continue;
            }
            let next = place ^ offset_of(unit);
            let has_text = unit >> 8 & 1 == 1;
            if has_text && !texts.is_char_boundary(unit_at(next)? & !(1 << 31)) {
                return Err("its map points outside its texts".to_owned());
            }
            open.push(next);
        }
    }
    Ok(())
}

/// How far the children of a unit lie from it.
fn offset_of(unit: usize) -> usize {
    unit >> 10 << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of `a` to `bb`: the root's children lie from 256 on, each at its byte, and that of `a` has its text before it.
    fn map(change: impl Fn(&mut [u32])) -> Vec<u8> {
        let mut units = [0u32; 512];
        units[0] = 256 << 10;
        units[256 ^ 97] = 97 | 1 << 8 | 1 << 10;
        units[256 ^ 97 ^ 1] = 1 << 31;
        change(&mut units);
        let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
        2048u32.to_le_bytes().into_iter().chain(trie).chain(*b"bb\0").collect()
    }

    #[test]
    fn a_whole_map_is_taken() {
        assert_eq!(check_charsmap(&map(|_| ())), Ok(()));
        // Back to the root's children, from one of them: the library ends with the text.
        assert_eq!(check_charsmap(&map(|units| units[256 ^ 98] = 98 | 98 << 10)), Ok(()));
    }

    #[test]
    fn a_map_that_leads_outside_is_refused() {
        let outside = Err("its map points outside itself".to_owned());
        assert_eq!(check_charsmap(&map(|units| units[0] = 512 << 10)), outside);
        assert_eq!(check_charsmap(&map(|units| units[256 ^ 97] = 97 | 1 << 20)), outside);
        let texts = Err("its map points outside its texts".to_owned());
        assert_eq!(check_charsmap(&map(|units| units[256 ^ 97 ^ 1] = 1 << 31 | 4)), texts);
        assert_eq!(check_charsmap(&map(|_| ())[..9]), Err("its map is shorter than it says".to_owned()));
        assert_eq!(check_charsmap(&[0xff; 4]), Err("its map is shorter than it says".to_owned()));
        assert_eq!(check_charsmap(&[0; 4]), outside, "no unit at all");
        assert_eq!(check_charsmap(b"a"), Err("its map has no length".to_owned()));
    }
}
