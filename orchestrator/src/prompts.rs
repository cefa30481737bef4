//! Prompts that are too long for the models: which they are, and what becomes of them under `run.too_long`.

use specfleet_config::{Settings, Task, WorkloadPart};
use specfleet_engine::prompt::{PromptFit, TooLong, TooLongPrompt, prompt_fit, truncate_prompt};
use specfleet_model::{ModelError, Tokenizer};

use crate::error::Error;
use crate::pair::Pair;

/// Prompts that a note names.
const NAMED: usize = 3;

/// How prompts of a run become tokens that fit the models.
#[derive(Clone, Copy)]
pub(crate) struct Fitting<'a> {
    /// The tokenizer that the models share.
    pub(crate) tokenizer: &'a Tokenizer,
    /// The smaller context of the pair.
    pub(crate) context: usize,
    pub(crate) max_new_tokens: u32,
    /// What is done with a prompt that is too long.
    pub(crate) too_long: TooLong,
}

impl<'a> Fitting<'a> {
    /// As a scenario says.
    pub(crate) fn of(settings: &Settings, tokenizer: &'a Tokenizer, context: usize) -> Fitting<'a> {
        let run = &settings.run;
        Fitting { tokenizer, context, max_new_tokens: run.max_new_tokens, too_long: run.too_long }
    }

    /// As a scenario says for the prompts of its calibration, on each of which so many tokens are drafted.
    pub(crate) fn of_calibration(settings: &Settings, pair: &'a Pair, drafted: usize) -> Fitting<'a> {
        let max_new_tokens = u32::try_from(drafted).unwrap_or(u32::MAX);
        Fitting { max_new_tokens, ..Fitting::of(settings, &pair.tokenizer, pair.context()) }
    }

    /// What a calibration's key says about prompts that are too long: nothing where there are none. One that is refused is
    /// refused by whoever reads the prompts.
    pub(crate) fn describe_too_long(&self, prompts: &WorkloadPart) -> String {
        match prompts.tasks().filter(|task| matches!(self.too_long(task), Ok(Some(_)))).count() {
            0 => String::new(),
            count => format!(" with {count} too long: {:?}", self.too_long),
        }
    }

    /// A prompt as the models read it; `None` if it is to be skipped.
    pub(crate) fn tokens(&self, task: &Task<'_>) -> Result<Option<Vec<u32>>, Error> {
        let tokens = self.encode(task)?;
        match self.fit(&tokens) {
            PromptFit::Whole => Ok(Some(tokens)),
            PromptFit::Skipped => Ok(None),
            PromptFit::Truncated(kept) => Ok(Some(truncated(self.tokenizer, &tokens, kept)?)),
            PromptFit::Refused => Err(self.refusal(task, tokens.len())),
        }
    }

    /// What becomes of a prompt that is too long; `None` for one that is not.
    pub(crate) fn too_long(&self, task: &Task<'_>) -> Result<Option<TooLongPrompt>, Error> {
        let tokens = self.encode(task)?;
        let entry = |kept: usize| TooLongPrompt {
            prompt: task.prompt_id,
            tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            kept: u32::try_from(kept).unwrap_or(u32::MAX),
        };
        match self.fit(&tokens) {
            PromptFit::Whole => Ok(None),
            PromptFit::Skipped => Ok(Some(entry(0))),
            PromptFit::Truncated(kept) => Ok(Some(entry(kept))),
            PromptFit::Refused => Err(self.refusal(task, tokens.len())),
        }
    }

    fn encode(&self, task: &Task<'_>) -> Result<Vec<u32>, Error> {
        let tokens = self.tokenizer.encode(&task.prompt.text)?;
        if tokens.is_empty() {
            let (data_set, line) = (task.prompt.data_set.clone(), task.prompt.line as usize + 1);
            return Err(Error::PromptWithoutTokens { data_set, line });
        }
        Ok(tokens)
    }

    fn fit(&self, tokens: &[u32]) -> PromptFit {
        prompt_fit(tokens.len(), self.context, self.max_new_tokens, self.too_long)
    }

    fn refusal(&self, task: &Task<'_>, tokens: usize) -> Error {
        Error::PromptTooLong {
            data_set: task.prompt.data_set.clone(),
            line: task.prompt.line as usize + 1,
            tokens,
            context: self.context,
        }
    }
}

/// The start of a prompt's tokens, which the tokenizer puts before any text, and their end.
pub(crate) fn truncated(tokenizer: &Tokenizer, tokens: &[u32], kept: usize) -> Result<Vec<u32>, ModelError> {
    let marks = tokenizer.encode("")?;
    let start = marks.iter().zip(tokens).take_while(|(mark, token)| mark == token).count();
    Ok(truncate_prompt(tokens, start, kept))
}

/// Looks for the prompts of the workload that are too long and takes those that are skipped out of what is asked for. What
/// there is to say about them comes back. Where they are refused nothing happens: whoever reads the prompts refuses them.
pub(crate) fn settle(settings: &mut Settings, tokenizer: &Tokenizer, context: usize) -> Result<Option<String>, Error> {
    if settings.run.too_long == TooLong::Refuse {
        return Ok(None);
    }
    let mut workload = std::mem::take(&mut settings.workload);
    let fitting = Fitting::of(settings, tokenizer, context);
    for part in &mut workload {
        let found = part.all_tasks().take_while(|task| task.repetition == 0).map(|task| fitting.too_long(&task));
        let found = found.filter_map(Result::transpose).collect::<Result<Vec<TooLongPrompt>, Error>>()?;
        part.set_too_long(found);
    }
    settings.workload = workload;
    if settings.requests() == 0 {
        return Err(Error::NoPromptFits { context });
    }
    let parts = settings.workload.iter().map(|part: &WorkloadPart| (part.data_set.as_str(), part.too_long()));
    Ok(note(parts))
}

/// What became of prompts that are too long, by data set, in words; `None` if there are none.
pub(crate) fn note<'a, P>(parts: impl Iterator<Item = (&'a str, P)>) -> Option<String>
where
    P: Iterator<Item = &'a TooLongPrompt>,
{
    let all: Vec<(&str, &TooLongPrompt)> =
        parts.flat_map(|(data_set, prompts)| prompts.map(move |prompt| (data_set, prompt))).collect();
    let of_kind = |skipped: bool| {
        let some: Vec<_> = all.iter().filter(|(_, prompt)| prompt.is_skipped() == skipped).collect();
        let named = some.iter().take(NAMED).map(|(data_set, TooLongPrompt { prompt, tokens, kept })| match kept {
            0 => format!("prompt {prompt} of {data_set} with {tokens} tokens"),
            kept => format!("prompt {prompt} of {data_set} with {tokens} tokens to {kept}"),
        });
        let named = named.collect::<Vec<_>>().join(", ");
        let more = if some.len() > NAMED { ", …" } else { "" };
        let what = if skipped { "skipped" } else { "truncated" };
        (!some.is_empty()).then(|| format!("{} {what}: {named}{more}", some.len()))
    };
    let kinds: Vec<String> = [true, false].into_iter().filter_map(of_kind).collect();
    (!kinds.is_empty()).then(|| format!("prompts too long for the models (run.too_long): {}", kinds.join("; ")))
}
