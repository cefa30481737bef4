//! A stored run, opened once for whoever asks about it: its generations, what its scenario says about its devices, and
//! what its texts are worth.

pub(crate) mod inputs;
mod texts;

use std::path::Path;

use specfleet_analysis::is_host_timed;
use specfleet_config::Settings;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{AuditRecord, GenerationRecord};
use specfleet_ledger::{Meta, RoundColumn, RunKind, RunProgress, RunReader, RunState};

use inputs::StoredInputs;
pub use texts::TextFigures;

use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::prompts;
use crate::scores::{self, RunScores};

/// What a report does without where a text cannot be judged any more.
const LEFT_OUT: &str = "exact match and ROUGE-L against its references are left out";

/// A stored run.
#[derive(Debug)]
pub struct StoredRun {
    pub reader: RunReader,
    /// The settings of its scenario, where they can still be read.
    pub settings: Option<Settings>,
    /// The closed generations, by id.
    pub generations: Vec<GenerationRecord>,
    /// The audits, by id.
    pub audits: Vec<AuditRecord>,
    /// By generation, in their order; all absent where the run has no text.
    pub texts: Vec<TextFigures>,
    /// Figures that were added after the run.
    pub scores: RunScores,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
}

impl StoredRun {
    /// Opens the run in `folder` as one of those that a command reads, and scores its texts on `threads` threads.
    pub fn open(opened: &OpenedRuns, folder: &Path, threads: usize) -> Result<StoredRun, Error> {
        let reader = opened.open(folder)?;
        let mut notes = Vec::new();
        // What is damaged is in the reader's log.
        let mut generations: Vec<GenerationRecord> = reader.generations().flatten().collect();
        generations.sort_by_key(|record| record.id);
        let mut audits: Vec<AuditRecord> = reader.audits().flatten().collect();
        audits.sort_by_key(|audit| audit.id);
        let meta = reader.meta();
        let inputs = StoredInputs::of(meta);
        notes.extend(inputs.unrecorded);
        let workload = meta.inputs.workload.iter();
        notes.extend(prompts::note(workload.map(|input| (input.data_set.as_str(), input.too_long.iter()))));
        let settings = match inputs.settings {
            Ok(settings) => Some(settings),
            Err(error) => {
                notes.push(format!(
                    "the run's scenario cannot be read any more ({error}): exact match, ROUGE-L and device profiles are missing"
                ));
                None
            }
        };
        let scores = scores::load(&reader)?;
        let mut run = StoredRun { reader, settings, generations, audits, texts: Vec::new(), scores, notes };
        if run.has_text() {
            run.notes.extend(inputs.problems.iter().map(|problem| format!("{problem}; {LEFT_OUT}")));
        }
        run.texts = run.score_texts(threads);
        Ok(run)
    }

    /// What the run is.
    pub fn meta(&self) -> &Meta {
        self.reader.meta()
    }

    /// What could not be read so far, a line each.
    pub fn damage(&self) -> Vec<String> {
        self.reader.damage_log().met().into_iter().map(|met| met.why).collect()
    }

    /// Whether its tokens are those of a text: answers drawn from distributions are none.
    pub fn has_text(&self) -> bool {
        !matches!(&self.meta().kind, RunKind::Simulated { fidelity, .. } if fidelity == "fitted")
    }

    /// Every n-th device whose rows are kept: 1 where all are.
    pub fn keep_every(&self) -> u32 {
        match self.meta().kind {
            RunKind::Live => 1,
            RunKind::Simulated { keep_every, .. } => keep_every.max(1),
        }
    }

    /// Requests of each method that the run asked for; `None` where nothing says.
    pub fn requests(&self) -> Option<u64> {
        let recorded = &self.meta().inputs.workload;
        if recorded.is_empty() {
            return self.settings.as_ref().map(Settings::requests);
        }
        Some(recorded.iter().map(|input| input.requests).sum())
    }

    /// Index among the generations.
    pub fn find(&self, id: GenerationId) -> Option<usize> {
        self.generations.binary_search_by_key(&id, |record| record.id).ok()
    }

