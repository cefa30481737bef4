//! A run's scores by method, as a table and as JSON.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_analysis::{Metric, Samples};
use specfleet_ledger::Scorer;

use super::{METRICS, Scored};

/// What `specfleet score --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Figures<'a> {
    pub run: &'a str,
    /// Figures added by this call.
    pub added: u64,
    /// Figures that were there already.
    pub kept: u64,
    /// What computed the figures below.
    pub scorers: Vec<&'a Scorer>,
    /// Distributions over the generations, by method in run order and by metric.
    pub methods: Vec<MethodScores<'a>>,
    /// What there is to say beside them.
    pub notes: &'a [String],
}

/// One method's figures.
#[derive(Clone, Debug, Serialize)]
pub struct MethodScores<'a> {
    pub name: &'a str,
    /// Its metrics, by name.
    pub metrics: BTreeMap<&'a str, Metric>,
}

/// The distributions of a run's scores. A method without scores is left out.
pub fn figures(scored: &Scored) -> Figures<'_> {
    let columns = &scored.scores.columns;
    let of_method = |method: u16| {
        let metric = |column: &super::ScoreColumn| {
            let mut samples = Samples::default();
            column.values.iter().filter(|(id, _)| id.method == method).for_each(|(_, value)| samples.push(*value));
            samples.metric(&column.scorer.unit)
        };
        columns
            .iter()
            .filter_map(|column| Some((column.scorer.name.as_str(), metric(column)?)))
            .collect::<BTreeMap<_, _>>()
    };
    let methods = scored.methods.iter().enumerate().map(|(index, name)| MethodScores {
        name: name.as_str(),
        metrics: of_method(u16::try_from(index).unwrap_or(u16::MAX)),
    });
    Figures {
        run: &scored.run,
        added: scored.added,
        kept: scored.kept,
        scorers: columns.iter().map(|column| &column.scorer).collect(),
        methods: methods.filter(|method| !method.metrics.is_empty()).collect(),
        notes: &scored.notes,
    }
}

/// The means by method. A figure that does not apply to a method is empty.
pub fn table(figures: &Figures<'_>) -> String {
    let any = |name: &str| figures.methods.iter().any(|method| method.metrics.contains_key(name));
    let columns: Vec<_> = METRICS.iter().filter(|metric| !metric.title.is_empty() && any(metric.name)).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let fixed = ["method", "texts"].into_iter();
    table.set_header(fixed.chain(columns.iter().map(|column| column.title)));
    for method in &figures.methods {
        let texts = method.metrics.values().map(|metric| metric.count).max().unwrap_or(0);
        let cells = columns.iter().map(|column| {
            let mean = method.metrics.get(column.name).map(|metric| metric.mean * column.factor);
            let text = mean.map_or(String::new(), |mean| format!("{mean:.*}", column.decimals));
            Cell::new(text).set_alignment(CellAlignment::Right)
        });
        let fixed = [Cell::new(method.name), Cell::new(texts).set_alignment(CellAlignment::Right)];
        table.add_row(fixed.into_iter().chain(cells));
    }
    table.to_string()
}
