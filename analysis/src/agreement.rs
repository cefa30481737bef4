//! Token by token against a reference generation.

/// Share of positions at which both have the same token, in 0 ..= 1, over the longer length: a text that stops early does
/// not agree about what it left out. Two empty generations agree.
pub fn token_agreement(tokens: &[u32], reference: &[u32]) -> f64 {
    let longer = tokens.len().max(reference.len());
    if longer == 0 {
        return 1.0;
    }
    tokens.iter().zip(reference).filter(|(a, b)| a == b).count() as f64 / longer as f64
}

/// The first position at which they differ, one of them having ended counted as a difference; `None` if they are equal.
pub fn first_divergence(tokens: &[u32], reference: &[u32]) -> Option<usize> {
    let shorter = tokens.len().min(reference.len());
    let differs = tokens.iter().zip(reference).position(|(a, b)| a != b);
    differs.or((tokens.len() != reference.len()).then_some(shorter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_positions_of_the_longer_one() {
        assert_eq!(token_agreement(&[1, 2, 3, 4], &[1, 9, 3]), 0.5);
        assert_eq!(token_agreement(&[], &[]), 1.0);
        assert_eq!(token_agreement(&[], &[1]), 0.0);
    }

    #[test]
    fn divergence_is_where_they_first_differ() {
        assert_eq!(first_divergence(&[1, 2, 3], &[1, 9, 3]), Some(1));
        assert_eq!(first_divergence(&[1, 2], &[1, 2, 3]), Some(2));
        assert_eq!(first_divergence(&[1, 2], &[1, 2]), None);
    }
}
