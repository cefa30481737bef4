//! What can be asked for: metrics with their units, and the columns to group by.

use specfleet_engine::method::Writer;
use specfleet_engine::record::{BatchRecord, FinishReason, RoundRecord, Source, UploadCost};
use specfleet_engine::time::Span;
use specfleet_ledger::RoundColumn;

use crate::stored::StoredRun;

/// Which table a metric's rows are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableLevel {
    /// Committed tokens; those of generations that never came to an end only where a query names `finish`.
    Rounds,
    Generations,
    Batches,
}

impl TableLevel {
    /// As messages write it.
    pub fn name(self) -> &'static str {
        match self {
            TableLevel::Rounds => "rounds",
            TableLevel::Generations => "generations",
            TableLevel::Batches => "batches",
        }
    }
}

/// One row of a table.
#[derive(Clone, Copy)]
pub(super) struct QueryRow<'a> {
    pub(super) run: &'a StoredRun,
    pub(super) method: u16,
    /// Index among the run's generations; absent for a generation that was never closed, and for batches.
    pub(super) generation: Option<usize>,
    pub(super) round: Option<QueryRound<'a>>,
    pub(super) batch: Option<&'a BatchRecord>,
    pub(super) device: u32,
    pub(super) prompt: u32,
    pub(super) repetition: u16,
    pub(super) pass: u16,
}

/// What only rounds have.
#[derive(Clone, Copy)]
pub(super) struct QueryRound<'a> {
    pub(super) record: &'a RoundRecord,
    /// Since the generation's previous commit.
    pub(super) gap: Option<Span>,
    /// min(1, y_d/x_d) by the audit.
    pub(super) audited: Option<f32>,
}

/// A figure of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Figure {
    /// Whole steps of the metric's unit divided by its scale.
    Whole(u64),
    /// A number in the metric's unit.
    Real(f64),
    /// A ratio, which means weigh by its denominator.
    Ratio(f64, f64),
}

