//! BERTScore (Zhang et al. 2020, arXiv 1904.09675): precision, recall and F1 of greedy matching between the contextual
//! states of two texts' tokens, as the Python package bert-score 0.3.13 computes them.
//!
//! Who makes the states does not matter here: each text is [`TextStates`], the tokens' states with a weight each.
//!
//! ```text
//! P = Σ_i w_i · max_j cos(x_i, y_j) / Σ_i w_i      over the tokens x_i of the candidate, all tokens y_j of the reference
//! R = the same with the texts exchanged            F1 = 2 P R / (P + R)
//! ```
//!
//! The tokens that stand around every text (`[CLS]`, `[SEP]`) weigh nothing, but others may match them. In one place this
//! is stricter than the package: there the best match of a token is at least 0 in a text shorter than the longest of its
//! batch, because padding counts as a match of 0. Here no figure depends on what else is in a batch.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Precision, recall and F1 of one candidate against one reference. NaN where a text has tokens and none of them weighs
/// anything (the package says NaN too; its F1 is then 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matching {
    /// How well the candidate's tokens are found in the reference.
    pub precision: f32,
    /// How well the reference's tokens are found in the candidate.
    pub recall: f32,
    /// Their harmonic mean; 0 where that has no value.
    pub f1: f32,
}

impl Matching {
    /// What an empty text gets, on either side.
    pub const EMPTY: Matching = Matching { precision: 0.0, recall: 0.0, f1: 0.0 };

    /// Rescaled so that what two unrelated texts get is 0 and 1 stays 1: (x − b) / (1 − b) each.
    pub fn rescaled(self, baseline: Baseline) -> Matching {
        let rescale = |value: f32, base: f32| (value - base) / (1.0 - base);
        Matching {
            precision: rescale(self.precision, baseline.precision),
            recall: rescale(self.recall, baseline.recall),
            f1: rescale(self.f1, baseline.f1),
        }
    }
}

/// A text's tokens: unit vectors and weights.
#[derive(Clone, Debug, PartialEq)]
pub struct TextStates {
    width: usize,
    /// `[tokens, width]`, row-major, each row of length 1 (a row of zeros stays one).
    states: Arc<[f32]>,
    /// One per token, none negative.
    weights: Vec<f32>,
    /// Whether the text has no token but those that stand around every text.
    empty: bool,
}

impl TextStates {
    /// The tokens of a text. `states` is `[tokens, width]`, of any lengths; `weights` has one entry per token; `around` of
    /// the tokens stand around every text, empty ones included.
    ///
    /// Panics if the sizes do not fit: that is a mistake of the caller, not of the data.
    pub fn new(width: usize, mut states: Vec<f32>, weights: Vec<f32>, around: usize) -> TextStates {
        assert!(width > 0 && states.len() == width * weights.len(), "one state of {width} numbers per weight");
        for row in states.chunks_exact_mut(width) {
            let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
            if length > 0.0 {
                row.iter_mut().for_each(|x| *x /= length);
            }
        }
        let empty = weights.len() <= around;
        TextStates { width, states: states.into(), weights, empty }
    }

    /// The same tokens with other weights, one per token; the states are shared.
    pub fn weighted(&self, weights: Vec<f32>) -> TextStates {
        assert_eq!(weights.len(), self.weights.len(), "one weight per token");
        TextStates { weights, ..self.clone() }
    }

    /// Number of tokens, those around the text included.
    pub fn tokens(&self) -> usize {
        self.weights.len()
    }
}

/// Matches a candidate's tokens with a reference's. Both must come from one encoder: equal widths.
pub fn greedy_matching(candidate: &TextStates, reference: &TextStates) -> Matching {
    assert_eq!(candidate.width, reference.width, "states of one encoder");
    if candidate.empty || reference.empty {
        return Matching::EMPTY;
    }
    let width = candidate.width;
    let mut best_in_reference = vec![f32::NEG_INFINITY; candidate.tokens()];
    let mut best_in_candidate = vec![f32::NEG_INFINITY; reference.tokens()];
    for (x, best_x) in candidate.states.chunks_exact(width).zip(&mut best_in_reference) {
        for (y, best_y) in reference.states.chunks_exact(width).zip(&mut best_in_candidate) {
            let cosine = dot(x, y);
            *best_x = best_x.max(cosine);
            *best_y = best_y.max(cosine);
        }
    }
    let precision = weighted_mean(&best_in_reference, &candidate.weights);
    let recall = weighted_mean(&best_in_candidate, &reference.weights);
    let f1 = 2.0 * precision * recall / (precision + recall);
    Matching { precision: precision as f32, recall: recall as f32, f1: if f1.is_nan() { 0.0 } else { f1 as f32 } }
}

/// NaN if the weights add up to nothing.
fn weighted_mean(values: &[f32], weights: &[f32]) -> f64 {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    values.iter().zip(weights).map(|(value, weight)| f64::from(*value) * f64::from(*weight)).sum::<f64>() / total
}

