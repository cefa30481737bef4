//! A smooth weighted round robin: which part the devices 0, 1, … belong to.

/// The shortest pattern that has each part as often as its weight says, over and over. In its first n entries, for any n,
/// part i comes fewer than one time more or less often than n times its share \[ours\].
///
/// The n-th entry of a part of weight w, of W altogether, may stand no earlier than ⌊nW/w⌋ and must stand before
/// ⌈(n+1)W/w⌉; each place takes the part whose bound is nearest, of those that may stand there. It is earliest deadline
/// first on one machine that the parts load fully, so every bound is kept: within it, the parts' shares of each place are
/// a schedule, and the rule is optimal \[Baruah et al. 1996\].
///
/// An error is the length of a pattern that is longer than `longest`. `weights`: at least one, each at least 1, at most
/// 65,536 of them.
pub(super) fn of_weights(weights: &[u16], longest: u64) -> Result<Vec<u16>, u64> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, u64::from(b))).max(1);
    let weights: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) / divisor).collect();
    let length: u64 = weights.iter().sum();
    if length > longest {
        return Err(length);
    }
    let mut counts = vec![0u64; weights.len()];
    let place = |at: u64| {
        let may_stand = |part: &usize| counts[*part] * length / weights[*part] <= at;
        let bound = |part: &usize| ((counts[*part] + 1) * length).div_ceil(weights[*part]);
        // The first of equals. Some part may always stand: together they load the machine fully.
        let part = (0..weights.len()).filter(may_stand).min_by_key(bound).unwrap_or(0);
        counts[part] += 1;
        part as u16
    };
    Ok((0..length).map(place).collect())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_parts_take_turns_and_others_interleave() {
        assert_eq!(of_weights(&[7, 7, 7], 100), Ok(vec![0, 1, 2]));
        assert_eq!(of_weights(&[5, 1, 1], 100), Ok(vec![0, 0, 0, 1, 0, 0, 2]));
        assert_eq!(of_weights(&[3], 100), Ok(vec![0]));
        assert_eq!(of_weights(&[50, 51], 100), Err(101));
    }

    proptest! {
        /// Over a whole pattern each part comes as often as its weight says, and in every beginning to less than one.
        #[test]
        fn every_beginning_is_near_the_weights(weights in proptest::collection::vec(1u16..=1_000, 1..12)) {
            let pattern = of_weights(&weights, u64::MAX).expect("short enough");
            let total: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
            let mut counts = vec![0i64; weights.len()];
            for (before, &part) in pattern.iter().enumerate() {
                counts[usize::from(part)] += 1;
                for (count, &weight) in counts.iter().zip(&weights) {
                    let error = count * total - (before as i64 + 1) * i64::from(weight);
                    prop_assert!(error.abs() < total, "part {part} at {before}: off by {error}/{total}");
                }
            }
            for (count, &weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(count * total, pattern.len() as i64 * i64::from(weight));
            }
        }
    }
}
