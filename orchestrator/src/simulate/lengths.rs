//! How long the prompts and answers of a fitted simulation are, and where that is known from: no text is written, but the
//! workload is the scenario's.

use std::fmt;
use std::sync::Arc;

use specfleet_config::{ModelChoice, Settings};
use specfleet_engine::calibration::Distributions;
use specfleet_engine::cost::quantile;
use specfleet_engine::prompt::{PromptFit, TooLong, prompt_fit};
use specfleet_model::Tokenizer;
use specfleet_simulator::fitted::{AnswerLengths, PromptLengths};

use crate::error::Error;
use crate::pair::Pair;
use crate::prompts::Fitting;

/// The lengths of prompts and answers that a fitted simulation draws.
pub struct Lengths {
    pub prompts: PromptLengths,
    pub answers: AnswerLengths,
    /// Tokens of a prompt in the mean over the requests.
    pub mean_prompt: f64,
    words: String,
}

impl Lengths {
    /// Those of the scenario's requests. `pair`: absent where one is declared, whose tokenizer nobody has. `context`: the
    /// longest sequence; a prompt that leaves no room in it is
    /// dealt with as `run.too_long` says.
    pub fn new(
        settings: &Settings,
        pair: Option<&Pair>,
        context: u32,
        distributions: &Distributions,
    ) -> Result<Lengths, Error> {
        let recorded = settings.recorded_lengths.as_ref();
        let (prompts, tokens, prompt_words) = match recorded.and_then(|lengths| lengths.prompt_tokens.as_ref()) {
            Some(tokens) => {
                let asked = &tokens[..tokens.len().min(settings.tasks().count())];
                // A length without a text has no end to keep, and what is skipped here would leave its arrival behind.
                let is_whole = |&tokens: &u32| {
                    let fit =
                        prompt_fit(tokens as usize, context as usize, settings.run.max_new_tokens, TooLong::Refuse);
                    fit == PromptFit::Whole
                };
                if let Some(line) = asked.iter().position(|tokens| !is_whole(tokens)) {
                    return Err(Error::Simulation(format!(
                        "load.file: request {} has a prompt of {} tokens, which leaves no room in a context of {context}; \
                         run.too_long is for prompts of a workload",
                        line + 1,
                        asked[line],
                    )));
                }
                let words = "as load.file says".to_owned();
                (PromptLengths::ByJob(tokens.clone().into()), asked.to_vec(), words)
            }
            None => {
                let (by_prompt, counter) = counted(settings, pair, context)?;
                let of_task = |prompt: u32| by_prompt.get(prompt as usize).copied().unwrap_or(1);
                let tokens = settings.tasks().map(|task| of_task(task.prompt_id)).collect();
                (PromptLengths::ByPrompt(by_prompt.clone()), tokens, format!("the workload's, counted with {counter}"))
            }
        };
        let most = settings.run.max_new_tokens;
        let answered = recorded.and_then(|lengths| lengths.answer_tokens.as_ref());
        let (answers, answer_words) = if settings.simulate.ignore_eos {
            (AnswerLengths::Endless, format!("{most} tokens each, because simulate.ignore_eos lets none end before"))
        } else if let Some(tokens) = answered {
            (AnswerLengths::ByJob(tokens.clone().into()), format!("as load.file says, at most {most} tokens"))
        } else {
            let table = &distributions.length;
            let [middle, longest] = [0.5, 1.0].map(|rank| quantile(table, rank).unwrap_or(1.0));
            let words = format!(
                "drawn from the calibration's answers (median {middle:.0}, longest {longest:.0} tokens), at most {most}"
            );
            (AnswerLengths::Fitted, words)
        };
        let mean_prompt = tokens.iter().map(|&tokens| f64::from(tokens)).sum::<f64>() / tokens.len().max(1) as f64;
        let (least, largest) = (tokens.iter().min().unwrap_or(&0), tokens.iter().max().unwrap_or(&0));
        let words = format!(
            "prompts: {least} to {largest} tokens, {mean_prompt:.1} in the mean, {prompt_words}; answers: {answer_words}"
        );
        Ok(Lengths { prompts, answers, mean_prompt, words })
    }
}

/// One line for people.
impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Tokens of the workload's prompts by their number in the run, and what they were counted with.
fn counted(settings: &Settings, pair: Option<&Pair>, context: u32) -> Result<(Arc<[u32]>, &'static str), Error> {
    let embedded;
    let (tokenizer, counter) = match pair {
        Some(pair) if settings.model.drafter == ModelChoice::Embedded => {
            (&pair.tokenizer, "the embedded pair's tokenizer")
        }
        Some(pair) => (&pair.tokenizer, "the pair's tokenizer"),
        None => {
            embedded = Tokenizer::embedded()?;
            (&embedded, "the embedded pair's tokenizer, because the declared pair has none")
        }
    };
    let fitting = Fitting::of(settings, tokenizer, context as usize);
    let mut by_prompt: Vec<u32> = Vec::new();
    for part in &settings.workload {
        // A data set that is asked for more often than it is long repeats itself.
        for task in part.tasks().take_while(|task| task.repetition == 0) {
            let Some(tokens) = fitting.tokens(&task)? else { continue };
            let place = task.prompt_id as usize;
            by_prompt.resize(by_prompt.len().max(place + 1), 0);
            by_prompt[place] = tokens.len().max(1) as u32;
        }
    }
    Ok((by_prompt.into(), counter))
}
