//! The valid key that a mistyped one was probably meant to be.

use specfleet_engine::names::edits;

/// The candidate nearest to `key`: one of the same last name in another section, else the one with the fewest edits, if
/// that is at most a third of the key's length.
pub(super) fn nearest<'a>(key: &str, candidates: impl Iterator<Item = &'a String>) -> Option<String> {
    let last = last_name(key);
    candidates
        .map(|candidate| {
            let edits = edits(key, candidate);
            (if last_name(candidate) == last { 0 } else { edits }, edits, candidate)
        })
        .min()
        .filter(|&(distance, ..)| distance <= (key.chars().count() / 3).max(1))
        .map(|(.., candidate)| candidate.clone())
}

/// The candidate with the fewest edits, letters of the other case counting as equal, if that is less than half of its length.
pub fn nearest_of<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .map(|candidate| (edits(&name, &candidate.to_lowercase()), candidate))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, candidate)| 2 * edits < candidate.chars().count())
        .map(|(_, candidate)| candidate)
}

/// Whether two names differ by at most two edits, and by less than half.
pub(super) fn is_near(a: &str, b: &str) -> bool {
    let distance = edits(a, b);
    distance <= 2 && 2 * distance < b.chars().count()
}

fn last_name(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_section_is_found() {
        let keys = ["run.devices".to_owned(), "run.prompts".to_owned()];
        assert_eq!(nearest("devices", keys.iter()).as_deref(), Some("run.devices"));
        assert_eq!(nearest("runs.devices", keys.iter()).as_deref(), Some("run.devices"));
        assert_eq!(nearest("run.device", keys.iter()).as_deref(), Some("run.devices"));
        assert_eq!(nearest("colour", keys.iter()), None);
    }
}
