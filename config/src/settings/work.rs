//! `run.workload` and `run.prompts`: which prompts are answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use specfleet_engine::device::energy::split;
use specfleet_engine::prompt::TooLongPrompt;
use toml::Value;

use super::Settings;
use crate::ConfigError;
use crate::presets::ShippedFile;
use crate::profile::is_path;
use crate::read::Section;
use crate::workload::{Prompt, Workload};

/// Most prompts of a run.
const MOST_PROMPTS: u64 = 10_000_000;
/// Most data sets of a mix: each is read and kept by itself, and a row of a run has 16 bits for the number of its own.
const MOST_PARTS: usize = 1_000;
/// Prompts of a run whose scenario does not say.
const DEFAULT_PROMPTS: u64 = 48;
/// Data set of a run whose scenario does not say.
const DEFAULT_WORKLOAD: &str = "word-problems";

/// A data set and how many of its prompts a run answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadPart {
    /// The data set's name.
    pub data_set: String,
    /// How many prompts, at least 1. More than the data set has: it starts again from its first line, as the next
    /// repetition.
    pub prompts: u32,
    /// SHA-256 of the data set, in hex.
    pub sha256: String,
    /// Number of its first prompt in the run: the sum of the lengths of the data sets before it.
    pub first_id: u32,
    /// Its prompts that are too long for the models, by their ids; known once these are.
    #[serde(skip)]
    too_long: BTreeMap<u32, TooLongPrompt>,
    /// The data set itself.
    #[serde(skip)]
    data: Option<Arc<Workload>>,
}

/// One generation to be made, under each method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task<'a> {
    /// `prompt_id`: the place in the data set, from 0, blank lines left out; in a mix, counted on over the data sets before it.
    pub prompt_id: u32,
    /// How often this prompt came before in the run.
    pub repetition: u16,
    pub prompt: &'a Prompt,
}

impl WorkloadPart {
    fn new(data: Workload, prompts: u32, first_id: u32) -> WorkloadPart {
        WorkloadPart {
            data_set: data.name.clone(),
            prompts,
            sha256: data.sha256.clone(),
            first_id,
            too_long: BTreeMap::new(),
            data: Some(Arc::new(data)),
        }
    }

    /// The data set's prompts, all of them; empty only where recorded settings named a file that does not ship.
    pub fn data(&self) -> &[Prompt] {
        self.data.as_ref().map_or(&[], |data| &data.prompts)
    }

    /// Leaves out the prompts that these say to skip, and remembers those that are truncated.
    pub fn set_too_long(&mut self, too_long: impl IntoIterator<Item = TooLongPrompt>) {
        self.too_long = too_long.into_iter().map(|prompt| (prompt.prompt, prompt)).collect();
    }

    /// The prompts that are too long, as far as somebody has looked.
    pub fn too_long(&self) -> impl Iterator<Item = &TooLongPrompt> {
        self.too_long.values()
    }

    /// How many requests this part asks for: its prompts without those that are skipped.
    pub fn requests(&self) -> u32 {
        let lines = u32::try_from(self.data().len()).unwrap_or(u32::MAX).max(1);
        let skipped = self.too_long.values().filter(|prompt| prompt.is_skipped());
        // The line comes up once in each whole pass over the data set, and once more if the last pass gets that far.
        let times = |line: u32| self.prompts / lines + u32::from(line < self.prompts % lines);
        self.prompts - skipped.map(|prompt| times(prompt.prompt.saturating_sub(self.first_id))).sum::<u32>()
    }

    /// What this part asks for, in order.
    pub fn tasks(&self) -> impl Iterator<Item = Task<'_>> {
        let is_asked = |task: &Task<'_>| !self.too_long.get(&task.prompt_id).is_some_and(TooLongPrompt::is_skipped);
        self.all_tasks().filter(is_asked)
    }

    /// The same with the prompts that are skipped.
    pub fn all_tasks(&self) -> impl Iterator<Item = Task<'_>> {
        let data = self.data();
        let count = if data.is_empty() { 0 } else { self.prompts };
        (0..count).map(move |index| {
            // `index` is below `count`, so the data set is not empty; `read` bounds the repetitions.
            let line = index % data.len() as u32;
            Task {
                prompt_id: self.first_id + line,
                repetition: (index / data.len() as u32) as u16,
                prompt: &data[line as usize],
            }
        })
    }

    /// Whether the prompts are at hand.
    pub fn is_loaded(&self) -> bool {
        self.data.is_some()
    }

    /// Drops the prompts.
    pub fn unload(&mut self) {
        self.data = None;
    }

    /// Loads the data set again: from the file at `path`, or the one that ships. One whose contents are no longer what they
    /// were is refused, with both digests.
    pub fn reopen(&mut self, path: Option<&Path>) -> Result<(), ConfigError> {
        let (origin, data) = match path {
            Some(path) => (path.display().to_string(), Workload::open(path)?),
            None => match Workload::preset(&self.data_set) {
                Some(data) => (format!("the data set {} that ships", self.data_set), data?),
                None => return Err(ConfigError::Unrecorded { data_set: self.data_set.clone() }),
            },
        };
        if data.sha256 != self.sha256 {
            return Err(ConfigError::Changed { origin, recorded: self.sha256.clone(), found: data.sha256 });
        }
        self.data = Some(Arc::new(data));
        Ok(())
    }

    /// Loads the data set again if it ships.
    pub(super) fn reload(&mut self) {
        self.data = Workload::preset(&self.data_set)
            .and_then(Result::ok)
            .filter(|data| data.sha256 == self.sha256)
            .map(Arc::new);
    }

    /// Reads a part that is a single data set: its name or path at `name`, its size at `prompts`.
    pub(super) fn read_single(
        section: &Section<'_>,
        name: &str,
        default: &str,
        prompts: u32,
    ) -> Result<WorkloadPart, ConfigError> {
        let data = match section.opt_text(name)? {
            Some(text) => open(section, name, text)?,
            None => open(section, name, default)?,
        };
        part(section, data, prompts, 0)
    }
}

