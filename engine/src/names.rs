//! Names that people mistype: how far two are apart, and which valid ones were probably meant.

use std::borrow::Borrow;

/// Levenshtein distance: insertions, deletions and replacements of characters that make one of the other.
pub fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let kept = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = kept.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// The names that are most like one that does not exist: three at most, the most likely first; empty if nothing is near.
/// A part of a name is as good as a slip, and letters of the other case count as equal.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    let mut near: Vec<(usize, &str)> = known
        .filter_map(|known| {
            let lower = known.to_lowercase();
            let contained = length > 3 && lower.contains(&name);
            let distance = if contained { 1 } else { edits(&name, &lower) };
            (distance <= 1 + length / 4).then_some((distance, known))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(3).map(|(_, known)| known).collect()
}

/// The question after a name that does not exist: "did you mean hlm or u-hlm?"; `None` if nothing is near.
pub fn did_you_mean<S: Borrow<str>>(near: &[S]) -> Option<String> {
    (!near.is_empty()).then(|| format!("did you mean {}?", near.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count() {
        assert_eq!((edits("", "abc"), edits("kitten", "sitting"), edits("same", "same")), (3, 3, 0));
        assert_eq!(edits("größe", "grösse"), 2);
    }

    #[test]
    fn slips_and_parts_are_understood() {
        let known = ["agreement", "verifier_agreement", "queue_seconds", "hlm", "u-hlm"];
        let near = |name| nearest(name, known.into_iter());
        assert_eq!(near("agrement"), ["agreement"]);
        assert_eq!(near("Agreement"), ["agreement", "verifier_agreement"]);
        assert_eq!(near("queue"), ["queue_seconds"]);
        assert_eq!(near("uhlm"), ["hlm", "u-hlm"]);
        assert_eq!(near("colour"), [""; 0]);
        assert_eq!(did_you_mean(&near("uhlm")).as_deref(), Some("did you mean hlm or u-hlm?"));
        assert_eq!(did_you_mean(&near("colour")), None);
    }
}
