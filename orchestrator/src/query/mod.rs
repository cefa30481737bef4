//! `specfleet query RUN…`: figures of stored runs, grouped and filtered.
//!
//! A metric decides which table is read. Metrics of several tables may stand in one query if every group and every
//! condition is a column of each of these tables: each metric is taken over its own rows, and the rows of the answer are
//! joined by group. Rounds also have the columns of their generation; those of a generation that never came to an end are
//! left out, as in a report, unless the query names `finish`, where they are `open`.

mod columns;
mod condition;
mod output;

use std::collections::BTreeMap;

use specfleet_analysis::Sketch;
use specfleet_engine::id::GenerationId;
use specfleet_engine::time::Time;
use specfleet_ledger::RoundColumn;

use self::columns::{Figure, Key, QueryRound, QueryRow};
pub use self::columns::{GROUPS, GroupColumn, MetricColumn, TableLevel, metrics};
use self::condition::{Condition, ConditionColumn};
pub use self::output::{QueryFormat, list, write};
use crate::error::Error;
use crate::frontier::unknown;
use crate::stored::{AuditCursor, StoredRun, unfinished_note};

/// Groups of an answer at most: beyond it a column was taken that has one group per row.
const MOST_GROUPS: usize = 1_000_000;

/// Samples per group up to which percentiles are exact.
const EXACT_UP_TO: usize = 100_000;

/// A figure of the samples of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryStatistic {
    /// Weighted by the denominator where the metric is a ratio.
    Mean,
    Min,
    Max,
    /// Sum; of whole numbers exact.
    Sum,
    Count,
    /// Nearest rank, in percent.
    Percentile(u8),
}

const STATISTICS: [(&str, QueryStatistic); 9] = [
    ("mean", QueryStatistic::Mean),
    ("min", QueryStatistic::Min),
    ("max", QueryStatistic::Max),
    ("sum", QueryStatistic::Sum),
    ("count", QueryStatistic::Count),
    ("p50", QueryStatistic::Percentile(50)),
    ("p90", QueryStatistic::Percentile(90)),
    ("p95", QueryStatistic::Percentile(95)),
    ("p99", QueryStatistic::Percentile(99)),
];

/// What is asked.
pub struct Query {
    groups: Vec<&'static GroupColumn>,
    metrics: Vec<(&'static MetricColumn, &'static str, QueryStatistic)>,
    conditions: Vec<Condition>,
}

/// The answer.
pub struct QueryAnswer {
    /// Names of the groups, then `metric:statistic`.
    pub header: Vec<String>,
    /// Units, by column; empty for groups.
    pub units: Vec<&'static str>,
    pub rows: Vec<Vec<CellValue>>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A cell of the answer.
#[derive(Clone, Debug, PartialEq)]
pub enum CellValue {
    /// A name of a group.
    Text(String),
    /// A whole number times a power of ten: decimals that are exact.
    Exact(i128, u32),
    Number(f64),
    /// The group has no sample.
    Missing,
}

impl Query {
    /// Reads a query. `groups`, `metrics` and `conditions` as on the command line.
    pub fn parse(groups: &[String], metrics: &[String], conditions: &[String]) -> Result<Query, Error> {
        let group_names = || GROUPS.iter().map(|group| group.name).collect::<Vec<_>>();
        let groups = groups.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).map(|name| {
            GROUPS
                .iter()
                .find(|group| group.name == name)
                .ok_or_else(|| unknown(&format!("--group-by: there is no group {name:?}"), name, &group_names()))
        });
        let groups: Vec<&GroupColumn> = groups.collect::<Result<_, _>>()?;
        let metrics = metrics.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(|text| {
            let (name, statistic) = text.split_once(':').unwrap_or((text, "mean"));
            let metric = metric(name)
                .ok_or_else(|| unknown(&format!("--metric: there is no metric {name:?}"), name, &metric_names()))?;
            let names: Vec<&str> = STATISTICS.iter().map(|(name, _)| *name).collect();
            let found = STATISTICS.iter().find(|(known, _)| *known == statistic);
            let (name, statistic) = found.ok_or_else(|| {
                unknown(&format!("--metric {text}: there is no statistic {statistic:?}"), statistic, &names)
            })?;
            Ok((metric, *name, *statistic))
        });
        let metrics: Vec<_> = metrics.collect::<Result<_, Error>>()?;
        if metrics.is_empty() {
            return Err(Error::Question("--metric names nothing; query --list prints what there is".to_owned()));
        }
        let conditions = conditions.iter().map(|text| Condition::parse(text)).collect::<Result<_, _>>()?;
        let query = Query { groups, metrics, conditions };
        query.check()?;
        Ok(query)
    }

