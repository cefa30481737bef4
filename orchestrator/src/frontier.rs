//! `specfleet frontier RUN`: the thresholds of a stored run decided again, from its rows alone.

use std::io::Write;
use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_analysis::{
    Candidate, FrontierLog, FrontierPoint, ImportanceChoice, LoggedGeneration, LoggedRound, SUPPORTED_ABOVE,
};
use specfleet_config::Vary;
use specfleet_engine::device::energy::nanojoules;
use specfleet_engine::method::{Gate, Method};
use specfleet_engine::names::{did_you_mean, nearest};
use specfleet_engine::record::GenerationRecord;
use specfleet_ledger::RoundColumn;

use crate::error::Error;
use crate::report_data::with_interval;
use crate::stored::{AuditCursor, StoredRun, unfinished_note};

/// Thresholds where nobody names any.
const DEFAULT_POINTS: usize = 24;

/// Most points of a sweep.
const MOST_POINTS: usize = 10_000;

const COLUMNS: [RoundColumn; 8] = [
    RoundColumn::Position,
    RoundColumn::Source,
    RoundColumn::Reason,
    RoundColumn::Uncertainty,
    RoundColumn::Importance,
    RoundColumn::ImportanceThreshold,
    RoundColumn::Work,
    RoundColumn::CloudNanojoules,
];

/// What to sweep.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The method; the first one with a threshold, `ui-hlm` before others, where none is named.
    pub method: Option<String>,
    /// Thresholds of the gate's statistic: `0.02..0.6:24` or `0.1,0.2`.
    pub uncertainty: Option<String>,
    /// κ of the importance criterion, in the same forms.
    pub kappa: Option<String>,
    /// `on`, `off` or `both`.
    pub importance: Option<String>,
}

/// A swept log.
#[derive(Clone, Debug, Serialize)]
pub struct Frontier {
    pub run: String,
    pub method: String,
    /// What the thresholds are compared with: `uncertainty`, `entropy` (nats) or `max-probability`.
    pub statistic: &'static str,
    /// Share of the logged decisions that deciding again at the logged thresholds repeats.
    pub agreement: f64,
    /// The points, by importance and then threshold.
    pub points: Vec<FrontierPoint>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Sweeps the thresholds over the log of a run.
pub fn frontier(run: &StoredRun, sweep: &Sweep) -> Result<Frontier, Error> {
    let (index, method) = choose(run, sweep.method.as_deref())?;
    let mut notes = run.notes.clone();
    let generations = log(run, index);
    notes.extend(run.damage());
    notes.extend(unfinished_note(&run.reader));
    let log = FrontierLog::new(method, generations).map_err(|error| mistake(run, &error))?;
    let thresholds = match &sweep.uncertainty {
        Some(text) => numbers("--uncertainty", text)?,
        None => log.spread(DEFAULT_POINTS),
    };
    let choices = choices(sweep)?;
    let mut candidates: Vec<Candidate> = choices
        .iter()
        .flat_map(|&importance| thresholds.iter().map(move |&threshold| Candidate { threshold, importance }))
        .collect();
    if candidates.len() > MOST_POINTS {
        return Err(Error::Question(format!("{} points are too many; at most {MOST_POINTS}", candidates.len())));
    }
    let logged = log.logged();
    if !candidates.contains(&logged) {
        candidates.push(logged);
    }
    let mut points = log.points(&candidates).map_err(|error| mistake(run, &error))?;
    points.sort_by(|a, b| {
        let kappa = |point: &FrontierPoint| point.kappa.unwrap_or(f32::NEG_INFINITY);
        kappa(a).total_cmp(&kappa(b)).then(a.threshold.total_cmp(&b.threshold))
    });
    points.dedup_by(|a, b| a.threshold == b.threshold && a.kappa == b.kappa);
    if log.agreement() < 1.0 {
        notes.push(format!(
            "deciding again at the run's own thresholds repeats {:.2} % of its decisions",
            log.agreement() * 100.0
        ));
    }
    if run.audits.is_empty() {
        notes.push(
            "nothing was audited: what skipped tokens would have met is not known, and deviations are too low"
                .to_owned(),
        );
    }
    notes.push(format!(
        "estimated on the states of the logged run (off-policy): with other thresholds texts diverge where a rejection is \
         met or missed; supported where {:.0} % of the log lies before that",
        SUPPORTED_ABOVE * 100.0
    ));
    let statistic = match method.gate {
        Gate::Entropy { .. } => "entropy",
        Gate::MaxProbability { .. } => "max-probability",
        _ => "uncertainty",
    };
    Ok(Frontier {
        run: run.meta().run.clone(),
        method: method.name.clone(),
        statistic,
        agreement: log.agreement(),
        points,
        notes,
    })
}

fn mistake(run: &StoredRun, error: &impl std::fmt::Display) -> Error {
    Error::Question(format!("run {}: {error}", run.meta().run))
}

/// The method asked for, or the first that has a threshold.
fn choose<'a>(run: &'a StoredRun, name: Option<&str>) -> Result<(u16, &'a Method), Error> {
    let methods = &run.meta().methods;
    let find = |name: &str| methods.iter().position(|method| method.name == name);
    let has_threshold = |method: &&Method| {
        matches!(
            method.gate,
            Gate::Joint { .. } | Gate::Uncertainty { .. } | Gate::Entropy { .. } | Gate::MaxProbability { .. }
        )
    };
    let index = match name {
        Some(name) => find(name).ok_or_else(|| {
            let known: Vec<&str> = methods.iter().map(|method| method.name.as_str()).collect();
            unknown(&format!("run {} has no method {name:?}", run.meta().run), name, &known)
        })?,
        None => find("ui-hlm").or_else(|| methods.iter().position(|method| has_threshold(&method))).ok_or_else(|| {
            mistake(run, &"no method of it decides by a threshold; those that do are u-hlm, ui-hlm, cu-hlm, entropy and max-prob")
        })?,
    };
    Ok((index as u16, &methods[index]))
}