    /// A generation's audit.
    pub fn audit(&self, id: GenerationId) -> Option<&AuditRecord> {
        self.audits.binary_search_by_key(&id, |audit| audit.id).ok().map(|index| &self.audits[index])
    }

    /// Whether a figure of this method depends on when things happened on the host.
    pub fn is_host_timed(&self, method: u16, metric: &str) -> bool {
        // Whose scenario cannot be read may have had any link.
        let rate_trace = self
            .settings
            .as_ref()
            .is_none_or(|settings| settings.device.parts.iter().any(|part| part.link.follows_clock()));
        let live = matches!(self.meta().kind, RunKind::Live);
        let method = self.meta().methods.get(usize::from(method));
        live && method.is_some_and(|method| is_host_timed(metric, method, self.meta().clock, rate_trace))
    }

    /// The name of a method.
    pub fn method_name(&self, method: u16) -> &str {
        self.meta().methods.get(usize::from(method)).map_or("unknown", |method| &method.name)
    }

    /// The name of a data set.
    pub fn data_set_name(&self, data_set: u16) -> &str {
        self.meta().data_sets.get(usize::from(data_set)).map_or("unknown", String::as_str)
    }

    /// Profile and link of a device, as the scenario names them.
    pub fn profile_name(&self, device: DeviceId) -> &str {
        self.settings.as_ref().map_or("unknown", |settings| &settings.device.part(device).name)
    }

    /// Rounds and batches in the store.
    pub fn progress(&self, folder: &Path) -> RunProgress {
        RunProgress::read(folder).unwrap_or_default()
    }
}

/// Of a run that did not end as planned: that its figures are those of the generations that came to an end.
pub(crate) fn unfinished_note(reader: &RunReader) -> Option<String> {
    let meta = reader.meta();
    let end = match &meta.state {
        RunState::Completed => return None,
        RunState::Running | RunState::Interrupted => "was interrupted",
        RunState::Failed { .. } => "failed",
    };
    let (closed, open) = (reader.closed_generations(), reader.open_generations().len());
    Some(format!(
        "run {} {end}: figures are of the {closed} generations that came to an end, {open} unfinished ones are left out",
        meta.run
    ))
}

/// Steps along a generation's audit while its rounds go by.
#[derive(Clone, Copy, Debug)]
pub struct AuditCursor<'a> {
    positions: &'a [u32],
    probabilities: &'a [f32],
}

impl<'a> AuditCursor<'a> {
    /// Before position `first`.
    pub fn new(audit: Option<&'a AuditRecord>, first: u32) -> AuditCursor<'a> {
        let (positions, probabilities) =
            audit.map_or((&[][..], &[][..]), |audit| (&audit.positions, &audit.accept_probabilities));
        let start = positions.partition_point(|position| *position < first).min(probabilities.len());
        AuditCursor { positions: &positions[start..], probabilities: &probabilities[start..] }
    }

    /// min(1, y_d/x_d) at the next position, if the audit looked there; positions are asked for in ascending order.
    pub fn at(&mut self, position: u32) -> Option<f32> {
        while let (Some((known, positions)), Some((probability, probabilities))) =
            (self.positions.split_first(), self.probabilities.split_first())
        {
            if *known > position {
                return None;
            }
            (self.positions, self.probabilities) = (positions, probabilities);
            if *known == position {
                return probability.is_finite().then_some(*probability);
            }
        }
        None
    }
}

/// What summaries and figures look at.
pub const FIGURE_COLUMNS: [RoundColumn; 12] = [
    RoundColumn::Position,
    RoundColumn::Token,
    RoundColumn::Source,
    RoundColumn::Uncertainty,
    RoundColumn::CommittedAt,
    RoundColumn::Attempts,
    RoundColumn::UplinkBytes,
    RoundColumn::Queue,
    RoundColumn::Batch,
    RoundColumn::CloudNanojoules,
    RoundColumn::CloudPaperNanojoules,
    RoundColumn::Waiting,
];
