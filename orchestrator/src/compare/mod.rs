//! `specfleet compare RUN_A RUN_B`: two stored runs against each other, paired by prompt.

mod alike;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use specfleet_analysis::{Crossed, Over, holm, paired_test};
use specfleet_engine::method::Writer;
use specfleet_engine::record::{FinishReason, GenerationRecord};

use self::alike::{alike, refuse};
pub use self::text::text;
use crate::error::Error;
use crate::frontier::unknown;
use crate::scores::ScoreColumn;
use crate::stored::{StoredRun, TextFigures, unfinished_note};

/// Which methods of the two runs are held against each other.
#[derive(Clone, Debug, Default)]
pub struct ComparedPairs {
    /// Methods of both; all common ones if empty.
    pub methods: Vec<String>,
    /// A method of the first run, against `method_b` of the second.
    pub method_a: Option<String>,
    pub method_b: Option<String>,
}

/// Two runs against each other.
#[derive(Clone, Debug, Serialize)]
pub struct RunComparison {
    pub run_a: String,
    pub run_b: String,
    /// What their scenarios set differently: key, first, second.
    pub differences: Vec<(String, String, String)>,
    /// Every metric of every pair of methods.
    pub rows: Vec<ComparedMetric>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// One metric of one pair of methods.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedMetric {
    /// The first run's method.
    pub method_a: String,
    pub method_b: String,
    pub metric: String,
    pub unit: String,
    /// Prompts that both answered.
    pub pairs: u64,
    /// The first run's mean over prompts.
    pub mean_a: f64,
    pub mean_b: f64,
    /// The first minus the second.
    pub difference: f64,
    /// Lower end of the difference's 95 % interval; absent of one prompt in single runs.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// What the interval was taken over.
    pub over: Over,
    /// Cohen's d_z over prompts; absent where the differences never vary.
    pub effect: Option<f64>,
    /// Whether the figure depends on when things happened on the host, so that two runs of one scenario differ in it.
    pub host_timed: bool,
    /// Two-sided p-value. Absent for host-timed figures unless both runs were repeated: prompts say nothing about how runs
    /// differ.
    pub p_value: Option<f64>,
    /// The same after Holm's adjustment over the metrics of this pair of methods.
    pub adjusted_p_value: Option<f64>,
    /// Whether that is at most 0.05.
    pub significant: bool,
}

/// Metrics of one generation: name, unit, figure.
type Figure = fn(&StoredRun, &GenerationRecord, &TextFigures) -> Option<f64>;

fn per_token(nanojoules: u64, record: &GenerationRecord) -> Option<f64> {
    (!record.tokens.is_empty()).then(|| nanojoules as f64 * 1e-9 / record.tokens.len() as f64)
}

const METRICS: [(&str, &str, Figure); 15] = [
    ("energy_per_token_joules_total", "J/token", |_, record, _| per_token(record.energy.total(), record)),
    ("energy_per_token_joules_device", "J/token", |_, record, _| per_token(record.energy.device, record)),
    ("energy_per_token_joules_radio", "J/token", |_, record, _| per_token(record.energy.radio, record)),
    ("energy_per_token_joules_cloud", "J/token", |_, record, _| per_token(record.energy.cloud, record)),
    ("time_to_first_token_seconds", "s", |_, record, _| Some(record.first_token?.since(record.scheduled).seconds())),
    ("request_latency_seconds", "s", |_, record, _| {
        let ended = matches!(record.finish, FinishReason::Stop | FinishReason::Length);
        ended.then(|| record.ended.since(record.scheduled).seconds())
    }),
    ("tokens_per_second", "tokens/s", |_, record, _| {
        let seconds = record.ended.since(record.scheduled).seconds();
        (seconds > 0.0).then(|| record.tokens.len() as f64 / seconds)
    }),
    ("tokens", "tokens", |_, record, _| Some(record.tokens.len() as f64)),
    ("uploads_per_token", "uploads/token", |run, record, _| {
        let drafts = run.meta().methods.get(usize::from(record.id.method))?.writer == Writer::Drafter;
        (drafts && !record.tokens.is_empty()).then(|| record.uploads.verdicts as f64 / record.tokens.len() as f64)
    }),
    ("wasted_drafts_per_token", "drafts/token", |_, record, _| {
        (!record.tokens.is_empty()).then(|| record.counts.wasted_drafts as f64 / record.tokens.len() as f64)
    }),
    ("deviation_rate", "ratio", |run, record, _| {
        let known =
            || run.audit(record.id).into_iter().flat_map(|audit| &audit.accept_probabilities).filter(|p| p.is_finite());
        let count = known().count();
        (count > 0).then(|| known().map(|p| 1.0 - f64::from(*p)).sum::<f64>() / count as f64)
    }),
    ("exact_match", "ratio", |_, _, text| text.exact_match.map(|right| f64::from(u8::from(right)))),
    ("rouge_l", "ratio", |_, _, text| text.rouge_l),
    ("token_agreement", "ratio", |_, _, text| text.token_agreement),
    ("first_divergence_tokens", "tokens", |_, _, text| text.first_divergence.map(f64::from)),
];