/// A metric.
pub struct MetricColumn {
    pub name: &'static str,
    pub unit: &'static str,
    pub level: TableLevel,
    /// What one whole step is in the unit.
    pub(super) step: f64,
    /// Columns of the rounds that it needs.
    pub(super) needs: &'static [RoundColumn],
    pub(super) of: fn(&QueryRow<'_>) -> Option<Figure>,
}

const NANO: f64 = 1e-9;

macro_rules! rounds {
    ($($name:literal $unit:literal $step:expr, [$($column:ident),*], $of:expr;)*) => {
        &[$(MetricColumn {
            name: $name,
            unit: $unit,
            level: TableLevel::Rounds,
            step: $step,
            needs: &[$(RoundColumn::$column),*],
            of: |row| { let of: fn(&QueryRound<'_>) -> Option<Figure> = $of; of(row.round.as_ref()?) },
        },)*]
    };
}

macro_rules! generations {
    ($($name:literal $unit:literal $step:expr, $of:expr;)*) => {
        &[$(MetricColumn { name: $name, unit: $unit, level: TableLevel::Generations, step: $step, needs: &[], of: $of },)*]
    };
}

macro_rules! batches {
    ($($name:literal $unit:literal $step:expr, $of:expr;)*) => {
        &[$(MetricColumn {
            name: $name,
            unit: $unit,
            level: TableLevel::Batches,
            step: $step,
            needs: &[],
            of: |row| { let of: fn(&BatchRecord) -> Option<Figure> = $of; of(row.batch?) },
        },)*]
    };
}

fn whole(value: u64) -> Option<Figure> {
    Some(Figure::Whole(value))
}

fn flag(value: bool) -> Option<Figure> {
    Some(Figure::Whole(u64::from(value)))
}

fn real(value: f32) -> Option<Figure> {
    value.is_finite().then_some(Figure::Real(f64::from(value)))
}

/// A figure of what an upload cost, of the rounds that start one.
fn paid(round: &QueryRound<'_>, of: fn(&UploadCost) -> u64) -> Option<Figure> {
    round.record.started_upload().map(|cost| Figure::Whole(of(cost)))
}

/// A figure of what an upload cost, 0 for the rounds that pay for none.
fn paid_or_zero(round: &QueryRound<'_>, of: fn(&UploadCost) -> u64) -> Option<Figure> {
    whole(round.record.upload.as_ref().map_or(0, of))
}

static ROUNDS: &[MetricColumn] = rounds! {
    "rounds" "tokens" 1.0, [], |_| whole(1);
    "inter_token" "s" NANO, [CommittedAt], |row| Some(Figure::Whole(row.gap?.0));
    "uncertainty" "" 1.0, [Uncertainty], |row| real(row.record.uncertainty);
    "importance" "" 1.0, [Importance], |row| real(row.record.importance);
    "importance_threshold" "" 1.0, [ImportanceThreshold], |row| real(row.record.importance_threshold);
    "draft_probability" "ratio" 1.0, [DraftProbability], |row| real(row.record.draft_probability);
    "price" "" 1.0, [Price], |row| real(row.record.price);
    "uploaded" "ratio" 1.0, [Source, Attempts], |row| {
        // Where the verifier writes alone, nothing was drafted that could have been uploaded.
        (row.record.source != Source::Verifier).then(|| Figure::Whole(u64::from(row.record.judged_upload().is_some())))
    };
    "rejected" "ratio" 1.0, [Source], |row| {
        row.record.source.accepted().map(|accepted| Figure::Whole(u64::from(!accepted)))
    };
    "accept_probability" "ratio" 1.0, [Position], |row| real(row.audited?);
    "attempts" "attempts" 1.0, [Attempts], |row| paid_or_zero(row, |cost| u64::from(cost.attempts));
    "uplink_bits" "bit" 1.0, [UplinkBits], |row| paid_or_zero(row, |cost| cost.uplink_bits);
    "uplink_bytes" "B" 1.0, [UplinkBytes], |row| paid_or_zero(row, |cost| u64::from(cost.uplink_bytes));
    "downlink_bytes" "B" 1.0, [DownlinkBytes], |row| paid_or_zero(row, |cost| u64::from(cost.downlink_bytes));
    "snr_db" "dB" 1.0, [SnrDb], |row| real(row.record.upload?.snr_db);
    "uplink" "s" NANO, [Uplink, Attempts], |row| paid(row, |cost| cost.uplink.0);
    "downlink" "s" NANO, [Downlink, Attempts], |row| paid(row, |cost| cost.downlink.0);
    "waiting" "s" NANO, [Waiting], |row| whole(row.record.waiting.0);
    "queue" "s" NANO, [Queue, Batch, Attempts], |row| paid(row, |cost| (cost.verify.queue_wait + cost.verify.batch_wait).0);
    "queue_wait" "s" NANO, [Source, Queue, Attempts], |row| Some(Figure::Whole(row.record.answered_request()?.queue_wait.0));
    "batch_wait" "s" NANO, [Source, Batch, Attempts], |row| Some(Figure::Whole(row.record.answered_request()?.batch_wait.0));
    "verify" "s" NANO, [Compute, Attempts], |row| paid(row, |cost| cost.verify.compute.0);
    "work" "tokens" 1.0, [Work, Attempts], |row| paid(row, |cost| u64::from(cost.verify.fed_tokens));
    "upload_energy_cloud" "J" NANO, [CloudNanojoules], |row| whole(row.record.cloud_nanojoules());
    "upload_energy_cloud_paper" "J" NANO, [CloudPaperNanojoules], |row| whole(row.record.cloud_paper_nanojoules());
};

macro_rules! of_record {
    ($record:ident, $value:expr) => {
        |row| {
            let $record = &row.run.generations[row.generation?];
            $value
        }
    };
}

/// Joules or counts per token: Σ / Σ.
fn per_token(value: u64, tokens: usize, step: f64) -> Option<Figure> {
    (tokens > 0).then_some(Figure::Ratio(value as f64 * step, tokens as f64))
}

static GENERATIONS: &[MetricColumn] = generations! {
    "generations" "" 1.0, of_record!(_record, whole(1));
    "tokens" "tokens" 1.0, of_record!(record, whole(record.tokens.len() as u64));
    "prompt_tokens" "tokens" 1.0, of_record!(record, whole(u64::from(record.prompt_tokens)));
    "energy_total" "J" NANO, of_record!(record, whole(record.energy.total()));
    "energy_device" "J" NANO, of_record!(record, whole(record.energy.device));
    "energy_radio" "J" NANO, of_record!(record, whole(record.energy.radio));
    "energy_cloud" "J" NANO, of_record!(record, whole(record.energy.cloud));
    "energy_cloud_paper" "J" NANO, of_record!(record, whole(record.energy.cloud_paper));
    "energy_per_token" "J/token" 1.0, of_record!(record, per_token(record.energy.total(), record.tokens.len(), NANO));
    "upload_rate" "uploads/token" 1.0, |row| {
        let record = &row.run.generations[row.generation?];
        // As in the report: a method whose text the verifier writes uploads no draft.
        let writer = row.run.meta().methods.get(usize::from(record.id.method))?.writer;
        per_token(record.uploads.verdicts, record.tokens.len(), 1.0).filter(|_| writer == Writer::Drafter)
    };
    "uploads_sent" "uploads" 1.0, of_record!(record, whole(record.uploads.sent));
    "uploads_answered" "uploads" 1.0, of_record!(record, whole(record.uploads.verdicts));
    "uploads_refused" "uploads" 1.0, of_record!(record, whole(record.uploads.refused));
    "uploads_cancelled" "uploads" 1.0, of_record!(record, whole(record.uploads.cancelled));
    "draft_steps" "steps" 1.0, of_record!(record, whole(record.counts.draft_steps));
    "wasted_drafts" "drafts" 1.0, of_record!(record, whole(record.counts.wasted_drafts));
    "time_draft" "s" NANO, of_record!(record, whole(record.times.draft.0));
    "time_waiting" "s" NANO, of_record!(record, whole(record.times.waiting.0));
    "time_overrun" "s" NANO, of_record!(record, whole(record.times.overrun.0));
    "time_waiting_overrun" "s" NANO, of_record!(record, whole(record.times.waiting_overrun.0));
    "time_idle" "s" NANO, of_record!(record, whole(record.times.idle.0));
    "airtime_up" "s" NANO, of_record!(record, whole(record.airtime_up.0));
    "airtime_down" "s" NANO, of_record!(record, whole(record.airtime_down.0));
    "ttft" "s" NANO, of_record!(record, whole(record.first_token?.since(record.scheduled).0));
    "request" "s" NANO, of_record!(record, {
        let ended = matches!(record.finish, FinishReason::Stop | FinishReason::Length);
        ended.then(|| Figure::Whole(record.ended.since(record.scheduled).0))
    });
    "dropped" "ratio" 1.0, of_record!(record, flag(record.finish == FinishReason::Dropped));
    "failed" "ratio" 1.0, of_record!(record, flag(record.finish == FinishReason::Failed));
    "tokens_per_second" "tokens/s" 1.0, of_record!(record, {
        let seconds = record.ended.since(record.scheduled).seconds();
        (seconds > 0.0).then_some(Figure::Ratio(record.tokens.len() as f64, seconds))
    });
    "deviation_rate" "ratio" 1.0, |row| {
        let known = || row_audit(row.run, row.generation).filter(|p| p.is_finite());
        let count = known().count();
        (count > 0).then(|| Figure::Ratio(known().map(|p| 1.0 - f64::from(p)).sum(), count as f64))
    };
    "exact_match" "ratio" 1.0, |row| flag(row.run.texts[row.generation?].exact_match?);
    "rouge_l" "ratio" 1.0, |row| Some(Figure::Real(row.run.texts[row.generation?].rouge_l?));
    "token_agreement" "ratio" 1.0, |row| Some(Figure::Real(row.run.texts[row.generation?].token_agreement?));
    "first_divergence" "tokens" 1.0, |row| whole(u64::from(row.run.texts[row.generation?].first_divergence?));
};

/// What the audit says about a generation's skipped tokens.
fn row_audit(run: &StoredRun, generation: Option<usize>) -> impl Iterator<Item = f32> + '_ {
    generation
        .and_then(|index| run.audit(run.generations[index].id))
        .into_iter()
        .flat_map(|audit| audit.accept_probabilities.iter().copied())
}

static BATCHES: &[MetricColumn] = batches! {
    "batches" "" 1.0, |_| whole(1);
    "batch_sequences" "sequences" 1.0, |batch| whole(u64::from(batch.sequences));
    "batch_tokens" "tokens" 1.0, |batch| whole(u64::from(batch.work));
    "batch_catch_up" "tokens" 1.0, |batch| whole(u64::from(batch.catch_up));
    "batch_drafts" "drafts" 1.0, |batch| whole(u64::from(batch.drafts));
    "batch_cached" "tokens" 1.0, |batch| whole(batch.cached);
    "batch_compute" "s" NANO, |batch| whole(batch.compute.0);
    "batch_measured" "s" NANO, |batch| whole(batch.measured.0);
    "batch_overrun" "s" NANO, |batch| whole(batch.overrun.0);
    "batch_estimate" "s" NANO, |batch| whole(batch.estimate.0);
    "batch_price" "" 1.0, |batch| real(batch.price);
    "batch_energy" "J" NANO, |batch| whole(batch.nanojoules);
    "batch_energy_measured" "J" NANO, |batch| whole(batch.measured_nanojoules);
    "batch_energy_unclaimed" "J" NANO, |batch| whole(batch.unclaimed_nanojoules);
    "batch_completed" "ratio" 1.0, |batch| flag(batch.completed);
};

macro_rules! scores {
    ($($name:literal $unit:literal;)*) => {
        &[$(MetricColumn {
            name: $name,
            unit: $unit,
            level: TableLevel::Generations,
            step: 1.0,
            needs: &[],
            of: |row| Some(Figure::Real(row.run.scores.get(row.run.generations[row.generation?].id, $name)?)),
        },)*]
    };
}

/// What `specfleet score` adds; the names are those of [`crate::scores::METRICS`], which a test compares.
static SCORES: &[MetricColumn] = scores! {
    "bertscore_f1" "ratio";
    "bertscore_precision" "ratio";
    "bertscore_recall" "ratio";
    "bertscore_f1_rescaled" "ratio";
    "bertscore_precision_rescaled" "ratio";
    "bertscore_recall_rescaled" "ratio";
    "bertscore_f1_llm_only" "ratio";
    "bertscore_precision_llm_only" "ratio";
    "bertscore_recall_llm_only" "ratio";
    "bertscore_f1_llm_only_rescaled" "ratio";
    "bertscore_precision_llm_only_rescaled" "ratio";
    "bertscore_recall_llm_only_rescaled" "ratio";
    "embedding_f1" "ratio";
    "embedding_f1_llm_only" "ratio";
    "rouge_l_llm_only" "ratio";
    "exact_match_llm_only" "ratio";
    "token_agreement_llm_only" "ratio";
    "first_divergence_llm_only" "tokens";
    "perplexity" "ratio";
};

/// All metrics.
pub fn metrics() -> impl Iterator<Item = &'static MetricColumn> {
    ROUNDS.iter().chain(GENERATIONS).chain(SCORES).chain(BATCHES)
}

/// A column to group by.
pub struct GroupColumn {
    pub name: &'static str,
    /// The tables that have it.
    pub levels: &'static [TableLevel],
    /// Whether its values are whole numbers, else names.
    pub(super) is_number: bool,
    pub(super) needs: &'static [RoundColumn],
    pub(super) of: fn(&QueryRow<'_>) -> Key,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Number(u64),
    Name(String),
}

const ALL: &[TableLevel] = &[TableLevel::Rounds, TableLevel::Generations, TableLevel::Batches];
const TEXTS: &[TableLevel] = &[TableLevel::Rounds, TableLevel::Generations];

fn lower(value: impl serde::Serialize) -> Key {
    let text = serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned));
    Key::Name(text.unwrap_or_default())
}

