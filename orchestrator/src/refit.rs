//! `specfleet calibrate RUN`: what a finished live run says about the pair, the pool's machine and its host, as one file
//! that scenarios name with `calibration.file`.

use std::collections::BTreeMap;
use std::path::Path;

use specfleet_analysis::{FitReport, GenerationRows, fit_batch_cost, fit_distributions, fit_host, refit_line};
use specfleet_engine::calibration::{Calibration, Distributions, HostOverheads, RiskLine};
use specfleet_engine::cost::MeasuredCost;
use specfleet_engine::id::GenerationId;
use specfleet_engine::record::{AuditRecord, BatchRecord, GenerationRecord, RoundRecord};
use specfleet_ledger::{Meta, RunKind, RunReader};

use crate::error::Error;
use crate::methods::{Calibrations, Resolved};
use crate::pair::Pair;
use crate::stored::inputs::{self, StoredInputs};

/// What was fitted.
#[derive(Debug)]
pub struct Refit {
    pub calibration: Calibration,
    /// How well batch costs were fitted.
    pub cost: FitReport,
    /// The fits in words, one line each.
    pub lines: Vec<String>,
}

/// Fits everything on the run in `folder`. `runs`: the folder of all runs, beside which calibrations are cached.
pub fn refit(folder: &Path, runs: &Path, say: &dyn Fn(&str)) -> Result<Refit, Error> {
    let reader = RunReader::open(folder)?;
    let meta = reader.meta();
    let cannot = |why: &str| Error::Simulation(format!("run {}: {why}", meta.run));
    if meta.kind != RunKind::Live {
        return Err(cannot("it was simulated; only a live run measures anything"));
    }
    if meta.pool_cost != "measured" {
        return Err(cannot(&format!(
            "its batches were charged {} times, which say nothing about this host; repeat it with --set pool.cost=measured",
            meta.pool_cost
        )));
    }
    let settings = StoredInputs::of(meta).settings?;
    let known =
        meta.calibration.as_ref().and_then(|value| serde_json::from_value::<Vec<Calibration>>(value.clone()).ok());
    let base = match known.and_then(|mut list| (!list.is_empty()).then(|| list.swap_remove(0))) {
        Some(calibration) => calibration,
        None => calibration_of(meta, runs, say)?,
    };

    let rows = Rows::read(&reader)?;
    let generations = rows.all();
    let batches: Vec<BatchRecord> = reader.batches().collect::<Result<_, _>>()?;
    let (batch_cost, cost) = fit_batch_cost(&batches, &meta.methods)
        .ok_or_else(|| cannot("it has too few batches to fit what they take (twenty)"))?;
    let host = fit_host(&generations, &meta.methods, settings.pool.max_wait);
    let (host, host_methods) = host.unzip();
    let host_methods = host_methods.unwrap_or_default();
    let distributions = fit_distributions(&generations, &meta.methods);
    let line = refit_line(&generations, &meta.methods);

    let mut lines = batch_lines(&batch_cost, &cost);
    lines.push(host_line(host.as_ref()));
    lines.push(risk_line(line.as_ref(), distributions.as_ref()));
    let mut calibration = Calibration { batch_cost: Some(batch_cost), host, host_methods, distributions, ..base };
    if let Some(line) = line {
        calibration.risk_averse = line.risk_averse();
        calibration.risk_prone = line.risk_prone(calibration.delta);
        calibration.line = line;
    }
    lines.extend(calibration.fits_badly().map(|warning| format!("note     {warning}")));
    Ok(Refit { calibration, cost, lines })
}

/// The fit of what batches take, in words.
fn batch_lines(fitted: &MeasuredCost, report: &FitReport) -> Vec<String> {
    let first = format!(
        "batches  {} batches: {:.1} us + {:.2} us/token + {:.2} us/sequence + {:.4} us/cached token; {:.1} % mean error, \
         r2 {:.3}, {} outliers left out",
        report.batches,
        fitted.base * 1e-3,
        fitted.per_token * 1e-3,
        fitted.per_sequence * 1e-3,
        fitted.per_cached_token * 1e-3,
        report.relative_error * 100.0,
        report.r2,
        report.outliers
    );
    let slowdowns: Vec<String> = fitted.contention.iter().map(|factor| format!("{factor:.2}")).collect();
    let methods: Vec<String> = fitted.methods.iter().map(|(name, factor)| format!("{name} {factor:.2}")).collect();
    vec![
        first,
        format!("         times {} beside 0, 1, … other verifiers that compute", slowdowns.join(", ")),
        format!("         times by method: {}", methods.join(", ")),
    ]
}

/// The fit of what the host adds, in words.
fn host_line(fitted: Option<&HostOverheads>) -> String {
    match fitted {
        Some(host) => format!(
            "host     {:.0} us late per draft step, {:.0} us per upload beyond link, queue and batch, {:.0} us late per wake of the \
             pool; {} generations",
            host.step.seconds() * 1e6,
            host.upload.seconds() * 1e6,
            host.wake.seconds() * 1e6,
            host.generations
        ),
        None => "host     nothing fitted: no generation whose uploads all got verdicts".to_owned(),
    }
}

/// The fits of the risk line and of the distributions, in words.
fn risk_line(line: Option<&RiskLine>, distributions: Option<&Distributions>) -> String {
    match (line, distributions) {
        (Some(line), Some(distributions)) => format!(
            "risk     {:.3} u {:+.3}, correlation {:.2}, rmse {:.3}, {} drafts; distributions of {} drafts",
            line.a, line.b, line.r, line.rmse, line.n, distributions.drafts
        ),
        _ => "risk     kept from the run's own calibration: no audited method with uncertainty (u-hlm, ui-hlm, cu-hlm)"
            .to_owned(),
    }
}

/// The calibration of a run that needed none: of the same pair and files, or of no other.
fn calibration_of(meta: &Meta, runs: &Path, say: &dyn Fn(&str)) -> Result<Calibration, Error> {
    let refuse = |why: String| Error::Simulation(format!("run {}: {why}", meta.run));
    let settings = inputs::unchanged(meta).map_err(refuse)?;
    let pair = Pair::load(&settings.model)?;
    match inputs::changed_model(meta, &pair.digests) {
        Some(change) => Err(refuse(change)),
        None => Calibrations::new(&settings, &pair, runs, say).of_run(&Resolved::default()),
    }
}

/// A run's generations with their rounds and audits.
struct Rows {
    generations: Vec<(GenerationRecord, Vec<RoundRecord>)>,
    audits: BTreeMap<GenerationId, AuditRecord>,
}

impl Rows {
    fn read(reader: &RunReader) -> Result<Rows, Error> {
        let mut generations = Vec::new();
        for record in reader.generations() {
            let record = record?;
            let rounds = reader.rounds(record.id)?;
            generations.push((record, rounds));
        }
        let audits = reader.audits().map(|audit| audit.map(|audit| (audit.id, audit))).collect::<Result<_, _>>()?;
        Ok(Rows { generations, audits })
    }

    fn all(&self) -> Vec<GenerationRows<'_>> {
        self.generations
            .iter()
            .map(|(record, rounds)| GenerationRows { record, rounds, audit: self.audits.get(&record.id) })
            .collect()
    }
}