/// Side by side sums, so that the loop runs in vector registers.
const LANES: usize = 16;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += x * y;
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Inverse document frequencies over a set of reference texts: a token in d of M texts weighs ln((M + 1) / (d + 1)), one in
/// none of them ln(M + 1). What stands around every text is in all of them and weighs 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idf {
    documents: u32,
    containing: BTreeMap<u32, u32>,
}

impl Idf {
    /// Counts the texts, given as tokens. A text that occurs several times counts several times.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Idf {
        let mut idf = Idf::default();
        for text in texts {
            idf.documents += 1;
            let mut distinct = text.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            for token in distinct {
                *idf.containing.entry(token).or_insert(0) += 1;
            }
        }
        idf
    }

    /// The weight of a token.
    pub fn weight(&self, token: u32) -> f32 {
        let containing = self.containing.get(&token).copied().unwrap_or(0);
        ((f64::from(self.documents) + 1.0) / (f64::from(containing) + 1.0)).ln() as f32
    }
}

/// What unrelated texts get from an encoder at one layer: where the rescaled scale begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baseline {
    /// Of precision, below 1.
    pub precision: f32,
    /// Of recall, below 1.
    pub recall: f32,
    /// Of F1, below 1.
    pub f1: f32,
}

impl Baseline {
    /// Reads the row of `layer` from a file as the package ships them: CSV with a heading, then one row `LAYER,P,R,F` per
    /// layer, from 0 on. The error says which line is wrong and how.
    pub fn parse(text: &str, layer: usize) -> Result<Baseline, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines.next().ok_or("the file is empty; it needs a heading and one row LAYER,P,R,F per layer")?;
        let mut rows = 0;
        let mut found = None;
        for (index, line) in lines {
            let problem = |what: String| format!("line {}: {what}", index + 1);
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let [at, values @ ..] = &cells[..] else { return Err(problem("a row is LAYER,P,R,F".to_owned())) };
            let number = |cell: &str| cell.parse::<f64>().map_err(|_| problem(format!("{cell:?} is no number")));
            if number(at)? != rows as f64 {
                return Err(problem(format!("expected the row of layer {rows}, found that of {at}")));
            }
            let values = values.iter().map(|cell| number(cell)).collect::<Result<Vec<f64>, _>>()?;
            let [precision, recall, f1] = values[..] else { return Err(problem("a row is LAYER,P,R,F".to_owned())) };
            if let Some(value) = values.iter().find(|value| value.is_nan() || **value >= 1.0) {
                return Err(problem(format!("{value} is no baseline: it must lie below 1")));
            }
            if rows == layer {
                found = Some(Baseline { precision: precision as f32, recall: recall as f32, f1: f1 as f32 });
            }
            rows += 1;
        }
        found.ok_or_else(|| match rows {
            0 => "the file has a heading and no rows".to_owned(),
            _ => format!("the file has no row for layer {layer}, only for 0 to {}", rows - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn text(states: &[[f32; 2]], weights: &[f32]) -> TextStates {
        TextStates::new(2, states.concat(), weights.to_vec(), 0)
    }

    #[test]
    fn matches_by_hand() {
        // cos(x, y) = 1, 0.6 and 0.8 are the three that count.
        let candidate = text(&[[3.0, 0.0], [3.0, 4.0]], &[1.0, 3.0]);
        let reference = text(&[[1.0, 0.0], [0.0, 2.0]], &[1.0, 1.0]);
        let matching = greedy_matching(&candidate, &reference);
        let precision = (1.0 + 3.0 * 0.8) / 4.0;
        let recall = (1.0 + 0.8) / 2.0;
        assert!((matching.precision - precision).abs() < 1e-6, "{matching:?}");
        assert!((matching.recall - recall).abs() < 1e-6, "{matching:?}");
        assert!((matching.f1 - 2.0 * precision * recall / (precision + recall)).abs() < 1e-6, "{matching:?}");
    }

    #[test]
    fn tokens_without_weight_are_matched_but_do_not_count() {
        let candidate = text(&[[0.0, 1.0], [1.0, 0.0]], &[0.0, 1.0]);
        let reference = text(&[[1.0, 0.0], [0.0, 1.0]], &[0.0, 1.0]);
        // The candidate's one token that counts is the reference's first, which does not; and the other way round.
        assert_eq!(greedy_matching(&candidate, &reference), Matching { precision: 1.0, recall: 1.0, f1: 1.0 });
    }

    #[test]
    fn an_empty_text_gets_nothing_and_a_weightless_one_no_figure() {
        let word = TextStates::new(1, vec![1.0; 3], vec![0.0, 1.0, 0.0], 2);
        let empty = TextStates::new(1, vec![1.0; 2], vec![0.0; 2], 2);
        let weightless = TextStates::new(1, vec![1.0; 3], vec![0.0; 3], 2);
        assert_eq!(greedy_matching(&empty, &word), Matching::EMPTY);
        assert_eq!(greedy_matching(&word, &empty), Matching::EMPTY);
        assert_eq!(greedy_matching(&empty, &empty), Matching::EMPTY);
        let matching = greedy_matching(&weightless, &word);
        assert!(matching.precision.is_nan() && matching.recall == 1.0 && matching.f1 == 0.0, "{matching:?}");
    }

    #[test]
    fn frequencies_by_hand() {
        let idf = Idf::of([&[9, 1, 1, 8][..], &[9, 2, 8], &[9, 1, 8]]);
        let expected = [(9, 0.0), (8, 0.0), (1, (4f64 / 3.0).ln()), (2, 2f64.ln()), (7, 4f64.ln())];
        for (token, weight) in expected {
            assert!((f64::from(idf.weight(token)) - weight).abs() < 1e-7, "{token}");
        }
    }

    #[test]
    fn a_baseline_is_the_row_of_its_layer() {
        let text = "LAYER,P,R,F\n0,0.3,0.31,0.305\n1,0.5,0.52,0.51\n";
        let baseline = Baseline::parse(text, 1).expect("a row");
        assert_eq!(baseline, Baseline { precision: 0.5, recall: 0.52, f1: 0.51 });
        let rescaled = Matching { precision: 0.75, recall: 1.0, f1: 0.51 }.rescaled(baseline);
        assert_eq!(rescaled, Matching { precision: 0.5, recall: 1.0, f1: 0.0 });
        for (text, layer, problem) in [
            ("", 0, "the file is empty; it needs a heading and one row LAYER,P,R,F per layer"),
            ("LAYER,P,R,F\n", 0, "the file has a heading and no rows"),
            (text, 2, "the file has no row for layer 2, only for 0 to 1"),
            ("LAYER,P,R,F\n0,a,0.1,0.1", 0, "line 2: \"a\" is no number"),
            ("LAYER,P,R,F\n0,0.1,0.1", 0, "line 2: a row is LAYER,P,R,F"),
            ("LAYER,P,R,F\n0,1.0,0.1,0.1", 0, "line 2: 1 is no baseline: it must lie below 1"),
            ("LAYER,P,R,F\n0,NaN,0.1,0.1", 0, "line 2: NaN is no baseline: it must lie below 1"),
            ("LAYER,P,R,F\n\n3,0.1,0.1,0.1", 0, "line 3: expected the row of layer 0, found that of 3"),
        ] {
            assert_eq!(Baseline::parse(text, layer), Err(problem.to_owned()));
        }
    }

    prop_compose! {
        /// A text of tokens with some weight.
        fn any_text()(states in vec(prop::array::uniform3(-1.0f32..1.0), 1..12), seed in any::<u64>()) -> TextStates {
            let weights = (0..states.len()).map(|i| ((seed >> (i % 60)) & 3) as f32 + 0.5).collect();
            TextStates::new(3, states.concat(), weights, 0)
        }
    }

    proptest! {
        #[test]
        fn equal_texts_match_fully(text in any_text()) {
            let matching = greedy_matching(&text, &text);
            for value in [matching.precision, matching.recall, matching.f1] {
                prop_assert!((value - 1.0).abs() < 1e-5, "{:?}", matching);
            }
        }

        #[test]
        fn exchanging_the_texts_exchanges_precision_and_recall(a in any_text(), b in any_text()) {
            let (one, other) = (greedy_matching(&a, &b), greedy_matching(&b, &a));
            prop_assert_eq!(one, Matching { precision: other.recall, recall: other.precision, f1: other.f1 });
        }

        #[test]
        fn precision_and_recall_are_cosines(a in any_text(), b in any_text()) {
            let matching = greedy_matching(&a, &b);
            for value in [matching.precision, matching.recall] {
                prop_assert!((-1.00001..=1.00001).contains(&value), "{:?}", matching);
            }
        }

        #[test]
        fn lengths_of_states_and_scale_of_weights_do_not_matter(states in vec(prop::array::uniform3(0.1f32..1.0), 2..8), b in any_text()) {
            let weights: Vec<f32> = (0..states.len()).map(|i| i as f32 + 1.0).collect();
            let twice: Vec<f32> = states.concat().iter().map(|x| x * 2.0).collect();
            let thrice = weights.iter().map(|w| w * 3.0).collect();
            let one = greedy_matching(&TextStates::new(3, states.concat(), weights, 0), &b);
            let other = greedy_matching(&TextStates::new(3, twice, thrice, 0), &b);
            prop_assert!((one.precision - other.precision).abs() < 1e-5 && (one.recall - other.recall).abs() < 1e-5);
        }

        #[test]
        fn frequent_tokens_weigh_less(texts in vec(vec(0u32..20, 0..10), 1..10)) {
            let idf = Idf::of(texts.iter().map(Vec::as_slice));
            let containing = |token: u32| texts.iter().filter(|text| text.contains(&token)).count();
            for a in 0..20 {
                prop_assert!(idf.weight(a) >= 0.0);
                for b in 0..20 {
                    prop_assert_eq!(containing(a) < containing(b), idf.weight(a) > idf.weight(b));
                }
            }
        }
    }
}