/// Compares two runs; refuses runs whose prompts, models or sampling are not the same, and says what differs.
pub fn compare(a: &StoredRun, b: &StoredRun, pairs: &ComparedPairs) -> Result<RunComparison, Error> {
    let differences = alike(a, b)?;
    let mut notes: Vec<String> = a.notes.iter().chain(&b.notes).cloned().collect();
    for run in [a, b] {
        notes.extend(run.damage());
        notes.extend(unfinished_note(&run.reader));
        if run.meta().inputs.workload.is_empty() {
            notes.push(format!(
                "run {}: the digests of its prompts and models are not recorded; that they are those of the other run is \
                 taken from its scenario",
                run.meta().run
            ));
        }
        if !run.has_text() {
            notes.push(format!("run {} has no text (fitted answers): accuracy is not compared", run.meta().run));
        }
        if run.keep_every() > 1 {
            notes.push(format!(
                "run {} keeps every {}th device: only these are compared",
                run.meta().run,
                run.keep_every()
            ));
        }
    }
    let mut rows = Vec::new();
    for (method_a, method_b) in method_pairs(a, b, pairs)? {
        rows.extend(compare_methods(a, b, (method_a, method_b))?);
    }
    Ok(RunComparison { run_a: a.meta().run.clone(), run_b: b.meta().run.clone(), differences, rows, notes })
}

/// Indices of the methods to compare.
fn method_pairs(a: &StoredRun, b: &StoredRun, pairs: &ComparedPairs) -> Result<Vec<(u16, u16)>, Error> {
    let index = |run: &StoredRun, name: &str| -> Result<u16, Error> {
        let names: Vec<&str> = run.meta().methods.iter().map(|method| method.name.as_str()).collect();
        let found = names.iter().position(|known| *known == name);
        let found =
            found.ok_or_else(|| unknown(&format!("run {} has no method {name:?}", run.meta().run), name, &names))?;
        Ok(found as u16)
    };
    match (&pairs.method_a, &pairs.method_b) {
        (Some(first), Some(second)) => return Ok(vec![(index(a, first)?, index(b, second)?)]),
        (None, None) => {}
        _ => return Err(Error::Question("--method-a and --method-b belong together".to_owned())),
    }
    if !pairs.methods.is_empty() {
        return pairs.methods.iter().map(|name| Ok((index(a, name)?, index(b, name)?))).collect();
    }
    let common: Vec<(u16, u16)> = a
        .meta()
        .methods
        .iter()
        .filter_map(|method| Some((index(a, &method.name).ok()?, index(b, &method.name).ok()?)))
        .collect();
    if common.is_empty() {
        return Err(refuse(a, b, "they have no method in common; --method-a and --method-b name one of each"));
    }
    Ok(common)
}

