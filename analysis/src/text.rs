//! Scores of a text against a reference: ROUGE-L and the final answer of a word problem.

use crate::number::number_at_start;

/// The words that ROUGE-L compares: lower-cased runs of ASCII letters and digits, everything else separates. This is the
/// default tokenizer of the Python package `rouge_score` (Google Research), without its optional stemming.
pub fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split(|c| !alphanumeric(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// ROUGE-L as F-measure in 0 ..= 1 (Lin 2004, with β = 1 as in `rouge_score`): the harmonic mean of LCS/|text| and
/// LCS/|reference| over [`words`]. Zero if either has no words.
pub fn rouge_l(text: &str, reference: &str) -> f64 {
    let (text, reference) = (words(text), words(reference));
    if text.is_empty() || reference.is_empty() {
        return 0.0;
    }
    // 2PR/(P+R) with P = L/m and R = L/n is 2L/(m+n).
    2.0 * longest_common_subsequence(&text, &reference) as f64 / (text.len() + reference.len()) as f64
}

/// Length of the longest common subsequence; time |a|·|b|, memory |b|.
fn longest_common_subsequence<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    // lengths[j]: of the part of `a` seen so far and b[..j].
    let mut lengths = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if x == y { diagonal + 1 } else { above.max(lengths[j]) };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

/// The final answer of a worked solution: the number after the first `####` ([`number_at_start`]).
/// `None` if there is no mark, or no number follows it.
pub fn final_answer(text: &str) -> Option<String> {
    let (_, after) = text.split_once("####")?;
    number_at_start(after)
}

/// Whether the text's [`final_answer`] is the reference's. `None` if the reference has no answer to match; a text without
/// an answer is wrong.
pub fn exact_match(text: &str, reference: &str) -> Option<bool> {
    let expected = final_answer(reference)?;
    Some(final_answer(text) == Some(expected))
}

/// Removes the calculator marks `<<48/2=24>>` of GSM8K's solutions. A mark that never ends stays.
pub fn strip_calculator_marks(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, mark)) = rest.split_once("<<") {
        let Some((_, after)) = mark.split_once(">>") else { break };
        clean.push_str(before);
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rouge_l_of_lins_own_examples() {
        let reference = "police killed the gunman";
        assert_eq!(rouge_l("police kill the gunman", reference), 0.75);
        assert_eq!(rouge_l("the gunman kill police", reference), 0.5);
        // LCS "the cat sat" = 3 of 4 and of 6 words.
        assert_eq!(rouge_l("The cat sat down!", "the big cat has sat here"), 0.6);
        assert_eq!(rouge_l("", reference), 0.0);
        assert_eq!(rouge_l("§§ …", reference), 0.0);
    }

    #[test]
    fn words_are_lower_case_runs_of_letters_and_digits() {
        assert_eq!(words("It's 3,000-ish: naïve_X"), ["it", "s", "3", "000", "ish", "na", "ve", "x"]);
    }

    #[test]
    fn answers_have_one_form() {
        for (text, answer) in [
            ("so 24.\n#### 24", Some("24")),
            ("#### $1,234.50 dollars", Some("1234.5")),
            ("####-007", Some("-7")),
            ("#### -0.0", Some("0")),
            ("#### 18.", Some("18")),
            ("#### .5", Some("0.5")),
            ("#### 3\n#### 4", Some("3")),
            ("#### 1.2.3", None),
            ("#### none", None),
            ("#### .", None),
            ("the answer is 24", None),
        ] {
            assert_eq!(final_answer(text).as_deref(), answer, "{text}");
        }
    }

    #[test]
    fn a_text_without_an_answer_is_wrong_and_a_reference_without_one_judges_nothing() {
        assert_eq!(exact_match("#### 5", "… #### 5.0"), Some(true));
        assert_eq!(exact_match("#### 6", "#### 5"), Some(false));
        assert_eq!(exact_match("5", "#### 5"), Some(false));
        assert_eq!(exact_match("#### 5", "five"), None);
    }

    #[test]
    fn calculator_marks_go() {
        assert_eq!(strip_calculator_marks("48/2 = <<48/2=24>>24 and <<1+1=2>>2"), "48/2 = 24 and 2");
        assert_eq!(strip_calculator_marks("a << b"), "a << b");
        assert_eq!(strip_calculator_marks("x<<1>>y << z"), "xy << z");
    }

    proptest! {
        #[test]
        fn rouge_l_is_symmetric_bounded_and_one_for_itself(a in "[a-c ]{1,30}", b in "[a-c ]{1,30}") {
            let score = rouge_l(&a, &b);
            prop_assert!((0.0..=1.0).contains(&score));
            prop_assert_eq!(score, rouge_l(&b, &a));
            if !words(&a).is_empty() {
                prop_assert_eq!(rouge_l(&a, &a), 1.0);
            }
        }

        #[test]
        fn every_whole_number_is_its_own_answer(number in any::<i64>()) {
            prop_assert_eq!(final_answer(&format!("x #### {number} y")), Some(number.to_string()));
        }
    }
}
