//! A run's texts, rebuilt from its stored tokens: the prompt and the reference come from the workload that its scenario
//! names, the answer from the tokens and the run's tokenizer.

use std::collections::BTreeMap;

use specfleet_config::{Settings, WorkloadPart};
use specfleet_engine::id::GenerationId;
use specfleet_engine::record::FinishReason;
use specfleet_ledger::{Meta, RunKind, RunReader};
use specfleet_model::Tokenizer;

use crate::error::Error;
use crate::prompts::truncated;
use crate::stored::inputs::{StoredInputs, tokenizer_of};

/// The method that others are compared with.
const LLM_ONLY: &str = "llm-only";

/// A prompt of the workload.
pub(super) struct ScoredPrompt {
    pub(super) tokens: Vec<u32>,
    /// What a right answer looks like, if the workload says.
    pub(super) reference: Option<String>,
}

/// A generation with its text.
pub(super) struct ScoredText {
    pub(super) id: GenerationId,
    pub(super) prompt: usize,
    pub(super) tokens: Vec<u32>,
    pub(super) text: String,
}

/// Everything that scorers look at.
pub(super) struct Texts {
    pub(super) settings: Settings,
    /// Each prompt and repetition of the workload, in order.
    pub(super) prompts: Vec<ScoredPrompt>,
    /// Prompt after prompt, and under each prompt in the order of the methods: what is compared lies close together.
    pub(super) generations: Vec<ScoredText>,
    /// Index of the method `llm-only`, if the run has it.
    pub(super) llm_only: Option<u16>,
    /// What could not be read.
    pub(super) damage: Vec<String>,
    /// By prompt, repetition and pass: index among `generations` of `llm-only`'s answer.
    verifiers: BTreeMap<(u32, u16, u16), usize>,
}

/// What makes two answers comparable.
fn task(id: GenerationId) -> (u32, u16, u16) {
    (id.prompt, id.repetition, id.pass)
}

impl Texts {
    /// Rebuilds the texts of a run. Says in one line why that cannot be done: a simulation that wrote none, a workload or a
    /// tokenizer that is gone or has changed.
    pub(super) fn of(reader: &RunReader) -> Result<Texts, Error> {
        let meta = reader.meta();
        let cannot = |why: String| Error::Score(format!("run {}: {why}", meta.run));
        if let RunKind::Simulated { fidelity, .. } = &meta.kind
            && fidelity == "fitted"
        {
            return Err(cannot("it was simulated with fitted answers, which have no text to score".to_owned()));
        }
        let gone = |why: String| cannot(format!("{why}; its texts cannot be rebuilt"));
        let inputs = StoredInputs::of(meta);
        let settings = inputs.settings.map_err(|error| gone(error.to_string()))?;
        if let Some(problem) = inputs.problems.into_iter().next() {
            return Err(gone(problem));
        }
        let tokenizer = tokenizer_of(meta, &settings).map_err(gone)?;
        let mut texts = Texts {
            prompts: Vec::new(),
            generations: Vec::new(),
            llm_only: llm_only(meta),
            damage: Vec::new(),
            verifiers: BTreeMap::new(),
            settings,
        };
        let places = texts.read_prompts(&tokenizer)?;
        for record in reader.generations() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    texts.damage.push(error.to_string());
                    continue;
                }
            };
            // A dropped request was never answered.
            if record.finish == FinishReason::Dropped {
                continue;
            }
            let id = record.id;
            let Some(&prompt) = places.get(&(id.prompt, id.repetition)) else {
                return Err(cannot(format!("its workload has no prompt {} any more", id.prompt)));
            };
            if texts.prompts[prompt].tokens.len() != record.prompt_tokens as usize {
                let now = texts.prompts[prompt].tokens.len();
                return Err(cannot(format!(
                    "prompt {} had {} tokens and has {now} now: its workload or its models' tokenizer have changed",
                    id.prompt, record.prompt_tokens
                )));
            }
            let text = tokenizer.decode(&record.tokens)?;
            texts.generations.push(ScoredText { id, prompt, tokens: record.tokens, text });
        }
        if texts.generations.is_empty() {
            return Err(cannot("it has no finished generation to score".to_owned()));
        }
        texts.generations.sort_by_key(|g| (g.prompt, g.id.pass, g.id.method));
        for (index, generation) in texts.generations.iter().enumerate() {
            if Some(generation.id.method) == texts.llm_only {
                texts.verifiers.insert(task(generation.id), index);
            }
        }
        Ok(texts)
    }

    /// What `llm-only` wrote for the same prompt; `None` for `llm-only` itself, and where it wrote nothing.
    pub(super) fn llm_only_of(&self, generation: &ScoredText) -> Option<&ScoredText> {
        if Some(generation.id.method) == self.llm_only {
            return None;
        }
        let index = self.verifiers.get(&task(generation.id))?;
        self.generations.get(*index)
    }

    /// All answers of `llm-only`.
    pub(super) fn llm_only_texts(&self) -> impl Iterator<Item = &str> {
        self.verifiers.values().map(|index| self.generations[*index].text.as_str())
    }

    /// The reference of a generation, if its prompt has one.
    pub(super) fn reference_of(&self, generation: &ScoredText) -> Option<&str> {
        self.prompts[generation.prompt].reference.as_deref()
    }

    pub(super) fn references(&self) -> impl Iterator<Item = &str> {
        self.prompts.iter().filter_map(|prompt| prompt.reference.as_deref())
    }

    /// Reads the workload; where each prompt and repetition lies.
    fn read_prompts(&mut self, tokenizer: &Tokenizer) -> Result<BTreeMap<(u32, u16), usize>, Error> {
        let mut places = BTreeMap::new();
        let too_long = self.settings.workload.iter().flat_map(WorkloadPart::too_long);
        let kept: BTreeMap<u32, u32> = too_long.map(|prompt| (prompt.prompt, prompt.kept)).collect();
        for task in self.settings.tasks() {
            places.insert((task.prompt_id, task.repetition), self.prompts.len());
            let tokens = tokenizer.encode(&task.prompt.text)?;
            let tokens = match kept.get(&task.prompt_id) {
                Some(&kept) => truncated(tokenizer, &tokens, kept as usize)?,
                None => tokens,
            };
            self.prompts.push(ScoredPrompt { tokens, reference: task.prompt.reference.clone() });
        }
        Ok(places)
    }
}

fn llm_only(meta: &Meta) -> Option<u16> {
    let index = meta.methods.iter().position(|method| method.name == LLM_ONLY)?;
    u16::try_from(index).ok()
}