/// The answers of both runs to one prompt: indices among their generations, by repetition.
type Answers = Vec<(Vec<usize>, Vec<usize>)>;

/// The answers under a method, by data set, prompt and repetition; requests that were never started are none.
fn answers_of(run: &StoredRun, method: u16) -> BTreeMap<(&str, u32, u16), Vec<usize>> {
    let mut answers: BTreeMap<(&str, u32, u16), Vec<usize>> = BTreeMap::new();
    for (index, record) in run.generations.iter().enumerate() {
        if record.id.method == method && record.finish != FinishReason::Dropped {
            let place = (run.data_set_name(record.data_set), record.id.prompt, record.id.repetition);
            answers.entry(place).or_default().push(index);
        }
    }
    answers
}

/// The prompts that both runs answered, by data set and prompt.
fn common_prompts<'a>(a: &'a StoredRun, b: &StoredRun, methods: (u16, u16)) -> BTreeMap<(&'a str, u32), Answers> {
    // The same prompt truncated to another length is another prompt.
    let kept = |run: &StoredRun| -> BTreeMap<u32, u32> {
        let too_long = run.meta().inputs.workload.iter().flat_map(|input| &input.too_long);
        too_long.map(|prompt| (prompt.prompt, prompt.kept)).collect()
    };
    let (kept_a, kept_b) = (kept(a), kept(b));
    let (mine, others) = (answers_of(a, methods.0), answers_of(b, methods.1));
    // Prompts are independent, repetitions of one are not.
    let mut prompts: BTreeMap<(&str, u32), Answers> = BTreeMap::new();
    for ((set, prompt, repetition), indices) in mine {
        let theirs = others.get(&(set, prompt, repetition));
        if let Some(theirs) = theirs.filter(|_| kept_a.get(&prompt) == kept_b.get(&prompt)) {
            prompts.entry((set, prompt)).or_default().push((indices, theirs.clone()));
        }
    }
    prompts
}

/// One metric on both sides, by prompt and then pass; a pass without it is NaN.
struct Sides {
    metric: String,
    unit: String,
    a: Vec<Vec<f64>>,
    b: Vec<Vec<f64>>,
}

/// Every metric of one pair of methods.
fn compare_methods(a: &StoredRun, b: &StoredRun, methods: (u16, u16)) -> Result<Vec<ComparedMetric>, Error> {
    let prompts = common_prompts(a, b, methods);
    if prompts.is_empty() {
        return Err(refuse(a, b, "they have no prompt in common that both answered"));
    }
    let passes = [a, b].map(|run| usize::from(run.meta().passes()));
    let mut figures: Vec<Sides> = Vec::new();
    let mut take =
        |name: &str, unit: &str, of_a: &dyn Fn(usize) -> Option<f64>, of_b: &dyn Fn(usize) -> Option<f64>| {
            let mut sides = Sides { metric: name.to_owned(), unit: unit.to_owned(), a: Vec::new(), b: Vec::new() };
            for answers in prompts.values() {
                let (mut mine, mut theirs) = (Means::new(passes[0]), Means::new(passes[1]));
                for (ours, others) in answers {
                    let known = |run: &StoredRun, indices: &[usize], of: &dyn Fn(usize) -> Option<f64>| {
                        let figure = |&index: &usize| Some((run.generations[index].id.pass, of(index)?));
                        indices.iter().filter_map(figure).collect::<Vec<_>>()
                    };
                    let (ours, others) = (known(a, ours, of_a), known(b, others, of_b));
                    if !ours.is_empty() && !others.is_empty() {
                        mine.add(&ours);
                        theirs.add(&others);
                    }
                }
                if mine.any() {
                    sides.a.push(mine.by_pass());
                    sides.b.push(theirs.by_pass());
                }
            }
            figures.push(sides);
        };
    for (name, unit, figure) in METRICS {
        let of = |run: &StoredRun, index: usize| figure(run, &run.generations[index], &run.texts[index]);
        take(name, unit, &|index| of(a, index), &|index| of(b, index));
    }
    for score in &a.scores.columns {
        let same = |other: &&ScoreColumn| {
            other.scorer.name == score.scorer.name && other.scorer.settings == score.scorer.settings
        };
        // Figures of two encoders are no pair.
        let Some(other) = b.scores.columns.iter().find(same) else { continue };
        let of = |run: &StoredRun, column: &ScoreColumn, index: usize| {
            column.values.get(&run.generations[index].id).copied()
        };
        take(&score.scorer.name, &score.scorer.unit, &|index| of(a, score, index), &|index| of(b, other, index));
    }
    let mut rows: Vec<ComparedMetric> =
        figures.into_iter().filter_map(|sides| compare_metric(a, b, methods, sides)).collect();
    let adjusted = holm(&rows.iter().filter_map(|row| row.p_value).collect::<Vec<_>>());
    for (row, p) in rows.iter_mut().filter(|row| row.p_value.is_some()).zip(adjusted) {
        row.adjusted_p_value = Some(p);
        row.significant = p <= 0.05;
    }
    Ok(rows)
}