/// All columns to group by.
pub static GROUPS: &[GroupColumn] = &[
    GroupColumn {
        name: "run",
        levels: ALL,
        is_number: false,
        needs: &[],
        of: |row| Key::Name(row.run.meta().run.clone()),
    },
    GroupColumn {
        name: "method",
        levels: ALL,
        is_number: false,
        needs: &[],
        of: |row| {
            Key::Name(match row.method {
                specfleet_engine::record::BETWEEN_METHODS => "between methods".to_owned(),
                method => row.run.method_name(method).to_owned(),
            })
        },
    },
    GroupColumn {
        name: "data_set",
        levels: TEXTS,
        is_number: false,
        needs: &[],
        of: |row| {
            let record = row.generation.map(|index| &row.run.generations[index]);
            Key::Name(record.map_or("unknown", |record| row.run.data_set_name(record.data_set)).to_owned())
        },
    },
    GroupColumn {
        name: "device",
        levels: TEXTS,
        is_number: true,
        needs: &[],
        of: |row| Key::Number(u64::from(row.device)),
    },
    GroupColumn {
        name: "device_profile",
        levels: TEXTS,
        is_number: false,
        needs: &[],
        of: |row| Key::Name(row.run.profile_name(specfleet_engine::id::DeviceId(row.device)).to_owned()),
    },
    GroupColumn {
        name: "prompt",
        levels: TEXTS,
        is_number: true,
        needs: &[],
        of: |row| Key::Number(u64::from(row.prompt)),
    },
    GroupColumn {
        name: "repetition",
        levels: TEXTS,
        is_number: true,
        needs: &[],
        of: |row| Key::Number(u64::from(row.repetition)),
    },
    GroupColumn { name: "pass", levels: ALL, is_number: true, needs: &[], of: |row| Key::Number(u64::from(row.pass)) },
    GroupColumn {
        name: "finish",
        levels: TEXTS,
        is_number: false,
        needs: &[],
        of: |row| match row.generation {
            Some(index) => lower(row.run.generations[index].finish),
            None => Key::Name("open".to_owned()),
        },
    },
    GroupColumn {
        name: "position",
        levels: &[TableLevel::Rounds],
        is_number: true,
        needs: &[RoundColumn::Position],
        of: |row| Key::Number(row.round.map_or(0, |round| u64::from(round.record.position))),
    },
    GroupColumn {
        name: "source",
        levels: &[TableLevel::Rounds],
        is_number: false,
        needs: &[RoundColumn::Source],
        of: |row| row.round.map_or(Key::Number(0), |round| lower(round.record.source)),
    },
    GroupColumn {
        name: "reason",
        levels: &[TableLevel::Rounds],
        is_number: false,
        needs: &[RoundColumn::Reason],
        of: |row| row.round.map_or(Key::Number(0), |round| lower(round.record.reason)),
    },
    GroupColumn {
        name: "verifier",
        levels: &[TableLevel::Batches],
        is_number: true,
        needs: &[],
        of: |row| Key::Number(row.batch.map_or(0, |batch| u64::from(batch.verifier.0))),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_score_can_be_asked_for() {
        let known: Vec<(&str, &str)> = crate::scores::METRICS.iter().map(|metric| (metric.name, metric.unit)).collect();
        assert_eq!(SCORES.iter().map(|metric| (metric.name, metric.unit)).collect::<Vec<_>>(), known);
    }

    #[test]
    fn names_are_taken_once() {
        let names: Vec<&str> =
            metrics().map(|metric| metric.name).chain(GROUPS.iter().map(|group| group.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
