//! What becomes of a prompt that leaves no room for an answer in the models' context.

use serde::{Deserialize, Serialize};

/// Positions after a prompt that must be free: one new token and two lookahead steps.
const ROOM: usize = 3;

/// What is done with prompts that are too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// The run does not begin.
    #[default]
    Refuse,
    /// They are not asked for.
    Skip,
    /// The models read their end alone.
    Truncate,
}

impl TooLong {
    /// Whether it is what a run does by itself.
    pub fn is_default(&self) -> bool {
        *self == TooLong::default()
    }
}

/// A prompt that was too long for a run, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooLongPrompt {
    /// Its id, by which generations name it.
    pub prompt: u32,
    /// Tokens that it has.
    pub tokens: u32,
    /// Tokens of it that the models read; 0 if it was skipped.
    pub kept: u32,
}

impl TooLongPrompt {
    /// Whether nobody was asked to answer it.
    pub fn is_skipped(&self) -> bool {
        self.kept == 0
    }
}

/// How much of a prompt the models read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptFit {
    Whole,
    /// Nothing, and the run does not begin.
    Refused,
    /// Nothing: it is not asked for.
    Skipped,
    /// So many tokens of it.
    Truncated(usize),
}

/// How much of a prompt of `tokens` tokens the models read, whose context is `context`.
///
/// A truncated prompt leaves room for the longest answer, as far as that takes no more than half of the context: the answer
/// of a prompt that is cut to the last free position would end after one token. Where not even a token would be left, the
/// prompt is refused.
pub fn prompt_fit(tokens: usize, context: usize, max_new_tokens: u32, too_long: TooLong) -> PromptFit {
    if tokens + ROOM <= context {
        return PromptFit::Whole;
    }
    let answer = (max_new_tokens as usize).clamp(1, (context / 2).max(1));
    let kept = (context + 1).saturating_sub(ROOM + answer);
    match too_long {
        TooLong::Skip => PromptFit::Skipped,
        TooLong::Truncate if kept > 0 => PromptFit::Truncated(kept),
        TooLong::Refuse | TooLong::Truncate => PromptFit::Refused,
    }
}

/// The first `start` tokens of a prompt, which mark its beginning, and the last of the others: `kept` in all.
pub fn truncate_prompt(tokens: &[u32], start: usize, kept: usize) -> Vec<u32> {
    let start = start.min(kept).min(tokens.len());
    let (marks, text) = tokens.split_at(start);
    let text = &text[text.len().saturating_sub(kept - start)..];
    [marks, text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_whole_as_long_as_an_answer_can_begin() {
        for too_long in [TooLong::Refuse, TooLong::Skip, TooLong::Truncate] {
            assert_eq!(prompt_fit(97, 100, 50, too_long), PromptFit::Whole);
        }
        assert_eq!(prompt_fit(98, 100, 50, TooLong::Refuse), PromptFit::Refused);
        assert_eq!(prompt_fit(98, 100, 50, TooLong::Skip), PromptFit::Skipped);
        assert_eq!(prompt_fit(98, 100, 50, TooLong::Truncate), PromptFit::Truncated(48));
        assert_eq!(prompt_fit(98, 100, 1, TooLong::Truncate), PromptFit::Truncated(97));
        assert_eq!(prompt_fit(98, 100, 1_000, TooLong::Truncate), PromptFit::Truncated(48));
    }

    /// What is truncated fits.
    #[test]
    fn what_is_truncated_is_whole_afterwards() {
        for context in 0..40 {
            for answer in 0..50 {
                match prompt_fit(1_000, context, answer, TooLong::Truncate) {
                    PromptFit::Truncated(kept) => {
                        assert_eq!(prompt_fit(kept, context, answer, TooLong::Refuse), PromptFit::Whole);
                    }
                    fit => assert!(fit == PromptFit::Refused && context < 5, "{context} {answer}: {fit:?}"),
                }
            }
        }
    }

    #[test]
    fn the_start_token_and_the_end_are_kept() {
        let tokens = [1, 10, 11, 12, 13];
        assert_eq!(truncate_prompt(&tokens, 1, 3), [1, 12, 13]);
        assert_eq!(truncate_prompt(&tokens, 0, 3), [11, 12, 13]);
        assert_eq!(truncate_prompt(&tokens, 1, 9), tokens);
        assert_eq!(truncate_prompt(&tokens, 7, 2), [1, 10]);
        assert_eq!(truncate_prompt(&[], 1, 2), [0_u32; 0]);
    }
}