    /// Every group and condition must be a column of every table that is read.
    fn check(&self) -> Result<(), Error> {
        for (metric, ..) in &self.metrics {
            let has = |levels: &[TableLevel]| levels.contains(&metric.level);
            if let Some(group) = self.groups.iter().find(|group| !has(group.levels)) {
                return Err(no_column(metric, group.name, group.levels));
            }
            for condition in &self.conditions {
                match condition.column {
                    ConditionColumn::Group(group) if !has(group.levels) => {
                        return Err(no_column(metric, group.name, group.levels));
                    }
                    ConditionColumn::Metric(column)
                        if column.level != metric.level
                            && (metric.level, column.level) != (TableLevel::Rounds, TableLevel::Generations) =>
                    {
                        return Err(no_column(metric, column.name, &[column.level]));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn reads(&self, level: TableLevel) -> bool {
        self.metrics.iter().any(|(metric, ..)| metric.level == level)
    }

    /// Asks the runs, one after another.
    pub fn ask(&self, runs: &[StoredRun]) -> Result<QueryAnswer, Error> {
        let mut groups = Groups { query: self, groups: BTreeMap::new() };
        let mut notes = Vec::new();
        let names: Vec<&str> = runs.iter().map(|run| run.meta().run.as_str()).collect();
        for run in runs {
            self.conditions.iter().try_for_each(|condition| condition.check_value(run, &names))?;
            notes.extend(run.notes.iter().cloned());
            // What cannot be read is in the log of the run, for whoever has opened it.
            if let Some(note) = unfinished_note(&run.reader) {
                let is_of_generations = self.reads(TableLevel::Generations) || self.reads(TableLevel::Rounds);
                notes.extend(Some(note).filter(|_| is_of_generations && !self.names_finish()));
                notes.extend(self.reads(TableLevel::Batches).then(|| {
                    format!(
                        "run {} did not end as planned: batches are those of unfinished generations too",
                        run.meta().run
                    )
                }));
            }
            if run.keep_every() > 1 {
                notes.push(format!(
                    "run {} keeps every {}th device: the answer is of these",
                    run.meta().run,
                    run.keep_every()
                ));
            }
            if self.reads(TableLevel::Generations) {
                for (index, record) in run.generations.iter().enumerate() {
                    groups.add(
                        TableLevel::Generations,
                        &QueryRow {
                            run,
                            method: record.id.method,
                            generation: Some(index),
                            round: None,
                            batch: None,
                            device: record.device.0,
                            prompt: record.id.prompt,
                            repetition: record.id.repetition,
                            pass: record.id.pass,
                        },
                    )?;
                }
            }
            if self.reads(TableLevel::Rounds) {
                self.rounds(run, &mut groups)?;
            }
            if self.reads(TableLevel::Batches) {
                for batch in run.reader.batches().flatten() {
                    groups.add(
                        TableLevel::Batches,
                        &QueryRow {
                            run,
                            method: batch.method,
                            generation: None,
                            round: None,
                            batch: Some(&batch),
                            device: 0,
                            prompt: 0,
                            repetition: 0,
                            pass: batch.pass,
                        },
                    )?;
                }
            }
        }
        Ok(groups.answer(runs, notes))
    }

    fn rounds(&self, run: &StoredRun, groups: &mut Groups<'_>) -> Result<(), Error> {
        let mut columns: Vec<RoundColumn> = Vec::new();
        let conditions = self.conditions.iter().flat_map(|condition| match condition.column {
            ConditionColumn::Group(group) => group.needs,
            ConditionColumn::Metric(metric) => metric.needs,
        });
        let metrics = self.metrics.iter().flat_map(|(metric, ..)| metric.needs);
        for column in self.groups.iter().flat_map(|group| group.needs).chain(metrics).chain(conditions) {
            if !columns.contains(column) {
                columns.push(*column);
            }
        }
        let gaps = columns.contains(&RoundColumn::CommittedAt);
        let audits = self.asks("accept_probability");
        let mut last: BTreeMap<GenerationId, Time> = BTreeMap::new();
        for chunk in run.reader.scan_rounds(&columns).flatten() {
            for piece in &chunk.pieces {
                let generation = run.find(piece.id);
                if generation.is_none() && !self.names_finish() {
                    continue;
                }
                let mut audit = AuditCursor::new(run.audit(piece.id).filter(|_| audits), piece.first);
                let mut before = if gaps { last.get(&piece.id).copied() } else { None };
                for index in piece.range.clone() {
                    let record = chunk.rows.partial_record(index);
                    let gap = before.filter(|_| gaps).map(|before| record.committed_at.since(before));
                    before = Some(record.committed_at);
                    let audited = if audits { audit.at(record.position) } else { None };
                    groups.add(
                        TableLevel::Rounds,
                        &QueryRow {
                            run,
                            method: piece.id.method,
                            generation,
                            round: Some(QueryRound { record: &record, gap, audited }),
                            batch: None,
                            device: piece.device.0,
                            prompt: piece.id.prompt,
                            repetition: piece.id.repetition,
                            pass: piece.id.pass,
                        },
                    )?;
                }
                if let Some(before) = before.filter(|_| gaps) {
                    last.insert(piece.id, before);
                }
            }
        }
        Ok(())
    }

    /// Whether a group or a condition tells unfinished generations apart.
    fn names_finish(&self) -> bool {
        let is_finish =
            |column: &ConditionColumn| matches!(column, ConditionColumn::Group(group) if group.name == "finish");
        self.groups.iter().any(|group| group.name == "finish")
            || self.conditions.iter().any(|condition| is_finish(&condition.column))
    }

    fn asks(&self, name: &str) -> bool {
        self.metrics.iter().any(|(metric, ..)| metric.name == name)
            || self
                .conditions
                .iter()
                .any(|condition| matches!(condition.column, ConditionColumn::Metric(m) if m.name == name))
    }
}

fn no_column(metric: &MetricColumn, column: &str, levels: &[TableLevel]) -> Error {
    let tables: Vec<&str> = levels.iter().map(|level| level.name()).collect();
    Error::Question(format!(
        "{} is a metric of {}, which have no {column}; {column} is of {}",
        metric.name,
        metric.level.name(),
        tables.join(" and ")
    ))
}

fn metric(name: &str) -> Option<&'static MetricColumn> {
    metrics().find(|metric| metric.name == name)
}

fn metric_names() -> Vec<&'static str> {
    metrics().map(|metric| metric.name).collect()
}

impl Figure {
    fn value(self, step: f64) -> f64 {
        match self {
            Figure::Whole(value) => value as f64 * step,
            Figure::Real(value) => value,
            Figure::Ratio(above, below) => above / below,
        }
    }
}

/// The answer in the making.
struct Groups<'a> {
    query: &'a Query,
    groups: BTreeMap<Vec<Key>, Vec<QuerySamples>>,
}

/// The samples of one metric of one group.
#[derive(Clone, Debug, Default)]
struct QuerySamples {
    count: u64,
    whole: i128,
    real: f64,
    above: f64,
    below: f64,
    min: Option<f64>,
    max: Option<f64>,
    values: Vec<f64>,
    sketch: Option<Box<Sketch>>,
}

impl Groups<'_> {
    fn add(&mut self, level: TableLevel, row: &QueryRow<'_>) -> Result<(), Error> {
        if !self.query.conditions.iter().all(|condition| condition.holds(row)) {
            return Ok(());
        }
        let key: Vec<Key> = self.query.groups.iter().map(|group| (group.of)(row)).collect();
        if !self.groups.contains_key(&key) && self.groups.len() >= MOST_GROUPS {
            return Err(Error::Question(format!(
                "--group-by: there are more than {MOST_GROUPS} groups; take fewer columns"
            )));
        }
        let metrics = &self.query.metrics;
        let samples = self.groups.entry(key).or_insert_with(|| vec![QuerySamples::default(); metrics.len()]);
        for (samples, (metric, _, statistic)) in samples.iter_mut().zip(metrics) {
            if metric.level == level
                && let Some(figure) = (metric.of)(row)
            {
                samples.add(figure, metric.step, matches!(statistic, QueryStatistic::Percentile(_)));
            }
        }
        Ok(())
    }

    fn answer(mut self, runs: &[StoredRun], mut notes: Vec<String>) -> QueryAnswer {
        let query = self.query;
        // Methods and runs stand in their own order, everything else is sorted.
        let methods: Vec<&str> =
            runs.iter().flat_map(|run| run.meta().methods.iter().map(|method| method.name.as_str())).collect();
        let rank = |group: &GroupColumn, key: &Key| match (group.name, key) {
            ("method", Key::Name(name)) => methods.iter().position(|known| known == name).unwrap_or(methods.len()),
            ("run", Key::Name(name)) => runs.iter().position(|run| run.meta().run == *name).unwrap_or(runs.len()),
            _ => 0,
        };
        let mut keys: Vec<Vec<Key>> = self.groups.keys().cloned().collect();
        keys.sort_by_cached_key(|key| {
            query.groups.iter().zip(key).map(|(group, part)| (rank(group, part), part.clone())).collect::<Vec<_>>()
        });
        if self.groups.values().flatten().any(|samples| samples.sketch.is_some()) {
            notes.push(format!(
                "percentiles of groups with more than {EXACT_UP_TO} samples are from sketches, relative error 0.01"
            ));
        }
        // By nearest rank a percentile is the largest of any fewer.
        let too_few = |samples: &QuerySamples, statistic: &QueryStatistic| match statistic {
            QueryStatistic::Percentile(percent @ 51..) => {
                (1..100).contains(&(samples.count * (100 - u64::from(*percent))))
            }
            _ => false,
        };
        let any_too_few = |samples: &Vec<QuerySamples>| {
            samples.iter().zip(&query.metrics).any(|(samples, (.., statistic))| too_few(samples, statistic))
        };
        if self.groups.values().any(any_too_few) {
            notes.push(
                "a percentile of fewer samples than it needs (p90 10, p95 20, p99 100) is the largest one".to_owned(),
            );
        }
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let samples = self.groups.remove(&key).unwrap_or_default();
            let names = key.into_iter().map(|key| match key {
                Key::Name(name) => CellValue::Text(name),
                Key::Number(number) => CellValue::Exact(i128::from(number), 0),
            });
            let figures = samples
                .into_iter()
                .zip(&query.metrics)
                .map(|(samples, (metric, _, statistic))| samples.cell(*statistic, metric.step));
            rows.push(names.chain(figures).collect());
        }
        let header = query.groups.iter().map(|group| group.name.to_owned());
        let figures = query.metrics.iter().map(|(metric, name, _)| format!("{}:{name}", metric.name));
        let units = query.groups.iter().map(|_| "").chain(
            query.metrics.iter().map(
                |(metric, _, statistic)| {
                    if *statistic == QueryStatistic::Count { "" } else { metric.unit }
                },
            ),
        );
        notes.dedup();
        QueryAnswer { header: header.chain(figures).collect(), units: units.collect(), rows, notes }
    }
}