/// One line about a name that does not exist, with the nearest that do, or all.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    let near = nearest(name, known.iter().copied());
    let advice = did_you_mean(&near).unwrap_or_else(|| format!("valid: {}", known.join(", ")));
    Error::Question(format!("{what}; {advice}"))
}

fn choices(sweep: &Sweep) -> Result<Vec<ImportanceChoice>, Error> {
    let kappas = sweep.kappa.as_deref().map(|text| numbers("--kappa", text)).transpose()?;
    match (sweep.importance.as_deref(), kappas) {
        (None | Some("on"), Some(kappas)) => Ok(kappas.into_iter().map(ImportanceChoice::Kappa).collect()),
        (None | Some("on"), None) => Ok(vec![ImportanceChoice::Logged]),
        (Some("off"), None) => Ok(vec![ImportanceChoice::Off]),
        (Some("off"), Some(_)) => Err(Error::Question("--kappa: there is none with --importance off".to_owned())),
        (Some("both"), kappas) => {
            let on = kappas.map_or(vec![ImportanceChoice::Logged], |kappas| {
                kappas.into_iter().map(ImportanceChoice::Kappa).collect()
            });
            Ok([vec![ImportanceChoice::Off], on].concat())
        }
        (Some(other), _) => {
            Err(unknown(&format!("--importance: there is no {other:?}"), other, &["on", "off", "both"]))
        }
    }
}

/// A range or a list of numbers.
fn numbers(flag: &str, text: &str) -> Result<Vec<f32>, Error> {
    let wrong =
        || Error::Question(format!("{flag} {text}: it must be FROM..TO:COUNT or numbers with commas between them"));
    if let Ok(value) = text.trim().parse::<f32>() {
        return if value.is_finite() { Ok(vec![value]) } else { Err(wrong()) };
    }
    let vary: Vary = format!("x={text}").parse().map_err(|_| wrong())?;
    let mut values: Vec<f32> = vary
        .values
        .iter()
        .map(|value| value.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or_else(wrong))
        .collect::<Result<_, _>>()?;
    values.sort_by(f32::total_cmp);
    values.dedup();
    Ok(values)
}