/// Sums of one prompt's figures by pass.
struct Means(Vec<(f64, f64)>);

impl Means {
    fn new(passes: usize) -> Means {
        Means(vec![(0.0, 0.0); passes])
    }

    fn add(&mut self, figures: &[(u16, f64)]) {
        for (pass, figure) in figures {
            if let Some((sum, count)) = self.0.get_mut(usize::from(*pass)) {
                *sum += figure;
                *count += 1.0;
            }
        }
    }

    fn any(&self) -> bool {
        self.0.iter().any(|(_, count)| *count > 0.0)
    }

    fn by_pass(&self) -> Vec<f64> {
        self.0.iter().map(|(sum, count)| sum / count).collect()
    }
}

/// Means, difference, interval and p-value of one metric.
fn compare_metric(a: &StoredRun, b: &StoredRun, methods: (u16, u16), sides: Sides) -> Option<ComparedMetric> {
    let seed = a.meta().seed ^ b.meta().seed.rotate_left(32);
    let mean = |passes: &Vec<f64>| {
        let known: Vec<f64> = passes.iter().copied().filter(|figure| figure.is_finite()).collect();
        known.iter().sum::<f64>() / known.len() as f64
    };
    let by_prompt = |side: &[Vec<f64>]| side.iter().map(mean).collect::<Vec<f64>>();
    let test = paired_test(&by_prompt(&sides.a), &by_prompt(&sides.b), seed).ok()?;
    let host_timed = a.is_host_timed(methods.0, &sides.metric) || b.is_host_timed(methods.1, &sides.metric);
    let varies = host_timed || a.meta().seeds > 1 || b.meta().seeds > 1;
    let crossed = |side: &[Vec<f64>], passes: u16| {
        let cell = |figure: f64| if figure.is_finite() { (figure, 1.0) } else { (0.0, 0.0) };
        Crossed::new((0..usize::from(passes)).map(|pass| side.iter().map(move |prompt| cell(prompt[pass]))))
    };
    let repeated = if varies {
        crossed(&sides.a, a.meta().passes()).minus(&crossed(&sides.b, b.meta().passes()), seed)
    } else {
        None
    };
    Some(ComparedMetric {
        method_a: a.method_name(methods.0).to_owned(),
        method_b: b.method_name(methods.1).to_owned(),
        metric: sides.metric,
        unit: sides.unit,
        pairs: test.pairs,
        mean_a: test.mean_a,
        mean_b: test.mean_b,
        difference: test.difference,
        low: repeated.map(|repeated| repeated.low).or(test.low),
        high: repeated.map(|repeated| repeated.high).or(test.high),
        over: if repeated.is_some() { Over::PassesAndPrompts } else { Over::Prompts },
        effect: test.effect,
        host_timed,
        p_value: match repeated {
            Some(repeated) => Some(repeated.p_value),
            None if varies => None,
            None => Some(test.p_value),
        },
        adjusted_p_value: None,
        significant: false,
    })
}
