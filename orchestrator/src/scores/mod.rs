//! Scores that are added to a run after it has ended: `specfleet score RUN`.
//!
//! [`score`] is the whole job: [`asked`] checks what is wanted, [`texts`] rebuilds what was generated from the stored
//! tokens, [`groups`] says which scorers work on the same states, [`work`] finds which figures are missing and has
//! [`matching`] and [`likelihood`] compute them block by block, and the ledger keeps each figure beside what computed it.
//! [`load`] reads them back, for tables and reports.

mod asked;
mod groups;
mod likelihood;
mod matching;
mod table;
mod texts;
mod work;

use std::collections::BTreeMap;

use specfleet_engine::id::GenerationId;
use specfleet_ledger::{RunReader, Scorer};

pub use asked::{Against, ScoreOptions};
pub use matching::{Embed, bertscore, document_frequencies};
pub use table::{Figures, figures, table};
pub use work::{Scored, score};

use crate::error::Error;

/// A metric that scores can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreMetric {
    /// Its name, as in queries and reports.
    pub name: &'static str,
    /// Unit of the stored figure.
    pub unit: &'static str,
    /// Heading in tables, empty for what only files hold.
    pub title: &'static str,
    /// From the stored figure to what tables show.
    pub factor: f64,
    pub decimals: usize,
    /// Whether more is better.
    pub more_is_better: bool,
}

const fn share(name: &'static str, title: &'static str) -> ScoreMetric {
    ScoreMetric { name, unit: "ratio", title, factor: 1e2, decimals: 1, more_is_better: true }
}

/// All of them, in the order of the tables. `_llm_only`: against the text of `llm-only` for the same prompt, in place of
/// the reference.
pub const METRICS: [ScoreMetric; 19] = [
    share("bertscore_f1", "BERTScore\nF1 %"),
    share("bertscore_precision", ""),
    share("bertscore_recall", ""),
    share("bertscore_f1_rescaled", "rescaled\nF1 %"),
    share("bertscore_precision_rescaled", ""),
    share("bertscore_recall_rescaled", ""),
    share("bertscore_f1_llm_only", "BERTScore\nllm-only %"),
    share("bertscore_precision_llm_only", ""),
    share("bertscore_recall_llm_only", ""),
    share("bertscore_f1_llm_only_rescaled", "rescaled\nllm-only %"),
    share("bertscore_precision_llm_only_rescaled", ""),
    share("bertscore_recall_llm_only_rescaled", ""),
    share("embedding_f1", "embedding\nF1 %"),
    share("embedding_f1_llm_only", "embedding\nllm-only %"),
    share("rouge_l_llm_only", "ROUGE-L\nllm-only %"),
    share("exact_match_llm_only", "answer as\nllm-only %"),
    share("token_agreement_llm_only", "tokens as\nllm-only %"),
    ScoreMetric {
        name: "first_divergence_llm_only",
        unit: "tokens",
        title: "diverges\nat token",
        factor: 1.0,
        decimals: 1,
        more_is_better: true,
    },
    ScoreMetric {
        name: "perplexity",
        unit: "ratio",
        title: "perplexity",
        factor: 1.0,
        decimals: 3,
        more_is_better: false,
    },
];

/// The metric of this name.
pub fn metric(name: &str) -> Option<&'static ScoreMetric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// The figures of one scorer.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreColumn {
    /// What computed them; its `name` and `unit` are the metric's.
    pub scorer: Scorer,
    /// By generation. One without a figure (not scored yet, or the metric does not apply to it) is absent.
    pub values: BTreeMap<GenerationId, f64>,
}

/// A run's scores: for each metric those of the scorer that came last, in the order of [`METRICS`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunScores {
    pub columns: Vec<ScoreColumn>,
    /// Metrics that several scorers have computed, with these, oldest first: only the last one's figures are here.
    pub superseded: Vec<String>,
}

impl RunScores {
    /// One figure.
    pub fn get(&self, id: GenerationId, name: &str) -> Option<f64> {
        self.columns.iter().find(|column| column.scorer.name == name)?.values.get(&id).copied()
    }

    /// All figures of a generation: name, unit, value.
    pub fn of(&self, id: GenerationId) -> impl Iterator<Item = (&str, &str, f64)> {
        self.columns.iter().filter_map(move |column| {
            let value = column.values.get(&id)?;
            Some((column.scorer.name.as_str(), column.scorer.unit.as_str(), *value))
        })
    }

    /// Whether there is a figure of this metric.
    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.scorer.name == name)
    }

    /// Which scores the run lacks and how to get them, and which were superseded: a line each.
    pub fn notes(&self, run: &str) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.has("bertscore_f1") && !self.has("bertscore_f1_llm_only") {
            notes.push(format!(
                "BERTScore is missing: specfleet score {run} --encoder DIR adds it (DIR: a BERT, RoBERTa or XLM-RoBERTa with \
                 config.json, tokenizer.json or vocab.txt, and *.safetensors)"
            ));
        }
        if !self.has("perplexity") {
            notes.push(format!("perplexity is missing: specfleet score {run} --perplexity adds it"));
        }
        let shown = |metric: &String| format!("{metric}: the last one's figures are shown");
        notes.extend(self.superseded.iter().map(shown));
        notes
    }
}

/// Reads a run's scores. A damaged chunk costs what lies in it.
pub fn load(reader: &RunReader) -> Result<RunScores, Error> {
    let scorers = &reader.meta().scorers;
    let mut values: Vec<BTreeMap<GenerationId, f64>> = vec![BTreeMap::new(); scorers.len()];
    // Where a chunk is damaged, the rows of the others count, and the reader's log has the damage.
    for row in reader.scores().flatten() {
        if let Some(values) = values.get_mut(usize::from(row.scorer))
            && row.value.is_finite()
        {
            values.insert(row.id, f64::from(row.value));
        }
    }
    let mut scores = RunScores::default();
    let all: Vec<ScoreColumn> = scorers
        .iter()
        .zip(values)
        .filter(|(_, values)| !values.is_empty())
        .map(|(scorer, values)| ScoreColumn { scorer: scorer.clone(), values })
        .collect();
    // The parts of one score have the same scorers: one line says it.
    let mut several: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for metric in METRICS {
        let of: Vec<&ScoreColumn> = all.iter().filter(|column| column.scorer.name == metric.name).collect();
        if of.len() > 1 {
            let labels: Vec<&str> = of.iter().map(|column| column.scorer.label.as_str()).collect();
            several.entry(labels.join("; ")).or_default().push(metric.name);
        }
        scores.columns.extend(of.last().map(|column| (*column).clone()));
    }
    let line =
        |(labels, names): (String, Vec<&str>)| format!("several scorers ({labels}) computed {}", names.join(", "));
    scores.superseded = several.into_iter().map(line).collect();
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_names_of_their_own() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert_eq!(METRICS.iter().position(|other| other.name == metric.name), Some(index), "{}", metric.name);
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let notes = RunScores::default().notes("R");
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("BERTScore is missing: specfleet score R --encoder DIR"), "{notes:?}");
        let perplexity = Scorer { name: "perplexity".into(), unit: "ratio".into(), ..Scorer::default() };
        let column = ScoreColumn { scorer: perplexity, values: [(GenerationId::default(), 2.0)].into() };
        let scored = RunScores { columns: vec![column], superseded: Vec::new() };
        assert_eq!(scored.notes("R").len(), 1);
        assert_eq!(scored.get(GenerationId::default(), "perplexity"), Some(2.0));
        assert_eq!(scored.of(GenerationId::default()).collect::<Vec<_>>(), [("perplexity", "ratio", 2.0)]);
    }
}