/// The rounds of one method, generation by generation. What was never closed is left out.
fn log(run: &StoredRun, method: u16) -> Vec<LoggedGeneration> {
    let first = run.generations.partition_point(|record| record.id.method < method);
    let records = &run.generations[first..run.generations.partition_point(|record| record.id.method <= method)];
    let mut rounds: Vec<Vec<LoggedRound>> = records.iter().map(|_| Vec::new()).collect();
    for chunk in run.reader.scan_rounds(&COLUMNS).flatten() {
        for piece in chunk.pieces.iter().filter(|piece| piece.id.method == method) {
            let Ok(index) = records.binary_search_by_key(&piece.id, |record| record.id) else { continue };
            let mut audit = AuditCursor::new(run.audit(piece.id), piece.first);
            rounds[index].extend(piece.range.clone().map(|row| {
                let round = chunk.rows.partial_record(row);
                let cost = round.verify_cost();
                LoggedRound {
                    uncertainty: round.uncertainty,
                    importance: round.importance,
                    importance_threshold: round.importance_threshold,
                    source: round.source,
                    reason: round.reason,
                    audited: audit.at(round.position),
                    work: cost.fed_tokens,
                    cloud_nanojoules: cost.nanojoules,
                }
            }));
        }
    }
    records
        .iter()
        .zip(rounds)
        .map(|(record, rounds)| LoggedGeneration {
            prompt_tokens: record.prompt_tokens,
            rounds,
            energy: record.energy,
            waiting_nanojoules: waiting(run, record),
        })
        .collect()
}

/// What the device spent while it waited for verdicts.
fn waiting(run: &StoredRun, record: &GenerationRecord) -> Option<u64> {
    let settings = run.settings.as_ref()?;
    Some(nanojoules(settings.device.profile(record.device).idle_watts, record.times.waiting))
}

/// The points as a table.
pub fn table(frontier: &Frontier) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        frontier.statistic.to_owned(),
        "kappa".to_owned(),
        "upload, % [95 %]".to_owned(),
        "mJ/token".to_owned(),
        "deviation of skipped, % [95 %]".to_owned(),
        "of all, %".to_owned(),
        "on policy, %".to_owned(),
        String::new(),
    ]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let percent = |value: f64| format!("{:.1}", value * 100.0);
    for point in &frontier.points {
        let mut marks = Vec::new();
        if point.logged {
            marks.push("logged");
        }
        if point.front {
            marks.push("front");
        }
        if !point.supported {
            marks.push("unsupported");
        }
        let rate = &point.upload_rate;
        table.add_row([
            right(format!("{:.4}", point.threshold)),
            right(point.kappa.map_or("off".to_owned(), |kappa| format!("{kappa:.2}"))),
            right(with_interval(rate.value, rate.low, rate.high, 1)),
            right(point.joules_per_token.map_or(String::new(), |joules| format!("{:.1}", joules * 1e3))),
            right(point.deviation_rate.map_or(String::new(), |rate| with_interval(rate.value, rate.low, rate.high, 2))),
            right(point.deviations_per_token.map_or(String::new(), |rate| format!("{:.2}", rate * 100.0))),
            right(percent(point.on_policy)),
            Cell::new(marks.join(", ")),
        ]);
    }
    table.to_string()
}

/// Writes the points as CSV, figures in SI units.
pub fn write_csv(frontier: &Frontier, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Output { path: path.to_path_buf(), source };
    let mut text = Vec::new();
    let header = "threshold,kappa,upload_rate,upload_rate_low,upload_rate_high,joules_per_token,deviation_rate,\
                  deviation_rate_low,deviation_rate_high,deviations_per_token,on_policy,unknown,supported,logged,front";
    writeln!(text, "{header}").map_err(failed)?;
    let cell = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for point in &frontier.points {
        let (rate, deviation) = (&point.upload_rate, point.deviation_rate);
        writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            point.threshold,
            point.kappa.map_or(String::new(), |kappa| kappa.to_string()),
            rate.value,
            cell(rate.low),
            cell(rate.high),
            cell(point.joules_per_token),
            cell(deviation.map(|rate| rate.value)),
            cell(deviation.and_then(|rate| rate.low)),
            cell(deviation.and_then(|rate| rate.high)),
            cell(point.deviations_per_token),
            point.on_policy,
            point.unknown,
            point.supported,
            point.logged,
            point.front
        )
        .map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