impl QuerySamples {
    fn add(&mut self, figure: Figure, step: f64, keep: bool) {
        let value = figure.value(step);
        self.count += 1;
        match figure {
            Figure::Whole(whole) => self.whole += i128::from(whole),
            Figure::Real(real) => self.real += real,
            Figure::Ratio(above, below) => {
                self.real += value;
                self.above += above;
                self.below += below;
            }
        }
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        if !keep {
            return;
        }
        match &mut self.sketch {
            Some(sketch) => sketch.push(value),
            None => {
                self.values.push(value);
                if self.values.len() > EXACT_UP_TO {
                    let mut sketch = Box::<Sketch>::default();
                    self.values.drain(..).for_each(|value| sketch.push(value));
                    self.values.shrink_to_fit();
                    self.sketch = Some(sketch);
                }
            }
        }
    }

    fn cell(mut self, statistic: QueryStatistic, step: f64) -> CellValue {
        let decimals = if step == 1e-9 { 9 } else { 0 };
        if let QueryStatistic::Count = statistic {
            return CellValue::Exact(i128::from(self.count), 0);
        }
        let (Some(min), Some(max)) = (self.min, self.max) else { return CellValue::Missing };
        match statistic {
            QueryStatistic::Sum if self.real == 0.0 => CellValue::Exact(self.whole, decimals),
            QueryStatistic::Sum => CellValue::Number(self.real),
            QueryStatistic::Mean if self.below > 0.0 => CellValue::Number(self.above / self.below),
            QueryStatistic::Mean => CellValue::Number((self.whole as f64 * step + self.real) / self.count as f64),
            QueryStatistic::Min => CellValue::Number(min),
            QueryStatistic::Max => CellValue::Number(max),
            QueryStatistic::Count => CellValue::Missing,
            QueryStatistic::Percentile(percent) => match self.sketch.take() {
                Some(sketch) => sketch.metric("", 1e-9).map_or(CellValue::Missing, |metric| {
                    CellValue::Number(match percent {
                        50 => metric.p50,
                        90 => metric.p90,
                        95 => metric.p95,
                        _ => metric.p99,
                    })
                }),
                None => {
                    self.values.sort_by(f64::total_cmp);
                    let rank = (usize::from(percent) * self.values.len()).div_ceil(100).max(1) - 1;
                    CellValue::Number(self.values[rank])
                }
            },
        }
    }
}
