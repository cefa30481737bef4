//! `specfleet compare RUN_A RUN_B`: two stored runs against each other, paired by prompt.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_analysis::{Crossed, Over, holm, paired_test};
use specfleet_config::{ModelChoice, Precision, Settings, short};
use specfleet_engine::method::Writer;
use specfleet_engine::record::{FinishReason, GenerationRecord};
use specfleet_ledger::{InputDigest, RunKind};

use crate::error::Error;
use crate::frontier::unknown;
use crate::pair::{DRAFTER_VERSION, TOKENIZER, TOKENIZER_VERSION, VERIFIER_VERSION};
use crate::report::significant;
use crate::scores::ScoreColumn;
use crate::stored::inputs::differing_models;
use crate::stored::{StoredRun, TextFigures, unfinished_note};

/// Which methods of the two runs are held against each other.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    /// Methods of both; all common ones if empty.
    pub methods: Vec<String>,
    /// A method of the first run, against `method_b` of the second.
    pub method_a: Option<String>,
    /// See `method_a`.
    pub method_b: Option<String>,
}

/// Two runs against each other.
#[derive(Clone, Debug, Serialize)]
pub struct RunComparison {
    /// The first run.
    pub run_a: String,
    /// The second.
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
    /// The second run's.
    pub method_b: String,
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Prompts that both answered.
    pub pairs: u64,
    /// The first run's mean over prompts.
    pub mean_a: f64,
    /// The second's.
    pub mean_b: f64,
    /// The first minus the second.
    pub difference: f64,
    /// Lower end of the difference's 95 % interval; absent of one prompt in single runs.
    pub low: Option<f64>,
    /// Upper end.
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
pub fn compare(a: &StoredRun, b: &StoredRun, pairs: &Pairs) -> Result<RunComparison, Error> {
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
fn method_pairs(a: &StoredRun, b: &StoredRun, pairs: &Pairs) -> Result<Vec<(u16, u16)>, Error> {
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

/// The first run's word, the second's, and why they are not compared.
fn refuse(a: &StoredRun, b: &StoredRun, why: &str) -> Error {
    Error::Question(format!("runs {} and {} cannot be compared: {why}", a.meta().run, b.meta().run))
}

/// Refuses what would compare apples with pears; the other settings that differ.
fn alike(a: &StoredRun, b: &StoredRun) -> Result<Vec<(String, String, String)>, Error> {
    let settings = |run: &StoredRun| -> Result<Settings, Error> {
        run.settings.clone().ok_or_else(|| {
            refuse(
                a,
                b,
                &format!(
                    "the scenario of {} cannot be read any more, so nothing says that they are alike",
                    run.meta().run
                ),
            )
        })
    };
    let (first, second) = (settings(a)?, settings(b)?);
    same_prompts(a, b, (&first, &second)).map_err(|why| refuse(a, b, &why))?;
    same_models(a, b, (&first, &second)).map_err(|why| refuse(a, b, &why))?;
    let (one, other) = (a.meta().accounting, b.meta().accounting);
    if one != other {
        let why = format!(
            "they account energy and waiting differently (accounting {one} and {other}): repeat the older one with this version"
        );
        return Err(refuse(a, b, &why));
    }
    let (one, other) = (first.run.sampling, second.run.sampling);
    if one != other {
        let words = |s: specfleet_engine::method::Sampling| {
            format!("temperature {}, top_k {}, top_p {}", s.temperature, s.top_k, s.top_p)
        };
        return Err(refuse(a, b, &format!("they sample differently: {} and {}", words(one), words(other))));
    }
    Ok(differences(a, b, &first, &second))
}

/// Why two runs did not answer the same prompts, if they did not.
fn same_prompts(a: &StoredRun, b: &StoredRun, (first, second): (&Settings, &Settings)) -> Result<(), String> {
    // By name: digest, and the id of the first prompt.
    let data = |run: &StoredRun, settings: &Settings| -> BTreeMap<String, (String, u32)> {
        let recorded = run.meta().inputs.workload.iter();
        let recorded = recorded.map(|input| (input.data_set.clone(), (input.sha256.clone(), input.first_id)));
        let read = settings.workload.iter();
        let read = read.map(|part| (part.data_set.clone(), (part.sha256.clone(), part.first_id)));
        if run.meta().inputs.workload.is_empty() { read.collect() } else { recorded.collect() }
    };
    let (one, other) = (data(a, first), data(b, second));
    let names = |data: &BTreeMap<String, (String, u32)>| data.keys().cloned().collect::<Vec<_>>().join(", ");
    if names(&one) != names(&other) {
        return Err(format!("their workloads differ: {} and {}", names(&one), names(&other)));
    }
    for ((name, (then, first_id)), (now, other_id)) in one.iter().zip(other.values()) {
        if then != now {
            let (then, now) = (short(then), short(now));
            return Err(format!(
                "their prompts differ: the SHA-256 of the workload {name} is {then} in the one and {now} in the other"
            ));
        }
        if first_id != other_id {
            return Err(format!(
                "their workloads differ: {} stand in another order, so prompts have other ids",
                names(&one)
            ));
        }
    }
    Ok(())
}

/// Why two runs did not have the same models, if they did not.
fn same_models(a: &StoredRun, b: &StoredRun, (first, second): (&Settings, &Settings)) -> Result<(), String> {
    let others = |what: String| Err(format!("they ran other models: {what}"));
    let (one, other) = (&a.meta().inputs.digests, &b.meta().inputs.digests);
    if let Some((one, other)) = differing_models(one, other) {
        let (of, one, other) = (&one.of, short(&one.sha256), short(&other.sha256));
        return others(format!("the SHA-256 of the {of} is {one} in the one and {other} in the other"));
    }
    let words = |settings: &Settings, with_names: bool| {
        let word = |choice: &ModelChoice, precision: Precision| match choice {
            _ if !with_names => precision.to_string(),
            ModelChoice::Embedded => format!("the embedded one in {precision}"),
            ModelChoice::Folder(folder) => format!("{} in {precision}", folder.display()),
        };
        let model = &settings.model;
        let drafter = word(&model.drafter, model.drafter_precision);
        format!("{drafter} with {}", word(&model.verifier, model.verifier_precision))
    };
    // Runs of earlier versions have these alone.
    for name in [DRAFTER_VERSION, VERIFIER_VERSION, TOKENIZER_VERSION] {
        let version = |run: &StoredRun| run.meta().versions.get(name).cloned();
        if let Some((one, other)) = version(a).zip(version(b)).filter(|(one, other)| one != other) {
            return others(format!("{name} is {} in the one and {} in the other", short(&one), short(&other)));
        }
    }
    // Where both runs recorded digests, these say more than folders do.
    let recorded = |digests: &[InputDigest]| digests.iter().any(|digest| digest.of == TOKENIZER);
    let with_names = !(recorded(one) && recorded(other));
    let by_key = |run: &StoredRun| {
        let key = run.meta().calibration.as_ref()?.get(0)?.get("key")?.clone();
        Some((key.get("drafter")?.clone(), key.get("verifier")?.clone()))
    };
    let other_weights = with_names && by_key(a).zip(by_key(b)).is_some_and(|(one, other)| one != other);
    if words(first, with_names) != words(second, with_names) || other_weights {
        return others(format!("{} and {}", words(first, true), words(second, true)));
    }
    Ok(())
}

/// Keys of the scenarios that differ, and live against simulated.
fn differences(a: &StoredRun, b: &StoredRun, first: &Settings, second: &Settings) -> Vec<(String, String, String)> {
    let kind = |run: &StoredRun| match &run.meta().kind {
        RunKind::Live => "live".to_owned(),
        RunKind::Simulated { fidelity, cost, .. } => format!("simulated ({fidelity}, {cost})"),
    };
    let mut rows = Vec::new();
    if kind(a) != kind(b) {
        rows.push(("kind".to_owned(), kind(a), kind(b)));
    }
    let cost = |run: &StoredRun| run.meta().pool_cost.clone();
    if cost(a) != cost(b) {
        rows.push(("batches are charged".to_owned(), cost(a), cost(b)));
    }
    let flat = |settings: &Settings| {
        let mut keys = BTreeMap::new();
        if let Ok(value) = serde_json::to_value(settings) {
            flatten("", &value, &mut keys);
        }
        keys
    };
    let (first, second) = (flat(first), flat(second));
    let names: std::collections::BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    for name in names {
        let of = |keys: &BTreeMap<String, String>| keys.get(name).cloned().unwrap_or_else(|| "-".to_owned());
        if of(&first) != of(&second) {
            rows.push((name.clone(), of(&first), of(&second)));
        }
    }
    rows
}

fn flatten(path: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&join(key), value, into)),
        serde_json::Value::Array(items) if items.iter().any(|item| item.is_object()) => {
            items.iter().enumerate().for_each(|(index, item)| flatten(&join(&index.to_string()), item, into));
        }
        serde_json::Value::String(text) => {
            into.insert(path.to_owned(), text.clone());
        }
        other => {
            into.insert(path.to_owned(), other.to_string());
        }
    }
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

/// How to read the intervals and p-values.
fn legend(rows: &[ComparedMetric]) -> String {
    let repeated = rows.iter().any(|row| row.over == Over::PassesAndPrompts);
    let single = rows.iter().any(|row| row.p_value.is_none());
    let mut legend =
        "* p <= 0.05, ** 0.01, *** 0.001 after Holm over the metrics; intervals by bootstrap, p by sign flips over prompts"
            .to_owned();
    if repeated {
        legend.push_str("; of what differs from pass to pass both by bootstrap over passes and prompts");
    }
    if single {
        legend.push_str(
            "\none run each: the figure follows the host or the seed, and its interval is over prompts, within these runs: \
             how far runs differ shows when both are repeated (run --repeat 5)",
        );
    }
    legend
}

/// The comparison for a terminal.
pub fn text(comparison: &RunComparison) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["method", "metric", "unit", "prompts", "A", "B", "A - B [95 %]", "d_z", "p", "p (Holm)", ""]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut named = String::new();
    for row in &comparison.rows {
        let name = if row.method_a == row.method_b {
            row.method_a.clone()
        } else {
            format!("{} : {}", row.method_a, row.method_b)
        };
        let verdict = match row.adjusted_p_value {
            None => "one run each",
            Some(p) if p <= 0.001 => "***",
            Some(p) if p <= 0.01 => "**",
            Some(p) if p <= 0.05 => "*",
            Some(_) => "",
        };
        let p_value = |p: Option<f64>| p.map_or(String::new(), |p| format!("{p:.4}"));
        table.add_row([
            Cell::new(if name == named { "" } else { &name }),
            Cell::new(&row.metric),
            Cell::new(&row.unit),
            right(row.pairs.to_string()),
            right(significant(row.mean_a)),
            right(significant(row.mean_b)),
            right(match row.low.zip(row.high) {
                Some((low, high)) => {
                    format!("{} [{}, {}]", significant(row.difference), significant(low), significant(high))
                }
                None => format!("{} [one prompt]", significant(row.difference)),
            }),
            right(row.effect.map_or(String::new(), |effect| format!("{effect:+.2}"))),
            right(p_value(row.p_value)),
            right(p_value(row.adjusted_p_value)),
            Cell::new(verdict),
        ]);
        named = name;
    }
    let mut lines = vec![format!("A = {}, B = {}, paired by prompt", comparison.run_a, comparison.run_b)];
    if comparison.differences.is_empty() {
        lines.push("their scenarios are equal".to_owned());
    }
    for (key, a, b) in &comparison.differences {
        lines.push(format!("differs: {key}: {a} | {b}"));
    }
    lines.push(String::new());
    lines.push(table.to_string());
    lines.push(String::new());
    lines.push(legend(&comparison.rows));
    lines.extend(comparison.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}