impl Settings {
    /// All generations of one method, in order. [`Settings::assignment`] says whose they are.
    pub fn tasks(&self) -> impl Iterator<Item = Task<'_>> {
        self.workload.iter().flat_map(WorkloadPart::tasks)
    }
}

/// Reads the parts, and the names of all data sets, also of those that a small total leaves without a prompt.
pub(super) fn read(section: &Section<'_>) -> Result<(Vec<WorkloadPart>, Vec<String>), ConfigError> {
    let total: Option<u32> = section.opt_integer("prompts", 1..=MOST_PROMPTS)?;
    match section.value("workload") {
        Some(Value::Array(items)) => mix(section, items, total),
        _ => {
            let prompts = total.unwrap_or(DEFAULT_PROMPTS as u32);
            let part = WorkloadPart::read_single(section, "workload", DEFAULT_WORKLOAD, prompts)?;
            let names = vec![part.data_set.clone()];
            Ok((vec![part], names))
        }
    }
}

/// A list of tables `{ data, prompts }`. `run.prompts` beside it scales the mix to that total.
fn mix(
    section: &Section<'_>,
    items: &[Value],
    total: Option<u32>,
) -> Result<(Vec<WorkloadPart>, Vec<String>), ConfigError> {
    if items.len() > MOST_PARTS {
        return Err(section.conflict("workload", format!("lists {} data sets; at most {MOST_PARTS}", items.len())));
    }
    let mut parts = Vec::new();
    let mut counts = Vec::new();
    for item in items {
        if !item.is_table() {
            return Err(section.wrong_type("workload", "a name, a path or a list of tables { data, prompts }", item));
        }
        let entry = section.inline("workload", item)?;
        let data = open(&entry, "data", entry.required_text("data")?)?;
        let count: u32 = entry
            .opt_integer("prompts", 1..=MOST_PROMPTS)?
            .ok_or_else(|| entry.missing("prompts", format!("a whole number from 1 to {MOST_PROMPTS}")))?;
        counts.push(count);
        parts.push(data);
    }
    let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    if sum == 0 {
        return Err(section.conflict("workload", "must name at least one data set"));
    }
    if sum > MOST_PROMPTS {
        return Err(section.conflict("workload", format!("asks for {sum} prompts; at most {MOST_PROMPTS}")));
    }
    let shares = match total {
        Some(total) => split(u64::from(total), &counts),
        None => counts.iter().map(|&count| u64::from(count)).collect(),
    };
    let names = parts.iter().map(|data: &Workload| data.name.clone()).collect();
    let mut first_id = 0u32;
    let mut out = Vec::new();
    for (data, share) in parts.into_iter().zip(shares) {
        let lines = data.prompts.len() as u32;
        // A small total can leave a part without a prompt. The numbers of the others stay as they are.
        if share > 0 {
            out.push(part(section, data, share as u32, first_id)?);
        }
        first_id = first_id
            .checked_add(lines)
            .ok_or_else(|| section.conflict("workload", "the data sets have too many lines together"))?;
    }
    Ok((out, names))
}

fn part(section: &Section<'_>, data: Workload, prompts: u32, first_id: u32) -> Result<WorkloadPart, ConfigError> {
    let repetitions = prompts.div_ceil(data.prompts.len() as u32);
    if repetitions > u32::from(u16::MAX) {
        return Err(
            section.conflict("prompts", format!("{prompts} would repeat {} more than {} times", data.name, u16::MAX))
        );
    }
    Ok(WorkloadPart::new(data, prompts, first_id))
}

/// A data set by name or path.
fn open(section: &Section<'_>, name: &str, text: &str) -> Result<Workload, ConfigError> {
    if let Some(workload) = Workload::preset(text) {
        return workload;
    }
    if !is_path(text, "jsonl") {
        let valid = format!("{}, or a path to a .jsonl file", ShippedFile::names(ShippedFile::WORKLOADS));
        return Err(section.unknown_name(name, text, valid));
    }
    let path: PathBuf = section.resolve(name, text);
    Workload::of_file(&path, &section.read_file(name, &path)?)
}
